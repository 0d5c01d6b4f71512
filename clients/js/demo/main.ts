// The page of `switchboard dev`: two users side by side, what goes over the wire, and buttons that break it.
import { poll } from "./alerts.js";
import { byId } from "./dom.js";
import { Pane } from "./pane.js";
import { showWire } from "./wire.js";

const ROOM = "lobby";

const [left, right] = [new Pane("alice", ROOM), new Pane("bob", ROOM)];
byId("panes").append(left.element, right.element);
byId("where").textContent = `${location.host}, room ${ROOM}: what you see is two clients of this server, in one page.`;
showWire(ROOM, () => left.user);

void poll(({ persona }) => (left.persona = right.persona = persona));

/** In an empty room, the two say a first word, so that there is something to see. */
const greet = left.conversation.subscribe(() => {
  const { loaded, messages, typing } = left.conversation.getSnapshot();
  if (!loaded || typing.length > 0) return;
  setTimeout(greet);
  if (messages.length > 0) return;
  left.say("Hi Bob! This message is stored, numbered and acked by your server.");
  const answer = right.conversation.subscribe(() => {
    const said = right.conversation.getSnapshot().messages;
    if (!said.some((one) => !one.own)) return;
    setTimeout(answer);
    if (!said.some((one) => one.own)) right.say("Hi Alice! Try the buttons: nothing gets lost, doubled or out of order.");
  });
});
