//! The reading half of a WebSocket: tungstenite reads and checks frames, and the outbox writes them.

use std::{
    future::poll_fn,
    io::{self, Read, Write},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, ReadBuf},
    net::tcp::OwnedReadHalf,
};
use tokio_tungstenite::tungstenite::{
    Message, Utf8Bytes,
    error::{CapacityError, Error},
    protocol::{Role, WebSocketConfig, WebSocketContext},
};

use super::meter::{FrameFault, FrameLimits, Meter};
use crate::{
    model::CloseReason,
    outbox::{Class, Frame, Outbox},
};

/// Bytes per read: most frames fit, those of ordinary messages too, and an idle connection holds no more. A longer frame gets
/// room for its length, and needs a second read.
const READ_BUFFER: usize = 256;
/// Maximum bytes that wait to be written by tungstenite, which writes control frames only.
const WRITE_BUFFER: usize = 1_024;
/// Bytes per read of input that is discarded.
const DISCARDED: usize = 1_024;

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
    protocol: WebSocketContext,
    transport: Transport,
    /// The protocol has ended: nothing more is read.
    ended: bool,
    /// The client sent a close frame.
    closed_by_peer: bool,
}

impl Socket {
    /// Reads `read_ahead` (the bytes after the handshake), then `reader`. Pongs and close replies go to `outbox`.
    pub fn new(reader: OwnedReadHalf, read_ahead: Vec<u8>, outbox: Arc<Outbox>, limits: SocketLimits) -> Self {
        let mut transport = Transport { reader, outbox, meter: Meter::new(limits.frames), fault: None };
        // A fault in these bytes is reported by the first read.
        let _found = transport.feed_meter(&read_ahead);
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(0)
            .max_write_buffer_size(WRITE_BUFFER)
            .max_message_size(Some(limits.message_bytes))
            .max_frame_size(Some(limits.message_bytes));
        let protocol = WebSocketContext::from_partially_read(read_ahead, Role::Server, Some(config));
        Self { protocol, transport, ended: false, closed_by_peer: false }
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
            if let Some(fault) = self.transport.fault {
                return Err(fault.into());
            }
            return match poll_fn(|context| self.poll_message(context)).await {
                Ok(Message::Text(text)) => Ok(Incoming::Text(text)),
                Ok(Message::Binary(bytes)) => Ok(Incoming::Binary(bytes)),
                Ok(Message::Ping(_)) => Ok(Incoming::Ping),
                Ok(Message::Pong(payload)) => Ok(Incoming::Pong(payload[..].try_into().ok().map(u32::from_be_bytes))),
                // The close reply leaves with the next read, which returns the end.
                Ok(Message::Close(_)) => {
                    self.closed_by_peer = true;
                    continue;
                }
                Ok(Message::Frame(_)) => continue,
                Err(error) => {
                    self.ended = true;
                    Err(self.reason(&error))
                }
            };
        }
    }

    fn poll_message(&mut self, context: &mut Context<'_>) -> Poll<Result<Message, Error>> {
        if self.ended {
            return Poll::Ready(Err(Error::AlreadyClosed));
        }
        match self.protocol.read(&mut PolledTransport { transport: &mut self.transport, context }) {
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
            read => Poll::Ready(read),
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
        let reader = &mut self.transport.reader;
        // Boxed, so that its task has no room for it.
        let mut discarded = vec![0; DISCARDED];
        while reader.read(&mut discarded).await.is_ok_and(|bytes| bytes > 0) {}
    }

    fn reason(&self, error: &Error) -> CloseReason {
        match (self.transport.fault, error) {
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

/// The connection below the protocol: its input, checked, and the outbox for its output.
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

/// The transport during one poll of the session's task: a read without input registers the task and would block.
struct PolledTransport<'a, 'b> {
    transport: &'a mut Transport,
    context: &'a mut Context<'b>,
}

impl Read for PolledTransport<'_, '_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let mut buffer = ReadBuf::new(bytes);
        match Pin::new(&mut self.transport.reader).poll_read(self.context, &mut buffer) {
            Poll::Ready(read) => read?,
            Poll::Pending => return Err(io::ErrorKind::WouldBlock.into()),
        }
        self.transport.feed_meter(buffer.filled())?;
        Ok(buffer.filled().len())
    }
}

impl Write for PolledTransport<'_, '_> {
    /// Expects complete frames: tungstenite writes only control frames, each in one call.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        const OPCODE: u8 = 0x0F;
        const CLOSE: u8 = 0x08;
        let (outbox, frame) =
            (&self.transport.outbox, Frame { bytes: bytes::Bytes::copy_from_slice(bytes), class: Class::Pong });
        if bytes.first().is_some_and(|first| first & OPCODE == CLOSE) {
            outbox.close(Some(Frame { class: Class::Durable, ..frame }));
        } else {
            outbox.send([frame]);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
