// Carries out the effects of the machine: WebSocket, timers, tokens, storage; and tells the stores what changed.
import type { ServerFrame } from "./frames.js";
import { newState, step, type Action } from "./machine.js";
import type { Effect, State } from "./state.js";
import type { ChatOptions, SocketLike } from "./types.js";

const TOKEN_TIMEOUT_MS = 20_000;

/** The frame in a text, or undefined if it is none. */
export function decode(text: unknown): ServerFrame | undefined {
  try {
    const frame = JSON.parse(text as string);
    return frame?.type ? frame : undefined;
  } catch {
    return undefined;
  }
}

type Handlers = { [E in Effect as E[0]]: (...args: E extends [any, ...infer Rest] ? Rest : []) => void };
type Outside = Pick<Handlers, "event" | "answer"> & { changed(keys: Set<string>): void };

/** Calls getToken, and gives up a call that hangs: its late answer is ignored. */
async function askToken(getToken: ChatOptions["getToken"]): Promise<Action> {
  const controller = new AbortController();
  const { signal } = controller;
  const late = setTimeout(() => controller.abort(), TOKEN_TIMEOUT_MS);
  try {
    const aborted = new Promise<never>((_, reject) => signal.addEventListener("abort", reject));
    return ["token", await Promise.race([getToken({ signal }), aborted])];
  } catch (error) {
    return ["tokenError", String(error)];
  } finally {
    clearTimeout(late);
  }
}

/** Timers by key: a new one takes the place of the old one. */
function createTimers(act: (key: string) => void): Handlers["timer"] {
  const timers = new Map<string, ReturnType<typeof setTimeout>>();
  return (key, ms) => {
    clearTimeout(timers.get(key));
    if (ms === undefined) return;
    const id: any = setTimeout(act, ms < 0 ? -ms * (0.5 + Math.random() / 2) : ms, key);
    // A Node.js process lives for its sockets and for the next connect, and not for the other timers.
    if (key !== "connect") id.unref?.();
    timers.set(key, id);
  };
}

export function createRuntime(options: ChatOptions, outside: Outside) {
  const { storage, url, getToken, WebSocket = globalThis.WebSocket as unknown as NonNullable<ChatOptions["WebSocket"]> } = options;
  const state: State = newState(options as Partial<State["config"]>);
  const queue: Action[] = [];
  let running = false;
  let socket: SocketLike | undefined;
  let restored: Promise<void> | undefined;
  let listening = false;

  function dispatch(...action: Action): void {
    queue.push(action);
    if (running) return;
    running = true;
    for (let next; (next = queue.shift());) {
      for (const [name, ...args] of step(state, Date.now(), next)) (effects[name] as (...args: any[]) => void)(...args);
    }
    running = false;
    const keys = state.changed;
    if (!keys.size) return;
    state.changed = new Set();
    storage?.changed?.(keys, state);
    outside.changed(keys);
  }

  const effects: Handlers = {
    ...outside,
    send: (frame) => socket?.send(JSON.stringify(frame)),
    timer: createTimers((key) => dispatch(...(key.split(" ") as any as Action))),
    askToken: () => void askToken(getToken).then((action) => dispatch(...action)),
    dial() {
      try {
        socket = new WebSocket(`${url.replace(/^http/, "ws").replace(/\/+$/, "")}/v1/ws`);
        socket.onopen = () => dispatch("opened");
        socket.onmessage = ({ data }) => {
          const frame = decode(data);
          if (frame) dispatch("frame", frame);
        };
        socket.onclose = ({ code, reason }) => dispatch("closed", code, reason);
        socket.onerror = () => {};
      } catch (error) {
        dispatch("closed", 1006, String(error));
      }
    },
    hangUp() {
      if (!socket) return;
      // What an old socket still says is not for the machine.
      socket.onopen = socket.onmessage = socket.onclose = null;
      socket.close();
      socket = undefined;
    },
    save: (command) => storage?.save(command),
    drop: (clientId) => storage?.drop(clientId),
    wipe: () => storage?.wipe?.(),
  };

  const wake = () => {
    if (globalThis.document?.visibilityState !== "hidden") dispatch("wake");
  };

  /** A page that sleeps misses the end of its socket; it looks when it wakes. */
  function listen(on: boolean): void {
    if (listening === on) return;
    listening = on;
    const method = on ? "addEventListener" : "removeEventListener";
    globalThis[method]?.("online", wake);
    globalThis.document?.[method]("visibilitychange", wake);
  }

  return {
    state,
    dispatch,
    async start() {
      listen(true);
      // Without the storage the client still works; it only forgets more.
      await (restored ??= storage?.load().then((saved) => dispatch("restore", saved), () => {}));
      if (listening) dispatch("connect");
    },
    stop() {
      listen(false);
      dispatch("close");
    },
  };
}
