// The machine: one function takes the state, an action and the time, changes the state, and returns effects.
// The same state, action and time give the same result, so tests and vectors can replay anything.
import * as conversations from "./conversations.js";
import type { NativeAuthenticated, NativeError, NativeReceipt, ServerFrame } from "./frames.js";
import * as list from "./list.js";
import { receive, restart, type Log, type LogEntry } from "./log.js";
import * as outbox from "./outbox.js";
import { answerRequest, request, resetRequests, askAgain, sendRequests } from "./requests.js";
import * as session from "./session.js";
import { changed, CONNECTION, conversationOf, emit, failure, type Command, type Effect, type State } from "./state.js";

/** What a storage kept. */
export interface Restored {
  user?: string;
  epoch?: number;
  commands: Command[];
  logs: Record<string, Pick<Log, "cursor" | "messages" | "before">>;
}

export function newState(config: Partial<State["config"]> = {}): State {
  return {
    phase: "idle", attempt: 0, refusals: 0, ref: 0, order: 0,
    requests: new Map(), outbox: [], conversations: new Map(), aliases: new Map(),
    list: { opens: 0, items: new Map(), loaded: false }, presence: new Map(), watched: new Map(),
    config: { pageSize: 50, pingInterval: 25_000, pongTimeout: 10_000, ...config }, effects: [], changed: new Set(), now: 0,
  };
}

/** What happens outside, what the user does, and what timers cause. */
export const actions = {
  connect: session.connect,
  wake: session.wake,
  close: (state: State) => end(state, () => session.stop(state)),
  restore,
  token(state: State, token: string | null | undefined) {
    state.asking = false;
    if (token) session.onToken(state, token);
    else end(state, () => session.stop(state, { code: "signed_out", message: "No token" }));
  },
  tokenError(state: State, message: string) {
    state.asking = false;
    session.onTokenError(state, message);
  },
  opened: session.onOpened,
  frame: onFrame,
  closed: onClosed,
  silent: (state: State) => onClosed(state, 1006, "Silent"),
  refresh: session.refresh,
  probe: session.probe,

  open(state: State, key: string) {
    conversations.open(state, key);
    list.readListSoon(state);
  },
  shut: conversations.shut,
  loadOlder: conversations.loadOlder,
  setTyping: conversations.setTyping,
  typed: conversations.typed,
  markRead,
  join: conversations.join,
  gap: conversations.gap,
  leave: conversations.leave,
  tellMarks: conversations.tellMarks,

  command: outbox.addCommand,
  discard: outbox.discardCommand,

  watchList(state: State, by: number) {
    state.list.opens += by;
    list.readListSoon(state);
  },
  loadMore: list.loadMore,
  readList: list.readList,
  watch: list.watch,
  askPresence: list.askPresence,

  request: (state: State, id: number, frame: any) => request(state, frame, (answer) => emit(state, "answer", id, answer)),
  askAgain,
};

type Actions = typeof actions;
type Tail<T extends unknown[]> = T extends [unknown, ...infer Rest] ? Rest : [];
/** The name of an action and its arguments. */
export type Action = { [K in keyof Actions]: [K, ...Tail<Parameters<Actions[K]>>] }[keyof Actions];

export function step(state: State, now: number, [name, ...args]: Action): Effect[] {
  state.now = now;
  state.effects = [];
  (actions[name] as (state: State, ...args: any[]) => void)(state, ...args);
  return state.effects;
}

function markRead(state: State, key: string, seq = Infinity): void {
  const conversation = conversationOf(state, key);
  const { wanted, log, id } = conversation;
  const to = Math.min(seq, log.messages.at(-1)?.seq ?? 0);
  if (to <= wanted.read) return;
  wanted.read = to;
  changed(state, id);
  list.onRead(state, id, to);
  conversations.mark(state, conversation);
}

/** Takes over what a storage kept, before the first connect. What the user did meanwhile comes after it. */
function restore(state: State, { user, epoch, commands, logs }: Restored): void {
  state.user ??= user;
  state.epoch ??= epoch;
  commands.sort((a, b) => a.order - b.order);
  state.order += Math.max(0, ...commands.map((one) => one.order));
  const known = new Set(commands.map((one) => one.frame.client_id));
  const since = state.outbox.filter((one) => !known.has(one.frame.client_id));
  for (const one of since) one.order = ++state.order;
  state.outbox = [...commands, ...since];
  for (const [id, log] of Object.entries(logs)) {
    Object.assign(conversationOf(state, id).log, log, { head: log.cursor, loaded: true });
    changed(state, id);
  }
  for (const one of commands) changed(state, outbox.keyOf(one));
}

function onClosed(state: State, code: number, reason: string): void {
  end(state, () => {
    if (code === 1009) outbox.refuseLarge(state);
    session.onClosed(state, code, reason);
  });
}

/** Ends a socket: what was asked and sent on it is asked and sent again on the next one. */
function end(state: State, how: () => void): void {
  how();
  resetRequests(state);
  outbox.resetCommands(state);
  conversations.resetConversations(state);
}

function onAuthenticated(state: State, frame: NativeAuthenticated): void {
  const { user, epoch } = state;
  // Of another user nothing may show; of another epoch the seqs may have been assigned again.
  const other = user !== undefined && user !== frame.user_id;
  session.onAuthenticated(state, frame);
  for (const one of state.outbox) outbox.claim(state, one);
  if (other) forget(state);
  if (other || (epoch !== undefined && epoch !== frame.epoch)) {
    emit(state, "wipe");
    for (const one of state.conversations.values()) {
      restart(one.log, -1, state.user);
      Object.assign(one, { marks: {}, wanted: { delivered: 0, read: 0 }, marking: false, loadingOlder: false });
      changed(state, one.id);
    }
  }
  conversations.joinAll(state);
  outbox.sendCommands(state);
  sendRequests(state);
  list.readList(state);
  list.askPresence(state);
}

/** Another user signed in. Commands of the one before stay in the storage for their return. */
function forget(state: State): void {
  state.aliases.clear();
  Object.assign(state.list, { items: new Map(), building: undefined, loaded: false });
  state.presence.clear();
  state.requests.clear();
}

const handlers: { [T in ServerFrame["type"]]?: (state: State, frame: any) => void } = {
  authenticated: onAuthenticated,
  error: onError,
  joined: conversations.onUnasked,
  resync: conversations.onUnasked,
  left: conversations.onLeft,
  conversation_added: list.readListSoon,
  conversation_removed: list.onRemoved,
  hint: list.onHint,
  typing: conversations.onTyping,
  receipt: onReceipt,
  presence: list.onPresence,
  event: (state, frame) => emit(state, "event", frame),
  restart: session.onRestart,
};

function onFrame(state: State, frame: ServerFrame): void {
  session.onSignOfLife(state);
  const handler = handlers[frame.type];
  if (answerRequest(state, frame)) return;
  if (handler) handler(state, frame);
  // Whatever else has a seq is an entry, also of a kind that this version does not know.
  else if ("seq" in frame && frame.type !== "ack") onEntry(state, frame as LogEntry);
}

function onEntry(state: State, entry: LogEntry): void {
  const conversation = conversationOf(state, entry.conversation_id);
  if (conversation.opens || conversation.log.cursor >= 0) {
    receive(conversation.log, entry, state.user);
    changed(state, conversation.id);
    conversations.watchGap(state, conversation);
    if (entry.type === "message" && entry.sender_id !== state.user) {
      conversations.typed(state, conversation.id, entry.sender_id);
      conversations.arrived(state, conversation, entry.seq);
    }
  }
  list.onListEntry(state, entry);
  if (entry.type === "message") outbox.onStored(state, entry.sender_id, entry.client_id);
  outbox.sendCommands(state);
}

function onReceipt(state: State, { conversation_id, user_id, delivered_seq, read_seq }: NativeReceipt): void {
  conversations.setMarks(state, conversationOf(state, conversation_id), user_id, delivered_seq, read_seq);
  if (user_id === state.user) list.onRead(state, conversation_id, read_seq);
}

/** An error that answers nothing: of a frame without a ref, or of a persona after the ack. */
function onError(state: State, frame: NativeError): void {
  state.error = failure(frame);
  changed(state, CONNECTION);
}
