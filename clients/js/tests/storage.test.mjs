// The storage and the runtime: reloads, sockets that say nothing, tokens that hang.
import assert from "node:assert/strict";
import { test, mock } from "node:test";
import { createChat } from "../packages/client/dist/index.js";
import { chatStorage } from "../packages/client/dist/storage.js";

const settle = async () => {
  for (let i = 0; i < 20; i++) await Promise.resolve();
};

/** A socket that the test speaks through. */
class FakeSocket {
  static all = [];
  sent = [];

  constructor(url) {
    this.url = url;
    FakeSocket.all.push(this);
  }

  send(text) {
    this.sent.push(JSON.parse(text));
  }

  close() {
    this.closed = true;
  }

  say(frame) {
    this.onmessage?.({ data: JSON.stringify(frame) });
  }

  letIn(user = "alice") {
    this.onopen();
    this.say({ type: "authenticated", user_id: user, name: user, connection_id: "0", epoch: 1, expires_at: new Date(Date.now() + 3.6e6).toISOString() });
  }
}

/** A store of values by key that keeps JSON, as a real one does. */
function memory() {
  const values = new Map();
  return {
    values,
    entries: async () => [...values].map(([key, text]) => [key, JSON.parse(text)]),
    set: (key, value) => values.set(key, JSON.stringify(value)),
    remove: (key) => values.delete(key),
  };
}

function open(store, more) {
  FakeSocket.all = [];
  return createChat({ url: "https://chat.example.com/", getToken: () => "token", WebSocket: FakeSocket, ...(store && { storage: chatStorage(store) }), ...more });
}

test("a page that is loaded again shows what it had, and sends what waits", async () => {
  mock.timers.enable({ apis: ["setTimeout", "Date"] });
  const store = memory();
  let chat = open(store);
  chat.conversation("team").subscribe(() => {});
  await settle();
  assert.equal(FakeSocket.all[0].url, "wss://chat.example.com/v1/ws");
  let [socket] = FakeSocket.all;
  socket.letIn();
  socket.say({ type: "joined", ref: socket.sent.find((one) => one.type === "join").ref, conversation_id: "team", head: 0 });
  socket.say({ type: "history", ref: socket.sent.find((one) => one.type === "history").ref, conversation_id: "team", messages: [], total: 0, as_of: 0 });
  socket.say({ type: "message", conversation_id: "team", seq: 1, id: "m1", sender_id: "bob", sender_name: "Bob", content: "one", created_at: "" });
  mock.timers.tick(1_000);
  socket.onclose({ code: 1006, reason: "" });
  chat.conversation("team").send("two");
  chat.conversation("team").send("three");
  await settle();
  assert.deepEqual([...store.values.keys()].map((key) => key[0]).sort(), ["c", "m", "o", "o"]);

  chat = open(store);
  chat.conversation("team").subscribe(() => {});
  await settle();
  assert.deepEqual(chat.conversation("team").getSnapshot().messages.map((one) => [one.content, one.status]),
    [["one", "delivered"], ["two", "sending"], ["three", "sending"]]);
  assert.equal(chat.conversation("team").getSnapshot().loaded, true);
  [socket] = FakeSocket.all;
  socket.letIn();
  const sync = socket.sent.find((one) => one.type === "sync");
  assert.deepEqual(sync.conversations, { team: 1 });
  socket.say({ type: "synced", ref: sync.ref, conversations: [{ conversation_id: "team", head: 1 }] });
  assert.deepEqual(socket.sent.filter((one) => one.type === "send").map((one) => one.content), ["two"]);
  mock.timers.reset();
});

test("what an old socket says is ignored", async () => {
  mock.timers.enable({ apis: ["setTimeout", "Date"] });
  const chat = open();
  chat.connect();
  await settle();
  const [first] = FakeSocket.all;
  first.letIn();
  mock.timers.tick(25_000);
  mock.timers.tick(10_000);
  assert.equal(chat.connection.getSnapshot().state, "waiting");
  assert.ok(first.closed);
  assert.equal(first.onclose, null);
  mock.timers.tick(1_000);
  await settle();
  FakeSocket.all[1].letIn();
  assert.equal(chat.connection.getSnapshot().state, "online");
  chat.close();
  mock.timers.reset();
});

test("a getToken that hangs is aborted and asked again, and its late answer is ignored", async () => {
  mock.timers.enable({ apis: ["setTimeout", "Date"] });
  const calls = [];
  const chat = open(undefined, { getToken: ({ signal }) => new Promise((resolve) => calls.push({ signal, resolve })) });
  chat.connect();
  await settle();
  mock.timers.tick(20_000);
  await settle();
  assert.ok(calls[0].signal.aborted);
  assert.equal(chat.connection.getSnapshot().error.code, "token");
  mock.timers.tick(1_000);
  await settle();
  assert.equal(calls.length, 2);
  calls[0].resolve("late");
  await settle();
  assert.equal(FakeSocket.all.length, 0);
  calls[1].resolve("good");
  await settle();
  FakeSocket.all[0].onopen();
  assert.deepEqual(FakeSocket.all[0].sent, [{ type: "authenticate", token: "good" }]);
  chat.close();
  mock.timers.reset();
});

test("a socket that can't be made is tried again", async () => {
  mock.timers.enable({ apis: ["setTimeout", "Date"] });
  const chat = open(undefined, { WebSocket: class { constructor() { throw new Error("SecurityError"); } } });
  chat.connect();
  await settle();
  assert.equal(chat.connection.getSnapshot().state, "waiting");
  chat.close();
  mock.timers.reset();
});

test("a storage that fails does not stop the chat", async () => {
  const chat = open(undefined, { storage: { load: () => Promise.reject(new Error("no IndexedDB")), save() {}, drop() {} } });
  chat.connect();
  await settle();
  assert.equal(FakeSocket.all.length, 1);
  chat.close();
});

test("requests resolve with the answer, or reject with the error", async () => {
  const chat = open();
  chat.connect();
  await settle();
  const [socket] = FakeSocket.all;
  socket.letIn();
  const found = chat.request({ type: "search", words: "tea" });
  const refused = chat.request({ type: "status", status: "away" });
  const [search, status] = socket.sent.slice(-2);
  socket.say({ type: "found", ref: search.ref, messages: [] });
  socket.say({ type: "error", ref: status.ref, code: "invalid", message: "no", retryable: false });
  assert.deepEqual((await found).messages, []);
  await assert.rejects(refused, (error) => error.code === "invalid");
  chat.close();
});
