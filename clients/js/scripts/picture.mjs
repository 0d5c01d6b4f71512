// Draws docs/pictures/demo.png: the page of `switchboard dev` as Chromium shows it, after a conversation and a fault.
//
//   cargo build && (cd clients/js && npm ci && node scripts/picture.mjs)
//
// SWITCHBOARD names another program. The picture has no token: the page shows none.
import { chromium } from "playwright-core";
import { binary } from "../tests/e2e/cluster.mjs";
import { chromiumPath } from "../tests/e2e/pages.mjs";
import { end, folder, freePort, start } from "../tests/e2e/processes.mjs";

const target = new URL("../../../docs/pictures/demo.png", import.meta.url).pathname;
const port = await freePort();
const env = { PATH: process.env.PATH, LISTEN: `127.0.0.1:${port}`, ADMIN_LISTEN: "off", DATA_DIR: folder() };
const dev = await start(binary, ["dev"], { env, cwd: env.DATA_DIR, ready: "This page again" });
// The address that a reader sees on their own machine.
const browser = await chromium.launch({ executablePath: chromiumPath,
  args: ["--headless", "--no-sandbox", "--disable-gpu", `--host-resolver-rules=MAP 127.0.0.1:8000 127.0.0.1:${port}`] });
try {
  const page = await browser.newPage({ viewport: { width: 1200, height: 840 }, colorScheme: "light" });
  await page.goto("http://127.0.0.1:8000/");
  const [alice, bob] = [0, 1].map((at) => page.locator(".pane").nth(at));
  const send = async (pane, text, button = "Send") => {
    await pane.locator(".composer input").fill(text);
    await pane.getByRole("button", { name: button, exact: true }).click();
  };
  await alice.getByText("Hi Alice!").waitFor();
  await send(alice, "Are you there?", "Ask echo");
  await bob.getByText("Alice said: Are you there?").waitFor();
  await bob.getByRole("button", { name: "Go offline" }).click();
  await send(bob, "I write this without a network.");
  await send(alice, "Then it waits for you.");
  await alice.locator(".own.sent", { hasText: "Then it waits" }).waitFor();
  await page.mouse.move(0, 0);
  await page.evaluate(() => document.activeElement.blur());
  await page.screenshot({ path: target });
} finally {
  await browser.close();
  await end(dev);
}
console.log(`drew ${target}`);
