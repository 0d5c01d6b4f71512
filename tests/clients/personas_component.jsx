import React, { useState, useEffect, useRef } from 'react';

function ChatComponent({ userId, conversationId }) {
  const [messages, setMessages] = useState([]);
  const [input, setInput] = useState('');
  const [isTyping, setIsTyping] = useState(false);
  const [onlineUsers, setOnlineUsers] = useState([]);
  const ws = useRef(null);

  useEffect(() => {
    // Connect to WebSocket
    ws.current = new WebSocket(`ws://localhost:8000/ws/${userId}`);

    ws.current.onopen = () => {
      // Join conversation
      ws.current.send(JSON.stringify({
        type: 'join_conversation',
        conversation_id: conversationId
      }));
    };

    ws.current.onmessage = (event) => {
      const data = JSON.parse(event.data);

      switch(data.type) {
        case 'new_message':
          setMessages(prev => [...prev, data.message]);
          break;
        
        case 'typing_indicator':
          setIsTyping(data.is_typing);
          break;
        
        case 'online_users':
          setOnlineUsers(data.users);
          break;
      }
    };

    // Cleanup on unmount
    return () => {
      if (ws.current) {
        ws.current.close();
      }
    };
  }, [userId, conversationId]);

  const sendMessage = () => {
    if (input.trim() && ws.current) {
      ws.current.send(JSON.stringify({
        type: 'send_message',
        conversation_id: conversationId,
        content: input
      }));
      setInput('');
    }
  };

  const handleTyping = () => {
    if (ws.current) {
      ws.current.send(JSON.stringify({
        type: 'typing_start',
        conversation_id: conversationId
      }));
      
      // Auto-stop after 3 seconds
      setTimeout(() => {
        ws.current.send(JSON.stringify({
          type: 'typing_stop',
          conversation_id: conversationId
        }));
      }, 3000);
    }
  };

  return (
    <div className="chat-container">
      <div className="online-users">
        Online: {onlineUsers.length}
      </div>
      
      <div className="messages">
        {messages.map((msg, idx) => (
          <div key={idx} className={msg.is_ai ? 'ai-message' : 'user-message'}>
            <span className="content">{msg.content}</span>
            <span className="timestamp">{msg.timestamp}</span>
          </div>
        ))}
        {isTyping && <div className="typing-indicator">Someone is typing...</div>}
      </div>
      
      <div className="input-area">
        <input
          type="text"
          value={input}
          onChange={(e) => setInput(e.target.value)}
          onKeyUp={handleTyping}
          onKeyPress={(e) => e.key === 'Enter' && sendMessage()}
          placeholder="Type a message..."
        />
        <button onClick={sendMessage}>Send</button>
      </div>
    </div>
  );
}

export default ChatComponent;
