import pytest
from fastapi.testclient import TestClient
from backend.api.main import app

@pytest.mark.asyncio
async def test_websocket_connection():
    """Test basic WebSocket connection."""
    client = TestClient(app)
    
    with client.websocket_connect("/ws/test-user") as websocket:
        # Should receive online users list on connection
        data = websocket.receive_json()
        assert data['type'] == 'online_users'
        assert isinstance(data['users'], list)

@pytest.mark.asyncio
async def test_join_conversation():
    """Test joining a conversation."""
    client = TestClient(app)
    
    with client.websocket_connect("/ws/test-user") as websocket:
        # Skip initial online users message
        websocket.receive_json()
        
        # Join conversation
        websocket.send_json({
            'type': 'join_conversation',
            'conversation_id': 'test-conv'
        })
        
        # Should receive confirmation
        data = websocket.receive_json()
        assert data['type'] == 'conversation_joined'
        assert data['conversation_id'] == 'test-conv'
