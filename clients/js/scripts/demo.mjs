// Builds the demo page of `switchboard dev` from clients/js/demo into src/http/demo, where the program takes it from. With
// --check it writes nothing, and fails if a file there differs. Needs the packages' dist folders.
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";

const root = new URL("../", import.meta.url).pathname;
const target = new URL("../../../src/http/demo/", import.meta.url).pathname;
/** Of all files, compressed. */
const LIMIT = 60 * 1024;

const bundle = async (entry, format = "iife") => {
  const options = { bundle: true, minify: true, write: false, target: "es2022", charset: "utf8", legalComments: "none", nodePaths: [`${root}node_modules`] };
  const { outputFiles } = await build({ ...options, entryPoints: [`${root}demo/${entry}`], format });
  return outputFiles[0].text;
};
const files = { "index.html": readFileSync(`${root}demo/index.html`, "utf8"), "demo.css": await bundle("demo.css"), "demo.js": await bundle("main.ts"), "client.js": await bundle("client.ts", "esm") };

const stale = Object.entries(files).filter(([name, text]) => !existsSync(target + name) || readFileSync(target + name, "utf8") !== text);
const bytes = Object.values(files).reduce((sum, text) => sum + gzipSync(text, { level: 9 }).length, 0);
console.log(`demo page: ${bytes} bytes of ${LIMIT}`);
if (bytes > LIMIT) process.exit(1);
if (!process.argv.includes("--check")) stale.forEach(([name, text]) => writeFileSync(target + name, text));
else if (stale.length) {
  console.error(`src/http/demo: ${stale.map(([name]) => name).join(", ")} differ from clients/js/demo: run npm run build`);
  process.exit(1);
}
