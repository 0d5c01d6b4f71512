"""Two nodes on one Redis and one PostgreSQL, behind the proxy, and what the server says over REST."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import os
import shutil
import signal
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path
from typing import Any

from .processes import Process, folder, free_port, start, start_postgres, start_redis
from .proxy import Proxy

ROOT = Path(__file__).parents[3]
SECRET = "a secret that is at least 32 bytes long"


def binary() -> str:
    """The server under test."""
    return os.environ.get("SWITCHBOARD", str(ROOT / "target" / "debug" / "switchboard"))


def mint(user: str, seconds: int = 3_600) -> str:
    """A token, as an application's backend makes it."""

    def encode(value: bytes) -> str:
        return base64.urlsafe_b64encode(value).rstrip(b"=").decode()

    now = int(time.time())
    claims = {"sub": user, "name": user.title(), "iat": now, "exp": now + seconds, "jti": str(uuid.uuid4())}
    body = f"{encode(json.dumps({'alg': 'HS256', 'typ': 'JWT'}).encode())}.{encode(json.dumps(claims).encode())}"
    return f"{body}.{encode(hmac.digest(SECRET.encode(), body.encode(), hashlib.sha256))}"


class Cluster:
    """What the end-to-end tests run against."""

    def __init__(self) -> None:
        self.home = folder()
        self.proxy = Proxy()
        self.nodes: dict[int, Process] = {}
        self.redis: Process
        self.postgres: Process
        self._urls: dict[str, str] = {}

    async def start(self) -> None:
        """Starts everything."""
        for name in ("postgres", "redis"):
            (self.home / name).mkdir()
        (self.postgres, database), (self.redis, redis) = await asyncio.gather(
            start_postgres(self.home / "postgres"), start_redis(self.home / "redis")
        )
        self._urls = {"DATABASE_URL": database, "REDIS_URL": redis}
        await self.proxy.listen()
        await self.complete()

    async def complete(self) -> None:
        """Starts nodes until there are two."""
        while len(self.nodes) < 2:
            await self.start_node()

    async def start_node(self) -> int:
        """Starts a node and returns its port."""
        port = free_port()
        env = {
            "PATH": os.environ["PATH"],
            "LISTEN": f"127.0.0.1:{port}",
            "ADMIN_LISTEN": "off",
            "JWT_SECRET": SECRET,
            "NODE_ID": f"node-{port}",
            "OPEN_CONVERSATIONS": "true",
            "MESSAGE_RATE_LIMIT": "0",
            "WRITE_RATE_LIMIT": "0",
            "READ_RATE_LIMIT": "0",
            "MAX_CONNECTIONS_PER_USER": "50",
            "MAX_SOCKETS_PER_USER": "50",
            "SHUTDOWN_DELAY": "0s",
            "DRAIN_WINDOW": "1s",
            "NODE_LEASE": "5s",
            **self._urls,
        }
        self.nodes[port] = await start(binary(), "serve", ready='"message":"listening"', env=env, cwd=self.home)
        self.proxy.targets.append(port)
        return port

    async def end_node(self, port: int, number: signal.Signals) -> None:
        """Ends a node. The proxy is not told of a kill, and finds out by itself."""
        if number is signal.SIGTERM:
            self.proxy.targets.remove(port)
        await self.nodes.pop(port).end(number)
        if port in self.proxy.targets:
            self.proxy.targets.remove(port)

    async def rest(self, user: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """Calls a node directly, until one answers: first the newest, while the proxy prefers the oldest."""

        def call(port: int) -> Any:
            request = urllib.request.Request(
                f"http://127.0.0.1:{port}/api{path}", headers={"Authorization": f"Bearer {mint(user)}"}
            )
            if body is not None:
                request.data = json.dumps(body).encode()
            with urllib.request.urlopen(request, timeout=30) as response:
                return json.load(response)

        while True:
            for port in reversed(list(self.nodes)):
                try:
                    return await asyncio.to_thread(call, port)
                except urllib.error.HTTPError as error:
                    if error.code < 500:
                        raise RuntimeError(f"{path}: {error.code} {error.read().decode()}") from error
                except OSError:
                    pass
            await asyncio.sleep(0.1)

    async def conversation(self, *members: str) -> str:
        """Makes a group and returns its id."""
        name = f"room-{uuid.uuid4()}"
        await self.rest(
            members[0],
            "/chat/conversations",
            {"id": name, "name": name, "is_group": True, "participant_ids": list(members[1:])},
        )
        return name

    async def say(self, user: str, conversation: str, content: str) -> None:
        """Sends over REST until the message is stored. The client_id keeps it one message."""
        await self.rest(
            user, f"/chat/conversations/{conversation}/messages", {"content": content, "client_id": str(uuid.uuid4())}
        )

    async def history(self, user: str, conversation: str) -> list[dict[str, Any]]:
        """All messages of a conversation, oldest first, as the server has them."""
        messages: list[dict[str, Any]] = []
        before = ""
        while True:
            page = await self.rest(user, f"/chat/conversations/{conversation}/messages?limit=100{before}")
            messages = page["messages"][::-1] + messages
            if "next_before_seq" not in page:
                return messages
            before = f"&before_seq={page['next_before_seq']}"

    async def stop(self) -> None:
        """Ends everything."""
        await self.proxy.close()
        self.redis.signal(signal.SIGCONT)
        await asyncio.gather(*(one.end() for one in (*self.nodes.values(), self.redis, self.postgres)))
        shutil.rmtree(self.home, ignore_errors=True)
