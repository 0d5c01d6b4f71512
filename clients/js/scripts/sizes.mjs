// Prints what each entry adds to a page, bundled by esbuild, minified by terser (as webpack does) and gzipped. Fails if one is
// over its limit.
import { gzipSync } from "node:zlib";
import { build } from "esbuild";
import { minify } from "terser";

const root = new URL("../", import.meta.url).pathname;
const LIMITS = {
  "packages/client/dist/index.js": 8192,
  "packages/client/dist/worker.js": 2048,
  "packages/client/dist/storage.js": 1024,
  "packages/client/dist/explain.js": 512,
  "packages/react/dist/index.js": 2048,
};

export async function sizes() {
  const found = [];
  for (const [entry, limit] of Object.entries(LIMITS)) {
    const external = ["react", "@switchboard/client", ...(entry.endsWith("client/dist/index.js") ? [] : ["./index.js"])];
    const { outputFiles } = await build({ entryPoints: [root + entry], bundle: true, minify: true, format: "esm", target: "es2022", external, write: false });
    const { code } = await minify(outputFiles[0].text, { module: true, ecma: 2020, compress: { passes: 3 } });
    found.push({ entry, bytes: code.length, gzip: gzipSync(code, { level: 9 }).length, limit });
  }
  return found;
}

if (process.argv[1] === new URL(import.meta.url).pathname) {
  let over = false;
  for (const { entry, bytes, gzip, limit } of await sizes()) {
    console.log(`${entry}: ${gzip} bytes of ${limit} (${bytes} before gzip)`);
    over ||= gzip > limit;
  }
  process.exit(over ? 1 : 0);
}
