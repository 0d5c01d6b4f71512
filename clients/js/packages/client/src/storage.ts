// Keeps the outbox, and optionally the newest messages, over reloads: in IndexedDB, or in any store of values by key.
import type { Log } from "./log.js";
import type { Restored } from "./machine.js";
import type { Command, State } from "./state.js";
import type { ChatStorage } from "./types.js";

const FLUSH_MS = 500;
const KEPT_MESSAGES = 100;
const KEPT_CONVERSATIONS = 50;

/** A store of JSON values by key, such as React Native's AsyncStorage with a prefix. */
export interface KeyValueStore {
  entries(): Promise<Iterable<readonly [key: string, value: any]>>;
  set(key: string, value: unknown): unknown;
  remove(key: string): unknown;
}

export interface StorageOptions {
  /** Keep messages too, so that a page shows them before it is connected. By default true. */
  messages?: boolean;
}

type Saved = Pick<Log, "cursor" | "messages" | "before">;

/** A storage of a chat over a store of values: `o:` holds the outbox, `c:` conversations, `meta` whose they are. */
export function chatStorage(store: KeyValueStore, { messages: keepMessages = true }: StorageOptions = {}): ChatStorage {
  const dirty = new Set<string>();
  const kept = new Set<string>();
  let meta = "";

  function flush(state: State): void {
    for (const key of dirty) {
      const log = state.conversations.get(key)?.log;
      if (!log?.loaded || log.cursor < 0) continue;
      const messages = log.messages.slice(-KEPT_MESSAGES);
      const before = messages.length < log.messages.length ? messages[0]!.seq : log.before;
      keep(key, { cursor: log.cursor, messages, before });
    }
    dirty.clear();
  }

  /** The set is in the order of use, so its first is the one used least recently. */
  function keep(key: string, saved: Saved): void {
    kept.delete(key);
    kept.add(key);
    store.set(`c:${key}`, saved);
    for (const old of kept) {
      if (kept.size <= KEPT_CONVERSATIONS) break;
      kept.delete(old);
      store.remove(`c:${old}`);
    }
  }

  return {
    async load() {
      const restored: Restored = { commands: [], logs: {} };
      for (const [key, value] of await store.entries()) {
        if (key === "meta") Object.assign(restored, value);
        else if (key.startsWith("o:")) restored.commands.push(value as Command);
        else if (key.startsWith("c:")) {
          kept.add(key.slice(2));
          restored.logs[key.slice(2)] = value;
        }
      }
      return restored;
    },
    save: (command) => store.set(`o:${command.frame.client_id}`, command),
    drop: (clientId) => store.remove(`o:${clientId}`),
    changed(keys, state) {
      const { user, epoch } = state;
      if (state.phase === "online" && meta !== `${user} ${epoch}`) {
        meta = `${user} ${epoch}`;
        store.set("meta", { user, epoch });
      }
      if (!keepMessages) return;
      // A burst of entries is one write.
      if (!dirty.size) (setTimeout(flush, FLUSH_MS, state) as any).unref?.();
      for (const key of keys) dirty.add(key);
    },
    wipe() {
      for (const key of kept) store.remove(`c:${key}`);
      kept.clear();
    },
  };
}

const done = <T>(request: IDBRequest<T>) => new Promise<T>((resolve, reject) => {
  request.onsuccess = () => resolve(request.result);
  request.onerror = () => reject(request.error);
});

/** A storage in IndexedDB. Name it after the deployment if a page uses several. */
export function indexedDbStorage(name = "switchboard", options?: StorageOptions): ChatStorage {
  let opened: Promise<IDBDatabase> | undefined;
  const store = async (mode: IDBTransactionMode) => {
    opened ??= new Promise((resolve, reject) => {
      const request = indexedDB.open(name, 1);
      request.onupgradeneeded = () => request.result.createObjectStore("values");
      request.onsuccess = () => resolve(request.result);
      request.onerror = () => reject(request.error);
    });
    return (await opened).transaction("values", mode).objectStore("values");
  };
  // Without IndexedDB (private windows of some browsers) the chat works and forgets.
  const write = (change: (store: IDBObjectStore) => IDBRequest) => store("readwrite").then(change).catch(() => {});
  return chatStorage({
    async entries() {
      const values = await store("readonly");
      const [keys, all] = await Promise.all([done(values.getAllKeys()), done(values.getAll())]);
      return keys.map((key, at) => [String(key), all[at]] as const);
    },
    set: (key, value) => write((values) => values.put(value, key)),
    remove: (key) => write((values) => values.delete(key)),
  }, options);
}

/** Deletes what a storage in IndexedDB keeps, as at the end of a session. */
export const deleteIndexedDbStorage = (name = "switchboard") => done(indexedDB.deleteDatabase(name));
