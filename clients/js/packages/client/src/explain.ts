// Tells developers why a page can't connect. A browser hides the answer to a refused handshake, so this asks the server for it.
import type { Chat, ChatError } from "./types.js";

/** Why a page may not open a WebSocket at `url`, in the server's words; nothing if it may, or if the server does not answer. */
export async function explain(url: string): Promise<ChatError | undefined> {
  try {
    const answer = await fetch(`${url.replace(/^ws/, "http").replace(/\/+$/, "")}/api/websocket/check`, { cache: "no-store" });
    const { ok, code, message } = await answer.json();
    return ok === false ? { code, message } : undefined;
  } catch {
    return undefined;
  }
}

/** Calls `tell` with each reason for which the chat can't connect, once until it is connected; returns a function that ends that. */
export function onRefusal(chat: Pick<Chat, "connection">, url: string, tell: (message: string) => void = console.error): () => void {
  let told: string | undefined;
  return chat.connection.subscribe(async () => {
    const { state, error } = chat.connection.getSnapshot();
    if (state === "online") told = undefined;
    if (!error || (state !== "waiting" && state !== "closed")) return;
    // 1006: the network ended, or the handshake was refused. Other codes come with their reason.
    const message = error.code === "1006" ? (await explain(url))?.message : /^(1008|44)/.test(error.code) ? error.message : undefined;
    // The client gets a new token by itself.
    if (!message || message === told || message === "Token expired") return;
    told = message;
    tell(message);
  });
}
