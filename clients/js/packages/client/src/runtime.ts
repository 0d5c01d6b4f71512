// Carries out the effects of the machine: WebSocket, timers, tokens, storage; and tells the stores what changed.
import type { ServerFrame } from "./frames.js";
import { newState, step, type Action } from "./machine.js";
import type { Effect, State } from "./state.js";
import type { ChatOptions, SocketLike } from "./types.js";

const TOKEN_TIMEOUT_MS = 20_000;
/** These timers keep a Node.js process alive; the others end with it. */
const VITAL = /^(connect|silent)$/;

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

export function createRuntime(options: ChatOptions, outside: Outside) {
  const { storage, url, getToken, WebSocket = globalThis.WebSocket as unknown as NonNullable<ChatOptions["WebSocket"]> } = options;
  const state: State = newState(options as Partial<State["config"]>);
  const timers = new Map<string, ReturnType<typeof setTimeout>>();
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
    timer(key, ms) {
      clearTimeout(timers.get(key));
      if (ms === undefined) return;
      const id: any = setTimeout(() => dispatch(...(key.split(" ") as any as Action)), ms < 0 ? -ms * (0.5 + Math.random() / 2) : ms);
      if (!VITAL.test(key)) id.unref?.();
      timers.set(key, id);
    },
    async askToken() {
      const controller = new AbortController();
      const { signal } = controller;
      const late = setTimeout(() => controller.abort(), TOKEN_TIMEOUT_MS);
      let action: Action;
      try {
        // A call that hangs is given up, and a late answer is ignored.
        const aborted = new Promise<never>((_, reject) => signal.addEventListener("abort", reject));
        action = ["token", await Promise.race([getToken({ signal }), aborted])];
      } catch (error) {
        action = ["tokenError", String(error)];
      }
      clearTimeout(late);
      dispatch(...action);
    },
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
