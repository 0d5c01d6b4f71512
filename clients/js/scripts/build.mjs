// Compiles the packages into their dist folders.
import { spawnSync } from "node:child_process";
import { rmSync } from "node:fs";

const root = new URL("../", import.meta.url).pathname;
for (const name of ["client", "react"]) {
  rmSync(`${root}packages/${name}/dist`, { recursive: true, force: true });
  const { status } = spawnSync(`${root}node_modules/.bin/tsc`, ["-p", `${root}packages/${name}`], { stdio: "inherit" });
  if (status !== 0) process.exit(status ?? 1);
}
