"""The file of the outbox, the queues of iterators, and the socket."""

from __future__ import annotations

import asyncio
import http
from pathlib import Path

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from switchboard_client import Changes, Chat, ChatError, limits
from switchboard_client.chat import socket_url
from switchboard_client.core import Command
from switchboard_client.model import ErrorInfo
from switchboard_client.storage import COMPACT_LINES, OutboxFile

from .processes import DEADLINE


def command(number: int) -> Command:
    """A message that waits."""
    frame = {"type": "send", "conversation_id": "team", "content": f"ä {number}", "client_id": f"c{number}"}
    return Command(frame, "2026-01-01T00:00:00Z", user="alice", epoch=1)


def test_the_file_keeps_commands_in_their_order(tmp_path: Path) -> None:
    """Also a command that was stored anew, and not those that were dropped."""
    path = tmp_path / "outbox"
    file = OutboxFile(path)
    for number in range(3):
        file.save(command(number))
    failed = command(0)
    failed.failed = ErrorInfo("forbidden", "No")
    file.save(failed)
    file.drop("c1")
    file.close()
    file = OutboxFile(path)
    assert file.commands() == [failed, command(2)]
    file.close()
    assert path.stat().st_mode & 0o077 == 0, "other users can't read the messages"


def test_a_line_that_was_cut_off(tmp_path: Path) -> None:
    """The process ended while it wrote. What was complete stays, and further lines are not lost."""
    path = tmp_path / "outbox"
    file = OutboxFile(path)
    file.save(command(0))
    file.save(command(1))
    file.close()
    path.write_bytes(path.read_bytes()[:-5])
    file = OutboxFile(path)
    assert file.commands() == [command(0)]
    file.save(command(2))
    file.close()
    file = OutboxFile(path)
    assert file.commands() == [command(0), command(2)]
    file.close()


def test_the_file_does_not_grow_without_end(tmp_path: Path) -> None:
    """It is written anew when most of it is past."""
    path = tmp_path / "outbox"
    file = OutboxFile(path)
    file.save(command(0))
    for number in range(1, COMPACT_LINES * 2):
        file.save(command(number))
        file.drop(f"c{number}")
    file.close()
    assert len(path.read_bytes().splitlines()) <= COMPACT_LINES + 10
    file = OutboxFile(path)
    assert file.commands() == [command(0)]
    file.close()


def test_one_process_at_a_time(tmp_path: Path) -> None:
    """Two would send in an order that nobody knows."""
    file = OutboxFile(tmp_path / "outbox")
    with pytest.raises(ChatError):
        OutboxFile(tmp_path / "outbox")
    file.close()
    OutboxFile(tmp_path / "outbox").close()


async def test_a_slow_reader_is_told_that_it_missed_something() -> None:
    """Its queue is bounded; one item takes the place of those that it missed."""
    changes: Changes[int] = Changes(lambda item: item >= 0, lambda _: 999_999)
    for number in range(limits.MAX_QUEUE + 1):
        changes.put(number)
    changes.put(-1)
    changes.put(5)
    changes.end()
    assert [one async for one in changes] == [999_999, 5]


def test_urls() -> None:
    """An address without a path means the native dialect."""
    assert socket_url("https://chat.example.com") == "wss://chat.example.com/v1/ws"
    assert socket_url("ws://localhost:8000/") == "ws://localhost:8000/v1/ws"
    assert socket_url("wss://example.com/chat/v1/ws") == "wss://example.com/chat/v1/ws"
    with pytest.raises(ValueError, match="not a URL"):
        socket_url("localhost:8000")


async def test_what_no_server_could_read_is_refused_at_once() -> None:
    """The outbox would send it again and again."""
    async with Chat("ws://127.0.0.1:9", "token") as chat:
        for name in ("", "a b", "/", "x" * 129):
            with pytest.raises(ValueError, match="is not an id"):
                chat.conversation(name)
        room = chat.conversation("team")
        for content, data in (("\ud800", None), ("x", float("nan")), ("x", "\udfff")):
            with pytest.raises(ValueError, match=r".+"):
                room.post(content, data=data)
        with pytest.raises(TypeError):
            room.post("x", data={1, 2})
        assert room.messages == []


async def test_a_refused_handshake_says_when_to_come_back() -> None:
    """`Retry-After` of HTTP counts as the server's advice."""

    def refuse(connection: ServerConnection, _: Request) -> Response:
        response = connection.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, "full")
        response.headers["Retry-After"] = "3600"
        return response

    async def nobody(_: ServerConnection) -> None:
        pass

    async with serve(nobody, "127.0.0.1", 0, process_request=refuse) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        async with Chat(f"ws://127.0.0.1:{port}", "token") as chat, asyncio.timeout(DEADLINE):
            async for state in chat.states():
                if state.phase == "waiting":
                    break
            assert state.error is not None and state.error.message == "HTTP 503"
            timer = chat._timers["connect", ""]
            assert timer.when() - asyncio.get_running_loop().time() > 3_000


async def test_no_token_means_that_the_user_signed_out() -> None:
    """The chat closes, and says why."""
    async with Chat("ws://127.0.0.1:9", lambda: None) as chat, asyncio.timeout(DEADLINE):
        async for state in chat.states():
            if state.phase == "closed":
                assert state.error is not None and state.error.code == "signed_out"
                break
