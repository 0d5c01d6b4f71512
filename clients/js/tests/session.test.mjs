// The connection: tokens, signs of life, closes, and pauses.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Driver } from "./support/driver.mjs";

const tokensAsked = (driver) => driver.effects.filter(([name]) => name === "askToken").length;
const waitOf = (driver) => driver.timers.get("connect") - driver.now;

test("a token is asked for at each connect", () => {
  const driver = new Driver();
  driver.online();
  assert.equal(tokensAsked(driver), 1);
  driver.closed();
  assert.equal(driver.connection.state, "waiting");
  driver.advance(1_000);
  assert.equal(tokensAsked(driver), 2);
});

test("a token is refreshed before it expires, with one question at a time", () => {
  const driver = new Driver();
  driver.online({ expiresIn: 32_000 });
  driver.take();
  driver.advance(24_000);
  assert.equal(tokensAsked(driver), 2);
  // The socket ends while the application still thinks: its answer serves the connect.
  driver.closed();
  driver.advance(1_000);
  assert.equal(tokensAsked(driver), 2);
  driver.act("token", "newer");
  driver.act("opened");
  assert.deepEqual(driver.takeOf("authenticate"), [{ type: "authenticate", token: "newer" }]);
});

test("the answer to a refresh sets the next one, and a refusal tries again", () => {
  const driver = new Driver();
  driver.online({ expiresIn: 32_000 });
  driver.advance(24_000);
  driver.act("token", "same");
  const [frame] = driver.takeOf("refresh");
  assert.equal(frame.token, "same");
  driver.receive({ type: "error", ref: frame.ref, code: "conflict", message: "Not newer", retryable: false });
  driver.advance(5_000);
  assert.equal(tokensAsked(driver), 3);
  driver.act("token", "newer");
  const [second] = driver.takeOf("refresh");
  driver.receive({ type: "refreshed", ref: second.ref, expires_at: new Date(driver.now + 100_000).toISOString() });
  assert.equal(driver.timers.get("refresh") - driver.now, 75_000);
});

test("clocks that differ by more than the token's life cause no flood of refreshes", () => {
  const driver = new Driver();
  driver.online({ expiresIn: -3_600_000 });
  assert.equal(driver.timers.get("refresh") - driver.now, 60_000);
});

test("4401 asks for another token at once, and ends the session if that one is refused too", () => {
  const driver = new Driver();
  driver.online();
  driver.closed(4401, "Token revoked");
  driver.advance(0);
  assert.equal(tokensAsked(driver), 2);
  driver.act("token", "another");
  driver.closed(4401, "Token revoked");
  assert.deepEqual(driver.connection.error, { code: "4401", message: "Token revoked" });
  assert.equal(driver.connection.state, "closed");
  driver.advance(600_000);
  assert.equal(tokensAsked(driver), 2);
  driver.online();
  assert.equal(driver.connection.state, "online");
});

test("expired tokens in a row are asked for again after pauses", () => {
  const driver = new Driver();
  driver.online();
  for (let i = 0; i < 4; i++) {
    driver.closed(4401, "Token expired");
    assert.equal(driver.connection.state, "waiting");
    driver.advance(30_000);
    driver.act("token", "stale");
  }
});

test("what the user closed stays closed", () => {
  const driver = new Driver();
  driver.act("connect");
  driver.act("close");
  driver.act("token", "late");
  driver.act("wake");
  driver.advance(3_600_000);
  assert.equal(driver.connection.state, "closed");
  assert.equal(driver.dials, 0);
  assert.equal(tokensAsked(driver), 1);
});

test("no token means that the user signed out", () => {
  const driver = new Driver();
  driver.act("connect");
  driver.act("token", null);
  assert.equal(driver.connection.error.code, "signed_out");
});

test("a failing getToken is asked again", () => {
  const driver = new Driver();
  driver.act("connect");
  driver.act("tokenError", "offline");
  assert.equal(driver.connection.state, "waiting");
  driver.advance(1_000);
  assert.equal(tokensAsked(driver), 2);
});

test("pauses grow, with jitter, and begin anew after a good connection", () => {
  const driver = new Driver();
  const waits = [];
  driver.online();
  for (let i = 0; i < 7; i++) {
    driver.closed();
    waits.push(waitOf(driver));
    assert.ok(driver.effects.findLast(([name, key, ms]) => name === "timer" && key === "connect" && ms)[2] < 0, "with jitter");
    driver.advance(waits.at(-1));
    driver.act("token", "token");
  }
  assert.deepEqual(waits, [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]);
  driver.online();
  driver.advance(11_000);
  driver.closed();
  assert.equal(waitOf(driver), 1_000);
});

test("a node that restarts says when to come back", () => {
  const driver = new Driver();
  driver.online();
  driver.receive({ type: "restart", retry_after_ms: 4_321 });
  driver.closed(1012, "Restarting, retry after 4321 ms");
  assert.equal(waitOf(driver), 4_321);
  driver.act("wake");
  assert.equal(driver.connection.state, "waiting", "waking does not override the advice");
});

test("a blocked user is not sent back", () => {
  const driver = new Driver();
  driver.online();
  driver.closed(4403, "Blocked by an administrator");
  assert.equal(driver.connection.state, "closed");
});

test("too many connections: one more try", () => {
  const driver = new Driver();
  driver.online();
  driver.closed(1008, "Too many connections");
  assert.equal(waitOf(driver), 10_000);
  driver.advance(10_000);
  driver.act("token", "token");
  driver.closed(1008, "Too many connections");
  assert.equal(driver.connection.state, "closed");
});

test("a dead socket is noticed by its silence", () => {
  const driver = new Driver();
  driver.online();
  driver.advance(25_000);
  assert.equal(driver.takeOf("ping").length, 1);
  driver.receive({ type: "pong" });
  driver.advance(25_000);
  assert.equal(driver.connection.state, "online");
  driver.advance(10_000);
  assert.equal(driver.connection.state, "waiting");
});

test("waking probes a socket at once and does not wait for a pause", () => {
  const driver = new Driver();
  driver.online();
  driver.take();
  driver.act("wake");
  assert.equal(driver.takeOf("ping").length, 1);
  driver.advance(10_000);
  assert.equal(driver.connection.state, "waiting");
  driver.act("wake");
  assert.equal(driver.connection.state, "connecting");
});

test("a connect that nobody answers is given up", () => {
  const driver = new Driver();
  driver.act("connect");
  driver.act("token", "token");
  driver.advance(20_000);
  assert.equal(driver.connection.state, "waiting");
});
