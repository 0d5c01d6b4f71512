// The live log of frames, and commands to copy.
import { button, byId, el } from "./dom.js";
import { mint, USERS } from "./server.js";
import { redacted, type Frame } from "./tap.js";

const KEPT = 300;
const DAY_S = 86_400;

const list = el("ol", { className: "frames", tabIndex: 0, role: "log", aria: { label: "Frames, newest last: arrows move, Enter opens", live: "off" } });
const paused = el("input", { type: "checkbox", id: "paused" });
const pings = el("input", { type: "checkbox", id: "pings" });
const users = [...USERS];

/** Users have colours in the order in which they appear in the log. */
const colour = (user: string) => (users.includes(user) ? users : (users.push(user), users)).indexOf(user) % 4;

const ARROWS = { out: "↑", in: "↓", note: "•" };
const WORDS = { out: "sent", in: "received", note: "note" };

export function showFrame({ user, direction, text }: Frame): void {
  if (paused.checked || (!pings.checked && /^\{"type":"(ping|pong)"/.test(text))) return;
  const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
  const type = direction === "note" ? "" : /"type":"(\w+)"/.exec(text)?.[1] ?? "";
  const line = [
    el("time", {}, new Date().toLocaleTimeString([], { hour12: false })),
    el("b", { className: `user u${colour(user)}` }, user),
    el("span", { className: "arrow", title: WORDS[direction], role: "img", aria: { label: WORDS[direction] } }, ARROWS[direction]),
    type ? el("em", {}, type) : undefined,
    el("code", {}, redacted(text)),
  ];
  list.append(el("li", { className: direction }, direction === "note" ? el("div", {}, ...line)
    : el("details", {}, el("summary", { tabIndex: -1 }, ...line), el("pre", {}, pretty(redacted(text))))));
  while (list.children.length > KEPT) list.firstChild!.remove();
  if (atEnd) list.scrollTop = list.scrollHeight;
}

function pretty(text: string): string {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

// The list is one stop of the Tab key; the arrows move between its frames, and Enter opens one.
list.addEventListener("keydown", (event) => {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!step) return;
  const all = [...list.querySelectorAll("summary")];
  const at = all.indexOf(document.activeElement as HTMLElement);
  const next = at < 0 ? all.at(-1) : all[at + step];
  next?.focus();
  event.preventDefault();
});

const quoted = (text: string) => `'${text.replaceAll("'", `'\\''`)}'`;

/** Commands that work as they are pasted. */
export const SNIPPETS: Record<string, { where: string; text(token: string, room: string, content: string): string }> = {
  JS: {
    where: "into a browser's console, or a file for Node.js 22",
    text: (token, room, content) => `const ws = new WebSocket("ws://${location.host}/v1/ws");
ws.onmessage = ({ data }) => console.log(data);
ws.onopen = () => [
  { type: "authenticate", token: "${token}" },
  { type: "join", conversation_id: ${JSON.stringify(room)} },
  { type: "send", conversation_id: ${JSON.stringify(room)}, content: ${JSON.stringify(content)}, client_id: String(Math.random()) },
].forEach((frame) => ws.send(JSON.stringify(frame)));
`,
  },
  Python: {
    where: "into a file, after pip install websockets",
    text: (token, room, content) => `import json, uuid
from websockets.sync.client import connect

with connect("ws://${location.host}/v1/ws") as ws:
    for frame in [
        {"type": "authenticate", "token": "${token}"},
        {"type": "join", "conversation_id": ${JSON.stringify(room)}},
        {"type": "send", "conversation_id": ${JSON.stringify(room)}, "content": ${JSON.stringify(content)}, "client_id": str(uuid.uuid4())},
    ]:
        ws.send(json.dumps(frame))
    while (frame := json.loads(ws.recv()))["type"] not in ("ack", "error"):
        print(frame)
    print(frame)
`,
  },
  curl: {
    where: "into a terminal",
    text: (token, room, content) => `curl -sS http://${location.host}/api/chat/conversations/${encodeURIComponent(room)}/messages \\
  -H 'Authorization: Bearer ${token}' -H 'Content-Type: application/json' \\
  -d ${quoted(JSON.stringify({ content }))}
`,
  },
};

/** The panel below the panes. `who` and `room` are what the commands are for. */
export function showWire(room: string, who: () => string): void {
  let chosen = "JS";
  const shown = el("pre", { tabIndex: 0, aria: { label: "The command, without its token" } });
  const said = el("span", { className: "said", role: "status" });
  const content = (name: string) => `hello from ${name}`;
  const draw = () => {
    shown.textContent = SNIPPETS[chosen]!.text("…", room, content(chosen));
    for (const tab of tabs) tab.setAttribute("aria-pressed", String(tab.dataset["name"] === chosen));
  };
  const copy = async (name: string) => {
    chosen = name;
    draw();
    said.textContent = "Copying…";
    try {
      // The clipboard may be written only soon after the click, so the token is awaited inside.
      const text = mint(who(), DAY_S).then((token) => SNIPPETS[name]!.text(token, room, content(name)));
      if (typeof ClipboardItem === "function" && navigator.clipboard?.write) {
        await navigator.clipboard.write([new ClipboardItem({ "text/plain": text.then((one) => new Blob([one], { type: "text/plain" })) })]);
      } else {
        await navigator.clipboard.writeText(await text);
      }
      said.textContent = `Copied as ${name}, with a token of ${who()} for a day: paste it ${SNIPPETS[name]!.where}.`;
    } catch (error) {
      said.textContent = `Not copied: ${error instanceof Error ? error.message : error}`;
    }
  };
  const tabs = Object.keys(SNIPPETS).map((name) => {
    const tab = button(name, `Copy a program that joins ${room} and says hello, ${SNIPPETS[name]!.where}`, () => void copy(name));
    tab.dataset["name"] = name;
    tab.setAttribute("aria-label", `Copy as ${name}`);
    return tab;
  });
  byId("wire").append(
    el("div", { className: "log" },
      el("div", { className: "bar" }, el("h2", {}, "Frames"),
        el("label", {}, pings, " pings"), el("label", {}, paused, " pause"),
        button("Clear", "Empty the list of frames", () => list.replaceChildren())),
      list),
    el("div", { className: "code" }, el("div", { className: "bar" }, el("h2", {}, "Your own client"), el("span", { className: "hint" }, "Copy as"), ...tabs), shown, said));
  draw();
}
