//! A WebSocket that returns the reason for its end instead of a panic.

use std::{net::SocketAddr, time::Duration};

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::{
    net::{TcpSocket, TcpStream},
    time::{sleep, timeout},
};
use tokio_tungstenite::{WebSocketStream, client_async, tungstenite::Message};

/// Maximum time until a connection is greeted.
const OPENING: Duration = Duration::from_secs(6);
/// Maximum time to send a frame.
const SENDING: Duration = Duration::from_secs(3);
/// Time that a silent client keeps its socket open; longer than its node waits for a pong.
const VANISHED: Duration = Duration::from_secs(12);

/// An open connection.
pub struct Socket(WebSocketStream<TcpStream>);

/// Result of [`Socket::open`].
pub enum Opened {
    /// The node greeted the client; `early` are frames before the greeting.
    Greeted { socket: Box<Socket>, greeting: Value, early: Vec<Value> },
    /// The node closed the socket; holds the reason.
    Refused(String),
    /// The node is down or takes too long.
    Down,
}

impl Socket {
    /// Connects to a URL and awaits the greeting.
    pub async fn open(address: SocketAddr, url: &str, is_greeting: impl Fn(&Value) -> bool) -> Opened {
        let opening = async {
            let socket = TcpSocket::new_v4().ok()?;
            // Use a small buffer, so that a stalled reader soon affects the node.
            socket.set_recv_buffer_size(8 * 1024).ok()?;
            let stream = socket.connect(address).await.ok()?;
            stream.set_nodelay(true).ok()?;
            let mut socket = Self(client_async(url, stream).await.ok()?.0);
            let mut early = Vec::new();
            loop {
                match socket.next().await {
                    Ok(Some(frame)) if is_greeting(&frame) => {
                        return Some(Opened::Greeted { socket: Box::new(socket), greeting: frame, early });
                    }
                    // A refused client gets its reason in a frame before the close.
                    Ok(Some(frame)) if frame["type"] == "error" || frame["type"] == "restart" => {}
                    Ok(Some(frame)) => early.push(frame),
                    Ok(None) => {}
                    Err(why) => return Some(Opened::Refused(why)),
                }
            }
        };
        timeout(OPENING, opening).await.ok().flatten().unwrap_or(Opened::Down)
    }

    /// Returns the next frame, or none for a ping or pong. `Err` holds the reason for the end.
    pub async fn next(&mut self) -> Result<Option<Value>, String> {
        match self.0.next().await {
            Some(Ok(Message::Text(text))) => {
                serde_json::from_str(&text).map(Some).map_err(|error| format!("{error}: {text}"))
            }
            Some(Ok(Message::Close(Some(close)))) => Err(format!("closed: {} {}", close.code, close.reason)),
            Some(Ok(_)) => Ok(None),
            Some(Err(error)) => Err(error.to_string()),
            None => Err("ended".into()),
        }
    }

    /// Sends a frame.
    pub async fn send(&mut self, frame: &Value) -> Result<(), String> {
        self.send_message(Message::text(frame.to_string())).await
    }

    /// Sends a ping; the node answers with a pong.
    pub async fn ping(&mut self) -> Result<(), String> {
        self.send_message(Message::Ping(Vec::new().into())).await
    }

    async fn send_message(&mut self, message: Message) -> Result<(), String> {
        let sending = timeout(SENDING, self.0.send(message));
        sending.await.map_err(|_| "the node does not read")?.map_err(|error| error.to_string())
    }

    /// Closes the connection with a close frame, or without one.
    pub async fn close(mut self, politely: bool) {
        if politely {
            let closing = async {
                self.0.close(None).await.ok()?;
                while let Some(Ok(_)) = self.0.next().await {}
                Some(())
            };
            let _ended = timeout(SENDING, closing).await;
        }
    }

    /// Ends the connection without a close frame; if `vanishes`, keeps it open and neither reads nor answers.
    pub fn abandon(self, vanishes: bool) {
        if vanishes {
            tokio::spawn(async move {
                sleep(VANISHED).await;
                drop(self);
            });
        }
    }
}
