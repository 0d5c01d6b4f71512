// Opens an HTML page and runs its scripts, without a browser; prints its text whenever that changes:
//   NODE_PATH=… node page.cjs PAGE.html
// A line of JSON on standard input, {"fill": {"id": "value"}, "submit": "form's id"}, does what a person would.

const readline = require("readline");
const { JSDOM } = require("jsdom");

// Under dev a page must come from this machine, as its head says.
const options = { runScripts: "dangerously", url: "http://localhost:5173/" };

JSDOM.fromFile(process.argv[2], options).then(({ window }) => {
  const { document } = window;
  let shown = "";
  setInterval(() => {
    const visible = [...document.querySelectorAll("[role=status], li")].map((element) => element.textContent).join(" | ");
    if (visible !== shown) console.log("shows:", (shown = visible));
  }, 20);

  readline.createInterface({ input: process.stdin }).on("line", (line) => {
    const { fill, submit } = JSON.parse(line);
    for (const [id, value] of Object.entries(fill)) document.getElementById(id).value = value;
    document.getElementById(submit).requestSubmit();
  });
});
