// A chat as a React component, over a hook that other components can use too: <Chat url token conversation />.
//
//   npm create vite@latest my-chat -- --template react      # then copy this file into src/
//   <Chat url="ws://127.0.0.1:8000" token="…" conversation="lobby" />      # `switchboard dev` prints tokens
//
// The frames are described in docs/protocol/native.md; examples/browser/chat.html does the same without React.

import React, { useEffect, useRef, useState } from "react";

/** Joins a conversation: its messages in order, who types, and what to send with. Reconnects and resumes by itself. */
export function useConversation(url, token, conversation) {
  const [messages, setMessages] = useState([]);
  const [typing, setTyping] = useState([]);
  const [connected, setConnected] = useState(false);
  const socket = useRef(null);
  const unacked = useRef(new Map()); // client_id → frame; a frame is sent again until the server acks it

  const send = (frame) => {
    if (socket.current?.readyState === WebSocket.OPEN) socket.current.send(JSON.stringify(frame));
  };

  useEffect(() => {
    let timer;
    let attempt = 0;
    let cursor = 0; // the last entry of the log that came; after a lost connection, the server goes on from here
    let user;
    const show = (message) =>
      setMessages((all) =>
        all.some(({ seq }) => seq === message.seq) ? all : [...all, message].sort((a, b) => a.seq - b.seq));

    const receive = (frame) => {
      switch (frame.type) {
        case "authenticated":
          user = { sender_id: frame.user_id, sender_name: frame.name };
          return send({ type: "join", conversation_id: conversation, since_seq: cursor });
        case "joined":
          attempt = 0;
          setConnected(true);
          return unacked.current.forEach(send);
        case "resync": // more was missed than a resume brings; GET …/messages has it
          cursor = frame.head;
          return;
        case "typing":
          return setTyping((names) => [...names.filter((name) => name !== frame.name), ...(frame.active ? [frame.name] : [])]);
        case "ack": {
          const sent = unacked.current.get(frame.client_id);
          unacked.current.delete(frame.client_id);
          if (sent) show({ ...user, content: sent.content, seq: frame.seq });
          break;
        }
        case "error":
          console.error(frame.code, frame.message);
          if (!frame.retryable) unacked.current.delete(frame.client_id);
          else setTimeout(() => unacked.current.has(frame.client_id) && send(unacked.current.get(frame.client_id)), frame.retry_after_ms ?? 1000);
          return;
        case "message":
          show(frame);
      }
      if (frame.seq > cursor) cursor = frame.seq; // entries and acks have one, and come in its order
    };

    const connect = () => {
      const ws = (socket.current = new WebSocket(`${url}/v1/ws`));
      ws.onopen = () => send({ type: "authenticate", token });
      ws.onmessage = (event) => receive(JSON.parse(event.data));
      ws.onclose = ({ code }) => {
        setConnected(false);
        // 4400 to 4499: another try would fail in the same way, but for 4408 (this page read too slowly) and 4410 (an admin disconnected it).
        if (code >= 4400 && code <= 4499 && code !== 4408 && code !== 4410) return;
        timer = setTimeout(connect, Math.min(500 * 2 ** attempt++, 30_000) * (0.5 + Math.random() / 2));
      };
    };

    setMessages([]);
    connect();
    return () => {
      clearTimeout(timer);
      socket.current.onclose = socket.current.onmessage = null;
      socket.current.close();
    };
  }, [url, token, conversation]);

  return {
    messages,
    typing,
    connected,
    setTyping: (active) => send({ type: "typing", conversation_id: conversation, active }),
    say: (content) => {
      const client_id = `${Date.now()}-${Math.random().toString(36).slice(2)}`;
      const frame = { type: "send", conversation_id: conversation, content, client_id };
      unacked.current.set(client_id, frame);
      send(frame);
    },
  };
}

export default function Chat({ url, token, conversation }) {
  const { messages, typing, connected, setTyping, say } = useConversation(url, token, conversation);
  const [draft, setDraft] = useState("");

  const submit = (event) => {
    event.preventDefault();
    if (draft.trim()) say(draft);
    setDraft("");
  };
  return (
    <form onSubmit={submit}>
      <p role="status">{connected ? `In ${conversation}` : "Connecting…"}</p>
      <ul>
        {messages.map(({ seq, sender_name, content }) => <li key={seq}>{sender_name}: {content}</li>)}
      </ul>
      {typing.length > 0 && <p>{typing.join(", ")} typing…</p>}
      <input
        value={draft}
        placeholder="Message"
        onChange={(event) => {
          setDraft(event.target.value);
          setTyping(true); // ends by itself after five seconds
        }}
      />
      <button>Send</button>
    </form>
  );
}
