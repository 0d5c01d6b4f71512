// Writes packages/client/src/frames.ts (the types of the native dialect's frames) and tests/examples.ts (its examples, as
// typed constants) from docs/protocol/asyncapi.yaml. With --check it writes nothing and fails if a file differs.
import { readFileSync, writeFileSync } from "node:fs";
import { parse } from "yaml";

const root = new URL("../", import.meta.url);
const document = parse(readFileSync(new URL("../../docs/protocol/asyncapi.yaml", root), "utf8"));
const schemas = document.components.schemas;
const used = new Set();

const nameOf = (ref) => ref.slice(ref.lastIndexOf("/") + 1);
const quoted = (value) => JSON.stringify(value);

function comment(text, indent) {
  return text ? `${indent}/** ${text.trim().replace(/\s+/g, " ")} */\n` : "";
}

function object(schema, indent) {
  const required = new Set(schema.required ?? []);
  const inner = `${indent}  `;
  const fields = Object.entries(schema.properties ?? {}).map(([name, property]) =>
    `${comment(property.description, inner)}${inner}${name}${required.has(name) ? "" : "?"}: ${type(property, inner)};\n`);
  if (fields.length === 0 && schema.additionalProperties) return `Record<string, ${type(schema.additionalProperties, indent)}>`;
  return `{\n${fields.join("")}${indent}}`;
}

function type(schema, indent = "") {
  if (schema.$ref) {
    used.add(nameOf(schema.$ref));
    return nameOf(schema.$ref);
  }
  if ("const" in schema) return quoted(schema.const);
  if (schema.enum) return schema.enum.map(quoted).join(" | ");
  if (schema.anyOf) return schema.anyOf.map((one) => type(one, indent)).join(" | ");
  switch (schema.type) {
    case "object": return object(schema, indent);
    case "array": return `${type(schema.items, indent)}[]`;
    case "integer": return "number";
    case undefined: return "unknown";
    default: return schema.type;
  }
}

const upper = (name) => name[0].toUpperCase() + name.slice(1);
const messages = Object.keys(document.channels.native.messages).map((key) => ({
  ...document.components.messages[key],
  name: upper(key),
  fromClient: key.endsWith("FromClient"),
}));

const interfaces = messages.map(({ name, summary, payload }) => `${comment(summary, "")}export interface ${name} ${object(payload, "")}\n`);
const declared = new Map();
for (let before = -1; before !== declared.size;) {
  before = declared.size;
  for (const name of used) {
    if (!declared.has(name)) declared.set(name, `${comment(schemas[name].description, "")}export type ${name} = ${type(schemas[name])};\n`);
  }
}
const union = (name, fromClient) => `export type ${name} =\n${messages.filter((one) => one.fromClient === fromClient)
  .map((one) => `  | ${one.name}`).join("\n")};\n`;

const header = "// Made from docs/protocol/asyncapi.yaml by scripts/frames.mjs; don't edit.\n\n";
const frames = header + [
  ...[...declared.keys()].sort().map((name) => declared.get(name)),
  ...interfaces,
  "/** A frame that a client sends. */\n" + union("ClientFrame", true),
  "/** A frame that the server sends. */\n" + union("ServerFrame", false),
].join("\n");

const examples = header + `import type * as frames from "../packages/client/src/frames.js";\n\n` + messages.flatMap(({ name, examples }) =>
  examples.map(({ payload }, index) => `export const ${name}${index}: frames.${name} = ${JSON.stringify(payload)};\n`)).join("");

const outputs = { "packages/client/src/frames.ts": frames, "tests/examples.ts": examples };
let drift = false;
for (const [path, text] of Object.entries(outputs)) {
  const file = new URL(path, root);
  if (!process.argv.includes("--check")) writeFileSync(file, text);
  else if (readFileSync(file, "utf8") !== text) {
    console.error(`${path} differs from docs/protocol/asyncapi.yaml: run npm run frames`);
    drift = true;
  }
}
process.exit(drift ? 1 : 0);
