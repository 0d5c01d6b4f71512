// The public interface: stores over the runtime.
import type { NativeEvent, ServerFrame } from "./frames.js";
import { createRuntime } from "./runtime.js";
import { CONNECTION, LIST, PRESENCE, type CommandFrame, type State } from "./state.js";
import type { Chat, ChatOptions, Conversation, ConversationSnapshot, MessageRef, Store } from "./types.js";
import { connectionView, conversationView, listView, presenceView } from "./view.js";

/** A new id. It has to be unique and need not be secret, so pages without crypto (no TLS, React Native) do as well. */
export const newId = () => [Date.now(), Math.random(), Math.random()].map((one) => one.toString(36).replace("0.", "")).join("-");

type Run = (frame: CommandFrame, target?: string) => void;

/** The methods that make commands for a conversation: an id, or "/" and a user. */
export function commandsOf(key: string, run: Run): Pick<Conversation, "send" | "edit" | "delete" | "react"> {
  const to = key[0] === "/" ? { recipient_id: key.slice(1) } : { conversation_id: key };
  const command = (frame: Omit<CommandFrame, "client_id">, target?: string) => {
    const client_id = newId();
    run({ ...frame, ...to, client_id }, target);
    return client_id;
  };
  const change = (frame: Omit<CommandFrame, "client_id">, ref: MessageRef) => {
    const { seq, clientId } = typeof ref === "object" ? ref : typeof ref === "number" ? { seq: ref } : { clientId: ref };
    command({ ...frame, seq }, clientId);
  };
  return {
    send: (content, { data, replyTo, personaId } = {}) =>
      command({ type: "send", content, data, reply_to: replyTo, persona_id: personaId }),
    edit: (ref, content, options) => change({ type: "edit", content, data: options?.data }, ref),
    delete: (ref) => change({ type: "delete" }, ref),
    react: (ref, emoji, active = true) => change({ type: "react", emoji, active }, ref),
  };
}

/** A store whose snapshot is made when somebody asks for it. `watch` is called with the first subscriber and after the last one. */
function createStore<T>(view: () => T, watch: (by: 1 | -1) => void, use: () => void) {
  const subscribers = new Set<() => void>();
  let snapshot: T | undefined;
  return {
    subscribe(listener: () => void) {
      // Each subscription counts, also two of the same function.
      const mine = () => listener();
      if (subscribers.add(mine).size === 1) watch(1);
      use();
      return () => {
        if (subscribers.delete(mine) && !subscribers.size) watch(-1);
      };
    },
    getSnapshot: () => (snapshot ??= view()),
    refresh() {
      snapshot = undefined;
      subscribers.forEach((one) => one());
    },
  };
}

export function createChat(options: ChatOptions): Chat {
  const stores = new Map<string, Store<any> & { key: string; refresh(): void }>();
  const listeners = new Set<(event: NativeEvent) => void>();
  const answers = new Map<number, (frame: ServerFrame) => void>();

  const { state, dispatch, start, stop } = createRuntime(options, {
    changed(keys) {
      // The presence of members is part of the list.
      if (keys.has(PRESENCE)) keys.add(LIST);
      for (const store of [...stores.values()]) if (keys.has(state.aliases.get(store.key) ?? store.key)) store.refresh();
    },
    event: (event) => listeners.forEach((listener) => listener(event)),
    answer(id, frame) {
      answers.get(id)!(frame);
      answers.delete(id);
    },
  });

  const use = () => {
    if (state.phase === "idle") void start();
  };

  /** The store of a name, made once, so that it keeps its snapshot. `key` is what its changes are called. */
  function storeOf<T, M = {}>(name: string, view: (state: State) => T, watch: (by: 1 | -1) => void, methods?: M, key = name): Store<T> & M {
    const store = stores.get(name) ?? { key, ...createStore(() => view(state), watch, use), ...methods };
    stores.set(name, store);
    return store as any;
  }

  function conversation(key: string): Conversation {
    const run = (frame: CommandFrame, target?: string) => {
      dispatch("command", frame, target);
      use();
    };
    return storeOf<ConversationSnapshot, Omit<Conversation, keyof Store<unknown>> & { run: Run }>(key, (state) => conversationView(state, key),
      (by) => dispatch(by > 0 ? "open" : "shut", key), {
        ...commandsOf(key, run),
        run,
        retry: (clientId) => dispatch("discard", clientId, true),
        discard: (clientId) => dispatch("discard", clientId),
        loadOlder: () => dispatch("loadOlder", key),
        setTyping: (active) => dispatch("setTyping", key, active),
        // Event handlers may pass an event.
        markRead: (seq) => dispatch("markRead", key, +seq! || undefined),
      });
  }

  return {
    connection: storeOf(CONNECTION, connectionView, () => {}),
    conversation,
    dm: (userId) => conversation(`/${userId}`),
    conversations: () => storeOf(LIST, listView, (by) => dispatch("watchList", by), { loadMore: () => dispatch("loadMore") }),
    presence: (users) => storeOf([PRESENCE, ...users].join(" "), (state) => presenceView(state, users), (by) => dispatch("watch", users, by), {}, PRESENCE),
    request: (frame) => new Promise((resolve, reject) => {
      const id = Math.random();
      answers.set(id, (answer) => (answer.type === "error" ? reject : resolve)(answer as any));
      dispatch("request", id, frame);
      use();
    }),
    onEvent(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    connect: start,
    wake: () => dispatch("wake"),
    close: stop,
  };
}
