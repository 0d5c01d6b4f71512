// One user's window: the conversation, and buttons that break the connection.
import { createChat, type Chat, type Conversation, type Message } from "@switchboard/client";
import { alertOf, poll } from "./alerts.js";
import { button, el } from "./dom.js";
import { base, mint, USERS } from "./server.js";
import { Network } from "./tap.js";
import { showFrame } from "./wire.js";

const OTHER = "other…";
const RESTART_MS = 3_000;
/** The server takes an expired token for JWT_LEEWAY longer, by default 5 s. */
const EXPIRES_AFTER_MS = 7_000;

const MARKS = { sending: "…", sent: "✓", delivered: "✓✓", read: "✓✓", failed: "!" };
const STATES = { idle: "idle", connecting: "connecting", online: "online", waiting: "waiting to reconnect", closed: "closed" };

export class Pane {
  readonly element: HTMLElement;
  user: string;
  chat!: Chat;
  #network!: Network;
  #conversation!: Conversation;
  #ends: (() => void)[] = [];
  #expired: { token: Promise<string>; at: number } | undefined;
  #useExpired = false;
  #hadToken = false;

  readonly #title = el("h2");
  readonly #state = el("span", { className: "state", role: "status" });
  readonly #messages = el("ol", { className: "messages", tabIndex: 0, role: "log" });
  readonly #typing = el("p", { className: "typing" });
  readonly #input = el("input", { type: "text", maxLength: 5_000, autocomplete: "off", enterKeyHint: "send" });
  readonly #ask = button("Ask echo", "Send it to the persona echo, which answers", () => this.#send("echo"));
  readonly #offline = button("Go offline", "Cut the network of this user until you click again", () => this.#toggleOffline());
  readonly #expire = button("Expire the token", "Reconnect with a token that has expired: the server refuses it, and the client asks for a new one",
    () => void this.#expireToken());
  #persona: string | undefined;

  constructor(user: string, readonly room: string) {
    this.user = user;
    this.#input.addEventListener("input", () => this.#conversation.setTyping(this.#input.value));
    const form = el("form", { className: "composer", on: { submit: (event: Event) => { event.preventDefault(); this.#send(); } } },
      this.#input, el("button", { type: "submit", className: "primary" }, "Send"), this.#ask);
    const faults = el("div", { className: "faults", role: "group", aria: { label: "Break the connection" } },
      button("Drop the socket", "Cut the socket without a word; the client comes back by itself", () => this.#drop()),
      this.#expire, this.#offline,
      button("Restart hint", `Do what a node does before it restarts: advice to come back in ${RESTART_MS / 1000} s, then a close. Simulated in this page`,
        () => this.#restart()));
    this.element = el("article", { className: "pane" },
      el("div", { className: "bar" }, this.#title, this.#state, this.#switcher()),
      this.#messages, this.#typing, form, faults);
    this.#start();
  }

  set persona(persona: string | null) {
    this.#persona = persona ?? undefined;
    this.#ask.textContent = `Ask ${persona ?? "a persona"}`;
    this.#ask.title = persona ? `Send it to the persona ${persona}, which answers` : "Needs PERSONA_WEBHOOK_URL and PERSONA_IDS";
  }

  say(text: string): void {
    this.#conversation.send(text);
  }

  get conversation(): Conversation {
    return this.#conversation;
  }

  #switcher(): HTMLElement {
    const custom = el("input", { type: "text", maxLength: 128, hidden: true, placeholder: "user id", aria: { label: "Id of another user" } });
    const select = el("select", { aria: { label: "User of this pane" } }, ...[...USERS, OTHER].map((user) => el("option", { value: user }, user)));
    select.value = this.user;
    select.addEventListener("change", () => {
      custom.hidden = select.value !== OTHER;
      if (custom.hidden) this.#switchTo(select.value);
      else custom.focus();
    });
    custom.addEventListener("change", () => {
      if (custom.value.trim()) this.#switchTo(custom.value.trim());
    });
    return el("span", { className: "who" }, select, custom);
  }

  #switchTo(user: string): void {
    if (user === this.user) return;
    this.#stop();
    this.user = user;
    this.#start();
  }

  #start(): void {
    const { user } = this;
    const name = user.charAt(0).toUpperCase() + user.slice(1);
    this.#title.textContent = name;
    this.#messages.setAttribute("aria-label", `Messages, as ${name} sees them`);
    this.#input.placeholder = `Message as ${name}`;
    this.#input.setAttribute("aria-label", `Message as ${name}`);
    this.#network = new Network(user, showFrame);
    this.#hadToken = this.#useExpired = false;
    this.#expired = { token: mint(user, 1), at: Date.now() };
    this.#expired.token.catch(() => {});
    this.#setOffline(false);
    this.chat = createChat({
      url: base,
      WebSocket: this.#network.WebSocket,
      pageSize: 30,
      getToken: ({ signal }) => this.#token(signal),
    });
    this.#conversation = this.chat.conversation(this.room);
    this.#ends = [
      this.chat.connection.subscribe(() => this.#showState()),
      this.#conversation.subscribe(() => this.#showMessages()),
    ];
    this.#showState();
    this.#showMessages();
  }

  #stop(): void {
    this.#ends.forEach((end) => end());
    this.chat.close();
    this.#messages.replaceChildren();
  }

  async #token(signal?: AbortSignal): Promise<string> {
    if (this.#useExpired) {
      this.#useExpired = false;
      this.#network.note("asks for a token, and gets one that has expired");
      return this.#expired!.token;
    }
    if (this.#hadToken) this.#network.note("asks for a new token");
    this.#hadToken = true;
    try {
      return await mint(this.user, undefined, signal);
    } catch (error) {
      // A server that is gone has no sentence.
      if (error instanceof Error && !(error instanceof TypeError)) alertOf(error.message);
      throw error;
    }
  }

  #drop(): void {
    this.#network.note("the socket is dropped (Drop the socket)");
    this.#network.cut();
  }

  #restart(): void {
    this.#network.note("a restart is simulated (Restart hint)");
    this.#network.restart(RESTART_MS);
  }

  async #expireToken(): Promise<void> {
    const expired = this.#expired!;
    this.#expire.disabled = true;
    const left = expired.at + EXPIRES_AFTER_MS - Date.now();
    if (left > 0) {
      this.#network.note(`a token expires in ${Math.ceil(left / 1000)} s (Expire the token)`);
      await new Promise((resolve) => setTimeout(resolve, left));
    }
    this.#expire.disabled = false;
    if (expired !== this.#expired) return;
    this.#useExpired = true;
    this.#network.cut();
  }

  #setOffline(offline: boolean): void {
    this.#network.offline = offline;
    this.#offline.setAttribute("aria-pressed", String(offline));
    this.#offline.textContent = offline ? "Go online" : "Go offline";
  }

  #toggleOffline(): void {
    this.#setOffline(!this.#network.offline);
    this.#network.note(this.#network.offline ? "goes offline" : "is online again");
    if (this.#network.offline) this.#network.cut();
    else this.chat.wake();
  }

  #send(persona?: string): void {
    const text = this.#input.value;
    if (!text.trim()) return this.#input.focus();
    this.#conversation.send(text, persona ? { personaId: this.#persona ?? persona } : {});
    this.#input.value = "";
    this.#conversation.setTyping(false);
    this.#messages.scrollTop = this.#messages.scrollHeight;
    this.#input.focus();
  }

  #showState(): void {
    const { state, error } = this.chat.connection.getSnapshot();
    this.#state.className = `state ${state}`;
    this.#state.textContent = this.#network.offline ? "offline" : STATES[state];
    this.#state.title = error ? `${error.code} ${error.message}` : "";
    if (error && state !== "online") void poll();
  }

  #showMessages(): void {
    const { messages, typing, error, loaded } = this.#conversation.getSnapshot();
    const atEnd = this.#messages.scrollHeight - this.#messages.scrollTop - this.#messages.clientHeight < 60;
    const empty = error?.message ?? (loaded ? "No message yet: write one" : "…");
    this.#messages.replaceChildren(...messages.length ? messages.map((one) => this.#item(one)) : [el("li", { className: "empty" }, empty)]);
    if (atEnd) this.#messages.scrollTop = this.#messages.scrollHeight;
    const names = typing.map((one) => one.name);
    this.#typing.textContent = names.length ? `${names.join(", ")} ${names.length > 1 ? "are" : "is"} typing…` : "\u00a0";
    if (error || messages.some((one) => one.status === "failed")) void poll();
    if (document.visibilityState === "visible" && messages.at(-1)?.seq) this.#conversation.markRead();
  }

  #item(message: Message): HTMLElement {
    const { own, status, senderName, content, deleted, error, clientId, isAi } = message;
    const time = new Date(message.createdAt).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
    const item = el("li", { className: `${own ? "own" : "other"} ${status}` },
      el("span", { className: "meta" }, `${own ? "You" : senderName}${isAi ? " (persona)" : ""} ${time} `,
        own ? el("span", { className: "mark", title: status, aria: { label: status } }, MARKS[status]) : undefined),
      el("span", { className: "text" }, deleted ? "deleted" : content));
    if (error) item.append(el("span", { className: "error" }, error.message));
    if (status === "failed" && clientId) {
      item.append(el("span", { className: "again" }, button("Retry", "Send it again", () => this.#conversation.retry(clientId)),
        button("Discard", "Drop it", () => this.#conversation.discard(clientId))));
    }
    return item;
  }
}
