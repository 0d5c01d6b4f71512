class ChatClient {
  constructor(conversationId, token) {
    this.conversationId = conversationId;
    this.token = token;
    this.ws = null;
  }

  connect() {
    const url = `ws://localhost:8000/api/chat/ws/${this.conversationId}?token=${this.token}`;
    this.ws = new WebSocket(url);

    this.ws.onopen = () => {
      console.log("Connected to conversation");
    };

    this.ws.onmessage = (event) => {
      const message = JSON.parse(event.data);
      this.handleMessage(message);
    };

    this.ws.onerror = (error) => {
      console.error("WebSocket error:", error);
    };

    this.ws.onclose = () => {
      console.log("Disconnected from conversation");
    };
  }

  sendMessage(content) {
    if (this.ws && this.ws.readyState === WebSocket.OPEN) {
      this.ws.send(
        JSON.stringify({
          type: "message",
          content: content,
        }),
      );
    }
  }

  sendTyping() {
    if (this.ws && this.ws.readyState === WebSocket.OPEN) {
      this.ws.send(
        JSON.stringify({
          type: "typing",
        }),
      );
    }
  }

  handleMessage(message) {
    if (message.type === "message") {
      console.log(`${message.sender_username}: ${message.content}`);
    } else if (message.type === "typing") {
      console.log(`${message.sender_username} is typing...`);
    } else if (message.type === "system") {
      console.log(`[System] ${message.content}`);
    }
  }

  disconnect() {
    if (this.ws) {
      this.ws.close();
    }
  }
}

// Usage
const client = new ChatClient("conv-123", "your-jwt-token");
client.connect();
client.sendMessage("Hello, everyone!");
