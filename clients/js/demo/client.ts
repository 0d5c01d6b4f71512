// What `switchboard dev` serves as /client.js, for pages without a build.
export { createChat } from "@switchboard/client";
export { explain, onRefusal } from "@switchboard/client/explain";
