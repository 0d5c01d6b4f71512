// The hooks on a server: they render what an unconnected chat has, and connect nothing. StrictMode is tested in Chromium.
import assert from "node:assert/strict";
import { test } from "node:test";
import { createElement } from "react";
import { renderToString } from "react-dom/server";
import { createChat } from "../packages/client/dist/index.js";
import { createSharedChat } from "../packages/client/dist/worker.js";
import { useConnection, useConversation, useConversations, useDirect, usePresence } from "../packages/react/dist/index.js";

for (const [name, create] of [["createChat", createChat], ["createSharedChat", createSharedChat]]) {
  test(`${name}: rendering on a server connects nothing`, () => {
    const chat = create({ url: "wss://chat.example.com", getToken: () => assert.fail("no token on a server"), WebSocket: class { constructor() { assert.fail("no socket on a server"); } } });
    function Page() {
      const { messages, loaded } = useConversation(chat, "team");
      const { conversations } = useConversations(chat);
      const presence = usePresence(chat, ["bob"]);
      const { send } = useDirect(chat, "bob");
      const { state } = useConnection(chat);
      return createElement("p", null, `${state} ${messages.length} ${loaded} ${conversations.length} ${presence.bob} ${typeof send}`);
    }
    assert.equal(renderToString(createElement(Page)), "<p>idle 0 false 0 undefined function</p>");
    chat.close();
  });
}
