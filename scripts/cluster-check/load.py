"""Chats over a deployment while it is disturbed, and checks in the end that nothing acked is lost, doubled or out of
order.

    JWT_SECRET=… python load.py --url ws://chat-switchboard:8000 --seconds 60
    python load.py --judge transcript.json

Users send with a client_id and repeat it until the ack, over as many connections as it takes; they listen and resume
with the last seq that they got. After --seconds, SIGTERM, or once --stop-file exists, nothing new is sent: the load
waits until every message is acked and every listener has it, and reads the history over REST and by a resume. The last
line is the verdict as JSON; the exit status is 1 if anything is wrong. Needs Python 3.11 and nothing else.
docs/protocol/native.md describes the frames.
"""

import argparse
import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import os
import random
import signal
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path

import ws
from judge import verdict

# A send without an answer is repeated after this time, on the same connection or another one.
PATIENCE = 10
# The longest wait before another connection; the first ones are shorter.
LONGEST_PAUSE = 2
# The last entries of a conversation that the resume at the end reads; the history has all.
RESUMED = 2000


def token(user, secret):
    """A token of the user for a day."""
    part = lambda value: base64.urlsafe_b64encode(value).rstrip(b"=")  # noqa: E731
    claims = {"sub": user, "iat": int(time.time()) - 5, "exp": int(time.time()) + 86400}
    head = b".".join(part(json.dumps(value).encode()) for value in ({"alg": "HS256", "typ": "JWT"}, claims))
    return (head + b"." + part(hmac.digest(secret.encode(), head, hashlib.sha256))).decode()


def entry(frame):
    """An entry of the log as the transcript has it."""
    return [frame["seq"], frame["type"], frame.get("client_id"), frame.get("content")]


class Conversation:
    def __init__(self, name, users):
        self.name, self.users = name, users
        self.sent, self.acks, self.audits = {}, [], []

    def record(self):
        streams = {user.name: user.stream for user in self.users}
        return {"sent": self.sent, "acks": self.acks, "streams": streams, "audits": self.audits}


class User:
    """Sends one message after another in a conversation, and listens to it."""

    def __init__(self, load, name, place):
        self.load, self.name, self.place = load, name, place
        self.conversation = None
        self.token = token(name, load.secret)
        self.socket, self.epoch, self.pause = None, None, 0.1
        self.joined = asyncio.Event()
        self.stream, self.cursor = [], 0
        self.pending, self.answered, self.number, self.acked = None, asyncio.Event(), 0, 0

    async def listen(self):
        """Stays connected; every new connection goes to the next node."""
        while True:
            url = self.load.urls[self.place % len(self.load.urls)]
            try:
                self.socket = await ws.connect(url + "/v1/ws")
                await self.transmit({"type": "authenticate", "token": self.token})
                while True:
                    await self.receive(json.loads(await self.socket.receive()))
            except (ws.Closed, OSError) as error:
                self.load.closes[str(getattr(error, "code", type(error).__name__))] += 1
            self.joined.clear()
            self.place += 1
            await asyncio.sleep(self.pause * random.uniform(0.5, 1))
            self.pause = min(self.pause * 2, LONGEST_PAUSE)

    async def transmit(self, frame):
        await self.socket.send(json.dumps(frame))

    async def receive(self, frame):
        mine = frame.get("conversation_id") == self.conversation.name
        match frame["type"]:
            case "authenticated":
                if self.epoch not in (None, frame["epoch"]):
                    self.load.problems.append(f"{self.name}: the epoch changed, so the database was set back")
                self.epoch = frame["epoch"]
                join = {"type": "join", "conversation_id": self.conversation.name, "since_seq": self.cursor}
                await self.transmit(join)
            case "joined" if mine:
                self.pause = 0.1
                self.joined.set()
                if self.pending:
                    await self.transmit(self.pending)
            case "resync" if mine:
                self.resync(frame["head"])
            case "ack" if mine:
                self.ack(frame)
            case "error":
                await self.refused(frame)
            case "restart":
                self.pause = max(self.pause, min(frame.get("retry_after_ms", 0) / 1000, LONGEST_PAUSE))
            case _ if mine and "seq" in frame:
                self.stream.append(entry(frame))
                self.cursor = max(self.cursor, frame["seq"])

    def ack(self, frame):
        client_id, seq = frame["client_id"], frame["seq"]
        self.conversation.acks.append([client_id, seq])
        self.stream.append([seq, "ack", client_id, None])
        self.cursor = max(self.cursor, seq)
        if self.pending and self.pending["client_id"] == client_id:
            self.pending = None
            self.acked += 1
            self.answered.set()

    def resync(self, head):
        """The load never misses more than a resume brings: the log was set back, or the server lost count."""
        join = f"the join of {self.conversation.name} from {self.cursor}"
        self.load.problems.append(f"{self.name}: {join} was answered with resync to {head}")
        self.cursor = head
        self.joined.set()

    async def refused(self, frame):
        """A refusal that may pass is repeated; one of a join needs another connection."""
        if frame.get("client_id") is None:
            await self.socket.close()
            raise ws.Closed(1000, frame["code"])
        if not frame["retryable"]:
            self.load.refused.append(f"{frame['client_id']}: {frame['code']}: {frame['message']}")
            self.pending = None
            self.answered.set()
            return
        asyncio.get_running_loop().call_later(frame.get("retry_after_ms", 500) / 1000, self.again, frame["client_id"])

    def again(self, client_id):
        if self.pending and self.pending["client_id"] == client_id and self.joined.is_set():
            self.load.start(self.repeat())

    async def repeat(self):
        with contextlib.suppress(ws.Closed, OSError):
            if self.pending:
                await self.transmit(self.pending)

    async def send(self):
        """One message at a time: the next one follows the ack."""
        while True:
            await asyncio.sleep(self.load.interval * random.uniform(0.5, 1.5))
            await self.joined.wait()
            if self.load.stopping.is_set():
                return
            self.number += 1
            client_id = f"{self.name}-{self.number}"
            content = f"{client_id} {'x' * random.randrange(100)}"
            frame = {"type": "send", "conversation_id": self.conversation.name, "content": content}
            frame["client_id"] = client_id
            self.conversation.sent[client_id] = {"user": self.name, "number": self.number, "content": content}
            self.answered.clear()
            self.pending = frame
            await self.repeat()
            while self.pending:
                try:
                    async with asyncio.timeout(PATIENCE):
                        await self.answered.wait()
                except TimeoutError:
                    if self.joined.is_set():
                        await self.repeat()


class Load:
    def __init__(self, given):
        self.urls, self.interval, self.settle = [url.rstrip("/") for url in given.url], given.interval, given.settle
        self.secret = os.environ.get("JWT_SECRET") or sys.exit("load: JWT_SECRET is not set")
        self.stop_file, self.seconds = given.stop_file, given.seconds
        self.stopping, self.tasks = asyncio.Event(), set()
        self.refused, self.problems = [], []
        self.closes = Counter()
        run = os.urandom(3).hex()
        self.users = [User(self, f"check-{run}-u{n}", n) for n in range(given.users)]
        self.conversations = []
        for number in range(given.conversations):
            conversation = Conversation(f"check-{run}-{number}", self.users[number :: given.conversations])
            self.conversations.append(conversation)
            for user in conversation.users:
                user.conversation = conversation

    def start(self, work):
        """Runs a task; one that fails by itself ends the load."""
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.ended)
        return task

    def ended(self, task):
        self.tasks.discard(task)
        if not task.cancelled() and task.exception():
            self.problems.append(f"the load itself failed: {task.exception()!r}")
            self.stopping.set()

    async def rest(self, url, user, path, body=None):
        """An answer over REST; repeats what fails for a while."""
        headers = {"Authorization": f"Bearer {user.token}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url.replace("ws", "http", 1) + path, data, headers)

        def ask():
            with urllib.request.urlopen(request, timeout=10) as answer:
                return json.load(answer)

        deadline = time.monotonic() + self.settle
        while True:
            try:
                return await asyncio.to_thread(ask)
            except (OSError, ValueError) as error:
                if time.monotonic() > deadline:
                    told = error.read(500).decode() if isinstance(error, urllib.error.HTTPError) else ""
                    raise RuntimeError(f"{url}{path}: {error} {told}") from error
                await asyncio.sleep(0.5)

    async def history(self, url, conversation):
        """[seq, client_id, content] of every message, in pages, each sorted by seq."""
        entries, after = [], 0
        while after is not None:
            path = f"/api/chat/conversations/{conversation.name}/messages?limit=100&after_seq={after}"
            page = await self.rest(url, conversation.users[0], path)
            messages = reversed(page["messages"])
            entries += [[message["seq"], message.get("client_id"), message["content"]] for message in messages]
            after = page.get("next_after_seq")
        return entries

    async def resume(self, url, conversation, after, head):
        """What a new socket gets that has the entries up to a seq, until it has got the head."""
        user, got = conversation.users[0], []
        socket = await ws.connect(url + "/v1/ws")
        try:
            async with asyncio.timeout(self.settle):
                await socket.send(json.dumps({"type": "authenticate", "token": user.token}))
                join = {"type": "join", "conversation_id": conversation.name, "since_seq": after}
                while not got or got[-1][0] < head:
                    frame = json.loads(await socket.receive())
                    if frame["type"] == "authenticated":
                        await socket.send(json.dumps(join))
                    elif frame["type"] in ("error", "resync"):
                        raise RuntimeError(f"{url}: the resume from {after} was answered with {frame}")
                    elif frame.get("conversation_id") == conversation.name and "seq" in frame:
                        got.append(entry(frame))
        except TimeoutError:
            self.problems.append(f"{url}: the resume of {conversation.name} from {after} did not reach {head}")
        finally:
            await socket.close()
        return got

    async def audit(self):
        """Reads every conversation on every URL."""
        for conversation in self.conversations:
            head = max([0, *(user.cursor for user in conversation.users)])
            for url in self.urls:
                after = max(0, head - RESUMED)
                resumed = await self.resume(url, conversation, after, head) if head else []
                history = await self.history(url, conversation)
                conversation.audits.append({"where": url, "after": after, "resumed": resumed, "history": history})

    def settled(self):
        """Every message is acked, and every listener has the newest one that was acked."""
        heads = [max([0, *(seq for _, seq in each.acks)]) for each in self.conversations]
        behind = (u.cursor < head for each, head in zip(self.conversations, heads, strict=True) for u in each.users)
        return not any(user.pending for user in self.users) and not any(behind)

    async def report(self):
        """A line each second for whoever waits for the load to go on, and the end of the time or the file."""
        end = time.monotonic() + self.seconds if self.seconds else None
        while True:
            counts = [user.acked for user in self.users]
            connected = sum(user.joined.is_set() for user in self.users)
            closes = ",".join(f"{code}:{times}" for code, times in self.closes.items())
            state = f"acked={sum(counts)} least={min(counts)} connected={connected}/{len(counts)} closes={closes}"
            print(f"progress {state}", flush=True)
            if (end and time.monotonic() > end) or (self.stop_file and self.stop_file.exists()):
                self.stopping.set()
            await asyncio.sleep(1)

    async def run(self):
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stopping.set)
        for conversation in self.conversations:
            creator, *others = conversation.users
            body = {"id": conversation.name, "name": "Load", "is_group": True}
            body["participant_ids"] = [user.name for user in others]
            await self.rest(self.urls[0], creator, "/api/chat/conversations", body)
        for user in self.users:
            self.start(user.listen())
            self.start(user.send())
        self.start(self.report())
        await self.stopping.wait()
        deadline = time.monotonic() + self.settle
        while not self.settled() and time.monotonic() < deadline:
            await asyncio.sleep(0.1)
        # What is repeated by mistake comes at once, but after the entry that everybody waited for.
        await asyncio.sleep(1)
        for task in list(self.tasks):
            task.cancel()
        try:
            await self.audit()
        except (RuntimeError, ws.Closed, OSError) as error:
            self.problems.append(f"the conversations could not be read at the end: {error}")

    def transcript(self):
        conversations = {each.name: each.record() for each in self.conversations}
        return {"conversations": conversations, "refused": self.refused, "problems": self.problems}


def arguments():
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("load.py", description=__doc__, formatter_class=raw)
    parser.add_argument("--url", action="append", help="ws:// or wss:// URL of a node or a Service; several: in turn")
    parser.add_argument("--users", type=int, default=30)
    parser.add_argument("--conversations", type=int, default=6)
    parser.add_argument("--interval", type=float, default=1.0, help="mean seconds between messages of a user")
    parser.add_argument("--seconds", type=float, help="end after this time; without it, on SIGTERM or --stop-file")
    parser.add_argument("--stop-file", type=Path, help="end once this file exists")
    parser.add_argument("--settle", type=float, default=120, help="most seconds until all is acked and received")
    parser.add_argument("--transcript", type=Path, help="write there what was sent and received")
    parser.add_argument("--judge", type=Path, help="only judge this transcript")
    given = parser.parse_args()
    if not given.judge and not given.url:
        parser.error("--url is missing")
    if given.users < given.conversations:
        parser.error("--users is less than --conversations")
    return given


def main():
    given = arguments()
    if given.judge:
        transcript, closes = json.loads(given.judge.read_text()), {}
    else:

        async def run():
            load = Load(given)
            await load.run()
            return load

        load = asyncio.run(run())
        transcript, closes = load.transcript(), dict(load.closes)
        if given.transcript:
            given.transcript.write_text(json.dumps(transcript))
    found = verdict(transcript) | {"closes": closes}
    print(json.dumps(found), flush=True)
    sys.exit(found["verdict"] != "ok")


if __name__ == "__main__":
    main()
