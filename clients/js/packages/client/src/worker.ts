// One socket for all tabs of a browser: a hub owns the chat, in a SharedWorker or in the tab that holds a lock, and the tabs
// mirror its stores. A tab keeps what it sent until it sees it stored, so another hub can take over.
import { commandsOf, createChat, newId } from "./index.js";
import type { Chat, ChatOptions, Conversation, Message, Store } from "./types.js";

/** Names a store: the method of the chat that returns it, and its arguments. */
type Path = ["connection"] | ["conversations"] | ["conversation" | "dm", string] | ["presence", readonly string[]];
type Post = (message: any[]) => void;
type Receive = (message: any[]) => void;

export interface SharedChatOptions extends ChatOptions {
  /** Makes the SharedWorker. Without it, or where there are none, one of the tabs owns the socket. */
  worker?: () => SharedWorker;
  /** Names the group of tabs that share a socket; by default the URL. Tabs of different users need different names. */
  name?: string;
}

/** How long a hub may be silent before another tab takes over: a frozen tab keeps its lock. */
const SILENCE_MS = 10_000;
const BEAT_MS = 3_000;

const storeAt = (chat: Chat, [name, ...args]: Path): any => (name === "connection" ? chat.connection : (chat as any)[name](...args));

/** Serves the stores of a chat to tabs. Returns a function that attaches a tab and returns where its messages go. */
function createHub(chat: Chat) {
  return (post: Post): Receive => {
    const ends = new Map<string, () => void>();
    ends.set("", chat.onEvent((event) => post(["event", event])));

    function subscribe(path: Path): void {
      const key = JSON.stringify(path);
      const store = storeAt(chat, path);
      let before = new Map<Message, number>();
      const tell = () => {
        const snapshot = store.getSnapshot();
        const { messages } = snapshot;
        // Messages that the tab has are sent as their index.
        post(["snapshot", key, messages ? { ...snapshot, messages: messages.map((one: Message) => before.get(one) ?? one) } : snapshot]);
        if (messages) before = new Map(messages.map((one: Message, at: number) => [one, at]));
      };
      ends.get(key)?.();
      ends.set(key, store.subscribe(tell));
      tell();
    }

    const actions: Record<string, (...args: any[]) => void> = {
      open: subscribe,
      shut(path: Path) {
        ends.get(JSON.stringify(path))?.();
        ends.delete(JSON.stringify(path));
      },
      call: (path: Path, method: string, args: unknown[]) => storeAt(chat, path)[method](...args),
      chat: (method: "connect" | "wake" | "close") => chat[method](),
      ask: (id: string, frame: any) => chat.request(frame).then((value) => post(["answer", id, 0, value]), (error) => post(["answer", id, 1, error])),
      beat: () => post(["beat"]),
      bye() {
        ends.forEach((end) => end());
        ends.clear();
      },
    };
    return ([name, ...args]) => actions[name]?.(...args);
  };
}

/** A store that shows what the hub sends. */
function createMirrorStore(path: Path, snapshot: any, post: Post, unconfirmed: Map<string, any[]>) {
  const listeners = new Set<() => void>();
  return {
    used: () => listeners.size,
    set(value: any) {
      snapshot = value.messages ? { ...value, messages: value.messages.map((one: any) => (one >= 0 ? snapshot.messages[one] : one)) } : value;
      for (const one of snapshot.messages ?? []) if (one.seq || one.error) unconfirmed.delete(one.clientId);
      listeners.forEach((listener) => listener());
    },
    subscribe(listener: () => void) {
      const mine = () => listener();
      if (listeners.add(mine).size === 1) post(["open", path]);
      return () => {
        if (listeners.delete(mine) && !listeners.size) post(["shut", path]);
      };
    },
    getSnapshot: () => snapshot,
  };
}

/** The chat of a tab, which mirrors a hub. `reach` connects to it and calls `ready` whenever there is a new one. */
function createMirror(reach: (receive: Receive, ready: () => void) => Post, getToken: ChatOptions["getToken"], leave: () => void): Chat {
  const stores = new Map<string, Store<any> & { path: Path; set(value: any): void; used(): number }>();
  const unconfirmed = new Map<string, any[]>();
  const asked = new Map<string, { frame: any; done: ((value: any) => void)[] }>();
  const events = new Set<(event: any) => void>();

  const actions: Record<string, (...args: any[]) => void> = {
    snapshot: (key: string, value: any) => stores.get(key)?.set(value),
    event: (event: any) => events.forEach((listener) => listener(event)),
    answer(id: string, failed: number, value: any) {
      asked.get(id)?.done[failed]!(value);
      asked.delete(id);
    },
    async token(id: string) {
      try {
        post(["token", id, await getToken({})]);
      } catch (error) {
        post(["token", id, undefined, String(error)]);
      }
    },
  };

  /** There is a hub that knows nothing of this tab. */
  function ready(): void {
    for (const { path, used } of stores.values()) if (used()) post(["open", path]);
    unconfirmed.forEach(post);
    asked.forEach(({ frame }, id) => post(["ask", id, frame]));
  }

  const post = reach(([name, ...args]) => actions[name]?.(...args), ready);

  function mirror<M>(path: Path, initial: any, methods?: M): Store<any> & M {
    const key = JSON.stringify(path);
    const store = stores.get(key) ?? { path, ...createMirrorStore(path, initial, (message) => post(message), unconfirmed), ...methods };
    stores.set(key, store);
    return store as any;
  }

  function conversation(path: Path, key: string): Conversation {
    const call = (method: string) => (...args: unknown[]) => post(["call", path, method, args]);
    return mirror(path, { messages: [], loaded: false, hasOlder: false, loadingOlder: false, typing: [], marks: {} }, {
      ...commandsOf(key, (frame, target) => {
        const message = ["call", path, "run", [frame, target]];
        if (frame.type === "send") unconfirmed.set(frame.client_id, message);
        post(message);
      }),
      retry: call("retry"),
      discard: call("discard"),
      loadOlder: call("loadOlder"),
      setTyping: call("setTyping"),
      markRead: (seq?: number) => call("markRead")(+seq! || undefined),
    }) as any;
  }

  return {
    connection: mirror(["connection"], { state: "idle" }),
    conversation: (id) => conversation(["conversation", id], id),
    dm: (user) => conversation(["dm", user], `/${user}`),
    conversations: () => mirror(["conversations"], { conversations: [], loaded: false, hasMore: false }, {
      loadMore: () => post(["call", ["conversations"], "loadMore", []]),
    }),
    presence: (users) => mirror(["presence", users], {}),
    request: (frame) => new Promise((resolve, reject) => {
      const id = newId();
      asked.set(id, { frame, done: [resolve, reject] });
      post(["ask", id, frame]);
    }),
    onEvent(listener) {
      events.add(listener);
      return () => events.delete(listener);
    },
    connect: () => post(["chat", "connect"]),
    wake: () => post(["chat", "wake"]),
    close: leave,
  };
}

/** Makes the hub of a SharedWorker. `make` gets the options that tabs can pass: the URL and the numbers. */
export function serveTabs(make: (options: ChatOptions) => Chat): void {
  const tokens = new Map<string, (token: any, error?: any) => void>();
  const tabs = new Set<Post>();
  let attach: ReturnType<typeof createHub> | undefined;

  /** Asks the tab that came or was asked longest ago, so that one that died is asked once. */
  const getToken = ({ signal }: { signal?: AbortSignal }) => new Promise<string>((resolve, reject) => {
    const id = newId();
    const tab: Post = tabs.values().next().value!;
    tabs.delete(tab);
    tokens.set(id, (token, error) => (error ? reject(error) : resolve(token)));
    signal?.addEventListener("abort", () => tokens.delete(id));
    tabs.add(tab);
    tab(["token", id]);
  });

  (globalThis as any).onconnect = ({ ports: [port] }: { ports: MessagePort[] }) => {
    const post: Post = (message) => port!.postMessage(message);
    let receive: Receive | undefined;
    tabs.add(post);
    port!.onmessage = ({ data }) => {
      if (data[0] === "token") {
        tokens.get(data[1])?.(data[2], data[3]);
        tokens.delete(data[1]);
      } else if (data[0] === "hello") {
        attach ??= createHub(make({ ...data[1], getToken }));
        receive = attach(post);
      } else {
        receive?.(data);
        if (data[0] === "bye") tabs.delete(post);
      }
    };
  };
}

/** A chat that shares one socket with the other tabs. Where browsers can't, each tab has its own. */
export function createSharedChat(options: SharedChatOptions): Chat {
  const { worker, name = options.url, getToken } = options;
  if (worker && globalThis.SharedWorker) {
    let post: Post;
    const bye = () => post(["bye"]);
    globalThis.addEventListener?.("pagehide", bye);
    return createMirror((receive, ready) => {
      const { port } = worker();
      post = (message) => port.postMessage(message);
      port.onmessage = ({ data }) => receive(data);
      const hello = () => {
        const { url, pageSize, pingInterval, pongTimeout } = options;
        post(["hello", { url, pageSize, pingInterval, pongTimeout }]);
      };
      hello();
      // A page that comes back out of the browser's cache said goodbye.
      globalThis.addEventListener?.("pageshow", ({ persisted }) => {
        if (!persisted) return;
        hello();
        ready();
      });
      return post;
    }, getToken, bye);
  }
  return globalThis.document && navigator.locks && globalThis.BroadcastChannel ? createElected(options, `switchboard ${name}`) : createChat(options);
}

/** The tab with the lock is the hub; the others reach it over a BroadcastChannel. */
function createElected(options: ChatOptions, name: string): Chat {
  const channel = new BroadcastChannel(name);
  const me = newId();
  const stop = new AbortController();
  let chat: Chat | undefined;
  let local: Receive | undefined;
  let lead: (how: LockOptions) => void;
  let heard = Date.now();

  const beat = setInterval(() => {
    if (chat || document.visibilityState === "hidden") heard = Date.now();
    else if (Date.now() - heard > SILENCE_MS) lead({ steal: true });
    else channel.postMessage([me, "beat"]);
  }, BEAT_MS);

  function leave(): void {
    clearInterval(beat);
    stop.abort();
    chat?.close();
    channel.postMessage([me, "bye"]);
    channel.close();
  }
  globalThis.addEventListener("pagehide", () => channel.postMessage([me, "bye"]));

  return createMirror((receive, ready) => {
    const follow = ({ data: [from, to, ...message] }: MessageEvent) => {
      if (from !== "hub") return;
      heard = Date.now();
      if (to === me) receive(message);
      else if (!to) ready();
    };

    function own(): Promise<void> {
      chat = createChat(options);
      const attach = createHub(chat);
      const tabs = new Map<string, Receive>();
      local = attach(receive);
      channel.onmessage = ({ data: [from, ...message] }) => {
        if (from === "hub") return;
        if (!tabs.has(from)) tabs.set(from, attach((answer) => channel.postMessage(["hub", from, ...answer])));
        tabs.get(from)!(message);
      };
      channel.postMessage(["hub"]);
      ready();
      return new Promise((resolve) => stop.signal.addEventListener("abort", () => resolve()));
    }

    lead = (how) => {
      heard = Date.now();
      navigator.locks.request(name, how, own).catch(() => {
        // Another tab took the lock, because this one was frozen.
        chat?.close();
        chat = local = undefined;
        channel.onmessage = follow;
        ready();
        lead({});
      });
    };
    channel.onmessage = follow;
    lead({});
    return (message) => (local ? local(message) : channel.postMessage([me, ...message]));
  }, options.getToken, leave);
}
