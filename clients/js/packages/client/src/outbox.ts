// The outbox: commands in their order, each repeated with the same client_id until the server confirms or refuses it.
// One command of a conversation is on its way at a time, so a refusal of one can't let a later one overtake it.
import type { ClientFrame, NativeAck, NativeError, NativeOk } from "./frames.js";
import { receive, type LogEntry } from "./log.js";
import { changed, conversationOf, emit, failure, pause, sendFrame, timer, type Command, type CommandFrame, type Pending, type State } from "./state.js";
import type { ChatError } from "./types.js";

const ENTRIES = { send: "message", edit: "message_edited", delete: "message_deleted", react: "reaction" };

/** Where a command goes: a conversation's id, or "/" and a user. */
export const keyOf = ({ frame }: Command) => frame.conversation_id ?? `/${frame.recipient_id}`;

export const findCommand = (state: State, clientId: string | undefined) => state.outbox.find((one) => one.frame.client_id === clientId);

export const isMine = ({ user }: State, command: Command) => !command.user || command.user === user;

export function addCommand(state: State, frame: CommandFrame, target?: string): void {
  if (findCommand(state, frame.client_id)) return;
  const command = { frame, target, user: state.user, createdAt: new Date(state.now).toISOString(), order: ++state.order };
  emit(state, "save", command);
  state.outbox.push({ ...command, tries: 0 });
  changed(state, keyOf(command));
  sendCommands(state);
}

/** Stores a command anew, without what belongs to the socket. */
const save = (state: State, { sent, waiting, tries, ...command }: Pending) => emit(state, "save", command);

/** A command that was made before its user was known belongs to the one who signed in. */
export function claim(state: State, command: Pending): void {
  if (command.user) return;
  command.user = state.user;
  save(state, command);
}

/** Removes a command that was confirmed, refused or discarded. */
export function dropCommand(state: State, command: Pending): void {
  state.outbox = state.outbox.filter((one) => one !== command);
  emit(state, "drop", command.frame.client_id);
  changed(state, keyOf(command));
}

/** The entry that a command becomes; before its ack, what it will look like. The socket that sent it gets no copy. */
export function entryOf(state: State, { frame, target, createdAt }: Command, ack?: NativeAck): LogEntry {
  const { log } = conversationOf(state, frame.conversation_id ?? `/${frame.recipient_id}`);
  const target_seq = frame.seq ?? log.messages.find((one) => one.clientId === target && one.senderId === state.user)?.seq;
  return {
    content: "", created_at: createdAt, ...frame, sender_id: state.user ?? "", sender_name: state.name ?? "", target_seq,
    ...ack, type: ENTRIES[frame.type],
  } as any;
}

/** Sends the first command of each conversation that has none on its way. */
export function sendCommands(state: State): void {
  if (state.phase !== "online") return;
  const busy = new Set<string>();
  for (const command of state.outbox) {
    if (command.failed || !isMine(state, command)) continue;
    const { id, joined } = conversationOf(state, keyOf(command));
    if (busy.has(id)) continue;
    busy.add(id);
    // Before the answer to a join, acks would overtake the entries that the join brings.
    if (command.sent || command.waiting || joined === "asked") continue;
    const { frame } = command;
    if (frame.type === "send") sendFrame(state, frame as ClientFrame);
    else {
      const seq = (entryOf(state, command) as { target_seq?: number }).target_seq;
      // Without a seq its message was refused or discarded, or is no longer here.
      if (!seq) {
        if (!findCommand(state, command.target)) refuse(state, command, { code: "not_found", message: "Message not found" });
        continue;
      }
      sendFrame(state, { ...frame, conversation_id: id, recipient_id: undefined, seq } as ClientFrame);
    }
    command.sent = true;
  }
}

/** The command is stored. Returns the entry that it became. */
export function onAck(state: State, command: Pending, ack: NativeAck): LogEntry {
  const entry = entryOf(state, command, ack);
  receive(conversationOf(state, ack.conversation_id).log, entry, state.user);
  dropCommand(state, command);
  return entry;
}

/** A message of this user came as a copy: if it is in the outbox, it is stored, whether or not its ack comes. */
export function onStored(state: State, sender: string, clientId: string | undefined): void {
  const command = sender === state.user && clientId ? findCommand(state, clientId) : undefined;
  if (command) dropCommand(state, command);
}

/** A reaction that changes nothing is confirmed without an entry. */
export function onOk(state: State, frame: NativeOk): void {
  const command = findCommand(state, frame.client_id);
  if (command) dropCommand(state, command);
  sendCommands(state);
}

function refuse(state: State, command: Pending, error: ChatError): void {
  const conversation = conversationOf(state, keyOf(command));
  if (command.frame.type === "send") {
    command.failed = error;
    command.sent = false;
    save(state, command);
    changed(state, conversation.id);
  } else {
    conversation.error = error;
    dropCommand(state, command);
  }
}

export function onCommandError(state: State, frame: NativeError): boolean {
  const command = findCommand(state, frame.client_id);
  if (!command) return false;
  if (frame.code === "persona_failed") {
    // The message itself is stored; its ack comes separately.
    conversationOf(state, keyOf(command)).error = failure(frame);
  } else if (frame.retryable) {
    command.sent = false;
    command.waiting = true;
    timer(state, `resumeCommand ${frame.client_id}`, pause(command.tries++, frame), !frame.retry_after_ms);
  } else refuse(state, command, failure(frame));
  return true;
}

/** The time of a repetition came. */
export function resumeCommand(state: State, clientId: string): void {
  const command = findCommand(state, clientId);
  if (command) command.waiting = false;
  sendCommands(state);
}

/** The user asks to send a failed message again. */
export function retryCommand(state: State, clientId: string): void {
  const command = findCommand(state, clientId);
  if (!command?.failed) return;
  command.failed = undefined;
  save(state, command);
  changed(state, keyOf(command));
  sendCommands(state);
}

export function discardCommand(state: State, clientId: string): void {
  const command = findCommand(state, clientId);
  if (command?.failed) dropCommand(state, command);
}

/** The socket ended: what was not confirmed is sent again on the next one. */
export function resetCommands(state: State): void {
  for (const one of state.outbox) one.sent = one.waiting = false;
}

/** A frame was too large for the server: the longest on its way must be it. Sent again, it would close each socket. */
export function refuseLongest(state: State): void {
  const size = (one: Pending) => JSON.stringify(one).length;
  const longest = state.outbox.filter((one) => one.sent).sort((a, b) => size(b) - size(a))[0];
  if (longest) refuse(state, longest, { code: "too_large", message: "Message too large" });
}
