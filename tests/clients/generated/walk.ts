// A TypeScript client of openapi-typescript and openapi-fetch uses a node. Each step is typed by the document, so
// the compiler checks the document, and the run checks the node.
import createClient from "openapi-fetch";
import type { components, paths } from "./switchboard.js";

declare const process: { env: Record<string, string | undefined> };

type Schemas = components["schemas"];

function api(user: string) {
  const [baseUrl, token] = [process.env.SWITCHBOARD_URL, process.env[`TOKEN_${user}`]];
  return createClient<paths>({ baseUrl: baseUrl!, headers: { Authorization: `Bearer ${token}` } });
}

function check(holds: boolean, what: string): asserts holds {
  if (!holds) throw new Error(what);
}

function ok<T>(answer: { data?: T; error?: Schemas["Problem"] }): T {
  check(answer.error === undefined, JSON.stringify(answer.error));
  check(answer.data !== undefined, "an answer without a body");
  return answer.data;
}

const [alice, bob] = [api("ALICE"), api("BOB")];

// Nothing but the members: `open` and the others may be left out.
const made = ok(await alice.POST("/api/chat/conversations", { body: { name: "Typed", participant_ids: ["bob"], is_group: true } }));
check(made.description === null && !made.open, "a null where there is no description");
const conversation = made.id;
const path = { conversation };
const members = ok(await alice.POST("/api/chat/conversations/{conversation}/members", { params: { path }, body: { user_ids: ["carol"] } }));
check(members.users.some(({ id }) => id === "carol"), "carol is a member");

const body: Schemas["SendMessageBody"] = { content: " hello", client_id: "typed-1", reply_to: null };
const sent = ok(await alice.POST("/api/chat/conversations/{conversation}/messages", { params: { path }, body }));
const again = await alice.POST("/api/chat/conversations/{conversation}/messages", { params: { path }, body });
check(again.response.status === 200 && ok(again).seq === sent.seq, "a repeat is stored once");
check(Date.parse(sent.created_at) > 0 && sent.client_id === "typed-1", "a time and the client_id");
const message = { path: { conversation, message: String(sent.seq) } };
const reply = ok(await bob.POST("/api/chat/conversations/{conversation}/messages", { params: { path }, body: { content: "a reply", reply_to: sent.id } }));
ok(await alice.PATCH("/api/chat/conversations/{conversation}/messages/{message}", { params: message, body: { content: "hello all" } }));
const emoji = { path: { ...message.path, emoji: "👍" } };
const reacted = await bob.PUT("/api/chat/conversations/{conversation}/messages/{message}/reactions/{emoji}", { params: emoji });
check(reacted.response.status === 204, "a reaction stands");

const history = ok(await bob.GET("/api/chat/conversations/{conversation}/messages", { params: { path, query: { limit: 10 } } }));
const found = history.messages.find(({ id }) => id === sent.id);
check(found !== undefined && found.is_edited && found.content === "hello all", "the edit shows");
check(found.reactions[0]?.emoji === "👍" && found.reactions[0].own && found.reply_count === 1, "the reaction and the reply show");
check(found.reply_to === null, "a message that replies to nothing");
check(history.messages.some(({ id, reply_to }) => id === reply.id && reply_to === sent.seq), "the reply shows");

const carol = api("CAROL");
const list = ok(await carol.GET("/api/chat/conversations", { params: { query: { archived: false } } }));
const listed = list.conversations.find(({ id }) => id === conversation);
check(listed !== undefined && listed.unread_count === 2, "two unread messages");
const marks = ok(await carol.POST("/api/messages/read", { body: { conversation_id: conversation, up_to_seq: reply.seq } }));
check(marks.read_seq === reply.seq, "read so far");
const online = ok(await carol.GET("/api/websocket/users/online"));
check(online.next === null && Array.isArray(online.users), "the last page");
const seen: Schemas["UserPresence"] = ok(await carol.GET("/api/websocket/users/{user}/online", { params: { path: { user: "nobody" } } }));
check(seen.last_seen === null && seen.status === "online", "never seen");
const health = await carol.GET("/api/health");
check(health.data?.status === "healthy", "the node is well");

const refused = await api("MALLORY").GET("/api/chat/conversations/{conversation}", { params: { path } });
check(refused.data === undefined && refused.response.status === 403, "mallory is refused");
const problem: Schemas["Problem"] = refused.error;
const code: Schemas["ProblemCode"] = problem.code;
check(code === "not_member" && problem.status === 403 && problem.detail.length > 0, "the problem says why");
console.log("the walk holds");
