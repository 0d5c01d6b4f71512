"""Whatever a network does to frames, the client shows in the end what the server has, and sends everything once."""

from __future__ import annotations

import os
from typing import Any

from hypothesis import HealthCheck, given, settings, strategies as st

from switchboard_client.model import Frame, Message

from .driver import Driver
from .model_log import ModelLog

EMOJI = ("👍", "🎉")


class World:
    """One client, a server, and the frames between them, which may be late, lost, repeated and out of order."""

    def __init__(self) -> None:
        self.driver = Driver()
        self.log = ModelLog()
        self.to_client: list[Frame] = []
        self.to_server: list[Frame] = []
        self.listening = False
        self.count = 0
        self.commands = 0
        self.driver.machine.rooms.open("team")
        self.connect()

    @property
    def connected(self) -> bool:
        """True while the client has a socket."""
        return self.driver.machine.core.online

    def connect(self) -> None:
        """Connects, if the client is not connected."""
        if not self.connected:
            self.driver.online()
            self.collect()

    def collect(self) -> None:
        """Takes what the client sent; what it sends to an ended socket is lost."""
        sent, self.driver.sent = self.driver.sent, []
        if self.connected:
            self.to_server += sent

    def close(self, code: int = 1006) -> None:
        """The socket ends, with all that was on its way."""
        if self.connected:
            self.driver.close(code)
            self.to_client.clear()
            self.to_server.clear()
            self.driver.sent.clear()
            self.listening = False

    def serve(self) -> None:
        """The server takes the next frame of the client."""
        if not self.to_server:
            return
        frame = self.to_server.pop(0)
        ref = {"ref": frame["ref"]} if "ref" in frame else {}
        match frame["type"]:
            case "join":
                self.listening = True
                self.to_client.append({"type": "joined", "conversation_id": "team", "head": self.log.head, **ref})
            case "sync":
                self.listening = True
                since = frame["conversations"]["team"]
                answer: dict[str, Any] = {"conversation_id": "team", "head": self.log.head}
                if self.log.head - since > 12:
                    answer["resync"] = {"first_seq": 1}
                self.to_client.append({"type": "synced", "conversations": [answer], **ref})
                self.to_client += [] if "resync" in answer else self.log.entries[since:]
            case "history":
                self.to_client.append(self.log.page("alice", {**frame, "limit": 5}))
            case "send" | "edit" | "delete" | "react":
                self.to_client.append(self.log.store("alice", frame))
            case "ping":
                self.to_client.append({"type": "pong"})
            case kind:
                raise AssertionError(f"unexpected {kind}")

    def deliver(self, at: int = 0) -> None:
        """One of the frames on their way reaches the client. Answers keep their order among the frames before them."""
        if not self.to_client:
            return
        movable = [i for i, one in enumerate(self.to_client) if "ref" not in one or i == 0]
        frame = self.to_client.pop(movable[at % len(movable)])
        self.driver.receive(frame)
        self.collect()

    def other(self, user: str, command: Frame) -> None:
        """Another user does something; a listening socket gets the entry."""
        self.count += 1
        head = self.log.head
        self.log.store(user, {**command, "client_id": f"o{self.count}"})
        if self.listening and self.log.head > head:
            self.to_client.append(self.log.entries[-1])

    def command(self, command: Frame, target: str | None = None) -> None:
        """Alice does something."""
        self.commands += 1
        self.driver.machine.command({**command, "conversation_id": "team", "client_id": f"c{self.commands}"}, target)
        self.driver.run()
        self.collect()

    def advance(self, ms: int) -> None:
        """Time passes."""
        self.driver.advance(ms)
        self.collect()
        if not self.connected:
            self.to_client.clear()
            self.to_server.clear()
            self.listening = False

    def settle(self) -> None:
        """From now on the network works. Everything is answered, and gaps are closed."""
        for _ in range(40):
            self.connect()
            while self.to_client or self.to_server:
                self.serve()
                self.deliver()
            room = self.driver.machine.rooms.get("team")
            if room.log.cursor == self.log.head and room.log.loaded and not self.driver.stored:
                return
            # An entry that was lost without a later one shows only when something else comes.
            if room.log.cursor is not None and not room.log.has_gap:
                self.other("bob", {"type": "send", "content": "last"})
            self.advance(60_000)
        raise AssertionError(f"the client does not catch up: {self.driver.machine.rooms.get('team')}")


def view(message: Message) -> dict[str, Any]:
    """What must be the same on both sides."""
    return {
        "seq": message.seq,
        "content": message.content,
        "deleted": message.deleted,
        "replies": message.replies,
        "reactions": {(one.emoji, one.count, one.own) for one in message.reactions},
        "edited_at": message.edited_at,
    }


def server_view(message: dict[str, Any]) -> dict[str, Any]:
    """The same of a message of the server."""
    return {
        "seq": message["seq"],
        "content": message["content"],
        "deleted": message.get("deleted", False),
        "replies": message.get("replies", 0),
        "edited_at": message.get("edited_at"),
        "reactions": {(one["emoji"], one["count"], one["own"]) for one in message.get("reactions", [])},
    }


STEPS = st.one_of(
    # Without many of these, few frames would ever arrive.
    st.tuples(st.just("flow"), st.lists(st.integers(0, 5), min_size=1, max_size=6)),
    st.tuples(st.just("flow"), st.lists(st.integers(0, 5), min_size=1, max_size=6)),
    st.tuples(st.just("flow"), st.just([0] * 10)),
    st.tuples(st.just("serve")),
    st.tuples(st.just("deliver"), st.integers(0, 5)),
    st.tuples(st.just("drop"), st.integers(0, 5)),
    st.tuples(st.just("repeat"), st.integers(0, 20)),
    st.tuples(st.just("close"), st.sampled_from([1006, 4408, 1012])),
    st.tuples(st.just("connect")),
    st.tuples(st.just("advance"), st.sampled_from([100, 5_000, 40_000])),
    st.tuples(st.just("send"), st.one_of(st.none(), st.integers(0, 20))),
    st.tuples(st.sampled_from(["edit", "delete", "react", "unreact"]), st.integers(0, 20)),
    st.tuples(st.just("edit_own"), st.integers(1, 20)),
    st.tuples(st.just("other_send"), st.one_of(st.none(), st.integers(0, 20))),
    st.tuples(st.sampled_from(["other_edit", "other_delete", "other_react"]), st.integers(0, 20)),
    st.tuples(st.just("older")),
)


def run_step(world: World, step: tuple[Any, ...]) -> None:
    """Does one thing that may happen."""
    kind, *arguments = step
    at = arguments[0] if arguments else None
    shown = [one for one in world.log.entries if one["type"] == "message"]
    seq = shown[at % len(shown)]["seq"] if shown and isinstance(at, int) else None
    reply = {} if seq is None else {"reply_to": seq}
    match kind:
        case "flow":
            for one in arguments[0]:
                world.serve()
                world.deliver(one)
        case "serve" | "connect" | "close" | "deliver" | "advance":
            getattr(world, kind)(*arguments)
        case "drop":
            # Entries and acks may be lost; an answer with a ref comes, or its socket ends.
            movable = [one for one in world.to_client if "ref" not in one and one["type"] != "pong"]
            if movable and at is not None:
                world.to_client.remove(movable[at % len(movable)])
        case "repeat" if world.listening and world.log.head and at is not None:
            world.to_client.append(world.log.entries[at % world.log.head])
        case "send":
            world.command({"type": "send", "content": f"mine {world.commands}", **reply})
        case "edit_own":
            # Names a message that may have no seq yet, or that never existed.
            world.command({"type": "edit", "content": f"edited {world.commands}"}, f"c{at}")
        case "edit" | "delete" | "react" | "unreact" if seq is not None:
            extra: Frame = {"content": f"edited {world.commands}"} if kind == "edit" else {}
            if "react" in kind:
                extra = {"emoji": EMOJI[seq % 2], "active": kind == "react"}
            world.command({"type": "react" if "react" in kind else kind, "seq": seq, **extra})
        case "other_send":
            world.other("bob", {"type": "send", "content": f"other {world.count}", **reply})
        case "other_edit" | "other_delete" | "other_react" if seq is not None:
            other: Frame = {
                "content": f"changed {world.count}",
                "emoji": EMOJI[world.count % 2],
                "active": world.count % 3 != 0,
            }
            world.other("carol", {"type": kind.removeprefix("other_"), "seq": seq, **other})
        case "older":
            world.driver.machine.rooms.load_older("team", 1_000 + len(world.driver.settled))
            world.driver.run()
            world.collect()


def check_always(world: World) -> None:
    """What must hold at every moment."""
    log = world.driver.machine.rooms.get("team").log
    assert log.cursor is None or log.cursor <= world.log.head
    seqs = [one.seq for one in log.messages]
    assert seqs == sorted(set(seqs), key=lambda seq: seq or 0), "doubled or out of order"
    own = [one.client_id for one in world.driver.machine.messages("team") if one.sender_id == "alice"]
    assert len(own) == len(set(own)), "an own message is shown twice"


# The same examples in each run, unless EXAMPLES asks for so many random ones.
EXAMPLES = int(os.environ.get("EXAMPLES", "0"))


@settings(
    max_examples=EXAMPLES or 200,
    derandomize=not EXAMPLES,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
@given(st.lists(STEPS, min_size=10, max_size=60))
def test_the_client_ends_with_what_the_server_has(steps: list[tuple[Any, ...]]) -> None:
    """Any order, losses, repeats and reconnects."""
    world = World()
    for step in steps:
        run_step(world, step)
        check_always(world)
    world.settle()
    check_always(world)
    shown = world.driver.machine.messages("team")
    expected = {one["seq"]: server_view(one) for one in world.log.shown("alice")}
    assert [view(one) for one in shown] == [expected[one.seq] for one in shown if one.seq is not None]
    # The list has no holes: it is the newest part of the history.
    assert [one.seq for one in shown] == sorted(expected)[len(expected) - len(shown) :]
    # Every change was told once, in order.
    seqs = [
        one.frame["seq"] for one in world.driver.changes if one.frame and "seq" in one.frame and one.kind != "failed"
    ]
    assert seqs == sorted(set(seqs))
    # Every send was stored, in the order in which it was made.
    mine = [one["client_id"] for one in world.log.entries if one["sender_id"] == "alice" and one["type"] == "message"]
    assert mine == sorted(mine, key=lambda one: int(one[1:]))
    # A command is settled once confirmed or refused.
    assert all(f"c{number}" in world.driver.settled for number in range(1, world.commands + 1))
