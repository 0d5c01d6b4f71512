// Drives the machine with a virtual clock: collects what it sends and fires its timers in order.
import { newState, step } from "../../packages/client/dist/machine.js";
import { connectionView, conversationView, listView, presenceView } from "../../packages/client/dist/view.js";

export class Driver {
  constructor(config) {
    this.state = newState(config);
    this.now = 1_000_000;
    this.timers = new Map();
    this.sent = [];
    this.saved = new Map();
    this.effects = [];
    this.dials = 0;
    this.answers = new Map();
    this.onSend = (frame) => this.sent.push(frame);
  }

  act(name, ...args) {
    for (const effect of step(this.state, this.now, [name, ...args])) this.#run(effect);
  }

  #run([name, ...args]) {
    this.effects.push([name, ...args]);
    switch (name) {
      case "timer": {
        const [key, ms] = args;
        if (ms === undefined) this.timers.delete(key);
        else this.timers.set(key, this.now + Math.abs(ms));
        return;
      }
      // What is sent goes over JSON, as on a socket.
      case "send": return this.onSend(JSON.parse(JSON.stringify(args[0])));
      case "dial": this.dials++; return;
      case "save": this.saved.set(args[0].frame.client_id, JSON.parse(JSON.stringify(args[0]))); return;
      case "drop": this.saved.delete(args[0]); return;
      case "answer": this.answers.set(args[0], args[1]); return;
    }
  }

  /** Lets time pass. Timers fire at their times, in their order. */
  advance(ms) {
    const end = this.now + ms;
    for (;;) {
      const due = [...this.timers].filter(([, at]) => at <= end).sort((a, b) => a[1] - b[1])[0];
      if (!due) break;
      this.timers.delete(due[0]);
      this.now = Math.max(this.now, due[1]);
      this.act(...due[0].split(" "));
    }
    this.now = end;
  }

  receive(frame) {
    this.act("frame", frame);
  }

  /** Connects up to the answer to `authenticate`. */
  online({ user = "alice", epoch = 1, expiresIn = 3_600_000 } = {}) {
    this.act("connect");
    this.act("token", "token");
    this.act("opened");
    this.receive({
      type: "authenticated", user_id: user, name: user, connection_id: "0", epoch,
      expires_at: new Date(this.now + expiresIn).toISOString(),
    });
  }

  closed(code = 1006, reason = "") {
    this.act("closed", code, reason);
  }

  take() {
    return this.sent.splice(0);
  }

  /** The frames sent since the last call, of some types. */
  takeOf(...types) {
    return this.take().filter((one) => types.includes(one.type));
  }

  conversation(key) {
    return conversationView(this.state, key);
  }

  get connection() {
    return connectionView(this.state);
  }

  get list() {
    return listView(this.state);
  }

  presence(users) {
    return presenceView(this.state, users);
  }
}
