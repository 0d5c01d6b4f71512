// Connect to WebSocket
const userId = 'user-uuid-here';
const ws = new WebSocket(`ws://localhost:8000/ws/${userId}`);

// Connection opened
ws.onopen = function(event) {
  console.log('Connected to WebSocket');
  
  // Join a conversation
  ws.send(JSON.stringify({
    type: 'join_conversation',
    conversation_id: 'conversation-uuid'
  }));
};

// Receive messages
ws.onmessage = function(event) {
  const data = JSON.parse(event.data);
  
  switch(data.type) {
    case 'new_message':
      displayMessage(data.message);
      break;
    
    case 'typing_indicator':
      showTypingIndicator(data.user_id, data.is_typing);
      break;
    
    case 'presence_update':
      updateUserPresence(data.user_id, data.online);
      break;
    
    case 'online_users':
      updateOnlineUsersList(data.users);
      break;
    
    case 'error':
      console.error('WebSocket error:', data.message);
      break;
  }
};

// Send a message
function sendMessage(conversationId, content, personaId = null) {
  ws.send(JSON.stringify({
    type: 'send_message',
    conversation_id: conversationId,
    content: content,
    persona_id: personaId
  }));
}

// Typing indicators
let typingTimeout;
function handleTyping(conversationId) {
  // Send typing start
  ws.send(JSON.stringify({
    type: 'typing_start',
    conversation_id: conversationId
  }));
  
  // Clear previous timeout
  clearTimeout(typingTimeout);
  
  // Auto-stop after 3 seconds of inactivity
  typingTimeout = setTimeout(() => {
    ws.send(JSON.stringify({
      type: 'typing_stop',
      conversation_id: conversationId
    }));
  }, 3000);
}

// Connection closed
ws.onclose = function(event) {
  console.log('WebSocket connection closed');
  // Implement reconnection logic here
  setTimeout(() => {
    // Reconnect
  }, 3000);
};

// Error handling
ws.onerror = function(error) {
  console.error('WebSocket error:', error);
};
