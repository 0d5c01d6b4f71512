// Prints the name of each type that Modelina makes of an AsyncAPI document, for each language of its arguments.
// usage: names.cjs <document> <generator>...
const modelina = require("@asyncapi/modelina");
const { fromFile, Parser } = require("@asyncapi/parser");

const [file, ...generators] = process.argv.slice(2);
(async () => {
  const { document, diagnostics } = await fromFile(new Parser(), file).parse();
  for (const { severity, message, path } of diagnostics) {
    if (severity === 0) throw new Error(`${path.join("/")}: ${message}`);
  }
  for (const generator of generators) {
    for (const { modelName } of await new modelina[generator]().generate(document)) console.log(generator, modelName);
  }
})();
