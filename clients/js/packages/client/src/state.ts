// The state of the machine, its actions and its effects. The machine has no clock, no randomness and no I/O: the caller passes
// the time with each action, and carries the effects out.
import type { ClientFrame, NativeError, NativeEvent, ServerFrame } from "./frames.js";
import { newLog, type Log } from "./log.js";
import type { ChatError, ConnectionSnapshot, ConversationItem, Marks, Presence } from "./types.js";

/** A command of the user that the server has not confirmed. It is stored as it is, so it holds only JSON. */
export interface Command {
  /** What is sent, but for the seq and the conversation that are not known yet. */
  frame: CommandFrame;
  /** Its user; undefined if it was made before the first connect. */
  user?: string;
  /** The client_id of the own message that it changes, if that one has no seq yet. */
  target?: string;
  /** The epoch of its seq; undefined if it was made before the first connect. */
  epoch?: number;
  createdAt: string;
  /** Its place in the order of all commands. */
  order: number;
  failed?: ChatError;
}

export interface CommandFrame {
  type: "send" | "edit" | "delete" | "react";
  client_id: string;
  conversation_id?: string;
  recipient_id?: string;
  content?: string;
  data?: unknown;
  reply_to?: number;
  persona_id?: string;
  seq?: number;
  emoji?: string;
  active?: boolean;
}

/** A command on its way. */
export interface Pending extends Command {
  /** Asked on this socket. */
  sent?: boolean;
}

/** A question to the server, asked again until it is answered. */
export interface Request {
  frame: ClientFrame;
  sent?: boolean;
  waiting?: boolean;
  tries: number;
  /** Asked only on the socket that it was made for. */
  once?: boolean;
  done(answer: ServerFrame): void;
}

export interface Conversation {
  id: string;
  /** The number of stores that show it. */
  opens: number;
  /** Whether this socket listens to it. */
  joined: "no" | "asked" | "yes";
  log: Log;
  loadingOlder?: boolean;
  /** The generation of the log for which the newest page was asked. */
  reading?: number;
  error?: ChatError;
  /** Refused: not to be joined on this socket. */
  refused?: boolean;
  marks: Record<string, Marks>;
  /** Own marks: as wanted, and as the server has them. */
  wanted: Marks;
  marking?: boolean;
  typing: Map<string, string>;
  /** When `typing` was sent last. */
  typedAt?: number;
  /** A timer watches a gap, which was there at this cursor. */
  watching?: number;
  /** The cursor from which a gap was asked for. */
  repaired?: number;
}

export interface State {
  phase: ConnectionSnapshot["state"] | "opening";
  error?: ChatError;
  /** Failed connects in a row. */
  attempt: number;
  /** Refused tokens in a row; and refusals for too many connections. */
  refusals: number;
  /** When this socket was let in. */
  onlineAt?: number;
  /** When the token expires, by the server's clock. */
  expiresAt?: number;
  asking?: boolean;
  token?: string;
  /** The server said when to come back. */
  advice?: number;
  advised?: boolean;
  pinged?: boolean;
  user?: string;
  name?: string;
  epoch?: number;
  ref: number;
  order: number;
  requests: Map<number, Request>;
  outbox: Pending[];
  conversations: Map<string, Conversation>;
  /** Direct conversations by "/" + user. */
  aliases: Map<string, string>;
  list: ListState;
  presence: Map<string, Presence>;
  watched: Map<string, number>;
  config: { pageSize: number; pingInterval: number; pongTimeout: number };
  effects: Effect[];
  /** The keys of the stores whose snapshots changed; the caller empties it. */
  changed: Set<string>;
  now: number;
}

export interface ListState {
  opens: number;
  items: Map<string, ConversationItem>;
  loaded: boolean;
  /** The offset of the next page. */
  next?: number;
  /** The pages that are being read, which will replace the items. */
  building?: Map<string, ConversationItem>;
  /** A timer will cause a reading. */
  soon?: boolean;
}

/** What the caller has to do: the name and its arguments. */
export type Effect =
  | ["askToken" | "dial" | "hangUp" | "wipe"]
  | ["send", frame: ClientFrame]
  /** Act by the key after `ms`, instead of an earlier timer with this key. Without `ms`: never. Below 0: after half to all of it. */
  | ["timer", key: string, ms?: number]
  | ["save", command: Command & { sent?: undefined }]
  | ["drop", clientId: string]
  | ["event", event: NativeEvent]
  | ["answer", id: number, frame: ServerFrame];

/** Keys of stores that no conversation can have: ids have no asterisk. */
export const CONNECTION = "*connection";
export const LIST = "*list";
export const PRESENCE = "*presence";

export function emit(state: State, ...effect: Effect): void {
  state.effects.push(effect);
}

export const changed = (state: State, key: string) => state.changed.add(key);

export const sendFrame = (state: State, frame: ClientFrame) => emit(state, "send", frame);

/** The key of a timer is the action that it causes, with its arguments. */
export const timer = (state: State, key: string, ms?: number) => emit(state, "timer", key, ms);

export const failure = ({ code, message }: ChatError): ChatError => ({ code, message });

/** How long to wait before the n-th repetition: what the server says, else from a second to half a minute, with jitter. */
export const pause = (tries: number, error?: Partial<NativeError>) => error?.retry_after_ms ?? -Math.min(1000 * 2 ** tries, 30_000);

export function conversationOf(state: State, key: string): Conversation {
  const id = state.aliases.get(key) ?? key;
  let conversation = state.conversations.get(id);
  if (!conversation) {
    conversation = {
      id, opens: 0, joined: "no", log: newLog(), marks: {}, wanted: { delivered: 0, read: 0 },
      typing: new Map(),
    };
    state.conversations.set(id, conversation);
  }
  return conversation;
}
