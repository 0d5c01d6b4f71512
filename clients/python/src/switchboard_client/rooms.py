"""Conversations: joining and resuming, gaps, and read marks."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from . import limits
from .core import Core, Notify, error_of
from .directory import Directory
from .log import changed, target_of
from .model import Change, ChangeKind, Frame, Message, TooManyConversations
from .outbox import Outbox
from .pages import Pages
from .requests import Lost, Requests
from .room import Room

CHANGES: dict[str, ChangeKind] = {
    "message": "message",
    "message_edited": "edited",
    "message_deleted": "deleted",
    "reaction": "reaction",
    "member_added": "member_added",
    "member_removed": "member_removed",
}


class Rooms:
    """All conversations that the client knows."""

    def __init__(self, core: Core, requests: Requests) -> None:
        self._core = core
        self._requests = requests
        self.directory = Directory(core, requests, self._unnamed, self.name)
        self.outbox = Outbox(core, self.resolve, self._may_send)
        self.pages = Pages(core, requests, self.outbox)
        self._rooms: dict[str, Room] = {}
        self._names: dict[str, str] = {}
        self._places: dict[str, int] = {}

    def resolve(self, key: str) -> str:
        """The id of a conversation, also of a direct one if it is known."""
        return self._names.get(key, key)

    def find(self, key: str) -> Room | None:
        """The conversation, if the client knows it."""
        return self._rooms.get(self.resolve(key))

    def get(self, key: str) -> Room:
        """The conversation, which is made known if it is not."""
        room = self.find(key)
        if room is None:
            room = self._rooms[self.resolve(key)] = Room(self.resolve(key))
            room.log.keep = limits.KEEP_MESSAGES_IDLE
            self._forget_idle(room)
        return room

    def _may_send(self, key: str) -> bool:
        room = self.find(key)
        return room is None or room.joined != "asked"

    def _forget_idle(self, new: Room) -> None:
        if len(self._rooms) <= limits.MAX_IDLE + limits.MAX_OPEN:
            return
        idle = (one for one in self._rooms.values() if not one.opened and one is not new and not self.outbox.of(one.id))
        if room := next(idle, None):
            del self._rooms[room.id]
            self._names = {key: name for key, name in self._names.items() if name != room.id}

    def open(self, key: str, since: int | None = None, epoch: int | None = None) -> Room:
        """Listens to a conversation: from now on, or from a seq that the application kept, if it is of this epoch."""
        room = self.get(key)
        if not room.opened:
            self._make_place()
            room.opened = True
            room.log.keep = limits.KEEP_MESSAGES
            if room.log.cursor is None and since is not None and (epoch is None or self._core.epoch in (None, epoch)):
                room.log.start(since, self._core.user)
                room.epoch = epoch
            self.listen([room])
        elif room.refused:
            # The application asks again.
            room.refused = False
            self.listen([room])
        return room

    def leave(self, key: str) -> None:
        """Stops listening, and forgets the messages."""
        room = self.find(key)
        if room is None or not room.opened:
            return
        if self._core.online and room.joined != "no":
            # The answer has the ref. A `left` without one is a removal.
            self._requests.add({"type": "leave", "conversation_id": room.id}, lambda _: None)
        self._close(room)

    def _close(self, room: Room) -> None:
        room.opened, room.joined = False, "no"
        room.error, room.refused = None, False
        room.log.forget()
        room.log.keep = limits.KEEP_MESSAGES_IDLE
        self.pages.give_up(room)

    def _make_place(self) -> None:
        """If all places are taken, closes the conversation that was active least recently.

        Only with `follow`: then the next entry or hint opens it again, at its cursor.
        """
        opened = [one for one in self._rooms.values() if one.opened]
        if len(opened) < limits.MAX_OPEN:
            return
        room = next((one for one in opened if one.log.cursor is not None), None)
        if room is None or room.log.cursor is None or not self._core.config.follow:
            raise TooManyConversations(f"{limits.MAX_OPEN} conversations are open")
        self._places[room.id] = room.log.cursor
        if len(self._places) > limits.MAX_PLACES:
            del self._places[next(iter(self._places))]
        self._close(room)

    def _follow(self, conversation: str, cursor: int | None) -> Room | None:
        """Opens a conversation that the server joined by itself."""
        if not self._core.config.follow:
            return None
        room = self.get(conversation)
        try:
            self._make_place()
        except TooManyConversations:
            return None
        room.opened = True
        room.log.keep = limits.KEEP_MESSAGES
        cursor = self._places.pop(conversation, cursor)
        if room.log.cursor is None and cursor is not None:
            self._changed(room, room.log.start(cursor, self._core.user))
        return room

    # Joining

    def authenticated(self) -> None:
        """A socket is ready: listens to what is open."""
        for room in self._rooms.values():
            room.gap_at = None
            if room.epoch not in (None, self._core.epoch):
                room.log.forget()
            room.epoch = None
            # A user who was removed may be a member again by now.
            room.refused = False
        self.listen(list(self._rooms.values()))
        for room in list(self._rooms.values()):
            self._send_mark(room)

    def forget(self) -> None:
        """The store was set back, or another user connected: what is known of the logs may be wrong."""
        self._places.clear()
        for room in self._rooms.values():
            room.log.forget()
            room.delivered = room.read = room.mark = room.marked = 0
            self._core.emit(Notify(Change("reset", room.id)))

    def reset(self) -> None:
        """The socket ended."""
        for room in self._rooms.values():
            room.joined = "no"
            self.pages.reset(room)
        self.directory.reset()

    def listen(self, rooms: Iterable[Room]) -> None:
        """Joins conversations from their cursors, also again: then they are replayed. Without a cursor, from now on."""
        if not self._core.online:
            return
        since: list[Room] = []
        for room in rooms:
            if not room.opened or room.refused or room.joined == "asked":
                continue
            if room.unnamed:
                self.directory.look_up()
                continue
            room.joined = "asked"
            if room.log.cursor is not None:
                since.append(room)
            else:
                self._join(room)
        for at in range(0, len(since), limits.SYNC_CHUNK):
            chunk = {one.id: one.log.cursor for one in since[at : at + limits.SYNC_CHUNK]}
            self._requests.add({"type": "sync", "conversations": chunk}, partial(self._synced, list(chunk)))

    def _join(self, room: Room) -> None:
        room.joined = "asked"
        self._requests.add({"type": "join", "conversation_id": room.id}, partial(self._synced, [room.id]))

    def _synced(self, asked: list[str], answer: Frame) -> None:
        items = answer["conversations"] if answer["type"] == "synced" else [answer]
        if answer["type"] == "error":
            items = [{"conversation_id": one, "error": answer} for one in asked]
        for item in items:
            room = self.find(item["conversation_id"])
            if room is None or not room.opened:
                continue
            if error := item.get("error"):
                self._refused(room, error)
            else:
                self._joined(room, item["head"], "resync" in item or item.get("type") == "resync")
        self.outbox.send_all()

    def _refused(self, room: Room, error: Frame) -> None:
        room.joined = "no"
        if error.get("retryable"):
            self._core.timer("rejoin", room.id, self._core.pause(room.tries, error))
            room.tries += 1
            return
        self._lost(room, error)

    def _lost(self, room: Room, error: Frame) -> None:
        """The client may not listen. If the user becomes a member again, the server joins by itself."""
        known, room.error = room.error, error_of(error)
        room.joined, room.refused = "no", True
        self.pages.give_up(room, room.error)
        if known != room.error:
            self._core.emit(Notify(Change("left", room.id, None, error)))

    def rejoin(self, conversation: str) -> None:
        """The pause after a refused join is over."""
        if (room := self.find(conversation)) and room.joined == "no":
            self.listen([room])

    def _joined(self, room: Room, head: int, resync: bool) -> None:
        room.joined = "yes"
        room.error, room.refused, room.tries = None, False, 0
        log = room.log
        if resync:
            log.set_back(head)
        elif log.cursor is None or room.gap_tries > limits.GAP_TRIES:
            room.gap_tries = 0
            self._changed(room, log.start(max(head, log.cursor or 0), self._core.user))
            log.head = max([head, *log.held])
        log.head = max(log.head, head)
        self.pages.read_newest(room)
        self._watch(room)

    def on_unasked(self, frame: Frame) -> None:
        """`joined`, `resync` or `left` without a request: a change of members, or a store that was set back."""
        room = self.find(frame["conversation_id"])
        if frame["type"] == "left":
            if room is not None and room.opened:
                self._lost(room, {"code": "not_member", "message": "Removed from this conversation"})
            return
        if room is None or not room.opened:
            # A direct conversation that has a name only now may be one that is open.
            self.directory.look_up()
            room = self._follow(frame["conversation_id"], None)
        if room is None:
            return
        room.refused = False
        if frame["type"] == "resync" or room.log.cursor is None or frame["head"] <= room.log.cursor:
            self._joined(room, frame["head"], frame["type"] == "resync")
            if frame["type"] == "resync":
                self._core.emit(Notify(Change("reset", room.id)))
        elif room.joined != "asked":
            # Entries between the cursor and the head are missing.
            self.listen([room])

    def on_hint(self, frame: Frame) -> None:
        """Something was stored in a conversation of the user to which the socket does not listen."""
        room = self.find(frame["conversation_id"])
        if room is None or not room.opened:
            room = self._follow(frame["conversation_id"], None)
        if room is not None and room.joined == "no":
            self.listen([room])

    def _unnamed(self) -> bool:
        return any(one.opened and one.unnamed for one in self._rooms.values())

    def name(self, key: str, conversation: str) -> None:
        """The server named a direct conversation."""
        if key in self._names or not (key in self._rooms or self.outbox.of(key)):
            return
        old = self._rooms.pop(key, None)
        self._names[key] = conversation
        if old is not None:
            room = self.open(conversation) if old.opened else self.get(conversation)
            room.older += old.older
            room.mark = max(room.mark, old.mark)

    # Entries

    def on_entry(self, entry: Frame) -> None:
        """An entry of a log came."""
        conversation = entry["conversation_id"]
        room = self.find(conversation)
        if room is None or not room.opened:
            room = self._follow(conversation, entry["seq"] - 1)
            if room is not None and room.joined == "no":
                self._joined(room, entry["seq"] - 1, False)
        if room is not None and room.opened:
            self.take(room, entry)
            # The order of the rooms is that of their activity.
            self._rooms[room.id] = self._rooms.pop(room.id)
        if entry["type"] == "message":
            self.outbox.stored(entry)

    def take(self, room: Room, entry: Frame) -> None:
        """Applies an entry, and those that waited for it."""
        self._changed(room, room.log.receive(entry, self._core.user))
        self._watch(room)

    def _changed(self, room: Room, applied: list[Frame]) -> None:
        for entry in applied:
            kind = CHANGES.get(entry["type"], "entry")
            if entry["type"] == "message":
                self.on_mark(room, entry["sender_id"], entry["seq"], entry["seq"])
            target = entry["seq"] if kind == "message" else target_of(entry)
            message = room.log.find(target) if target is not None else None
            if message is not None:
                message = room.with_status(message, self._core.user)
            self._core.emit(Notify(Change(kind, room.id, message, entry)))

    def on_mark(self, room: Room, user: str, delivered: int, read: int) -> None:
        """How far another user's mark is. Who answers has read what came before."""
        if user != self._core.user:
            room.delivered, room.read = max(room.delivered, delivered), max(room.read, read)

    def _watch(self, room: Room) -> None:
        """Sees to it that a gap does not last."""
        log = room.log
        if room.gap_at is None and room.opened and log.has_gap:
            room.gap_at = log.cursor
            self._core.timer("gap", room.id, limits.GAP_MS)

    def gap(self, conversation: str) -> None:
        """A gap was there for a while: asks for its entries, and in the end for the newest page."""
        room = self.find(conversation)
        if room is None:
            return
        was, room.gap_at = room.gap_at, None
        if not room.log.has_gap or room.log.cursor != was:
            room.gap_tries = 0
        elif room.joined == "yes":
            room.gap_tries += 1
            if room.gap_tries > limits.GAP_TRIES:
                self._join(room)
            else:
                self.listen([room])
        self._watch(room)

    def load_older(self, key: str, token: int) -> None:
        """Reads the next older page, and settles the token with the number of its messages."""
        self.pages.read_older(self.open(key), token)

    # Read marks

    def mark_read(self, key: str, seq: int | None) -> None:
        """Moves the user's read mark. It only moves forward, and is repeated until the server has it."""
        room = self.get(key)
        # A message beyond a gap would mark those as read that are missing.
        seqs = (one.seq or 0 for one in reversed(room.log.messages))
        newest = next((one for one in seqs if one <= (room.log.cursor or 0)), None)
        room.mark = max(room.mark, seq if seq is not None else newest or 0)
        self._send_mark(room)

    def _send_mark(self, room: Room) -> None:
        if room.marking or room.mark <= room.marked or not self._core.online or room.unnamed:
            return
        room.marking = True
        frame = {"type": "read", "conversation_id": room.id, "seq": room.mark}
        self._requests.add(frame, partial(self._marked, room, room.mark), Lost.REPEAT)

    def _marked(self, room: Room, mark: int, answer: Frame) -> None:
        room.marking = False
        room.marked = max(room.marked, mark)
        self._send_mark(room)

    # What is shown

    def messages(self, key: str) -> list[Message]:
        """The messages as they are shown: those that are stored, then those that wait."""
        room = self.find(key)
        if room is None:
            return self.outbox.overlay(self.resolve(key), [])
        user = self._core.user
        stored = [room.with_status(one, user) for one in room.log.messages]
        # The user's own edits show at once, also while entries before them are missing.
        own = [one for _, one in sorted(room.log.held.items()) if one["sender_id"] == user and one["type"] != "message"]
        for entry in own:
            stored = [changed(one, entry, user) if one.seq == target_of(entry) else one for one in stored]
        return self.outbox.overlay(room.id, stored)
