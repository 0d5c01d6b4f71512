"""The client: carries out the effects of the state machine with asyncio."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import re
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Any, Self, TypeAlias
from urllib.parse import urlsplit, urlunsplit

from .changes import Changes
from .conversation import Conversation
from .core import (
    AskToken,
    CloseSocket,
    Config,
    Drop,
    Effect,
    Notify,
    OpenSocket,
    Save,
    SendFrame,
    SetTimer,
    Settled,
    StateChanged,
    TimerKey,
)
from .machine import Machine
from .model import Change, ChatClosed, ConnectionState, ErrorInfo, Frame, Refused
from .requests import Lost
from .socket import Socket, logger
from .storage import OutboxFile

Token: TypeAlias = str | Callable[[], str | None | Awaitable[str | None]]


def socket_url(url: str) -> str:
    """The address of the WebSocket: http and https are ws and wss, and the path is /v1/ws if there is none."""
    parts = urlsplit(url)
    scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
    if scheme not in ("ws", "wss"):
        raise ValueError(f"{url} is not a URL of the form wss://chat.example.com")
    return urlunsplit((scheme, parts.netloc, parts.path if parts.path.strip("/") else "/v1/ws", parts.query, ""))


def check_id(value: str) -> None:
    """Refuses what no id can be. In one frame with other ids, the server would refuse all of them."""
    if not re.fullmatch(r"/?[A-Za-z0-9_.:@+=|-]{1,128}", value):
        raise ValueError(f"{value!r} is not an id")


def check_frame(frame: Frame) -> None:
    """Raises ValueError or TypeError for what is not JSON. The server could not say which command it refuses."""
    json.dumps(frame, ensure_ascii=False, allow_nan=False).encode()


class Chat:
    """A user's connection to Switchboard, which comes back until it is closed.

    `token` is a text, or a function that returns one (also a coroutine), or None if the user signed out. It is called
    at every connect and before the token expires. `outbox` is the path of a file that keeps unsent messages. With
    `follow`, conversations to which others add the user are opened too. `websocket` holds further arguments for
    `websockets.asyncio.client.connect`, such as `ssl` or `proxy`. Times are in seconds.
    """

    def __init__(
        self,
        url: str,
        token: Token,
        *,
        outbox: str | os.PathLike[str] | None = None,
        follow: bool = False,
        ping_interval: float = 25,
        pong_timeout: float = 10,
        max_pause: float = 30,
        websocket: dict[str, Any] | None = None,
    ) -> None:
        self._url = socket_url(url)
        self._token = token
        self._outbox_path = outbox
        self._file: OutboxFile | None = None
        self._websocket = websocket or {}
        longest = max(1, round(max_pause * 1_000))
        self.machine = Machine(
            Config(
                ping_ms=round(ping_interval * 1_000),
                pong_ms=round(pong_timeout * 1_000),
                follow=follow,
                pause_max_ms=longest,
                pause_min_ms=min(1_000, longest),
            )
        )
        self._socket: Socket | None = None
        self._timers: dict[TimerKey, asyncio.TimerHandle] = {}
        self._asking: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._waiters: dict[str | int, asyncio.Future[Frame]] = {}
        self._last_request = 0
        self._changes: weakref.WeakSet[Changes[Change]] = weakref.WeakSet()
        self._states: weakref.WeakSet[Changes[ConnectionState]] = weakref.WeakSet()

    # Life

    async def __aenter__(self) -> Self:
        self.connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def connect(self) -> None:
        """Begins to connect. `async with` does it; after a close it connects again."""
        if self._outbox_path is not None and self._file is None:
            self._file = OutboxFile(self._outbox_path)
            self.machine.restore(self._file.commands())
            for command in self.machine.outbox.waiting():
                self._file.save(command)
        self.step(self.machine.connect)

    async def online(self) -> None:
        """Waits until the client is online. Raises ChatClosed if the server refuses it for good."""
        async for state in self.states():
            if state.phase == "online":
                return
            if state.phase == "closed":
                raise ChatClosed(state.error)
        raise ChatClosed

    async def flush(self) -> None:
        """Waits until the server has confirmed or refused everything in the outbox."""
        self.check_open()
        waiting = [self._future(one.client_id) for one in self.machine.outbox.waiting()]
        await asyncio.gather(*(asyncio.shield(one) for one in waiting), return_exceptions=True)
        self.check_open()

    async def close(self) -> None:
        """Closes the connection, and stays offline. What is in an outbox file is sent by the next process."""
        self.step(self.machine.stop)
        for changes in list(self._changes):
            changes.end()
        for states in list(self._states):
            states.end()
        for key in list(self._timers):
            self._set_timer(key, None)
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._file is not None:
            self._file.close()
            self._file = None

    # State

    @property
    def state(self) -> ConnectionState:
        """The state of the connection."""
        return ConnectionState(self.machine.core.phase, self.machine.core.error)

    def states(self) -> Changes[ConnectionState]:
        """The state of the connection now, and then each new one."""
        states: Changes[ConnectionState] = Changes(lambda _: True, lambda newest: newest)
        states.put(self.state)
        self._states.add(states)
        return states

    @property
    def user_id(self) -> str | None:
        """The user of the token; None before the first connect."""
        return self.machine.core.user

    @property
    def epoch(self) -> int | None:
        """Changes if the server's database was set back; kept beside a conversation's `cursor`."""
        return self.machine.core.epoch

    # Conversations

    def conversation(
        self, conversation_id: str, *, listen: bool = True, since: int | None = None, epoch: int | None = None
    ) -> Conversation:
        """A conversation of the user. Without `listen`, only to send.

        `since` (with its `epoch`) continues after a `cursor` that an earlier process kept.
        """
        check_id(conversation_id)
        if since is not None and since < 0:
            raise ValueError("since is a seq, or 0 for the beginning")
        if listen:
            self.step(lambda: self.machine.rooms.open(conversation_id, since, epoch))
        return Conversation(self, conversation_id)

    def dm(self, user_id: str, *, listen: bool = True) -> Conversation:
        """The direct conversation with a user. The first message creates it."""
        return self.conversation(f"/{user_id}", listen=listen)

    def changes(self) -> Changes[Change]:
        """What happens from now on in all conversations that are open."""
        return self.subscribe(lambda _: True)

    async def request(self, frame: Frame, lost: Lost = Lost.REPEAT) -> Frame:
        """Sends any frame of the native dialect that has an answer, such as `search`, and returns the answer."""
        check_frame(frame)
        return await self.settle(lambda token: self.machine.request(frame, token, lost))

    async def search(self, words: str, **fields: Any) -> list[Frame]:
        """Messages with these words, newest first."""
        return list((await self.request({"type": "search", "words": words, **fields}))["messages"])

    async def conversations(self, **fields: Any) -> AsyncIterator[Frame]:
        """The user's conversations, most recently active first, with unread counts and members: `async for`."""
        offset: int | None = 0
        while offset is not None:
            page = await self.request({"type": "conversations", "limit": 100, **fields, "offset": offset})
            for one in page["conversations"]:
                yield one
            offset = page.get("next_offset")

    async def presence(self, user_ids: list[str]) -> list[Frame]:
        """Who of these users is online."""
        return list((await self.request({"type": "presence", "user_ids": user_ids}))["users"])

    async def set_status(self, status: str) -> None:
        """`online`, `away`, `dnd` or `invisible`."""
        await self.request({"type": "status", "status": status})

    # For Conversation

    def subscribe(self, wanted: Callable[[Change], bool]) -> Changes[Change]:
        """An iterator over some changes."""
        changes = Changes(wanted, lambda newest: Change("reset", newest.conversation_id))
        if self.state.phase == "closed":
            changes.end(ChatClosed(self.state.error))
        self._changes.add(changes)
        return changes

    def submit(self, frame: Frame, target: str | None) -> asyncio.Future[Frame]:
        """Puts a command into the outbox. The future has the server's answer."""
        check_frame(frame)
        future = self._future(str(frame["client_id"]))
        self.step(lambda: self.machine.command(frame, target))
        return future

    async def settle(self, ask: Callable[[int], object]) -> Frame:
        """Makes a request under a new number, and waits for its answer."""
        self.check_open()
        self._last_request += 1
        token = self._last_request
        future = self._future(token)
        try:
            self.step(lambda: ask(token))
            return await future
        finally:
            self._waiters.pop(token, None)

    def check_open(self) -> None:
        """Raises ChatClosed if nothing would answer."""
        if self.state.phase == "closed":
            raise ChatClosed(self.state.error)

    def _future(self, key: str | int) -> asyncio.Future[Frame]:
        """The future for an answer. One that nobody awaits is no fault."""
        if key in self._waiters:
            return self._waiters[key]
        future: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()

        def done(_: asyncio.Future[Frame]) -> None:
            if self._waiters.get(key) is future:
                del self._waiters[key]
            if not future.cancelled():
                future.exception()

        future.add_done_callback(done)
        self._waiters[key] = future
        return future

    # Effects

    def step(self, change: Callable[[], object]) -> None:
        """Changes the machine, and carries out its effects."""
        try:
            change()
        finally:
            for effect in self.machine.take():
                self._carry_out(effect)

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case SendFrame(frame):
                self._send(frame)
            case SetTimer(key, ms):
                self._set_timer(key, ms)
            case Save() | Drop():
                self._store(effect)
            case Settled(key, answer):
                self._settle(key, answer)
            case Notify(change):
                for changes in list(self._changes):
                    changes.put(change)
            case OpenSocket(number):
                self._socket = Socket(number, self._url, self._websocket, self)
                self._keep(self._socket.task)
            case CloseSocket():
                if self._socket is not None:
                    self._socket.close()
                    self._socket = None
            case AskToken(ask):
                self._ask(ask)
            case StateChanged(state):
                self._state_changed(state)

    def _send(self, frame: Frame) -> None:
        if self._socket is not None and not self._socket.send(frame):
            # Too many frames wait: the network takes nothing any more.
            asyncio.get_running_loop().call_soon(self.step, self.machine.session.silence)

    def _store(self, effect: Save | Drop) -> None:
        if self._file is None:
            return
        if isinstance(effect, Save):
            self._file.save(effect.command)
        else:
            self._file.drop(effect.client_id)

    def _ask(self, ask: bool) -> None:
        if self._asking is not None:
            self._asking.cancel()
        self._asking = asyncio.create_task(self._ask_token()) if ask else None

    def _keep(self, task: asyncio.Task[Any]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _set_timer(self, key: TimerKey, ms: int | None) -> None:
        if timer := self._timers.pop(key, None):
            timer.cancel()
        if ms is not None:
            self._timers[key] = asyncio.get_running_loop().call_later(ms / 1_000, self._fire, key)

    def _fire(self, key: TimerKey) -> None:
        self._timers.pop(key, None)
        self.step(lambda: self.machine.timer(key))

    def _settle(self, key: str | int, answer: Frame | ErrorInfo) -> None:
        waiter = self._waiters.get(key)
        if waiter is None or waiter.done():
            return
        if isinstance(answer, ErrorInfo):
            waiter.set_exception(Refused(answer.code, answer.message))
        else:
            waiter.set_result(answer)

    def _state_changed(self, state: ConnectionState) -> None:
        for states in list(self._states):
            states.put(state)
        if state.phase != "closed":
            return
        for waiter in list(self._waiters.values()):
            if not waiter.done():
                waiter.set_exception(ChatClosed(state.error))
        if state.error is not None:
            for changes in list(self._changes):
                changes.end(ChatClosed(state.error))

    async def _ask_token(self) -> None:
        try:
            token = self._token() if callable(self._token) else self._token
            if inspect.isawaitable(token):
                token = await token
        except Exception as error:
            logger.warning("no token: %s", error)
            message = f"{type(error).__name__}: {error}"
            self.step(lambda: self.machine.token_failed(message))
            return
        if token is None:
            self.step(lambda: self.machine.session.stop(ErrorInfo("signed_out", "There is no token")))
        else:
            answer = token
            self.step(lambda: self.machine.token(answer))

    def socket_opened(self, number: int) -> None:
        """Called by the socket."""
        self.step(lambda: self.machine.opened(number))

    def socket_frame(self, number: int, frame: Frame) -> None:
        """Called by the socket."""
        try:
            self.step(lambda: self.machine.frame(number, frame))
        except (KeyError, TypeError, ValueError):
            # A frame that this client does not understand must not end it. A lost entry is a gap, which is closed.
            logger.exception("unexpected frame %s", frame.get("type"))

    def socket_closed(self, number: int, code: int, reason: str, retry_after_ms: int | None) -> None:
        """Called by the socket."""
        self.step(lambda: self.machine.closed(number, code, reason, retry_after_ms))
