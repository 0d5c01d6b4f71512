// A receiver of webhooks: checks the signature of each request, answers as the persona "helper", and prints the notifications of
// users who are away. Node.js alone, without packages.
//
//   export WEBHOOK_SECRET=$(openssl rand -hex 32)
//   node examples/webhooks/receiver.js &
//   PERSONA_WEBHOOK_URL=http://127.0.0.1:9000/persona PERSONA_WEBHOOK_SECRET=$WEBHOOK_SECRET PERSONA_IDS=helper \
//   NOTIFICATION_WEBHOOK_URL=http://127.0.0.1:9000/notification NOTIFICATION_WEBHOOK_SECRET=$WEBHOOK_SECRET switchboard dev
//
// PORT names another port. What is posted and what may be answered: docs/protocol/webhooks.md.

const { createHmac, timingSafeEqual } = require("node:crypto");
const { createServer } = require("node:http");

const SECRET = process.env.WEBHOOK_SECRET;
if (!SECRET) throw new Error("WEBHOOK_SECRET is missing: the secret that the server has as PERSONA_WEBHOOK_SECRET and NOTIFICATION_WEBHOOK_SECRET");
const MAX_BODY_BYTES = 1 << 20;
const MAX_AGE_S = 300;
/** A request may arrive twice, when its answer was lost. A service keeps the ids where they outlive it, such as its database. */
const MAX_REMEMBERED = 10_000;
const handled = new Set();

/** True if our node signed this body within the last five minutes. Compared before the body is parsed. */
function isGenuine(signature, body) {
  const [, sent, given] = /^t=(\d+),v1=([0-9a-f]{64})$/.exec(signature ?? "") ?? [];
  if (!given || Math.abs(Date.now() / 1000 - Number(sent)) > MAX_AGE_S) return false;
  const expected = createHmac("sha256", SECRET).update(`${sent}.`).update(body).digest();
  return timingSafeEqual(expected, Buffer.from(given, "hex"));
}

/** True the first time that an id comes. */
function isNew(id) {
  if (handled.has(id)) return false;
  if (handled.size >= MAX_REMEMBERED) handled.delete(handled.values().next().value);
  handled.add(id);
  return true;
}

/** What each path answers to the JSON that was posted. */
const routes = {
  /** The persona's answer. The server stores one answer for each message, however often it asks. */
  "/persona": ({ persona_id, sender_name, message }) =>
    // Clients choose the persona_id: a name that is not ours stays silent.
    persona_id === "helper" ? [200, { content: `${sender_name}, you asked: ${message}`.slice(0, 5000) }] : [404, {}],
  /** A push service would be called here. */
  "/notification": ({ notification_id, user_id, message }) => {
    if (isNew(notification_id)) console.log(`notify ${user_id}: ${message.sender_name}: ${message.content}`);
    return [200, {}];
  },
};

/** The body, or undefined if it is too long. */
async function read(request) {
  const chunks = [];
  let bytes = 0;
  for await (const chunk of request) {
    bytes += chunk.length;
    if (bytes > MAX_BODY_BYTES) return undefined;
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

async function handle(request) {
  const route = routes[request.url];
  if (request.method !== "POST" || !route) return [404, {}];
  const body = await read(request);
  if (!body) return [413, {}];
  if (!isGenuine(request.headers["x-switchboard-signature"], body)) return [401, {}];
  return route(JSON.parse(body));
}

const server = createServer(async (request, response) => {
  // A fault here is temporary to the server, which posts the request again.
  const [status, answer] = await handle(request).catch((error) => (console.error(error), [500, {}]));
  response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(answer));
});
server.listen(Number(process.env.PORT ?? 9000), "127.0.0.1", () => console.log(`listening on http://127.0.0.1:${server.address().port}`));
