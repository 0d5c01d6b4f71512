"""What the client knows of one conversation."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from .log import Log
from .model import ErrorInfo, Message


@dataclass(slots=True)
class Room:
    """What the client knows of one conversation."""

    id: str
    """"/" and the user for a direct conversation that the server has not named."""
    log: Log = field(default_factory=Log)
    opened: bool = False
    epoch: int | None = None
    """The epoch to which the cursor belongs, if the application gave it before the client knew that of the server."""
    joined: Literal["no", "asked", "yes"] = "no"
    error: ErrorInfo | None = None
    """Why the server refused the last join."""
    refused: bool = False
    """No join is tried on this socket."""
    tries: int = 0
    """Joins in a row that the server refused as retryable."""
    gap_at: int | None = None
    """The cursor at which the gap is that a timer watches."""
    gap_tries: int = 0
    reading: int | None = None
    """The generation of the log for which the newest page was requested."""
    older: list[int] = field(default_factory=list)
    """Who waits for the next older page."""
    reading_older: bool = False
    delivered: int = 0
    read: int = 0
    """The highest marks of other users."""
    mark: int = 0
    marking: bool = False
    marked: int = 0
    """The user's read mark: wanted, on its way, and stored."""

    @property
    def unnamed(self) -> bool:
        """True for a direct conversation whose id is not known."""
        return self.id.startswith("/")

    def with_status(self, message: Message, user: str | None) -> Message:
        """The message with what the marks of others tell."""
        seq = message.seq
        if seq is None or message.sender_id != user or seq > max(self.delivered, self.read):
            return message
        return replace(message, status="read" if seq <= self.read else "delivered")
