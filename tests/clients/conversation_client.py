import asyncio
import json
import websockets

class ChatClient:
    def __init__(self, conversation_id, token):
        self.conversation_id = conversation_id
        self.token = token
        self.ws = None

    async def connect(self):
        url = f'ws://localhost:8000/api/chat/ws/{self.conversation_id}?token={self.token}'
        async with websockets.connect(url) as ws:
            self.ws = ws
            print('Connected to conversation')

            # Listen for messages
            try:
                async for message in ws:
                    data = json.loads(message)
                    self.handle_message(data)
            except websockets.exceptions.ConnectionClosed:
                print('Disconnected from conversation')

    async def send_message(self, content):
        if self.ws:
            await self.ws.send(json.dumps({
                'type': 'message',
                'content': content
            }))

    def handle_message(self, message):
        if message['type'] == 'message':
            print(f"{message['sender_username']}: {message['content']}")
        elif message['type'] == 'system':
            print(f"[System] {message['content']}")

# Usage
async def main():
    client = ChatClient('conv-123', 'your-jwt-token')
    await client.connect()

asyncio.run(main())
