// A model of the server: one conversation's log, one socket of the client under test, and a network that the test controls.
const RESUME_MAX = 8;
const time = (seq) => new Date(Date.UTC(2026, 0, 1) + seq * 1000).toISOString();

export class Model {
  constructor(id = "team") {
    this.id = id;
    this.epoch = 1;
    this.log = [];
    this.stored = new Map();
    this.listening = false;
    this.toClient = [];
    this.refusals = [];
  }

  get head() {
    return this.log.length;
  }

  #store(entry) {
    const seq = this.head + 1;
    const full = { conversation_id: this.id, seq, created_at: time(seq), ...entry };
    this.log.push(full);
    return full;
  }

  /** An entry of somebody else. */
  other(entry) {
    const full = this.#store({ sender_id: "bob", ...entry });
    if (this.listening) this.toClient.push(this.#frame(full));
  }

  message(content, more = {}) {
    this.other({ type: "message", id: `m${this.head + 1}-${this.epoch}`, sender_name: "bob", content, ...more });
  }

  /** What a resume shows of an entry: a message in its present state. */
  #frame(entry) {
    if (entry.type !== "message") return entry;
    const now = this.view().find((one) => one.seq === entry.seq);
    return { ...entry, content: now.content, ...(now.deleted && { deleted: true }), ...(now.edited && { edited_at: time(this.head) }) };
  }

  /** The messages with all entries applied, as history has them. */
  view() {
    const messages = new Map();
    for (const entry of this.log) {
      if (entry.type === "message") {
        messages.set(entry.seq, { ...entry, reacted: new Map(), replies: 0 });
        const target = messages.get(entry.reply_to);
        if (target) target.replies++;
        continue;
      }
      const target = messages.get(entry.target_seq);
      if (!target) continue;
      if (entry.type === "message_deleted") Object.assign(target, { deleted: true, content: "", reacted: new Map() });
      else if (target.deleted) continue;
      else if (entry.type === "message_edited") Object.assign(target, { content: entry.content, edited: true });
      else if (entry.type === "reaction") {
        const users = target.reacted.get(entry.emoji) ?? new Set();
        if (entry.active) users.add(entry.sender_id);
        else users.delete(entry.sender_id);
        target.reacted.set(entry.emoji, users);
      }
    }
    return [...messages.values()];
  }

  reaction(seq, emoji, user) {
    return this.view().find((one) => one.seq === seq)?.reacted.get(emoji)?.has(user) ?? false;
  }

  /** Reactions of others, only if they change something and the message is not deleted. */
  otherReacts(seq, emoji, active) {
    const target = this.view().find((one) => one.seq === seq);
    if (!target || target.deleted || this.reaction(seq, emoji, "bob") === active) return;
    this.other({ type: "reaction", target_seq: seq, target_id: target.id, emoji, active });
  }

  page({ before_seq = Infinity, limit }) {
    const all = this.view().filter((one) => one.seq < before_seq).reverse();
    const page = all.slice(0, limit);
    const messages = page.map(({ type, reacted, edited, ...one }) => ({
      ...one,
      ...(edited && { edited_at: time(this.head) }),
      reactions: [...reacted].filter(([, users]) => users.size).map(([emoji, users]) => ({ emoji, count: users.size, own: users.has("alice") })),
    }));
    return { messages, total: this.view().length, as_of: this.head, ...(all.length > limit && { next_before_seq: page.at(-1).seq }) };
  }

  #send(frame) {
    this.toClient.push(frame);
  }

  #listen(since) {
    this.listening = true;
    for (const entry of this.log.slice(since)) this.#send(this.#frame(entry));
  }

  /** Takes a frame of the client in. */
  receive(frame) {
    const { ref } = frame;
    const conversation_id = this.id;
    switch (frame.type) {
      case "join":
        this.#send({ type: "joined", ref, conversation_id, head: this.head });
        return this.#listen(this.head);
      case "sync": {
        const since = frame.conversations[this.id];
        const lost = since > this.head || this.head - since > RESUME_MAX;
        this.#send({ type: "synced", ref, conversations: [{ conversation_id, head: this.head, ...(lost && { resync: { first_seq: 1 } }) }] });
        return this.#listen(lost ? this.head : since);
      }
      case "leave":
        this.listening = false;
        return this.#send({ type: "left", ref, conversation_id });
      case "history": return this.#send({ type: "history", ref, conversation_id, ...this.page(frame) });
      case "send": case "edit": case "delete": case "react": return this.#command(frame);
      case "read": return this.#send({ type: "ok", ref });
      case "conversations": return this.#send({ type: "conversations", ref, conversations: [], total: 0, status: "online" });
      case "presence": return this.#send({ type: "presence_list", ref, users: [] });
      case "ping": return this.#send({ type: "pong" });
    }
  }

  #command(frame) {
    const { client_id, ref } = frame;
    const error = (code, more) => this.#send({ type: "error", ref, code, message: code, retryable: true, client_id, ...more });
    const known = this.stored.get(client_id);
    const ack = (entry, more) => this.#send({
      type: "ack", ref, client_id, conversation_id: this.id, seq: entry.seq, id: entry.id ?? `e${entry.seq}`, created_at: entry.created_at, ...more,
    });
    if (known) return ack(known, { duplicate: true });
    const refusal = this.refusals.shift();
    if (refusal === "rate_limited") return error("rate_limited", { retry_after_ms: 700 });
    if (refusal === "unavailable") return error("unavailable");
    if (refusal === "forbidden") return error("forbidden", { retryable: false });
    const base = { sender_id: "alice", client_id };
    const target = this.view().find((one) => one.seq === frame.seq);
    if (frame.type !== "send" && !target) return error("not_found", { retryable: false });
    let entry;
    const named = { ...base, target_seq: frame.seq, target_id: target?.id };
    if (frame.type === "send") {
      entry = { type: "message", ...base, id: `m${this.head + 1}-${this.epoch}`, sender_name: "alice", content: frame.content, ...(frame.reply_to <= this.head && { reply_to: frame.reply_to }) };
    } else if (target.deleted || (frame.type !== "react" && target.sender_id !== "alice")) return error("forbidden", { retryable: false });
    else if (frame.type === "edit") entry = { type: "message_edited", ...named, content: frame.content };
    else if (frame.type === "delete") entry = { type: "message_deleted", ...named };
    else if (this.reaction(frame.seq, frame.emoji, "alice") === frame.active) return this.#send({ type: "ok", ref, client_id });
    else entry = { type: "reaction", ...named, emoji: frame.emoji, active: frame.active };
    const stored = this.#store(entry);
    this.stored.set(client_id, stored);
    if (refusal === "unknown") {
      // Stored, but the server can't say so: the entry comes in its place.
      if (this.listening) this.#send(this.#frame(stored));
      return error("unknown");
    }
    ack(stored);
  }

  /** The socket ends, and what was under way is lost. */
  disconnect() {
    this.listening = false;
    this.toClient = [];
  }

  /** The store is set back to an earlier state. */
  setBack(head) {
    if (head >= this.head) return;
    this.epoch++;
    this.log = this.log.slice(0, head);
    for (const [id, entry] of this.stored) if (entry.seq > head) this.stored.delete(id);
    if (this.listening) {
      // The rest of what was under way belongs to the lost log.
      this.toClient = this.toClient.filter((one) => !(one.seq > head));
      this.#send({ type: "resync", conversation_id: this.id, first_seq: 1, head });
    }
  }
}
