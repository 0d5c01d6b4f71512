// A property of the reducer: whatever the order of frames, losses, repeats, refusals and reconnects, the list ends equal to the
// log of a model server, and every command has taken effect once.
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { Driver } from "./support/driver.mjs";
import { Model } from "./support/model.mjs";

const seq = fc.integer({ min: 1, max: 12 });
const emoji = fc.constantFrom("👍", "🎉");
const step = fc.oneof(
  { weight: 6, arbitrary: fc.record({ do: fc.constant("deliver"), count: fc.integer({ min: 1, max: 6 }) }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constant("deliverAny"), at: fc.nat(8) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("repeat"), at: fc.nat(8) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("lose"), at: fc.nat(8) }) },
  { weight: 4, arbitrary: fc.record({ do: fc.constant("other"), reply: fc.option(seq) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("burst"), count: fc.integer({ min: 5, max: 14 }) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant("otherChanges"), kind: fc.constantFrom("edit", "delete", "react"), seq, emoji, active: fc.boolean() }) },
  { weight: 4, arbitrary: fc.record({ do: fc.constant("send"), reply: fc.option(seq) }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constant("change"), kind: fc.constantFrom("edit", "delete", "react"), at: fc.nat(12), emoji, active: fc.boolean() }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant("refuse"), how: fc.constantFrom("rate_limited", "unavailable", "unknown", "forbidden") }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant("decide"), at: fc.nat(3), again: fc.boolean() }) },
  { weight: 2, arbitrary: fc.constant({ do: "disconnect" }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("setBack"), by: fc.integer({ min: 1, max: 4 }) }) },
  { weight: 1, arbitrary: fc.constant({ do: "reload" }) },
  { weight: 1, arbitrary: fc.constant({ do: "loadOlder" }) },
  { weight: 1, arbitrary: fc.constant({ do: "reopen" }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constant("advance"), ms: fc.constantFrom(100, 1_000, 6_000) }) },
);

class Run {
  model = new Model();
  count = 0;
  sent = [];

  constructor() {
    this.start();
  }

  start(saved = []) {
    this.driver = new Driver({ pageSize: 5 });
    this.driver.onSend = (frame) => this.model.receive(frame);
    for (const one of saved) this.driver.saved.set(one.frame.client_id, one);
    this.driver.act("restore", { commands: structuredClone(saved), logs: {} });
    this.driver.act("open", "team");
    this.connect();
  }

  connect() {
    if (this.driver.state.phase === "idle" || this.driver.state.phase === "waiting") this.driver.online({ epoch: this.model.epoch });
  }

  disconnect() {
    this.model.disconnect();
    this.driver.closed();
  }

  deliver(at) {
    const queue = this.model.toClient;
    if (queue.length) this.driver.receive(queue.splice(Math.min(at, queue.length - 1), 1)[0]);
  }

  command(frame, target) {
    this.driver.act("command", { conversation_id: "team", client_id: `c${++this.count}`, ...frame }, target);
    if (frame.type === "send") this.sent.push(`c${this.count}`);
  }

  act(step) {
    const { model, driver } = this;
    const queue = model.toClient;
    const at = Math.min(step.at ?? 0, queue.length - 1);
    // Answers carry a ref; the transport loses none of them without ending the socket.
    const reply = model.view().some((one) => one.seq === step.reply) ? { reply_to: step.reply } : {};
    const losable = queue[at] && queue[at].ref === undefined && queue[at].type !== "resync";
    switch (step.do) {
      case "deliver": for (let i = 0; i < step.count; i++) this.deliver(0); break;
      case "deliverAny": this.deliver(step.at); break;
      case "repeat": if (losable) queue.push(queue[at]); break;
      case "lose": if (losable) queue.splice(at, 1); break;
      case "other": model.message(`other ${model.head}`, reply); break;
      case "burst": for (let i = 0; i < step.count; i++) model.message(`burst ${model.head}`); break;
      case "otherChanges": this.otherChanges(step); break;
      case "send": this.command({ type: "send", content: `own ${this.count}`, ...reply }); break;
      case "change": this.change(step); break;
      case "refuse": model.refusals.push(step.how); break;
      case "decide": this.decide(step); break;
      case "disconnect": this.disconnect(); break;
      case "setBack": model.setBack(Math.max(0, model.head - step.by)); break;
      case "reload": this.disconnect(); this.start([...driver.saved.values()]); break;
      case "loadOlder": driver.act("loadOlder", "team"); break;
      case "reopen": driver.act("shut", "team"); driver.advance(6_000); driver.act("open", "team"); break;
      case "advance": driver.advance(step.ms); break;
    }
    this.connect();
    this.check();
  }

  otherChanges({ kind, seq, emoji, active }) {
    const target = this.model.view().find((one) => one.seq === seq);
    if (!target || target.deleted) return;
    if (kind === "react") this.model.otherReacts(seq, emoji, active);
    else if (target.sender_id === "bob") {
      this.model.other({ type: kind === "edit" ? "message_edited" : "message_deleted", target_seq: seq, target_id: target.id, ...(kind === "edit" && { content: `edited at ${this.model.head}` }) });
    }
  }

  /** Changes any message that the page shows, stored or not, as a user could. */
  change({ kind, at, emoji, active }) {
    const { messages } = this.driver.conversation("team");
    const message = messages[Math.min(at, messages.length - 1)];
    if (!message || message.deleted || (kind !== "react" && !message.own)) return;
    this.command({
      type: kind === "edit" ? "edit" : kind === "delete" ? "delete" : "react", seq: message.seq,
      ...(kind === "edit" && { content: `own edit ${this.count}` }), ...(kind === "react" && { emoji, active }),
    }, message.clientId);
  }

  /** Sends a failed message again, after all others, or drops it. */
  decide({ at, again }) {
    const failed = this.driver.conversation("team").messages.filter((one) => one.status === "failed");
    if (!failed.length) return;
    const { clientId } = failed[Math.min(at, failed.length - 1)];
    this.sent = this.sent.filter((one) => one !== clientId);
    if (again) this.sent.push(clientId);
    this.driver.act("discard", clientId, again);
  }

  failed() {
    return this.driver.conversation("team").messages.some((one) => one.status === "failed");
  }

  /** True at any time: in order, nothing twice. */
  check() {
    const { messages } = this.driver.conversation("team");
    const seqs = messages.flatMap((one) => one.seq ?? []);
    assert.deepEqual(seqs, [...new Set(seqs)].sort((a, b) => a - b), "in order, each seq once");
    const keys = messages.map((one) => one.key);
    assert.equal(new Set(keys).size, keys.length, "each message once");
    const stored = messages.findLastIndex((one) => one.seq);
    assert.ok(messages.slice(0, stored + 1).every((one) => one.seq), "what is being sent comes last");
  }

  settle() {
    for (let i = 0; i < 300; i++) {
      this.connect();
      while (this.model.toClient.length) this.deliver(0);
      if (this.driver.conversation("team").hasOlder) this.driver.act("loadOlder", "team");
      this.driver.advance(1_000);
    }
  }
}

const shown = ({ seq, content, deleted, reactions, replies, senderId }) => ({
  seq, content, deleted: !!deleted, replies, senderId, reactions: [...reactions].sort((a, b) => (a.emoji < b.emoji ? -1 : 1)),
});

const stored = ({ seq, content, deleted, reacted, replies, sender_id }) => ({
  seq, content, deleted: !!deleted, replies, senderId: sender_id,
  reactions: [...reacted].filter(([, users]) => users.size).map(([emoji, users]) => ({ emoji, count: users.size, own: users.has("alice") }))
    .sort((a, b) => (a.emoji < b.emoji ? -1 : 1)),
});

test("the list ends equal to the log", () => {
  fc.assert(fc.property(fc.array(step, { minLength: 1, maxLength: 60 }), (steps) => {
    const run = new Run();
    for (const one of steps) run.act(one);
    run.model.refusals = [];
    // What was lost at the end of a stream shows at the next connect.
    run.disconnect();
    run.settle();
    for (let again = true; run.failed(); again = !again) run.decide({ at: 0, again });
    run.settle();
    run.check();
    const view = run.driver.conversation("team");
    assert.equal(run.driver.connection.state, "online");
    assert.deepEqual(view.messages.map(shown), run.model.view().map(stored));
    assert.ok(view.messages.every((one) => !one.own || one.status !== "sending"), "nothing waits");
    assert.equal(run.driver.saved.size, 0, "the stored outbox is empty");
    const ids = run.model.log.filter((one) => one.type === "message" && one.sender_id === "alice").map((one) => one.client_id);
    assert.deepEqual(ids, run.sent.filter((one) => ids.includes(one)), "in the order of sending, each once");
    if (run.model.epoch === 1) assert.deepEqual(ids, run.sent, "nothing sent is lost");
  }), { includeErrorInReport: true, numRuns: Number(process.env.RUNS ?? 1500), ...(process.env.SEED && { seed: Number(process.env.SEED) }) });
});
