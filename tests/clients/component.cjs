// Renders a React component without a browser, and prints what it shows whenever that changes:
//   NODE_PATH=… node --require browser.cjs component.cjs COMPONENT.jsx '{"its": "props"}'
// A line on standard input is typed into its field and sent with its button, or with its form.

const fs = require("fs");
const readline = require("readline");
const React = require("react");
const renderer = require("react-test-renderer");
const { transform } = require("sucrase");

const [file, props] = process.argv.slice(2);

const { code } = transform(fs.readFileSync(file, "utf8"), { transforms: ["jsx", "imports"], production: true });
const module_ = { exports: {} };
new Function("require", "module", "exports", code)(require, module_, module_.exports);

let tree;
renderer.act(() => {
  tree = renderer.create(React.createElement(module_.exports.default, JSON.parse(props)));
});

const textOf = (node) => {
  if (node === null) return "";
  if (typeof node === "string") return node;
  if (Array.isArray(node)) return node.map(textOf).join(" ");
  return textOf(node.children ?? []);
};
let shown = "";
setInterval(() => {
  const text = textOf(tree.toJSON()).replace(/\s+/g, " ");
  if (text !== shown) console.log("shows:", (shown = text));
}, 20);

readline.createInterface({ input: process.stdin }).on("line", (words) => {
  const find = (type) => tree.root.findByType(type).props;
  renderer.act(() => find("input").onChange({ target: { value: words } }));
  renderer.act(() => find("input").onKeyUp?.({}));
  const press = find("button").onClick ?? find("form").onSubmit;
  renderer.act(() => press({ preventDefault() {} }));
}).on("close", () => {
  renderer.act(() => tree.unmount());
  setTimeout(() => process.exit(0), 500);
});
