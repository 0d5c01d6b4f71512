"""An echo bot: answers every direct message, and messages of groups that begin with @ and its id.

    pip install ./clients/python
    TOKEN=$(switchboard token --dev --user helper) python examples/bot/bot.py

SWITCHBOARD_URL names another server than ws://127.0.0.1:8000. With OUTBOX, the path of a file, answers that could not
be sent are sent after a restart.
"""

import asyncio
import os

from switchboard_client import Chat, Message


class Bot:
    """Answers messages, each once."""

    def __init__(self, chat: Chat) -> None:
        self.chat = chat
        self.direct: dict[str, bool] = {}  # conversation → whether it is a direct one

    async def read_conversations(self, listen: bool) -> None:
        """Learns which conversations are direct, and continues each after the last message that the bot read."""
        async for one in self.chat.conversations():
            self.direct[one["conversation_id"]] = not one["is_group"]
            if listen:
                marks = {member["user_id"]: member["read_seq"] for member in one["members"]}
                self.chat.conversation(one["conversation_id"], since=marks.get(self.chat.user_id, one["head"]))

    async def addressed(self, message: Message, conversation_id: str) -> str | None:
        """What the message says to the bot; None if it is for others."""
        if message.sender_id == self.chat.user_id or message.is_ai or message.deleted:
            return None
        if conversation_id not in self.direct:
            await self.read_conversations(listen=False)
        if self.direct.get(conversation_id):
            return message.content
        name, _, text = message.content.partition(" ")
        return text if name == f"@{self.chat.user_id}" else None

    async def run(self) -> None:
        """Answers until the chat ends."""
        changes = self.chat.changes()
        await self.chat.online()
        await self.read_conversations(listen=True)
        print("ready", flush=True)
        async for change in changes:
            if change.message is None:
                continue
            room = self.chat.conversation(change.conversation_id, listen=False)  # it is open
            if change.kind == "failed" and change.message.client_id is not None:
                # Such as an answer to a user who blocks the bot. Kept, it would take a place in the outbox.
                room.discard(change.message.client_id)
            if change.kind != "message":
                continue
            text = await self.addressed(change.message, change.conversation_id)
            if text:
                # The client_id names the question, so a restarted bot that answers again stores no second answer.
                seq = change.message.seq
                room.post(f"You said: {text}", reply_to=seq, client_id=f"echo-{seq}")
            room.mark_read(change.message.seq)


async def main() -> None:
    """Runs the bot with the settings of the environment."""
    url = os.environ.get("SWITCHBOARD_URL", "ws://127.0.0.1:8000")
    async with Chat(url, os.environ["TOKEN"], outbox=os.environ.get("OUTBOX"), follow=True) as chat:
        await Bot(chat).run()


if __name__ == "__main__":
    asyncio.run(main())
