"""Public values: messages, changes, states of the connection, and errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

Frame: TypeAlias = dict[str, Any]
"""One JSON object of the native dialect."""

Status: TypeAlias = Literal["sending", "sent", "delivered", "read", "failed"]
Phase: TypeAlias = Literal["idle", "connecting", "online", "waiting", "closed"]
ChangeKind: TypeAlias = Literal[
    "message",
    "edited",
    "deleted",
    "reaction",
    "member_added",
    "member_removed",
    "entry",
    "reset",
    "failed",
    "error",
    "typing",
    "receipt",
    "event",
    "presence",
    "left",
]


@dataclass(frozen=True, slots=True)
class ErrorInfo:
    """Why the server refused something: a `code` for programs, a `message` for people."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Reaction:
    """One emoji on a message: how many users gave it, and whether this user did."""

    emoji: str
    count: int
    own: bool


@dataclass(frozen=True, slots=True)
class Message:
    """A message as it is shown. It never changes; `room.messages` has a new one after each change."""

    conversation_id: str | None
    sender_id: str
    sender_name: str
    content: str
    created_at: str
    seq: int | None = None
    id: str | None = None
    client_id: str | None = None
    reply_to: int | None = None
    data: Any = None
    is_ai: bool = False
    edited_at: str | None = None
    deleted: bool = False
    replies: int = 0
    reactions: tuple[Reaction, ...] = ()
    more_reactions: bool = False
    status: Status = "sent"
    error: ErrorInfo | None = None
    as_of: int = 0
    """The message shows all entries up to this seq."""


@dataclass(frozen=True, slots=True)
class Change:
    """Something that happened in a conversation; `frame` is the frame of the server, if there is one.

    `reset` says that `room.messages` was replaced: read it again.
    """

    kind: ChangeKind
    conversation_id: str
    message: Message | None = None
    frame: Frame | None = None


@dataclass(frozen=True, slots=True)
class ConnectionState:
    """The state of the connection. `error` says why it is `waiting` or `closed`."""

    phase: Phase
    error: ErrorInfo | None = None


class ChatError(Exception):
    """Base class of all errors of this package."""


class Refused(ChatError):
    """The server refused a command or a request, and no repetition can mend that."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


class ChatClosed(ChatError):
    """The chat was closed, by the user or by a refusal of the server."""

    def __init__(self, error: ErrorInfo | None = None) -> None:
        super().__init__("the chat is closed" if error is None else f"{error.code}: {error.message}")
        self.code = None if error is None else error.code


class OutboxFull(ChatError):
    """Too many commands wait for the server; see `limits.MAX_OUTBOX`."""


class TooManyConversations(ChatError):
    """Too many conversations are open; see `limits.MAX_OPEN`."""
