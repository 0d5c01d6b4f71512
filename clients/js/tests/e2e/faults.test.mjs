// The client in Chromium over two nodes, under faults. After each fault the list of the page equals the server's history.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { binary, Cluster, lacksOf } from "./cluster.mjs";
import { chromiumPath, DEADLINE_MS, offline, online, Pages, send, shown, shows } from "./pages.mjs";

const lacks = lacksOf(chromiumPath);
const options = { timeout: 2 * DEADLINE_MS, ...(lacks && { skip: lacks }) };

const cluster = new Cluster();
const pages = new Pages();

before(async () => {
  if (!lacks) await Promise.all([cluster.start(binary), pages.start()]);
}, { timeout: 2 * DEADLINE_MS });

after(async () => {
  await pages.stop();
  await cluster.stop();
});

const url = () => `ws://127.0.0.1:${cluster.proxy.port}`;
let count = 0;

/** A room of alice and bob, and a page of alice that shows it. */
async function scene(parameters = {}) {
  // An earlier test may have failed in the middle of its fault.
  cluster.proxy.forward();
  const room = await cluster.conversation("alice", "bob");
  await cluster.say("bob", room, "hello");
  const context = await pages.profile();
  const page = await pages.open(context, { user: "alice", url: url(), room, ...parameters });
  await online(page);
  await shows(page, room, ["hello"]);
  const said = ["hello"];
  return {
    room, context, page, said,
    async send(to = page) {
      const text = `alice ${++count}`;
      said.push(text);
      await send(to, room, text);
    },
    async say() {
      const text = `bob ${++count}`;
      said.push(text);
      await cluster.say("bob", room, text);
    },
    /** The list of each page equals the history, and both have every message that was sent, once. */
    async check(...tabs) {
      for (const tab of tabs.length ? tabs : [page]) {
        await shows(tab, room, said);
        const list = await shown(tab, room);
        const history = await cluster.history("alice", room);
        assert.deepEqual(list.map(({ seq, senderId, content }) => [seq, senderId, content]), history.map((one) => [one.seq, one.sender_id, one.content]));
        assert.deepEqual(history.map((one) => one.content).sort(), [...said].sort());
        assert.deepEqual(history.filter((one) => one.sender_id === "alice").map((one) => one.content), said.filter((one) => !/^(bob|hello)/.test(one)));
        assert.ok(list.every(({ status }) => ["sent", "delivered", "read"].includes(status)));
        assert.deepEqual(tab.errors, []);
      }
      await context.close();
    },
  };
}

/** Waits until a storage holds certain keys. */
async function stores(page, name, fits) {
  for (;;) {
    const keys = await page.evaluate((name) => new Promise((resolve) => {
      const request = indexedDB.open(name);
      request.onsuccess = () => {
        const keys = request.result.transaction("values").objectStore("values").getAllKeys();
        keys.onsuccess = () => resolve(keys.result);
      };
    }), name);
    if (fits(keys)) return;
  }
}

test("React under StrictMode: one socket, and the page shows what the server has", options, async () => {
  const before = cluster.proxy.connections;
  const s = await scene();
  assert.equal(cluster.proxy.connections - before, 1);
  await s.page.click("button");
  s.said.push("from React");
  await s.page.waitForSelector('li[data-seq]:has-text("from React")');
  await s.say();
  await s.page.waitForFunction((text) => [...document.querySelectorAll("li")].some((one) => one.textContent === text), s.said.at(-1));
  await s.page.waitForFunction(() => document.querySelector("#presence").textContent === "false");
  await s.page.waitForFunction(() => document.querySelector("#unread").textContent !== "none");
  await s.check();
});

for (const at of [0, 1]) {
  test(`SIGKILL of node ${at}`, options, async () => {
    const s = await scene();
    await cluster.endNode(at, "SIGKILL");
    for (let i = 0; i < 5; i++) {
      await s.send();
      await s.say();
    }
    await s.check();
    await cluster.startNode(at);
  });
}

test("both nodes dead", options, async () => {
  const s = await scene();
  await s.send();
  await cluster.endNode(0, "SIGKILL");
  await cluster.endNode(1, "SIGKILL");
  await offline(s.page);
  for (let i = 0; i < 3; i++) await s.send();
  assert.deepEqual((await shown(s.page, s.room)).slice(-3).map((one) => one.status), ["sending", "sending", "sending"]);
  await Promise.all([cluster.startNode(0), cluster.startNode(1)]);
  await s.say();
  await s.check();
});

test("SIGTERM: both nodes drain in turn", options, async () => {
  const s = await scene();
  for (const at of [0, 1]) {
    const drained = cluster.endNode(at, "SIGTERM");
    for (let i = 0; i < 5; i++) {
      await s.send();
      await s.say();
    }
    await drained;
    await s.send();
    await cluster.startNode(at);
  }
  await s.check();
});

test("offline", options, async () => {
  const s = await scene();
  await s.context.setOffline(true);
  cluster.proxy.refuse();
  await offline(s.page);
  for (let i = 0; i < 3; i++) await s.send();
  await s.say();
  cluster.proxy.forward();
  await s.context.setOffline(false);
  await s.check();
});

test("a reload while offline keeps the outbox and the list", options, async () => {
  const s = await scene({ storage: "kept" });
  // The storage writes a moment after a change.
  await stores(s.page, "kept", (keys) => keys.includes("meta") && keys.some((key) => key.startsWith("c:room-")));
  cluster.proxy.refuse();
  await offline(s.page);
  for (let i = 0; i < 3; i++) await s.send();
  await stores(s.page, "kept", (keys) => keys.filter((key) => key.startsWith("o:")).length === 3);
  await s.page.reload();
  await s.page.waitForFunction((room) => window.chat?.conversation(room).getSnapshot().messages.length === 4, s.room);
  assert.deepEqual((await shown(s.page, s.room)).map((one) => one.status), ["delivered", "sending", "sending", "sending"]);
  await s.say();
  cluster.proxy.forward();
  await s.check();
});

test("a black hole: nothing passes, and nobody is told", options, async () => {
  const s = await scene();
  cluster.proxy.swallow();
  await s.send();
  await s.say();
  await offline(s.page);
  await s.send();
  cluster.proxy.forward();
  await s.check();
});

test("Redis frozen", options, async () => {
  const s = await scene();
  cluster.redis.child.kill("SIGSTOP");
  try {
    for (let i = 0; i < 3; i++) {
      await s.send();
      await s.say();
    }
    await shows(s.page, s.room, s.said);
  } finally {
    cluster.redis.child.kill("SIGCONT");
  }
  await s.send();
  await s.say();
  await s.check();
});

test("tokens that expire are refreshed on the same socket", options, async () => {
  const before = cluster.proxy.connections;
  const s = await scene({ seconds: 16 });
  await s.page.waitForFunction(() => window.tokens >= 3);
  await s.send();
  await s.say();
  assert.equal(cluster.proxy.connections - before, 1, "no reconnect");
  assert.equal(await s.page.evaluate(() => window.overlaps), 0, "one question at a time");
  await s.check();
});

test("a renderer that is stopped past its token comes back", options, async () => {
  const s = await scene({ seconds: 10 });
  const renderers = await pages.renderers();
  const before = await s.page.evaluate(() => window.tokens);
  for (const id of renderers) process.kill(id, "SIGSTOP");
  try {
    await s.say();
    // The server ends the socket when the token expires.
    await cluster.proxy.idle();
  } finally {
    for (const id of renderers) process.kill(id, "SIGCONT");
  }
  await s.page.waitForFunction((before) => window.tokens > before, before);
  await s.send();
  await s.say();
  await s.check();
});

test("what the user closed stays closed, until connect", options, async () => {
  const s = await scene();
  await s.page.evaluate(() => window.chat.close());
  await s.say();
  await s.page.evaluate(() => window.dispatchEvent(new Event("online")));
  assert.equal(await s.page.evaluate(() => window.chat.connection.getSnapshot().state), "closed");
  await s.page.evaluate(() => window.chat.connect());
  await s.check();
});

test("edits, deletions and reactions during a fault", options, async () => {
  const s = await scene();
  await s.send();
  await shows(s.page, s.room, s.said);
  cluster.proxy.refuse();
  await offline(s.page);
  await s.page.evaluate((room) => {
    const conversation = window.chat.conversation(room);
    const own = conversation.getSnapshot().messages.findLast((one) => one.own);
    conversation.edit(own, "edited while offline");
    conversation.react(own, "🎉");
    const gone = conversation.send("never to be seen");
    conversation.delete(gone);
    conversation.react(conversation.getSnapshot().messages[0], "👍");
  }, s.room);
  const optimistic = await s.page.evaluate((room) => window.chat.conversation(room).getSnapshot().messages.map((one) => [one.content, !!one.deleted, one.reactions.length]), s.room);
  assert.deepEqual(optimistic, [["hello", false, 1], ["edited while offline", false, 1], ["", true, 0]]);
  cluster.proxy.forward();
  await s.page.waitForFunction((room) => window.chat.conversation(room).getSnapshot().messages.every((one) => one.seq && one.asOf > one.seq), s.room);
  const list = await s.page.evaluate((room) => window.chat.conversation(room).getSnapshot().messages, s.room);
  const history = await cluster.history("alice", s.room);
  assert.deepEqual(list.map((one) => [one.seq, one.content, !!one.deleted, one.reactions.map(({ emoji, count }) => [emoji, count])]),
    history.map((one) => [one.seq, one.content, one.is_deleted, one.reactions.map(({ emoji, count }) => [emoji, count])]));
  await s.context.close();
});

for (const mode of ["worker", "elected"]) {
  test(`two tabs share one socket: ${mode === "worker" ? "SharedWorker" : "Web Locks"}`, options, async () => {
    const before = cluster.proxy.connections;
    const s = await scene({ mode });
    const second = await pages.open(s.context, { user: "alice", url: url(), room: s.room, mode });
    await shows(second, s.room, s.said);
    await s.send();
    await s.send(second);
    await s.say();
    await shows(s.page, s.room, s.said);
    await shows(second, s.room, s.said);
    assert.equal(cluster.proxy.connections - before, 1, "one socket for both");
    cluster.proxy.cut();
    await s.send(second);
    await s.send();
    await s.say();
    await s.check(s.page, second);
  });
}

test("the tab that owns the socket closes, and another takes over", options, async () => {
  const s = await scene({ mode: "elected", storage: "shared" });
  const second = await pages.open(s.context, { user: "alice", url: url(), room: s.room, mode: "elected", storage: "shared" });
  await shows(second, s.room, s.said);
  cluster.proxy.refuse();
  await offline(second);
  for (let i = 0; i < 3; i++) await s.send(second);
  await second.waitForFunction((room) => window.chat.conversation(room).getSnapshot().messages.length === 4, s.room);
  await s.page.close({ runBeforeUnload: false });
  cluster.proxy.forward();
  await s.send(second);
  await s.check(second);
});

test("the tab that owns the socket freezes, and another takes over", options, async (t) => {
  const s = await scene({ mode: "elected", storage: "frozen" });
  const second = await pages.open(s.context, { user: "alice", url: url(), room: s.room, mode: "elected", storage: "frozen" });
  await shows(second, s.room, s.said);
  const owner = await pages.rendererOf(s.page);
  if (owner === await pages.rendererOf(second)) return t.skip("both tabs have one process");
  process.kill(owner, "SIGSTOP");
  try {
    await s.send(second);
    await s.say();
    await shows(second, s.room, s.said);
  } finally {
    process.kill(owner, "SIGCONT");
  }
  await s.send();
  await s.check(s.page, second);
});

test("more was missed than a resume brings", options, async () => {
  const s = await scene();
  cluster.proxy.refuse();
  await offline(s.page);
  await s.send();
  for (let i = 0; i < 70; i++) await s.say();
  cluster.proxy.forward();
  await shows(s.page, s.room, s.said.slice(-40));
  // The newest page came in place of the list; older ones follow.
  while (await s.page.evaluate((room) => window.chat.conversation(room).getSnapshot().hasOlder, s.room)) {
    await s.page.evaluate((room) => window.chat.conversation(room).loadOlder(), s.room);
    await s.page.waitForFunction((room) => !window.chat.conversation(room).getSnapshot().loadingOlder, s.room);
  }
  await s.check();
});

test("two tabs of their own show the same", options, async () => {
  const s = await scene({ storage: "two" });
  const second = await pages.open(s.context, { user: "alice", url: url(), room: s.room, storage: "two" });
  await shows(second, s.room, s.said);
  for (let i = 0; i < 3; i++) {
    await s.send(i % 2 ? second : s.page);
    await shows(s.page, s.room, s.said);
    await shows(second, s.room, s.said);
  }
  cluster.proxy.cut();
  await s.say();
  await s.check(s.page, second);
});
