// What would be published: npm pack of both packages, and the lockfile.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { test } from "node:test";

const root = new URL("../", import.meta.url).pathname;

for (const name of ["client", "react"]) {
  test(`npm pack of @switchboard/${name}`, () => {
    const output = execFileSync("npm", ["pack", "--dry-run", "--json", "--silent"], { cwd: `${root}packages/${name}`, encoding: "utf8" });
    const packed = JSON.parse(output);
    const files = (Array.isArray(packed) ? packed[0] : Object.values(packed)[0]).files.map((one) => one.path);
    for (const file of ["README.md", "CHANGELOG.md", "LICENSE-MIT", "LICENSE-APACHE", "dist/index.js", "dist/index.d.ts", "package.json"]) assert.ok(files.includes(file), file);
    const { exports: entries } = JSON.parse(readFileSync(`${root}packages/${name}/package.json`, "utf8"));
    for (const entry of Object.values(entries).flatMap((one) => (typeof one === "string" ? [one] : Object.values(one)))) {
      assert.ok(files.includes(entry.slice(2)), entry);
    }
    assert.ok(files.every((file) => /^(dist\/.*\.(js|d\.ts)|[A-Z]+(-[A-Z]+)?(\.md)?|package\.json)$/.test(file)), files.join());
  });
}

test("no file of the packages names a machine", () => {
  const lock = readFileSync(`${root}package-lock.json`, "utf8");
  for (const [, address] of lock.matchAll(/"resolved": "([^"]*)"/g)) assert.match(address, /^(packages\/\w+|https:\/\/registry\.npmjs\.org\/.*)$/);
  assert.doesNotMatch(lock, /"(file:|\/)/);
});
