//! Echoes messages over the session's own socket and outbox: what WebSocket conformance suites are run against.
//!
//! `cargo run --example echo -- 127.0.0.1:9001`

use std::{process::ExitCode, sync::Arc, time::Duration};

use futures_util::FutureExt;
use switchboard::{
    dialect::Dialect,
    metrics::Metrics,
    model::{Clock, CloseReason, ConnectionId},
    outbox::{Frame, Outbox, OutboxBudget, OutboxLimits},
    session::{FrameLimits, Incoming, Socket, SocketLimits},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// Suites send messages of 16 MiB, in fragments as small as 64 bytes.
const LIMITS: SocketLimits =
    SocketLimits { message_bytes: 64 << 20, frames: FrameLimits { per_second: u32::MAX, fragments: u32::MAX } };

#[tokio::main]
async fn main() -> ExitCode {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9001".into());
    let (listener, metrics) = match (TcpListener::bind(&address).await, Metrics::new()) {
        (Ok(listener), Ok(metrics)) => (listener, Arc::new(metrics)),
        (Err(error), _) => return fail(&format!("{address}: {error}")),
        (_, Err(error)) => return fail(&error.to_string()),
    };
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(echo(stream, metrics.clone()).map(drop));
        }
    }
}

fn fail(why: &str) -> ExitCode {
    eprintln!("echo: {why}");
    ExitCode::FAILURE
}

async fn echo(mut stream: TcpStream, metrics: Arc<Metrics>) -> std::io::Result<()> {
    let read_ahead = shake_hands(&mut stream).await?;
    let (reader, writer) = stream.into_split();
    writer.writable().await?;
    let too_slow = Dialect::Native.too_slow();
    let (bytes, stalled_after) = (LIMITS.message_bytes * 4, Duration::from_secs(60));
    let limits = Arc::new(OutboxLimits { bytes, stalled_after, too_slow });
    let budget = OutboxBudget::new(1 << 40, metrics);
    let outbox = Outbox::new(ConnectionId::fresh(), writer, limits, budget);
    // An echo has no greeting, and the outbox holds frames back until it was given one.
    outbox.greet([]);
    let mut socket = Socket::new(reader, read_ahead, outbox.clone(), LIMITS);
    let reason = loop {
        tokio::select! {
            _ = outbox.next_event() => break CloseReason::TooSlow,
            incoming = socket.next() => match incoming {
                Ok(Incoming::Text(text)) => outbox.send([Frame::text(&text)]),
                Ok(Incoming::Binary(bytes)) => outbox.send([Frame::binary(&bytes)]),
                Ok(Incoming::Ping | Incoming::Pong(_)) => {}
                Err(reason) => break reason,
            },
        }
    };
    let (_, close) = Dialect::Native.end(&reason, Clock::system().now());
    outbox.close(close);
    outbox.drained().await;
    Ok(())
}

/// The handshake in its plainest form; returns what was read beyond it.
async fn shake_hands(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut request = Vec::new();
    let end = loop {
        if let Some(at) = request.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(&mut request).await? == 0 || request.len() > 16_384 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    };
    let head = String::from_utf8_lossy(&request[..end]).into_owned();
    let key = head
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key"))
        .map_or("", |(_, value)| value.trim());
    let accept = derive_accept_key(key.as_bytes());
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    stream.write_all(answer.as_bytes()).await?;
    Ok(request.split_off(end))
}
