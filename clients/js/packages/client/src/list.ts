// The list of conversations and the presence of users: read after each connect, kept up to date by what comes in.
import type { NativeConversation, NativeConversationRemoved, NativeHint } from "./frames.js";
import { joinAll, setMarks } from "./conversations.js";
import { camel, type LogEntry } from "./log.js";
import { request } from "./requests.js";
import { changed, conversationOf, LIST, PRESENCE, timer, type State } from "./state.js";
import type { ConversationItem } from "./types.js";

const PAGE = 50;
const SOON_MS = 1_000;
const MAX_USERS = 1_000;
const POLL_MS = 60_000;

/** Reads the list again soon; many reasons make one reading. */
export function readListSoon(state: State): void {
  if (!state.list.soon) timer(state, "readList", SOON_MS);
  state.list.soon = true;
}

/** Reads as many pages as are shown. An open conversation needs it too, for the marks of its members. */
export function readList(state: State): void {
  const { list } = state;
  list.soon = false;
  timer(state, "readList");
  if (!list.opens && ![...state.conversations.values()].some((one) => one.opens)) return;
  if (list.building) return readListSoon(state);
  list.building = new Map();
  readListPage(state, 0);
}

function readListPage(state: State, offset: number): void {
  const { list } = state;
  request(state, { type: "conversations", limit: PAGE, offset }, (answer) => {
    const building = list.building!;
    if (answer.type === "conversations") {
      for (const one of answer.conversations) {
        const old = list.items.get(one.conversation_id);
        const item = toItem(state, one);
        // What came in while the page was being read is newer.
        building.set(item.id, old && old.head > item.head ? old : item);
      }
      const next = answer.next_offset;
      if (next && (building.size < list.items.size || unresolved(state).length)) return readListPage(state, next);
      Object.assign(list, { items: building, next, loaded: true });
      findDirect(state);
    }
    list.building = undefined;
    changed(state, LIST);
  });
}

export function loadMore(state: State): void {
  const { list } = state;
  if (!list.next || list.building) return;
  list.building = new Map(list.items);
  readListPage(state, list.next);
}

function toItem(state: State, one: NativeConversation): ConversationItem {
  const conversation = conversationOf(state, one.conversation_id);
  for (const member of one.members) {
    setMarks(state, conversation, member.user_id, member.delivered_seq, member.read_seq);
    if (member.status) onPresence(state, member);
  }
  learnDirect(state, one);
  return { ...camel(one), id: one.conversation_id };
}

/** Direct conversations that are open by the name of a user, and whose ids are unknown. */
const unresolved = (state: State) => [...state.conversations.values()].filter((one) => one.id[0] === "/" && one.opens && !one.log.loaded);

function learnDirect(state: State, { is_group, conversation_id, members }: NativeConversation): void {
  if (is_group || members.length > 2) return;
  const key = `/${members.find((one) => one.user_id !== state.user)?.user_id}`;
  if (state.conversations.has(key)) resolveDirect(state, key, conversation_id);
}

/** The id of a direct conversation became known: what shows it by the user shows it by the id. */
export function resolveDirect(state: State, key: string, id: string): void {
  if (state.aliases.has(key)) return;
  const { opens } = conversationOf(state, key);
  state.conversations.delete(key);
  state.aliases.set(key, id);
  conversationOf(state, id).opens += opens;
  changed(state, id);
  joinAll(state);
}

/** Looks for direct conversations among the archived ones. Those that are nowhere don't exist yet. */
function findDirect(state: State, offset = 0): void {
  if (!unresolved(state).length) return;
  request(state, { type: "conversations", archived: true, limit: 100, offset }, (answer) => {
    if (answer.type !== "conversations") return;
    for (const one of answer.conversations) learnDirect(state, one);
    if (answer.next_offset) return findDirect(state, answer.next_offset);
    for (const one of unresolved(state)) {
      one.log.loaded = true;
      changed(state, one.id);
    }
  });
}

function update(state: State, item: ConversationItem, change: Partial<ConversationItem>): void {
  state.list.items.set(item.id, { ...item, ...change });
  changed(state, LIST);
}

export function onListEntry(state: State, entry: LogEntry): void {
  const { seq: head, type, conversation_id, sender_id } = entry;
  const item = state.list.items.get(conversation_id);
  if (item && head <= item.head) return;
  if (item && type === "message") {
    update(state, item, { head, unread: sender_id === state.user ? 0 : item.unread + 1, lastMessage: camel(entry), updatedAt: entry.created_at });
  } else if (state.list.opens && type !== "reaction") readListSoon(state);
}

export function onHint(state: State, { conversation_id, head, unread }: NativeHint): void {
  const item = state.list.items.get(conversation_id);
  if (item) update(state, item, { unread });
  // A hint has no text, so the list is read for the last message.
  if (!item || head > item.head) readListSoon(state);
}

export function onRemoved(state: State, { conversation_id }: NativeConversationRemoved): void {
  state.list.items.delete(conversation_id);
  changed(state, LIST);
}

/** The own user read up to a seq, here or on another device. */
export function onRead(state: State, id: string, seq: number): void {
  const item = state.list.items.get(id);
  if (!item?.unread) return;
  if (seq >= (item.lastMessage?.seq ?? 0)) update(state, item, { unread: 0 });
  else readListSoon(state);
}

export function onPresence(state: State, one: { user_id: string }): void {
  state.presence.set(one.user_id, camel(one));
  changed(state, PRESENCE);
}

/** Asks for the presence of watched users. The server tells changes only of those who share an open conversation. */
export function askPresence(state: State, users: readonly string[] = [...state.watched.keys()]): void {
  if (state.phase !== "online" || !users.length) return;
  for (let at = 0; at < users.length; at += MAX_USERS) {
    request(state, { type: "presence", user_ids: users.slice(at, at + MAX_USERS) }, (answer) => {
      if (answer.type === "presence_list") for (const one of answer.users) onPresence(state, one);
    }, true);
  }
  timer(state, "askPresence", POLL_MS);
}

/** Begins or ends to watch users. */
export function watch(state: State, users: readonly string[], by: number): void {
  for (const user of users) {
    const count = (state.watched.get(user) ?? 0) + by;
    if (count > 0) state.watched.set(user, count);
    else state.watched.delete(user);
  }
  if (by > 0) askPresence(state, users);
}
