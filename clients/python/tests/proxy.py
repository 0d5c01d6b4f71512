"""A TCP proxy that misbehaves: it cuts connections, swallows bytes, and refuses to connect."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass


@dataclass(eq=False)
class Link:
    """One connection of a client, and where it goes."""

    port: int
    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    black_hole: bool = False


class Proxy:
    """Sends connections to the first port that accepts them."""

    def __init__(self) -> None:
        self.targets: list[int] = []
        self.links: list[Link] = []
        self.port = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def listen(self) -> None:
        """Begins to accept."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"ws://127.0.0.1:{self.port}"

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for port in self.targets:
            try:
                upstream, server = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                continue
            link = Link(port, writer, server)
            self.links.append(link)
            for source, target in ((reader, server), (upstream, writer)):
                task = asyncio.create_task(self._pump(link, source, target))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            return
        writer.transport.abort()

    async def _pump(self, link: Link, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65_536):
                if not link.black_hole:
                    target.write(data)
                    await target.drain()
        except OSError:
            pass
        if not link.black_hole:
            self.cut(link)

    def cut(self, link: Link) -> None:
        """Ends a connection without a word."""
        if link in self.links:
            self.links.remove(link)
        link.client.transport.abort()
        link.server.transport.abort()

    def swallow(self) -> None:
        """From now on nothing comes through on the connections that are open, and nobody is told."""
        for link in self.links:
            link.black_hole = True

    async def close(self) -> None:
        """Ends everything."""
        if self._server is not None:
            self._server.close()
        for link in list(self.links):
            self.cut(link)
        await asyncio.gather(*self._tasks, return_exceptions=True)
