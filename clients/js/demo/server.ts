// The demo's own requests: tokens, and what the server tells about refusals.
export const base = `ws://${location.host}`;

/** The users that the page offers. */
export const USERS: readonly string[] = ["alice", "bob", "carol", "dave"];

/** A token of a user, which only this page gets. */
export async function mint(user: string, ttlSeconds?: number, signal?: AbortSignal): Promise<string> {
  const answer = await fetch("/demo/token", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ user, ttl_seconds: ttlSeconds }),
    signal: signal ?? null,
  });
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.detail);
  return body.token;
}

export interface ServerState {
  /** The persona that answers, or null. */
  persona: string | null;
  told: readonly { number: number; sentence: string; seconds_ago: number }[];
}

export async function serverState(after: number): Promise<ServerState> {
  const answer = await fetch(`/demo/state?after=${after}`, { cache: "no-store" });
  if (!answer.ok) throw new Error((await answer.json()).detail);
  return answer.json();
}
