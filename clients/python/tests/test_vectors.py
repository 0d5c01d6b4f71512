"""Runs the vectors of clients/vectors, which all clients share. Their README describes the format."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from .driver import Driver

FOLDER = Path(__file__).parents[2] / "vectors"
COUNTED = ("join", "sync", "history", "send", "edit", "delete", "react", "refresh")
VECTORS = [
    pytest.param(vector["steps"], id=f"{file.stem}: {vector['name']}")
    for file in sorted(FOLDER.glob("*.json"))
    for vector in json.loads(file.read_text())
]


class Runner:
    """Runs the steps of one vector."""

    def __init__(self) -> None:
        self.driver = Driver()
        self.variables: dict[str, Any] = {}

    def match(self, actual: Any, expected: Any, at: str) -> None:
        """Compares; the first use of a variable takes the value."""
        if isinstance(expected, str) and expected.startswith("$"):
            expected = self.variables.setdefault(expected, actual)
        if isinstance(expected, dict):
            assert isinstance(actual, dict) and actual.keys() == expected.keys(), f"{at}: {actual} is not {expected}"
            for key in expected:
                self.match(actual[key], expected[key], f"{at}.{key}")
        else:
            assert actual == expected, at

    def fill(self, value: Any) -> Any:
        """A frame with the values of its variables."""
        if isinstance(value, str) and value.startswith("$"):
            return self.variables[value]
        if isinstance(value, list):
            return [self.fill(one) for one in value]
        if isinstance(value, dict):
            return {key: self.fill(one) for key, one in value.items()}
        return value

    def step(self, step: dict[str, Any]) -> None:
        """Runs one step: an object with one field, `sent` also with `of`."""
        kind = next(iter(step))
        argument = step[kind]
        driver = self.driver
        match kind:
            case "connect":
                driver.online(**argument)
            case "open":
                driver.machine.rooms.open(argument)
            case "send" | "edit" | "delete" | "react":
                frame = {"type": kind, **argument}
                target = frame.pop("target", None)
                driver.machine.command(frame, target)
            case "retry":
                driver.machine.outbox.retry(argument)
            case "discard":
                driver.machine.outbox.discard(argument)
            case "receive":
                driver.receive(self.fill(argument))
            case "sent":
                self.sent(argument, step.get("of", COUNTED))
            case "close":
                driver.close(argument["code"], argument["reason"])
            case "advance_ms":
                driver.advance(argument)
                if driver.asking and driver.machine.core.online:
                    driver.token()
            case "reload":
                self.reload()
            case "state":
                self.state(argument)
            case _:
                raise AssertionError(f"unknown step {kind}")
        self.driver.run()

    def sent(self, expected: list[Any], types: tuple[str, ...]) -> None:
        """Compares the frames since the last comparison."""
        frames = self.driver.take_sent(*types)
        assert [one["type"] for one in frames] == [one["type"] for one in expected]
        for at, frame in enumerate(frames):
            self.match(frame, expected[at], f"sent[{at}]")

    def reload(self) -> None:
        """A new client over the same storage."""
        stored = copy.deepcopy(self.driver.stored)
        self.driver = Driver()
        self.driver.stored = stored
        commands = copy.deepcopy(list(stored.values()))
        for one in commands:
            one.sent = one.waiting = False
        self.driver.machine.restore(commands)

    def state(self, expected: dict[str, Any]) -> None:
        """Compares what the client shows."""
        machine = self.driver.machine
        if "cursor" in expected:
            room = machine.rooms.find(expected["conversation"])
            assert room is not None and room.log.cursor == expected["cursor"]
        if "connection" in expected:
            assert machine.core.phase == expected["connection"]
        if "outbox" in expected:
            assert list(self.driver.stored) == expected["outbox"]
        if "messages" not in expected:
            return
        shown = machine.messages(expected["conversation"])
        assert len(shown) == len(expected["messages"]), shown
        for at, (message, fields) in enumerate(zip(shown, expected["messages"], strict=True)):
            for key, value in fields.items():
                assert _field(message, key) == value, f"messages[{at}].{key}"


def _field(message: Any, key: str) -> Any:
    if key == "error":
        return message.error and message.error.code
    if key == "reactions":
        return [{"emoji": one.emoji, "count": one.count, "own": one.own} for one in message.reactions]
    return getattr(message, key)


@pytest.mark.parametrize("steps", VECTORS)
def test_vector(steps: list[dict[str, Any]]) -> None:
    """A client that passes recovers from faults as the other clients do."""
    runner = Runner()
    for at, step in enumerate(steps):
        try:
            runner.step(step)
        except AssertionError as error:
            raise AssertionError(f"step {at}, {json.dumps(step)}: {error}") from error
