"""Frames with a `ref` that are answered once: joins, pages, marks, refreshes, and reads of the application."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import TypeAlias

from . import limits
from .core import Core
from .model import Frame, OutboxFull

Done: TypeAlias = Callable[[Frame], None]
HEAVY = ("history", "search", "conversations")


class Lost(Enum):
    """What happens to a request whose socket ends before its answer."""

    FORGET = auto()
    """Its owner asks anew on the next socket."""
    REPEAT = auto()
    """It is sent again: a read, or a change that may be made twice."""
    FAIL = auto()
    """It is answered with an error: a repeat would be a second one."""


@dataclass(slots=True)
class Request:
    """A request on its way, or one that waits for its turn."""

    ref: int
    frame: Frame
    done: Done
    lost: Lost
    tries: int = 0
    sent: bool = False
    waiting: bool = False


class Requests:
    """Numbers requests, and brings each answer to the one who asked."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._requests: dict[int, Request] = {}
        self._last = 0

    def __len__(self) -> int:
        return len(self._requests)

    def add(self, frame: Frame, done: Done, lost: Lost = Lost.FORGET) -> None:
        """Sends a request as soon as the client is online. Retryable errors are tried again before `done` gets one."""
        if len(self._requests) >= limits.MAX_REQUESTS and lost is not Lost.FORGET:
            raise OutboxFull(f"{limits.MAX_REQUESTS} requests wait for the server")
        self._last += 1
        self._requests[self._last] = Request(self._last, frame, done, lost)
        self.send_all()

    def send_all(self) -> None:
        """Sends what may be sent now. Heavy reads are limited, because the server refuses too many at a time."""
        if not self._core.online:
            return
        heavy = sum(one.sent and one.frame["type"] in HEAVY for one in self._requests.values())
        for request in list(self._requests.values()):
            if request.sent or request.waiting:
                continue
            if request.frame["type"] in HEAVY:
                if heavy >= limits.HEAVY_AT_ONCE:
                    continue
                heavy += 1
            request.sent = True
            self._core.send({**request.frame, "ref": request.ref})

    def answer(self, frame: Frame) -> bool:
        """Takes the answer with this `ref`. False if nobody waits for it."""
        ref = frame.get("ref")
        request = self._requests.get(ref) if isinstance(ref, int) else None
        if request is None:
            return False
        if frame["type"] == "error" and frame.get("retryable") and self._again(request, frame):
            return True
        if not frame.get("more"):
            del self._requests[request.ref]
        request.done(frame)
        self.send_all()
        return True

    def _again(self, request: Request, error: Frame) -> bool:
        request.tries += 1
        if request.lost is not Lost.FORGET and request.tries >= limits.REQUEST_TRIES:
            return False
        request.sent, request.waiting = False, True
        self._core.timer("request", str(request.ref), self._core.pause(request.tries - 1, error))
        self.send_all()
        return True

    def retry(self, ref: str) -> None:
        """The pause after a refusal is over."""
        if request := self._requests.get(int(ref)):
            request.waiting = False
        self.send_all()

    def reset(self) -> None:
        """The socket ended."""
        for request in list(self._requests.values()):
            request.sent = False
            if request.lost is Lost.REPEAT:
                continue
            del self._requests[request.ref]
            if request.lost is Lost.FAIL:
                request.done({"type": "error", "code": "connection_lost", "message": "The connection ended"})
