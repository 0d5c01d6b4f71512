// The list of conversations, direct conversations, presence, typing, marks, and requests.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Driver } from "./support/driver.mjs";

const item = (conversation_id, more = {}) => ({
  conversation_id, is_group: true, open: false, created_by: "alice", created_at: "2026-01-01T00:00:00Z", updated_at: "2026-01-01T00:00:00Z",
  head: 1, unread: 0, archived: false, members: [], ...more,
});
const message = (conversation_id, seq, content, more = {}) => ({
  type: "message", conversation_id, seq, id: `m${seq}`, sender_id: "bob", sender_name: "Bob", content, created_at: `2026-01-02T00:00:0${seq}Z`, ...more,
});
const member = (user_id, more = {}) => ({ user_id, name: user_id, delivered_seq: 0, read_seq: 0, online: true, status: "online", ...more });

/** Answers the one request of a type that was sent. */
function answer(driver, type, more) {
  const frames = driver.sent.filter((one) => one.type === type);
  driver.sent = driver.sent.filter((one) => one.type !== type);
  assert.equal(frames.length, 1, `one ${type}`);
  driver.receive({ ...more, ref: frames[0].ref });
  return frames[0];
}

/** Confirms the one message that was sent. */
function ack(driver, client_id, conversation_id, seq) {
  assert.equal(answer(driver, "send", { type: "ack", client_id, conversation_id, seq, id: `m${seq}`, created_at: "" }).client_id, client_id);
}

function withList(conversations, more) {
  const driver = new Driver();
  driver.act("watchList", 1);
  driver.online();
  answer(driver, "conversations", { type: "conversations", conversations, total: conversations.length, status: "online", ...more });
  return driver;
}

test("the list follows messages, hints and marks", () => {
  const driver = withList([item("team", { unread: 1 }), item("lunch")]);
  assert.deepEqual(driver.list.conversations.map((one) => [one.id, one.unread]), [["team", 1], ["lunch", 0]]);
  driver.receive(message("lunch", 2, "Tea?"));
  const [first] = driver.list.conversations;
  assert.deepEqual([first.id, first.unread, first.lastMessage.content, first.lastMessage.senderId], ["lunch", 1, "Tea?", "bob"]);
  driver.receive({ type: "receipt", conversation_id: "lunch", user_id: "alice", delivered_seq: 3, read_seq: 3 });
  assert.equal(driver.list.conversations[0].unread, 0);
  driver.receive({ type: "hint", conversation_id: "team", head: 9, unread: 4 });
  assert.equal(driver.list.conversations.find((one) => one.id === "team").unread, 4);
  driver.advance(1_000);
  assert.equal(driver.takeOf("conversations").length, 1, "a hint has no text, so the list is read");
});

test("an edit or a deletion reads the list again, a reaction does not", () => {
  const driver = withList([item("team")]);
  const change = { conversation_id: "team", sender_id: "bob", created_at: "", target_seq: 1, target_id: "m1" };
  driver.receive({ type: "reaction", seq: 2, ...change, emoji: "👍", active: true });
  driver.advance(1_000);
  assert.equal(driver.takeOf("conversations").length, 0);
  driver.receive({ type: "message_edited", seq: 3, ...change, content: "Green tea?" });
  driver.advance(1_000);
  assert.equal(driver.takeOf("conversations").length, 1);
});

test("a stream of hints does not delay the reading", () => {
  const driver = withList([item("team")]);
  for (let head = 2; head < 8; head++) {
    driver.receive({ type: "hint", conversation_id: "team", head, unread: 1 });
    driver.advance(300);
  }
  assert.equal(driver.takeOf("conversations").length, 1);
});

test("the list has pages, and a removed conversation leaves it", () => {
  const driver = withList([item("a"), item("b")], { next_offset: 2 });
  assert.equal(driver.list.hasMore, true);
  driver.act("loadMore");
  const frame = answer(driver, "conversations", { type: "conversations", conversations: [item("c")], total: 3, status: "online" });
  assert.equal(frame.offset, 2);
  assert.equal(driver.list.conversations.length, 3);
  assert.equal(driver.list.hasMore, false);
  driver.receive({ type: "conversation_removed", conversation_id: "b", created_at: "" });
  assert.deepEqual(driver.list.conversations.map((one) => one.id).sort(), ["a", "c"]);
});

test("a direct conversation is joined once its id is known", () => {
  const driver = new Driver();
  driver.act("open", "/bob");
  driver.online();
  const [list] = driver.takeOf("conversations");
  driver.receive({ type: "conversations", ref: list.ref, conversations: [item("d-1", { is_group: false, members: [member("alice"), member("bob")] })], total: 1, status: "online" });
  assert.equal(driver.conversation("/bob").id, "d-1");
  assert.deepEqual(driver.takeOf("join").map((one) => one.conversation_id), ["d-1"]);
});

test("a first direct message creates the conversation", () => {
  const driver = new Driver();
  driver.act("open", "/bob");
  driver.online();
  answer(driver, "conversations", { type: "conversations", conversations: [], total: 0, status: "online" });
  answer(driver, "conversations", { type: "conversations", conversations: [], total: 0, status: "online" });
  assert.equal(driver.conversation("/bob").loaded, true);
  driver.act("command", { type: "send", recipient_id: "bob", content: "Hi", client_id: "c1" });
  assert.deepEqual(driver.conversation("/bob").messages.map((one) => one.status), ["sending"]);
  driver.receive({ type: "joined", conversation_id: "d-1", head: 0 });
  ack(driver, "c1", "d-1", 1);
  const view = driver.conversation("/bob");
  assert.deepEqual([view.id, view.messages.map((one) => [one.seq, one.content, one.status])], ["d-1", [[1, "Hi", "sent"]]]);
  assert.deepEqual(driver.takeOf("join").map((one) => one.conversation_id), ["d-1"]);
});

test("presence is asked for in chunks, told, and asked again after a reconnect", () => {
  const driver = new Driver();
  const users = Array.from({ length: 1500 }, (_, at) => `u${at}`);
  driver.act("watch", users, 1);
  driver.online();
  const frames = driver.takeOf("presence");
  assert.deepEqual(frames.map((one) => one.user_ids.length), [1000, 500]);
  driver.receive({ type: "presence_list", ref: frames[0].ref, users: [{ user_id: "u1", online: true, status: "away" }], more: true });
  driver.receive({ type: "presence_list", ref: frames[0].ref, users: [{ user_id: "u2", online: false, status: "online", last_seen: "2026-01-01T00:00:00Z" }] });
  driver.receive({ type: "presence", user_id: "u1", online: false, status: "online" });
  assert.equal(driver.presence(["u1"]).u1.online, false);
  assert.equal(driver.presence(["u2"]).u2.lastSeen, "2026-01-01T00:00:00Z");
  driver.closed();
  driver.advance(1_000);
  driver.online();
  assert.equal(driver.takeOf("presence").length, 2);
});

test("many conversations resume in chunks that fit into a frame", () => {
  const driver = new Driver();
  driver.online();
  const ids = Array.from({ length: 1000 }, (_, at) => `${"x".repeat(124)}${String(at).padStart(4, "0")}`);
  for (const id of ids) driver.act("open", id);
  for (const { ref, conversation_id } of driver.takeOf("join")) driver.receive({ type: "joined", ref, conversation_id, head: 2 ** 31 });
  driver.closed();
  driver.advance(1_000);
  driver.online();
  const frames = driver.takeOf("sync");
  assert.equal(frames.flatMap((one) => Object.keys(one.conversations)).length, 1000);
  for (const frame of frames) assert.ok(JSON.stringify(frame).length < 65_536);
});

test("heavy reads wait for each other, and are asked again after retryable errors", () => {
  const driver = new Driver();
  driver.online();
  for (const id of ["a", "b", "c"]) driver.act("open", id);
  for (const { ref, conversation_id } of driver.takeOf("join")) driver.receive({ type: "joined", ref, conversation_id, head: 0 });
  const [first, second, ...rest] = driver.takeOf("history", "conversations");
  assert.equal(rest.length, 0);
  driver.receive({ type: "error", ref: first.ref, code: "overloaded", message: "", retryable: true, retry_after_ms: 500 });
  assert.deepEqual(driver.takeOf("history").map((one) => one.conversation_id), ["c"]);
  driver.receive({ type: "history", ref: second.ref, conversation_id: second.conversation_id, messages: [], total: 0, as_of: 0 });
  driver.advance(500);
  assert.deepEqual(driver.takeOf("history").map((one) => one.conversation_id), [first.conversation_id]);
});

test("a conversation that nobody shows is left, and joined again from its cursor", () => {
  const driver = new Driver();
  driver.online();
  driver.act("open", "team");
  answer(driver, "join", { type: "joined", conversation_id: "team", head: 3 });
  driver.act("shut", "team");
  driver.act("open", "team");
  driver.advance(6_000);
  assert.deepEqual(driver.takeOf("leave"), [], "React's StrictMode shows, hides and shows");
  driver.act("shut", "team");
  driver.advance(6_000);
  assert.equal(driver.takeOf("leave").length, 1);
  driver.act("open", "team");
  assert.deepEqual(driver.takeOf("sync").map((one) => one.conversations), [{ team: 3 }]);
});

test("a refused conversation shows why, and a removed member too", () => {
  const driver = new Driver();
  driver.online();
  driver.act("open", "secret");
  answer(driver, "join", { type: "error", code: "not_member", message: "Not a member of this conversation", retryable: false });
  assert.equal(driver.conversation("secret").error.code, "not_member");
  driver.act("open", "team");
  answer(driver, "join", { type: "joined", conversation_id: "team", head: 3 });
  driver.receive({ type: "left", conversation_id: "team" });
  assert.equal(driver.conversation("team").error.code, "not_member");
  driver.receive({ type: "joined", conversation_id: "team", head: 4 });
  assert.deepEqual(driver.takeOf("sync").map((one) => one.conversations), [{ team: 3 }]);
});

test("typing is told now and then, and ends by itself", () => {
  const driver = new Driver();
  driver.online();
  driver.act("open", "team");
  answer(driver, "join", { type: "joined", conversation_id: "team", head: 0 });
  for (let i = 0; i < 10; i++) {
    driver.act("setTyping", "team", "text");
    driver.advance(500);
  }
  driver.act("setTyping", "team", "");
  assert.deepEqual(driver.takeOf("typing").map((one) => one.active), [true, true, false]);
  driver.receive({ type: "typing", conversation_id: "team", user_id: "bob", name: "Bob", active: true });
  assert.deepEqual(driver.conversation("team").typing, [{ userId: "bob", name: "Bob" }]);
  driver.advance(6_000);
  assert.deepEqual(driver.conversation("team").typing, []);
});

test("marks are told once in a while, and again after a reconnect", () => {
  const driver = new Driver();
  driver.online();
  driver.act("open", "team");
  answer(driver, "join", { type: "joined", conversation_id: "team", head: 0 });
  answer(driver, "history", { type: "history", conversation_id: "team", messages: [], total: 0, as_of: 0 });
  for (let seq = 1; seq <= 3; seq++) driver.receive(message("team", seq, "x"));
  driver.act("markRead", "team", 2);
  driver.advance(300);
  const [frame] = driver.takeOf("read");
  assert.deepEqual([frame.seq, frame.delivered_seq], [2, 3]);
  driver.closed();
  driver.advance(1_000);
  driver.online();
  driver.receive({ type: "ok", ref: driver.takeOf("read")[0].ref });
  driver.act("markRead", "team");
  driver.advance(300);
  assert.deepEqual(driver.takeOf("read").map((one) => one.seq), [3]);
});

test("another user sees nothing of the one before, whose outbox waits", () => {
  const driver = withList([item("team")]);
  driver.act("open", "team");
  driver.receive(message("team", 1, "secret"));
  driver.closed();
  driver.act("command", { type: "send", conversation_id: "team", content: "mine", client_id: "c1" });
  driver.advance(1_000);
  driver.online({ user: "carol" });
  assert.deepEqual(driver.conversation("team").messages, []);
  assert.deepEqual(driver.list.conversations, []);
  assert.deepEqual(driver.takeOf("send"), []);
  assert.ok(driver.saved.has("c1"));
  assert.ok(driver.effects.some(([name]) => name === "wipe"));
  driver.closed();
  driver.advance(2_000);
  driver.online();
  answer(driver, "join", { type: "joined", conversation_id: "team", head: 1 });
  assert.deepEqual(driver.takeOf("send").map((one) => one.client_id), ["c1"]);
});

test("what was written before the first connect belongs to the user who then signs in", () => {
  const driver = new Driver();
  driver.act("command", { type: "send", conversation_id: "team", content: "early", client_id: "c1" });
  driver.online();
  assert.deepEqual(driver.takeOf("send").map((one) => one.client_id), ["c1"]);
  assert.equal(driver.saved.get("c1").user, "alice");
});

test("what was written before the storage answered comes after what it kept", () => {
  const driver = new Driver();
  const command = (client_id) => ({ type: "send", conversation_id: "team", content: client_id, client_id });
  driver.act("command", command("c2"));
  driver.act("command", command("c3"));
  const kept = (client_id, order) => ({ frame: command(client_id), user: "alice", createdAt: "", order });
  driver.act("restore", { user: "alice", commands: [kept("c2", 8), kept("c1", 7)], logs: {} });
  assert.deepEqual(driver.conversation("team").messages.map((one) => one.content), ["c1", "c2", "c3"]);
  driver.online();
  for (const seq of [1, 2, 3]) {
    ack(driver, `c${seq}`, "team", seq);
  }
});

test("a frame that is too large does not close every socket", () => {
  const driver = new Driver();
  driver.online();
  driver.act("command", { type: "send", conversation_id: "a", content: "", data: "x".repeat(70_000), client_id: "c1" });
  driver.act("command", { type: "send", conversation_id: "b", content: "short", client_id: "c2" });
  driver.take();
  driver.closed(1009, "Message too large");
  assert.equal(driver.conversation("a").messages[0].error.code, "too_large");
  driver.advance(1_000);
  driver.online();
  assert.deepEqual(driver.takeOf("send").map((one) => one.client_id), ["c2"]);
});

test("snapshots keep what did not change", () => {
  const driver = new Driver();
  driver.online();
  driver.act("open", "team");
  answer(driver, "join", { type: "joined", conversation_id: "team", head: 0 });
  answer(driver, "history", { type: "history", conversation_id: "team", messages: [], total: 0, as_of: 0 });
  driver.receive(message("team", 1, "one"));
  const before = driver.conversation("team").messages[0];
  driver.receive(message("team", 2, "two"));
  assert.equal(driver.conversation("team").messages[0], before);
  driver.act("command", { type: "send", conversation_id: "team", content: "mine", client_id: "c1" });
  const key = driver.conversation("team").messages[2].key;
  ack(driver, "c1", "team", 3);
  assert.equal(driver.conversation("team").messages[2].key, key, "an own message keeps its key when it is stored");
});
