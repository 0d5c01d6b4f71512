// What stores show: snapshots of the state, with what is still in the outbox laid over the stored messages.
import type { NativeReaction } from "./frames.js";
import { change, toMessage } from "./log.js";
import { entryOf, isMine, keyOf } from "./outbox.js";
import { conversationOf, type Conversation, type State } from "./state.js";
import type { ConnectionSnapshot, ConversationSnapshot, ConversationsSnapshot, Message, MessageStatus, Presence, StoredMessage } from "./types.js";

/** Views of stored messages, so that what did not change stays the same object. */
const views = new WeakMap<StoredMessage, Message>();

function view(message: StoredMessage, own: boolean, status: MessageStatus): Message {
  let result = views.get(message);
  if (result?.status !== status || result.own !== own) views.set(message, (result = { ...message, own, status }));
  return result;
}

/** The furthest marks of the other members. Who writes has read what came before. */
function furthest({ marks, log }: Conversation, user: string | undefined): [delivered: number, read: number] {
  let delivered = 0;
  let read = 0;
  for (const [one, mark] of Object.entries(marks)) {
    if (one === user) continue;
    delivered = Math.max(delivered, mark.delivered);
    read = Math.max(read, mark.read);
  }
  const last = log.messages.findLast((one) => one.senderId !== user && !one.isAi)?.seq ?? 0;
  return [Math.max(delivered, last), Math.max(read, last)];
}

export function conversationView(state: State, key: string): ConversationSnapshot {
  const conversation = conversationOf(state, key);
  const { id, log, marks } = conversation;
  const [delivered, read] = furthest(conversation, state.user);
  const ownRead = Math.max(marks[state.user!]?.read ?? 0, conversation.wanted.read);
  const messages = log.messages.map((one) => {
    const own = one.senderId === state.user;
    const seq = one.seq!;
    return view(one, own, own ? (seq <= read ? "read" : seq <= delivered ? "delivered" : "sent") : seq <= ownRead ? "read" : "delivered");
  });
  for (const command of state.outbox) {
    const to = keyOf(command);
    if ((state.aliases.get(to) ?? to) !== id || !isMine(state, command)) continue;
    const { frame, target, failed } = command;
    const entry = entryOf(state, command);
    if (entry.type === "message") {
      messages.push({ ...toMessage(entry, 0), own: true, status: failed ? "failed" : "sending", ...(failed && { error: failed }) });
      continue;
    }
    const at = messages.findIndex((one) => (frame.seq ? one.seq === (entry as NativeReaction).target_seq : one.own && one.clientId === target));
    const old = messages[at];
    // A reaction that stands already changes nothing.
    if (old && (entry.type !== "reaction" || entry.active !== !!old.reactions.find((one) => one.emoji === entry.emoji)?.own)) {
      messages[at] = change(old, entry, state.user);
    }
  }
  return {
    ...(id[0] !== "/" && { id }),
    messages,
    loaded: log.loaded,
    hasOlder: log.before !== undefined,
    loadingOlder: !!conversation.loadingOlder,
    typing: [...conversation.typing].map(([userId, name]) => ({ userId, name })),
    marks,
    error: conversation.error,
  };
}

export function connectionView({ phase, user, name, error }: State): ConnectionSnapshot {
  return { state: phase === "opening" ? "connecting" : phase, userId: user, name, error };
}

export function listView({ list, presence }: State): ConversationsSnapshot {
  const conversations = [...list.items.values()]
    .map((item) => ({ ...item, members: item.members.map((one) => ({ ...one, ...presence.get(one.userId) })) }))
    .sort((a, b) => b.updatedAt.localeCompare(a.updatedAt));
  return { conversations, loaded: list.loaded, hasMore: list.next !== undefined };
}

export function presenceView({ presence }: State, users: readonly string[]): Readonly<Record<string, Presence>> {
  return Object.fromEntries([...presence].filter(([user]) => users.includes(user)));
}
