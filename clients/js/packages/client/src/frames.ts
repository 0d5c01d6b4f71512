// Made from docs/protocol/asyncapi.yaml by scripts/frames.mjs; don't edit.

/** From clients, ids may also be whole numbers. */
export type AnyId = Id | number;

/** What makes a send safe to repeat; unique for each conversation and sender. */
export type ClientId = string;

/** What programs read; the words beside it are for people. */
export type Code = "invalid" | "unknown_type" | "invalid_token" | "token_expired" | "token_revoked" | "blocked" | "auth_timeout" | "not_member" | "forbidden" | "not_found" | "conflict" | "too_many_reactions" | "rate_limited" | "too_many_connections" | "too_many_connections_maybe" | "too_many_conversations" | "overloaded" | "too_slow" | "unavailable" | "unknown" | "unsupported" | "persona_failed";

export type Count = number;

/** JSON beside the text, which the server doesn't read: attachments, mentions, ciphertext. At most 8 KiB without the blanks between its tokens (MAX_DATA_BYTES). At most 30 levels, no key twice in one object, no number beyond the range of a double, no U+0000 and no lone surrogate in a text. Delivered as it was sent, without those blanks. */
export type Data = unknown;

/** The data from now on; `null` removes it. Left out, the message keeps its data. */
export type DataChange = unknown;

export type Emoji = string;

/** The seq of an entry. */
export type EntrySeq = number;

/** JSON of an event, which the server doesn't read. At most 4 KiB; the other rules are those of the data of a message. */
export type EventData = unknown;

export type EventName = string;

export type Id = string;

export type Milliseconds = number;

export type Name = string;

export type NativeConversation = {
  conversation_id: Id;
  name?: string;
  description?: string;
  is_group: boolean;
  open: boolean;
  created_by: Id;
  created_at: Time;
  updated_at: Time;
  last_message?: NativeLastMessage;
  head: number;
  unread: Count;
  archived: boolean;
  members: NativeConversationMember[];
};

export type NativeConversationMember = {
  user_id: Id;
  name?: Name;
  delivered_seq: number;
  read_seq: number;
  online?: boolean;
  status?: Status;
  last_seen?: Time;
};

export type NativeFoundMessage = {
  conversation_id: Id;
  seq: Seq;
  id: Uuid;
  sender_id: Id;
  sender_name: Name;
  content: SaidContent;
  data?: Data;
  created_at: Time;
  client_id?: ClientId;
  reply_to?: Seq;
  is_ai?: boolean;
  edited_at?: Time;
  deleted?: boolean;
};

export type NativeHistoryMessage = {
  conversation_id: Id;
  seq: Seq;
  id: Uuid;
  sender_id: Id;
  sender_name: Name;
  content: SaidContent;
  data?: Data;
  created_at: Time;
  client_id?: ClientId;
  reply_to?: Seq;
  is_ai?: boolean;
  edited_at?: Time;
  deleted?: boolean;
  reactions?: {
    emoji: string;
    count: Count;
    /** Whether the reader is one of them. */
    own: boolean;
  }[];
  /** True if it has more different reactions than the 50 that are shown. */
  more_reactions?: boolean;
  replies?: Count;
};

export type NativeLastMessage = {
  conversation_id: Id;
  seq: Seq;
  id: Uuid;
  sender_id: Id;
  sender_name: Name;
  content: string;
  created_at: Time;
  client_id?: ClientId;
  reply_to?: Seq;
  is_ai?: boolean;
  edited_at?: Time;
  deleted?: boolean;
};

export type NativePresent = {
  user_id: Id;
  online: boolean;
  status: Status;
  last_seen?: Time;
};

export type NativeSyncedOne = {
  conversation_id: Id;
  head?: Seq;
  resync?: {
    first_seq: Seq;
  };
  error?: {
    code: Code;
    message: Words;
    retryable: boolean;
  };
};

/** Any JSON up to 256 bytes, given back as it came. */
export type Ref = unknown;

/** Empty where the message was deleted, and where only `data` was sent. */
export type SaidContent = string;

/** 1 to 5,000 characters, at least one of them visible. Beside `data` it may be empty or left out. */
export type SentContent = string;

/** A position in a log; 0 stands before the first entry. */
export type Seq = number;

export type Status = "online" | "away" | "dnd" | "invisible";

/** RFC 3339 in UTC. */
export type Time = string;

export type Token = string;

export type Uuid = string;

export type Words = string;

/** The token, where it stands nowhere else; the first frame. */
export interface NativeAuthenticateFromClient {
  type: "authenticate";
  token: Token;
  ref?: Ref;
}

/** A fresh token of the same user, to stay longer. */
export interface NativeRefreshFromClient {
  type: "refresh";
  token: Token;
  ref?: Ref;
}

/** Listen to a conversation; with since_seq, from there on. */
export interface NativeJoinFromClient {
  type: "join";
  conversation_id: AnyId;
  since_seq?: Seq;
  /** True to get user_joined and user_left. */
  roster?: boolean;
  ref?: Ref;
}

/** Stop listening. Membership stays. */
export interface NativeLeaveFromClient {
  type: "leave";
  conversation_id: AnyId;
  ref?: Ref;
}

/** Listen to many conversations, each from the seq given; at most 1,000 in a frame. */
export interface NativeSyncFromClient {
  type: "sync";
  conversations: Record<string, Seq>;
  /** True to get user_joined and user_left. */
  roster?: boolean;
  ref?: Ref;
}

/** Send a message to a conversation or to a user; one of the two is named. */
export interface NativeSendFromClient {
  type: "send";
  conversation_id?: AnyId;
  recipient_id?: AnyId;
  content?: SentContent;
  data?: Data;
  client_id?: AnyId;
  reply_to?: EntrySeq;
  persona_id?: AnyId;
  ref?: Ref;
}

/** Change a message of one's own. */
export interface NativeEditFromClient {
  type: "edit";
  conversation_id: AnyId;
  seq: EntrySeq;
  content?: SentContent;
  data?: DataChange;
  client_id?: AnyId;
  ref?: Ref;
}

/** Take a message back. */
export interface NativeDeleteFromClient {
  type: "delete";
  conversation_id: AnyId;
  seq: EntrySeq;
  client_id?: AnyId;
  ref?: Ref;
}

/** React to a message, or take that back. */
export interface NativeReactFromClient {
  type: "react";
  conversation_id: AnyId;
  seq: EntrySeq;
  emoji: Emoji;
  active?: boolean;
  client_id?: AnyId;
  ref?: Ref;
}

/** An event for the listeners of a conversation, or for a user's sockets; exactly one of the two. It is never stored. */
export interface NativeEventFromClient {
  type: "event";
  conversation_id?: AnyId;
  recipient_id?: AnyId;
  name: EventName;
  data?: EventData;
  ref?: Ref;
}

/** One types, or stopped. */
export interface NativeTypingFromClient {
  type: "typing";
  conversation_id: AnyId;
  active?: boolean;
  ref?: Ref;
}

/** How far one has read (seq) and what has arrived (delivered_seq); at least one of the two. */
export interface NativeReadFromClient {
  type: "read";
  conversation_id: AnyId;
  seq?: EntrySeq;
  delivered_seq?: EntrySeq;
  ref?: Ref;
}

/** Who of these is online? At most 1,000. */
export interface NativePresenceFromClient {
  type: "presence";
  user_ids: AnyId[];
  ref?: Ref;
}

/** How one wishes to be seen. */
export interface NativeStatusFromClient {
  type: "status";
  status: Status;
  ref?: Ref;
}

/** Read messages, newest first. */
export interface NativeHistoryFromClient {
  type: "history";
  conversation_id: AnyId;
  /** The newest ones before it. Of before_seq, after_seq and around_seq, one at most. */
  before_seq?: EntrySeq;
  /** The oldest ones after it. */
  after_seq?: Seq;
  /** This one and those next to it, half of the page on each side. Not with an offset. */
  around_seq?: EntrySeq;
  thread_seq?: EntrySeq;
  limit?: number;
  offset?: number;
  ref?: Ref;
}

/** Find messages in one's own conversations, newest first: all words occur, the last one may be a beginning. */
export interface NativeSearchFromClient {
  type: "search";
  words: string;
  conversation_id?: AnyId;
  limit?: number;
  offset?: number;
  ref?: Ref;
}

/** List one's conversations, the last active first: the archived ones, or the others. */
export interface NativeConversationsFromClient {
  type: "conversations";
  archived?: boolean;
  limit?: number;
  offset?: number;
  ref?: Ref;
}

/** Who is a member of this conversation, and how far did each read? At most the first 1,000. */
export interface NativeMembersFromClient {
  type: "members";
  conversation_id: AnyId;
  ref?: Ref;
}

/** Put a conversation out of one's own sight, or back. */
export interface NativeArchiveFromClient {
  type: "archive";
  conversation_id: AnyId;
  archived?: boolean;
  ref?: Ref;
}

/** Is anybody there? */
export interface NativePingFromClient {
  type: "ping";
  ref?: Ref;
}

/** The client is let in. */
export interface NativeAuthenticated {
  type: "authenticated";
  user_id: Id;
  name: Name;
  connection_id: Uuid;
  expires_at: Time;
  server_time?: Time;
  /** Changes if the store was set back to an earlier state: seqs of another epoch may have been assigned again. */
  epoch: number;
}

/** The socket may stay until then. */
export interface NativeRefreshed {
  type: "refreshed";
  ref?: Ref;
  expires_at: Time;
}

/** The socket listens; what comes after head follows. Without ref: it joined by itself what its user was added to. */
export interface NativeJoined {
  type: "joined";
  ref?: Ref;
  conversation_id: Id;
  head: Seq;
}

/** Not all that was missed will come: read it with history. What comes after head follows. */
export interface NativeResync {
  type: "resync";
  ref?: Ref;
  conversation_id: Id;
  first_seq: Seq;
  head: Seq;
}

/** The socket no longer listens. Without ref: its user was removed. */
export interface NativeLeft {
  type: "left";
  ref?: Ref;
  conversation_id: Id;
}

/** The answer to sync, one for each conversation, in the order of the frame. */
export interface NativeSynced {
  type: "synced";
  ref?: Ref;
  conversations: NativeSyncedOne[];
  /** True if another part of the answer follows. */
  more?: boolean;
}

/** It is stored. duplicate: it was so already. */
export interface NativeAck {
  type: "ack";
  ref?: Ref;
  client_id?: ClientId;
  conversation_id: Id;
  seq: Seq;
  id: Uuid;
  created_at: Time;
  duplicate?: boolean;
}

/** A message, to all who listen but the socket that sent it. */
export interface NativeMessage {
  type: "message";
  conversation_id: Id;
  seq: Seq;
  id: Uuid;
  sender_id: Id;
  sender_name: Name;
  content: SaidContent;
  data?: Data;
  created_at: Time;
  client_id?: ClientId;
  reply_to?: Seq;
  is_ai?: boolean;
  edited_at?: Time;
  deleted?: boolean;
}

/** A message was changed. */
export interface NativeMessageEdited {
  type: "message_edited";
  conversation_id: Id;
  seq: Seq;
  sender_id: Id;
  created_at: Time;
  target_seq: Seq;
  target_id: Uuid;
  content: SaidContent;
  data?: DataChange;
}

/** A message was taken back. */
export interface NativeMessageDeleted {
  type: "message_deleted";
  conversation_id: Id;
  seq: Seq;
  sender_id: Id;
  created_at: Time;
  target_seq: Seq;
  target_id: Uuid;
}

/** Somebody reacted, or took that back. */
export interface NativeReaction {
  type: "reaction";
  conversation_id: Id;
  seq: Seq;
  sender_id: Id;
  created_at: Time;
  target_seq: Seq;
  target_id: Uuid;
  emoji: Emoji;
  active: boolean;
}

/** Somebody became a member. */
export interface NativeMemberAdded {
  type: "member_added";
  conversation_id: Id;
  seq: Seq;
  sender_id: Id;
  created_at: Time;
  user_id: Id;
}

/** Somebody is no longer a member. */
export interface NativeMemberRemoved {
  type: "member_removed";
  conversation_id: Id;
  seq: Seq;
  sender_id: Id;
  created_at: Time;
  user_id: Id;
}

/** The user became a member of a conversation; joined follows. */
export interface NativeConversationAdded {
  type: "conversation_added";
  conversation_id: Id;
  since_seq: Seq;
  created_at: Time;
}

/** The user is no longer a member. */
export interface NativeConversationRemoved {
  type: "conversation_removed";
  conversation_id: Id;
  created_at: Time;
}

/** A message came that the user has not read, while they were away. */
export interface NativeNotification {
  type: "notification";
  conversation_id: Id;
  from_seq: Seq;
  created_at: Time;
}

/** A conversation to which the socket does not listen has a new message. */
export interface NativeHint {
  type: "hint";
  conversation_id: Id;
  head: Seq;
  unread: number;
}

/** An event of somebody: for those who listen to the conversation, or for this user if it names none. */
export interface NativeEvent {
  type: "event";
  conversation_id?: Id;
  user_id: Id;
  name: EventName;
  data?: EventData;
  timestamp: Time;
}

/** Somebody types, or stopped. */
export interface NativeTyping {
  type: "typing";
  conversation_id: Id;
  user_id: Id;
  name: Name;
  active: boolean;
}

/** How far somebody has got. */
export interface NativeReceipt {
  type: "receipt";
  conversation_id: Id;
  user_id: Id;
  delivered_seq: Seq;
  read_seq: Seq;
}

/** A user's first socket began to listen; for sockets that joined with roster. */
export interface NativeUserJoined {
  type: "user_joined";
  conversation_id: Id;
  user_id: Id;
  name: Name;
}

/** A user's last socket ended to listen; for sockets that joined with roster. */
export interface NativeUserLeft {
  type: "user_left";
  conversation_id: Id;
  user_id: Id;
  name: Name;
}

/** A user came, went, or changed status; once, whatever the number of shared conversations. */
export interface NativePresence {
  type: "presence";
  user_id: Id;
  online: boolean;
  status: Status;
}

/** The answer to history. */
export interface NativeHistory {
  type: "history";
  ref?: Ref;
  conversation_id: Id;
  /** Newest first. */
  messages: NativeHistoryMessage[];
  total: Count;
  /** The newest seq of the conversation at the time of the page, which shows every change up to it and none after it. */
  as_of: Seq;
  /** The before_seq of the next page of older ones. Left out if there are none. */
  next_before_seq?: EntrySeq;
  /** With after_seq or around_seq: the after_seq of the next page of newer ones. Left out if there are none. */
  next_after_seq?: EntrySeq;
}

/** The answer to search. */
export interface NativeFound {
  type: "found";
  ref?: Ref;
  messages: NativeFoundMessage[];
  /** The offset of the next page, which may be empty. Left out on the last one. */
  next_offset?: Count;
}

/** The answer to conversations, each with its first hundred members. */
export interface NativeConversations {
  type: "conversations";
  status: Status;
  ref?: Ref;
  conversations: NativeConversation[];
  total: Count;
  /** The offset of the next page. Left out on the last one. */
  next_offset?: Count;
}

/** The answer to members, without presence. */
export interface NativeMembers {
  type: "members";
  ref?: Ref;
  conversation_id: Id;
  members: NativeConversationMember[];
  /** True if another part of the answer follows. */
  more?: boolean;
}

/** The answer to presence. */
export interface NativePresenceList {
  type: "presence_list";
  ref?: Ref;
  users: NativePresent[];
  /** True if another part of the answer follows. */
  more?: boolean;
}

/** Done. With `client_id` if it answers a reaction that changes nothing. */
export interface NativeOk {
  type: "ok";
  ref?: Ref;
  client_id?: ClientId;
}

/** The answer to ping. */
export interface NativePong {
  type: "pong";
  ref?: Ref;
}

/** The node goes away; the close follows. */
export interface NativeRestart {
  type: "restart";
  retry_after_ms: Milliseconds;
}

/** Refused. */
export interface NativeError {
  type: "error";
  ref?: Ref;
  code: Code;
  message: Words;
  retryable: boolean;
  client_id?: ClientId;
  retry_after_ms?: Milliseconds;
}

/** A frame that a client sends. */
export type ClientFrame =
  | NativeAuthenticateFromClient
  | NativeRefreshFromClient
  | NativeJoinFromClient
  | NativeLeaveFromClient
  | NativeSyncFromClient
  | NativeSendFromClient
  | NativeEditFromClient
  | NativeDeleteFromClient
  | NativeReactFromClient
  | NativeEventFromClient
  | NativeTypingFromClient
  | NativeReadFromClient
  | NativePresenceFromClient
  | NativeStatusFromClient
  | NativeHistoryFromClient
  | NativeSearchFromClient
  | NativeConversationsFromClient
  | NativeMembersFromClient
  | NativeArchiveFromClient
  | NativePingFromClient;

/** A frame that the server sends. */
export type ServerFrame =
  | NativeAuthenticated
  | NativeRefreshed
  | NativeJoined
  | NativeResync
  | NativeLeft
  | NativeSynced
  | NativeAck
  | NativeMessage
  | NativeMessageEdited
  | NativeMessageDeleted
  | NativeReaction
  | NativeMemberAdded
  | NativeMemberRemoved
  | NativeConversationAdded
  | NativeConversationRemoved
  | NativeNotification
  | NativeHint
  | NativeEvent
  | NativeTyping
  | NativeReceipt
  | NativeUserJoined
  | NativeUserLeft
  | NativePresence
  | NativeHistory
  | NativeFound
  | NativeConversations
  | NativeMembers
  | NativePresenceList
  | NativeOk
  | NativePong
  | NativeRestart
  | NativeError;
