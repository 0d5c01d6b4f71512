// Every example of the native dialect in asyncapi.yaml: the server's frames decode and are taken in, and what the client sends
// has only fields that the server knows.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { parse } from "yaml";
import { decode } from "../packages/client/dist/index.js";
import { Driver } from "./support/driver.mjs";

const { channels, components } = parse(readFileSync(new URL("../../../docs/protocol/asyncapi.yaml", import.meta.url), "utf8"));
const messages = Object.keys(channels.native.messages).map((key) => ({ key, ...components.messages[key] }));

for (const { key, examples } of messages.filter((one) => !one.key.endsWith("FromClient"))) {
  test(`${key} decodes and is taken in`, () => {
    for (const { payload } of examples) {
      assert.deepEqual(decode(JSON.stringify(payload)), payload);
      const driver = new Driver();
      driver.act("open", "team");
      driver.act("watchList", 1);
      driver.online();
      driver.receive(payload);
      driver.conversation("team");
      driver.list;
    }
  });
}

test("what is no frame is none", () => {
  for (const text of ["", "{", "null", "7", "[]", "{}", '"type"']) assert.equal(decode(text), undefined);
});

test("the client sends only fields of the document", () => {
  const driver = new Driver();
  driver.act("open", "team");
  driver.act("watchList", 1);
  driver.act("watch", ["bob"], 1);
  driver.online();
  const sent = driver.take();
  driver.receive({ type: "joined", ref: sent.find((one) => one.type === "join").ref, conversation_id: "team", head: 0 });
  const named = { conversation_id: "team", seq: 1 };
  const frames = [
    { type: "send", conversation_id: "team", content: "x", data: {}, reply_to: 1, persona_id: "p" }, { type: "edit", ...named, content: "x" },
    { type: "delete", ...named }, { type: "react", ...named, emoji: "👍", active: true },
  ];
  for (const [at, frame] of frames.entries()) {
    driver.act("command", { ...frame, client_id: `c${at}` });
    const { ref } = driver.sent.at(-1);
    driver.receive({ type: "ack", ref, client_id: `c${at}`, conversation_id: "team", seq: at + 1, id: "i", created_at: "" });
  }
  driver.receive({ type: "message", conversation_id: "team", seq: 5, id: "m5", sender_id: "bob", sender_name: "Bob", content: "x", created_at: "" });
  driver.act("markRead", "team");
  driver.act("setTyping", "team", true);
  driver.advance(25_000);
  driver.receive({ type: "pong" });
  driver.act("shut", "team");
  driver.advance(6_000);
  driver.act("open", "team");
  sent.push(...driver.take());
  driver.closed();
  driver.advance(1_000);
  driver.online();
  driver.act("refresh");
  driver.act("token", "next");
  sent.push(...driver.take());
  const types = new Set(sent.map((one) => one.type));
  for (const type of ["authenticate", "join", "sync", "history", "send", "edit", "delete", "react", "read", "typing", "ping", "leave", "refresh", "conversations", "presence"]) {
    assert.ok(types.has(type), `it sends ${type}`);
  }
  for (const frame of sent) {
    const { payload } = messages.find((one) => one.key.endsWith("FromClient") && one.payload.properties.type.const === frame.type);
    for (const field of Object.keys(frame)) assert.ok(field in payload.properties, `${frame.type} has ${field}`);
    for (const field of payload.required) assert.ok(field in frame, `${frame.type} lacks ${field}`);
  }
});
