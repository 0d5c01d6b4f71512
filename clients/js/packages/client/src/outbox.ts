// The outbox: commands in their order, each repeated with the same client_id until the server confirms or refuses it.
// One command of a conversation is on its way at a time, so a refusal of one can't let a later one overtake it.
import { watchGap } from "./conversations.js";
import type { ClientFrame, NativeAck, NativeReaction, ServerFrame } from "./frames.js";
import { onListEntry, resolveDirect } from "./list.js";
import { receive, type LogEntry } from "./log.js";
import { request } from "./requests.js";
import { changed, conversationOf, emit, failure, type Command, type CommandFrame, type Pending, type State } from "./state.js";
import type { ChatError } from "./types.js";

/** Shorter frames fit into the smallest MAX_FRAME_BYTES that is of use. */
const LARGE = 16_000;
const ENTRIES = { send: "message", edit: "message_edited", delete: "message_deleted", react: "reaction" };

/** Where a command goes: a conversation's id, or "/" and a user. */
export const keyOf = ({ frame }: Command) => frame.conversation_id ?? `/${frame.recipient_id}`;

export const findCommand = (state: State, clientId: string | undefined) => state.outbox.find((one) => one.frame.client_id === clientId);

export const isMine = ({ user }: State, command: Command) => !command.user || command.user === user;

export function addCommand(state: State, frame: CommandFrame, target?: string): void {
  if (findCommand(state, frame.client_id)) return;
  const command = { frame, target, user: state.user, epoch: state.epoch, createdAt: new Date(state.now).toISOString(), order: ++state.order };
  emit(state, "save", command);
  state.outbox.push(command);
  changed(state, keyOf(command));
  sendCommands(state);
}

/** Stores a command anew, without what belongs to the socket. */
const save = (state: State, command: Pending) => emit(state, "save", { ...command, sent: undefined });

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
export function entryOf(state: State, command: Command, ack?: NativeAck): LogEntry {
  const { frame, target, createdAt, epoch } = command;
  const { log } = conversationOf(state, keyOf(command));
  // A seq of another epoch may be another message's by now.
  const target_seq = frame.seq ? ((epoch ?? state.epoch) === state.epoch ? frame.seq : 0)
    : log.messages.find((one) => one.clientId === target && one.senderId === state.user)?.seq;
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
    // Before the answer to a join, acks would overtake the entries that the join brings.
    if (busy.has(id) || joined === "asked") continue;
    const { frame, sent } = command;
    const named = frame.type === "send" ? frame : { ...frame, recipient_id: undefined, conversation_id: id, seq: (entryOf(state, command) as NativeReaction).target_seq };
    if (!sent && frame !== named && !named.seq) {
      // Its message was refused or discarded, or is no longer here. One that failed waits for the user, and holds up nothing.
      if (!findCommand(state, command.target)) refuse(state, command, { code: "not_found", message: "Not found" });
      continue;
    }
    busy.add(id);
    if (sent) continue;
    command.sent = true;
    request(state, named as ClientFrame, (answer) => onAnswer(state, command, answer), true);
  }
}

/** The server confirmed a command, or refused it for good. Of one that was dropped meanwhile nothing is to do. */
function onAnswer(state: State, command: Pending, answer: ServerFrame): void {
  const { type } = answer;
  if (type === "ack") {
    const id = answer.conversation_id;
    if (command.frame.recipient_id) resolveDirect(state, keyOf(command), id);
    const entry = entryOf(state, command, answer);
    const conversation = conversationOf(state, id);
    receive(conversation.log, entry, state.user);
    watchGap(state, conversation);
    onListEntry(state, entry);
  }
  if (type === "error") refuse(state, command, answer);
  // Without an ack: a reaction that changes nothing.
  else dropCommand(state, command);
  sendCommands(state);
}

/** A message of this user came as a copy: if it is in the outbox, it is stored, whether or not its ack comes. */
export function onStored(state: State, sender: string, clientId: string | undefined): void {
  const command = sender === state.user && clientId ? findCommand(state, clientId) : undefined;
  if (command) dropCommand(state, command);
}

function refuse(state: State, command: Pending, error: ChatError): void {
  const why = failure(error);
  if (command.frame.type === "send") {
    command.failed = why;
    command.sent = false;
    save(state, command);
    changed(state, keyOf(command));
  } else {
    conversationOf(state, keyOf(command)).error = why;
    dropCommand(state, command);
  }
}

/** The user drops a failed message, or sends it again after all others. */
export function discardCommand(state: State, clientId: string, again?: boolean): void {
  const command = findCommand(state, clientId);
  if (!command?.failed) return;
  dropCommand(state, command);
  if (again) addCommand(state, command.frame);
  // Edits of it end with it.
  sendCommands(state);
}

/** The socket ended: what was not confirmed is sent again on the next one. */
export function resetCommands(state: State): void {
  for (const one of state.outbox) one.sent = false;
}

/** A frame was too large for the server. Sent again, it would close each socket. */
export function refuseLarge(state: State): void {
  const found = state.outbox.find((one) => one.sent && JSON.stringify(one).length > LARGE);
  if (found) refuse(state, found, { code: "too_large", message: "Too large" });
}
