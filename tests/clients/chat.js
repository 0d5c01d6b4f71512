// A browser's chat client, run by Node.js over the ws package: says one thing, prints what it hears, leaves.
// usage: NODE_PATH=… node chat.js URL USER WORDS HEAR
const WebSocket = require("ws");

const [url, user, words, hear] = process.argv.slice(2);

const ws = new WebSocket(url);
const heard = [];

ws.onmessage = (event) => {
  const message = JSON.parse(event.data);
  if (message.type === "connected") {
    ws.send(JSON.stringify({ type: "send_message", data: { content: words } }));
  }
  if (message.type === "new_message" && message.data.sender_id !== user) {
    heard.push(message.data.content);
  }
  if (heard.includes(hear)) ws.close();
};

ws.onclose = () => {
  console.log(JSON.stringify(heard));
  process.exit(heard.includes(hear) ? 0 : 1);
};
setTimeout(() => process.exit(2), 20000);
