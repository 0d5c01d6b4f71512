"""Child processes of the tests: PostgreSQL, Redis and nodes. Each is ready when a line of its output says so."""

from __future__ import annotations

import asyncio
import os
import pwd
import socket
import subprocess
import tempfile
from pathlib import Path
from signal import SIGKILL, Signals
from typing import Any

DEADLINE = float(os.environ.get("TEST_DEADLINE", "120"))
"""Seconds until a test gives up. Generous, because nothing waits for it unless a test fails."""


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Process:
    """A child process whose output is read until its end."""

    def __init__(self, child: asyncio.subprocess.Process) -> None:
        self.child = child
        self.output = ""
        self._lines = asyncio.Condition()
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.child.stdout is not None
        while line := await self.child.stdout.readline():
            async with self._lines:
                self.output = (self.output + line.decode(errors="replace"))[-20_000:]
                self._lines.notify_all()
        async with self._lines:
            self._lines.notify_all()

    async def line(self, text: str) -> None:
        """Waits until the output contains a text."""
        async with asyncio.timeout(DEADLINE), self._lines:
            await self._lines.wait_for(lambda: text in self.output or self._reader.done() or self.child.stdout.at_eof())  # type: ignore[union-attr]
        if text not in self.output:
            raise RuntimeError(f"the process ended before {text!r}:\n{self.output}")

    def signal(self, number: Signals) -> None:
        """Sends a signal, if the process lives."""
        if self.child.returncode is None:
            self.child.send_signal(number)

    async def end(self, number: Signals = SIGKILL) -> None:
        """Ends the process and waits for that."""
        self.signal(number)
        await self.child.wait()
        await self._reader


async def start(program: str, *arguments: str, ready: str, **options: Any) -> Process:
    """Starts a program and waits for a line of its output."""
    child = await asyncio.create_subprocess_exec(
        program, *arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options
    )
    process = Process(child)
    try:
        await process.line(ready)
    except BaseException:
        await process.end()
        raise
    return process


def _postgres_program(name: str) -> str:
    versions = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda one: int(one.parts[-3]))
    return str(versions[-1]) if versions else name


async def start_postgres(home: Path) -> tuple[Process, str]:
    """PostgreSQL with an empty database, and its URL. It refuses to run as root, so root runs it as postgres."""
    options: dict[str, Any] = {"cwd": home}
    if os.getuid() == 0:
        user = pwd.getpwnam("postgres")
        os.chown(home, user.pw_uid, user.pw_gid)
        options |= {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    data = str(home / "data")
    initdb = [
        _postgres_program("initdb"),
        "-D",
        data,
        "-U",
        "postgres",
        "--auth=trust",
        "--no-sync",
        "--no-locale",
        "-E",
        "UTF8",
    ]
    await asyncio.to_thread(lambda: subprocess.run(initdb, check=True, capture_output=True, **options))
    port = free_port()
    settings = (
        "listen_addresses=127.0.0.1",
        "unix_socket_directories=",
        "fsync=off",
        "full_page_writes=off",
        "synchronous_commit=off",
    )
    flags = [word for one in settings for word in ("-c", one)]
    process = await start(
        _postgres_program("postgres"),
        "-D",
        data,
        "-p",
        str(port),
        *flags,
        ready="ready to accept connections",
        **options,
    )
    return process, f"postgres://postgres@127.0.0.1:{port}/postgres"


async def start_redis(home: Path) -> tuple[Process, str]:
    """Redis, and its URL."""
    port = free_port()
    flags = ("--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", str(home))
    return await start("redis-server", *flags, ready="Ready to accept connections"), f"redis://127.0.0.1:{port}/"


def folder() -> Path:
    """A folder that other users may enter."""
    path = Path(tempfile.mkdtemp(prefix="switchboard-py-"))
    path.chmod(0o755)
    return path
