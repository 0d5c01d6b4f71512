// Compiled only: the types of the public interface as applications use them, under strict.
import { createChat, type Chat, type ChatStorage, type ConversationSnapshot, type Message } from "@switchboard/client";
import { chatStorage, indexedDbStorage } from "@switchboard/client/storage";
import { createSharedChat } from "@switchboard/client/worker";
import { useConnection, useConversation, useConversations, useDirect, usePresence } from "@switchboard/react";

declare const api: { token(): Promise<string> };
declare function List(props: { items: readonly Message[]; onTop(): void; onSeen(seq?: number): void }): null;
declare function Input(props: { onChange(text: string): void; onSend(text: string): void }): null;

export const chat: Chat = createChat({ url: "wss://chat.example.com", getToken: () => api.token() });
createChat({ url: "wss://chat.example.com", getToken: async ({ signal }) => (await fetch("/token", signal ? { signal } : {})).text(), storage: indexedDbStorage() });
createSharedChat({ url: "wss://chat.example.com", getToken: () => null, worker: () => new SharedWorker("/worker.js") });
export const stored: ChatStorage = chatStorage({ entries: async () => new Map<string, unknown>(), set() {}, remove() {} }, { messages: false });

export function Room({ id }: { id: string }) {
  const { messages, send, loadOlder, typing, setTyping, markRead } = useConversation(chat, id);
  const { conversations } = useConversations(chat);
  const { state, error } = useConnection(chat);
  const presence = usePresence(chat, ["bob"]);
  const direct = useDirect(chat, "bob");
  return <>
    <p>{state} {error?.code} {conversations[0]?.unread} {presence.bob?.lastSeen} {direct.messages.length}</p>
    <List items={messages} onTop={loadOlder} onSeen={markRead} />
    <p>{typing.map((one) => one.name).join()}</p>
    <Input onChange={setTyping} onSend={(text) => send(text)} />
  </>;
}

const conversation = chat.conversation("team");
const snapshot: ConversationSnapshot = conversation.getSnapshot();
const last = snapshot.messages.at(-1);
if (last) {
  conversation.edit(last, "text");
  conversation.react(last, "👍");
  conversation.react(last.seq!, "👍", false);
  conversation.delete(last.clientId!);
}
const clientId: string = conversation.send("text", { data: { a: 1 }, replyTo: 4 });
conversation.retry(clientId);
void chat.request({ type: "search", words: "tea" });
// @ts-expect-error a search needs words
void chat.request({ type: "search" });
// @ts-expect-error joins are the client's affair
void chat.request({ type: "join", conversation_id: "team" });
// @ts-expect-error the status has five values
if (last?.status === "gone") throw new Error();
chat.onEvent(({ user_id, name }) => console.log(user_id, name));
