// The log of one conversation: which entries were applied, and the messages that they make.
// Entries may come in any order and repeatedly; each takes effect once, in the order of seq.
import type { NativeHistory, NativeHistoryMessage, NativeMemberAdded, NativeMemberRemoved, NativeMessage,
  NativeMessageDeleted, NativeMessageEdited, NativeReaction } from "./frames.js";
import type { Reaction, StoredMessage } from "./types.js";

/** A frame that is an entry of a log. */
export type LogEntry = NativeMessage | NativeMessageEdited | NativeMessageDeleted | NativeReaction | NativeMemberAdded | NativeMemberRemoved;

export interface Log {
  /** Every entry up to this seq was applied. Never an ack's own seq, unless nothing before it is missing. -1: unknown. */
  cursor: number;
  /** The newest seq that is known to exist. */
  head: number;
  messages: StoredMessage[];
  /** Entries beyond a gap, by seq. They wait for those before them. */
  held: Map<number, LogEntry>;
  /** Entries that were applied since a page was requested: the page may not show them. */
  recent?: LogEntry[];
  /** False until the newest page came, and again when it must replace what is here. */
  loaded: boolean;
  /** The `before_seq` of the next older page. */
  before?: number;
  /** Counts replacements, so that pages that were requested before one are not added after it. */
  generation: number;
}

export const newLog = (): Log => ({ cursor: -1, head: -1, messages: [], held: new Map(), loaded: false, generation: 0 });

/** True if entries are missing that exist. */
export const hasGap = (log: Log) => log.cursor >= 0 && log.cursor < log.head;

/** A frame with its fields in camel case, but for what is the application's own. */
export function camel(value: any): any {
  if (Array.isArray(value)) return value.map(camel);
  if (!value || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(([key, one]) =>
    [key.replace(/_(.)/g, (_, letter) => letter.toUpperCase()), key === "data" ? one : camel(one)]));
}

export const toMessage = (frame: NativeMessage | NativeHistoryMessage, asOf: number): StoredMessage => ({
  replies: 0, reactions: [], ...camel(frame), key: frame.client_id ? `${frame.sender_id}/${frame.client_id}` : frame.id, asOf,
});

/** The index of the message with this seq, or where it would be inserted. */
export function position(messages: readonly StoredMessage[], seq: number): number {
  let low = 0;
  let high = messages.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (messages[middle]!.seq! < seq) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Reactions after one was added or taken back; `own` tells whether the reader did it. */
function changeReactions(reactions: readonly Reaction[], emoji: string, active: boolean, own: boolean): Reaction[] {
  const old = reactions.find((one) => one.emoji === emoji);
  const count = (old?.count ?? 0) + (active ? 1 : -1);
  const changed = { emoji, count, own: own ? active : !!old?.own };
  return (old ? reactions.map((one) => (one === old ? changed : one)) : [...reactions, changed]).filter((one) => one.count > 0);
}

function insert(log: Log, entry: NativeMessage): void {
  const at = position(log.messages, entry.seq);
  if (log.messages[at]?.seq === entry.seq) return;
  log.messages = log.messages.slice();
  log.messages.splice(at, 0, toMessage(entry, entry.seq));
}

/** A message after an entry that is about it: an answer, an edit, a deletion, a reaction. */
export function change<M extends StoredMessage>(message: M, entry: LogEntry, user: string | undefined): M {
  const changed = { ...message, asOf: entry.seq };
  if (entry.type === "message") changed.replies++;
  else if (entry.type === "message_deleted") Object.assign(changed, { deleted: true, content: "", data: undefined, reactions: [] });
  else if (message.deleted) return changed;
  else if (entry.type === "reaction") {
    changed.reactions = changeReactions(message.reactions, entry.emoji, entry.active, entry.sender_id === user);
  } else if (entry.type === "message_edited") {
    changed.content = entry.content;
    changed.editedAt = entry.created_at;
    if (entry.data !== undefined) changed.data = entry.data ?? undefined;
  }
  return changed;
}

/** Changes the message that an entry is about, unless the message shows the entry already. */
function apply(log: Log, entry: LogEntry, user: string | undefined): void {
  if (entry.type === "message") insert(log, entry);
  const target = entry.type === "message" ? entry.reply_to : (entry as NativeReaction).target_seq;
  const at = position(log.messages, target ?? Infinity);
  const old = log.messages[at];
  if (!old || old.seq !== target || old.asOf >= entry.seq) return;
  log.messages = log.messages.slice();
  log.messages[at] = change(old, entry, user);
}

/** Applies what is held, as far as no entry is missing. */
function drain(log: Log, user: string | undefined): void {
  for (const seq of log.held.keys()) if (seq <= log.cursor) log.held.delete(seq);
  for (let entry; (entry = log.held.get(log.cursor + 1));) {
    log.held.delete(entry.seq);
    log.cursor++;
    log.recent?.push(entry);
    apply(log, entry, user);
  }
}

/** Takes an entry in. A message shows at once; other entries wait until those before them were applied. */
export function receive(log: Log, entry: LogEntry, user: string | undefined): void {
  log.head = Math.max(log.head, entry.seq);
  if (entry.seq <= log.cursor) return;
  if (entry.type === "message") insert(log, entry);
  log.held.set(entry.seq, entry);
  drain(log, user);
}

/**
 * Begins anew at `head`: entries up to there come with the newest page, which replaces the messages. Unless it may `keep` what
 * it has, the log was set back and forgets what is beyond the head; beyond -1 is everything.
 */
export function restart(log: Log, head: number, user: string | undefined, keep?: boolean): void {
  log.cursor = head;
  log.loaded = false;
  log.before = log.recent = undefined;
  log.generation++;
  if (!keep) {
    log.messages = log.messages.filter((one) => one.seq! <= head);
    log.held.clear();
    log.head = head;
  }
  drain(log, user);
}

/** Adds a page of history: the newest one, which replaces the messages that it covers, or an older one. */
export function addPage(log: Log, page: NativeHistory, older: boolean, user: string | undefined): void {
  const messages = page.messages.map((one) => toMessage(one, page.as_of)).reverse();
  const first = messages[messages.length - 1]?.seq ?? 0;
  const rest = log.messages.filter((one) => (older ? one.seq! > first : one.seq! > page.as_of));
  log.messages = messages.concat(rest);
  log.loaded = true;
  log.before = page.next_before_seq;
  for (const entry of log.recent ?? []) apply(log, entry, user);
  log.recent = undefined;
}
