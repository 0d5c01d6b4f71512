// What browsers and pages have and Node.js lacks, for the clients that the documents show:
//   BASE_URL=… ACCESS_TOKEN=… NODE_PATH=… node --require browser.cjs client.mjs

const WebSocket = require("ws");
globalThis.WebSocket = WebSocket;

// Paths are the page's own origin's.
const { fetch } = globalThis;
globalThis.fetch = (path, options) => fetch(new URL(path, process.env.BASE_URL), options);

// What a login left behind.
globalThis.localStorage = { getItem: (key) => (key === "access_token" ? process.env.ACCESS_TOKEN : null) };

// What the documents leave to the page: each call is printed.
for (const name of ["displayMessage", "showTypingIndicator", "updateUserPresence", "updateOnlineUsersList"]) {
  globalThis[name] = (...values) => console.log(name, JSON.stringify(values));
}
