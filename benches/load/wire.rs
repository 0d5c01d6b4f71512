//! WebSocket clients with minimal CPU cost: a masking key of zero, one shared read buffer, no JSON parser.

use std::{
    cell::RefCell,
    future::poll_fn,
    io::{self, ErrorKind},
    net::SocketAddr,
    pin::Pin,
    time::{SystemTime, UNIX_EPOCH},
};

use tokio::{
    io::{AsyncRead, ReadBuf},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

/// Opcodes of RFC 6455.
const TEXT: u8 = 0x1;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xA;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; 256 * 1024]);
}

/// Nanoseconds since 1970; processes of one machine share this clock.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

/// A connection that reads and writes frames.
pub struct Socket {
    reader: RefCell<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    /// Start of a frame that is not complete yet.
    rest: RefCell<Vec<u8>>,
}

impl Socket {
    /// Connects without an upgrade.
    pub async fn connect(address: SocketAddr) -> io::Result<Self> {
        Self::new(TcpStream::connect(address).await?)
    }

    fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let (reader, writer) = stream.into_split();
        Ok(Self { reader: RefCell::new(reader), writer, rest: RefCell::default() })
    }

    /// Connects and upgrades.
    pub async fn open(address: SocketAddr, path: &str) -> io::Result<Self> {
        Self::upgrade(TcpStream::connect(address).await?, path).await
    }

    /// Upgrades a connection.
    pub async fn upgrade(stream: TcpStream, path: &str) -> io::Result<Self> {
        let address = stream.peer_addr()?;
        let socket = Self::new(stream)?;
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        socket.write(request.as_bytes()).await?;
        let mut head = Vec::new();
        let end = loop {
            if let Some(at) = head.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break at + 4;
            }
            socket.receive(|bytes| head.extend(bytes)).await?;
        };
        if !head.starts_with(b"HTTP/1.1 101 ") {
            return Err(io::Error::other(String::from_utf8_lossy(&head[..end]).into_owned()));
        }
        socket.rest.borrow_mut().extend(&head[end..]);
        Ok(socket)
    }

    /// Waits for bytes and passes them to `take`. After a short read the poll knows that the socket is empty, which
    /// spares the system call with which `try_read` would find that out.
    async fn receive(&self, mut take: impl FnMut(&[u8])) -> io::Result<()> {
        poll_fn(|context| {
            SCRATCH.with_borrow_mut(|scratch| {
                let mut buffer = ReadBuf::new(scratch);
                let mut reader = self.reader.borrow_mut();
                Pin::new(&mut *reader)
                    .poll_read(context, &mut buffer)
                    .map_ok(|()| take(buffer.filled()))?
                    .map(|()| if buffer.filled().is_empty() { Err(ErrorKind::UnexpectedEof.into()) } else { Ok(()) })
            })
        })
        .await
    }

    /// Writes all bytes.
    pub async fn write(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.writer.try_write(bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.writer.writable().await?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Waits for bytes and passes every complete text frame to `each`. Answers pings; a close is an error.
    pub async fn read(&self, mut each: impl FnMut(&[u8])) -> io::Result<()> {
        let mut pong = None;
        let mut closed = None;
        let mut take = |opcode, payload: &[u8]| match opcode {
            TEXT => each(payload),
            PING => pong = Some(frame(PONG, payload)),
            CLOSE => closed = Some(String::from_utf8_lossy(payload.get(2..).unwrap_or_default()).into_owned()),
            _ => {}
        };
        let mut early = self.rest.take();
        let used = frames(&early, &mut take);
        if used == 0 {
            self.receive(|bytes| {
                if early.is_empty() {
                    let used = frames(bytes, &mut take);
                    early.extend(&bytes[used..]);
                } else {
                    early.extend(bytes);
                    let used = frames(&early, &mut take);
                    early.drain(..used);
                }
            })
            .await?;
        } else {
            early.drain(..used);
        }
        *self.rest.borrow_mut() = early;
        if let Some(reason) = closed {
            return Err(io::Error::other(format!("closed by the node: {reason}")));
        }
        match pong {
            Some(pong) => self.write(&pong).await,
            None => Ok(()),
        }
    }

    /// Waits for a text frame that contains `text`.
    pub async fn expect(&self, text: &str) -> io::Result<()> {
        let mut last = String::new();
        loop {
            let mut found = false;
            self.read(|payload| {
                last = String::from_utf8_lossy(payload).into_owned();
                found |= last.contains(text);
            })
            .await
            .map_err(|error| io::Error::other(format!("{error}, awaiting {text} after {last}")))?;
            if found {
                return Ok(());
            }
        }
    }
}

/// Passes every complete frame to `take` and returns their total length in bytes.
fn frames(bytes: &[u8], take: &mut impl FnMut(u8, &[u8])) -> usize {
    let mut at = 0;
    while let Some((opcode, payload)) = first(&bytes[at..]) {
        at += payload.end;
        take(opcode, &bytes[at - payload.len()..at]);
    }
    at
}

/// Opcode and payload of the first frame, if it is complete.
fn first(bytes: &[u8]) -> Option<(u8, std::ops::Range<usize>)> {
    let (&[kind, short], rest) = bytes.split_first_chunk::<2>()?;
    let (header, length) = match short {
        126 => (4, u16::from_be_bytes(*rest.first_chunk()?).into()),
        127 => (10, usize::try_from(u64::from_be_bytes(*rest.first_chunk()?)).ok()?),
        short => (2, short.into()),
    };
    (bytes.len() >= header + length).then_some((kind & 0x0F, header..header + length))
}

/// Encodes a client's frame, masked with zeros.
fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = header(opcode, payload.len(), 0x80);
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}

/// Encodes a client's text frame.
pub fn text(payload: &str) -> Vec<u8> {
    frame(TEXT, payload.as_bytes())
}

/// Encodes a client's close frame.
pub fn close() -> Vec<u8> {
    const NORMAL: u16 = 1000;
    frame(CLOSE, &NORMAL.to_be_bytes())
}

/// Encodes a server's text frame.
pub fn server_text(payload: &str) -> Vec<u8> {
    let mut frame = header(TEXT, payload.len(), 0);
    frame.extend(payload.as_bytes());
    frame
}

fn header(opcode: u8, length: usize, mask: u8) -> Vec<u8> {
    let mut header = vec![0x80 | opcode];
    match length {
        0..126 => header.push(mask | length as u8),
        126..=0xFFFF => {
            header.push(mask | 126);
            header.extend((length as u16).to_be_bytes());
        }
        _ => {
            header.push(mask | 127);
            header.extend((length as u64).to_be_bytes());
        }
    }
    header
}

/// Number behind `key` in a frame.
pub fn number(text: &str, key: &str) -> Option<u64> {
    let (_, rest) = text.split_once(key)?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..digits].parse().ok()
}
