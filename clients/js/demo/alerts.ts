// The red box: what the server's log says about refusals, in the same words, which name the setting to change.
import { button, byId, el } from "./dom.js";
import { serverState, type ServerState } from "./server.js";

const INTERVAL_MS = 2_000;
/** Sentences from before the page was opened are shown if they are this young. */
const RECENT_S = 120;
const MOST = 4;

const boxes = new Map<string, HTMLElement>();

/** Shows a sentence in the red box and in the browser's console, once until it is dismissed. */
export function alertOf(sentence: string): void {
  const shown = boxes.get(sentence);
  if (shown) {
    // Inserted anew, it moves once more, and screen readers say it again.
    shown.classList.add("again");
    byId("alerts").append(shown);
    return;
  }
  console.error(sentence);
  // Names of settings stand out.
  const parts = sentence.split(/\b([A-Z]{2,}(?:_[A-Z]+)+)\b/).map((part, at) => (at % 2 ? el("code", {}, part) : part));
  const box = el("p", { className: "alert" }, el("span", {}, ...parts));
  box.append(button("Dismiss", "Hide this", () => dismiss(sentence)));
  boxes.set(sentence, box);
  byId("alerts").append(box);
  if (boxes.size > MOST) dismiss(boxes.keys().next().value!);
}

export function dismiss(sentence: string): void {
  boxes.get(sentence)?.remove();
  boxes.delete(sentence);
}

const GONE = `This server does not answer: does switchboard dev still run at ${location.host}?`;
let after = 0;
let timer: ReturnType<typeof setTimeout> | undefined;
let polling = false;

/** Asks now what the server told, and from then on every two seconds while the page is visible. */
export async function poll(first?: (state: ServerState) => void): Promise<void> {
  if (polling) return;
  polling = true;
  clearTimeout(timer);
  try {
    const state = await serverState(after);
    dismiss(GONE);
    // A server that was restarted counts anew, from numbers that are below `after`.
    for (const { number, sentence, seconds_ago } of state.told) {
      if (after || seconds_ago < RECENT_S) alertOf(sentence);
      after = Math.max(after, number);
    }
    first?.(state);
  } catch (error) {
    // A server that refuses says why; one that is gone says nothing.
    const refused = error instanceof Error && !(error instanceof TypeError);
    const sentence = refused ? error.message : GONE;
    if (!boxes.has(sentence)) alertOf(sentence);
    if (!refused) after = 0;
  }
  polling = false;
  if (document.visibilityState === "visible") timer = setTimeout(() => void poll(), INTERVAL_MS);
}

document.addEventListener("visibilitychange", () => void poll());
