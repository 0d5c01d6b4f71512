// Open conversations: joining and resuming, pages of history, gaps, typing and read marks.
import type { ClientFrame, NativeError, NativeHistory, NativeJoined, NativeLeft, NativeResync, NativeSyncedOne, NativeTyping } from "./frames.js";
import { addPage, hasGap, restart } from "./log.js";
import { request } from "./requests.js";
import { changed, conversationOf, failure, sendFrame, timer, type Conversation, type State } from "./state.js";
import { onStored, sendCommands } from "./outbox.js";

/** A frame has at most 64 KiB and an id at most 128 characters, so this many always fit. */
const SYNC_CHUNK = 400;
/** How long a gap may last before the entries are asked for again. */
const GAP_MS = 5_000;
const TYPING_REPEAT_MS = 3_000;
const TYPING_END_MS = 6_000;
const MARKS_DELAY_MS = 300;
const CLOSE_DELAY_MS = 5_000;

const isUser = (id: string) => id[0] === "/";

/** Listens to the open conversations. */
export function joinAll(state: State): void {
  listen(state, [...state.conversations.values()].filter((one) => one.opens && one.joined === "no" && !one.refused));
}

export const join = (state: State, id: string) => listen(state, [conversationOf(state, id)]);

/** Listens to each from its cursor, also again: then the entries after it come once more. Without a cursor, from now on. */
function listen(state: State, conversations: Conversation[]): void {
  if (state.phase !== "online") return;
  let since: [string, number][] = [];
  for (const one of conversations) {
    const { id, log: { cursor }, joined } = one;
    if (joined === "asked" || isUser(id)) continue;
    one.joined = "asked";
    if (cursor >= 0) since.push([id, cursor]);
    else ask(state, { type: "join", conversation_id: id }, [id]);
  }
  for (; since.length; since = since.slice(SYNC_CHUNK)) {
    const chunk = since.slice(0, SYNC_CHUNK);
    ask(state, { type: "sync", conversations: Object.fromEntries(chunk) }, chunk.map(([id]) => id));
  }
}

function ask(state: State, frame: ClientFrame, ids: string[]): void {
  request(state, frame, (answer) => {
    if (answer.type === "error") for (const id of ids) onRefused(state, conversationOf(state, id), answer);
    else for (const one of answer.type === "synced" ? answer.conversations : [answer as NativeJoined]) onAnswer(state, one);
  }, true);
}

function onAnswer(state: State, { conversation_id, head, resync, error }: NativeSyncedOne): void {
  const conversation = conversationOf(state, conversation_id);
  if (!error) return onJoined(state, conversation, head!, !!resync);
  conversation.joined = "no";
  if (error.retryable) timer(state, `join ${conversation_id}`, -GAP_MS);
  else onRefused(state, conversation, error);
}

function onRefused(state: State, conversation: Conversation, error: Pick<NativeError, "code" | "message">): void {
  conversation.joined = "no";
  conversation.refused = true;
  conversation.error = failure(error);
  changed(state, conversation.id);
  sendCommands(state);
}

/** The socket listens. With `anew` the messages up to `head` have to be read. */
export function onJoined(state: State, conversation: Conversation, head: number, anew: boolean): void {
  const { log } = conversation;
  conversation.joined = "yes";
  conversation.refused = false;
  conversation.error = undefined;
  if (anew || log.cursor < 0) restart(log, head, state.user, head >= log.cursor);
  log.head = Math.max(log.head, head);
  if (!log.loaded && conversation.reading !== log.generation) readPage(state, conversation);
  if (!conversation.opens) timer(state, `leave ${conversation.id}`, CLOSE_DELAY_MS);
  watchGap(state, conversation);
  changed(state, conversation.id);
  mark(state, conversation);
  sendCommands(state);
}

/** The server joined by itself (the user was added), or had its store set back. */
export function onUnasked(state: State, frame: NativeJoined | NativeResync): void {
  const conversation = conversationOf(state, frame.conversation_id);
  if (!conversation.opens) return;
  const { log } = conversation;
  if (frame.type === "resync") {
    restart(log, frame.head, state.user);
    onJoined(state, conversation, frame.head, false);
  } else if (log.cursor < 0 || frame.head <= log.cursor) onJoined(state, conversation, frame.head, false);
  else {
    conversation.joined = "yes";
    join(state, conversation.id);
  }
}

export function onLeft(state: State, { conversation_id }: NativeLeft): void {
  onRefused(state, conversationOf(state, conversation_id), { code: "not_member", message: "Not a member" });
}

/** Reads the newest page, or the next older one. */
export function readPage(state: State, conversation: Conversation, before?: number): void {
  const { log, id } = conversation;
  const { generation } = log;
  log.recent ??= [];
  if (!before) conversation.reading = generation;
  request(state, { type: "history", conversation_id: id, limit: state.config.pageSize, ...(before && { before_seq: before }) }, (answer) => {
    if (before) conversation.loadingOlder = false;
    if (generation === log.generation) {
      if (answer.type === "history") onPage(state, conversation, answer, !!before);
      else if (answer.type === "error") {
        conversation.error = failure(answer);
        if (!before) conversation.reading = undefined;
      }
    }
    changed(state, id);
  });
}

export function loadOlder(state: State, key: string): void {
  const conversation = conversationOf(state, key);
  const { before, loaded } = conversation.log;
  if (!loaded || !before || conversation.loadingOlder) return;
  conversation.loadingOlder = true;
  changed(state, conversation.id);
  readPage(state, conversation, before);
}

function onPage(state: State, conversation: Conversation, page: NativeHistory, older: boolean): void {
  addPage(conversation.log, page, older, state.user);
  for (const { sender_id, client_id } of page.messages) onStored(state, sender_id, client_id);
  arrived(state, conversation, page.messages.find((one) => one.sender_id !== state.user)?.seq);
  sendCommands(state);
}

/** Sees to it that a gap does not last. The server sends entries in their order, so one that is missed for long was lost. */
export function watchGap(state: State, conversation: Conversation): void {
  const { log, opens, watching, id } = conversation;
  if (watching !== undefined || !opens || !hasGap(log)) return;
  conversation.watching = log.cursor;
  timer(state, `gap ${id}`, GAP_MS);
}

export function gap(state: State, id: string): void {
  const conversation = conversationOf(state, id);
  const { log, joined, watching, repaired } = conversation;
  const { cursor } = log;
  conversation.watching = undefined;
  if (joined !== "yes" || watching !== cursor || !hasGap(log)) return watchGap(state, conversation);
  // The same gap once more: its entries will not come.
  if (repaired === cursor) {
    restart(log, log.head, state.user, true);
    return readPage(state, conversation);
  }
  conversation.repaired = cursor;
  join(state, id);
}

export function open(state: State, key: string): void {
  const conversation = conversationOf(state, key);
  if (conversation.opens++ === 0) conversation.refused = false;
  if (conversation.joined === "no") join(state, conversation.id);
}

/** Leaves after a while, since pages often show a conversation again at once. */
export function shut(state: State, key: string): void {
  const conversation = conversationOf(state, key);
  if (--conversation.opens === 0) timer(state, `leave ${conversation.id}`, CLOSE_DELAY_MS);
}

export function leave(state: State, id: string): void {
  const conversation = conversationOf(state, id);
  if (conversation.opens || conversation.joined !== "yes") return;
  conversation.joined = "no";
  request(state, { type: "leave", conversation_id: id }, () => {}, true);
}

/** The socket ended: it listened to these conversations. */
export function resetConversations(state: State): void {
  for (const one of state.conversations.values()) {
    one.joined = "no";
    one.refused = false;
    one.typedAt = undefined;
    one.typing.clear();
    changed(state, one.id);
  }
}

export function setTyping(state: State, key: string, active: boolean | string): void {
  const conversation = conversationOf(state, key);
  if (state.phase !== "online" || conversation.joined !== "yes") return;
  if (active ? state.now - conversation.typedAt! < TYPING_REPEAT_MS : !conversation.typedAt) return;
  conversation.typedAt = active ? state.now : undefined;
  sendFrame(state, { type: "typing", conversation_id: conversation.id, active: !!active });
}

export const typed = (state: State, conversation_id: string, user_id: string) => onTyping(state, { conversation_id, user_id, name: "", active: false });

export function onTyping(state: State, { conversation_id, user_id, name, active }: Omit<NativeTyping, "type">): void {
  const { typing } = conversationOf(state, conversation_id);
  if (user_id === state.user || (!active && !typing.delete(user_id))) return;
  if (active) typing.set(user_id, name);
  // The end may be lost: these frames are not stored.
  timer(state, `typed ${conversation_id} ${user_id}`, active ? TYPING_END_MS : undefined);
  changed(state, conversation_id);
}

/** How far a member got, which never goes back. */
export function setMarks(state: State, conversation: Conversation, user: string, delivered: number, read: number): void {
  const old = conversation.marks[user];
  if (old && old.delivered >= delivered && old.read >= read) return;
  conversation.marks = {
    ...conversation.marks,
    [user]: { delivered: Math.max(delivered, read, old?.delivered ?? 0), read: Math.max(read, old?.read ?? 0) },
  };
  changed(state, conversation.id);
}

/** A message of somebody else is here, which the others may know. */
export function arrived(state: State, conversation: Conversation, seq = 0): void {
  conversation.wanted.delivered = Math.max(conversation.wanted.delivered, seq);
  mark(state, conversation);
}

/** Tells the server soon what arrived and what was read; several changes make one frame. */
export function mark(state: State, conversation: Conversation): void {
  const { wanted, marks, id } = conversation;
  const own = marks[state.user!];
  if (conversation.marking) return;
  if (wanted.read <= (own?.read ?? 0) && wanted.delivered <= (own?.delivered ?? 0)) return;
  conversation.marking = true;
  timer(state, `tellMarks ${id}`, MARKS_DELAY_MS);
}

export function tellMarks(state: State, id: string): void {
  const conversation = conversationOf(state, id);
  const { read, delivered } = conversation.wanted;
  const frame = { type: "read" as const, conversation_id: id, ...(read && { seq: read }), ...(delivered > read && { delivered_seq: delivered }) };
  request(state, frame, (answer) => {
    conversation.marking = false;
    if (answer.type !== "ok") return;
    setMarks(state, conversation, state.user!, delivered, read);
    mark(state, conversation);
  });
}
