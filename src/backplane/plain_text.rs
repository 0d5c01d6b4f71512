//! Tells a server without TLS from a silent one. A Redis without TLS waits for the end of a line, which a client that begins TLS
//! never sends, so to a client with `rediss://` it looks silent.

use std::time::Duration;

use redis::{Client, ConnectionAddr};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::link_error::LinkError;

/// The reason for which a TLS connection fails that a server without TLS answered.
const NO_TLS: &str =
    "TLS failed: the server answers without TLS; REDIS_URL must begin with redis://, or lead to its tls-port";
/// Maximum wait for an answer.
const WAIT: Duration = Duration::from_millis(500);

/// The reason of a failed try to connect. A timeout gets a reason of its own if the server has no TLS and the URL asks for it.
pub(super) async fn explain(client: &Client, error: LinkError) -> LinkError {
    if error == LinkError::Timeout && instead_of_tls(client).await {
        return LinkError::Broken(NO_TLS.to_owned());
    }
    error
}

/// True if the URL asks for TLS, and the server answers without it.
async fn instead_of_tls(client: &Client) -> bool {
    match client.get_connection_info().addr() {
        ConnectionAddr::TcpTls { host, port, .. } => timeout(WAIT, answers(host, *port)).await.unwrap_or(false),
        _ => false,
    }
}

/// True if the server answers a command without TLS, also with an error.
async fn answers(host: &str, port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect((host, port)).await else { return false };
    let mut first = [0];
    stream.write_all(b"PING\r\n").await.is_ok()
        && stream.read_exact(&mut first).await.is_ok()
        && matches!(first[0], b'+' | b'-')
}
