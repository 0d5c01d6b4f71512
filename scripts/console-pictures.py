#!/usr/bin/env python3
"""Takes docs/pictures/console-*.png: the admin console in real Chromium, on a node with two people who chat.

    cargo build --release && scripts/console-pictures.py [folder of the program]      (needs Python and /usr/bin/chromium)

It starts `switchboard dev` in a folder of its own on free ports, lets Alice and Bob chat with `switchboard chat`, lets a page
of a wrong origin and a bad token be refused, and opens the console in Chromium, over the pipe of its developer tools.
"""

import base64
import itertools
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PICTURES = ROOT / "docs" / "pictures"
CHROMIUM = "/usr/bin/chromium"
DEADLINE_S = 30
# What each picture shows: its name, the view, the words that it waits for, light or dark, and its height.
VIEWS = [
    ("overview", "overview", "messages/s here", "light", 760),
    ("user", "users/bob", "unread", "light", 640),
    ("conversation", "conversations/lobby", "marks", "dark", 900),
    ("tail", "tail", "origin", "dark", 640),
    ("token", "token", "remedy", "light", 760),
]
WIDTH = 1120


def wait(what, check):
    end = time.monotonic() + DEADLINE_S
    while not (found := check()):
        if time.monotonic() > end:
            sys.exit(f"console-pictures: {what}: nothing within {DEADLINE_S} s")
        time.sleep(0.05)
    return found


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Browser:
    """A page in Chromium, driven over the pipe of its developer tools: one JSON text after the other, each with a NUL."""

    def __init__(self, profile):
        (read, self.to), (self.of, write) = os.pipe(), os.pipe()

        def connect():
            # Chromium reads from 3 and writes to 4. The copies stand above both, so that none covers the other.
            low = [os.dup(end) for end in (read, write)]
            high = [os.dup2(end, 100 + index) for index, end in enumerate(low)]
            os.dup2(high[0], 3)
            os.dup2(high[1], 4)

        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-pipe", "--hide-scrollbars"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(
            [CHROMIUM, *flags, f"--user-data-dir={profile}", "about:blank"], close_fds=False, preexec_fn=connect, **quiet
        )
        self.ids, self.rest, self.session = itertools.count(1), b"", None
        pages = lambda: [one for one in self.call("Target.getTargets")["targetInfos"] if one["type"] == "page"]
        target = wait("a page in Chromium", pages)[0]["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]

    def call(self, method, **params):
        number = next(self.ids)
        request = {"id": number, "method": method, "params": params} | ({"sessionId": self.session} if self.session else {})
        os.write(self.to, json.dumps(request).encode() + b"\0")
        while True:
            while b"\0" not in self.rest:
                self.rest += os.read(self.of, 1 << 20) or sys.exit("console-pictures: Chromium ended")
            text, _, self.rest = self.rest.partition(b"\0")
            answer = json.loads(text)
            if answer.get("id") == number:
                return answer.get("result") or sys.exit(f"console-pictures: {method}: {answer}") if "error" in answer else answer["result"]

    def value(self, expression):
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)["result"].get("value")

    def shows(self, words):
        wait(f"the page shows {words!r}", lambda: self.value(f"document.body?.innerText.includes({json.dumps(words)})"))


def handshake(port, headers):
    """Asks for a WebSocket and reads the beginning of the answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as one:
        lines = ["GET /v1/ws HTTP/1.1", f"Host: localhost:{port}", "Connection: Upgrade", "Upgrade: websocket",
                 "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", *headers]
        one.sendall("\r\n".join([*lines, "", ""]).encode())
        one.recv(1024)


def chat(program, folder, name):
    return subprocess.Popen([program, "chat", "--data-dir", folder, "--user", name, "--room", "lobby"], stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=folder, text=True)


def says(speaker, listener, line):
    """Types a line, and reads it at the other side."""
    speaker.stdin.write(line + "\n")
    speaker.stdin.flush()
    while line not in (heard := listener.stdout.readline()):
        heard or sys.exit("console-pictures: a chat ended")


def take(browser, base, token, expired):
    browser.call("Page.navigate", url=f"{base}/admin/")
    browser.shows("Admin token")
    browser.value(f"document.querySelector('[name=token]').value = {json.dumps(token)}")
    browser.value("document.querySelector('form button:last-of-type').click()")
    browser.shows("deliveries/s here")
    for name, view, words, scheme, height in VIEWS:
        browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        browser.call("Emulation.setDeviceMetricsOverride", width=WIDTH, height=height, deviceScaleFactor=1, mobile=False)
        browser.value(f"location.hash = '#/{view}'")
        if view == "token":
            browser.shows("Why is this token invalid?")
            browser.value(f"document.querySelector('textarea').value = {json.dumps(expired)}")
            browser.value("document.querySelector('main form button').click()")
        browser.shows(words)
        browser.value("document.activeElement.blur(); scrollTo(0, 0)")
        picture = browser.call("Page.captureScreenshot", format="png")["data"]
        path = PICTURES / f"console-{name}.png"
        path.write_bytes(base64.b64decode(picture))
        print(f"console-pictures: {path.relative_to(ROOT)}, {path.stat().st_size // 1024} KiB")


def main():
    programs = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT / "target" / "release"
    program = programs / "switchboard"
    if not program.exists() or not Path(CHROMIUM).exists():
        sys.exit(f"console-pictures: needs {program} (cargo build --release, or name its folder) and {CHROMIUM}")
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as profile:
        clients, admin = free_port(), free_port()
        address = {"LISTEN": f"127.0.0.1:{clients}", "ADMIN_LISTEN": f"127.0.0.1:{admin}", "NODE_ID": "node-1"}
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        node = subprocess.Popen([program, "dev", "--data-dir", folder], cwd=folder, env=address | {"PATH": "/usr/bin:/bin"}, **quiet)
        chats, browser = [], None
        try:
            def ready():
                try:
                    return urllib.request.urlopen(f"http://127.0.0.1:{admin}/readyz", timeout=5).status == 200
                except OSError:
                    return False
            wait("switchboard dev", ready)
            for name in ("alice", "bob"):
                chats.append(chat(program, folder, name))
                while "you are" not in chats[-1].stdout.readline():
                    pass
            alice, bob = chats
            says(alice, bob, "Hi Bob! Can you see this?")
            says(bob, alice, "Loud and clear. Which node are you on?")
            says(alice, bob, "No idea, and it does not matter :)")
            handshake(clients, ["Origin: https://shop.example"])
            handshake(clients, ["Authorization: Bearer nonsense"])
            handshake(clients, ["Origin: https://shop.example"])
            minted = subprocess.run([program, "token", "--dev", "--data-dir", folder, "--user", "bob", "--ttl", "1s"],
                                    capture_output=True, text=True, check=True, cwd=folder).stdout.strip()
            token = (Path(folder) / "admin-token").read_text().strip()
            # The token must have expired, with the tolerance for clocks.
            time.sleep(8)
            browser = Browser(profile)
            take(browser, f"http://127.0.0.1:{admin}", token, re.sub(r"\s", "", minted))
        finally:
            for one in [*chats, node, *([browser.process] if browser else [])]:
                one.terminate()
                one.wait()


main()
