// Two users in Node.js, with the WebSocket of ws, on two nodes: statuses, typing, presence, unread counts, direct conversations,
// events, and a socket that is cut again and again.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { WebSocket } from "ws";
import { createChat } from "../../packages/client/dist/index.js";
import { binary, Cluster, lacksOf, token } from "./cluster.mjs";

const DEADLINE_MS = 90_000;
const lacks = lacksOf("server");
const options = { timeout: DEADLINE_MS, ...(lacks && { skip: lacks }) };
const cluster = new Cluster();
const chats = [];

before(async () => {
  if (!lacks) await cluster.start(binary);
}, { timeout: DEADLINE_MS });

after(async () => {
  for (const chat of chats) chat.close();
  await cluster.stop();
});

function chatOf(user) {
  const chat = createChat({ url: `http://127.0.0.1:${cluster.proxy.port}`, getToken: () => token(user), WebSocket });
  chats.push(chat);
  return chat;
}

/** Waits until a store shows something. */
function until(store, fits) {
  return new Promise((resolve) => {
    let end;
    const look = () => {
      const snapshot = store.getSnapshot();
      if (!fits(snapshot)) return false;
      resolve(snapshot);
      queueMicrotask(() => end());
      return true;
    };
    end = store.subscribe(look);
    look();
  });
}

const contents = ({ messages }) => messages.map((one) => one.content);

test("an own message is sent, delivered, read", options, async () => {
  const room = await cluster.conversation("alice", "bob");
  const [alice, bob] = [chatOf("alice").conversation(room), chatOf("bob").conversation(room)];
  alice.subscribe(() => {});
  alice.send("Hello");
  const statusOf = ({ messages }) => messages[0]?.status;
  await until(alice, (one) => statusOf(one) === "sent");
  bob.subscribe(() => {});
  await until(alice, (one) => statusOf(one) === "delivered");
  await until(bob, (one) => one.messages.length === 1);
  bob.markRead();
  await until(alice, (one) => statusOf(one) === "read");
  // A page that comes later has it from the list.
  await until(chatOf("alice").conversation(room), (one) => statusOf(one) === "read");
});

test("typing, presence and unread counts", options, async () => {
  const room = await cluster.conversation("alice", "bob");
  const [alice, bob] = [chatOf("alice"), chatOf("bob")];
  const mine = alice.conversation(room);
  await until(mine, (one) => one.loaded);
  mine.subscribe(() => {});
  const presence = alice.presence(["bob"]);
  const theirs = bob.conversation(room);
  theirs.subscribe(() => {});
  await until(theirs, (one) => one.loaded);
  await until(presence, (one) => one.bob?.online);
  theirs.setTyping("H");
  await until(mine, (one) => one.typing[0]?.userId === "bob");
  theirs.send("Hi");
  await until(mine, (one) => one.messages.length === 1 && one.typing.length === 0);
  const list = alice.conversations();
  const item = ({ conversations }) => conversations.find((one) => one.id === room);
  await until(list, (one) => item(one)?.unread === 1 && item(one).lastMessage.content === "Hi");
  mine.markRead();
  await until(list, (one) => item(one).unread === 0);
  const other = await cluster.conversation("bob", "alice");
  await cluster.say("bob", other, "elsewhere");
  await until(list, ({ conversations: [first] }) => first.id === other && first.unread === 1 && first.lastMessage.content === "elsewhere");
});

test("a direct conversation, from nothing", options, async () => {
  const names = [`carol-${process.pid}`, `dave-${process.pid}`];
  const [carol, dave] = [chatOf(names[0]).dm(names[1]), chatOf(names[1]).dm(names[0])];
  dave.subscribe(() => {});
  await until(carol, (one) => one.loaded && one.id === undefined);
  carol.subscribe(() => {});
  carol.send("one");
  carol.send("two");
  await until(carol, (one) => one.id && one.messages.every((message) => message.seq));
  const { id } = await until(dave, (one) => one.messages.length === 2);
  dave.send("three");
  await until(carol, (one) => one.messages.length === 3);
  assert.deepEqual(contents(carol.getSnapshot()), ["one", "two", "three"]);
  // A later chat finds it by the user.
  await until(chatOf(names[0]).dm(names[1]), (one) => one.id === id && one.messages.length === 3);
});

test("requests and events", options, async () => {
  const room = await cluster.conversation("alice", "bob");
  const [alice, bob] = [chatOf("alice"), chatOf("bob")];
  const came = new Promise((resolve) => bob.onEvent(resolve));
  await until(bob.conversation(room), (one) => one.loaded);
  bob.conversation(room).subscribe(() => {});
  await alice.request({ type: "event", conversation_id: room, name: "cursor", data: { x: 1 } });
  const { name, data, user_id } = await came;
  assert.deepEqual([name, data, user_id], ["cursor", { x: 1 }, "alice"]);
  await assert.rejects(alice.request({ type: "history", conversation_id: "no-such-room" }), (error) => error.code === "not_member");
});

test("a conversation of others is refused, and shows why", options, async () => {
  const room = await cluster.conversation("bob");
  const snapshot = await until(chatOf("alice").conversation(room), (one) => one.error);
  assert.equal(snapshot.error.code, "not_member");
});

test("a reaction that stands already", options, async () => {
  const room = await cluster.conversation("alice", "bob");
  await cluster.say("bob", room, "hello");
  const [one, two] = [chatOf("alice").conversation(room), chatOf("alice").conversation(room)];
  for (const each of [one, two]) {
    each.subscribe(() => {});
    await until(each, (snapshot) => snapshot.messages.length === 1);
  }
  one.react(1, "👍");
  two.react(1, "👍");
  one.send("after");
  two.send("after too");
  for (const each of [one, two]) {
    const { messages } = await until(each, (snapshot) => snapshot.messages.filter((message) => message.seq).length === 3);
    assert.deepEqual(messages[0].reactions, [{ emoji: "👍", count: 1, own: true }]);
  }
});

test("cut again and again, while both send", options, async () => {
  const room = await cluster.conversation("alice", "bob");
  const both = ["alice", "bob"].map((user) => chatOf(user).conversation(room));
  for (const one of both) {
    one.subscribe(() => {});
    await until(one, (snapshot) => snapshot.loaded);
  }
  for (let i = 0; i < 40; i++) {
    both[i % 2].send(`${i}`);
    if (i % 8 === 3) cluster.proxy.cut();
    await new Promise((resolve) => setImmediate(resolve));
  }
  const history = async () => (await cluster.history("alice", room)).map((one) => [one.seq, one.sender_id, one.content]);
  for (const one of both) {
    const { messages } = await until(one, (snapshot) => snapshot.messages.filter((message) => message.seq).length === 40);
    assert.deepEqual(messages.map((message) => [message.seq, message.senderId, message.content]), await history());
  }
  for (const parity of [0, 1]) {
    const own = (await history()).map(([, , content]) => Number(content)).filter((content) => content % 2 === parity);
    assert.deepEqual(own, [...own].sort((a, b) => a - b));
  }
});
