"""Faults of nodes, network and Redis: after each, the client shows the server's history."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGSTOP, SIGTERM
from typing import Any

from switchboard_client import Chat, ConnectionState

from .cluster import Cluster, mint
from .processes import DEADLINE, start
from .scenario import Alice, alice, new_chat, under_fault, until


async def test_without_fault(cluster: Cluster) -> None:
    """The base line."""

    async def nothing(_: Alice) -> None:
        pass

    await under_fault(cluster, nothing)


async def test_kill_of_a_node(cluster: Cluster) -> None:
    """SIGKILL of the node to which the client is connected. The other one takes it."""

    async def fault(one: Alice) -> None:
        await cluster.end_node(await one.port(), SIGKILL)
        await one.state(lambda state: state.phase == "waiting")

    await under_fault(cluster, fault)


async def test_both_nodes_dead_and_back(cluster: Cluster) -> None:
    """Nothing answers for a while. What is written meanwhile is sent later."""

    async def fault(one: Alice) -> None:
        for port in list(cluster.nodes):
            await cluster.end_node(port, SIGKILL)
        await one.state(lambda state: state.phase == "waiting")
        # At least one attempt fails before a node is back.
        states = one.chat.states()
        while (await anext(states)).phase != "connecting":
            pass
        await cluster.complete()

    await under_fault(cluster, fault)


async def test_drain(cluster: Cluster) -> None:
    """SIGTERM: the node says when to come back."""

    async def fault(one: Alice) -> None:
        await cluster.end_node(await one.port(), SIGTERM)
        await one.state(lambda state: state.error is not None and state.error.code == "1012")

    await under_fault(cluster, fault)


async def test_black_hole(cluster: Cluster) -> None:
    """The network swallows everything without a sign. The client notices that the server does not answer."""

    async def fault(one: Alice) -> None:
        await one.chat.online()
        cluster.proxy.swallow()
        await one.state(lambda state: state.error is not None and state.error.message == "No answer")

    await under_fault(cluster, fault)


async def test_cut_connections(cluster: Cluster) -> None:
    """Connections end again and again, in the middle of frames."""

    async def fault(one: Alice) -> None:
        for _ in range(4):
            await one.chat.online()
            for link in list(cluster.proxy.links):
                cluster.proxy.cut(link)
            states = one.chat.states()
            while (await anext(states)).phase == "online":
                pass

    await under_fault(cluster, fault, 12)


async def test_frozen_redis(cluster: Cluster) -> None:
    """Redis does not answer. Bob writes on one node, Alice listens on another."""

    async with alice(cluster) as one:
        first = one.room.cursor or 0
        begun = asyncio.Event()
        async with asyncio.timeout(DEADLINE):
            await one.talk(12, begun)
            cluster.redis.signal(SIGSTOP)
            try:
                for number in range(12, 16):
                    one.room.post(f"alice {number}")
                    await cluster.say("bob", one.name, f"bob {number}")
                await one.room.send("alice 16")
            finally:
                cluster.redis.signal(SIGCONT)
            await cluster.say("bob", one.name, "bob 17")
        await one.check(first)


async def test_refresh(cluster: Cluster) -> None:
    """A new token is sent before the old one expires."""
    asked = 0
    refreshed = asyncio.Event()

    async def token() -> str:
        nonlocal asked
        asked += 1
        return mint("alice", 8)

    async with alice(cluster, token=token) as one:
        first = one.room.cursor or 0
        frame = one.chat.machine.frame

        def spy(socket: int, received: dict[str, Any]) -> None:
            if received["type"] == "refreshed":
                refreshed.set()
            frame(socket, received)

        one.chat.machine.frame = spy  # type: ignore[method-assign, assignment]
        async with asyncio.timeout(DEADLINE):
            await refreshed.wait()
            await one.talk(6, asyncio.Event())
        assert asked > 1
        await one.check(first)


async def test_expired_token(cluster: Cluster) -> None:
    """The application has no new token in time. The server ends the socket; the client gets a token and comes back."""
    available, lifetime = True, 2

    def token() -> str:
        if not available:
            raise RuntimeError("the login service is down")
        return mint("alice", lifetime)

    async with alice(cluster, token=token) as one:
        first = one.room.cursor or 0
        available = False
        await one.state(lambda state: state.error is not None and state.error.code == "4401")
        one.room.post("alice 0")
        await cluster.say("bob", one.name, "bob 0")
        await one.state(lambda state: state.error is not None and state.error.code == "token")
        lifetime = 3_600
        available = True
        await one.check(first)


async def test_process_restart_with_a_stored_outbox(cluster: Cluster, tmp_path: Path) -> None:
    """A process that could not send is killed. The next one sends, once and in order."""
    outbox = tmp_path / "outbox"
    name = await cluster.conversation("alice", "bob")
    script = Path(__file__).with_name("post_and_wait.py")
    # The first process stores one message at the server, and is killed with two that the server never got.
    process = await start(
        sys.executable, str(script), cluster.proxy.url, mint("alice"), name, str(outbox), ready="posted"
    )
    await process.end(SIGKILL)
    async with new_chat(cluster, "alice", outbox=outbox) as chat:
        room = chat.conversation(name)
        async with asyncio.timeout(DEADLINE):
            await room.send("alice 3")
            await room.loaded()
        history = [(one["seq"], one["content"]) for one in await cluster.history("bob", name)]
        assert [content for _, content in history] == ["alice 0", "alice 1", "alice 2", "alice 3"]
        await until(room, lambda: [(one.seq, one.content) for one in room.messages] == history, history)
    async with new_chat(cluster, "alice", outbox=outbox) as chat:
        assert not chat.machine.outbox.waiting()


async def test_continues_where_an_earlier_process_was(cluster: Cluster) -> None:
    """With `since`, every entry since a kept cursor is told."""
    name = await cluster.conversation("alice", "bob")
    async with new_chat(cluster, "alice") as chat:
        room = chat.conversation(name)
        async with asyncio.timeout(DEADLINE):
            await room.loaded()
        since, epoch = room.cursor, chat.epoch
    for number in range(3):
        await cluster.say("bob", name, f"bob {number}")
    async with new_chat(cluster, "alice") as chat:
        room = chat.conversation(name, since=since, epoch=epoch)
        told: list[str] = []
        async with asyncio.timeout(DEADLINE):
            async for change in room.changes():
                if change.kind == "message" and change.message is not None:
                    told.append(change.message.content)
                if len(told) == 3:
                    break
        assert told == ["bob 0", "bob 1", "bob 2"]


async def test_a_refused_user_stays_out(cluster: Cluster) -> None:
    """Two invalid tokens in a row end the session; what waits is told."""
    asked = 0

    def token() -> str:
        nonlocal asked
        asked += 1
        return "not a token"

    async with Chat(cluster.proxy.url, token, max_pause=1) as chat:
        states: list[ConnectionState] = []
        async with asyncio.timeout(DEADLINE):
            async for state in chat.states():
                states.append(state)
                if state.phase == "closed":
                    break
        assert asked == 2
        assert states[-1].error is not None and states[-1].error.code == "4401"
