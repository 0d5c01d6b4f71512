// A chat client for the terminal, in JavaScript: prints what is said in a conversation and sends the lines you type.
//
//   npm install ws        # Node.js 22 and later have a WebSocket and do without
//   TOKEN=$(switchboard token --dev --user alice) node examples/node/chat.js lobby
//
// SWITCHBOARD_URL names another server than ws://127.0.0.1:8000. The frames are described in docs/protocol/native.md.

const readline = require("node:readline");
const { randomUUID } = require("node:crypto");
const WebSocket = globalThis.WebSocket ?? require("ws");

const url = `${process.env.SWITCHBOARD_URL ?? "ws://127.0.0.1:8000"}/v1/ws`;
const conversation = process.argv[2] ?? "lobby";

let socket;
let cursor = 0; // the last entry of the log that came; after a lost connection, the server goes on from here
let attempt = 0;
const unacked = new Map(); // client_id → frame; a frame is sent again until the server acks it

function connect() {
  socket = new WebSocket(url);
  socket.onopen = () => send({ type: "authenticate", token: process.env.TOKEN });
  socket.onmessage = (event) => receive(JSON.parse(event.data));
  socket.onerror = () => {}; // a close follows
  socket.onclose = ({ code, reason }) => {
    // 4400 to 4499 say that another try would fail in the same way, but for 4408 (this client read too slowly) and 4410 (an admin disconnected it).
    if (code >= 4400 && code <= 4499 && code !== 4408 && code !== 4410) {
      console.error(`closed: ${code} ${reason}`);
      process.exit(1);
    }
    const pause = Math.min(500 * 2 ** attempt++, 30_000);
    setTimeout(connect, pause * (0.5 + Math.random() / 2)); // at random, or all clients would come back at once
  };
}

function send(frame) {
  if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(frame));
}

function receive(frame) {
  switch (frame.type) {
    case "authenticated":
      return send({ type: "join", conversation_id: conversation, since_seq: cursor });
    case "joined":
      attempt = 0;
      console.log(`* joined ${conversation}`);
      return unacked.forEach(send);
    case "resync": // more was missed than a resume brings
      cursor = frame.head;
      return console.log(`* entries before ${frame.head} were skipped`);
    case "ack":
      unacked.delete(frame.client_id);
      break;
    case "error":
      console.error(`! ${frame.code}: ${frame.message}`);
      if (!frame.retryable) unacked.delete(frame.client_id);
      else setTimeout(() => unacked.has(frame.client_id) && send(unacked.get(frame.client_id)), frame.retry_after_ms ?? 1000);
      return;
    case "message":
      console.log(`${frame.sender_name}: ${frame.content}`);
  }
  if (frame.seq > cursor) cursor = frame.seq; // entries and acks have one, and come in its order
}

readline.createInterface({ input: process.stdin }).on("line", (content) => {
  const frame = { type: "send", conversation_id: conversation, content, client_id: randomUUID() };
  unacked.set(frame.client_id, frame);
  send(frame);
});
connect();
