// Requests: questions with a ref, asked again after retryable errors and reconnects. The server runs two heavy reads of a user at
// a time and queues few, so the others wait here.
import type { ClientFrame, NativeError, NativeSynced, ServerFrame } from "./frames.js";
import { pause, sendFrame, timer, type Request, type State } from "./state.js";

const HEAVY = /^(history|search|conversations)$/;
const HEAVY_AT_A_TIME = 2;

/** Asks the server. `done` gets the answer, in several frames if it is long, or an error that no repetition mends. */
export function request(state: State, frame: ClientFrame, done: Request["done"], once?: boolean): void {
  state.requests.set(++state.ref, { frame, done, once, tries: 0 });
  sendRequests(state);
}

export function sendRequests(state: State): void {
  if (state.phase !== "online") return;
  let heavy = 0;
  for (const [ref, one] of state.requests) {
    if (one.waiting || (HEAVY.test(one.frame.type) && ++heavy > HEAVY_AT_A_TIME) || one.sent) continue;
    one.sent = true;
    sendFrame(state, { ...one.frame, ref });
  }
}

/** Gives a frame with a ref to its request. Returns false if there is none. */
export function answerRequest(state: State, frame: ServerFrame): boolean {
  const ref = (frame as NativeError).ref as number;
  const one = state.requests.get(ref);
  if (!one?.sent) return false;
  // The message is stored, and its ack comes separately.
  if (frame.type === "error" && frame.code === "persona_failed") return false;
  if (frame.type === "error" && frame.retryable) {
    one.sent = false;
    one.waiting = true;
    timer(state, `askAgain ${ref}`, pause(one.tries++, frame));
  } else {
    if (!(frame as NativeSynced).more) state.requests.delete(ref);
    one.done(frame);
  }
  sendRequests(state);
  return true;
}

export function askAgain(state: State, ref: string): void {
  const one = state.requests.get(+ref);
  if (one) one.waiting = false;
  sendRequests(state);
}

/** The socket ended: requests are asked again on the next one, except those made for this socket alone. */
export function resetRequests(state: State): void {
  for (const [ref, one] of state.requests) {
    if (one.once) state.requests.delete(ref);
    one.sent = one.waiting = false;
  }
}
