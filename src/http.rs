//! HTTP: the route table, REST, health, and the upgrade to a WebSocket.
//!
//! The listener passes each socket to [`Server::serve`], which serves it until it closes or becomes a WebSocket. From
//! then on the session owns it. Nothing here logs a query string or a token.

use std::{
    convert::Infallible,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use hyper::{
    Request, Response, StatusCode,
    body::Incoming,
    header::{self, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::TcpStream,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

mod body;
mod check;
mod client;
mod compression;
mod console;
mod cors;
mod demo;
mod health;
mod problem;
mod proxy_header;
mod rest;
mod routes;
mod service;
mod transport;
mod unread;
mod upgrade;

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod tests;

pub use routes::{Access, Route, endpoints};
pub use service::Kind;

use body::RequestBody;
use compression::Encoding;
use health::Probe;
use problem::{HttpResult, Payload, Problem};
use proxy_header::HeaderFault;
use routes::{Endpoint, Found, Routes};
use service::{HttpService, Peer};
use transport::Transport;

use crate::{
    admission::{Admission, Permit, Refusal},
    broker::Broker,
    supervise::{TaskName, checkpoint},
};

/// The same maximum once the node stops: a half-sent request must not delay the shutdown.
const STOPPING_TIMEOUT: Duration = Duration::from_secs(1);
/// Maximum idle time between two requests. It is longer than the keep-alive of common proxies, so that the proxy closes
/// first.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(75);
/// The same maximum for admin sockets, and their maximum time to the first request: probes need no long connections.
const ADMIN_KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(15);
const ADMIN_FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum time to answer a request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Size of the read buffer and thereby the largest request head, in bytes.
const MAX_HEAD_BYTES: usize = 16 * 1_024;
/// Maximum number of headers of one request.
const MAX_HEADERS: usize = 64;

/// Serves the sockets of one kind of listener.
pub struct Server {
    service: HttpService,
    routes: Routes,
    http: http1::Builder,
    /// Ends keep-alive when cancelled.
    stop: CancellationToken,
}

impl Server {
    /// Creates the server for listeners of this kind. After `stop`, each socket closes with its next response.
    pub fn new(broker: Arc<Broker>, kind: Kind, stop: CancellationToken) -> Self {
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(match kind {
                Kind::Clients => KEEP_ALIVE_TIMEOUT,
                Kind::Admin => ADMIN_KEEP_ALIVE_TIMEOUT,
            })
            // A client that has sent its request may end its side, and still gets the response.
            .half_close(true)
            .max_buf_size(MAX_HEAD_BYTES)
            .max_headers(MAX_HEADERS);
        let limit = i64::try_from(broker.admission.limit()).unwrap_or(i64::MAX);
        broker.metrics.connections_limit.set(limit);
        Self { service: HttpService::new(broker, kind), routes: Routes::of(kind), http, stop }
    }

    /// Kind of the listeners that it serves.
    pub fn kind(&self) -> Kind {
        self.service.kind()
    }

    /// The broker that serves the requests.
    pub fn broker(&self) -> &Arc<Broker> {
        self.service.broker()
    }

    /// Decides on the admission of a new socket.
    pub fn admit(&self, peer: IpAddr) -> Admission {
        self.service.admit(peer)
    }

    /// Counts a refusal.
    pub fn refused(&self, refusal: Refusal) {
        self.service.refused(refusal);
    }

    /// Serves a socket until it closes or becomes a WebSocket.
    pub async fn serve(self: Arc<Self>, mut stream: TcpStream, peer: IpAddr, admission: Admission) {
        let (mut refusal, permit) = match admission {
            Admission::Admitted(permit) => (None, permit),
            Admission::Refused(refusal, permit) => (Some(refusal), permit),
            Admission::Dropped => return,
        };
        let peer = match self.named_by_proxy(&mut stream, peer, &permit).await {
            Ok(Some(client)) => {
                refusal = refusal.or_else(|| self.service.count_client(&permit, client).err());
                client
            }
            Ok(None) => peer,
            Err(counted) => return counted.map_or((), |refusal| self.refused(refusal)),
        };
        let unread = Arc::new(AtomicBool::new(false));
        let transport = Transport::new(stream, unread.clone(), self.broker().config.timing.slow_reader_timeout);
        let stranger_timeout = self.broker().config.timing.unauthenticated_timeout;
        let first_request = match self.kind() {
            Kind::Clients => stranger_timeout,
            Kind::Admin => ADMIN_FIRST_REQUEST_TIMEOUT,
        };
        let peer = Peer::new(peer.to_canonical(), self.service.trusts(peer), refusal, permit, stranger_timeout);
        let peer = Arc::new(peer);
        let answer_request = service_fn(|request| {
            let (server, peer, unread) = (Arc::clone(&self), Arc::clone(&peer), Arc::clone(&unread));
            async move { Ok::<_, Infallible>(server.answer(peer, request, &unread).await) }
        });
        let mut stopping = false;
        let mut connection =
            std::pin::pin!(self.http.serve_connection(TokioIo::new(transport), answer_request).with_upgrades());
        let mut deadline = std::pin::pin!(sleep(first_request));
        loop {
            tokio::select! {
                ended = connection.as_mut() => return ended.err().and_then(refusal_of).map_or((), |refusal| self.refused(refusal)),
                () = peer.permit.displaced() => return self.displaced(&peer),
                () = self.stop.cancelled(), if !stopping => {
                    stopping = true;
                    connection.as_mut().graceful_shutdown();
                    let soon = Instant::now() + STOPPING_TIMEOUT;
                    if peer.deadline().is_none() && soon < deadline.deadline() {
                        deadline.as_mut().reset(soon);
                    }
                }
                () = deadline.as_mut() => match peer.deadline() {
                    Some(at) if at > Instant::now() => deadline.as_mut().reset(at),
                    Some(_) => return,
                    None if stopping => return,
                    None => return self.refused(Refusal::Slow),
                },
            }
        }
    }

    /// The client's address as the PROXY header of a trusted proxy has it; none if there need not be one, or it names none.
    ///
    /// # Errors
    /// The socket must close, and is counted under this refusal, if there is one.
    async fn named_by_proxy(
        &self,
        stream: &mut TcpStream,
        peer: IpAddr,
        permit: &Permit,
    ) -> Result<Option<IpAddr>, Option<Refusal>> {
        if !self.service.expects_proxy_header(peer) {
            return Ok(None);
        }
        let limit = self.broker().config.timing.unauthenticated_timeout;
        let read = tokio::select! {
            read = timeout(limit, proxy_header::read(stream)) => read.map_err(|_| Some(Refusal::Slow))?,
            () = permit.displaced() => return Err(Some(Refusal::Silent)),
            () = self.stop.cancelled() => return Err(Some(Refusal::Draining)),
        };
        match read {
            Ok(client) => Ok(client.map(|address| address.to_canonical())),
            Err(HeaderFault::Ended(_)) => Err(None),
            Err(fault @ HeaderFault::Invalid(_)) => {
                self.service.log_bad_proxy_header(peer, &fault);
                proxy_header::refuse(stream).await;
                Err(Some(Refusal::ProxyHeader))
            }
        }
    }

    /// Counts a socket that lost its place.
    fn displaced(&self, peer: &Peer) {
        match (peer.deadline(), self.kind()) {
            (None, _) => self.refused(Refusal::Silent),
            (Some(_), Kind::Clients) => self.refused(Refusal::Displaced),
            // It had its answers.
            (Some(_), Kind::Admin) => {}
        }
    }

    /// Answers a request within `REQUEST_TIMEOUT`. Sets `unread` if the client may still send a body that nobody reads.
    async fn answer(&self, peer: Arc<Peer>, request: Request<Incoming>, unread: &AtomicBool) -> Response<Payload> {
        peer.requested();
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let began = Instant::now();
        let headers = cors::CorsHeaders::to(request.headers(), self.service.pages());
        let encoding = Encoding::wanted(request.headers());
        let (request, rest) = body::track(request);
        let routed = async {
            checkpoint(TaskName::Request, || &path);
            self.route(&peer, request).await
        };
        let supervisor = &self.broker().supervisor;
        let answer = match timeout(REQUEST_TIMEOUT, supervisor.guard(TaskName::Request, routed)).await {
            Ok(answer) => answer.unwrap_or_else(|| Err(Problem::internal())),
            Err(_) => Err(Problem::took_too_long()),
        };
        let mut response = answer.unwrap_or_else(Problem::into_response);
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            response = encoding.apply(response).await;
            response = self.service.unread_answers().count(response).await.unwrap_or_else(Problem::into_response);
            headers.apply(&mut response);
        }
        let read = rest.read_out().await;
        unread.store(!read, Ordering::Relaxed);
        if self.service.refusal(&peer).is_some() || !read {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        let (status, seconds) = (response.status().as_u16(), began.elapsed().as_secs_f64());
        tracing::debug!(%method, path, status, seconds, "request");
        response
    }

    async fn route(&self, peer: &Arc<Peer>, request: Request<RequestBody>) -> HttpResult {
        let path = request.uri().path().to_owned();
        let found = self.routes.find(request.method(), &path);
        if let (Some(refusal), false) =
            (self.service.refusal(peer), matches!(found, Found::Endpoint(Endpoint::Probe(_), _)))
        {
            return Err(self.service.refuse(refusal, peer, request.headers()));
        }
        let is_check = matches!(found, Found::Endpoint(Endpoint::Probe(Probe::Check), _));
        if let (Some(refusal), false) = (self.service.pages().refusal(request.headers()), is_check) {
            return Err(self.service.refuse(refusal, peer, request.headers()));
        }
        let (endpoint, params) = match found {
            Found::Endpoint(endpoint, params) => (endpoint, params),
            Found::OtherMethods(allow) => {
                let preflight = cors::preflight(request.method(), request.headers(), self.service.pages(), &allow);
                return preflight.ok_or_else(|| self.service.refuse_preflight(&request, &allow));
            }
            Found::Nothing => return demo::answer(&self.service, peer, request).await,
        };
        match endpoint {
            Endpoint::Console(action) => Box::pin(console::answer(action, &self.service, peer, &params, request)).await,
            Endpoint::Page(asset) => {
                console::asset(asset, self.service.console().map(|console| &console.gate), request.headers())
            }
            Endpoint::Probe(probe) => Ok(health::answer(probe, &self.service, peer, request.headers())),
            Endpoint::Socket(route) => {
                let conversation = params.get("conversation");
                upgrade::answer(&self.service, peer, route, conversation, request)
            }
            // Boxed, because the future of every request is copied several times, and would have room for that of each action.
            Endpoint::Rest(action) => Box::pin(rest::answer(action, &self.service, peer, &params, request)).await,
        }
    }
}

/// The refusal to count for a socket that ended with this error; `None` if the client just disconnected.
fn refusal_of(error: hyper::Error) -> Option<Refusal> {
    match error {
        error if error.is_timeout() => Some(Refusal::Slow),
        error if error.is_parse_too_large() => Some(Refusal::HeadTooLarge),
        error if error.is_parse() => Some(Refusal::Handshake),
        _ => None,
    }
}
