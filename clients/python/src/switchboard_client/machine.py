"""The state machine of the client: frames, closes, timers and commands in, effects out.

It does no input or output and reads no clock but the configured one, so tests drive it without a network.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from .core import Command, Config, Core, Effect, Notify, Settled, TimerKey, error_of
from .model import Change, ChangeKind, ErrorInfo, Frame, Message
from .outbox import entry_of
from .requests import Lost, Requests
from .rooms import Rooms
from .session import Session

EPHEMERAL: dict[str, ChangeKind] = {"typing": "typing", "receipt": "receipt", "event": "event", "presence": "presence"}


class Machine:
    """Every method is one step. The runtime then carries out the effects of `take`, in their order."""

    def __init__(self, config: Config | None = None) -> None:
        self.core = Core(config or Config())
        self.requests = Requests(self.core)
        self.rooms = Rooms(self.core, self.requests)
        self.outbox = self.rooms.outbox
        self.session = Session(self.core, self.requests, self._socket_ended)
        self._timers: dict[str, Callable[[str], None]] = {
            "connect": lambda _: self.session.connect(),
            "token": lambda _: self.session.token_timeout(),
            "silence": lambda _: self.session.silence(),
            "probe": lambda _: self.session.probe(),
            "refresh": lambda _: self.session.refresh(),
            "request": self.requests.retry,
            "command": self.outbox.resume,
            "gap": self.rooms.gap,
            "rejoin": self.rooms.rejoin,
        }

    def take(self) -> list[Effect]:
        """The effects of the steps since the last call."""
        effects, self.core.effects = self.core.effects, []
        return effects

    # The connection

    def connect(self) -> None:
        """The application wants to be online."""
        self.session.connect()

    def stop(self) -> None:
        """The application wants to be offline. It stays so until it connects again."""
        self.session.stop()

    def token(self, token: str) -> None:
        """The application answered `AskToken`."""
        self.session.token(token)

    def token_failed(self, message: str) -> None:
        """The application has no token now."""
        self.session.token_failed(message)

    def opened(self, socket: int) -> None:
        """The socket is open."""
        if socket == self.session.socket:
            self.session.opened()

    def closed(self, socket: int, code: int, reason: str, retry_after_ms: int | None = None) -> None:
        """The socket ended, or could not be opened."""
        if socket != self.session.socket:
            return
        if code == 1009:
            self.outbox.refuse_longest()
        self.session.closed(code, reason, None if retry_after_ms is None else {"retry_after_ms": retry_after_ms})

    def timer(self, key: TimerKey) -> None:
        """A timer is due."""
        self._timers[key[0]](key[1])

    def _socket_ended(self) -> None:
        self.requests.reset()
        self.outbox.reset()
        self.rooms.reset()

    # Frames

    def frame(self, socket: int, frame: Frame) -> None:
        """A frame came."""
        if socket != self.session.socket:
            return
        self.session.heard()
        match frame.get("type"):
            case "authenticated":
                self._authenticated(frame)
            case "restart":
                self.session.restart(frame)
            case "ack":
                self._ack(frame)
            case "ok" if command := self.outbox.get(frame.get("client_id")):
                self.outbox.confirm(command, frame)
            case "error":
                if not self.outbox.refused(frame):
                    self.requests.answer(frame)
            case "pong":
                pass
            case _ if self.requests.answer(frame):
                pass
            case "joined" | "resync" | "left":
                self.rooms.on_unasked(frame)
            case "hint":
                self.rooms.on_hint(frame)
            case kind if kind in EPHEMERAL:
                self._ephemeral(EPHEMERAL[str(kind)], frame)
            case _ if isinstance(frame.get("seq"), int) and isinstance(frame.get("conversation_id"), str):
                self.rooms.on_entry(frame)

    def _authenticated(self, frame: Frame) -> None:
        core = self.core
        changed = core.user not in (None, frame["user_id"]) or core.epoch not in (None, frame["epoch"])
        self.session.authenticated(frame)
        core.epoch = frame["epoch"]
        if changed:
            self.rooms.forget()
        self.outbox.claim()
        self.rooms.authenticated()
        self.requests.send_all()
        self.outbox.send_all()

    def _ack(self, frame: Frame) -> None:
        command = self.outbox.get(frame.get("client_id"))
        if command is None:
            return
        conversation = frame["conversation_id"]
        if command.key.startswith("/"):
            self.rooms.name(command.key, conversation)
        room = self.rooms.get(conversation)
        entry = entry_of(command, self.core, frame)
        self.outbox.confirm(command, {**entry, "type": "ack"})
        # Not the ack's seq but the entry moves the cursor: if entries before it are missing, it waits for them.
        self.rooms.take(room, entry)

    def _ephemeral(self, kind: ChangeKind, frame: Frame) -> None:
        room = self.rooms.find(frame["conversation_id"]) if "conversation_id" in frame else None
        if kind == "receipt" and room is not None:
            self.rooms.on_mark(room, frame["user_id"], frame["delivered_seq"], frame["read_seq"])
        if room is None or room.opened:
            self.core.emit(Notify(Change(kind, frame.get("conversation_id", ""), None, frame)))

    # What the application does

    def command(self, frame: Frame, target: str | None = None) -> None:
        """A `send`, `edit`, `delete` or `react` with a `client_id`. `target` names an own message without a seq."""
        frame = dict(frame)
        if target is not None and "seq" not in frame and self.outbox.get(target) is None:
            room = self.rooms.find(str(frame.get("conversation_id", f"/{frame.get('recipient_id')}")))
            message = None if room is None else room.log.find_own(target, self.core.user)
            if message is not None:
                frame["seq"], target = message.seq, None
        now = datetime.fromtimestamp(self.core.config.wall_ms() / 1_000, UTC)
        self.outbox.add(frame, now.isoformat(timespec="milliseconds").replace("+00:00", "Z"), target)

    def request(self, frame: Frame, token: int, lost: Lost = Lost.REPEAT) -> None:
        """A request of the application; its answer settles the token. A long answer may come in several frames."""
        parts: list[Frame] = []

        def done(answer: Frame) -> None:
            parts.append(answer)
            if answer.get("more"):
                return
            for key in [key for key, value in answer.items() if isinstance(value, list)]:
                answer[key] = [one for part in parts for one in part.get(key, ())]
            self.core.emit(Settled(token, error_of(answer) if answer["type"] == "error" else answer))

        self.requests.add(frame, done, lost)

    def typing(self, key: str, active: bool) -> None:
        """Tells the others, if the client is online."""
        conversation = self.rooms.resolve(key)
        if self.core.online and not conversation.startswith("/"):
            self.core.send({"type": "typing", "conversation_id": conversation, "active": active})

    def restore(self, commands: list[Command]) -> None:
        """Takes the commands that an earlier process stored."""
        self.outbox.restore(commands)

    def messages(self, key: str) -> list[Message]:
        """The messages of a conversation as they are shown."""
        return self.rooms.messages(key)

    def error(self, key: str) -> ErrorInfo | None:
        """Why the server refused to let the client listen to a conversation."""
        room = self.rooms.find(key)
        return None if room is None else room.error
