# Example load test (requires additional setup)
import asyncio
import websockets

async def simulate_user(room_id, token, messages_to_send=100):
    uri = f"ws://localhost:8000/ws/{room_id}?token={token}"
    async with websockets.connect(uri) as ws:
        for i in range(messages_to_send):
            message = {
                "type": "send_message",
                "data": {"content": f"Load test message {i}"}
            }
            await ws.send(json.dumps(message))
            await asyncio.sleep(0.1)  # 10 messages/second per user
