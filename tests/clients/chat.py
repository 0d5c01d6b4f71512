"""A chat client over the websockets package: says one thing, prints what it hears, leaves.

usage: chat.py URL USER WORDS HEAR
"""

import asyncio
import json
import sys

import websockets


async def main(url, user, words, hear):
    heard = []
    async with websockets.connect(url) as ws:
        async for message in ws:
            data = json.loads(message)
            if data["type"] == "connected":
                await ws.send(json.dumps({"type": "send_message", "data": {"content": words}}))
            if data["type"] == "new_message" and data["data"]["sender_id"] != user:
                heard.append(data["data"]["content"])
            if hear in heard:
                print(json.dumps(heard))
                return 0
    return 1


sys.exit(asyncio.run(asyncio.wait_for(main(*sys.argv[1:5]), 20)))
