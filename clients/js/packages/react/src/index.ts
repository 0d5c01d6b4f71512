// React hooks over the stores of @switchboard/client. Safe in StrictMode and on servers: a hook connects nothing before an effect.
import { useMemo, useSyncExternalStore } from "react";
import type { Chat, ConnectionSnapshot, Conversation, ConversationSnapshot, Conversations, ConversationsSnapshot, Presence, Store } from "@switchboard/client";

type Methods<T> = Omit<T, keyof Store<unknown>>;

/** The snapshot of any store of the client; on servers it is the one without a connection. */
export function useStore<T>(store: Store<T>): T {
  return useSyncExternalStore(store.subscribe, store.getSnapshot, store.getSnapshot);
}

/** A conversation: its messages, who types, and what to send with. The component keeps it up to date while it is shown. */
export function useConversation(chat: Chat, id: string): ConversationSnapshot & Methods<Conversation> {
  return useWithMethods(chat.conversation(id));
}

/** The direct conversation with a user. */
export function useDirect(chat: Chat, userId: string): ConversationSnapshot & Methods<Conversation> {
  return useWithMethods(chat.dm(userId));
}

/** The user's conversations, with unread counts, last messages and the presence of members. */
export function useConversations(chat: Chat): ConversationsSnapshot & Methods<Conversations> {
  return useWithMethods(chat.conversations());
}

/** Whether the chat is connected, and as whom. */
export function useConnection(chat: Chat): ConnectionSnapshot {
  return useStore(chat.connection);
}

/** The presence of some users, by id. */
export function usePresence(chat: Chat, userIds: readonly string[]): Readonly<Record<string, Presence>> {
  return useStore(chat.presence(userIds));
}

function useWithMethods<T extends object, S extends Store<T>>(store: S & Store<T>): T & Methods<S> {
  const snapshot = useStore<T>(store);
  return useMemo(() => ({ ...store, ...snapshot }), [store, snapshot]);
}
