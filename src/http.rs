//! HTTP: the route table, REST, health, and the way to a WebSocket.
