// Runs the vectors of clients/vectors, which all clients share. Their README describes the format.
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";
import { Driver } from "./support/driver.mjs";

const folder = new URL("../../vectors/", import.meta.url);
const COUNTED = ["join", "sync", "history", "send", "edit", "delete", "react", "refresh"];

class Runner {
  variables = new Map();
  refs = new Map();
  driver = this.newDriver();

  newDriver() {
    const driver = new Driver();
    driver.onSend = (frame) => {
      driver.sent.push(frame);
      if (frame.client_id) this.refs.set(frame.client_id, frame);
    };
    return driver;
  }

  /** Compares with variables: the first use of one takes the value. */
  match(actual, expected, at) {
    if (typeof expected === "string" && expected.startsWith("$")) {
      if (!this.variables.has(expected)) this.variables.set(expected, actual);
      expected = this.variables.get(expected);
    }
    if (expected === null || typeof expected !== "object") return assert.deepEqual(actual, expected, at);
    assert.deepEqual(Object.keys(actual ?? {}).sort(), Object.keys(expected).sort(), at);
    for (const key of Object.keys(expected)) this.match(actual[key], expected[key], `${at}.${key}`);
  }

  fill(value) {
    if (typeof value === "string" && value.startsWith("$")) return this.variables.get(value);
    if (value === null || typeof value !== "object") return value;
    if (Array.isArray(value)) return value.map((one) => this.fill(one));
    return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, this.fill(one)]));
  }

  /** An answer to a command has the ref that the client gave the command, as from the server. */
  refOf({ type, client_id }) {
    if (!["ack", "ok", "error"].includes(type) || !client_id) return {};
    const { ref } = this.refs.get(client_id) ?? {};
    return ref === undefined ? {} : { ref };
  }

  connect({ epoch, expires_in_ms: expiresIn }) {
    const { driver } = this;
    if (driver.connection.state === "waiting") driver.advance(driver.timers.get("connect") - driver.now);
    driver.take();
    driver.online({ epoch, expiresIn });
  }

  command(type, { target, ...frame }) {
    this.driver.act("command", { type, ...frame }, target);
  }

  reload() {
    const saved = [...this.driver.saved.values()];
    this.driver = this.newDriver();
    for (const one of saved) this.driver.saved.set(one.frame.client_id, one);
    this.driver.act("restore", { user: "alice", commands: structuredClone(saved), logs: {} });
  }

  sent(expected, of = COUNTED) {
    const frames = this.driver.takeOf(...of).map((frame) => {
      if (!frame.client_id) return frame;
      const { ref, ...rest } = frame;
      return rest;
    });
    assert.deepEqual(frames.map((one) => one.type), expected.map((one) => one.type), "types of frames");
    frames.forEach((frame, at) => this.match(frame, expected[at], `sent[${at}]`));
  }

  state({ conversation, cursor, messages, connection, outbox }) {
    const { driver } = this;
    if (cursor !== undefined) assert.equal(driver.state.conversations.get(conversation).log.cursor, cursor, "cursor");
    if (connection !== undefined) assert.equal(driver.connection.state, connection);
    if (outbox) assert.deepEqual([...driver.saved.values()].sort((a, b) => a.order - b.order).map((one) => one.frame.client_id), outbox);
    if (!messages) return;
    const shown = driver.conversation(conversation).messages;
    assert.equal(shown.length, messages.length, `${messages.length} messages in ${JSON.stringify(shown)}`);
    const names = { client_id: "clientId", sender_id: "senderId" };
    messages.forEach((expected, at) => {
      for (const [key, value] of Object.entries(expected)) {
        const actual = key === "error" ? shown[at].error?.code : shown[at][names[key] ?? key];
        assert.deepEqual(actual ?? null, value, `messages[${at}].${key}`);
      }
    });
  }

  step(step) {
    const { driver } = this;
    if (step.connect) return this.connect(step.connect);
    if (step.open) return driver.act("open", step.open);
    for (const type of ["send", "edit", "delete", "react"]) if (step[type]) return this.command(type, step[type]);
    if (step.retry) return driver.act("discard", step.retry, true);
    if (step.discard) return driver.act("discard", step.discard);
    if (step.receive) return driver.receive({ ...this.fill(step.receive), ...this.refOf(step.receive) });
    if (step.sent) return this.sent(step.sent, step.of);
    if (step.close) return driver.closed(step.close.code, step.close.reason);
    if ("advance_ms" in step) return this.advance(step.advance_ms);
    if (step.reload) return this.reload();
    if (step.state) return this.state(step.state);
    assert.fail(`unknown step ${JSON.stringify(step)}`);
  }

  /** Lets time pass; an application answers getToken at once while the client is online. */
  advance(ms) {
    this.driver.advance(ms);
    if (this.driver.state.asking && this.driver.connection.state === "online") this.driver.act("token", "token");
  }
}

for (const file of readdirSync(folder).filter((name) => name.endsWith(".json"))) {
  for (const { name, steps } of JSON.parse(readFileSync(new URL(file, folder), "utf8"))) {
    test(`${file}: ${name}`, () => {
      const runner = new Runner();
      steps.forEach((step, at) => {
        try {
          runner.step(step);
        } catch (error) {
          error.message = `step ${at}: ${error.message}`;
          throw error;
        }
      });
    });
  }
}
