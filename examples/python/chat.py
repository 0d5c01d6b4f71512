"""A chat client for the terminal, in Python: prints what is said in a conversation and sends the lines you type.

    pip install websockets
    TOKEN=$(switchboard token --dev --user bob) python examples/python/chat.py lobby

SWITCHBOARD_URL names another server than ws://127.0.0.1:8000. The frames are described in docs/protocol/native.md.
"""

import asyncio
import json
import os
import sys
import uuid

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

URL = os.environ.get("SWITCHBOARD_URL", "ws://127.0.0.1:8000") + "/v1/ws"
CONVERSATION = sys.argv[1] if len(sys.argv) > 1 else "lobby"


class Chat:
    def __init__(self):
        self.socket = None
        self.cursor = 0  # the last entry of the log that came; after a lost connection, the server goes on from here
        self.unacked = {}  # client_id → frame; a frame is sent again until the server acks it

    async def listen(self):
        """Stays connected: `connect` as an iterator waits longer after every failure."""
        async for self.socket in connect(URL):
            try:
                await self.transmit({"type": "authenticate", "token": os.environ["TOKEN"]})
                async for text in self.socket:
                    await self.receive(json.loads(text))
            except ConnectionClosed:
                pass
            # 4400 to 4499 say that another try would fail in the same way, but for 4408: this client read too slowly.
            code = self.socket.close_code or 0
            if 4400 <= code <= 4499 and code != 4408:
                sys.exit(f"closed: {code} {self.socket.close_reason}")

    async def receive(self, frame):
        match frame["type"]:
            case "authenticated":
                await self.transmit({"type": "join", "conversation_id": CONVERSATION, "since_seq": self.cursor})
            case "joined":
                print(f"* joined {CONVERSATION}")
                for unacked in list(self.unacked.values()):
                    await self.transmit(unacked)
            case "resync":  # more was missed than a resume brings
                self.cursor = frame["head"]
                print(f"* entries before {frame['head']} were skipped")
            case "ack":
                self.unacked.pop(frame["client_id"], None)
            case "error":
                print(f"! {frame['code']}: {frame['message']}", file=sys.stderr)
                if not frame["retryable"]:
                    self.unacked.pop(frame.get("client_id"), None)
                else:
                    asyncio.create_task(self.retry(frame.get("client_id"), frame.get("retry_after_ms", 1000)))
            case "message":
                print(f"{frame['sender_name']}: {frame['content']}")
        # Entries (messages, edits, reactions, members) and acks have a seq, and come in its order.
        self.cursor = max(self.cursor, frame.get("seq", 0))

    async def retry(self, client_id, pause_ms):
        await asyncio.sleep(pause_ms / 1000)
        if client_id in self.unacked:
            await self.transmit(self.unacked[client_id])

    async def transmit(self, frame):
        try:
            await self.socket.send(json.dumps(frame))
        except (AttributeError, ConnectionClosed):
            pass  # not connected; unacked frames are sent when the conversation is joined again

    async def type_lines(self):
        keyboard = asyncio.StreamReader()  # of Unix; asyncio can't read a console of Windows
        protocol = asyncio.StreamReaderProtocol(keyboard)
        await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
        while line := await keyboard.readline():
            content, client_id = line.decode().rstrip("\n"), str(uuid.uuid4())
            frame = {"type": "send", "conversation_id": CONVERSATION, "content": content, "client_id": client_id}
            self.unacked[client_id] = frame
            await self.transmit(frame)


async def main():
    chat = Chat()
    await asyncio.gather(chat.listen(), chat.type_lines())


asyncio.run(main())
