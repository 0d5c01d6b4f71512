"""WebSockets in plain Python, as much as a client of the native dialect needs: the load then runs in an official image
of Python without installing anything, so also in a cluster without a way to the internet."""

import asyncio
import base64
import hashlib
import os
import ssl
import struct
from urllib.parse import urlsplit

GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
TEXT, CLOSE, PING, PONG = 1, 8, 9, 10
# The server pings every 25 s, so a socket that is silent for longer than two pings is dead.
SILENCE = 60
LONGEST = 16 * 1024 * 1024


class Closed(Exception):
    """The socket has ended, with the code and the reason of the close; 1006 if there was none."""

    def __init__(self, code=1006, reason=""):
        super().__init__(f"{code} {reason}".strip())
        self.code, self.reason = code, reason


class Socket:
    """One end of a WebSocket; a client masks what it sends."""

    def __init__(self, reader, writer, masks=True):
        self.reader, self.writer, self.masks = reader, writer, masks

    async def send(self, text):
        await self._transmit(TEXT, text.encode())

    async def receive(self):
        """The next text; answers pings meanwhile."""
        parts = []
        while True:
            try:
                async with asyncio.timeout(SILENCE):
                    final, kind, payload = await self._frame()
            except (TimeoutError, OSError, asyncio.IncompleteReadError) as error:
                self.abort()
                raise Closed(1006, type(error).__name__) from error
            if kind == PING:
                await self._transmit(PONG, payload)
            elif kind == CLOSE:
                code = struct.unpack("!H", payload[:2])[0] if len(payload) >= 2 else 1005
                await self.close(code)
                raise Closed(code, payload[2:].decode(errors="replace"))
            elif kind != PONG:
                parts.append(payload)
                if final:
                    return b"".join(parts).decode()

    async def close(self, code=1000):
        """Says goodbye if that is still possible, and ends the connection."""
        try:
            await self._transmit(CLOSE, struct.pack("!H", code if code != 1005 else 1000))
        except Closed:
            return
        self.writer.close()

    def abort(self):
        self.writer.transport.abort()

    async def _frame(self):
        first, second = await self.reader.readexactly(2)
        length = second & 127
        if length >= 126:
            width = 2 if length == 126 else 8
            length = int.from_bytes(await self.reader.readexactly(width), "big")
        if length > LONGEST:
            raise Closed(1009, f"a frame of {length} bytes")
        mask = await self.reader.readexactly(4) if second & 128 else None
        payload = await self.reader.readexactly(length)
        return bool(first & 128), first & 15, _masked(payload, mask) if mask else payload

    async def _transmit(self, kind, payload):
        size = len(payload)
        bit = 128 if self.masks else 0
        if size < 126:
            head = struct.pack("!BB", 128 | kind, bit | size)
        elif size < 65536:
            head = struct.pack("!BBH", 128 | kind, bit | 126, size)
        else:
            head = struct.pack("!BBQ", 128 | kind, bit | 127, size)
        if self.masks:
            mask = os.urandom(4)
            head, payload = head + mask, _masked(payload, mask)
        try:
            self.writer.write(head + payload)
            await self.writer.drain()
        except OSError as error:
            raise Closed(1006, type(error).__name__) from error


def _masked(payload, mask):
    size = len(payload)
    pattern = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(pattern, "big")).to_bytes(size, "big")


def answer_to(key):
    """What a server answers to the key of a handshake."""
    return base64.b64encode(hashlib.sha1((key + GUID).encode()).digest()).decode()


async def connect(url, timeout=5):
    """Opens a WebSocket (ws:// or wss://); fails with Closed or OSError."""
    parts = urlsplit(url)
    secure = parts.scheme == "wss"
    try:
        async with asyncio.timeout(timeout):
            port, tls = (443, ssl.create_default_context()) if secure else (80, None)
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port or port, ssl=tls)
            try:
                await _shake_hands(reader, writer, parts)
            except BaseException:
                writer.transport.abort()
                raise
    except (TimeoutError, asyncio.IncompleteReadError) as error:
        raise Closed(1006, f"no answer from {parts.netloc}") from error
    return Socket(reader, writer)


async def _shake_hands(reader, writer, parts):
    key = base64.b64encode(os.urandom(16)).decode()
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    lines = [f"GET {path} HTTP/1.1", f"Host: {parts.netloc}", "Upgrade: websocket", "Connection: Upgrade",
             f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13", "", ""]  # fmt: skip
    writer.write("\r\n".join(lines).encode())
    await writer.drain()
    status, *headers = (await reader.readuntil(b"\r\n\r\n")).decode(errors="replace").split("\r\n")
    if status.split()[1:2] != ["101"]:
        raise Closed(1006, f"the answer to the handshake was {status}")
    accepted = {name.lower(): value.strip() for name, _, value in (header.partition(":") for header in headers)}
    if accepted.get("sec-websocket-accept") != answer_to(key):
        raise Closed(1006, "the answer to the handshake has a wrong key")
