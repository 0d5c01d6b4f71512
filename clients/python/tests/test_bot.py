"""Runs examples/bot/bot.py unchanged, and the first programs of the README and of docs/quickstart.md."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from signal import SIGKILL

from .cluster import ROOT, Cluster, mint
from .processes import DEADLINE, Process, start
from .scenario import new_chat, until

BOT = ROOT / "examples" / "bot" / "bot.py"


async def run_bot(cluster: Cluster, outbox: Path) -> Process:
    """Starts the bot as its head says."""
    env = {**os.environ, "SWITCHBOARD_URL": cluster.proxy.url, "TOKEN": mint("echo"), "OUTBOX": str(outbox)}
    return await start(sys.executable, str(BOT), ready="ready", env=env)


async def test_the_bot_answers_each_message_once(cluster: Cluster, tmp_path: Path) -> None:
    """Messages before its start, in a group, in a first direct message, and after it was killed."""
    team = await cluster.conversation("alice", "echo")
    async with new_chat(cluster, "alice") as alice, new_chat(cluster, "dave") as dave, asyncio.timeout(DEADLINE):
        early, group, late = alice.dm("echo"), alice.conversation(team), dave.dm("echo")
        await early.send("are you there?")
        bot = await run_bot(cluster, tmp_path / "outbox")
        try:
            answers = ["are you there?", "You said: are you there?"]
            await until(early, lambda: [one.content for one in early.messages] == answers, answers)
            assert early.messages[1].reply_to == early.messages[0].seq

            await group.send("hello all")
            await group.send("@echo hello bot")
            await until(group, lambda: group.messages[-1].content == "You said: hello bot", "an answer")
            assert len(group.messages) == 3, "what is not for the bot has no answer"

            await late.send("first words")
            await until(late, lambda: late.messages[-1].content == "You said: first words", "an answer")
        finally:
            await bot.end(SIGKILL)

        await early.send("still there?")
        bot = await run_bot(cluster, tmp_path / "outbox")
        try:
            answers += ["still there?", "You said: still there?"]
            await until(early, lambda: [one.content for one in early.messages] == answers, answers)
        finally:
            await bot.end(SIGKILL)
        history = await cluster.history("alice", early.id or "")
        assert [one["content"] for one in history] == answers


async def test_the_program_of_the_readme(cluster: Cluster, tmp_path: Path) -> None:
    """It prints what is said."""
    text = (ROOT / "clients" / "python" / "README.md").read_text()
    program = text.split("```python\n")[1].split("```")[0]
    script = tmp_path / "hello.py"
    script.write_text(program.replace("ws://127.0.0.1:8000", cluster.proxy.url))
    env = {**os.environ, "TOKEN": mint("bob"), "PYTHONUNBUFFERED": "1"}
    process = await start(sys.executable, str(script), ready="Bob: hello from Python", env=env)
    async with new_chat(cluster, "alice") as alice, asyncio.timeout(DEADLINE):
        await alice.conversation("lobby").send("hi Bob")
        await process.line("Alice: hi Bob")
    await process.end(SIGKILL)


async def test_the_program_of_the_quickstart(cluster: Cluster, tmp_path: Path) -> None:
    """As it stands there: it sends, and prints what is said, with short-lived tokens that it gets for its own."""
    text = (ROOT / "docs" / "quickstart.md").read_text()
    script = tmp_path / "chat.py"
    script.write_text(text.split("```python\n")[1].split("```")[0])
    env = {
        **os.environ,
        "SWITCHBOARD_URL": cluster.proxy.url.replace("ws", "http", 1),
        "TOKEN": mint("bob"),
        "PYTHONUNBUFFERED": "1",
    }
    process = await start(sys.executable, str(script), ready="Bob: Hello from Python", env=env)
    async with new_chat(cluster, "alice") as alice, asyncio.timeout(DEADLINE):
        await alice.conversation("lobby").send("hi Bob")
        await process.line("Alice: hi Bob")
    await process.end(SIGKILL)
