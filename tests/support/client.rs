//! A chat client that speaks JSON over a WebSocket.

use std::ops::ControlFlow;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream,
    tungstenite::{self, Message, client::IntoClientRequest, http},
};

use super::{Node, token, within};

/// Close code reported for a connection that ended without a close frame (RFC 6455, 7.1.5).
const ABNORMAL: u16 = 1006;

/// An open WebSocket. Reading from it also answers pings.
#[derive(Debug)]
pub struct Client {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// The first frame from the node; it names the connected user.
    pub greeting: Value,
}

impl Client {
    /// Connects to a URL without waiting for a greeting.
    pub async fn connect(url: &str) -> Self {
        Self::try_connect(url).await.unwrap_or_else(|status| panic!("the upgrade was refused with {status}"))
    }

    /// Connects to a URL or with a prepared request. `Err` holds the status of a refused upgrade.
    pub async fn try_connect(request: impl IntoClientRequest + Unpin) -> Result<Self, http::StatusCode> {
        match within("an upgrade", tokio_tungstenite::connect_async(request)).await {
            Ok((socket, _)) => Ok(Self { socket, greeting: Value::Null }),
            Err(tungstenite::Error::Http(response)) => Err(response.status()),
            Err(error) => panic!("no WebSocket: {error}"),
        }
    }

    /// Connects `user` to `/v1/ws` and awaits `authenticated`.
    pub async fn native(node: &Node, user: &str) -> Self {
        let mut client = Self::connect(&format!("{}/v1/ws?token={}", node.ws(), token(user))).await;
        client.greeting = client.expect("authenticated").await;
        client
    }

    /// Connects `user` to `/ws/{room}` (rooms dialect) and awaits `connected`.
    pub async fn rooms(node: &Node, room: &str, user: &str) -> Self {
        let mut client = Self::connect(&format!("{}/ws/{room}?token={}", node.ws(), token(user))).await;
        client.greeting = client.expect("connected").await;
        client
    }

    /// Native dialect: joins a conversation and returns the `joined` frame.
    pub async fn join(&mut self, conversation: &str) -> Value {
        self.send(&json!({ "type": "join", "conversation_id": conversation, "ref": "join" })).await;
        let answer = self.until_where(|frame| frame["type"] == "joined" || frame["type"] == "error").await;
        assert_eq!(answer["type"], "joined", "the join was refused: {answer}");
        answer
    }

    /// Native dialect: joins a conversation, and gets `user_joined` and `user_left` there.
    pub async fn join_with_roster(&mut self, conversation: &str) {
        self.send(&json!({ "type": "join", "conversation_id": conversation, "roster": true, "ref": "join" })).await;
        self.until("joined").await;
    }

    /// Native dialect: sends a message to a conversation and returns the `ack`.
    pub async fn send_text(&mut self, conversation: &str, content: &str) -> Value {
        let id = format!("c-{:016x}", rand::random::<u64>());
        self.send(&json!({ "type": "send", "conversation_id": conversation, "content": content,
            "client_id": id, "ref": id }))
            .await;
        let ack = self.until("ack").await;
        assert_eq!(ack["ref"], id, "the ack belongs to another send: {ack}");
        ack
    }

    /// Sends a frame.
    pub async fn send(&mut self, frame: &Value) {
        self.send_message(Message::text(frame.to_string())).await;
    }

    /// Sends a frame; `Err` if the connection is closed.
    pub async fn try_send(&mut self, frame: &Value) -> Result<(), tungstenite::Error> {
        within("room to send", self.socket.send(Message::text(frame.to_string()))).await
    }

    /// Sends any WebSocket message.
    pub async fn send_message(&mut self, message: Message) {
        within("room to send", self.socket.send(message)).await.expect("the connection is open");
    }

    /// Returns the next message that isn't a ping or pong; `Err` holds code and reason of the close.
    async fn next(&mut self) -> Result<Message, (u16, String)> {
        let reading = async {
            while let Some(Ok(message)) = self.socket.next().await {
                match message {
                    Message::Ping(_) | Message::Pong(_) => {}
                    Message::Close(frame) => {
                        // The client's close frame goes out with the next read.
                        while let Some(Ok(_)) = self.socket.next().await {}
                        return Err(frame.map_or((1005, String::new()), |f| (f.code.into(), f.reason.to_string())));
                    }
                    message => return Ok(message),
                }
            }
            Err((ABNORMAL, String::new()))
        };
        within("a frame", reading).await
    }

    /// Returns the next frame, or code and reason of the close.
    pub async fn recv_or_close(&mut self) -> Result<Value, (u16, String)> {
        let message = self.next().await?;
        let text = message.to_text().unwrap_or_else(|_| panic!("not a text frame: {message:?}"));
        Ok(serde_json::from_str(text).unwrap_or_else(|_| panic!("not JSON: {text}")))
    }

    /// Returns the next frame.
    pub async fn recv(&mut self) -> Value {
        self.recv_or_close().await.unwrap_or_else(|(code, reason)| panic!("closed with {code} {reason:?}"))
    }

    /// Returns the next frame and checks that it has this `type`.
    pub async fn expect(&mut self, kind: &str) -> Value {
        let frame = self.recv().await;
        assert_eq!(frame["type"], kind, "{frame}");
        frame
    }

    /// Skips frames until one has this `type`, and returns it.
    pub async fn until(&mut self, kind: &str) -> Value {
        self.until_where(|frame| frame["type"] == kind).await
    }

    /// Skips frames until `wanted` accepts one, and returns it.
    pub async fn until_where(&mut self, mut wanted: impl FnMut(&Value) -> bool) -> Value {
        loop {
            let frame = self.recv().await;
            if wanted(&frame) {
                return frame;
            }
        }
    }

    /// Returns every frame up to the pong of a WebSocket ping, i.e. everything that the node had queued for this socket
    /// when it read the ping.
    pub async fn drain(&mut self) -> Vec<Value> {
        let mark = rand::random::<u64>().to_be_bytes().to_vec();
        self.send_message(Message::Ping(mark.clone().into())).await;
        let mut frames = Vec::new();
        let reading = async {
            while let Some(Ok(message)) = self.socket.next().await {
                let step = match message {
                    Message::Pong(answer) if answer[..] == mark[..] => ControlFlow::Break(()),
                    Message::Text(text) => {
                        frames.push(serde_json::from_str(&text).unwrap_or_else(|_| panic!("not JSON: {text}")));
                        ControlFlow::Continue(())
                    }
                    Message::Close(frame) => panic!("closed: {frame:?}"),
                    _ => ControlFlow::Continue(()),
                };
                if step.is_break() {
                    return;
                }
            }
            panic!("the connection ended");
        };
        within("a pong", reading).await;
        frames
    }

    /// Skips the remaining frames up to the close, and returns its code and reason; 1006 if the connection ended
    /// without a close frame.
    pub async fn expect_close(&mut self) -> (u16, String) {
        loop {
            if let Err(close) = self.next().await {
                return close;
            }
        }
    }

    /// Sends a close frame and waits for the node's answer.
    pub async fn close(mut self) {
        within("a close", self.socket.close(None)).await.expect("the connection is open");
        self.expect_close().await;
    }
}
