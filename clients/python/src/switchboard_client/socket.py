"""One WebSocket: reads and writes frames, and reports how it ended."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any, Protocol

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from . import limits
from .model import Frame

logger = logging.getLogger("switchboard_client")


class Owner(Protocol):
    """Who is told what happens to a socket."""

    def socket_opened(self, number: int) -> None:
        """The handshake is done."""

    def socket_frame(self, number: int, frame: Frame) -> None:
        """A frame came."""

    def socket_closed(self, number: int, code: int, reason: str, retry_after_ms: int | None) -> None:
        """The socket ended, or could not be opened."""


class Socket:
    """A WebSocket that runs in a task of its own."""

    def __init__(self, number: int, url: str, options: dict[str, Any], owner: Owner) -> None:
        self._number = number
        self._url = url
        # The machine sends pings of its own, so those of the library would only double them.
        self._options: dict[str, Any] = {
            "ping_interval": None,
            "open_timeout": limits.OPEN_TIMEOUT_MS / 1_000,
            "close_timeout": 1,
            "max_size": limits.MAX_FRAME_BYTES,
            **options,
        }
        self._owner = owner
        self._frames: asyncio.Queue[str] = asyncio.Queue()
        self.task = asyncio.create_task(self._run())

    def send(self, frame: Frame) -> bool:
        """Sends a frame soon. False if too many wait: the network takes nothing any more."""
        if self._frames.qsize() >= limits.MAX_UNSENT:
            return False
        self._frames.put_nowait(json.dumps(frame, ensure_ascii=False, separators=(",", ":")))
        return True

    def close(self) -> None:
        """Ends the socket. A peer that does not answer the close is left after a second."""
        self.task.cancel()

    async def _run(self) -> None:
        code, reason, retry_after_ms = 1006, "", None
        try:
            async with connect(self._url, **self._options) as connection:
                code, reason = await self._serve(connection)
        except InvalidStatus as refusal:
            response = refusal.response
            reason = f"HTTP {response.status_code}"
            seconds = response.headers.get("Retry-After", "")
            retry_after_ms = int(seconds) * 1_000 if seconds.isdecimal() else None
        except Exception as error:
            reason = reason or f"{type(error).__name__}: {error}"
        self._owner.socket_closed(self._number, code, reason, retry_after_ms)

    async def _serve(self, connection: ClientConnection) -> tuple[int, str]:
        self._owner.socket_opened(self._number)
        writer = asyncio.create_task(self._write(connection))
        try:
            async for text in connection:
                self._owner.socket_frame(self._number, json.loads(text))
                # Frames that are here already are read without a pause. Those who follow the changes need their turn.
                await asyncio.sleep(0)
        except ConnectionClosed:
            pass
        finally:
            writer.cancel()
        return connection.close_code or 1006, connection.close_reason or ""

    async def _write(self, connection: ClientConnection) -> None:
        try:
            while True:
                await connection.send(await self._frames.get())
        except ConnectionClosed:
            pass  # The reader reports it.
