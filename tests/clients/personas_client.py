import asyncio
import websockets
import json

async def chat_client(user_id: str, conversation_id: str):
    uri = f"ws://localhost:8000/ws/{user_id}"
    
    async with websockets.connect(uri) as websocket:
        # Join conversation
        await websocket.send(json.dumps({
            'type': 'join_conversation',
            'conversation_id': conversation_id
        }))
        
        # Start listening for messages
        async def receive_messages():
            async for message in websocket:
                data = json.loads(message)
                print(f"Received: {data}")
        
        # Send messages
        async def send_messages():
            while True:
                content = input("Enter message: ")
                await websocket.send(json.dumps({
                    'type': 'send_message',
                    'conversation_id': conversation_id,
                    'content': content
                }))
        
        # Run both tasks
        await asyncio.gather(
            receive_messages(),
            send_messages()
        )

# Run the client
asyncio.run(chat_client('user-uuid', 'conversation-uuid'))
