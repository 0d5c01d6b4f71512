"""Drives the state machine with a virtual clock: collects what it sends and stores, and fires its timers in order."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from random import Random
from typing import Any

from switchboard_client.core import (
    AskToken,
    CloseSocket,
    Command,
    Config,
    Drop,
    Effect,
    Notify,
    OpenSocket,
    Save,
    SendFrame,
    SetTimer,
    Settled,
    TimerKey,
)
from switchboard_client.machine import Machine
from switchboard_client.model import Change, ErrorInfo, Frame

WALL_MS = 1_767_225_600_000


class Driver:
    """A machine without a network. Its user is `alice`."""

    def __init__(self, seed: int = 0, **config: Any) -> None:
        self.now = 0
        self.sent: list[Frame] = []
        self.stored: dict[str, Command] = {}
        self.timers: dict[TimerKey, int] = {}
        self.changes: list[Change] = []
        self.settled: dict[str | int, Frame | ErrorInfo] = {}
        self.socket: int | None = None
        self.asking = False
        self.tokens_asked = 0
        clocks: dict[str, Any] = {"clock_ms": lambda: self.now, "wall_ms": lambda: WALL_MS + self.now}
        self.machine = Machine(Config(random=Random(seed), **clocks, **config))

    def run(self) -> None:
        """Carries out the effects of the last steps."""
        for effect in self.machine.take():
            self._carry_out(effect)

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case SendFrame(frame):
                self.sent.append(copy.deepcopy(frame))
            case OpenSocket(socket):
                self.socket = socket
            case CloseSocket():
                self.socket = None
            case SetTimer(key, ms):
                self.timers.pop(key, None)
                if ms is not None:
                    self.timers[key] = self.now + ms
            case AskToken(ask):
                assert not (ask and self.asking), "asked twice at a time"
                self.asking = ask
                self.tokens_asked += ask
            case Save(command):
                self.stored[command.client_id] = copy.deepcopy(command)
            case Drop(client_id):
                del self.stored[client_id]
            case Settled(key, answer):
                self.settled[key] = answer
            case Notify(change):
                self.changes.append(change)

    def advance(self, ms: int) -> None:
        """Lets time pass. Timers fire at their times, in their order."""
        end = self.now + ms
        while due := min(
            (key for key in self.timers if self.timers[key] <= end), key=lambda key: self.timers[key], default=None
        ):
            self.now = max(self.now, self.timers.pop(due))
            self.machine.timer(due)
            self.run()
        self.now = end

    def token(self, token: str = "token") -> None:
        """The application answers."""
        assert self.asking
        self.asking = False
        self.machine.token(token)
        self.run()

    def receive(self, frame: Frame) -> None:
        """A frame of the server comes, over JSON as on a socket."""
        assert self.socket is not None
        self.machine.frame(self.socket, copy.deepcopy(frame))
        self.run()

    def online(self, epoch: int = 1, expires_in_ms: int = 3_600_000, user: str = "alice") -> None:
        """Connects, or lets the pause after a close pass, up to the answer to `authenticate`."""
        if ("connect", "") in self.timers:
            self.advance(self.timers["connect", ""] - self.now)
        self.machine.connect()
        self.run()
        self.token()
        assert self.socket is not None
        self.machine.opened(self.socket)
        self.run()
        authenticate = self.sent.pop()
        assert authenticate == {"type": "authenticate", "token": "token"}
        self.sent.clear()
        expires_at = WALL_MS + self.now + expires_in_ms
        self.receive(
            {
                "type": "authenticated",
                "user_id": user,
                "name": user.title(),
                "connection_id": "0",
                "epoch": epoch,
                "expires_at": rfc3339(expires_at),
            }
        )

    def close(self, code: int = 1006, reason: str = "") -> None:
        """The socket ends."""
        assert self.socket is not None
        self.machine.closed(self.socket, code, reason)
        self.run()

    def take_sent(self, *types: str) -> list[Frame]:
        """The frames sent since the last call, of some types."""
        sent, self.sent = self.sent, []
        return [one for one in sent if one["type"] in types]


def rfc3339(ms: int) -> str:
    """A time as the server writes it."""
    return datetime.fromtimestamp(ms / 1_000, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
