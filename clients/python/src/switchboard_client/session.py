"""The connection: tokens, signs of life, and what to do after each close.

`docs/protocol/connections.md` of the server has the table of closes that `closed` follows.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from . import limits
from .core import AskToken, CloseSocket, Core, OpenSocket
from .model import ErrorInfo, Frame
from .requests import Requests


class Session:
    """Brings the client online, and back online, until the user or the server ends that."""

    def __init__(self, core: Core, requests: Requests, ended: Callable[[], None]) -> None:
        self._core = core
        self._requests = requests
        self._ended = ended
        self.socket = 0
        """The number of the newest socket. What older ones report is ignored."""
        self.asking = False
        """True while the application is asked for a token: never twice at a time."""
        self._token = ""
        self._opening = False
        self._pinged = False
        self._attempt = 0
        self._refusals = 0
        self._online_at = 0
        self._expires_at = 0
        self._advice: Frame | None = None

    def connect(self) -> None:
        """Connects, unless that is under way."""
        if self._core.phase not in ("idle", "waiting", "closed"):
            return
        self._core.timer("connect")
        self._core.enter("connecting")
        self._ask()

    def _ask(self) -> None:
        if self.asking:
            return
        self.asking = True
        self._core.emit(AskToken(True))
        self._core.timer("token", ms=limits.TOKEN_TIMEOUT_MS)

    def _asked(self) -> None:
        self.asking = False
        self._core.timer("token")

    def token(self, token: str) -> None:
        """The application answered."""
        if not self.asking:
            return
        self._asked()
        self._token = token
        if self._core.phase == "connecting" and not self._opening:
            self._opening = True
            self.socket += 1
            self._core.emit(OpenSocket(self.socket))
            self._core.timer("silence", ms=limits.OPEN_TIMEOUT_MS)
        elif self._core.online:
            self._requests.add({"type": "refresh", "token": token}, self._refreshed)

    def token_failed(self, message: str) -> None:
        """The application could not get a token, or took too long."""
        if not self.asking:
            return
        self._asked()
        if self._core.phase == "connecting":
            self._wait(ErrorInfo("token", message))
        elif self._core.online:
            self._schedule_refresh(None)

    def token_timeout(self) -> None:
        """The application did not answer."""
        self._core.emit(AskToken(False))
        self.token_failed("No token in time")

    def refresh(self) -> None:
        """The token expires before long."""
        if self._core.online:
            self._ask()

    def _refreshed(self, answer: Frame) -> None:
        self._schedule_refresh(answer.get("expires_at"))

    def _schedule_refresh(self, expires_at: str | None) -> None:
        """Refreshes after three quarters of the time that is left, or after half of it if there is no newer token."""
        now = self._core.config.wall_ms()
        if expires_at is not None:
            self._expires_at = int(datetime.fromisoformat(expires_at).timestamp() * 1_000)
        left = self._expires_at - now
        ms = left * 3 // 4 if expires_at is not None else left // 2
        if expires_at is not None and left <= 0:
            ms = limits.REFRESH_BLIND_MS
        self._core.timer("refresh", ms=min(max(ms, limits.REFRESH_MIN_MS), limits.REFRESH_MAX_MS))

    def opened(self) -> None:
        """The socket is open: the token is the first frame."""
        self._core.send({"type": "authenticate", "token": self._token})

    def authenticated(self, frame: Frame) -> None:
        """The server knows the user."""
        self._core.user, self._core.name = frame["user_id"], frame.get("name", "")
        self._opening = False
        self._refusals = 0
        self._online_at = self._core.config.clock_ms()
        self._core.timer("silence")
        self._core.timer("probe", ms=self._core.config.ping_ms)
        self._schedule_refresh(frame["expires_at"])
        self._core.enter("online")

    def probe(self) -> None:
        """Asks the server for a sign of life."""
        if not self._core.online:
            return
        self._core.timer("probe", ms=self._core.config.ping_ms)
        if not self._pinged:
            self._pinged = True
            self._core.send({"type": "ping"})
            self._core.timer("silence", ms=self._core.config.pong_ms)

    def heard(self) -> None:
        """Any frame is a sign of life."""
        if self._pinged:
            self._pinged = False
            self._core.timer("silence")

    def silence(self) -> None:
        """The server did not answer: the network may have ended without a sign."""
        if self._core.phase in ("connecting", "online"):
            self.closed(1006, "No answer")

    def restart(self, frame: Frame) -> None:
        """The node restarts, and says when to come back."""
        self._advice = frame

    def _end_socket(self) -> None:
        self.socket += 1
        self._pinged = self._opening = False
        for name in ("connect", "probe", "silence", "refresh"):
            self._core.timer(name)
        self._core.emit(CloseSocket())

    def _wait(self, error: ErrorInfo, advice: Frame | None = None) -> None:
        self._core.enter("waiting", error)
        self._core.timer("connect", ms=self._core.pause(self._attempt, advice))
        self._attempt += 1

    def stop(self, error: ErrorInfo | None = None) -> None:
        """Ends until the application connects again."""
        if self._core.phase == "closed":
            return
        self._end_socket()
        self._core.emit(AskToken(False))
        self._asked()
        self._attempt = self._refusals = 0
        self._core.enter("closed", error)
        self._ended()

    def closed(self, code: int, reason: str, advice: Frame | None = None) -> None:
        """The socket ended. Decides whether and when to connect again."""
        error = ErrorInfo(str(code), reason)
        if self._core.online and self._core.config.clock_ms() - self._online_at > limits.STABLE_MS:
            self._attempt = 0
        advice, self._advice = advice or self._advice, None
        self._end_socket()
        if self.asking:
            # The answer would be for the ended socket; the next connect asks again.
            self._core.emit(AskToken(False))
            self._asked()
        if code == 4401 and reason != "Authentication timeout":
            # The first refusal asks for another token at once.
            # A second one ends the session, unless the token was just old.
            self._refusals += 1
            if self._refusals > 1 and reason != "Token expired":
                return self.stop(error)
            self._wait(error, {"retry_after_ms": 0} if self._refusals == 1 else None)
        elif code == 4403:
            return self.stop(error)
        elif code == 1008 and reason == "Too many connections":
            self._refusals += 1
            if self._refusals > 1:
                return self.stop(error)
            self._wait(error, {"retry_after_ms": limits.FULL_MS})
        else:
            self._wait(error, advice)
        self._ended()
