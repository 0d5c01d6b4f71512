"""A file that keeps the outbox, so that a process that starts again sends what the last one could not."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import IO

from .core import Command
from .model import ChatError, ErrorInfo, Frame

try:
    import fcntl
except ImportError:  # Windows has no flock; there, nothing stops two processes from using one file.
    fcntl = None  # type: ignore[assignment]

COMPACT_LINES = 1_000
"""Lines beyond four for each waiting command, after which the file is written anew."""


def to_json(command: Command) -> Frame:
    """What of a command outlives its process: nothing that belongs to a socket."""
    stored: Frame = {"frame": command.frame, "created_at": command.created_at}
    for name in ("target", "user", "epoch"):
        if (value := getattr(command, name)) is not None:
            stored[name] = value
    if command.failed is not None:
        stored["failed"] = [command.failed.code, command.failed.message]
    return stored


def from_json(stored: Frame) -> Command:
    """The opposite of `to_json`."""
    failed = stored.get("failed")
    return Command(
        stored["frame"],
        stored["created_at"],
        stored.get("target"),
        stored.get("user"),
        stored.get("epoch"),
        None if failed is None else ErrorInfo(*failed),
    )


class OutboxFile:
    """Appends a line for each command that is stored or dropped.

    A line is with the operating system before its command is sent: it survives the end of the process, though not
    always a power failure. One process at a time may use the file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._lock = self._acquire()
        self._commands: dict[str, Frame] = {}
        self._lines = 0
        self._read()
        self._file: IO[bytes] = self._rewrite()

    def _acquire(self) -> IO[bytes]:
        lock = open(f"{self._path}.lock", "ab")
        if fcntl is not None:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                lock.close()
                raise ChatError(f"another process uses the outbox {self._path}") from error
        return lock

    def _read(self) -> None:
        if not self._path.exists():
            return
        for line in self._path.read_bytes().split(b"\n"):
            try:
                entry = json.loads(line)
            except ValueError:
                continue  # The end of the last process cut the line off: its command was never sent.
            if "drop" in entry:
                self._commands.pop(entry["drop"], None)
            else:
                self._commands[entry["frame"]["client_id"]] = entry

    def _rewrite(self) -> IO[bytes]:
        """Writes only what waits, to a new file that then takes the place of the old one."""
        temporary = Path(f"{self._path}.new")
        temporary.unlink(missing_ok=True)
        # Other users must not be able to read the messages.
        temporary.touch(mode=0o600)
        temporary.write_bytes(b"".join(map(_line, self._commands.values())))
        temporary.replace(self._path)
        self._lines = len(self._commands)
        return open(self._path, "ab")

    def commands(self) -> list[Command]:
        """The commands that wait, in their order."""
        return [from_json(one) for one in self._commands.values()]

    def save(self, command: Command) -> None:
        """Stores a command, or its newest state in its old place."""
        self._commands[command.client_id] = to_json(command)
        self._write(self._commands[command.client_id])

    def drop(self, client_id: str) -> None:
        """Removes a command."""
        if self._commands.pop(client_id, None) is not None:
            self._write({"drop": client_id})

    def _write(self, entry: Frame) -> None:
        self._file.write(_line(entry))
        self._file.flush()
        self._lines += 1
        if self._lines > COMPACT_LINES + 4 * len(self._commands):
            self._file.close()
            self._file = self._rewrite()

    def close(self) -> None:
        """Lets another process use the file."""
        self._file.close()
        self._lock.close()


def _line(entry: Frame) -> bytes:
    return json.dumps(entry, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
