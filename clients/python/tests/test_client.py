"""What applications do with the client, against two real nodes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio

from switchboard_client import Change, Changes, Chat, ChatClosed, Conversation, Refused

from .cluster import Cluster
from .processes import DEADLINE
from .scenario import new_chat, until


@pytest_asyncio.fixture(loop_scope="session")
async def chats(cluster: Cluster) -> AsyncIterator[tuple[Chat, Chat]]:
    """Alice and Bob, online."""
    async with AsyncExitStack() as stack, asyncio.timeout(DEADLINE):
        alice = await stack.enter_async_context(new_chat(cluster, "alice"))
        bob = await stack.enter_async_context(new_chat(cluster, "bob"))
        await asyncio.gather(alice.online(), bob.online())
        yield alice, bob


async def rooms(cluster: Cluster, chats: tuple[Chat, Chat]) -> tuple[Conversation, Conversation]:
    """A new conversation of both, loaded."""
    name = await cluster.conversation("alice", "bob")
    one, other = (chat.conversation(name) for chat in chats)
    await asyncio.gather(one.loaded(), other.loaded())
    return one, other


async def next_of(changes: Changes[Change], kind: str) -> Change:
    """The next change of a kind."""
    async with asyncio.timeout(DEADLINE):
        async for change in changes:
            if change.kind == kind:
                return change
    raise AssertionError(f"no {kind}")


async def test_a_message_its_edit_reactions_and_deletion(cluster: Cluster, chats: tuple[Chat, Chat]) -> None:
    """Both sides show each of them."""
    room, other = await rooms(cluster, chats)
    changes = other.changes()
    message = await room.send("hi", data={"mood": "good"})
    told = (await next_of(changes, "message")).message
    assert told is not None and (told.content, told.data, told.seq) == ("hi", {"mood": "good"}, message.seq)
    await room.edit(message, "hello")
    await next_of(changes, "edited")
    await other.react(told, "👍")
    await other.send("answer", reply_to=told.seq)
    shown = other.messages[0]
    assert (shown.content, shown.data, shown.replies, shown.reactions[0].own) == ("hello", {"mood": "good"}, 1, True)
    await until(room, lambda: room.messages[0].replies == 1, "one reply")
    assert (room.messages[0].reactions[0].count, room.messages[0].reactions[0].own) == (1, False)
    await room.delete(room.messages[0])
    await next_of(changes, "deleted")
    assert other.messages[0].deleted and other.messages[0].content == "" and not other.messages[0].reactions


async def test_an_edit_of_a_message_that_waits(cluster: Cluster, chats: tuple[Chat, Chat]) -> None:
    """It shows at once and is sent after its message."""
    room, other = await rooms(cluster, chats)
    room.post("draft")
    assert room.messages[-1].status == "sending"
    await room.edit(room.messages[-1], "final")
    await until(other, lambda: [one.content for one in other.messages] == ["final"], "final")


async def test_direct_conversations(cluster: Cluster, chats: tuple[Chat, Chat]) -> None:
    """The first message creates the conversation, and a client that comes later finds it."""
    alice, bob = chats
    theirs = bob.dm("alice")
    mine = alice.dm("bob")
    await mine.send("hi Bob")
    await until(theirs, lambda: [one.content for one in theirs.messages] == ["hi Bob"], "hi Bob")
    await theirs.send("hi Alice")
    await until(mine, lambda: [one.content for one in mine.messages] == ["hi Bob", "hi Alice"], "both")
    assert mine.id is not None and mine.id == theirs.id
    async with new_chat(cluster, "bob") as later:
        again = later.dm("alice")
        await again.loaded()
        assert [one.content for one in again.messages] == ["hi Bob", "hi Alice"]


async def test_marks_typing_and_events(cluster: Cluster, chats: tuple[Chat, Chat]) -> None:
    """What is not stored reaches those who listen."""
    room, other = await rooms(cluster, chats)
    changes = room.changes()
    await room.send("read this")
    await until(other, lambda: len(other.messages) == 1, "the message")
    other.mark_read()
    await next_of(changes, "receipt")
    assert room.messages[0].status == "read"
    other.typing()
    typing = await next_of(changes, "typing")
    assert typing.frame is not None and typing.frame["user_id"] == "bob"
    await other.event("cursor", {"x": 1})
    event = await next_of(changes, "event")
    assert event.frame is not None and event.frame["data"] == {"x": 1}
    assert [one["user_id"] for one in await chats[0].presence(["bob"])] == ["bob"]


async def test_older_pages(cluster: Cluster, chats: tuple[Chat, Chat]) -> None:
    """Pages are added until the first message is there."""
    room, _ = await rooms(cluster, chats)
    name = room.id
    assert name is not None
    for number in range(120):
        room.post(f"m{number}")
    await chats[0].flush()
    async with new_chat(cluster, "bob") as later:
        again = later.conversation(name)
        await again.loaded()
        assert len(again.messages) == 50
        assert [await again.load_older() for _ in range(3)] == [50, 20, 0]
        assert [one.content for one in again.messages] == [f"m{number}" for number in range(120)]


async def test_refusals(cluster: Cluster, chats: tuple[Chat, Chat]) -> None:
    """A refused message stays as failed until it is discarded, and the next one is sent."""
    name = await cluster.conversation("carol", "bob")
    room = chats[0].conversation(name)
    with pytest.raises(Refused) as refusal:
        await room.loaded()
    assert refusal.value.code == "not_member"
    with pytest.raises(Refused):
        await room.send("let me in")
    failed = room.messages[-1]
    assert failed.status == "failed" and failed.error is not None and failed.error.code == "not_member"
    room.discard(failed.client_id or "")
    assert room.messages == []
    assert [one async for one in chats[0].conversations() if one["conversation_id"] == name] == []


async def test_the_end_of_a_chat(cluster: Cluster) -> None:
    """Closed by the user, it stays closed, until the user connects again."""
    name = await cluster.conversation("alice", "bob")
    chat = new_chat(cluster, "alice")
    async with chat, asyncio.timeout(DEADLINE):
        room = chat.conversation(name)
        await room.loaded()
        changes = room.changes()
        waiting = asyncio.create_task(room.send("before the end"))
        await asyncio.sleep(0)
        waiting.cancel()
        await chat.flush()
        assert [one.content for one in room.messages] == ["before the end"], "it is stored all the same"
    assert chat.state.phase == "closed"
    assert [one.kind async for one in changes if one.kind == "message"] == ["message"]
    with pytest.raises(ChatClosed):
        await room.send("too late")
    chat.connect()
    async with asyncio.timeout(DEADLINE):
        assert (await room.send("back")).content == "back"
    await chat.close()
