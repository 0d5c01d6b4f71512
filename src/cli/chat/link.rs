//! One connection after the other: how it is made, what its end means, and how long to wait for the next.

use std::{io::ErrorKind, time::Duration};

use serde::Deserialize;
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async_with_config,
    tungstenite::{
        Error,
        client::IntoClientRequest,
        http::{HeaderValue, Response, StatusCode, header},
        protocol::CloseFrame,
    },
};

/// A WebSocket to the server.
pub(super) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The first pause before a connection is tried again; each further one is twice as long.
const PAUSE_FIRST: Duration = Duration::from_millis(500);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// The longest pause that is taken from a server.
const ADVISED_MAX: Duration = Duration::from_secs(300);

/// How a connection ended, or why there is none.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Another one may do better: after this long, where the server said how long.
    Again {
        /// What happened.
        why: String,
        /// How long the server wants it to be.
        after: Option<Duration>,
    },
    /// The server can't be reached at all.
    Unreachable(String),
    /// The token's time is over, or it is bad.
    Token(String),
    /// The line under way was too large for this server.
    LineTooLarge,
    /// Another one would end the same way.
    Useless(String),
}

impl End {
    pub(super) fn again(why: impl Into<String>) -> Self {
        Self::Again { why: why.into(), after: None }
    }
}

/// Connects, with the token in a header.
pub(super) async fn connect(url: &str, token: &str) -> Result<Socket, End> {
    let useless = |error: &dyn std::fmt::Display| End::Useless(format!("{url} is no WebSocket URL: {error}"));
    let mut request = url.into_client_request().map_err(|error| useless(&error))?;
    let bearer = HeaderValue::from_str(&format!("Bearer {token}"));
    let bearer = bearer.map_err(|_| End::Useless("the token has characters that no token has".to_owned()))?;
    request.headers_mut().insert(header::AUTHORIZATION, bearer);
    match timeout(CONNECT_TIMEOUT, connect_async_with_config(request, None, true)).await {
        Ok(Ok((socket, _))) => Ok(socket),
        Ok(Err(Error::Http(response))) => Err(refused(url, &response)),
        Ok(Err(Error::Io(error))) if error.kind() == ErrorKind::ConnectionRefused => {
            Err(End::Unreachable(format!("nothing listens at {url}")))
        }
        Ok(Err(Error::Io(error))) => Err(End::Unreachable(format!("{url} can't be reached: {error}"))),
        Ok(Err(error @ Error::Url(_))) => Err(useless(&error)),
        Ok(Err(error)) => Err(End::Unreachable(format!("{url} can't be reached: {error}"))),
        Err(_) => Err(End::Unreachable(format!("{url} did not answer within {} s", CONNECT_TIMEOUT.as_secs()))),
    }
}

/// What a refused handshake means.
fn refused(url: &str, response: &Response<Option<Vec<u8>>>) -> End {
    #[derive(Default, Deserialize)]
    struct Problem {
        #[serde(default)]
        detail: String,
        retry_after_ms: Option<u64>,
    }
    let body = response.body().as_deref().unwrap_or_default();
    let problem: Problem = serde_json::from_slice(body).unwrap_or_default();
    let status = response.status();
    let seconds = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    let after = problem.retry_after_ms.map(Duration::from_millis).or(seconds.map(Duration::from_secs));
    let said = super::lines::clean(&problem.detail);
    let why = if said.is_empty() { status.to_string() } else { format!("{said} ({status})") };
    match status {
        StatusCode::UNAUTHORIZED => End::Token(why),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => End::Again { why, after },
        _ if status.is_server_error() => End::Again { why, after },
        StatusCode::NOT_FOUND => End::Useless(format!("there is no Switchboard at {url}: {why}")),
        _ => End::Useless(format!("{url} refuses: {why}")),
    }
}

/// What a close means (docs/protocol/native.md, Closes). `advised` is what a `restart` frame said before.
pub(super) fn closed(frame: Option<&CloseFrame>, advised: Option<Duration>) -> End {
    let Some(frame) = frame else { return End::Again { why: "the connection was lost".to_owned(), after: advised } };
    let reason = super::lines::clean(frame.reason.as_str());
    match u16::from(frame.code) {
        1009 => End::LineTooLarge,
        1012 => End::Again { why: "the server restarts".to_owned(), after: advised },
        4401 => End::Token(reason),
        4403 => End::Useless(reason),
        1008 if reason == "Too many connections" => {
            End::Useless(format!("{reason}: close one of your others (MAX_CONNECTIONS_PER_USER)"))
        }
        code => {
            let why = if reason.is_empty() { format!("the server closed ({code})") } else { reason };
            End::Again { why, after: advised }
        }
    }
}

/// How long to wait before the next try: what the server said or a little more, else twice as long each time. The chance in it
/// keeps the clients of a node that went away from coming all at once.
pub(super) fn pause(tries: u32, advised: Option<Duration>) -> Duration {
    let chance: f64 = rand::random();
    match advised {
        Some(advised) => advised.min(ADVISED_MAX).mul_f64(1.0 + chance / 4.0),
        None => PAUSE_FIRST.saturating_mul(2_u32.saturating_pow(tries)).min(PAUSE_MAX).mul_f64(0.5 + chance / 2.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(code: u16, reason: &'static str) -> End {
        closed(Some(&CloseFrame { code: code.into(), reason: reason.into() }), None)
    }

    #[test]
    fn closes_say_whether_to_come_again() {
        assert_eq!(close(4401, "Invalid token"), End::Token("Invalid token".into()));
        assert!(matches!(close(4403, "Not a member of this conversation"), End::Useless(_)));
        assert!(matches!(close(1008, "Too many connections"), End::Useless(_)));
        assert!(matches!(close(1008, "No answer to ping"), End::Again { .. }));
        assert!(matches!(close(4408, "Too slow: reconnect and resume"), End::Again { .. }));
        assert_eq!(close(1009, "Message too large"), End::LineTooLarge);
        let advised = Some(Duration::from_millis(1_400));
        let restart = CloseFrame { code: 1012.into(), reason: "Restarting, retry after 1400 ms".into() };
        assert!(matches!(closed(Some(&restart), advised), End::Again { after, .. } if after == advised));
        assert!(matches!(closed(None, None), End::Again { .. }));
    }

    #[test]
    fn refused_handshakes_say_so_too() {
        let refusal = |status: u16, body: &str| {
            let response = Response::builder().status(status).body(Some(body.as_bytes().to_vec())).unwrap();
            refused("ws://localhost/v1/ws", &response)
        };
        let full = refusal(503, r#"{"detail":"This node is going away","retry_after_ms":1000}"#);
        assert!(matches!(&full, End::Again { after: Some(after), .. } if *after == Duration::from_secs(1)), "{full:?}");
        assert!(matches!(refusal(502, "<html>"), End::Again { after: None, .. }));
        assert!(matches!(refusal(404, ""), End::Useless(_)));
        assert!(matches!(refusal(403, r#"{"detail":"This origin may not connect"}"#), End::Useless(_)));
    }

    #[test]
    fn pauses_grow_to_a_bound_and_are_never_shorter_than_advised() {
        for tries in 0..100 {
            let pause = pause(tries, None);
            assert!(pause >= PAUSE_FIRST / 2 && pause <= PAUSE_MAX, "{tries}: {pause:?}");
        }
        let advised = Duration::from_millis(1_400);
        for _ in 0..100 {
            let pause = pause(9, Some(advised));
            assert!(pause >= advised && pause <= advised * 5 / 4, "{pause:?}");
        }
    }
}
