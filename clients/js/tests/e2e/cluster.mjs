// Two nodes on one Redis and one PostgreSQL, behind the proxy; and what the server itself says over REST.
import { createHmac, randomUUID } from "node:crypto";
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { end, folder, freePort, start, startPostgres, startRedis } from "./processes.mjs";
import { Proxy } from "./proxy.mjs";

export const binary = process.env.SWITCHBOARD ?? new URL("../../../../target/debug/switchboard", import.meta.url).pathname;

/** What tests lack that need servers, and a browser if it is given; as a reason for skipping them. */
export function lacksOf(browser) {
  const lacks = [
    [existsSync(binary), `the program ${binary}`], [browser, "chromium"],
    [spawnSync("redis-server", ["--version"]).status === 0, "redis-server"],
    [existsSync("/usr/lib/postgresql") || spawnSync("initdb", ["--version"]).status === 0, "PostgreSQL"],
  ].filter(([there]) => !there).map(([, name]) => name);
  return lacks.length ? `missing: ${lacks.join(", ")}` : undefined;
}

const SECRET = "a secret that is at least 32 bytes long";
const encode = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");

export function token(user, seconds = 3_600) {
  const now = Math.floor(Date.now() / 1000);
  const body = `${encode({ alg: "HS256", typ: "JWT" })}.${encode({ sub: user, name: user, iat: now, exp: now + seconds, jti: randomUUID() })}`;
  return `${body}.${createHmac("sha256", SECRET).update(body).digest("base64url")}`;
}

export class Cluster {
  nodes = [];

  async start(binary) {
    this.binary = binary;
    [this.postgres, this.redis] = await Promise.all([startPostgres(), startRedis()]);
    this.proxy = await new Proxy().listen();
    await this.startNode(0);
    await this.startNode(1);
    return this;
  }

  async startNode(at) {
    const port = await freePort();
    const env = {
      PATH: process.env.PATH, LISTEN: `127.0.0.1:${port}`, ADMIN_LISTEN: "off", REDIS_URL: this.redis.url, DATABASE_URL: this.postgres.url,
      JWT_SECRET: SECRET, NODE_ID: `node-${at}-${port}`, OPEN_CONVERSATIONS: "true", MESSAGE_RATE_LIMIT: "0", WRITE_RATE_LIMIT: "0", READ_RATE_LIMIT: "0",
      MAX_CONNECTIONS_PER_USER: "50", MAX_SOCKETS_PER_USER: "50", SHUTDOWN_DELAY: "0s", DRAIN_WINDOW: "1s", NODE_LEASE: "5s", RESUME_MAX: "60",
    };
    const child = await start(this.binary, ["serve"], { env, cwd: folder(), ready: '"message":"listening"' });
    this.nodes[at] = { child, port };
    await this.#ready(port);
    this.#route();
  }

  #route() {
    this.proxy.targets = this.nodes.filter(Boolean).map((one) => one.port);
  }

  async #ready(port) {
    for (;;) {
      const answer = await fetch(`http://127.0.0.1:${port}/api/health`).catch(() => undefined);
      if (answer?.ok) return;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  /** Ends a node. The proxy keeps its address, and finds out by itself. */
  async endNode(at, signal) {
    await end(this.nodes[at].child, signal);
    this.nodes[at] = undefined;
    if (signal !== "SIGKILL") this.#route();
  }

  async rest(user, path, body) {
    const { port } = this.nodes.find(Boolean);
    const answer = await fetch(`http://127.0.0.1:${port}/api${path}`, {
      headers: { authorization: `Bearer ${token(user)}` }, ...(body && { method: "POST", body: JSON.stringify(body) }),
    });
    if (!answer.ok) throw new Error(`${path}: ${answer.status} ${await answer.text()}`);
    return answer.json();
  }

  /** Makes a conversation and returns its id. */
  async conversation(...members) {
    const id = `room-${randomUUID()}`;
    await this.rest(members[0], "/chat/conversations", { id, name: id, is_group: true, participant_ids: members.slice(1) });
    return id;
  }

  /** Sends over REST, until the server says that it is stored. */
  async say(user, id, content) {
    const client_id = randomUUID();
    for (;;) {
      try {
        return await this.rest(user, `/chat/conversations/${id}/messages`, { content, client_id });
      } catch {
        await new Promise((resolve) => setTimeout(resolve, 200));
      }
    }
  }

  /** All messages of a conversation, oldest first, as the server has them. */
  async history(user, id) {
    const messages = [];
    for (let before; ;) {
      const page = await this.rest(user, `/chat/conversations/${id}/messages?limit=100${before ? `&before_seq=${before}` : ""}`);
      messages.unshift(...page.messages.reverse());
      before = page.next_before_seq;
      if (!before) return messages;
    }
  }

  async stop() {
    this.proxy?.close();
    await Promise.all([...this.nodes.map((one) => one?.child), this.redis?.child, this.postgres?.child].filter(Boolean).map((one) => end(one)));
  }
}
