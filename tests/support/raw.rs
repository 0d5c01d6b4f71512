//! A WebSocket client that writes arbitrary bytes, for breaches of the protocol.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

use super::within;

/// Opcodes of RFC 6455.
pub mod opcode {
    /// Continuation of a fragmented message.
    pub const CONTINUATION: u8 = 0x0;
    /// Text.
    pub const TEXT: u8 = 0x1;
    /// Bytes.
    pub const BINARY: u8 = 0x2;
    /// Close.
    pub const CLOSE: u8 = 0x8;
    /// Ping.
    pub const PING: u8 = 0x9;
    /// Pong.
    pub const PONG: u8 = 0xA;
}

/// A received frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// True if the frame ends its message.
    pub fin: bool,
    /// Opcode.
    pub opcode: u8,
    /// Payload.
    pub payload: Vec<u8>,
}

impl Frame {
    /// Code and reason of a close frame.
    pub fn close(&self) -> Option<(u16, String)> {
        let (code, reason) = self.payload.split_first_chunk::<2>()?;
        (self.opcode == opcode::CLOSE)
            .then(|| (u16::from_be_bytes(*code), String::from_utf8_lossy(reason).into_owned()))
    }
}

/// A TCP connection, upgraded or not.
#[derive(Debug)]
pub struct RawClient {
    socket: TcpStream,
}

impl RawClient {
    /// Connects and sends nothing.
    pub async fn tcp(address: SocketAddr) -> Self {
        let socket = within("a connection", TcpStream::connect(address)).await.expect("the node accepts");
        socket.set_nodelay(true).expect("TCP_NODELAY can be set");
        Self { socket }
    }

    /// As [`Self::open`], with room for few bytes in the kernel, so that a stalled reader is soon full.
    pub async fn open_narrow(address: SocketAddr, path: &str) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(8_192).expect("SO_RCVBUF can be set");
        let socket = within("a connection", socket.connect(address)).await.expect("the node accepts");
        Self { socket }.upgraded(address, path).await
    }

    /// Connects and upgrades; `path` includes the query.
    pub async fn open(address: SocketAddr, path: &str) -> Self {
        Self::tcp(address).await.upgraded(address, path).await
    }

    async fn upgraded(mut self, address: SocketAddr, path: &str) -> Self {
        self.write(Self::upgrade(address, path).as_bytes()).await;
        let head = self.read_head().await;
        assert!(head.starts_with("HTTP/1.1 101 "), "the upgrade was refused: {head}");
        self
    }

    /// Text of a well-formed upgrade request.
    pub fn upgrade(address: SocketAddr, path: &str) -> String {
        format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
    }

    /// Writes bytes unchanged.
    pub async fn write(&mut self, bytes: &[u8]) {
        within("room to write", self.socket.write_all(bytes)).await.expect("the connection is open");
    }

    /// Writes bytes; false if the other side has closed the connection.
    pub async fn try_write(&mut self, bytes: &[u8]) -> bool {
        within("room to write", self.socket.write_all(bytes)).await.is_ok()
    }

    /// Writes a masked, final frame.
    pub async fn frame(&mut self, opcode: u8, payload: &[u8]) {
        self.write(&Self::encode(true, opcode, payload)).await;
    }

    /// Writes a masked frame; without `fin` it is a fragment.
    pub async fn fragment(&mut self, fin: bool, opcode: u8, payload: &[u8]) {
        self.write(&Self::encode(fin, opcode, payload)).await;
    }

    /// Encodes a masked frame. The masking key is zero, so that the payload stays readable.
    pub fn encode(fin: bool, opcode: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![u8::from(fin) << 7 | opcode];
        match payload.len() {
            short @ 0..126 => frame.push(0x80 | short as u8),
            medium @ 126..=0xFFFF => {
                frame.push(0x80 | 126);
                frame.extend((medium as u16).to_be_bytes());
            }
            long => {
                frame.push(0x80 | 127);
                frame.extend((long as u64).to_be_bytes());
            }
        }
        frame.extend([0; 4]);
        frame.extend(payload);
        frame
    }

    /// Reads the head of an HTTP response, including the empty line.
    pub async fn read_head(&mut self) -> String {
        let reading = async {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                match self.socket.read_u8().await {
                    Ok(byte) => head.push(byte),
                    Err(_) => break,
                }
            }
            String::from_utf8_lossy(&head).into_owned()
        };
        within("a response", reading).await
    }

    /// Returns the next frame; `None` if the connection ended.
    pub async fn read_frame(&mut self) -> Option<Frame> {
        within("a frame", self.try_read_frame()).await.ok()
    }

    async fn try_read_frame(&mut self) -> std::io::Result<Frame> {
        let first = self.socket.read_u8().await?;
        let second = self.socket.read_u8().await?;
        assert_eq!(second & 0x80, 0, "a server must not mask");
        let length = match second {
            126 => self.socket.read_u16().await?.into(),
            127 => self.socket.read_u64().await?,
            short => short.into(),
        };
        let mut payload = vec![0; usize::try_from(length).expect("frames fit into memory")];
        self.socket.read_exact(&mut payload).await?;
        Ok(Frame { fin: first & 0x80 != 0, opcode: first & 0x0F, payload })
    }

    /// Skips frames up to a close frame and returns its code and reason; 1006 if the connection ended without one.
    pub async fn expect_close(&mut self) -> (u16, String) {
        while let Some(frame) = self.read_frame().await {
            if frame.opcode == opcode::CLOSE {
                return frame.close().unwrap_or((1005, String::new()));
            }
        }
        (1006, String::new())
    }

    /// Stops reading and keeps the connection open: a reader that is infinitely slow.
    pub fn into_inner(self) -> TcpStream {
        self.socket
    }
}
