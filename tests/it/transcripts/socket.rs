//! A client's WebSocket that is read all the time, as real clients do, so that pings are answered while the transcript
//! waits.

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

/// Something received.
enum Received {
    Frame(Value),
    Pong(Vec<u8>),
    Closed(u16, String),
}

/// An open WebSocket.
pub(crate) struct Socket {
    writing: SplitSink<Stream, Message>,
    heard: UnboundedReceiver<Received>,
}

/// Reason why there is no frame.
pub(crate) enum NoFrame {
    /// The node closed the socket: code and reason.
    Closed(u16, String),
    /// No frame came in time.
    Nothing,
}

impl Socket {
    /// Opens a WebSocket. `Err` holds the reason of a refusal.
    pub(crate) async fn open(request: Request) -> Result<Self, String> {
        let (stream, _) = tokio_tungstenite::connect_async(request).await.map_err(|error| match error {
            Error::Http(response) => format!("refused with {}", response.status()),
            other => other.to_string(),
        })?;
        let (writing, reading) = stream.split();
        let (sender, heard) = unbounded_channel();
        tokio::spawn(listen(reading, sender));
        Ok(Self { writing, heard })
    }

    /// Sends a frame.
    pub(crate) async fn send(&mut self, text: String) -> Result<(), String> {
        self.writing.send(Message::text(text)).await.map_err(|error| error.to_string())
    }

    /// Returns the next frame.
    pub(crate) async fn next(&mut self, patience: Duration) -> Result<Value, NoFrame> {
        loop {
            match timeout(patience, self.heard.recv()).await {
                Ok(Some(Received::Frame(frame))) => return Ok(frame),
                Ok(Some(Received::Pong(_))) => {}
                Ok(Some(Received::Closed(code, reason))) => return Err(NoFrame::Closed(code, reason)),
                Ok(None) | Err(_) => return Err(NoFrame::Nothing),
            }
        }
    }

    /// Returns every frame up to the pong of a ping: all that the node had queued for this socket when it read the
    /// ping.
    pub(crate) async fn rest(&mut self, patience: Duration) -> Result<Vec<Value>, NoFrame> {
        let mark = rand::random::<u64>().to_be_bytes().to_vec();
        // If the connection is gone, the reading half returns the reason.
        let _gone = self.writing.send(Message::Ping(mark.clone().into())).await;
        let mut frames = Vec::new();
        loop {
            match timeout(patience, self.heard.recv()).await {
                Ok(Some(Received::Frame(frame))) => frames.push(frame),
                Ok(Some(Received::Pong(answer))) if answer == mark => return Ok(frames),
                Ok(Some(Received::Pong(_))) => {}
                Ok(Some(Received::Closed(code, reason))) => return Err(NoFrame::Closed(code, reason)),
                Ok(None) | Err(_) => return Err(NoFrame::Nothing),
            }
        }
    }

    /// Sends a close frame and waits for the node's answer.
    pub(crate) async fn close(mut self, patience: Duration) -> Result<(), String> {
        self.writing.close().await.map_err(|error| error.to_string())?;
        while let Ok(heard) = timeout(patience, self.heard.recv()).await {
            if heard.is_none_or(|heard| matches!(heard, Received::Closed(..))) {
                return Ok(());
            }
        }
        Err("the close frame was not answered".into())
    }
}

/// Forwards what arrives, up to the close; a connection that ends without a close frame counts as closed with 1006.
async fn listen(mut reading: SplitStream<Stream>, sender: UnboundedSender<Received>) {
    let mut closed = Received::Closed(1006, String::new());
    while let Some(Ok(message)) = reading.next().await {
        let heard = match message {
            Message::Text(text) => {
                Received::Frame(serde_json::from_str(&text).unwrap_or_else(|_| text.as_str().into()))
            }
            Message::Pong(payload) => Received::Pong(payload.to_vec()),
            Message::Close(frame) => {
                closed = frame.map_or(Received::Closed(1005, String::new()), |frame| {
                    Received::Closed(frame.code.into(), frame.reason.to_string())
                });
                continue;
            }
            _ => continue,
        };
        let _gone = sender.send(heard);
    }
    let _gone = sender.send(closed);
}
