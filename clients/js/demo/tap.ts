// A WebSocket that shows its frames and can be broken: what the buttons of a pane do to the network.
import type { SocketLike } from "@switchboard/client";

export interface Frame {
  user: string;
  direction: "out" | "in" | "note";
  text: string;
}

/** Tokens are shown to nobody who looks over a shoulder, and not in pictures. */
export const redacted = (text: string) => text.replace(/("token"\s*:\s*")[^"]*/g, "$1…");

/** The network of one user. `WebSocket` is what the client opens its sockets with. */
export class Network {
  offline = false;
  #open = new Set<Tap>();

  constructor(readonly user: string, readonly show: (frame: Frame) => void) {}

  readonly WebSocket = ((network: Network) =>
    class extends Tap {
      constructor(url: string) {
        super(url, network);
      }
    })(this);

  note(text: string): void {
    this.show({ user: this.user, direction: "note", text });
  }

  opened(tap: Tap): void {
    this.#open.add(tap);
  }

  closed(tap: Tap): void {
    this.#open.delete(tap);
  }

  /** Cuts the socket, as a lost network does: neither side says why. */
  cut(): void {
    for (const tap of [...this.#open]) tap.end(1006, "");
  }

  /** Does what a node does before it goes away: advice when to come back, then a close. The node itself stays. */
  restart(afterMs: number): void {
    for (const tap of [...this.#open]) {
      tap.receive(JSON.stringify({ type: "restart", retry_after_ms: afterMs }));
      tap.end(1012, `Restarting, retry after ${afterMs} ms`);
    }
  }
}

class Tap implements SocketLike {
  onopen: SocketLike["onopen"] = null;
  onmessage: SocketLike["onmessage"] = null;
  onclose: SocketLike["onclose"] = null;
  onerror: SocketLike["onerror"] = null;
  #socket: WebSocket | undefined;

  constructor(url: string, readonly network: Network) {
    if (network.offline) {
      setTimeout(() => this.onclose?.({ code: 1006, reason: "" }));
      return;
    }
    const socket = new WebSocket(url);
    this.#socket = socket;
    network.opened(this);
    socket.onopen = (event) => this.onopen?.(event);
    socket.onmessage = ({ data }) => this.receive(data);
    socket.onclose = ({ code, reason }) => this.end(code, reason);
    socket.onerror = (event) => this.onerror?.(event);
  }

  send(text: string): void {
    if (this.#socket?.readyState !== WebSocket.OPEN) return;
    this.network.show({ user: this.network.user, direction: "out", text });
    this.#socket.send(text);
  }

  close(code?: number): void {
    this.network.closed(this);
    this.#socket?.close(code);
  }

  receive(text: string): void {
    this.network.show({ user: this.network.user, direction: "in", text });
    this.onmessage?.({ data: text });
  }

  /** Ends the socket, and tells the client this code. */
  end(code: number, reason: string): void {
    const socket = this.#socket;
    if (!socket) return;
    this.#socket = undefined;
    socket.onopen = socket.onmessage = socket.onclose = socket.onerror = null;
    socket.close();
    this.network.closed(this);
    this.network.note(`closed: ${code}${reason && ` ${reason}`}`);
    this.onclose?.({ code, reason });
  }
}
