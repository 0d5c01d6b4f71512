"""What the application holds of one conversation."""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING, Any

from .changes import Changes
from .log import message_of
from .model import Change, ErrorInfo, Frame, Message, Refused
from .requests import Lost

if TYPE_CHECKING:
    from .chat import Chat

UNSET: Any = object()


def _message(content: str, data: Any, reply_to: int | None, persona_id: str | None, client_id: str | None) -> Frame:
    optional = {"data": data, "reply_to": reply_to, "persona_id": persona_id}
    frame: Frame = {"type": "send", "content": content, "client_id": client_id or str(uuid.uuid4())}
    return frame | {key: one for key, one in optional.items() if one is not None}


class Conversation:
    """One conversation. Made by `Chat.conversation` and `Chat.dm`."""

    def __init__(self, chat: Chat, key: str) -> None:
        self._chat = chat
        self._key = key

    @property
    def id(self) -> str | None:
        """The id; None while that of a direct conversation is not known."""
        name = self._chat.machine.rooms.resolve(self._key)
        return None if name.startswith("/") else name

    @property
    def messages(self) -> list[Message]:
        """The messages, oldest first: those that are stored, then those that wait or failed."""
        return self._chat.machine.messages(self._key)

    @property
    def cursor(self) -> int | None:
        """The client has every entry up to this seq. `Chat.conversation(id, since=…)` continues there."""
        room = self._chat.machine.rooms.find(self._key)
        return None if room is None else room.log.cursor

    @property
    def error(self) -> ErrorInfo | None:
        """Why the server refused to let the client listen."""
        return self._chat.machine.error(self._key)

    def changes(self) -> Changes[Change]:
        """What happens from now on: entries in the order of their seqs, each once, and what is not stored."""
        rooms = self._chat.machine.rooms
        return self._chat.subscribe(lambda change: change.conversation_id == rooms.resolve(self._key))

    async def loaded(self) -> None:
        """Waits until the newest messages are there."""
        async with self.changes() as changes:
            while True:
                room = self._chat.machine.rooms.find(self._key)
                if room is not None and room.log.loaded:
                    return
                if self.error is not None:
                    raise Refused(self.error.code, self.error.message)
                await anext(changes)

    async def load_older(self) -> int:
        """Adds the next older page to `messages`. Returns the number of its messages, 0 at the beginning."""
        answer = await self._chat.settle(lambda token: self._chat.machine.rooms.load_older(self._key, token))
        return int(answer["count"])

    def post(
        self,
        content: str = "",
        *,
        data: Any = None,
        reply_to: int | None = None,
        persona_id: str | None = None,
        client_id: str | None = None,
    ) -> str:
        """Puts a message into the outbox and returns its client_id. It is sent until the server has it."""
        frame = _message(content, data, reply_to, persona_id, client_id)
        self._submit(frame)
        return str(frame["client_id"])

    async def send(
        self,
        content: str = "",
        *,
        data: Any = None,
        reply_to: int | None = None,
        persona_id: str | None = None,
        client_id: str | None = None,
    ) -> Message:
        """Like `post`, and waits until the message is stored. A cancelled wait does not take the message back."""
        self._chat.check_open()
        answer = await asyncio.shield(self._submit(_message(content, data, reply_to, persona_id, client_id)))
        return message_of(answer, answer["seq"])

    async def edit(self, message: Message | int, content: str, *, data: Any = UNSET) -> None:
        """Replaces the text of an own message, and its data if they are given (None removes them)."""
        frame: Frame = {"type": "edit", "content": content}
        if data is not UNSET:
            frame["data"] = data
        await self._change(message, frame)

    async def delete(self, message: Message | int) -> None:
        """Deletes a message."""
        await self._change(message, {"type": "delete"})

    async def react(self, message: Message | int, emoji: str, active: bool = True) -> None:
        """Adds a reaction, or takes it back."""
        await self._change(message, {"type": "react", "emoji": emoji, "active": active})

    async def _change(self, message: Message | int, frame: Frame) -> None:
        seq = message if isinstance(message, int) else message.seq
        target = None if isinstance(message, int) or seq is not None else message.client_id
        if seq is not None:
            frame = {**frame, "seq": seq}
        elif target is None:
            raise ValueError("the message has neither a seq nor a client_id")
        self._chat.check_open()
        await asyncio.shield(self._submit({**frame, "client_id": str(uuid.uuid4())}, target))

    def _submit(self, frame: Frame, target: str | None = None) -> asyncio.Future[Frame]:
        name = self._chat.machine.rooms.resolve(self._key)
        to = {"recipient_id": name[1:]} if name.startswith("/") else {"conversation_id": name}
        return self._chat.submit({**frame, **to}, target)

    def retry(self, client_id: str) -> None:
        """Sends a failed message again."""
        self._chat.step(lambda: self._chat.machine.outbox.retry(client_id))

    def discard(self, client_id: str) -> None:
        """Drops a failed message."""
        self._chat.step(lambda: self._chat.machine.outbox.discard(client_id))

    def mark_read(self, seq: int | None = None) -> None:
        """Moves this user's read mark up to a seq, or to the newest message."""
        self._chat.step(lambda: self._chat.machine.rooms.mark_read(self._key, seq))

    def typing(self, active: bool = True) -> None:
        """Tells the others that this user types. It ends by itself after 5 s."""
        self._chat.step(lambda: self._chat.machine.typing(self._key, active))

    async def event(self, name: str, data: Any = None) -> None:
        """Passes something on to those who listen now. It is not stored, and not repeated if the connection ends."""
        to = {"conversation_id": self.id} if self.id is not None else {"recipient_id": self._key[1:]}
        extra = {} if data is None else {"data": data}
        await self._chat.request({"type": "event", "name": name, **to, **extra}, Lost.FAIL)

    def leave(self) -> None:
        """Stops listening and forgets the messages. What was posted is sent all the same."""
        self._chat.step(lambda: self._chat.machine.rooms.leave(self._key))
