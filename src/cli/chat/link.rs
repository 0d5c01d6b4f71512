//! Connects to the server, interprets the end of a connection, and computes the pause before the next.

use std::{
    io::{self, ErrorKind},
    time::Duration,
};

use serde::Deserialize;
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async_with_config,
    tungstenite::{
        Error,
        client::IntoClientRequest,
        error::ProtocolError,
        http::{HeaderValue, Response, StatusCode, header},
        protocol::CloseFrame,
    },
};

/// A WebSocket to the server.
pub(super) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Maximum time to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause before the first retry; each further pause is twice as long.
const PAUSE_FIRST: Duration = Duration::from_millis(500);
/// Maximum pause.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// Maximum pause that is accepted from a server.
const ADVISED_MAX: Duration = Duration::from_secs(300);

/// The end of a connection, or the reason why none was made.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Temporary: another connection may succeed.
    Again {
        /// Reason for the user.
        why: String,
        /// Pause that the server advised.
        after: Option<Duration>,
    },
    /// The server can't be reached.
    Unreachable {
        /// Reason for the user.
        why: String,
        /// The remedy for the user, if the reason says more than that the server is away.
        remedy: Option<String>,
    },
    /// The token is expired or invalid.
    Token(String),
    /// The line just sent exceeds the server's limit.
    LineTooLarge,
    /// Permanent: another connection would end in the same way.
    Fatal(String),
}

impl End {
    pub(super) fn again(why: impl Into<String>) -> Self {
        Self::Again { why: why.into(), after: None }
    }

    pub(super) fn unreachable(why: impl Into<String>) -> Self {
        Self::Unreachable { why: why.into(), remedy: None }
    }
}

/// Connects with the token in the `Authorization` header.
pub(super) async fn connect(url: &str, token: &str) -> Result<Socket, End> {
    let invalid_url = |error: &dyn std::fmt::Display| End::Fatal(format!("{url} is no WebSocket URL: {error}"));
    let mut request = url.into_client_request().map_err(|error| invalid_url(&error))?;
    let bearer = HeaderValue::from_str(&format!("Bearer {token}"));
    let bearer =
        bearer.map_err(|_| End::Fatal("the token has characters that are not allowed in a header".to_owned()))?;
    request.headers_mut().insert(header::AUTHORIZATION, bearer);
    match timeout(CONNECT_TIMEOUT, connect_async_with_config(request, None, true)).await {
        Ok(Ok((socket, _))) => Ok(socket),
        Ok(Err(Error::Http(response))) => Err(end_of_refusal(url, &response)),
        Ok(Err(error @ Error::Url(_))) => Err(invalid_url(&error)),
        Ok(Err(error)) => Err(end_of_failed_connect(url, &error)),
        Err(_) => Err(End::unreachable(format!("{url} did not answer within {} s", CONNECT_TIMEOUT.as_secs()))),
    }
}

/// The end that a failed connect or handshake means.
fn end_of_failed_connect(url: &str, error: &Error) -> End {
    let unreachable = |why: String, remedy: String| End::Unreachable { why, remedy: Some(remedy) };
    match error {
        Error::Io(error) => match (tls_error(error), error.kind()) {
            (Some(rustls::Error::InvalidMessage(_)), _) => {
                let plain = url.replacen("wss://", "ws://", 1);
                unreachable(
                    format!("the server at {url} does not speak TLS"),
                    format!("is the port right? Without TLS, use --url {plain}"),
                )
            }
            (Some(rustls::Error::InvalidCertificate(flaw)), _) => unreachable(
                format!("the certificate of {url} is not valid ({flaw})"),
                "the host must be a name in the certificate, and this system must trust its authority".to_owned(),
            ),
            (Some(error), _) => unreachable(
                format!("TLS with {url} failed ({error})"),
                "check that the server speaks TLS 1.2 or 1.3 at this port".to_owned(),
            ),
            (None, ErrorKind::ConnectionRefused) => End::unreachable(format!("nothing listens at {url}")),
            (None, ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe)
            | (None, ErrorKind::UnexpectedEof) => closed_before_answer(url),
            (None, _) => End::unreachable(format!("{url} can't be reached: {error}")),
        },
        Error::Protocol(ProtocolError::HandshakeIncomplete) | Error::ConnectionClosed => closed_before_answer(url),
        Error::Protocol(_) | Error::HttpFormat(_) | Error::Utf8(_) | Error::Capacity(_) => {
            unreachable(format!("the server at {url} does not answer as a WebSocket server"), other_port_or_tls(url))
        }
        error => End::unreachable(format!("{url} can't be reached: {error}")),
    }
}

fn closed_before_answer(url: &str) -> End {
    let why = format!("the server at {url} closed the connection before it answered");
    End::Unreachable { why, remedy: Some(other_port_or_tls(url)) }
}

/// Remedy if the server does not understand the client: the port is another service's, or one of both speaks TLS.
fn other_port_or_tls(url: &str) -> String {
    let other = match url.strip_prefix("ws://") {
        Some(rest) => format!("If the server speaks TLS, use --url wss://{rest}"),
        None => format!("If the server speaks no TLS, use --url {}", url.replacen("wss://", "ws://", 1)),
    };
    format!("is the port right? {other}")
}

/// The TLS error in an I/O error.
fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

/// The end that an error of an open connection means.
pub(super) fn end_of_error(error: &Error, advised: Option<Duration>) -> End {
    let why = match error {
        Error::Io(error) if error.kind() == ErrorKind::ConnectionReset => "the connection was reset".to_owned(),
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)
        | Error::ConnectionClosed
        | Error::AlreadyClosed => "the connection was lost".to_owned(),
        Error::Io(error) => format!("the connection was lost: {error}"),
        Error::Capacity(_) => "the connection was lost: the server sent a frame that is too large".to_owned(),
        _ => "the connection was lost: the server broke the WebSocket protocol".to_owned(),
    };
    End::Again { why, after: advised }
}

/// The end that a refused handshake means.
fn end_of_refusal(url: &str, response: &Response<Option<Vec<u8>>>) -> End {
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
    let detail = super::lines::clean(&problem.detail);
    let why = if detail.is_empty() { status.to_string() } else { format!("{detail} ({status})") };
    match status {
        StatusCode::UNAUTHORIZED => End::Token(why),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => End::Again { why, after },
        _ if status.is_server_error() => End::Again { why, after },
        StatusCode::NOT_FOUND => End::Fatal(format!("there is no Switchboard at {url}: {why}")),
        _ => End::Fatal(format!("{url} refuses: {why}")),
    }
}

/// The end that a close means (docs/protocol/native.md, Closes). `advised` is the pause of an earlier `restart` frame.
pub(super) fn end_of_close(frame: Option<&CloseFrame>, advised: Option<Duration>) -> End {
    let Some(frame) = frame else { return End::Again { why: "the connection was lost".to_owned(), after: advised } };
    let reason = super::lines::clean(frame.reason.as_str());
    match u16::from(frame.code) {
        1009 => End::LineTooLarge,
        1012 => End::Again { why: "the server restarts".to_owned(), after: advised },
        4401 => End::Token(reason),
        4403 => End::Fatal(reason),
        1008 if reason == "Too many connections" => {
            End::Fatal(format!("{reason}: close one of your others (MAX_CONNECTIONS_PER_USER)"))
        }
        code => {
            let why = if reason.is_empty() { format!("the server closed ({code})") } else { reason };
            End::Again { why, after: advised }
        }
    }
}

/// The pause before the next try: the advised pause plus up to a quarter, otherwise exponential backoff. The random
/// part keeps the clients of a stopped node from reconnecting all at once.
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
        end_of_close(Some(&CloseFrame { code: code.into(), reason: reason.into() }), None)
    }

    #[test]
    fn closes_are_temporary_or_permanent() {
        assert_eq!(close(4401, "Invalid token"), End::Token("Invalid token".into()));
        assert!(matches!(close(4403, "Not a member of this conversation"), End::Fatal(_)));
        assert!(matches!(close(1008, "Too many connections"), End::Fatal(_)));
        assert!(matches!(close(1008, "No answer to ping"), End::Again { .. }));
        assert!(matches!(close(4408, "Too slow: reconnect and resume"), End::Again { .. }));
        assert_eq!(close(1009, "Message too large"), End::LineTooLarge);
        let advised = Some(Duration::from_millis(1_400));
        let restart = CloseFrame { code: 1012.into(), reason: "Restarting, retry after 1400 ms".into() };
        assert!(matches!(end_of_close(Some(&restart), advised), End::Again { after, .. } if after == advised));
        assert!(matches!(end_of_close(None, None), End::Again { .. }));
    }

    #[test]
    fn refused_handshakes_are_temporary_or_permanent() {
        let refusal = |status: u16, body: &str| {
            let response = Response::builder().status(status).body(Some(body.as_bytes().to_vec())).unwrap();
            end_of_refusal("ws://localhost/v1/ws", &response)
        };
        let full = refusal(503, r#"{"detail":"This node is going away","retry_after_ms":1000}"#);
        assert!(matches!(&full, End::Again { after: Some(after), .. } if *after == Duration::from_secs(1)), "{full:?}");
        assert!(matches!(refusal(502, "<html>"), End::Again { after: None, .. }));
        assert!(matches!(refusal(404, ""), End::Fatal(_)));
        assert!(matches!(refusal(403, r#"{"detail":"This origin may not connect"}"#), End::Fatal(_)));
    }

    #[test]
    fn failed_connects_have_a_remedy() {
        let io = |kind: ErrorKind| Error::Io(kind.into());
        let tls = |error: rustls::Error| Error::Io(io::Error::new(ErrorKind::InvalidData, error));
        let invalid = rustls::InvalidMessage::InvalidContentType;
        let garbage = Error::Protocol(ProtocolError::WrongHttpMethod);
        for (url, error, reason, remedy) in [
            ("wss://h:1/v1/ws", tls(invalid.into()), "does not speak TLS", "--url ws://h:1/v1/ws"),
            (
                "wss://h/v1/ws",
                tls(rustls::CertificateError::UnknownIssuer.into()),
                "is not valid",
                "trust its authority",
            ),
            ("wss://h/v1/ws", tls(rustls::Error::DecryptError), "TLS with wss://h/v1/ws failed", "TLS 1.2 or 1.3"),
            ("ws://h/v1/ws", io(ErrorKind::ConnectionReset), "before it answered", "--url wss://h/v1/ws"),
            ("wss://h/v1/ws", io(ErrorKind::UnexpectedEof), "before it answered", "--url ws://h/v1/ws"),
            ("ws://h/v1/ws", garbage, "does not answer as a WebSocket server", "--url wss://h/v1/ws"),
        ] {
            let end = end_of_failed_connect(url, &error);
            let End::Unreachable { why, remedy: Some(found) } = &end else { panic!("{end:?}") };
            assert!(why.contains(reason) && found.contains(remedy), "{end:?}");
        }
        let refused = end_of_failed_connect("ws://h/v1/ws", &io(ErrorKind::ConnectionRefused));
        assert_eq!(refused, End::unreachable("nothing listens at ws://h/v1/ws"));
    }

    #[test]
    fn lost_connections_are_described_without_words_of_the_library() {
        for (error, shown) in [
            (Error::Protocol(ProtocolError::ResetWithoutClosingHandshake), "the connection was lost"),
            (Error::Io(ErrorKind::ConnectionReset.into()), "the connection was reset"),
        ] {
            assert_eq!(end_of_error(&error, None), End::again(shown));
        }
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
