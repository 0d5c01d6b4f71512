"""Pages of history: the newest one, which replaces the messages, and older ones."""

from __future__ import annotations

from functools import partial

from . import limits
from .core import Core, Notify, Settled, error_of
from .model import Change, ErrorInfo, Frame
from .outbox import Outbox
from .requests import Requests
from .room import Room


class Pages:
    """Reads pages, one at a time for each conversation and direction."""

    def __init__(self, core: Core, requests: Requests, outbox: Outbox) -> None:
        self._core = core
        self._requests = requests
        self._outbox = outbox

    def read_newest(self, room: Room) -> None:
        """Reads the newest page, unless it is there or on its way."""
        if not room.log.loaded and room.reading != room.log.generation:
            room.reading = room.log.generation
            self._request(room, {}, False)
        self._read_older(room)

    def read_older(self, room: Room, token: int) -> None:
        """Reads the next older page, and settles the token with the number of its messages."""
        room.older.append(token)
        self._read_older(room)

    def reset(self, room: Room) -> None:
        """The socket ended: what is still wanted is asked for after the next join."""
        room.reading, room.reading_older = None, False
        room.log.stop_recordings()

    def give_up(self, room: Room, result: int | ErrorInfo = 0) -> None:
        """Settles all who wait for older pages."""
        answer: Frame | ErrorInfo = {"type": "page", "count": result} if isinstance(result, int) else result
        for token in room.older:
            self._core.emit(Settled(token, answer))
        room.older.clear()

    def _read_older(self, room: Room) -> None:
        if not room.older or not room.log.loaded or room.reading_older:
            return
        if room.log.before is None:
            self.give_up(room)
        else:
            room.reading_older = True
            self._request(room, {"before_seq": room.log.before}, True)

    def _request(self, room: Room, position: Frame, older: bool) -> None:
        frame = {"type": "history", "conversation_id": room.id, "limit": limits.PAGE, **position}
        recorder = room.log.record()
        self._requests.add(frame, partial(self._answer, room, room.log.generation, recorder, older))

    def _answer(self, room: Room, generation: int, recorder: list[Frame], older: bool, answer: Frame) -> None:
        if older:
            room.reading_older = False
        if generation != room.log.generation:
            # The log was replaced meanwhile; its new page is on its way.
            room.log.stop_recording(recorder)
            self._read_older(room)
            return
        if answer["type"] != "history":
            room.log.stop_recording(recorder)
            self.give_up(room, error_of(answer))
            return
        count = room.log.add_page(answer, recorder, older, self._core.user)
        for one in answer["messages"]:
            self._outbox.stored(one)
            if one["sender_id"] != self._core.user:
                room.delivered, room.read = max(room.delivered, one["seq"]), max(room.read, one["seq"])
        self._core.emit(Notify(Change("reset", room.id)))
        if older:
            self.give_up(room, count)
        self._read_older(room)
