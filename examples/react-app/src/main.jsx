// A chat application in React: a list of conversations with unread counts, a conversation with older messages on demand, typing,
// receipts and failed messages, and a status line that says why there is no connection.
//
//   (cd clients/js && npm ci && npm run build)         # once, as the packages are not published
//   cd examples/react-app && npm install && npm start  # then open http://localhost:5173/#<token>
//
// A token comes from: switchboard token --dev --user alice. It stands for the session of your application; the page gets
// short-lived tokens with it, whenever the client asks for one.

import { StrictMode, useEffect, useRef, useState } from "react";
import { createRoot } from "react-dom/client";
import { createChat } from "@switchboard/client";
import { onRefusal } from "@switchboard/client/explain";
import { useConnection, useConversation, useConversations } from "@switchboard/react";

const parameters = new URLSearchParams(location.search);
const server = parameters.get("server") ?? "http://127.0.0.1:8000";
const session = location.hash.slice(1);

const chat = createChat({
  url: server,
  getToken: async ({ signal }) => {
    const answer = await fetch(`${server}/api/websocket/token`, { method: "POST", headers: { authorization: `Bearer ${session}` }, signal });
    const body = await answer.json();
    if (!answer.ok) throw new Error(body.detail);
    return body.token;
  },
});
// Names the setting of the server that keeps this page out, in the browser's console.
onRefusal(chat, server);

function Status() {
  const { state, name, error } = useConnection(chat);
  return <p role="status">{state === "online" ? `Online as ${name}` : state}{error && state !== "online" && <span className="error"> {error.message}</span>}</p>;
}

function Rooms({ chosen, choose }) {
  const { conversations, hasMore, loadMore } = useConversations(chat);
  const ids = conversations.some(({ id }) => id === chosen) ? [] : [{ id: chosen }];
  return <nav aria-label="Conversations">
    {[...ids, ...conversations].map(({ id, name, unread }) =>
      <button key={id} aria-current={id === chosen} onClick={() => choose(id)}>{name ?? id}{unread > 0 && ` (${unread})`}</button>)}
    {hasMore && <button onClick={loadMore}>More</button>}
  </nav>;
}

function Room({ id }) {
  const { messages, hasOlder, loadOlder, typing, error, send, setTyping, markRead, retry, discard } = useConversation(chat, id);
  const [draft, setDraft] = useState("");
  const list = useRef(null);
  const newest = messages.at(-1)?.key;
  useEffect(() => {
    list.current.scrollTop = list.current.scrollHeight;
    if (document.visibilityState === "visible" && newest) markRead();
  }, [newest, markRead]);

  const submit = (event) => {
    event.preventDefault();
    if (!draft.trim()) return;
    send(draft);
    setDraft("");
  };
  return <main>
    <h1>{id}</h1>
    {error && <p className="error" role="alert">{error.message}</p>}
    <ul className="messages" ref={list}>
      {hasOlder && <li><button onClick={loadOlder}>Older messages</button></li>}
      {messages.map((message) => <li key={message.key}>
        <b>{message.senderName}</b>: {message.deleted ? <i>deleted</i> : message.content} {message.own && <small>{message.status}</small>}
        {message.status === "failed" && <span className="error"> {message.error?.message}
          <button onClick={() => retry(message.clientId)}>Retry</button><button onClick={() => discard(message.clientId)}>Discard</button></span>}
      </li>)}
    </ul>
    <p>{typing.length > 0 && `${typing.map((one) => one.name).join(", ")} typing…`}&nbsp;</p>
    <form onSubmit={submit}>
      <input aria-label="Message" value={draft} maxLength={5000} onChange={(event) => { setDraft(event.target.value); setTyping(event.target.value); }} />
      <button>Send</button>
    </form>
  </main>;
}

function App() {
  const [room, setRoom] = useState("lobby");
  if (!session) return <p>Open this page with a token behind #, from: switchboard token --dev --user alice</p>;
  return <>
    <Status />
    <div className="app"><Rooms chosen={room} choose={setRoom} /><Room key={room} id={room} /></div>
  </>;
}

createRoot(document.getElementById("root")).render(<StrictMode><App /></StrictMode>);
