"""Stands in for a node: enough of the native dialect and of REST for the load, with a fault of choice at the fifth
message of a conversation, which a real node has not. `victim` is that message's client_id.
"""

import asyncio
import base64
import json
import re
import sys
import threading
from contextlib import contextmanager
from urllib.parse import parse_qs, urlsplit

from conftest import ROOT

sys.path.insert(0, str(ROOT / "scripts" / "cluster-check"))
import ws  # noqa: E402

FIFTH = 5
FAULTS = {
    "none": None,
    "an acked message is not stored": "lost",
    "a listener misses a message": "lost",
    "a message is stored twice": "doubled",
    "a listener gets a message twice": "doubled",
    "a listener gets two messages in the other order": "order",
    "an ack names another seq": "moved",
    "a text is changed": "changed",
}


class Room:
    def __init__(self):
        self.log, self.listeners, self.sends, self.held = [], {}, 0, None

    def keep(self, user, frame):
        entry = {"type": "message", "conversation_id": frame["conversation_id"], "seq": len(self.log) + 1}
        entry |= {"sender_id": user, "client_id": frame["client_id"], "content": frame["content"]}
        self.log.append(entry)
        return entry


class Node:
    def __init__(self, fault):
        self.fault, self.victim, self.rooms, self.urls = fault, None, {}, []

    async def serve(self, reader, writer):
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            headers = {name.lower(): value for name, value in re.findall(r"^([\w-]+): (.*)\r$", head, re.MULTILINE)}
            if "sec-websocket-key" in headers:
                answer = ws.answer_to(headers["sec-websocket-key"])
                upgrade = "Upgrade: websocket\r\nConnection: Upgrade"
                writer.write(f"HTTP/1.1 101 x\r\n{upgrade}\r\nSec-WebSocket-Accept: {answer}\r\n\r\n".encode())
                await self.session(ws.Socket(reader, writer, masks=False))
            else:
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                text = json.dumps(self.rest(head.split()[1], body)).encode()
                writer.write(b"HTTP/1.1 200 x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(text), text))
                await writer.drain()
        except (ws.Closed, OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    def rest(self, path, body):
        if body:
            room = json.loads(body)["id"]
            self.rooms.setdefault(room, Room())
            return {"id": room}
        after = int(parse_qs(urlsplit(path).query)["after_seq"][0])
        page = [entry for entry in self.rooms[path.split("/")[4]].log if entry["seq"] > after][:100]
        more = {"next_after_seq": page[-1]["seq"]} if len(page) == 100 else {}  # noqa: PLR2004
        return {"messages": page[::-1]} | more

    async def session(self, socket):
        user, room = None, None
        try:
            while True:
                frame = json.loads(await socket.receive())
                if frame["type"] == "authenticate":
                    claims = frame["token"].split(".")[1]
                    user = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["sub"]
                    await self.tell(socket, {"type": "authenticated", "user_id": user, "epoch": 1})
                elif frame["type"] == "join":
                    room = self.rooms[frame["conversation_id"]]
                    head = {"conversation_id": frame["conversation_id"], "head": len(room.log)}
                    await self.tell(socket, {"type": "joined"} | head)
                    for entry in room.log[frame["since_seq"] :]:
                        await self.tell(socket, entry)
                    room.listeners[socket] = user
                else:
                    await self.store(room, socket, user, frame)
        finally:
            if room:
                room.listeners.pop(socket, None)

    async def tell(self, socket, frame):
        await socket.send(json.dumps(frame))

    async def store(self, room, socket, user, frame):
        room.sends += 1
        broken = self.fault if room.sends == FIFTH and room is next(iter(self.rooms.values())) else "none"
        entry = room.keep(user, frame)
        seq = entry["seq"]
        if broken != "none":
            self.victim = frame["client_id"]
        if broken == "an acked message is not stored":
            room.log.pop()
        elif broken == "a message is stored twice":
            await self.deliver(room, room.keep(user, frame), None, broken)
        elif broken == "an ack names another seq":
            seq += 1
        elif broken == "a text is changed":
            entry["content"] = "something else"
        await self.deliver(room, entry, socket, broken)
        ack = {"type": "ack", "client_id": frame["client_id"], "conversation_id": frame["conversation_id"], "seq": seq}
        await self.tell(socket, ack)

    async def deliver(self, room, entry, sender, broken):
        """Tells the listeners; the first one that is not the sender meets the fault."""
        others = [socket for socket in room.listeners if socket is not sender]
        for number, socket in enumerate(others):
            first = number == 0 and sender is not None
            if first and room.held and socket is room.held[0]:
                await self.tell(socket, entry)
                await self.tell(socket, room.held[1])
                room.held = None
            elif first and broken == "a listener gets two messages in the other order":
                room.held = socket, entry
            elif not (first and broken == "a listener misses a message"):
                await self.tell(socket, entry)
                if first and broken == "a listener gets a message twice":
                    await self.tell(socket, entry)


@contextmanager
def node(fault):
    """A stand-in on a free port, in a thread of its own."""
    made, loop, ready = Node(fault), asyncio.new_event_loop(), threading.Event()

    async def listen():
        server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
        made.url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        ready.set()

    def work():
        loop.create_task(listen())
        loop.run_forever()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield made
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
