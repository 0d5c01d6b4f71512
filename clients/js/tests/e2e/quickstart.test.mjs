// docs/quickstart.md and examples/react-app, as they stand there, in Chromium against `switchboard dev`.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { once } from "node:events";
import { existsSync, readFileSync } from "node:fs";
import { createServer } from "node:http";
import { after, before, test } from "node:test";
import { promisify } from "node:util";
import { build } from "esbuild";
import { chromium } from "playwright-core";
import { binary } from "./cluster.mjs";
import { chromiumPath, DEADLINE_MS } from "./pages.mjs";
import { end, folder, freePort, start } from "./processes.mjs";

const lacks = [[existsSync(binary), `the program ${binary}`], [chromiumPath, "chromium"]].filter(([there]) => !there).map(([, name]) => name);
const options = { skip: lacks.length ? `missing: ${lacks.join(", ")}` : undefined, timeout: 2 * DEADLINE_MS };
const root = new URL("../../../../", import.meta.url).pathname;
const modules = `${root}clients/js/node_modules`;

/** The only block of this language in the quickstart. */
function block(language) {
  const [, , ...more] = readFileSync(`${root}docs/quickstart.md`, "utf8").split("```" + language + "\n");
  assert.deepEqual(more, [], `one block of ${language}`);
  return readFileSync(`${root}docs/quickstart.md`, "utf8").split("```" + language + "\n")[1].split("```")[0];
}

const bundle = async (options) => {
  const { outputFiles } = await build({ bundle: true, write: false, format: "esm", jsx: "automatic", nodePaths: [modules], define: { "process.env.NODE_ENV": '"development"' }, ...options });
  return outputFiles[0].text;
};

let browser;
let dev;
let port;
let files;
let pages;
let env;

const startDev = async () => (dev = await start(binary, ["dev"], { env, cwd: env.DATA_DIR, ready: "This page again" }));

before(async () => {
  if (options.skip) return;
  port = await freePort();
  // Tokens of sockets live for 8 s, so that each page refreshes its own.
  env = { PATH: process.env.PATH, LISTEN: `127.0.0.1:${port}`, ADMIN_LISTEN: "off", DATA_DIR: folder(), TOKEN_TTL: "8s", MESSAGE_RATE_LIMIT: "0", LOG_FORMAT: "json" };
  await startDev();
  pages = createServer((request, response) => {
    const { pathname } = new URL(request.url, "http://localhost");
    response.setHeader("content-type", pathname.endsWith(".js") ? "text/javascript" : "text/html");
    response.end(files[pathname] ?? "");
  }).listen(0, "127.0.0.1");
  await once(pages, "listening");
  // The programs name port 8000, which is this dev's to the browser.
  browser = await chromium.launch({ executablePath: chromiumPath, timeout: DEADLINE_MS,
    args: ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-dev-shm-usage",
      `--host-resolver-rules=MAP 127.0.0.1:8000 127.0.0.1:${port}`] });
}, { timeout: 2 * DEADLINE_MS });

after(async () => {
  await browser?.close();
  pages?.close();
  pages?.closeAllConnections();
  if (dev) await end(dev);
});

/** The token that dev printed for a user. */
const printed = (user) => new RegExp(`\\n  ${user}[^\\n]*\\n  (eyJ\\S+)`).exec(dev.output())[1];

/**
 * What Chromium says when a request or handshake meets a server that was killed: nobody listens (REFUSED), or the connection ends
 * under the request (RESET, CLOSED) or before its answer (EMPTY_RESPONSE). Only of the server's own addresses.
 */
const LOSS = "net::ERR_(CONNECTION_(REFUSED|RESET|CLOSED)|EMPTY_RESPONSE)";
const NO_ANSWER = new RegExp(`^Failed to load resource: ${LOSS}$`);
const NO_SOCKET = new RegExp(`^WebSocket connection to 'ws://127\\.0\\.0\\.1:8000/v1/ws[^']*' failed: (Error in connection establishment: ${LOSS}|Connection closed before receiving a handshake response)$`);
const isLoss = (message) => NO_SOCKET.test(message.text())
  || (NO_ANSWER.test(message.text()) && /^http:\/\/127\.0\.0\.1:8000\/api\/websocket\/(token|check)$/.test(message.location().url));

async function open(path) {
  const page = await browser.newPage();
  page.setDefaultTimeout(DEADLINE_MS);
  page.said = [];
  page.on("pageerror", (error) => page.said.push(String(error)));
  page.on("console", (message) => message.type() === "error" && !(page.away && isLoss(message)) && page.said.push(`${message.text()} (${message.location().url})`));
  page.frames_ = [];
  page.on("websocket", (socket) => {
    socket.on("framesent", ({ payload }) => page.frames_.push(JSON.parse(payload).type));
    socket.on("close", () => page.frames_.push("close"));
  });
  await page.goto(`http://localhost:${pages.address().port}${path}`);
  return page;
}

async function rest(user, path, body) {
  const answer = await fetch(`http://127.0.0.1:${port}/api/chat/conversations${path}`, {
    headers: { authorization: `Bearer ${printed(user)}` }, ...(body && { method: "POST", body: JSON.stringify(body) }) });
  if (!answer.ok) throw new Error(`${path}: ${answer.status} ${await answer.text()}`);
  return answer.json();
}

const item = (page, text) => page.locator("li", { hasText: text }).first().waitFor();
const online = (page, name) => page.getByRole("status").filter({ hasText: `Online as ${name}` }).waitFor();

/** Waits until the page has refreshed its token, on the same socket. */
async function refreshed(page) {
  for (const end = Date.now() + DEADLINE_MS; Date.now() < end; await page.waitForTimeout(100)) {
    if (page.frames_.includes("refresh")) return assert.ok(!page.frames_.includes("close"), page.frames_.join());
  }
  throw new Error(`no refresh: ${page.frames_}`);
}

test("the page of the quickstart lists, sends, refreshes its token, and resumes after a restart", options, async () => {
  files = { "/chat.html": block("html") };
  const page = await open("/chat.html");
  await page.getByLabel("Token").fill(printed("alice"));
  await page.getByRole("button", { name: "Connect" }).click();
  await online(page, "Alice");
  const say = async (text) => {
    await page.getByLabel("Message").fill(text);
    await page.keyboard.press("Enter");
  };
  await say("Hello from a page");
  await item(page, "Alice: Hello from a page (sent)");
  await rest("carol", "/lobby/messages", { content: "Hello from Carol" }).catch(async () => {
    // Under dev, joining makes a member; over REST, one is added.
    await rest("alice", "/lobby/members", { user_ids: ["carol"] });
    await rest("carol", "/lobby/messages", { content: "Hello from Carol" });
  });
  await item(page, "Carol: Hello from Carol");
  await refreshed(page);

  page.away = true;
  await end(dev);
  await page.getByRole("status").filter({ hasText: "waiting" }).waitFor();
  await say("Typed while the server was away");
  await item(page, "(sending)");
  await startDev();
  await online(page, "Alice");
  page.away = false;
  await item(page, "Typed while the server was away (sent)");
  const { messages } = await rest("alice", "/lobby/messages");
  assert.deepEqual(messages.map((one) => one.content).reverse(), ["Hello from a page", "Hello from Carol", "Typed while the server was away"]);
  assert.deepEqual(page.said, []);
});

test("the component of the quickstart", options, async () => {
  const contents = `import { createRoot } from "react-dom/client"; ${block("jsx").replace("export default", "")}
    createRoot(document.getElementById("root")).render(<App />);`;
  files = { "/": '<!doctype html><link rel="icon" href="data:,"><div id="root"></div><script type="module" src="/main.js"></script>',
    "/main.js": await bundle({ stdin: { contents, loader: "jsx", resolveDir: root } }) };
  const page = await open(`/#${printed("bob")}`);
  await online(page, "Bob");
  await page.getByLabel("Message").fill("Hello from React");
  await page.keyboard.press("Enter");
  await item(page, "Bob: Hello from React (sent)");
  await refreshed(page);
  assert.deepEqual(page.said, []);
});

test("examples/react-app: conversations, unread counts, typing, receipts", options, async (t) => {
  // As its head says.
  const cwd = `${root}examples/react-app`;
  const installed = await promisify(execFile)("npm", ["install", "--no-audit", "--no-fund", "--silent"], { cwd, timeout: DEADLINE_MS }).catch((error) => error);
  if (installed instanceof Error && !existsSync(`${cwd}/node_modules/esbuild`)) return t.skip("missing: the registry of npm");
  assert.ok(!(installed instanceof Error), installed.message);
  await promisify(execFile)("npm", ["run", "build", "--silent"], { cwd, timeout: DEADLINE_MS });
  files = { "/": readFileSync(`${cwd}/public/index.html`, "utf8"), "/main.js": readFileSync(`${cwd}/public/main.js`, "utf8") };
  const [alice, bob] = [await open(`/#${printed("alice")}`), await open(`/#${printed("bob")}`)];
  await Promise.all([online(alice, "Alice"), online(bob, "Bob")]);
  await alice.getByLabel("Message").pressSequentially("Hi from the app");
  await bob.getByText("Alice typing…").waitFor();
  await alice.keyboard.press("Enter");
  await item(bob, "Alice: Hi from the app");
  await item(alice, "Alice: Hi from the app read");
  await rest("bob", "", { id: "team", name: "Team", is_group: true, participant_ids: ["alice"] });
  await rest("bob", "/team/messages", { content: "In another room" });
  await alice.getByRole("button", { name: "Team (1)" }).click();
  await item(alice, "Bob: In another room");
  await alice.getByRole("button", { name: "Team", exact: true }).waitFor();
  assert.deepEqual([...alice.said, ...bob.said], []);
  const noToken = await open("/");
  await noToken.getByText("switchboard token --dev").waitFor();
});
