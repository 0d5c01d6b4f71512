//! [`HttpService`] and [`Peer`]: the shared state behind every endpoint, and the remote end of a socket.

use std::{
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use hyper::{HeaderMap, Request, header};
use tokio::time::Instant;

use super::{
    body::RequestBody,
    client,
    console::Console,
    cors::{self, PageRules},
    problem::{Problem, refusal_sentence},
    proxy_header::HeaderFault,
    unread::UnreadAnswers,
};
use crate::{
    admission::{Admission, Permit, Refusal},
    broker::Broker,
    session,
    tail::{self, ClientInfo},
};

/// Time that a socket lives after its last request. It bounds sockets whose client doesn't read the response.
const MAX_AFTER_REQUEST: Duration = Duration::from_secs(120);

/// Minimum time between two log lines about PROXY headers.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// Kind of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// For clients.
    Clients,
    /// For operators.
    Admin,
}

/// State that the endpoints of one kind of listener share.
pub(super) struct HttpService {
    broker: Arc<Broker>,
    kind: Kind,
    /// Context of the WebSocket sessions that this service opens.
    sessions: Arc<session::Context>,
    /// The admin console, if this is the admin listener and the console is on.
    console: Option<Console>,
    unread_answers: Arc<UnreadAnswers>,
    /// Time of the last log line about a PROXY header.
    bad_header_logged: Mutex<Option<Instant>>,
}

impl HttpService {
    pub(super) fn new(broker: Arc<Broker>, kind: Kind) -> Self {
        let sessions = Arc::new(session::Context {
            config: broker.config.clone(),
            metrics: broker.metrics.clone(),
            auth: broker.auth.clone(),
            advice: broker.advice.clone(),
            chat: broker.chat.clone(),
            clock: broker.clock.clone(),
            outboxes: broker.outboxes.clone(),
            drain: broker.drain.clone(),
            tail: broker.tail.clone(),
            supervisor: broker.supervisor.clone(),
            tasks: broker.tasks.clone(),
            shared: session::Shared::new(&broker.config),
        });
        let console = broker.config.console.as_ref().filter(|_| kind == Kind::Admin).map(Console::new);
        let limits = &broker.config.limits;
        let (per_user, total) = (limits.unread_answer_bytes_per_user, limits.unread_answer_bytes_total);
        let unread_answers = UnreadAnswers::new(per_user, total, broker.metrics.clone());
        Self { broker, kind, sessions, console, unread_answers, bad_header_logged: Mutex::default() }
    }

    /// Kind of the listener.
    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    /// The long answers that wait for their readers.
    pub(super) fn unread_answers(&self) -> &Arc<UnreadAnswers> {
        &self.unread_answers
    }

    /// The admin console, if it is on.
    pub(super) fn console(&self) -> Option<&Console> {
        self.console.as_ref()
    }

    /// The broker that serves the requests.
    pub(super) fn broker(&self) -> &Arc<Broker> {
        &self.broker
    }

    /// Context of the WebSocket sessions that this service opens.
    pub(super) fn sessions(&self) -> &Arc<session::Context> {
        &self.sessions
    }

    /// Decides on the admission of a new socket.
    pub(super) fn admit(&self, peer: IpAddr) -> Admission {
        let admission = &self.broker.admission;
        match self.kind {
            Kind::Admin => admission.admit_admin(),
            // Behind a proxy the socket's address is the proxy's; the handshake names the client's.
            Kind::Clients if self.trusts(peer) => admission.admit(None),
            Kind::Clients => admission.admit(Some(peer)),
        }
    }

    /// True if a socket from this address must begin with a PROXY header.
    pub(super) fn expects_proxy_header(&self, peer: IpAddr) -> bool {
        self.kind == Kind::Clients && self.broker.config.proxy_protocol && self.trusts(peer)
    }

    /// Counts an admitted socket of a trusted proxy by the client's address, as if the client had connected directly.
    ///
    /// # Errors
    /// The address has as many sockets as it may have.
    pub(super) fn count_client(&self, permit: &Permit, client: IpAddr) -> Result<(), Refusal> {
        if self.trusts(client) {
            return Ok(());
        }
        if let Some(counted) = self.broker.admission.address(client)? {
            permit.keep_address(counted);
        }
        permit.set_address(client)
    }

    /// Logs once a minute that a trusted proxy sends no valid PROXY header.
    pub(super) fn log_bad_proxy_header(&self, proxy: IpAddr, fault: &HeaderFault) {
        let mut logged = self.bad_header_logged.lock().unwrap_or_else(PoisonError::into_inner);
        if logged.is_none_or(|at| at.elapsed() >= LOG_EVERY) {
            *logged = Some(Instant::now());
            tracing::warn!(
                %proxy,
                reason = %fault,
                "a socket of a trusted proxy was refused: let the proxy send PROXY headers, or set PROXY_PROTOCOL to false"
            );
        }
    }

    /// The reason for which the socket's requests are refused, if there is one.
    pub(super) fn refusal(&self, peer: &Peer) -> Option<Refusal> {
        let full = || (peer.permit.is_stranger() && self.broker.admission.is_full()).then_some(Refusal::Full);
        peer.refusal.or_else(full)
    }

    /// Counts a refusal of a client of which nothing is known.
    pub(super) fn refused(&self, refusal: Refusal) {
        self.refused_client(refusal, None, ClientInfo::default());
    }

    /// Counts a refusal, and keeps it for the console.
    pub(super) fn refused_client(&self, refusal: Refusal, address: Option<IpAddr>, client: ClientInfo) {
        self.broker.metrics.refusals.with_label_values(&[refusal.label()]).inc();
        if self.kind == Kind::Admin {
            return;
        }
        self.broker.tail.record(|| tail::Event {
            kind: tail::Kind::Refusal,
            reason: refusal.label(),
            flaw: None,
            client,
            address,
            dialect: None,
            user: None,
            connection: None,
            at: self.broker.clock.now(),
        });
    }

    /// The client's origin and user agent, for the console.
    pub(super) fn client(&self, headers: &HeaderMap) -> ClientInfo {
        let text = |name| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()));
        self.broker.tail.client(text(header::ORIGIN).as_deref(), text(header::USER_AGENT).as_deref())
    }

    /// Counts a refusal of a request, and keeps it for the console.
    pub(super) fn refused_request(&self, refusal: Refusal, peer: &Peer, headers: &HeaderMap) {
        let address = client::address(peer.address, headers, &self.broker.config.trusted_proxies);
        self.refused_client(refusal, Some(address), self.client(headers));
    }

    /// Counts a refusal of a request, keeps it for the console, and tells what it means. Returns the answer.
    pub(super) fn refuse(&self, refusal: Refusal, peer: &Peer, headers: &HeaderMap) -> Problem {
        self.refused_request(refusal, peer, headers);
        if let Some(sentence) = refusal_sentence(refusal, headers) {
            self.broker.advice.tell(&sentence);
        }
        Problem::refused(refusal, headers)
    }

    /// The answer to a request whose path has these other methods only. A preflight, whose page may not use REST, is told.
    pub(super) fn refuse_preflight(&self, request: &Request<RequestBody>, methods: &str) -> Problem {
        if self.kind == Kind::Clients && cors::is_preflight(request.method(), request.headers()) {
            self.broker.advice.tell(&refusal_sentence(Refusal::Origin, request.headers()).unwrap_or_default());
        }
        Problem::other_methods(methods)
    }

    /// True if this address is a trusted proxy, whose forwarding headers count.
    pub(super) fn trusts(&self, peer: IpAddr) -> bool {
        client::is_trusted(peer, &self.broker.config.trusted_proxies)
    }

    /// The rules for requests from pages in a browser.
    pub(super) fn pages(&self) -> PageRules<'_> {
        PageRules::new(&self.broker.config, self.kind == Kind::Clients)
    }
}

/// The remote end of a socket.
#[derive(Debug)]
pub(super) struct Peer {
    /// Its address.
    pub(super) address: IpAddr,
    /// True if it is a trusted proxy.
    pub(super) trusted: bool,
    /// The reason if the socket was not admitted.
    pub(super) refusal: Option<Refusal>,
    /// Its place in the connection limit. A WebSocket keeps it after the upgrade.
    pub(super) permit: Arc<Permit>,
    /// Time that the socket lives after a request, while none had a valid token.
    stranger_timeout: Duration,
    /// Time at which the socket was accepted.
    since: Instant,
    /// Time from `since` to the last request, in ms plus one; 0 before the first request.
    last_request: AtomicU64,
}

impl Peer {
    pub(super) fn new(
        address: IpAddr,
        trusted: bool,
        refusal: Option<Refusal>,
        permit: Permit,
        stranger_timeout: Duration,
    ) -> Self {
        let (permit, since, last_request) = (Arc::new(permit), Instant::now(), AtomicU64::new(0));
        Self { address, trusted, refusal, permit, stranger_timeout, since, last_request }
    }

    /// Records the arrival of a request.
    pub(super) fn requested(&self) {
        let millis = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
        self.last_request.store(millis + 1, Ordering::Relaxed);
        self.permit.requested();
    }

    /// Time at which the socket must close; `None` before its first request.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let millis = self.last_request.load(Ordering::Relaxed).checked_sub(1)?;
        // A proxy keeps its connections for the requests of others.
        let stranger = self.permit.is_stranger() && !self.trusted;
        let lives = if stranger { self.stranger_timeout } else { MAX_AFTER_REQUEST };
        Some(self.since + Duration::from_millis(millis) + lives)
    }
}
