// The page of the tests: a chat in React under StrictMode, and the chats themselves for the test to use.
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { createChat } from "@switchboard/client";
import { indexedDbStorage } from "@switchboard/client/storage";
import { createSharedChat } from "@switchboard/client/worker";
import { useConnection, useConversation, useConversations, usePresence } from "@switchboard/react";

const params = new URLSearchParams(location.search);
const user = params.get("user");
window.tokens = 0;
window.asking = 0;
window.overlaps = 0;

async function getToken() {
  window.tokens++;
  if (window.asking++) window.overlaps++;
  try {
    const answer = await fetch(`/token?user=${user}&seconds=${params.get("seconds") ?? 3600}`);
    return await answer.text();
  } finally {
    window.asking--;
  }
}

const mode = params.get("mode");
const options = {
  url: params.get("url"), getToken, pingInterval: 3_000, pongTimeout: 3_000,
  ...(params.get("storage") && { storage: indexedDbStorage(params.get("storage")) }),
};
const worker = () => new SharedWorker("/worker.js", { name: params.get("url") });
const chat = mode === "worker" ? createSharedChat({ ...options, worker }) : mode === "elected" ? createSharedChat(options) : createChat(options);
window.chat = chat;
const room = params.get("room");

function Room() {
  const { messages, send, loaded, typing } = useConversation(chat, room);
  const { state } = useConnection(chat);
  const { conversations } = useConversations(chat);
  const presence = usePresence(chat, ["bob"]);
  return <>
    <p id="state">{state}</p>
    <p id="loaded">{String(loaded)}</p>
    <p id="typing">{typing.map((one) => one.userId).join()}</p>
    <p id="presence">{String(presence.bob?.online)}</p>
    <p id="unread">{conversations.find((one) => one.id === room)?.unread ?? "none"}</p>
    <ul>{messages.map((one) => <li key={one.key} data-seq={one.seq} data-status={one.status}>{one.content}</li>)}</ul>
    <button onClick={() => send("from React")}>Send</button>
  </>;
}

if (room) createRoot(document.getElementById("root")).render(<StrictMode><Room /></StrictMode>);
