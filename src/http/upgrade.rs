//! Upgrade of a request to a WebSocket (RFC 6455, 4.2): checks the handshake, answers 101, and passes the socket to the
//! session.
//!
//! The token is verified here, so that a socket with a valid one gets its place before the answer. A bad token doesn't
//! fail the handshake: browsers can't read the response to a refused one. The session closes the WebSocket with a code
//! instead.

use std::{net::IpAddr, sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode, Version,
    body::Body,
    header::{self, HeaderName, HeaderValue},
    upgrade::OnUpgrade,
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::{
    body::RequestBody,
    client,
    problem::{HttpResult, Payload, Problem},
    service::{HttpService, Peer},
    transport::Transport,
};
use crate::{
    admission::{AddressPermit, Refusal},
    model::{ConversationId, GivenNumber, Identity, Reject, Seq, SinceSeq},
    session::{self, Opening, SocketRoute, Upgraded},
    supervise::TaskName,
};

/// The subprotocol that clients may offer beside the one that carries their token.
const PROTOCOL: &str = "switchboard";
/// Prefix of the subprotocol that carries a token.
const BEARER: &str = "bearer.";
/// Maximum time to write the 101 response.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(10);

/// Answers a handshake. If it is valid, a new task serves the WebSocket.
pub(super) fn answer(
    service: &HttpService,
    peer: &Arc<Peer>,
    route: SocketRoute,
    conversation: Option<&str>,
    request: Request<RequestBody>,
) -> HttpResult {
    let checked = check_handshake(service, peer, conversation, &request);
    let checked = checked.map_err(|refused| refused.answer(service, peer, request.headers()));
    let client = service.client(request.headers());
    let ValidHandshake { accept, protocol, verified, conversation, since, address, address_permit } = checked?;
    let permit = Arc::clone(&peer.permit);
    let opening = Opening { route, conversation, since, verified, address, client, permit: permit.clone() };
    let context = Arc::clone(service.sessions());
    let open = service.broker().admission.opened();
    // Boxed, and without the request, because the task of an idle connection keeps room for all that it captures.
    let (opening, upgrade) = (Box::new(opening), hyper::upgrade::on(request));
    service.broker().tasks.spawn(async move {
        // Keep the permits until the WebSocket ends; dropping them frees the places.
        let _counted = (permit, address_permit, open);
        let Some((stream, read_ahead)) = Box::pin(upgraded(upgrade)).await else { return };
        let supervisor = context.supervisor.clone();
        let session = session::serve(Box::new(Upgraded { stream, read_ahead, opening }), context);
        let _panicked = supervisor.guard(TaskName::Session, session).await;
    });
    Ok(switching(&accept, protocol))
}

/// The socket and the bytes after the request, once the answer is written. Drops the buffer of the request.
async fn upgraded(upgrade: OnUpgrade) -> Option<(TcpStream, Vec<u8>)> {
    let upgraded = timeout(UPGRADE_TIMEOUT, upgrade).await.ok()?.ok()?;
    // `Server::serve` wraps transports only, so the downcast never fails.
    let parts = upgraded.downcast::<TokioIo<Transport>>().ok()?;
    Some((parts.io.into_inner().into_inner(), parts.read_buf.to_vec()))
}

fn switching(accept: &str, protocol: Option<HeaderValue>) -> Response<Payload> {
    let mut response = Response::new(Payload::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    if let Ok(accept) = HeaderValue::from_str(accept) {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    if let Some(protocol) = protocol {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    response
}

/// The values of a valid handshake.
struct ValidHandshake {
    accept: String,
    protocol: Option<HeaderValue>,
    verified: Option<Result<Identity, Reject>>,
    conversation: Option<ConversationId>,
    since: Option<Seq>,
    address: IpAddr,
    address_permit: Option<AddressPermit>,
}

/// A refused handshake.
enum Refused {
    /// It is counted, and answered by its kind.
    Counted(Refusal),
    /// It is no valid handshake, for this reason.
    Invalid(Problem),
    /// It has no destination.
    NotFound,
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self::Counted(refusal)
    }
}

impl Refused {
    /// Counts the refusal and makes its answer.
    fn answer(self, service: &HttpService, peer: &Peer, headers: &HeaderMap) -> Problem {
        match self {
            Self::Counted(refusal) => service.refuse(refusal, peer, headers),
            Self::Invalid(problem) => {
                service.refused_request(Refusal::Handshake, peer, headers);
                problem
            }
            Self::NotFound => Problem::not_found(),
        }
    }
}

fn check_handshake(
    service: &HttpService,
    peer: &Peer,
    conversation: Option<&str>,
    request: &Request<RequestBody>,
) -> Result<ValidHandshake, Refused> {
    let broker = service.broker();
    let (config, headers) = (&broker.config, request.headers());
    let conversation = conversation.map(super::rest::conversation_id).transpose().map_err(|_| Refused::NotFound)?;
    let accept = accept_key(request).map_err(Refused::Invalid)?;
    let since = since(request.uri().query()).map_err(Refused::Invalid)?;
    if !service.pages().may_open_socket(headers) {
        return Err(Refusal::Origin.into());
    }
    if broker.stop_accepting.is_cancelled() {
        return Err(Refusal::Draining.into());
    }
    broker.admission.handshake()?;
    let address = client::address(peer.address, headers, &config.trusted_proxies);
    // Without a trusted proxy, the client's address was counted when the socket was admitted.
    let address_permit = if peer.trusted { broker.admission.address(address)? } else { None };
    let offered = Offered::of(headers);
    let protocol = offered.chosen().map_err(Refused::Invalid)?;
    let token = client::bearer(headers)
        .map(str::to_owned)
        .or_else(|| offered.token().map(str::to_owned))
        .or_else(|| client::parameter(request.uri().query(), "token").filter(|token| !token.is_empty()));
    let verified = token.map(|token| broker.auth.verify(&token));
    match &verified {
        Some(Ok(_)) => peer.permit.promote()?,
        _ if peer.trusted => peer.permit.set_address(address)?,
        _ => {}
    }
    Ok(ValidHandshake { accept, protocol, verified, conversation, since, address, address_permit })
}

/// `since_seq` of the query: the last seq that the client has of its conversation.
fn since(query: Option<&str>) -> Result<Option<Seq>, Problem> {
    let Some(text) = client::parameter(query, "since_seq") else { return Ok(None) };
    Ok(SinceSeq::given("since_seq", Some(GivenNumber::parse(&text)))?.map(SinceSeq::get))
}

/// Checks a handshake against RFC 6455 and computes the value of `Sec-WebSocket-Accept`.
fn accept_key<B: Body>(request: &Request<B>) -> Result<String, Problem> {
    if request.method() != Method::GET {
        return Err(Problem::other_methods(Method::GET.as_str()));
    }
    let headers = request.headers();
    if !has_token(headers, &header::UPGRADE, "websocket") || !has_token(headers, &header::CONNECTION, "upgrade") {
        let problem = Problem::new(StatusCode::UPGRADE_REQUIRED, "upgrade_required", "A WebSocket is spoken here");
        return Err(with_upgrade(problem));
    }
    if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        let problem =
            Problem::new(StatusCode::UPGRADE_REQUIRED, "unsupported_version", "WebSocket version 13 is spoken here");
        return Err(with_upgrade(problem));
    }
    if request.version() != Version::HTTP_11 {
        return Err(Problem::invalid("A WebSocket handshake is HTTP/1.1"));
    }
    if !request.body().is_end_stream() {
        return Err(Problem::invalid("A WebSocket handshake has no body"));
    }
    let mut keys = headers.get_all(header::SEC_WEBSOCKET_KEY).iter();
    let key = match (keys.next(), keys.next()) {
        (Some(key), None) => key.as_bytes(),
        _ => return Err(Problem::invalid("A WebSocket handshake has one Sec-WebSocket-Key")),
    };
    match STANDARD.decode(key) {
        Ok(bytes) if bytes.len() == 16 => Ok(derive_accept_key(key)),
        _ => Err(Problem::invalid("Sec-WebSocket-Key is not 16 bytes in base64")),
    }
}

fn with_upgrade(problem: Problem) -> Problem {
    problem
        .with(header::UPGRADE, HeaderValue::from_static("websocket"))
        .with(header::CONNECTION, HeaderValue::from_static("Upgrade"))
        .with(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"))
}

/// The comma-separated items of all headers of this name.
fn list_items<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|part| !part.is_empty())
}

fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    list_items(headers, name).any(|part| part.eq_ignore_ascii_case(token))
}

/// The subprotocols that a client offers.
struct Offered<'a>(Vec<&'a str>);

impl<'a> Offered<'a> {
    fn of(headers: &'a HeaderMap) -> Self {
        Self(list_items(headers, &header::SEC_WEBSOCKET_PROTOCOL).collect())
    }

    /// The subprotocol that carries a token.
    fn bearer(&self) -> Option<&'a str> {
        self.0.iter().copied().find(|protocol| protocol.len() > BEARER.len() && protocol.starts_with(BEARER))
    }

    fn token(&self) -> Option<&'a str> {
        self.bearer()?.strip_prefix(BEARER)
    }

    /// The subprotocol for the response, if the client offers it. It never is the one with the token: responses end up
    /// in logs and tools. A browser fails the connection if none of those that it offered is chosen, so a client that
    /// offers only the token learns here what to offer.
    fn chosen(&self) -> Result<Option<HeaderValue>, Problem> {
        let offers = self.0.contains(&PROTOCOL);
        if self.bearer().is_some() && !offers {
            return Err(Problem::invalid(
                "Offer the subprotocol switchboard beside bearer.<token>: new WebSocket(url, [\"switchboard\", \"bearer.\" + token])",
            ));
        }
        Ok(offers.then_some(HeaderValue::from_static(PROTOCOL)))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body_util::{Empty, Full};

    use super::*;

    fn handshake() -> hyper::http::request::Builder {
        Request::get("/v1/ws")
            .header("Upgrade", "WebSocket")
            .header("Connection", "keep-alive, Upgrade")
            .header("Sec-WebSocket-Version", "13")
    }

    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

    #[test]
    fn a_valid_handshake_gets_the_accept_key_of_the_rfc() {
        let request = handshake().header("Sec-WebSocket-Key", KEY).body(Empty::<Bytes>::new()).unwrap();
        assert_eq!(accept_key(&request).unwrap(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn bad_handshakes_are_refused() {
        let status = |builder: hyper::http::request::Builder| {
            let problem = accept_key(&builder.body(Empty::<Bytes>::new()).unwrap()).unwrap_err();
            problem.into_response()
        };
        assert_eq!(status(handshake()).status(), 400);
        assert_eq!(status(handshake().header("Sec-WebSocket-Key", "short")).status(), 400);
        assert_eq!(status(handshake().header("Sec-WebSocket-Key", "AAAA")).status(), 400);
        let twice = handshake().header("Sec-WebSocket-Key", KEY).header("Sec-WebSocket-Key", KEY);
        assert_eq!(status(twice).status(), 400);
        assert_eq!(status(Request::get("/v1/ws")).status(), 426);
        assert_eq!(status(handshake().method(Method::HEAD).header("Sec-WebSocket-Key", KEY)).status(), 405);
        assert_eq!(status(handshake().version(Version::HTTP_10).header("Sec-WebSocket-Key", KEY)).status(), 400);
        let old = Request::get("/v1/ws")
            .header("Upgrade", "websocket")
            .header("Connection", "Upgrade")
            .header("Sec-WebSocket-Version", "8");
        let answer = status(old);
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["sec-websocket-version"]),
            (426, &HeaderValue::from(13))
        );
        let body = handshake().header("Sec-WebSocket-Key", KEY).body(Full::new(Bytes::from_static(b"x"))).unwrap();
        assert!(accept_key(&body).is_err());
    }

    #[test]
    fn subprotocols() {
        for (offer, token, chosen) in [
            ("switchboard, bearer.a.b.c", Some("a.b.c"), Some("switchboard")),
            ("other, bearer.a.b.c, switchboard", Some("a.b.c"), Some("switchboard")),
            ("switchboard", None, Some("switchboard")),
            ("other", None, None),
            ("bearer.", None, None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, offer.parse().unwrap());
            let offered = Offered::of(&headers);
            let answer = offered.chosen().unwrap();
            assert_eq!(
                (offered.token(), answer.as_ref().map(|name| name.to_str().unwrap())),
                (token, chosen),
                "{offer}"
            );
        }
        for offer in ["bearer.a.b.c", "other, bearer.a.b.c"] {
            let mut headers = HeaderMap::new();
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, offer.parse().unwrap());
            assert_eq!(Offered::of(&headers).chosen().unwrap_err().status, StatusCode::BAD_REQUEST, "{offer}");
        }
    }
}
