const token = localStorage.getItem("access_token");
const conversationId = "conv-123";
const ws = new WebSocket(
  `ws://localhost:8000/api/chat/ws/${conversationId}?token=${token}`,
);
