// The page of `switchboard dev` in Chromium: two users chat, each button breaks what it says, and a refusal shows the same sentence
// in the page, in the browser's console and in the log of the node.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { createServer } from "node:http";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { after, before, test } from "node:test";
import { chromium } from "playwright-core";
import { WebSocket } from "ws";
import { binary } from "./cluster.mjs";
import { chromiumPath, DEADLINE_MS } from "./pages.mjs";
import { end, folder, freePort, start } from "./processes.mjs";

const lacks = [[existsSync(binary), `the program ${binary}`], [chromiumPath, "chromium"]].filter(([there]) => !there).map(([, name]) => name);
const skip = lacks.length ? `missing: ${lacks.join(", ")}` : undefined;
const options = { skip, timeout: 3 * DEADLINE_MS };

let browser;
let port;
let dev;

async function startDev(settings = {}) {
  port = await freePort();
  const env = { PATH: process.env.PATH, LISTEN: `127.0.0.1:${port}`, ADMIN_LISTEN: "off", DATA_DIR: folder(), LOG_FORMAT: "json", MESSAGE_RATE_LIMIT: "0", ...settings };
  dev = await start(binary, ["dev"], { env, cwd: env.DATA_DIR, ready: "This page again" });
  return dev;
}

async function open(path = "/", host = "127.0.0.1") {
  const context = await browser.newContext({ viewport: { width: 1280, height: 960 } });
  await context.grantPermissions(["clipboard-read", "clipboard-write"], { origin: `http://${host}:${port}` });
  context.setDefaultTimeout(DEADLINE_MS);
  const page = await context.newPage();
  page.said = [];
  page.on("console", (message) => message.type() === "error" && page.said.push(message.text()));
  page.on("pageerror", (error) => page.said.push(`uncaught: ${error}`));
  await page.goto(`http://${host}:${port}${path}`);
  return page;
}

const pane = (page, at) => page.locator(".pane").nth(at);
const says = (page, at, text) => pane(page, at).locator(".messages .text").filter({ hasText: text }).first().waitFor();
const state = (page, at, text) => pane(page, at).locator(".state", { hasText: new RegExp(`^${text}$`) }).waitFor();
const frame = (page, text) => page.locator(".frames li", { hasText: text }).first().waitFor();
const press = (page, at, name) => pane(page, at).getByRole("button", { name, exact: true }).click();

async function send(page, at, text) {
  await pane(page, at).locator(".composer input").fill(text);
  await pane(page, at).locator(".composer input").press("Enter");
}

/** Waits until the log has a line with this text, and returns the lines. */
async function logged(text) {
  for (const end = Date.now() + DEADLINE_MS; Date.now() < end;) {
    const lines = dev.output().split("\n").filter((line) => line.includes(text));
    if (lines.length) return lines;
    await new Promise((resolve) => dev.stderr.once("data", resolve));
  }
  throw new Error(`the log has no ${text}`);
}

before(async () => {
  if (skip) return;
  browser = await chromium.launch({ executablePath: chromiumPath, timeout: DEADLINE_MS,
    args: ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-dev-shm-usage"] });
}, { timeout: 2 * DEADLINE_MS });

after(async () => {
  await browser?.close();
  if (dev) await end(dev);
});

test("the demo: two users chat at once, and after each fault the other has every message once", options, async () => {
  await startDev();
  assert.match(dev.output(), new RegExp(`Open +http://127.0.0.1:${port}/ `));
  const page = await open();
  await says(page, 0, "Hi Bob!");
  await says(page, 1, "Hi Bob!");
  await says(page, 0, "Hi Alice!");
  await state(page, 0, "online");

  await press(page, 0, "Drop the socket");
  await send(page, 0, "after the drop");
  await says(page, 1, "after the drop");

  await press(page, 1, "Go offline");
  await state(page, 1, "offline");
  await send(page, 0, "while Bob was away");
  await send(page, 1, "typed by Bob while he was away");
  await pane(page, 1).locator("li.sending", { hasText: "typed by Bob" }).waitFor();
  await press(page, 1, "Go online");
  await says(page, 1, "while Bob was away");
  await says(page, 0, "typed by Bob while he was away");

  await press(page, 0, "Restart hint");
  await frame(page, "Restarting, retry after 3000 ms");
  await state(page, 0, "online");
  await send(page, 0, "after the hint");
  await says(page, 1, "after the hint");

  await press(page, 1, "Expire the token");
  await frame(page, "closed: 4401 Token expired");
  await frame(page, "asks for a new token");
  await state(page, 1, "online");
  await send(page, 1, "after the token");
  await says(page, 0, "after the token");

  for (const at of [0, 1]) {
    const texts = await pane(page, at).locator(".messages li .text").allTextContents();
    assert.equal(new Set(texts).size, texts.length, `each message once: ${texts}`);
    assert.equal(texts.length, 7, texts.join("\n"));
  }
  const frames = await page.locator(".frames").textContent();
  assert.match(frames, /"type":"authenticate","token":"…"/);
  assert.doesNotMatch(frames, /eyJ/, "no token is shown");
  assert.doesNotMatch(dev.output().replace(/^\s+eyJ\S+$|token=eyJ[^"]+|Bearer eyJ[^']+/gm, ""), /eyJ/, "and none is logged");
  assert.deepEqual(page.said, []);
});

test("the demo: the persona answers, users are switched, and copied commands work as they are", options, async () => {
  const page = await open();
  await state(page, 0, "online");
  await pane(page, 0).locator(".composer input").fill("are you there?");
  await press(page, 0, "Ask echo");
  await says(page, 1, "Alice said: are you there?");

  await pane(page, 1).locator("select").selectOption("carol");
  await says(page, 1, "are you there?");
  await send(page, 1, "Carol is here");
  await says(page, 0, "Carol is here");

  const copied = async (name) => {
    // Only the page in front may write to the clipboard.
    await page.bringToFront();
    await page.getByRole("button", { name: `Copy as ${name}`, exact: true }).click();
    await page.locator(".said", { hasText: `Copied as ${name}` }).waitFor();
    return page.evaluate(() => navigator.clipboard.readText());
  };
  const js = await copied("JS");
  const other = await open("/api/health");
  await other.evaluate(js);
  await says(page, 0, "hello from JS");
  const curl = spawnSync("bash", ["-c", await copied("curl")], { encoding: "utf8", timeout: DEADLINE_MS });
  assert.equal(curl.status, 0, curl.stderr);
  await says(page, 0, "hello from curl");
  const python = await copied("Python");
  const ran = spawnSync(process.env.PYTHON ?? new URL("../../../../target/clients/python/bin/python", import.meta.url).pathname, ["-c", python], { encoding: "utf8", timeout: DEADLINE_MS });
  if (ran.error) return;
  assert.equal(ran.status, 0, ran.stderr);
  await says(page, 0, "hello from Python");
});

test("the demo works from the keyboard, on a narrow screen, and without contrast faults", options, async () => {
  const page = await open();
  await state(page, 0, "online");
  const reached = new Set();
  for (let presses = 0; presses < 40; presses++) {
    await page.keyboard.press("Tab");
    reached.add(await page.evaluate(() => {
      const { activeElement: at } = document;
      const outlined = at !== document.body && getComputedStyle(at).outlineStyle !== "none";
      return `${at.getAttribute("aria-label") ?? at.textContent}${outlined ? "" : " (not outlined)"}`;
    }));
  }
  for (const name of ["User of this pane", "Message as Alice", "Send", "Ask echo", "Drop the socket", "Expire the token", "Go offline", "Restart hint", "Message as Bob",
    "Frames, newest last: arrows move, Enter opens", "Copy as JS", "Copy as curl"]) assert.ok(reached.has(name), `${name}: ${[...reached].join(" | ")}`);
  for (const colorScheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme });
    assert.deepEqual(await page.evaluate(poorContrasts), [], colorScheme);
  }
  await page.setViewportSize({ width: 360, height: 700 });
  assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), "nothing is cut off on a phone");
});

/** Texts whose contrast is below 4.5 (WCAG AA), as this page shows them. */
function poorContrasts() {
  const luminance = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((one) => (one / 255 <= 0.03928 ? one / 255 / 12.92 : ((one / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const parts = (colour) => colour.match(/[\d.]+/g).map(Number);
  const poor = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].filter((node) => node.nodeType === 3).map((node) => node.textContent.trim()).join("");
    if (!own || !element.checkVisibility()) continue;
    let at = element;
    while (at !== document.documentElement && (parts(getComputedStyle(at).backgroundColor)[3] ?? 1) === 0) at = at.parentElement;
    const [front, back] = [getComputedStyle(element).color, getComputedStyle(at).backgroundColor].map((colour) => luminance(parts(colour)) + 0.05);
    const ratio = Math.max(front, back) / Math.min(front, back);
    if (ratio < 4.5) poor.push(`${own.slice(0, 30)}: ${ratio.toFixed(1)}`);
  }
  return poor;
}

/** A page of another origin, which nobody listed. It uses the client as its README says. */
async function foreignPage(host) {
  const server = createServer((_, response) => {
    response.setHeader("content-type", "text/html");
    response.end('<!doctype html><link rel="icon" href="data:,"><p>a page');
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  return { server, url: `http://${host}:${server.address().port}` };
}

test("a blocked origin: the same sentence in the console of that page, in the red box and in the log", options, async () => {
  const demo = await open();
  await state(demo, 0, "online");
  const foreign = await foreignPage("127.0.0.1");
  // A name that is not this machine's to the server, and leads to it in this browser.
  const other = await chromium.launch({ executablePath: chromiumPath, timeout: DEADLINE_MS,
    args: ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage", "--host-resolver-rules=MAP app.example 127.0.0.1"] });
  try {
    const page = await other.newPage();
    const said = [];
    page.on("console", (message) => said.push(message.text()));
    const origin = foreign.url.replace("127.0.0.1", "app.example");
    await page.goto(origin);
    const { build } = await import("esbuild");
    const { outputFiles } = await build({ bundle: true, write: false, format: "iife", nodePaths: [new URL("../../node_modules", import.meta.url).pathname], stdin: {
      contents: `import { createChat } from "@switchboard/client"; import { onRefusal } from "@switchboard/client/explain";
        const url = "ws://127.0.0.1:${port}"; const chat = createChat({ url, getToken: () => "x" }); onRefusal(chat, url); chat.connect();`,
      resolveDir: new URL("../../", import.meta.url).pathname } });
    const refused = page.waitForEvent("console", { predicate: (message) => message.text().includes("ALLOWED_ORIGINS"), timeout: DEADLINE_MS });
    await page.evaluate(outputFiles[0].text);
    const sentence = (await refused).text();
    assert.equal(sentence, `Pages of ${origin} may not connect: add ${origin} to ALLOWED_ORIGINS`);
    await demo.locator(".alert", { hasText: sentence }).waitFor();
    assert.ok((await logged(sentence)).length >= 1);
    assert.ok(demo.said.includes(sentence), demo.said.join("\n"));
  } finally {
    await other.close();
    foreign.server.close();
  }
});

test("limits and refused tokens: the red box says what the log says", options, async () => {
  await end(dev);
  await startDev({ MESSAGE_RATE_LIMIT: "3", MAX_CONNECTIONS_PER_USER: "1" });
  const page = await open();
  await says(page, 0, "Hi Alice!");
  for (let at = 0; at < 4; at++) await send(page, 0, `quick ${at}`);
  for (const sentence of ["Rate limit exceeded: MESSAGE_RATE_LIMIT is 3 a minute for each user"]) {
    await page.locator(".alert", { hasText: sentence }).waitFor();
    await logged(sentence);
    assert.ok(page.said.includes(sentence), page.said.join("\n"));
  }
  const second = await open();
  const crowded = "Too many connections of one user: MAX_CONNECTIONS_PER_USER limits them, and MAX_SOCKETS_PER_USER all of its sockets";
  await second.locator(".alert", { hasText: crowded }).waitFor();
  await logged(crowded);
  const bad = new WebSocket(`ws://127.0.0.1:${port}/v1/ws?token=no-token`);
  const closed = await new Promise((resolve) => (bad.onclose = resolve));
  await page.locator(".alert", { hasText: closed.reason }).waitFor();
  assert.match(closed.reason, /^Invalid token: it is not a JWT/);
  await logged(closed.reason);
  await page.getByRole("button", { name: "Dismiss" }).first().click();
});

test("a missing setting: who may not join, and a persona that nobody configured", options, async () => {
  await end(dev);
  await startDev({ OPEN_CONVERSATIONS: "false", PERSONA_IDS: "ada" });
  const page = await open();
  const closed = "Not a member of this conversation: with OPEN_CONVERSATIONS=true, joining creates it, and lets everyone in";
  await page.locator(".alert", { hasText: closed }).waitFor();
  await logged(closed);
  await end(dev);
  await startDev({ PERSONA_IDS: "ada" });
  const asked = await open();
  await says(asked, 0, "Hi Alice!");
  await pane(asked, 0).locator(".composer input").fill("hello?");
  await press(asked, 0, "Ask a persona");
  const missing = "No persona is configured: set PERSONA_WEBHOOK_URL and PERSONA_IDS";
  await asked.locator(".alert", { hasText: missing }).waitFor();
  await logged(missing);
  assert.ok(asked.said.includes(missing), asked.said.join("\n"));
  await end(dev);
  await asked.locator(".alert", { hasText: "does switchboard dev still run" }).waitFor();
});
