"""A process that stores one message, loses its network, writes two more, and then waits for its end."""

import asyncio
import sys

from switchboard_client import Chat


async def main(url: str, token: str, name: str, outbox: str) -> None:
    """Runs until it is killed."""
    async with Chat(url, token, outbox=outbox) as chat:
        room = chat.conversation(name)
        await room.send("alice 0")
        # The machine's frames go nowhere from here on.
        assert chat._socket is not None
        chat._socket.send = lambda frame: True  # type: ignore[method-assign]
        room.post("alice 1")
        room.post("alice 2")
        print("posted", flush=True)
        await asyncio.Event().wait()


asyncio.run(main(*sys.argv[1:]))
