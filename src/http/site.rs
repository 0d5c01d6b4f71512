//! One face of the node, and the other end of a socket: what every endpoint works on.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use super::client;
use crate::{
    admission::{Admission, Permit, Refusal},
    broker::Broker,
    session,
};

/// How long a socket lives after its last request came, whatever it does: an answer nobody reads must not keep it.
const AFTER_REQUEST: Duration = Duration::from_secs(120);

/// Which of a node's two faces a listener shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// To clients.
    Clients,
    /// To operators.
    Admin,
}

/// One face of the node, and the broker behind it.
pub(super) struct HttpService {
    broker: Arc<Broker>,
    kind: Kind,
    /// What the WebSockets that begin here work with.
    sessions: Arc<session::Context>,
}

impl HttpService {
    pub(super) fn new(broker: Arc<Broker>, kind: Kind) -> Self {
        let sessions = Arc::new(session::Context {
            config: broker.config.clone(),
            metrics: broker.metrics.clone(),
            auth: broker.auth.clone(),
            chat: broker.chat.clone(),
            clock: broker.clock.clone(),
            drain: broker.drain.clone(),
            tasks: broker.tasks.clone(),
        });
        Self { broker, kind, sessions }
    }

    /// Whom it is for.
    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    /// The broker behind it.
    pub(super) fn broker(&self) -> &Arc<Broker> {
        &self.broker
    }

    /// What a WebSocket that begins here works with.
    pub(super) fn sessions(&self) -> &Arc<session::Context> {
        &self.sessions
    }

    /// Whether a new socket may stay.
    pub(super) fn admit(&self, peer: IpAddr) -> Admission {
        let admission = &self.broker.admission;
        match self.kind {
            Kind::Admin => admission.admit_admin(),
            // Behind a proxy the socket says nothing of the client; its handshake does.
            Kind::Clients if self.trusts(peer) => admission.admit(None),
            Kind::Clients => admission.admit(Some(peer)),
        }
    }

    /// Counts a refusal.
    pub(super) fn refused(&self, refusal: Refusal) {
        self.broker.metrics.refusals.with_label_values(&[refusal.label()]).inc();
    }

    /// Whether the word of this address on who its client is is taken.
    pub(super) fn trusts(&self, peer: IpAddr) -> bool {
        client::is_trusted(peer, &self.broker.config.trusted_proxies)
    }

    /// Origins whose pages may use this face from a browser.
    pub(super) fn origins(&self) -> &[String] {
        match self.kind {
            Kind::Clients => &self.broker.config.allowed_origins,
            Kind::Admin => &[],
        }
    }
}

/// The other end of a socket.
#[derive(Debug)]
pub(super) struct Peer {
    /// Its address.
    pub(super) address: IpAddr,
    /// Whether it is a proxy whose word is taken.
    pub(super) trusted: bool,
    /// Why it may not stay.
    pub(super) refusal: Option<Refusal>,
    /// Its place; a WebSocket keeps it.
    pub(super) permit: Arc<Permit>,
    /// When it came.
    since: Instant,
    /// Milliseconds after that, plus one, its last request came; 0: none did.
    last_request: AtomicU64,
}

impl Peer {
    pub(super) fn new(address: IpAddr, trusted: bool, refusal: Option<Refusal>, permit: Permit) -> Self {
        let (permit, since, last_request) = (Arc::new(permit), Instant::now(), AtomicU64::new(0));
        Self { address, trusted, refusal, permit, since, last_request }
    }

    pub(super) fn requested(&self) {
        let millis = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
        self.last_request.store(millis + 1, Ordering::Relaxed);
    }

    /// Until when the socket may live; `None` where no request came yet.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let millis = self.last_request.load(Ordering::Relaxed).checked_sub(1)?;
        Some(self.since + Duration::from_millis(millis) + AFTER_REQUEST)
    }
}
