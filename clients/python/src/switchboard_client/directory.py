"""Finds the ids of direct conversations, which the application names by their users."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from .core import Core
from .model import Frame
from .requests import Requests


class Directory:
    """Reads the list of the user's conversations, while a direct one is open whose id is not known."""

    def __init__(
        self, core: Core, requests: Requests, wanted: Callable[[], bool], found: Callable[[str, str], None]
    ) -> None:
        self._core = core
        self._requests = requests
        self._wanted = wanted
        self._found = found
        self._reading = False

    def look_up(self) -> None:
        """Reads the list once, unless nothing is wanted or it is being read."""
        if self._core.online and not self._reading and self._wanted():
            self._reading = True
            self._read(False, 0)

    def reset(self) -> None:
        """The socket ended."""
        self._reading = False

    def _read(self, archived: bool, offset: int) -> None:
        frame: Frame = {"type": "conversations", "archived": archived, "limit": 100, "offset": offset}
        self._requests.add(frame, partial(self._answer, archived))

    def _answer(self, archived: bool, answer: Frame) -> None:
        for one in answer.get("conversations", ()):
            others = [member["user_id"] for member in one["members"] if member["user_id"] != self._core.user]
            if not one["is_group"] and len(others) == 1:
                self._found(f"/{others[0]}", one["conversation_id"])
        if self._wanted() and "next_offset" in answer:
            self._read(archived, answer["next_offset"])
        elif self._wanted() and not archived and "conversations" in answer:
            self._read(True, 0)
        else:
            self._reading = False
