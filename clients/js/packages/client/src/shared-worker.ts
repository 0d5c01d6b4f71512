// A ready-made SharedWorker: new SharedWorker(new URL("@switchboard/client/shared-worker.js", import.meta.url), { type: "module" }).
import { createChat } from "./index.js";
import { indexedDbStorage } from "./storage.js";
import { serveTabs } from "./worker.js";

serveTabs((options) => createChat({ ...options, storage: indexedDbStorage() }));
