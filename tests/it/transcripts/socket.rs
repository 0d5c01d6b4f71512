//! A client's WebSocket, read all the time as real clients do: pings are answered whatever the transcript waits for.

use std::time::Duration;

use futures_util::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use serde_json::Value;
use tokio::{
    net::TcpStream,
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    time::timeout,
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream,
    tungstenite::{Error, Message, handshake::client::Request},
};

type Stream = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// What came.
enum Heard {
    Frame(Value),
    Pong(Vec<u8>),
    Closed(u16, String),
}

/// An open WebSocket.
pub(crate) struct Socket {
    writing: SplitSink<Stream, Message>,
    heard: UnboundedReceiver<Heard>,
}

/// Why there is no next frame.
pub(crate) enum NoFrame {
    /// The node closed the socket: code and reason.
    Closed(u16, String),
    /// Nothing came in time.
    Nothing,
}

impl Socket {
    /// Opens one. `Err` says why it was refused.
    pub(crate) async fn open(request: Request) -> Result<Self, String> {
        let (stream, _) = tokio_tungstenite::connect_async(request).await.map_err(|error| match error {
            Error::Http(response) => format!("refused with {}", response.status()),
            other => other.to_string(),
        })?;
        let (writing, reading) = stream.split();
        let (tell, heard) = unbounded_channel();
        tokio::spawn(listen(reading, tell));
        Ok(Self { writing, heard })
    }

    /// Sends a frame.
    pub(crate) async fn send(&mut self, text: String) -> Result<(), String> {
        self.writing.send(Message::text(text)).await.map_err(|error| error.to_string())
    }

    /// The next frame.
    pub(crate) async fn next(&mut self, patience: Duration) -> Result<Value, NoFrame> {
        loop {
            match timeout(patience, self.heard.recv()).await {
                Ok(Some(Heard::Frame(frame))) => return Ok(frame),
                Ok(Some(Heard::Pong(_))) => {}
                Ok(Some(Heard::Closed(code, reason))) => return Err(NoFrame::Closed(code, reason)),
                Ok(None) | Err(_) => return Err(NoFrame::Nothing),
            }
        }
    }

    /// Every frame up to the answer to a ping: all that the node had for this socket when it read it.
    pub(crate) async fn rest(&mut self, patience: Duration) -> Result<Vec<Value>, NoFrame> {
        let mark = rand::random::<u64>().to_be_bytes().to_vec();
        // Where the connection is gone, the reading half says how.
        let _gone = self.writing.send(Message::Ping(mark.clone().into())).await;
        let mut frames = Vec::new();
        loop {
            match timeout(patience, self.heard.recv()).await {
                Ok(Some(Heard::Frame(frame))) => frames.push(frame),
                Ok(Some(Heard::Pong(answer))) if answer == mark => return Ok(frames),
                Ok(Some(Heard::Pong(_))) => {}
                Ok(Some(Heard::Closed(code, reason))) => return Err(NoFrame::Closed(code, reason)),
                Ok(None) | Err(_) => return Err(NoFrame::Nothing),
            }
        }
    }

    /// Says goodbye and waits until the node has answered.
    pub(crate) async fn close(mut self, patience: Duration) -> Result<(), String> {
        self.writing.close().await.map_err(|error| error.to_string())?;
        while let Ok(heard) = timeout(patience, self.heard.recv()).await {
            if heard.is_none_or(|heard| matches!(heard, Heard::Closed(..))) {
                return Ok(());
            }
        }
        Err("the goodbye was not answered".into())
    }
}

/// Tells what comes, up to the close; a connection that just ends is closed with 1006.
async fn listen(mut reading: SplitStream<Stream>, tell: UnboundedSender<Heard>) {
    let mut closed = Heard::Closed(1006, String::new());
    while let Some(Ok(message)) = reading.next().await {
        let heard = match message {
            Message::Text(text) => Heard::Frame(serde_json::from_str(&text).unwrap_or_else(|_| text.as_str().into())),
            Message::Pong(payload) => Heard::Pong(payload.to_vec()),
            Message::Close(frame) => {
                closed = frame.map_or(Heard::Closed(1005, String::new()), |frame| {
                    Heard::Closed(frame.code.into(), frame.reason.to_string())
                });
                continue;
            }
            _ => continue,
        };
        let _gone = tell.send(heard);
    }
    let _gone = tell.send(closed);
}
