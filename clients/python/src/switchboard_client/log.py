"""The log of one conversation: which entries were applied, and the messages that they make.

Entries may come in any order and repeatedly. Each takes effect once, in the order of `seq`.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import replace
from typing import Any

from . import limits
from .model import Frame, Message, Reaction


def message_of(frame: Frame, as_of: int) -> Message:
    """The message that a `message` frame or an item of a page describes, with all entries up to `as_of`."""
    return Message(
        conversation_id=frame.get("conversation_id"),
        sender_id=frame["sender_id"],
        sender_name=frame.get("sender_name", ""),
        content=frame.get("content", ""),
        created_at=frame["created_at"],
        seq=frame["seq"],
        id=frame.get("id"),
        client_id=frame.get("client_id"),
        reply_to=frame.get("reply_to"),
        data=frame.get("data"),
        is_ai=frame.get("is_ai", False),
        edited_at=frame.get("edited_at"),
        deleted=frame.get("deleted", False),
        replies=frame.get("replies", 0),
        reactions=tuple(Reaction(one["emoji"], one["count"], one["own"]) for one in frame.get("reactions", ())),
        more_reactions=frame.get("more_reactions", False),
        as_of=as_of,
    )


def _react(message: Message, emoji: str, active: bool, own: bool) -> tuple[Reaction, ...]:
    old = next((one for one in message.reactions if one.emoji == emoji), Reaction(emoji, 0, False))
    if own and old.own == active:
        return message.reactions
    new = Reaction(emoji, old.count + (1 if active else -1), active if own else old.own)
    others = tuple(new if one is old else one for one in message.reactions)
    return tuple(one for one in (others if old in message.reactions else (*others, new)) if one.count > 0)


def changed(message: Message, entry: Frame, user: str | None) -> Message:
    """The message after an entry about it: an answer, an edit, a deletion or a reaction."""
    changes: dict[str, Any] = {"as_of": max(message.as_of, entry.get("seq") or 0)}
    match entry["type"]:
        case "message":
            changes["replies"] = message.replies + 1
        case "message_deleted":
            changes |= {"deleted": True, "content": "", "data": None, "reactions": (), "more_reactions": False}
        case _ if message.deleted:
            pass
        case "reaction":
            own = entry["sender_id"] == user
            changes["reactions"] = _react(message, entry["emoji"], entry["active"], own)
        case "message_edited":
            changes |= {"content": entry.get("content", ""), "edited_at": entry["created_at"]}
            if "data" in entry:
                changes["data"] = entry["data"]
    return replace(message, **changes)


def target_of(entry: Frame) -> int | None:
    """The seq of the message that an entry is about."""
    target = entry.get("reply_to") if entry["type"] == "message" else entry.get("target_seq")
    return target if isinstance(target, int) else None


class Log:
    """Entries and messages of one conversation."""

    def __init__(self) -> None:
        self.cursor: int | None = None
        """Every entry up to this seq was applied. An ack moves it only if nothing before the ack is missing."""
        self.head = 0
        """The newest seq that is known to exist."""
        self.messages: list[Message] = []
        """In the order of `seq`. Messages beyond a gap are shown here too."""
        self.held: dict[int, Frame] = {}
        """Entries beyond a gap. They wait for those before them."""
        self.loaded = False
        """False until the newest page came, and again while a newer one has to replace the messages."""
        self.before: int | None = None
        """The `before_seq` of the next older page; None if there is none."""
        self.generation = 0
        """Counts replacements, so that a page requested before one is not added after it."""
        self.keep = limits.KEEP_MESSAGES
        self._recorders: list[list[Frame]] = []

    @property
    def has_gap(self) -> bool:
        """True if entries are missing that exist."""
        return self.cursor is not None and self.cursor < self.head

    def find(self, seq: int) -> Message | None:
        """The message with this seq."""
        at = self._position(seq)
        return self.messages[at] if at < len(self.messages) and self.messages[at].seq == seq else None

    def find_own(self, client_id: str, user: str | None) -> Message | None:
        """The newest message that this user sent with this client_id."""
        own = (one for one in reversed(self.messages) if one.client_id == client_id and one.sender_id == user)
        return next(own, None)

    def _position(self, seq: int) -> int:
        return bisect_left(self.messages, seq, key=lambda one: one.seq or 0)

    def receive(self, entry: Frame, user: str | None) -> list[Frame]:
        """Takes an entry in, and returns the entries that it lets apply, in their order.

        A message shows at once. Other entries wait until those before them were applied.
        """
        seq: int = entry["seq"]
        self.head = max(self.head, seq)
        if self.cursor is not None and seq <= self.cursor:
            return []
        if len(self.held) >= limits.MAX_HELD and seq not in self.held and seq != (self.cursor or 0) + 1:
            # With a cursor, the server sends the entry again when the gap is closed.
            if self.cursor is not None:
                return []
            del self.held[min(self.held)]
        if entry["type"] == "message":
            self._insert(entry)
        self.held[seq] = entry
        return self._drain(user)

    def _insert(self, entry: Frame) -> None:
        at = self._position(entry["seq"])
        if at < len(self.messages) and self.messages[at].seq == entry["seq"]:
            return
        self.messages.insert(at, message_of(entry, entry["seq"]))
        # A page on its way would leave a hole between itself and what a trim left.
        if len(self.messages) > self.keep + limits.PAGE and not self._recorders:
            del self.messages[: len(self.messages) - self.keep]
            self.before = self.messages[0].seq

    def _drain(self, user: str | None) -> list[Frame]:
        applied: list[Frame] = []
        while self.cursor is not None and (entry := self.held.pop(self.cursor + 1, None)):
            self.cursor += 1
            for recorder in self._recorders:
                recorder.append(entry)
            self._apply(entry, user)
            applied.append(entry)
        return applied

    def _apply(self, entry: Frame, user: str | None) -> None:
        if entry["type"] == "message":
            self._insert(entry)
        target = target_of(entry)
        at = self._position(target or 0)
        if target is None or at >= len(self.messages) or self.messages[at].seq != target:
            return
        if self.messages[at].as_of < entry["seq"]:
            self.messages[at] = changed(self.messages[at], entry, user)

    def start(self, head: int, user: str | None) -> list[Frame]:
        """Continues after `head`: entries up to there come with the newest page. Returns the entries that now apply."""
        self._replace()
        self.cursor = head
        self.head = max(self.head, head)
        self.held = {seq: entry for seq, entry in self.held.items() if seq > head}
        return self._drain(user)

    def set_back(self, head: int) -> None:
        """Forgets what is beyond `head`: the server sends it again, or has lost it."""
        self._replace()
        self.cursor = self.head = head
        self.held.clear()
        self.messages = [one for one in self.messages if (one.seq or 0) <= head]

    def forget(self) -> None:
        """Forgets everything."""
        self._replace()
        self.cursor, self.head = None, 0
        self.held.clear()
        self.messages.clear()

    def _replace(self) -> None:
        self.loaded = False
        self.before = None
        self.generation += 1

    def record(self) -> list[Frame]:
        """Begins to record the entries that apply from now on: the page that is asked for now may not show them."""
        recorder: list[Frame] = []
        self._recorders.append(recorder)
        return recorder

    def stop_recording(self, recorder: list[Frame]) -> None:
        """Ends a recording without its page."""
        self._recorders = [one for one in self._recorders if one is not recorder]

    def stop_recordings(self) -> None:
        """Ends all recordings: their pages will not come."""
        self._recorders.clear()

    def add_page(self, page: Frame, recorder: list[Frame], older: bool, user: str | None) -> int:
        """Adds a page: the newest one, which replaces the messages that it covers, or an older one.

        Returns the number of messages on the page.
        """
        as_of: int = page["as_of"]
        messages = [message_of(one, as_of) for one in reversed(page["messages"])]
        last = (messages[-1].seq or 0) if messages else 0
        bound = last if older else as_of
        self.messages = messages + [one for one in self.messages if (one.seq or 0) > bound]
        self.loaded = True
        self.before = page.get("next_before_seq")
        self.keep = max(limits.KEEP_MESSAGES, len(self.messages) if older else 0)
        self.stop_recording(recorder)
        for entry in recorder:
            self._apply(entry, user)
        return len(messages)
