// A TCP proxy between browsers and nodes that the test misuses: it refuses, cuts, and swallows.
import { once } from "node:events";
import { connect, createServer } from "node:net";

export class Proxy {
  /** Ports of the nodes that it may use, in turn. */
  targets = [];
  /** "forward", "refuse" (new connections are reset), or "swallow" (nothing passes, and nobody is told). */
  mode = "forward";
  connections = 0;
  #pairs = new Set();
  #next = 0;
  #server = createServer({ allowHalfOpen: false }, (client) => this.#accept(client));

  async listen() {
    this.#server.listen(0, "127.0.0.1");
    await once(this.#server, "listening");
    this.port = this.#server.address().port;
    return this;
  }

  #accept(client) {
    this.connections++;
    client.on("error", () => client.destroy());
    if (this.mode === "refuse" || !this.targets.length) return client.resetAndDestroy();
    const pair = { client, node: undefined, swallowed: this.mode === "swallow" };
    this.#pairs.add(pair);
    client.on("close", () => {
      this.#pairs.delete(pair);
      pair.node?.destroy();
    });
    if (!pair.swallowed) this.#forward(pair, this.targets.length);
    client.on("data", (data) => {
      if (!pair.swallowed && pair.node) pair.node.write(data);
    });
  }

  /** Connects to a node that accepts, as a load balancer does. */
  #forward(pair, left) {
    if (left === 0) return pair.client.resetAndDestroy();
    const node = connect(this.targets[this.#next++ % this.targets.length], "127.0.0.1");
    pair.node = node;
    node.on("data", (data) => {
      if (!pair.swallowed) pair.client.write(data);
    });
    node.on("error", () => {});
    node.on("close", () => {
      if (node.connecting === false && node.bytesRead === 0 && node.bytesWritten === 0 && node.errored) return this.#forward(pair, left - 1);
      // A black hole hides the end too.
      if (!pair.swallowed) pair.client.destroy();
    });
  }

  /** From now on nothing passes on the connections that exist; new ones hang too. */
  swallow() {
    this.mode = "swallow";
    for (const pair of this.#pairs) pair.swallowed = true;
  }

  refuse() {
    this.mode = "refuse";
    this.cut();
  }

  forward() {
    this.mode = "forward";
  }

  cut() {
    for (const { client } of this.#pairs) client.resetAndDestroy();
  }

  /** Waits until no connection is left. */
  async idle() {
    while (this.#pairs.size) await Promise.all([...this.#pairs].map(({ client }) => once(client, "close")));
  }

  close() {
    this.cut();
    this.#server.close();
  }
}
