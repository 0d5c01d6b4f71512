// Get token
const response = await fetch("/api/websocket/token", {
    method: "POST",
    headers: { Authorization: "Bearer session-token" },
});
const { token, websocket_url } = await response.json();

// Connect to WebSocket
const ws = new WebSocket(websocket_url);

// Authenticate
ws.onopen = () => {
    ws.send(
        JSON.stringify({
            type: "authenticate",
            token: token,
        })
    );
};

// Handle messages
ws.onmessage = (event) => {
    const data = JSON.parse(event.data);

    switch (data.type) {
        case "authenticated":
            console.log("Connected as user:", data.user_id);
            break;
        case "new_message":
            displayMessage(data.data);
            break;
    }
};

// Send message
function sendMessage(recipientId, content) {
    ws.send(
        JSON.stringify({
            type: "send_message",
            recipient_id: recipientId,
            content: content,
        })
    );
}
