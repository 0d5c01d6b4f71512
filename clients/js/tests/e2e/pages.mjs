// Chromium and the page: serves the page and tokens, opens tabs, and waits for what they show.
import { existsSync, readFileSync } from "node:fs";
import { createServer } from "node:http";
import { once } from "node:events";
import { build } from "esbuild";
import { chromium } from "playwright-core";
import { token } from "./cluster.mjs";

const here = new URL("./", import.meta.url).pathname;
const root = new URL("../../", import.meta.url).pathname;
/** Long enough for a machine that is busy with other work: it bounds a hang and measures nothing. */
export const DEADLINE_MS = 90_000;

export const chromiumPath = [process.env.CHROMIUM, "/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"].find((path) => path && existsSync(path));

async function bundle(entry, define) {
  const { outputFiles } = await build({
    entryPoints: [entry], bundle: true, write: false, format: "esm", jsx: "automatic", define, nodePaths: [`${root}node_modules`],
  });
  return outputFiles[0].text;
}

export class Pages {
  tokenDelay = 0;
  tokenRequests = 0;

  async start() {
    const files = {
      "/page.js": await bundle(`${here}page.jsx`, { "process.env.NODE_ENV": '"development"' }),
      "/worker.js": await bundle(`${root}packages/client/dist/shared-worker.js`),
      "/": '<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><div id="root"></div><script type="module" src="/page.js"></script>',
    };
    this.server = createServer((request, response) => {
      const { pathname, searchParams } = new URL(request.url, "http://localhost");
      if (pathname === "/token") {
        this.tokenRequests++;
        return response.end(token(searchParams.get("user"), Number(searchParams.get("seconds"))));
      }
      response.setHeader("content-type", pathname === "/" ? "text/html" : "text/javascript");
      response.end(files[pathname]);
    }).listen(0, "127.0.0.1");
    await once(this.server, "listening");
    this.browser = await chromium.launch({
      executablePath: chromiumPath, timeout: DEADLINE_MS,
      args: ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
        "--disable-dev-shm-usage"],
    });
    return this;
  }

  /** A browser's profile: its tabs share storage and workers. */
  async profile() {
    const context = await this.browser.newContext();
    context.setDefaultTimeout(DEADLINE_MS);
    return context;
  }

  async open(context, parameters) {
    const page = await context.newPage();
    page.errors = [];
    page.on("pageerror", (error) => page.errors.push(String(error)));
    page.on("console", (message) => message.type() === "error" && /Warning|Uncaught|React/.test(message.text()) && page.errors.push(message.text()));
    await page.goto(`http://127.0.0.1:${this.server.address().port}/?${new URLSearchParams(parameters)}`);
    await page.waitForFunction(() => window.chat);
    return page;
  }

  /** The processes that run pages. */
  async renderers() {
    const devtools = await this.browser.newBrowserCDPSession();
    const { processInfo } = await devtools.send("SystemInfo.getProcessInfo");
    await devtools.detach();
    return processInfo.filter((one) => one.type === "renderer").map((one) => one.id);
  }

  /** The process of a page: the one that uses the processor while the page counts. */
  async rendererOf(page) {
    const used = (id) => {
      const fields = readFileSync(`/proc/${id}/stat`, "utf8").split(") ")[1].split(" ");
      return Number(fields[11]) + Number(fields[12]);
    };
    const before = new Map((await this.renderers()).map((id) => [id, used(id)]));
    await page.evaluate(() => {
      const end = performance.now() + 500;
      while (performance.now() < end);
    });
    return [...before].map(([id, was]) => [id, used(id) - was]).sort((a, b) => b[1] - a[1])[0][0];
  }

  async stop() {
    await this.browser?.close();
    this.server?.close();
    this.server?.closeAllConnections();
  }
}

export const online = (page) => page.waitForFunction(() => window.chat.connection.getSnapshot().state === "online");

export const offline = (page) => page.waitForFunction(() => window.chat.connection.getSnapshot().state !== "online");

export const send = (page, room, content) => page.evaluate(([room, content]) => window.chat.conversation(room).send(content), [room, content]);

export const shown = (page, room) => page.evaluate((room) => window.chat.conversation(room).getSnapshot().messages
  .map(({ seq, senderId, content, status, key }) => ({ seq, senderId, content, status, key })), room);

/** Waits until the page shows a message of each of these texts, stored. */
export const shows = (page, room, contents) => page.waitForFunction(([room, contents]) => {
  const stored = new Set(window.chat.conversation(room).getSnapshot().messages.filter((one) => one.seq).map((one) => one.content));
  return contents.every((one) => stored.has(one));
}, [room, contents], { polling: 100 });
