"""The outbox: commands in their order, each repeated with one client_id until the server confirms or refuses it.

One command of a conversation is on its way at a time, so none can overtake an earlier one that was refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from . import limits
from .core import Command, Core, Drop, Notify, Save, Settled, error_of
from .log import changed
from .model import Change, ErrorInfo, Frame, Message, OutboxFull

KINDS = {"send": "message", "edit": "message_edited", "delete": "message_deleted", "react": "reaction"}


def entry_of(command: Command, core: Core, ack: Frame | None = None) -> Frame:
    """The entry that a command becomes; before its ack, what it will look like. Its own socket gets no copy."""
    frame: Frame = {
        "content": "",
        "created_at": command.created_at,
        **command.frame,
        "sender_id": core.user or "",
        "sender_name": core.name,
    }
    frame["target_seq"] = frame.pop("seq", None)
    if ack is not None:
        frame |= {key: ack[key] for key in ("conversation_id", "seq", "id", "created_at") if key in ack}
    frame["type"] = KINDS[command.frame["type"]]
    return frame


class Outbox:
    """Commands that the server has not confirmed, in the order in which they were made."""

    def __init__(self, core: Core, resolve: Callable[[str], str], may_send: Callable[[str], bool]) -> None:
        self._core = core
        self._resolve = resolve
        self._may_send = may_send
        self._commands: dict[str, Command] = {}

    def __len__(self) -> int:
        return len(self._commands)

    def get(self, client_id: str | None) -> Command | None:
        """The command with this client_id."""
        return self._commands.get(client_id) if client_id else None

    def of(self, conversation: str) -> list[Command]:
        """This user's commands for a conversation."""
        return [one for one in self._commands.values() if self._resolve(one.key) == conversation and self._is_mine(one)]

    def waiting(self) -> list[Command]:
        """This user's commands that were not refused."""
        return [one for one in self._commands.values() if one.failed is None and self._is_mine(one)]

    def _is_mine(self, command: Command) -> bool:
        return command.user is None or command.user == self._core.user

    def restore(self, commands: list[Command]) -> None:
        """Takes what an earlier process stored."""
        self._commands |= {one.client_id: one for one in commands}

    def add(self, frame: Frame, created_at: str, target: str | None = None) -> None:
        """Stores a command, and sends it as soon as it is its turn. A repeated client_id is the same command."""
        if frame["client_id"] in self._commands:
            return
        if len(self._commands) >= limits.MAX_OUTBOX:
            raise OutboxFull(f"{limits.MAX_OUTBOX} commands wait for the server")
        epoch = self._core.epoch if "seq" in frame else None
        command = Command(frame, created_at, target, self._core.user, epoch)
        self._commands[command.client_id] = command
        self._core.emit(Save(command))
        self.send_all()

    def claim(self) -> None:
        """A user connected: commands made before belong to them, and seqs of another epoch name nothing any more."""
        for command in list(self._commands.values()):
            if command.user is None:
                command.user = self._core.user
                self._core.emit(Save(command))
            if self._is_mine(command) and command.epoch not in (None, self._core.epoch):
                self._refuse(command, ErrorInfo("not_found", "The server's log was set back"))

    def send_all(self) -> None:
        """Sends the first command of each conversation that has none on its way."""
        if not self._core.online:
            return
        busy: set[str] = set()
        for command in list(self._commands.values()):
            conversation = self._resolve(command.key)
            if command.failed or conversation in busy or not self._is_mine(command):
                continue
            if "seq" not in command.frame and command.frame["type"] != "send":
                target = self.get(command.target)
                if target is None or target.frame["type"] != "send":
                    self._refuse(command, ErrorInfo("not_found", "The message was not sent"))
                # Otherwise its message comes first, or failed: then the user decides.
                continue
            busy.add(conversation)
            # An ack that comes before the answer to a join could overtake the entries that the join brings.
            if command.sent or command.waiting or not self._may_send(conversation):
                continue
            command.sent = True
            self._core.send(self._frame_of(command))
            self._core.timer("command", command.client_id, limits.COMMAND_TIMEOUT_MS)

    def _frame_of(self, command: Command) -> Frame:
        frame = dict(command.frame)
        if frame["type"] != "send" and "recipient_id" in frame:
            frame["conversation_id"] = self._resolve(command.key)
            del frame["recipient_id"]
        return frame

    def confirm(self, command: Command, answer: Frame) -> None:
        """The command is stored, or (a reaction) changed nothing."""
        seq = answer.get("seq")
        # Edits of this message are stored with its seq first: without it, a process that ends here could not send them.
        for one in list(self._commands.values()):
            if one.target == command.client_id and "seq" not in one.frame and seq is not None:
                one.frame = {**one.frame, "seq": seq}
                one.epoch = self._core.epoch
                self._core.emit(Save(one))
        self._remove(command)
        self._core.emit(Settled(command.client_id, answer))
        self.send_all()

    def _remove(self, command: Command) -> None:
        del self._commands[command.client_id]
        self._core.timer("command", command.client_id)
        self._core.emit(Drop(command.client_id))

    def stored(self, entry: Frame) -> None:
        """An entry or a page shows a message: if the outbox has it, it is stored, whether or not its ack comes."""
        command = self.get(entry.get("client_id"))
        if command is not None and entry.get("sender_id") == self._core.user:
            self.confirm(command, entry)

    def refused(self, frame: Frame) -> bool:
        """An `error` that names a command. False if there is no such command."""
        command = self.get(frame.get("client_id"))
        if command is None:
            return False
        if frame.get("code") == "persona_failed":
            # The message itself is stored, and its ack comes separately.
            self._core.emit(Notify(Change("error", self._resolve(command.key), None, frame)))
        elif frame.get("retryable"):
            command.sent, command.waiting = False, True
            self._core.timer("command", command.client_id, self._core.pause(command.tries, frame))
            command.tries += 1
        else:
            self._refuse(command, error_of(frame))
            self.send_all()
        return True

    def _refuse(self, command: Command, error: ErrorInfo) -> None:
        """A message stays, so that the user can send it again or discard it. Other commands go."""
        conversation = self._resolve(command.key)
        message = None
        if command.frame["type"] == "send":
            command.failed, command.sent = error, False
            self._core.timer("command", command.client_id)
            self._core.emit(Save(command))
            message = self.shown(command)
        else:
            self._remove(command)
        self._core.emit(Settled(command.client_id, error))
        self._core.emit(Notify(Change("failed", conversation, message, {"code": error.code, "message": error.message})))

    def resume(self, client_id: str) -> None:
        """The pause after a refusal is over, or a command had no answer for long: it is sent again."""
        if command := self.get(client_id):
            command.sent = command.waiting = False
        self.send_all()

    def retry(self, client_id: str) -> None:
        """Sends a failed message again, in its old place."""
        command = self.get(client_id)
        if command is None or command.failed is None:
            return
        command.failed, command.tries = None, 0
        self._core.emit(Save(command))
        self.send_all()

    def discard(self, client_id: str) -> None:
        """Drops a failed message, and the edits of it."""
        command = self.get(client_id)
        if command is not None and command.failed is not None:
            self._remove(command)
            self.send_all()

    def reset(self) -> None:
        """The socket ended: what was not confirmed is sent again on the next one."""
        for command in self._commands.values():
            command.sent = False

    def refuse_longest(self) -> None:
        """A frame was too large for the server. Sent again, the longest one would close each further socket."""
        sent = [one for one in self._commands.values() if one.sent]
        if sent:
            self._refuse(max(sent, key=lambda one: len(repr(one.frame))), ErrorInfo("too_large", "Message too large"))

    def shown(self, command: Command) -> Message:
        """The message of a send that is not stored yet."""
        frame: dict[str, Any] = command.frame
        return Message(
            conversation_id=frame.get("conversation_id"),
            sender_id=self._core.user or "",
            sender_name=self._core.name,
            content=frame.get("content", ""),
            created_at=command.created_at,
            client_id=command.client_id,
            reply_to=frame.get("reply_to"),
            data=frame.get("data"),
            error=command.failed,
            status="failed" if command.failed else "sending",
        )

    def overlay(self, conversation: str, messages: list[Message]) -> list[Message]:
        """Messages as they will be when all commands are stored."""
        shown = list(messages)
        for command in self.of(conversation):
            if command.frame["type"] == "send":
                shown.append(self.shown(command))
                continue
            entry = entry_of(command, self._core)
            for at, one in enumerate(shown):
                own = one.client_id == command.target and one.sender_id in ("", self._core.user)
                if one.seq == command.frame.get("seq") if "seq" in command.frame else own and command.target:
                    shown[at] = replace(changed(one, entry, self._core.user), as_of=one.as_of)
        return shown
