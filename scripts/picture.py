#!/usr/bin/env python3
"""Draws docs/pictures/chat.svg: two people who chat in two terminals, from what the program really prints.

    cargo build --release && scripts/picture.py          (needs Python alone; ports 8000 and 8001 must be free)

It starts `switchboard dev` in a folder of its own, two shells on pseudo-terminals, types what SCENE says, and waits for
each line to arrive at the other side before it goes on. The picture shows both terminals as they are at the end.
"""

import fcntl
import html
import os
import pty
import re
import select
import struct
import subprocess
import sys
import tempfile
import termios
import time
import urllib.request
from itertools import groupby
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "pictures" / "chat.svg"
ROWS, COLUMNS = 10, 58
DEADLINE_S = 20

# Who types what, and the words that both terminals must show before the next line is typed.
SCENE = [
    ("alice", "switchboard chat --user alice --room lobby", {"alice": "you are"}),
    ("bob", "switchboard chat --user bob --room lobby", {"bob": "you are", "alice": "joined"}),
    ("alice", "Hi Bob! Can you see this?", {"bob": "Can you see this?"}),
    ("bob", "Loud and clear. Which node are you on?", {"alice": "Which node are you on?"}),
    ("alice", "No idea, and it does not matter :)", {"bob": "does not matter"}),
]
# The colours of the terminals, by SGR code.
COLOURS = {31: "#ff7b72", 32: "#7ee787", 33: "#e3b341", 34: "#79c0ff", 35: "#d2a8ff", 36: "#76e3ea", 90: "#8b949e"}
ESCAPE = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])|\x1b\][^\x07]*\x07|\x1b[=>]")


class Terminal:
    """A shell on a pseudo-terminal."""

    def __init__(self, folder: str, path: str):
        # The child is the shell; it leaves this process's own terminal alone.
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            os.execve("/bin/sh", ["sh", "-i"], {"PATH": path, "PS1": "$ ", "TERM": "xterm-256color", "LANG": "C.UTF-8"})
        # Else the next shell would hold this terminal open.
        os.set_inheritable(self.fd, False)
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        self.text = ""

    def read(self) -> None:
        """Takes what it has printed by now."""
        while select.select([self.fd], [], [], 0.05)[0]:
            self.text += os.read(self.fd, 65536).decode(errors="replace")

    def types(self, line: str) -> None:
        os.write(self.fd, line.encode() + b"\n")

    def shows(self, words: str, since: int) -> bool:
        self.read()
        return words in ESCAPE.sub("", self.text[since:])

    def end(self) -> None:
        os.close(self.fd)  # the shell is hung up, and what it runs with it
        os.waitpid(self.pid, 0)


def wait(what: str, check) -> None:
    end = time.monotonic() + DEADLINE_S
    while not check():
        if time.monotonic() > end:
            sys.exit(f"picture: {what}: nothing within {DEADLINE_S} s")
        time.sleep(0.05)


def is_healthy() -> bool:
    try:
        return urllib.request.urlopen("http://127.0.0.1:8000/api/health", timeout=5).status == 200
    except OSError:
        return False


def play(folder: str, path: str) -> dict[str, str]:
    """Plays the scene, and gives what each terminal printed."""
    terminals = {name: Terminal(folder, path) for name in ("alice", "bob")}
    try:
        for name, terminal in terminals.items():
            wait(f"{name}'s prompt", lambda terminal=terminal: terminal.shows("$ ", 0))
        for who, line, expected in SCENE:
            # What the typist's own terminal echoes comes after this point too, so it is not taken for an answer.
            since = {name: len(terminal.text) for name, terminal in terminals.items()}
            since[who] += len(line)
            terminals[who].types(line)
            for name, words in expected.items():
                wait(f"{name} sees {words!r}", lambda n=name, w=words: terminals[n].shows(w, since[n]))
        for terminal in terminals.values():
            terminal.read()
        return {name: terminal.text for name, terminal in terminals.items()}
    finally:
        for terminal in terminals.values():
            terminal.end()


def screen(text: str) -> list[list[tuple[str, str]]]:
    """The rows of a terminal that got this text: a (style, character) for each cell, long lines wrapped."""
    rows, style, at = [[]], "", 0
    while at < len(text):
        if escape := ESCAPE.match(text, at):
            if escape[2] == "m":
                for code in [int(code or 0) for code in escape[1].split(";")]:
                    style = "" if code in (0, 39) else f"fill:{COLOURS[code]}" if code in COLOURS else style
                    style = "font-weight:bold" if code == 1 else style
            elif escape[2] == "K":
                rows[-1].clear()
            at = escape.end()
            continue
        character = text[at]
        at += 1
        if character == "\r":
            # Only "\r\n" and "\r" before an erased line come from programs that print lines.
            continue
        if character == "\n":
            rows.append([])
        elif character >= " ":
            if len(rows[-1]) == COLUMNS:
                rows.append([])
            rows[-1].append((style, character))
    return rows[-ROWS:]


def draw(panes: dict[str, str]) -> str:
    size, line, padding, bar = 14, 19, 14, 30
    width, height = round(COLUMNS * size * 0.602) + 2 * padding, bar + ROWS * line + padding
    gap = 12
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {2 * width + gap} {height}" role="img"',
        f' font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, monospace" font-size="{size}">',
        "<title>Alice and Bob chat in two terminals</title>\n",
    ]
    for index, (name, text) in enumerate(panes.items()):
        left = index * (width + gap)
        parts.append(f'<rect x="{left}" width="{width}" height="{height}" rx="8" fill="#0d1117" stroke="#30363d"/>\n')
        for dot, colour in enumerate(("#ff5f57", "#febc2e", "#28c840")):
            parts.append(f'<circle cx="{left + 18 + 18 * dot}" cy="{bar // 2}" r="5.5" fill="{colour}"/>')
        parts.append(f'<text x="{left + width // 2}" y="20" fill="#8b949e" text-anchor="middle">{name}</text>\n')
        for row, cells in enumerate(screen(text)):
            y = bar + (row + 1) * line - 4
            spans = ""
            for style, run in groupby(cells, key=lambda cell: cell[0]):
                words = html.escape("".join(character for _, character in run))
                spans += f'<tspan style="{style}">{words}</tspan>' if style else words
            if spans:
                parts.append(f'<text x="{left + padding}" y="{y}" fill="#e6edf3" xml:space="preserve">{spans}</text>\n')
    return "".join(parts) + "</svg>\n"


def main() -> None:
    programs = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "target" / "release"
    if not (programs / "switchboard").exists():
        sys.exit(f"picture: no switchboard in {programs}: run cargo build --release first, or name its folder")
    path = f"{programs}:/usr/local/bin:/usr/bin:/bin"
    with tempfile.TemporaryDirectory() as folder:
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        server = subprocess.Popen([programs / "switchboard", "dev"], cwd=folder, env={"PATH": path}, **quiet)
        try:
            wait("switchboard dev on port 8000", lambda: is_healthy() or server.poll() is not None)
            if server.poll() is not None:
                sys.exit("picture: switchboard dev ended: are ports 8000 and 8001 free?")
            panes = play(folder, path)
        finally:
            server.terminate()
            server.wait()
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_text(draw(panes))
    print(f"picture: {PICTURE.relative_to(ROOT)}")


main()
