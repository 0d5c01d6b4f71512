//! The reading half of a WebSocket: tungstenite reads and checks frames, and the outbox writes them.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::StreamExt;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    net::tcp::OwnedReadHalf,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message, Utf8Bytes,
        error::{CapacityError, Error},
        protocol::{Role, WebSocketConfig},
    },
};

use super::meter::{FrameFault, FrameLimits, Meter};
use crate::{
    model::CloseReason,
    outbox::{Class, Frame, Outbox},
};

/// Bytes per read: most frames fit, and an idle connection holds no more.
const READ_BUFFER: usize = 1_024;

/// Limits on the input of a socket.
#[derive(Debug, Clone, Copy)]
pub struct SocketLimits {
    /// Maximum bytes of a frame, and of a message.
    pub message_bytes: usize,
    /// Limits on frames.
    pub frames: FrameLimits,
}

/// An input of the client.
#[derive(Debug)]
pub enum Incoming {
    /// A text message.
    Text(Utf8Bytes),
    /// A binary message.
    Binary(bytes::Bytes),
    /// A ping, which is already answered.
    Ping,
    /// A pong, with the number of its ping if this node sent that ping.
    Pong(Option<u32>),
}

/// The reading half of a WebSocket.
#[derive(Debug)]
pub struct Socket {
    stream: WebSocketStream<Transport>,
    /// The client sent a close frame.
    closed_by_peer: bool,
}

impl Socket {
    /// Reads `read_ahead` (the bytes after the handshake), then `reader`. Pongs and close replies go to `outbox`.
    pub async fn new(reader: OwnedReadHalf, read_ahead: Vec<u8>, outbox: Arc<Outbox>, limits: SocketLimits) -> Self {
        let mut transport = Transport { reader, outbox, meter: Meter::new(limits.frames), fault: None };
        // A fault in these bytes is reported by the first read.
        let _found = transport.feed_meter(&read_ahead);
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(0)
            .max_write_buffer_size(READ_BUFFER)
            .max_message_size(Some(limits.message_bytes))
            .max_frame_size(Some(limits.message_bytes));
        let stream = WebSocketStream::from_partially_read(transport, read_ahead, Role::Server, Some(config)).await;
        Self { stream, closed_by_peer: false }
    }

    /// True if the client sent a close frame.
    pub fn closed_by_peer(&self) -> bool {
        self.closed_by_peer
    }

    /// The next input. Cancel safe.
    ///
    /// # Errors
    /// The connection ended, or its input requires a close.
    pub async fn next(&mut self) -> Result<Incoming, CloseReason> {
        loop {
            if let Some(fault) = self.stream.get_ref().fault {
                return Err(fault.into());
            }
            return match self.stream.next().await {
                Some(Ok(Message::Text(text))) => Ok(Incoming::Text(text)),
                Some(Ok(Message::Binary(bytes))) => Ok(Incoming::Binary(bytes)),
                Some(Ok(Message::Ping(_))) => Ok(Incoming::Ping),
                Some(Ok(Message::Pong(payload))) => {
                    Ok(Incoming::Pong(payload[..].try_into().ok().map(u32::from_be_bytes)))
                }
                // The close reply is in the outbox; the next read returns the end.
                Some(Ok(Message::Close(_))) => {
                    self.closed_by_peer = true;
                    continue;
                }
                Some(Ok(Message::Frame(_))) => continue,
                Some(Err(error)) => Err(self.reason(&error)),
                None => Err(CloseReason::ClientLeft),
            };
        }
    }

    /// Reads and discards input until the peer closes. A socket that is dropped with unread input resets the
    /// connection, and the close frame would be lost.
    pub async fn read_out(&mut self, closed_for: &CloseReason) {
        let readable = !matches!(
            closed_for,
            CloseReason::Protocol
                | CloseReason::TooLarge
                | CloseReason::TooManyFragments
                | CloseReason::NotUtf8
                | CloseReason::Flood
        );
        if readable {
            while self.next().await.is_ok() {}
            return;
        }
        let reader = &mut self.stream.get_mut().reader;
        let mut discarded = [0; READ_BUFFER];
        while reader.read(&mut discarded).await.is_ok_and(|bytes| bytes > 0) {}
    }

    fn reason(&self, error: &Error) -> CloseReason {
        match (self.stream.get_ref().fault, error) {
            (Some(fault), _) => fault.into(),
            (_, Error::Utf8(_)) => CloseReason::NotUtf8,
            (_, Error::Capacity(CapacityError::MessageTooLong { .. })) => CloseReason::TooLarge,
            (_, Error::Protocol(protocol)) => {
                use tokio_tungstenite::tungstenite::error::ProtocolError;
                match protocol {
                    ProtocolError::ResetWithoutClosingHandshake => CloseReason::ClientLeft,
                    _ => CloseReason::Protocol,
                }
            }
            _ => CloseReason::ClientLeft,
        }
    }
}

impl From<FrameFault> for CloseReason {
    fn from(fault: FrameFault) -> Self {
        match fault {
            FrameFault::Rate => Self::Flood,
            FrameFault::Fragments => Self::TooManyFragments,
            FrameFault::Utf8 => Self::NotUtf8,
        }
    }
}

/// The transport of tungstenite: it reads and checks bytes from the socket, and writes bytes to the outbox.
#[derive(Debug)]
struct Transport {
    reader: OwnedReadHalf,
    outbox: Arc<Outbox>,
    meter: Meter,
    fault: Option<FrameFault>,
}

impl Transport {
    fn feed_meter(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.meter.feed(bytes).map_err(|fault| {
            self.fault = Some(fault);
            io::Error::other("the input violates a frame limit")
        })
    }
}

impl AsyncRead for Transport {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        match Pin::new(&mut self.reader).poll_read(context, buffer) {
            Poll::Ready(Ok(())) => Poll::Ready(self.feed_meter(&buffer.filled()[before..])),
            other => other,
        }
    }
}

impl AsyncWrite for Transport {
    /// Expects complete frames: tungstenite writes only control frames, each in one call.
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        const OPCODE: u8 = 0x0F;
        const CLOSE: u8 = 0x08;
        let frame = Frame { bytes: bytes::Bytes::copy_from_slice(bytes), class: Class::Pong };
        if bytes.first().is_some_and(|first| first & OPCODE == CLOSE) {
            self.outbox.close(Some(Frame { class: Class::Durable, ..frame }));
        } else {
            self.outbox.send([frame]);
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
