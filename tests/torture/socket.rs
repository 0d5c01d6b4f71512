//! A WebSocket that returns the reason for its end instead of a panic.

use std::{net::SocketAddr, time::Duration};

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::{
    net::{TcpSocket, TcpStream},
    time::{sleep, timeout},
};
use tokio_tungstenite::{WebSocketStream, client_async, tungstenite::Message};

use crate::support::token;

/// Maximum time until a connection is greeted.
const OPENING: Duration = Duration::from_secs(6);
/// Maximum time to send a frame.
const SENDING: Duration = Duration::from_secs(3);
/// Time that a silent client keeps its socket open; longer than its node waits for a pong.
const VANISHED: Duration = Duration::from_secs(12);

/// An open connection.
pub struct Socket(WebSocketStream<TcpStream>);

impl Socket {
    /// Connects `user`; `None` if the node is down or takes too long.
    pub async fn open(address: SocketAddr, user: &str) -> Option<Self> {
        let opening = async {
            let socket = TcpSocket::new_v4().ok()?;
            // Use a small buffer, so that a stalled reader soon affects the node.
            socket.set_recv_buffer_size(8 * 1024).ok()?;
            let stream = socket.connect(address).await.ok()?;
            stream.set_nodelay(true).ok()?;
            let url = format!("ws://{address}/v1/ws?token={}", token(user));
            let mut socket = Self(client_async(url, stream).await.ok()?.0);
            let greeting = socket.next().await.ok()?;
            (greeting["type"] == "authenticated").then_some(socket)
        };
        timeout(OPENING, opening).await.ok().flatten()
    }

    /// Returns the next frame. `Err` holds the reason for the end.
    pub async fn next(&mut self) -> Result<Value, String> {
        loop {
            match self.0.next().await {
                Some(Ok(Message::Text(text))) => {
                    return serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"));
                }
                Some(Ok(Message::Close(Some(close)))) => {
                    return Err(format!("closed: {} {}", close.code, close.reason));
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error.to_string()),
                None => return Err("ended".into()),
            }
        }
    }

    /// Sends a frame.
    pub async fn send(&mut self, frame: &Value) -> Result<(), String> {
        let sending = timeout(SENDING, self.0.send(Message::text(frame.to_string())));
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
