"""Async iterators over changes, with bounded queues."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Generic, Self, TypeVar

from . import limits
from .model import ChatClosed

T = TypeVar("T")


class Changes(Generic[T]):
    """What happens from its creation on.

    It ends when the application closes the chat, and raises ChatClosed if the server ends it.
    At most `limits.MAX_QUEUE` items wait. If the reader is slower, they are replaced by one item that says so.
    """

    def __init__(self, wanted: Callable[[T], bool], overflow: Callable[[T], T]) -> None:
        self._wanted = wanted
        self._overflow = overflow
        self._items: deque[T] = deque()
        self._ready = asyncio.Event()
        self._ended = False
        self._error: ChatClosed | None = None

    def put(self, item: T) -> None:
        """Adds an item, if the reader wants it."""
        if self._ended or not self._wanted(item):
            return
        if len(self._items) >= limits.MAX_QUEUE:
            self._items.clear()
            item = self._overflow(item)
        self._items.append(item)
        self._ready.set()

    def end(self, error: ChatClosed | None = None) -> None:
        """No further item comes. Those that wait are still read."""
        self._ended = True
        self._error = error
        self._ready.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        while not self._items:
            if self._ended:
                if self._error is not None:
                    raise self._error
                raise StopAsyncIteration
            self._ready.clear()
            await self._ready.wait()
        return self._items.popleft()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()
