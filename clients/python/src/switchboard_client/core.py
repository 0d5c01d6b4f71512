"""What the parts of the state machine share: its effects, its clock, and who is connected.

The machine does no input or output. It returns effects, which a runtime carries out in their order.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import TypeAlias

from . import limits
from .model import Change, ConnectionState, ErrorInfo, Frame, Phase

TimerKey: TypeAlias = tuple[str, str]
"""The name of a timer, and what it is about."""


@dataclass(slots=True)
class Command:
    """A send, edit, deletion or reaction that the server has not confirmed."""

    frame: Frame
    created_at: str
    target: str | None = None
    """The client_id of the message that an edit is about, while that message has no seq."""
    user: str | None = None
    """Who made the command; None if nobody had connected yet."""
    epoch: int | None = None
    """The epoch to which `frame["seq"]` belongs."""
    failed: ErrorInfo | None = None
    sent: bool = False
    waiting: bool = False
    tries: int = 0

    @property
    def client_id(self) -> str:
        """The id under which the server stores the command once."""
        return str(self.frame["client_id"])

    @property
    def key(self) -> str:
        """Where the command goes: the id of a conversation, or "/" and a user."""
        conversation = self.frame.get("conversation_id")
        return f"/{self.frame['recipient_id']}" if conversation is None else str(conversation)


@dataclass(frozen=True, slots=True)
class SendFrame:
    """Send this on the open socket."""

    frame: Frame


@dataclass(frozen=True, slots=True)
class OpenSocket:
    """Open a socket, and report what happens to it under this number."""

    socket: int


@dataclass(frozen=True, slots=True)
class CloseSocket:
    """Close the socket. What it still reports is ignored."""


@dataclass(frozen=True, slots=True)
class SetTimer:
    """Call `Machine.timer` with this key after a time, or (None) don't."""

    key: TimerKey
    ms: int | None


@dataclass(frozen=True, slots=True)
class AskToken:
    """Ask the application for a token, or (False) stop asking."""

    ask: bool


@dataclass(frozen=True, slots=True)
class Save:
    """Store a command, so that it outlives the process."""

    command: Command


@dataclass(frozen=True, slots=True)
class Drop:
    """Remove a stored command."""

    client_id: str


@dataclass(frozen=True, slots=True)
class Settled:
    """A command (by client_id) or a request (by number) is done: the answer, or why it was refused."""

    key: str | int
    answer: Frame | ErrorInfo


@dataclass(frozen=True, slots=True)
class Notify:
    """Tell the application of a change in a conversation."""

    change: Change


@dataclass(frozen=True, slots=True)
class StateChanged:
    """Tell the application of the state of the connection."""

    state: ConnectionState


Effect: TypeAlias = (
    SendFrame | OpenSocket | CloseSocket | SetTimer | AskToken | Save | Drop | Settled | Notify | StateChanged
)


def error_of(frame: Frame) -> ErrorInfo:
    """The error that a frame, or one item of `synced`, describes."""
    return ErrorInfo(str(frame.get("code", "unknown")), str(frame.get("message", "")))


@dataclass(slots=True)
class Config:
    """Times that tests and unusual networks change, in milliseconds, and the source of chance."""

    ping_ms: int = limits.PING_MS
    pong_ms: int = limits.PONG_MS
    pause_min_ms: int = limits.PAUSE_MIN_MS
    pause_max_ms: int = limits.PAUSE_MAX_MS
    follow: bool = False
    """Open the conversations that the server joins by itself."""
    random: Random = field(default_factory=Random)
    clock_ms: Callable[[], int] = lambda: time.monotonic_ns() // 1_000_000
    wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000


class Core:
    """The state that all parts of the machine share."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.effects: list[Effect] = []
        self.phase: Phase = "idle"
        self.error: ErrorInfo | None = None
        self.user: str | None = None
        self.name = ""
        self.epoch: int | None = None

    @property
    def online(self) -> bool:
        """True between `authenticated` and the end of the socket."""
        return self.phase == "online"

    def emit(self, effect: Effect) -> None:
        """Adds an effect to those that the current step returns."""
        self.effects.append(effect)

    def send(self, frame: Frame) -> None:
        """Sends a frame on the open socket."""
        self.emit(SendFrame(frame))

    def timer(self, name: str, about: str = "", ms: int | None = None) -> None:
        """Sets a timer anew, or (without a time) ends it."""
        self.emit(SetTimer((name, about), ms))

    def enter(self, phase: Phase, error: ErrorInfo | None = None) -> None:
        """Changes the state of the connection."""
        self.phase, self.error = phase, error
        self.emit(StateChanged(ConnectionState(phase, error)))

    def pause(self, tries: int, advice: Frame | None = None) -> int:
        """The pause after a failure: as the server advises, else one that doubles, less up to a half of it."""
        advised = (advice or {}).get("retry_after_ms")
        if isinstance(advised, int) and advised >= 0:
            return advised
        longest = min(self.config.pause_max_ms, self.config.pause_min_ms << min(tries, 20))
        return longest - self.config.random.randrange(longest // 2 + 1)
