// The admin console. It builds every element by itself and never parses HTML, so nothing that a client chose can become
// part of the page. The token stays in this tab: it goes with each request in a header, never in a URL or a cookie.
"use strict";

const TOKEN = "switchboard-admin-token";
const NAME = "switchboard-admin-name";
const TIMEOUT_MS = 30_000;
const POLL_MS = 5_000;
const PAGE = 50;
const TAIL_ROWS = 200;

const main = document.getElementById("main");
const state = { view: null, stop: null };

/** Builds an element. Texts become text nodes; functions under on… become listeners. */
function el(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes ?? {})) {
    if (typeof value === "function") made.addEventListener(key.slice(2), value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value != null) made.setAttribute(key, value);
  }
  made.append(...children.flat().filter((child) => child != null && child !== false).map((child) =>
    child instanceof Node ? child : document.createTextNode(String(child))));
  return made;
}

/** What a client chose: isolated, so that its direction of writing moves nothing else. */
const said = (text) => (text == null ? el("span", { class: "faint" }, "–") : el("bdi", {}, text));
const when = (text) => (text ? el("time", { datetime: text, title: text }, text.replace("T", " ").slice(0, 19)) : said(null));
const link = (view, id, text) => el("a", { href: `#/${view}/${encodeURIComponent(id)}` }, said(text ?? id));
const userLink = (id) => (id ? link("users", id) : said(null));

function say(text, kind) {
  const status = document.getElementById("status");
  status.textContent = text;
  status.className = kind ?? "";
}

/** An answer that is no success. */
class Refused extends Error {
  constructor(status, problem) {
    super(problem?.detail ?? `The console answered ${status}`);
    this.status = status;
    this.code = problem?.code;
  }
}

async function api(path, { method = "GET", body, signal } = {}) {
  const headers = { authorization: `Bearer ${sessionStorage.getItem(TOKEN) ?? ""}` };
  const name = localStorage.getItem(NAME);
  if (name) headers["x-admin-name"] = name;
  if (body !== undefined) headers["content-type"] = "application/json";
  const signals = [AbortSignal.timeout(TIMEOUT_MS), ...(signal ? [signal] : [])];
  let response;
  try {
    response = await fetch(`api/${path}`, {
      method, headers, body: body === undefined ? undefined : JSON.stringify(body),
      signal: AbortSignal.any(signals), credentials: "omit", redirect: "error", cache: "no-store",
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Error(`No answer from the node: ${error.message}`);
  }
  const text = await response.text();
  // A cursor of Redis may have more digits than a number here.
  const parse = () => JSON.parse(text.replace(/"next":(\d{16,})/, '"next":"$1"'));
  let answer = null;
  try { answer = text ? parse() : null; } catch { /* not the console's answer */ }
  if (!response.ok) throw new Refused(response.status, answer);
  return answer;
}

const path = (...parts) => parts.map(encodeURIComponent).join("/");
const query = (values) => new URLSearchParams(Object.entries(values).filter(([, value]) => value != null && value !== "")).toString();

/** Shows the reason of a failure; asks for the token again if that is why. */
function failed(error) {
  if (error.name === "AbortError") return;
  say(error.message, "bad");
  if (error.status === 401) login();
}

function table(caption, headings, rows, empty = "There is nothing.") {
  if (rows.length === 0) return el("p", { class: "faint" }, empty);
  return el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": caption },
    el("table", {}, el("caption", {}, caption),
      el("thead", {}, el("tr", {}, headings.map((heading) => el("th", { scope: "col" }, heading)))),
      el("tbody", {}, rows.map((cells) => el("tr", {}, cells.map((cell) => el("td", {}, cell)))))));
}

const card = (name, value, kind) => el("div", { class: "card" }, el("b", { class: kind }, value ?? "–"), el("span", {}, name));
const button = (text, act, kind) => el("button", { type: "button", class: kind, onclick: guard(act) }, text);

/** Runs an action with its button locked, and shows why it failed. */
function guard(act) {
  return async (event) => {
    const pressed = event?.currentTarget instanceof HTMLButtonElement ? event.currentTarget : null;
    if (pressed) pressed.disabled = true;
    try { await act(event); } catch (error) { failed(error); } finally { if (pressed) pressed.disabled = false; }
  };
}

function form(fields, submit, act) {
  const made = el("form", { class: "row" }, fields, el("button", {}, submit));
  made.addEventListener("submit", (event) => {
    event.preventDefault();
    guard(() => act(Object.fromEntries(new FormData(made))))({ currentTarget: made.querySelector("button:last-of-type") });
  });
  return made;
}
const field = (name, label, more) => el("label", {}, label, el("input", { type: "text", name, autocomplete: "off", spellcheck: "false", ...more }));

/** Asks whether to do what can't be undone. */
function sure(question) {
  const dialog = document.getElementById("confirm");
  document.getElementById("question").textContent = question;
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true }));
}

/** A list that grows page by page: `read` gets a position and gives {rows, next}. */
function pages(caption, headings, read, empty) {
  const place = el("div", {}), all = [];
  const show = async (position) => {
    const { rows, next } = await read(position);
    all.push(...rows);
    const more = next != null && all.length < 1_000 ? button("More", () => show(next)) : null;
    place.replaceChildren(table(caption, headings, all, empty), ...(more ? [more] : []));
  };
  // What can't be read now keeps nothing else from the page.
  const load = () => show(null).catch((error) => {
    if (error.name === "AbortError") throw error;
    place.replaceChildren(...unknown([{ what: caption, why: error.message.replace(/\.$/, "") }]));
  });
  return { place, load };
}

const unknown = (list) => list.map(({ what, why }) => el("p", { class: "warn" }, `Unknown: ${what}. ${why}.`));

// The views. Each gets what follows its name in the address and a signal that ends with it.

async function overview(_id, signal) {
  const place = el("div", {});
  main.replaceChildren(el("h1", {}, "Overview"), place);
  const show = async () => {
    const seen = await api("overview", { signal });
    const short = (ms) => (ms < 10 ? ms.toFixed(1) : Math.round(ms));
    const ms = (latency) => (latency ? `${short(latency.p50)} / ${short(latency.p99)} ms` : "none");
    document.getElementById("node").textContent = `${seen.node} ${seen.version}`;
    const part = (name, of) => card(`${name}, since ${of.since.replace("T", " ").slice(0, 19)}`, of.status, { down: "bad", up: "good" }[of.status]);
    place.replaceChildren(
      el("div", { class: "cards" },
        card("this node", seen.status, seen.status === "healthy" ? "good" : "bad"),
        card("sockets, all nodes", seen.connections_total), card("sockets here", seen.connections),
        card("users online", seen.users_online),
        card("deliveries/s here", seen.per_second.deliveries), card("messages/s here", seen.per_second.messages),
        card("send to ack, p50 / p99", ms(seen.latency.send_ack_ms)), card("commit to socket, p50 / p99", ms(seen.latency.delivery_ms)),
        part("Redis", seen.components.redis), part("store", seen.components.store),
        card("conversations followed", seen.followed), card("KiB wait for slow clients", Math.round(seen.outbox_bytes / 1024))),
      el("h2", {}, "Degraded"),
      table("What does not work, and since when", ["what", "since", "detail", "what to do"], seen.degraded.map((one) => [
        el("span", { class: "bad" }, one.name), when(one.since), said(one.detail),
        one.kind === "fault" ? link("fault", one.name, "failure-modes.md") : said(null)]), "Nothing."),
      ...(seen.failing_tasks.length ? [el("p", { class: "bad" }, `Tasks that fail again and again: ${seen.failing_tasks.join(", ")}`)] : []),
      ...unknown(seen.unknown),
      el("h2", {}, "Nodes"),
      table("Nodes with a lease", ["node", "alive", "sockets", "users"], seen.nodes.map((one) => [one.node, one.alive ? "yes" : "no", one.connections, one.users])),
      el("h2", {}, "Features"),
      table("How they work now", ["feature", "mode"], Object.entries(seen.works).map(([name, mode]) => [name, el("span", { class: mode === "refused" ? "bad" : "" }, mode)])),
      el("p", { class: "faint" }, "As of ", when(seen.at), "; up ", Math.floor(seen.uptime_seconds / 60), " min. Rates, latencies and features are those of this node."));
  };
  await show();
  const again = async () => {
    if (signal.aborted) return;
    if (document.visibilityState === "visible") await show().then(() => say("")).catch(failed);
    if (!signal.aborted) timer = setTimeout(again, POLL_MS);
  };
  let timer = setTimeout(again, POLL_MS);
  signal.addEventListener("abort", () => clearTimeout(timer));
}

async function fault(name, signal) {
  const section = await api(path("faults", name), { signal });
  main.replaceChildren(el("h1", {}, section.name), el("p", {}, el("a", { href: "#/overview" }, "Overview"), " · docs/operations/failure-modes.md"), el("pre", {}, section.text));
}

const finder = (view, label) => form([field("id", label, { type: "search", required: true, maxlength: 128 })], "Show", ({ id }) => { location.hash = `#/${view}/${encodeURIComponent(id.trim())}`; });

async function users(id, signal) {
  if (id) return user(id, signal);
  const note = el("div", {});
  const online = pages("Users who are online and visible", ["user"], async (cursor) => {
    const { users, next, count, unknown: lacks } = await api(`users?${query({ limit: PAGE, cursor })}`, { signal });
    say(`${count} online`);
    note.replaceChildren(...unknown(lacks));
    return { rows: users.map((one) => [userLink(one)]), next };
  }, "Nobody is online.");
  const blocked = pages("Blocked users", ["user", "since", "by"], async (offset) => {
    const { blocks, total } = await api(`blocks?${query({ limit: PAGE, offset })}`, { signal });
    const end = (offset ?? 0) + blocks.length;
    return { rows: blocks.map((one) => [userLink(one.user_id), when(one.at), said(one.by)]), next: end < total ? end : null };
  }, "Nobody is blocked.");
  main.replaceChildren(el("h1", {}, "Users"), finder("users", "User id"), el("h2", {}, "Online"), note, online.place, el("h2", {}, "Blocked"), blocked.place);
  await online.load();
  await blocked.load();
}

async function user(id, signal) {
  const seen = await api(path("users", id), { signal });
  const act = (what, question, method, rest, body) => async () => {
    if (!(await sure(question))) return;
    await api(`${path("users", id)}/${rest}`, { method, body });
    say(`${what}. Other nodes apply it within about a second.`, "good");
    await user(id, signal);
  };
  const conversations = pages("Conversations with this user's marks", ["conversation", "name", "newest seq", "read", "delivered", "unread"], async (offset) => {
    const page = await api(`${path("users", id)}/conversations?${query({ limit: PAGE, offset })}`, { signal });
    return { rows: page.conversations.map((one) => [link("conversations", one.conversation_id), said(one.name), one.seq, one.read_seq ?? "–", one.delivered_seq ?? "–", one.unread_count]), next: page.next_offset };
  }, "This user is in no conversation.");
  const age = (seconds) => (seconds < 120 ? `${seconds} s` : seconds < 7_200 ? `${Math.floor(seconds / 60)} min` : `${Math.floor(seconds / 3_600)} h`);
  const presence = seen.presence ? `${seen.presence.online ? "online" : "offline"}, status ${seen.presence.status}` : "unknown";
  main.replaceChildren(
    el("h1", {}, "User ", said(seen.user_id)),
    el("p", {}, `As others see the user: ${presence}; last seen `, when(seen.presence?.last_seen), ". ",
      seen.blocked ? el("strong", { class: "bad" }, `Blocked since ${seen.block.at} by ${seen.block.by}`) : seen.blocked === false ? "Not blocked." : ""),
    ...unknown(seen.unknown),
    el("div", { class: "row" },
      button("Disconnect", act("The sockets end", `End all sockets of ${id}? The user may come back.`, "POST", "disconnect"), "danger"),
      button("Revoke tokens", act("The tokens issued until now are revoked", `Revoke all tokens of ${id} that were issued until now?`, "POST", "revoke"), "danger"),
      seen.blocked
        ? button("Unblock", act("The block has ended", `End the block of ${id}?`, "DELETE", "block"))
        : button("Block", act("The user is blocked", `Block ${id}? No token of theirs is accepted until you end it.`, "PUT", "block"), "danger")),
    form([field("jti", "One token by its jti", { required: true, maxlength: 256 })], "Revoke it", ({ jti }) => act("The token is revoked", `Revoke the token ${jti} of ${id}?`, "POST", "revoke", { jti })()),
    el("h2", {}, "Sockets"),
    table(seen.connections_complete ? "On all nodes" : "On this node only", ["connection", "node", "dialect", "opened", "age"],
      seen.connections.map((one) => [el("span", { class: "code" }, one.connection_id), said(one.node), said(one.dialect), when(one.connected_at), age(one.age_seconds)]), "No socket is open."),
    el("h2", {}, "Conversations"), conversations.place);
  await conversations.load();
}

async function conversations(id, signal) {
  if (id) return conversation(id, signal);
  main.replaceChildren(el("h1", {}, "Conversations"), finder("conversations", "Conversation id"), el("p", { class: "faint" }, "A user's page lists the conversations of the user."));
}

function entryText(one) {
  switch (one.kind) {
    case "message": return one.is_deleted ? el("em", { class: "faint" }, "deleted") : [said(one.content), one.data === undefined ? null : el("div", { class: "code faint" }, JSON.stringify(one.data))];
    case "edited": return [`edits ${one.target_seq}: `, said(one.content)];
    case "deleted": return `deletes ${one.target_seq}`;
    case "reacted": return [`${one.active ? "adds" : "removes"} `, said(one.emoji), ` on ${one.target_seq}`];
    default: return [`${one.kind} `, userLink(one.user_id)];
  }
}

async function conversation(id, signal) {
  const base = path("conversations", id);
  const about = await api(base, { signal });
  const members = pages("Members and their marks", ["user", "name", "read", "delivered"], async (offset) => {
    const page = await api(`${base}/members?${query({ limit: PAGE, offset })}`, { signal });
    return { rows: page.members.map((one) => [userLink(one.user_id), said(one.username), one.read_seq, one.delivered_seq]), next: page.next_offset };
  });
  const found = el("div", {}), list = el("div", {});
  const remove = (seq) => async () => {
    if (!(await sure(`Delete message ${seq}? Nobody can restore it.`))) return;
    await api(`${base}/messages/${seq}`, { method: "DELETE" });
    say(`Message ${seq} is deleted.`, "good");
    await show({});
  };
  const show = async (position) => {
    const page = await api(`${base}/entries?${query({ limit: PAGE, ...position })}`, { signal });
    const rows = page.entries.map((one) => [one.seq, when(one.created_at), userLink(one.sender_id), el("div", {}, entryText(one)),
      one.kind === "message" && !one.is_deleted ? el("button", { type: "button", class: "danger", "aria-label": `Delete message ${one.seq}`, onclick: guard(remove(one.seq)) }, "Delete") : ""]);
    list.replaceChildren(table(`Entries, of ${page.first_seq} to ${page.head_seq}`, ["seq", "at", "sender", "entry", ""], rows, "There are no entries."),
      el("div", { class: "row" },
        page.next_before_seq ? button("Older", () => show({ before_seq: page.next_before_seq })) : null,
        page.next_after_seq ? button("Newer", () => show({ after_seq: page.next_after_seq })) : null,
        button("Newest", () => show({}))));
  };
  const search = async ({ q }) => {
    const hits = await api(`${base}/search?${query({ q, limit: PAGE })}`, { signal });
    found.replaceChildren(table("Found, the newest first", ["seq", "at", "sender", "text", ""], hits.messages.map((one) => [one.seq, when(one.created_at), userLink(one.sender_id), said(one.content),
      button("Go there", () => show({ after_seq: Math.max(0, one.seq - PAGE / 2) }))]), "Nothing was found."));
  };
  main.replaceChildren(
    el("h1", {}, "Conversation ", said(about.name ?? about.id)),
    el("p", {}, el("span", { class: "code" }, about.id), ` · ${about.is_group ? "group" : "direct"}${about.open ? ", open" : ""} · made by `, userLink(about.created_by), " at ", when(about.created_at)),
    el("h2", {}, "Entries"), list,
    form([field("seq", "From seq", { inputmode: "numeric", pattern: "[0-9]+", required: true })], "Go", ({ seq }) => show({ after_seq: Math.max(0, Number(seq) - 1) })),
    el("h2", {}, "Search"), form([field("q", "Words", { type: "search", required: true })], "Search", search), found,
    el("h2", {}, "Members"), members.place);
  await show({});
  await members.load();
}

async function tail(_id, signal) {
  const groups = el("div", {}), list = el("div", {});
  let rows = [], paused = false;
  const pause = button("Pause", () => { paused = !paused; pause.textContent = paused ? "Go on" : "Pause"; if (!paused) draw(); });
  main.replaceChildren(el("h1", {}, "Live tail"),
    el("p", { class: "faint" }, "Connects, refusals and closes of this node; ", el("a", { href: "#/overview" }, "other nodes"), " have consoles of their own."),
    el("div", { class: "row" }, pause), el("h2", {}, "By reason and origin"), groups, el("h2", {}, "Events"), list);
  const kind = (one) => el("span", { class: one.kind === "refusal" ? "bad" : "" }, one.kind);
  const draw = () => list.replaceChildren(table(`The newest ${rows.length}`, ["at", "what", "reason", "user", "dialect", "address", "origin", "client"],
    rows.map((one) => [when(one.at), kind(one), [one.reason, one.detail ? el("div", { class: "faint" }, said(one.detail)) : null], userLink(one.user_id), said(one.dialect), said(one.address), said(one.origin), said(one.agent)]), "Nothing happened yet."));
  const take = (page) => {
    if (page.lost) say(`${page.lost} events came too fast to be shown.`, "warn");
    rows = [...page.events.reverse(), ...rows].slice(0, TAIL_ROWS);
    groups.replaceChildren(table("Of the events that the node keeps", ["count", "what", "reason", "origin", "last"], page.groups.map((one) => [one.count, kind(one), one.reason, said(one.origin), when(one.last)]), "Nothing happened yet."));
    if (!paused) draw();
  };
  let page = await api(`tail?${query({ limit: 100 })}`, { signal });
  take(page);
  const follow = async () => {
    while (!signal.aborted) {
      try {
        const next = await api(`tail?${query({ after: page.next, wait: 20, limit: 100 })}`, { signal });
        // The numbers of a node that started again begin anew.
        const same = next.started_at === page.started_at;
        page = next;
        if (!same) rows = [];
        if (page.events.length) take(page);
      } catch (error) {
        if (signal.aborted) return;
        failed(error);
        if (error.status === 401) return;
        await new Promise((resolve) => setTimeout(resolve, POLL_MS));
      }
    }
  };
  follow();
}

async function token() {
  const result = el("div", {});
  const explain = async (values) => {
    const seen = await api("token", { method: "POST", body: { token: values.token } });
    const verdict = seen.accepted ? el("strong", { class: "good" }, "This node accepts the token.") : el("strong", { class: "bad" }, "This node refuses the token.");
    const kept = seen.kept_out ? el("p", { class: "bad" }, seen.kept_out === "blocked" ? "An admin blocked the user." : "An admin revoked the token: the user needs a new one.") : null;
    const fields = [...seen.header.map((one) => ["header", one]), ...seen.claims.map((one) => ["claim", one])];
    result.replaceChildren(el("p", {}, verdict, ` Signature: ${seen.signature.replace("_", " ")}${seen.signature_detail ? ` (${seen.signature_detail})` : ""}.`), ...(kept ? [kept] : []),
      table("Flaws", ["where", "what", "remedy"], seen.flaws.map((one) => [one.place, one.flaw, one.remedy]), "It has no flaw."),
      table("Content", ["part", "name", "value"], fields.map(([part, one]) => [part, one.name, said(one.value)]), "Nothing can be read."),
      ...(seen.other_claims.length ? [el("p", { class: "faint" }, "Other claims, not shown: ", said(seen.other_claims.join(", ")))] : []));
  };
  const text = el("label", {}, "The token", el("textarea", { name: "token", required: true, spellcheck: "false", autocomplete: "off", maxlength: 65536 }));
  main.replaceChildren(el("h1", {}, "Why is this token invalid?"), form([text], "Explain", explain), result);
}

async function webhooks(_id, signal) {
  let failedOnly = false;
  const body = el("div", {}), place = el("div", {});
  const show = (number) => async () => {
    const one = await api(path("deliveries", number), { signal });
    let text = one.body ?? "The body was too long to keep.";
    try { text = JSON.stringify(JSON.parse(text), null, 2); } catch { /* as it is */ }
    body.replaceChildren(el("h2", {}, `Body of request ${number}`), el("pre", { tabindex: 0 }, text));
    body.scrollIntoView();
  };
  const replay = (number) => async () => {
    if (!(await sure(`Post request ${number} to the webhook again? Its receiver may act on it again.`))) return;
    const again = await api(`${path("deliveries", number)}/replay`, { method: "POST" });
    say(again.error ? `Request ${number} failed again: ${again.error}` : `Request ${number} was repeated as ${again.delivery}: ${again.result}.`, again.error ? "bad" : "good");
    await load();
  };
  const load = async () => {
    const list = pages("Finished requests of this node, the newest first", ["number", "at", "hook", "result", "tries", "took", "bytes", "repeats", ""], async (before) => {
      const page = await api(`deliveries?${query({ limit: PAGE, before, failed: failedOnly })}`, { signal });
      return { rows: page.deliveries.map((one) => [one.delivery, when(one.at), one.hook,
        [el("span", { class: one.error ? "bad" : "good" }, one.result), one.error ? el("div", { class: "faint" }, said(one.error)) : null], one.tries, `${one.took_ms} ms`, one.bytes, one.repeats ?? "–",
        el("span", { class: "row" }, button("Body", show(one.delivery)), one.replayable ? button("Replay", replay(one.delivery), "danger") : null)]), next: page.next_before };
    }, "No request has finished yet, or no webhook is configured.");
    place.replaceChildren(list.place);
    await list.load();
  };
  const only = el("input", { type: "checkbox", onchange: guard(async () => { failedOnly = only.checked; await load(); }) });
  main.replaceChildren(el("h1", {}, "Webhooks"), el("label", { class: "check" }, only, "Failed only"), place, body);
  await load();
}

async function settings(_id, signal) {
  const { settings: all, notes } = await api("settings", { signal });
  const place = el("div", {});
  const draw = (words) => {
    const fits = all.filter((one) => `${one.name} ${one.value ?? ""} ${one.source}`.toLowerCase().includes(words.toLowerCase()));
    place.replaceChildren(table("Settings in force", ["setting", "value", "source"], fits.map((one) => [el("span", { class: "code" }, one.name),
      one.secret ? el("span", { class: "faint" }, one.source === "unset" ? "–" : "secret") : said(one.value), one.variable ? `${one.source}, as ${one.variable}` : one.source])));
  };
  main.replaceChildren(el("h1", {}, "Settings"), ...notes.map((note) => el("p", { class: "warn" }, note)),
    el("label", {}, "Filter", el("input", { type: "search", oninput: (event) => draw(event.target.value) })), place);
  draw("");
}

function login() {
  leaveView();
  document.querySelector("nav").hidden = true;
  document.getElementById("leave").hidden = true;
  main.replaceChildren(el("h1", {}, "Admin token"),
    el("p", {}, "The value of ADMIN_TOKEN. It stays in this tab, until you close it or forget the token."),
    form([field("token", "Token", { type: "password", required: true, autocomplete: "current-password" }),
      field("name", "Your name, for the audit log", { value: localStorage.getItem(NAME) ?? "", pattern: "[A-Za-z0-9._:@+=\\|\\-]{1,64}", title: "1 to 64 characters of A–Z a–z 0–9 . _ : @ + = | -" })],
    "Open", async ({ token, name }) => {
      if (name) localStorage.setItem(NAME, name); else localStorage.removeItem(NAME);
      sessionStorage.setItem(TOKEN, token.trim());
      try { await api("tail?limit=1"); } catch (error) { sessionStorage.removeItem(TOKEN); throw error; }
      say("");
      route();
    }));
  main.querySelector("input").focus();
}

const VIEWS = { overview, users, conversations, tail, token, webhooks, settings, fault };

function leaveView() {
  state.stop?.abort();
  state.stop = null;
}

async function route() {
  if (!sessionStorage.getItem(TOKEN)) return login();
  leaveView();
  const [name, id] = location.hash.replace(/^#\/?/, "").split("/");
  const view = Object.hasOwn(VIEWS, name) ? name : "overview";
  for (const one of document.querySelectorAll("nav a")) {
    if (one.getAttribute("href") === `#/${view}`) one.setAttribute("aria-current", "page"); else one.removeAttribute("aria-current");
  }
  document.querySelector("nav").hidden = false;
  document.getElementById("leave").hidden = false;
  say("");
  const stop = (state.stop = new AbortController());
  main.replaceChildren(el("p", { class: "faint" }, "…"));
  try {
    let decoded = id ?? "";
    try { decoded = decodeURIComponent(decoded); } catch { /* as it is */ }
    await VIEWS[view](decoded, stop.signal);
    document.title = `${main.querySelector("h1")?.textContent ?? "Console"} · Switchboard console`;
    if (!stop.signal.aborted) {
      main.focus({ preventScroll: true });
      scrollTo(0, 0);
    }
  } catch (error) {
    if (stop.signal.aborted) return;
    if (error.status !== 401) main.replaceChildren(el("h1", {}, "This can't be shown"), el("p", { class: "bad" }, error.message), button("Try again", route));
    failed(error);
  }
}

document.getElementById("leave").addEventListener("click", () => {
  sessionStorage.removeItem(TOKEN);
  document.getElementById("node").textContent = "";
  say("The token is forgotten.");
  login();
});
document.querySelector(".skip").addEventListener("click", (event) => { event.preventDefault(); main.focus(); });
addEventListener("hashchange", route);
route();
