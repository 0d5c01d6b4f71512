"""An asyncio client for Switchboard: it reconnects, resumes without loss, and sends messages until they are stored."""

from .changes import Changes
from .chat import Chat
from .conversation import Conversation
from .model import (
    Change,
    ChatClosed,
    ChatError,
    ConnectionState,
    ErrorInfo,
    Message,
    OutboxFull,
    Reaction,
    Refused,
    TooManyConversations,
)

__all__ = [
    "Change",
    "Changes",
    "Chat",
    "ChatClosed",
    "ChatError",
    "ConnectionState",
    "Conversation",
    "ErrorInfo",
    "Message",
    "OutboxFull",
    "Reaction",
    "Refused",
    "TooManyConversations",
]
__version__ = "0.1.0"
