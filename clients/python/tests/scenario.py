"""A conversation under a fault: Alice writes with the client, Bob over REST, and the client has to catch up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from switchboard_client import Change, Chat, ConnectionState, Conversation

from .cluster import Cluster, mint
from .processes import DEADLINE

ENTRIES = ("message", "edited", "deleted", "reaction", "member_added", "member_removed")


def new_chat(cluster: Cluster, user: str, **options: Any) -> Chat:
    """A client behind the proxy. It notices a dead network early, so that tests are short."""
    settings: dict[str, Any] = {
        "ping_interval": 1,
        "pong_timeout": 5,
        "max_pause": 2,
        "token": lambda: mint(user),
    } | options
    return Chat(cluster.proxy.url, **settings)


class Alice:
    """Alice's client, and what it told about one conversation."""

    def __init__(self, cluster: Cluster, chat: Chat, room: Conversation, name: str) -> None:
        self.cluster = cluster
        self.chat = chat
        self.room = room
        self.name = name
        self.changes: list[Change] = []
        self.states: list[ConnectionState] = []

    async def follow(self) -> None:
        """Collects the changes."""
        async for change in self.room.changes():
            self.changes.append(change)

    async def watch(self) -> None:
        """Collects the states of the connection."""
        async for state in self.chat.states():
            self.states.append(state)

    async def talk(self, count: int, begun: asyncio.Event) -> None:
        """Alice and Bob write by turns. `begun` says that some of it is done."""
        for number in range(count):
            self.room.post(f"alice {number}")
            await self.cluster.say("bob", self.name, f"bob {number}")
            if number == count // 3:
                begun.set()

    async def state(self, wanted: Callable[[ConnectionState], bool]) -> None:
        """Waits until the connection was in a state."""
        states = self.chat.states()
        async with asyncio.timeout(DEADLINE):
            while not any(map(wanted, self.states)) and not wanted(await anext(states)):
                pass

    async def port(self) -> int:
        """The node to which Alice is connected."""
        async with asyncio.timeout(DEADLINE):
            await self.chat.online()
        return self.cluster.proxy.links[-1].port

    async def check(self, first: int) -> None:
        """The list and the changes have what the server has: nothing is lost, doubled or out of order."""
        async with asyncio.timeout(DEADLINE):
            await self.chat.flush()
        history = [(one["seq"], one["content"]) for one in await self.cluster.history("alice", self.name)]
        await until(self.room, lambda: [(one.seq, one.content) for one in self.room.messages] == history, history)
        own = [content for _, content in history if content.startswith("alice ")]
        assert own == [f"alice {number}" for number in range(len(own))], "own messages are stored once, in their order"
        await until(self.room, lambda: self.told()[-1:] == [history[-1][0]], self.changes)
        assert self.told() == [seq for seq, _ in history if seq > first], "each message was told once, in order"

    def told(self) -> list[int]:
        """The seqs of the messages that were told."""
        return [one.message.seq for one in self.changes if one.kind == "message" and one.message and one.message.seq]


async def until(room: Conversation, wanted: Callable[[], bool], about: object) -> None:
    """Waits for a condition that changes of the conversation bring about."""
    changes = room.changes()
    try:
        async with asyncio.timeout(DEADLINE):
            while not wanted():
                await anext(changes)
                await asyncio.sleep(0)
    except TimeoutError:
        shown = [(one.seq, one.content, one.status) for one in room.messages]
        raise AssertionError(f"{shown} is not {about}") from None


@asynccontextmanager
async def alice(cluster: Cluster, **options: Any) -> AsyncIterator[Alice]:
    """Alice in a new conversation with Bob, online and up to date."""
    name = await cluster.conversation("alice", "bob")
    async with new_chat(cluster, "alice", **options) as chat, asyncio.TaskGroup() as tasks:
        room = chat.conversation(name)
        one = Alice(cluster, chat, room, name)
        background = [tasks.create_task(one.follow()), tasks.create_task(one.watch())]
        async with asyncio.timeout(DEADLINE):
            await room.loaded()
        try:
            yield one
        finally:
            for task in background:
                task.cancel()


async def under_fault(cluster: Cluster, fault: Callable[[Alice], Awaitable[None]], count: int = 24) -> None:
    """Talks, has the fault happen in the middle, and checks the end."""
    async with alice(cluster) as one:
        first = one.room.cursor or 0
        begun = asyncio.Event()
        talk = asyncio.create_task(one.talk(count, begun))
        async with asyncio.timeout(DEADLINE):
            await begun.wait()
            await fault(one)
            await talk
        await one.check(first)
