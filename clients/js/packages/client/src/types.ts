// The public types: options, snapshots and stores.
import type { ClientFrame, NativeEvent, ServerFrame, Status } from "./frames.js";
import type { Restored } from "./machine.js";
import type { Command, State } from "./state.js";

export type { ClientFrame, ServerFrame, Status };

/** A value that changes over time. `getSnapshot` returns the same object until something changes. */
export interface Store<T> {
  /** Calls `listener` after each change, until the returned function is called. */
  subscribe(listener: () => void): () => void;
  getSnapshot(): T;
}

/** Why something failed: the server's `code` for programs, and a text for people. */
export interface ChatError {
  code: string;
  message: string;
}

/** The state of an own message; for messages of others it is "read" up to the own read mark, else "delivered". */
export type MessageStatus = "sending" | "sent" | "delivered" | "read" | "failed";

export interface Reaction {
  emoji: string;
  count: number;
  own: boolean;
}

/** A message as it is stored, without what is still on its way to the server. */
export interface StoredMessage {
  /** Identifies the message in a list. Stays the same when an own message is stored. */
  key: string;
  /** The position in the conversation's log; missing until the server stored the message. */
  seq?: number;
  id?: string;
  clientId?: string;
  senderId: string;
  senderName: string;
  content: string;
  data?: unknown;
  createdAt: string;
  replyTo?: number;
  replies: number;
  isAi?: boolean;
  editedAt?: string;
  deleted?: boolean;
  reactions: readonly Reaction[];
  /** The entry up to which this state is complete; internal. */
  asOf: number;
}

export interface Message extends StoredMessage {
  own: boolean;
  status: MessageStatus;
  /** Why the message failed. */
  error?: ChatError;
}

export interface Typist {
  userId: string;
  name: string;
}

/** How far a member got. */
export interface Marks {
  delivered: number;
  read: number;
}

export interface ConversationSnapshot {
  /** Missing for a direct conversation that doesn't exist yet. */
  id?: string;
  /** In the order of the log, then those that are being sent. */
  messages: readonly Message[];
  /** False until the newest messages are here. */
  loaded: boolean;
  /** True if there are older messages than these. */
  hasOlder: boolean;
  /** True while older messages are being read. */
  loadingOlder: boolean;
  /** Who types, without the own user. */
  typing: readonly Typist[];
  /** How far each known member got, the own user included. */
  marks: Readonly<Record<string, Marks>>;
  /** Why the conversation can't be read, or why the last edit, deletion or reaction was refused. */
  error?: ChatError;
}

export interface SendOptions {
  /** JSON beside the text, at most 8 KiB. */
  data?: unknown;
  /** The `seq` of the message that this one answers. */
  replyTo?: number;
  /** The persona that is asked to answer. */
  personaId?: string;
}

/** Names a message: the message itself, its `seq`, or the `clientId` of an own one. */
export type MessageRef = { seq?: number; clientId?: string } | number | string;

/** A conversation. While it has subscribers, it is kept up to date. */
export interface Conversation extends Store<ConversationSnapshot> {
  /** Sends a message and returns its `clientId`. It is in the list at once, and stored exactly once. */
  send(content: string, options?: SendOptions): string;
  edit(message: MessageRef, content: string, options?: { data?: unknown }): void;
  delete(message: MessageRef): void;
  /** Adds a reaction, or takes it back with `active` false. */
  react(message: MessageRef, emoji: string, active?: boolean): void;
  /** Sends a failed message again, after all others. */
  retry(clientId: string): void;
  /** Drops a failed message. */
  discard(clientId: string): void;
  loadOlder(): void;
  /** Tells the others that the user types: call it on each input. An empty text or false says that the user stopped. */
  setTyping(active: boolean | string): void;
  /** Marks the conversation as read up to `seq`, by default to the newest message. */
  markRead(seq?: number): void;
}

export interface Presence {
  online: boolean;
  status: Status;
  lastSeen?: string;
}

export interface Member extends Partial<Presence> {
  userId: string;
  name?: string;
}

export interface ConversationItem {
  id: string;
  name?: string;
  description?: string;
  isGroup: boolean;
  createdAt: string;
  updatedAt: string;
  /** The newest seq of the log. */
  head: number;
  unread: number;
  archived: boolean;
  lastMessage?: { seq: number; senderId: string; senderName: string; content: string; createdAt: string; deleted?: boolean };
  /** At most 100. */
  members: readonly Member[];
}

export interface ConversationsSnapshot {
  /** Most recently active first. */
  conversations: readonly ConversationItem[];
  loaded: boolean;
  hasMore: boolean;
}

export interface Conversations extends Store<ConversationsSnapshot> {
  loadMore(): void;
}

export interface ConnectionSnapshot {
  /** "idle" before the first use, "waiting" before another try, "closed" after `close` or a refusal (see `error`). */
  state: "idle" | "connecting" | "online" | "waiting" | "closed";
  userId?: string;
  name?: string;
  /** Why the connection ended last. */
  error?: ChatError;
}

type RequestType = "history" | "search" | "conversations" | "archive" | "status" | "event";
/** A question that has one answer; its `ref` is the client's affair. */
export type RequestFrame = { [T in RequestType]: Omit<Extract<ClientFrame, { type: T }>, "ref"> }[RequestType];

export interface Chat {
  readonly connection: Store<ConnectionSnapshot>;
  conversation(id: string): Conversation;
  /** The direct conversation with a user. The first message creates it. */
  dm(userId: string): Conversation;
  conversations(): Conversations;
  presence(userIds: readonly string[]): Store<Readonly<Record<string, Presence>>>;
  /** Asks the server, again after retryable errors and reconnects. Rejects with a ChatError. */
  request(frame: RequestFrame): Promise<ServerFrame>;
  /** Calls `listener` for each event of other users, until the returned function is called. */
  onEvent(listener: (event: NativeEvent) => void): () => void;
  /** Connects now; otherwise the first subscription or message does. Also starts again after `close` or a refusal. */
  connect(): void;
  /** Checks the connection at once; for platforms that don't tell when they wake (React Native's AppState). */
  wake(): void;
  /** Closes the connection until `connect`. */
  close(): void;
}

/** Keeps the outbox, and optionally messages, over reloads. `@switchboard/client/storage` makes one. */
export interface ChatStorage {
  load(): Promise<Restored>;
  save(command: Command): void;
  drop(clientId: string): void;
  changed?(keys: ReadonlySet<string>, state: State): void;
  wipe?(): void;
}

/** The part of the WebSocket interface that the client uses. */
export interface SocketLike {
  send(data: string): void;
  close(code?: number): void;
  onopen: ((event: any) => void) | null;
  onmessage: ((event: any) => void) | null;
  onclose: ((event: any) => void) | null;
  onerror: ((event: any) => void) | null;
}

export interface ChatOptions {
  /** The server: wss://chat.example.com. */
  url: string;
  /** Returns a token of the signed-in user. Called at every connect and before expiry, one call at a time. */
  getToken(context: { signal?: AbortSignal }): string | null | undefined | Promise<string | null | undefined>;
  /** Where the platform has no WebSocket: Node.js before 22 takes the one of `ws`. */
  WebSocket?: new (url: string) => SocketLike;
  storage?: ChatStorage;
  /** Messages on a page of history: 1 to 100, by default 50. */
  pageSize?: number;
  /** Milliseconds between pings, by default 25,000. */
  pingInterval?: number;
  /** Milliseconds without any frame after a ping until the connection counts as dead, by default 10,000. */
  pongTimeout?: number;
}
