// A reporter of node:test whose lines scripts/test.sh understands: failures, reasons for skips, and a closing line with counts.
export default async function* reporter(source) {
  const counts = { passed: 0, failed: 0, skipped: 0 };
  const began = Date.now();
  for await (const { type, data } of source) {
    if (type === "test:stderr" || type === "test:stdout") yield data.message;
    // A file whose tests failed is reported as a test, too.
    if ((type !== "test:pass" && type !== "test:fail") || data.name.endsWith(".mjs") && data.details?.error?.failureType === "subtestsFailed") continue;
    const seconds = `${(data.details.duration_ms / 1000).toFixed(1)}s`;
    if (data.skip !== undefined) {
      counts.skipped++;
      yield `SKIPPED [1] ${data.name}: ${data.skip}\n`;
    } else if (type === "test:pass") {
      counts.passed++;
      yield `ok ${data.name} (${seconds})\n`;
    } else {
      counts.failed++;
      const { error } = data.details;
      const text = String(error?.cause?.stack ?? error?.cause ?? error?.message ?? error);
      yield `FAILED ${data.name.replaceAll(" ", "_")} (${seconds})\n${text.split("\n").slice(0, 40).map((line) => `E   ${line}\n`).join("")}`;
    }
  }
  const { passed, failed, skipped } = counts;
  yield `${passed} passed, ${failed} failed, ${skipped} skipped in ${((Date.now() - began) / 1000).toFixed(1)}s\n`;
}
