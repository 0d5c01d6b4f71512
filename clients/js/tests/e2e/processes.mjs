// Child processes of the tests: PostgreSQL, Redis and nodes. Each is ready when a line of its output says so.
import { spawn, spawnSync } from "node:child_process";
import { chownSync, existsSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { once } from "node:events";

const running = new Set();
const folders = new Set();

// Nothing may outlive the tests, however they end.
process.on("exit", () => {
  for (const child of running) {
    try {
      process.kill(child.pid, "SIGKILL");
    } catch {
      // It has ended.
    }
  }
  for (const folder of folders) rmSync(folder, { recursive: true, force: true });
});
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => process.exit(1));

export function folder() {
  const path = mkdtempSync(join(tmpdir(), "switchboard-js-"));
  folders.add(path);
  return path;
}

export async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
}

/** Starts a program and waits for a line that contains `ready`. */
export async function start(program, args, { ready, env = process.env, ...options }) {
  const child = spawn(program, args, { stdio: ["ignore", "pipe", "pipe"], env, ...options });
  running.add(child);
  child.on("exit", () => running.delete(child));
  let output = "";
  await new Promise((resolve, reject) => {
    const read = (data) => {
      output = (output + data).slice(-20_000);
      if (output.includes(ready)) resolve();
    };
    child.stdout.on("data", read);
    child.stderr.on("data", read);
    child.on("error", reject);
    child.on("exit", (code) => reject(new Error(`${program} ended with ${code} before it was ready:\n${output}`)));
  });
  child.output = () => output;
  return child;
}

export async function end(child, signal = "SIGKILL") {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = once(child, "exit");
  child.kill(signal);
  await ended;
}

function postgresBin() {
  const root = "/usr/lib/postgresql";
  if (!existsSync(root)) return "";
  const newest = readdirSync(root).sort((a, b) => b - a).find((version) => existsSync(join(root, version, "bin/initdb")));
  return newest ? join(root, newest, "bin/") : "";
}

/** PostgreSQL refuses to run as root, so root runs it as the user postgres. */
function postgresUser() {
  if (process.getuid() !== 0) return {};
  const id = (flag) => Number(spawnSync("id", [flag, "postgres"]).stdout);
  return { uid: id("-u"), gid: id("-g") };
}

export async function startPostgres() {
  const home = folder();
  const user = postgresUser();
  if (user.uid) chownSync(home, user.uid, user.gid);
  const data = join(home, "data");
  const made = spawnSync(`${postgresBin()}initdb`, ["-D", data, "-U", "postgres", "--auth=trust", "--no-sync", "--no-locale", "-E", "UTF8"], { ...user, cwd: home });
  if (made.status !== 0) throw new Error(`initdb failed: ${made.stderr}`);
  const port = await freePort();
  const settings = ["listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off", "full_page_writes=off", "synchronous_commit=off", "dynamic_shared_memory_type=mmap"];
  const child = await start(`${postgresBin()}postgres`, ["-D", data, "-p", String(port), ...settings.flatMap((one) => ["-c", one])],
    { ...user, cwd: home, ready: "database system is ready to accept" });
  return { child, url: `postgres://postgres@127.0.0.1:${port}/postgres` };
}

export async function startRedis() {
  const port = await freePort();
  const child = await start("redis-server", ["--port", String(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", folder()],
    { ready: "Ready to accept connections" });
  return { child, url: `redis://127.0.0.1:${port}/` };
}
