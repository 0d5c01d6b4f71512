export { commandsOf, createChat, newId } from "./chat.js";
export { decode } from "./runtime.js";
export type * from "./types.js";
