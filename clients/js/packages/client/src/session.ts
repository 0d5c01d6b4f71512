// The connection: tokens, connects, signs of life, and what to do after each close.
import type { NativeAuthenticated, NativeRestart } from "./frames.js";
import { changed, CONNECTION, emit, pause, sendFrame, timer, type State } from "./state.js";
import { request } from "./requests.js";

const TOKEN_TIMEOUT_MS = 20_000;
const OPEN_TIMEOUT_MS = 20_000;
/** A connection that held for this long was a good one: the pauses begin anew. */
const STABLE_MS = 10_000;
/** The least time between two refreshes, and the time to the next one if the clocks differ by more than a token's life. */
const REFRESH_MIN_MS = 5_000;
const REFRESH_BLIND_MS = 60_000;
const DAY_MS = 86_400_000;

function setPhase(state: State, phase: State["phase"]): void {
  state.phase = phase;
  changed(state, CONNECTION);
}

export function connect(state: State): void {
  if (state.phase !== "idle" && state.phase !== "waiting" && state.phase !== "closed") return;
  timer(state, "connect");
  setPhase(state, "connecting");
  askToken(state);
}

/** Asks for a token, unless the answer to an earlier question is still to come. */
function askToken(state: State): void {
  if (state.askingToken) return;
  state.askingToken = true;
  emit(state, "askToken");
  timer(state, "tokenTimeout", TOKEN_TIMEOUT_MS);
}

/** The token expires before long. */
export function refresh(state: State): void {
  if (state.phase === "online") askToken(state);
}

export function onToken(state: State, token: string): void {
  state.askingToken = false;
  timer(state, "tokenTimeout");
  if (state.phase === "connecting") {
    state.token = token;
    setPhase(state, "opening");
    emit(state, "openSocket", ++state.socket);
    timer(state, "noAnswer", OPEN_TIMEOUT_MS);
  } else if (state.phase === "online") {
    request(state, { type: "refresh", token }, (answer) => {
      if (answer.type === "refreshed") scheduleRefresh(state, answer.expires_at);
      else scheduleRefresh(state);
    }, true);
  }
}

/** The application has no token: its user signed out. */
export function signOut(state: State): void {
  state.askingToken = false;
  timer(state, "tokenTimeout");
  if (state.phase !== "closed") stop(state, { code: "signed_out", message: "getToken returned no token" });
}

export function onTokenError(state: State, message: string): void {
  state.askingToken = false;
  timer(state, "tokenTimeout");
  if (state.phase === "connecting") retryLater(state, { code: "token", message });
  else if (state.phase === "online") scheduleRefresh(state);
}

/** Refreshes after three quarters of the time that is left; after a failure, without a new expiry, after half of it. */
function scheduleRefresh(state: State, expiresAt?: string): void {
  if (expiresAt) state.expiresAt = Date.parse(expiresAt);
  const left = state.expiresAt - state.now;
  const wait = Math.min(Math.max(left * (expiresAt ? 0.75 : 0.5), REFRESH_MIN_MS), DAY_MS);
  timer(state, "refresh", left > 0 || !expiresAt ? wait : REFRESH_BLIND_MS);
}

export function onOpened(state: State): void {
  sendFrame(state, { type: "authenticate", token: state.token });
}

export function onAuthenticated(state: State, frame: NativeAuthenticated): void {
  state.user = frame.user_id;
  state.name = frame.name;
  state.epoch = frame.epoch;
  state.error = undefined;
  state.refusals = 0;
  state.onlineAt = state.now;
  setPhase(state, "online");
  timer(state, "noAnswer");
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
  timer(state, "noAnswer", state.config.pongTimeout);
}

/** Any frame is a sign of life. */
export function onSignOfLife(state: State): void {
  if (!state.pinged) return;
  state.pinged = false;
  timer(state, "noAnswer");
}

/** The network or the page came back: don't wait for a timer. */
export function wake(state: State): void {
  if (state.phase === "waiting" && !state.advised) connect(state);
  else probe(state);
}

export function onRestart(state: State, frame: NativeRestart): void {
  state.advisedMs = frame.retry_after_ms;
}

/** Ends the socket without waiting for its close event, which a dead network delays by minutes. */
function dropSocket(state: State): void {
  state.socket++;
  state.pinged = false;
  for (const key of ["connect", "probe", "noAnswer", "refresh"]) timer(state, key);
  emit(state, "closeSocket");
}

function retryLater(state: State, error: State["error"], ms?: number): void {
  state.error = error;
  state.advised = ms !== undefined;
  setPhase(state, "waiting");
  timer(state, "connect", ms ?? pause(state.attempt), ms === undefined);
  state.attempt++;
}

/** Ends until the application connects again. */
export function stop(state: State, error?: State["error"]): void {
  dropSocket(state);
  state.error = error;
  state.attempt = state.refusals = 0;
  setPhase(state, "closed");
}

/** What to do after a close: docs/protocol/connections.md has the table. */
export function onClosed(state: State, code: number, reason: string): void {
  const error = { code: String(code), message: reason };
  const advised = state.advisedMs;
  if (state.phase === "online" && state.now - state.onlineAt > STABLE_MS) state.attempt = 0;
  state.advisedMs = undefined;
  dropSocket(state);
  if (code === 4401 && reason !== "Authentication timeout") {
    // The first refusal asks for another token at once. A second one in a row ends the session, unless the tokens were just old.
    if (state.refusals++ === 0) return retryLater(state, error, 0);
    return reason === "Token expired" ? retryLater(state, error) : stop(state, error);
  }
  if (code === 4403) return stop(state, error);
  if (code === 1008 && reason === "Too many connections") {
    return state.refusals++ === 0 ? retryLater(state, error, 10_000) : stop(state, error);
  }
  retryLater(state, error, code === 1012 ? advised : undefined);
}
