// The connection: tokens, connects, signs of life, and what to do after each close.
import type { NativeAuthenticated, NativeRestart } from "./frames.js";
import { changed, CONNECTION, emit, pause, sendFrame, timer, type State } from "./state.js";
import { request } from "./requests.js";

const OPEN_TIMEOUT_MS = 20_000;
/** A connection that held for this long was a good one: the pauses begin anew. */
const STABLE_MS = 10_000;
/** The least time between two refreshes, and the time to the next one if the clocks differ by more than a token's life. */
const REFRESH_MIN_MS = 5_000;
const REFRESH_BLIND_MS = 60_000;
/** After this time the server has ended sockets that are dead. */
const CROWDED_MS = 10_000;
const DAY_MS = 86_400_000;

function setPhase(state: State, phase: State["phase"], error?: State["error"]): void {
  state.phase = phase;
  state.error = error;
  changed(state, CONNECTION);
}

export function connect(state: State): void {
  if (state.phase !== "idle" && state.phase !== "waiting" && state.phase !== "closed") return;
  timer(state, "connect");
  setPhase(state, "connecting", state.error);
  askToken(state);
}

/** Asks for a token, unless the answer to an earlier question is still to come. */
function askToken(state: State): void {
  if (state.asking) return;
  state.asking = true;
  emit(state, "askToken");
}

/** The token expires before long. */
export function refresh(state: State): void {
  if (state.phase === "online") askToken(state);
}

export function onToken(state: State, token: string): void {
  if (state.phase === "connecting") {
    state.token = token;
    setPhase(state, "opening", state.error);
    emit(state, "dial");
    timer(state, "silent", OPEN_TIMEOUT_MS);
  } else if (state.phase === "online") {
    request(state, { type: "refresh", token }, (answer) => {
      if (answer.type === "refreshed") scheduleRefresh(state, answer.expires_at);
      else scheduleRefresh(state);
    }, true);
  }
}

export function onTokenError(state: State, message: string): void {
  if (state.phase === "connecting") retryLater(state, { code: "token", message });
  else if (state.phase === "online") scheduleRefresh(state);
}

/** Refreshes after three quarters of the time that is left; after a failure, without a new expiry, after half of it. */
function scheduleRefresh(state: State, expiresAt?: string): void {
  if (expiresAt) state.expiresAt = Date.parse(expiresAt);
  const left = state.expiresAt! - state.now;
  const wait = Math.min(Math.max(left * (expiresAt ? 0.75 : 0.5), REFRESH_MIN_MS), DAY_MS);
  timer(state, "refresh", left < 0 ? REFRESH_BLIND_MS : wait);
}

export function onOpened(state: State): void {
  sendFrame(state, { type: "authenticate", token: state.token! });
}

export function onAuthenticated(state: State, frame: NativeAuthenticated): void {
  const { user_id: user, name, epoch } = frame;
  Object.assign(state, { user, name, epoch, refusals: 0, onlineAt: state.now });
  setPhase(state, "online");
  timer(state, "silent");
  timer(state, "probe", state.config.pingInterval);
  scheduleRefresh(state, frame.expires_at);
}

/** Asks for a sign of life. Browsers don't show the server's pings, so a page needs its own. */
export function probe(state: State): void {
  if (state.phase !== "online") return;
  timer(state, "probe", state.config.pingInterval);
  if (state.pinged) return;
  state.pinged = true;
  sendFrame(state, { type: "ping" });
  timer(state, "silent", state.config.pongTimeout);
}

/** Any frame is a sign of life. */
export function onSignOfLife(state: State): void {
  if (!state.pinged) return;
  state.pinged = false;
  timer(state, "silent");
}

/** The network or the page came back: don't wait for a timer. */
export function wake(state: State): void {
  if (!state.advised && state.phase === "waiting") connect(state);
  else probe(state);
}

export function onRestart(state: State, frame: NativeRestart): void {
  state.advice = frame.retry_after_ms;
}

/** Ends the socket without waiting for its close event, which a dead network delays by minutes. */
function dropSocket(state: State): void {
  state.pinged = false;
  for (const key of ["connect", "probe", "silent", "refresh"]) timer(state, key);
  emit(state, "hangUp");
}

function retryLater(state: State, error: State["error"], ms?: number): void {
  state.advised = ms !== undefined;
  setPhase(state, "waiting", error);
  timer(state, "connect", ms ?? pause(state.attempt));
  state.attempt++;
}

/** Ends until the application connects again. */
export function stop(state: State, error?: State["error"]): void {
  dropSocket(state);
  state.attempt = state.refusals = 0;
  setPhase(state, "closed", error);
}

/** What to do after a close: docs/protocol/connections.md has the table. */
export function onClosed(state: State, code: number, reason: string): void {
  const error = { code: `${code}`, message: reason };
  const { advice, onlineAt, now } = state;
  if (onlineAt && now - onlineAt > STABLE_MS) state.attempt = 0;
  state.advice = state.onlineAt = undefined;
  dropSocket(state);
  const token = code === 4401 && reason !== "Authentication timeout";
  // One more try: with another token at once, or when the sockets that are dead have ended. Then it is of no use, unless tokens
  // were just old.
  const refused = token || reason === "Too many connections";
  if (code === 4403 || (refused && state.refusals++ && reason !== "Token expired")) return stop(state, error);
  retryLater(state, error, refused && state.refusals === 1 ? (token ? 0 : CROWDED_MS) : advice);
}
