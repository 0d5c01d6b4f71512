//! Admission of connections: caps on sockets, on sockets per address, and on handshakes per second. A [`Permit`]
//! releases its place when it is dropped; the WebSocket owns it.
//!
//! A new socket is a stranger, with a place of its own kind. It gets a place among the known ones with its first valid
//! token, so that sockets without a token never take the places of those with one.

use std::{
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::config::Limits;

mod addresses;
mod full_log;
mod known;
mod places;

pub use addresses::AddressPermit;

use addresses::{Addresses, network_of};
use full_log::FullLog;
use known::{Known, KnownPlace};
use places::{KeptFor, NoPlace, Place, Places};

/// Time that a new socket has for its request before a newcomer can get its place. Clients send the request with the connect,
/// so this is long for them.
const SILENCE_ALLOWED: Duration = Duration::from_millis(250);
/// Strangers with a request keep their places for long enough for the handshake of a client far away, so that a crowd that
/// reconnects at once makes progress.
const STRANGERS_KEPT_FOR: KeptFor = KeptFor { silent: SILENCE_ALLOWED, heard: Some(Duration::from_secs(1)) };
/// A refused socket with a request gets its answer.
const REFUSED_KEPT_FOR: KeptFor = KeptFor { silent: SILENCE_ALLOWED, heard: None };
/// An admin socket is always admitted, so that a probe always gets a place.
const ADMIN_KEPT_FOR: KeptFor = KeptFor { silent: Duration::ZERO, heard: Some(Duration::ZERO) };

/// Reason why a socket or a handshake is refused before it becomes a WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The node is at its cap of sockets.
    Full,
    /// The node is at its cap of sockets without a token.
    Crowded,
    /// The socket showed no token in time, and a newcomer needed its place.
    Displaced,
    /// The socket sent no complete request in time, and a newcomer needed its place.
    Silent,
    /// The node is at its cap of sockets, and at its cap of refusals: the socket is dropped without an answer.
    Dropped,
    /// The address is at its cap of sockets.
    AddressFull,
    /// The node is at its cap of handshakes for this second.
    HandshakeRate,
    /// The node drains.
    Draining,
    /// The configuration does not allow this origin.
    Origin,
    /// Under `dev`: the `Host` header doesn't name this machine.
    Host,
    /// Not a WebSocket handshake, or not HTTP.
    Handshake,
    /// The head of the request exceeds the size limit.
    HeadTooLarge,
    /// No complete request arrived before the deadline.
    Slow,
    /// A trusted proxy sent no valid PROXY header.
    ProxyHeader,
}

impl Refusal {
    /// The label in metrics, and the code in the response.
    pub fn label(self) -> &'static str {
        match self {
            Self::Full => "node_full",
            Self::Crowded => "unauthenticated_full",
            Self::Displaced => "displaced",
            Self::Silent => "silent",
            Self::Dropped => "dropped",
            Self::AddressFull => "address_full",
            Self::HandshakeRate => "handshake_rate",
            Self::Draining => "draining",
            Self::Origin => "origin",
            Self::Host => "host",
            Self::Handshake => "bad_handshake",
            Self::HeadTooLarge => "head_too_large",
            Self::Slow => "slow_handshake",
            Self::ProxyHeader => "proxy_header",
        }
    }
}

/// The decision about a new socket.
#[derive(Debug)]
pub enum Admission {
    /// The socket may stay.
    Admitted(Permit),
    /// The socket is refused; the permit covers it while it receives the reason.
    Refused(Refusal, Permit),
    /// The socket is closed without an answer, because the cap of refusals is reached.
    Dropped,
}

/// A counted place of a socket. Dropping it releases the place.
#[derive(Debug)]
pub struct Permit {
    place: Mutex<Counted>,
    known: Arc<Known>,
    /// The place among the sockets of the client's address, if that has a cap.
    address: OnceLock<AddressPermit>,
}

/// The kind of a counted place.
#[derive(Debug)]
enum Counted {
    /// A client's socket without a valid token so far.
    Stranger(Place),
    /// A socket that gets a refusal.
    Refused(Place),
    /// A socket of the admin listener.
    Admin(Place),
    /// A client's socket that showed a valid token.
    Known {
        /// Releases the place when it is dropped.
        _place: KnownPlace,
    },
}

impl Permit {
    /// Moves a stranger to the known sockets, because it showed a valid token.
    ///
    /// # Errors
    /// The node is at its cap of sockets, or the stranger's place was given to another socket.
    pub fn promote(&self) -> Result<(), Refusal> {
        let mut place = lock(&self.place);
        if let Counted::Stranger(stranger) = &*place {
            if stranger.leave().is_cancelled() {
                return Err(Refusal::Displaced);
            }
            *place = Counted::Known { _place: self.known.take().ok_or(Refusal::Full)? };
        }
        Ok(())
    }

    /// True until the socket shows a valid token.
    pub fn is_stranger(&self) -> bool {
        matches!(&*lock(&self.place), Counted::Stranger(_))
    }

    /// Records the arrival of a request: a silent socket loses its place first, and of the admin sockets with a request
    /// the one whose last request is the oldest.
    pub fn requested(&self) {
        match &*lock(&self.place) {
            Counted::Stranger(place) | Counted::Refused(place) => place.hear(),
            Counted::Admin(place) => place.renew(),
            Counted::Known { .. } => {}
        }
    }

    /// Keeps the place among the sockets of the client's address for the lifetime of the socket.
    pub fn keep_address(&self, address: AddressPermit) {
        // A socket has one client, so that none is kept yet.
        let _first = self.address.set(address);
    }

    /// Counts a stranger behind a trusted proxy by its own address.
    ///
    /// # Errors
    /// The address has as many sockets without a token as it may have.
    pub fn set_address(&self, address: IpAddr) -> Result<(), Refusal> {
        match &*lock(&self.place) {
            Counted::Stranger(place) => place.set_network(network_of(address)).map_err(Refusal::from),
            Counted::Refused(_) | Counted::Admin(_) | Counted::Known { .. } => Ok(()),
        }
    }

    /// Resolves when the place was given to another socket; this one must close. The place of a known socket is not given
    /// away.
    pub async fn displaced(&self) {
        let leave = match &*lock(&self.place) {
            Counted::Stranger(place) | Counted::Refused(place) | Counted::Admin(place) => place.leave().clone(),
            Counted::Known { .. } => CancellationToken::new(),
        };
        leave.cancelled().await;
    }
}

impl From<NoPlace> for Refusal {
    fn from(no_place: NoPlace) -> Self {
        match no_place {
            NoPlace::Full => Self::Crowded,
            NoPlace::NetworkFull => Self::AddressFull,
        }
    }
}

/// The counts of a node, shared by all its listeners.
#[derive(Debug)]
pub struct ConnectionAdmission {
    known: Arc<Known>,
    strangers: Arc<Places>,
    strangers_full: FullLog,
    /// Sockets without a place that may still receive a refusal with its reason, or request health.
    refused: Arc<Places>,
    /// Sockets of the admin listener. They have their own count, so that operators can inspect a full node.
    admin: Arc<Places>,
    addresses: Option<Arc<Addresses>>,
    handshakes: Option<Mutex<Bucket>>,
    websockets: AtomicUsize,
}

impl ConnectionAdmission {
    /// Creates empty counts with these limits.
    pub fn new(limits: &Limits) -> Self {
        let addresses = (limits.connections_per_ip > 0).then(|| Addresses::new(limits.connections_per_ip));
        let handshakes =
            (limits.handshakes_per_second > 0).then(|| Mutex::new(Bucket::new(limits.handshakes_per_second)));
        Self {
            known: Known::new(limits.connections.min(Semaphore::MAX_PERMITS)),
            strangers: Places::new(limits.unauthenticated, limits.unauthenticated_per_ip, STRANGERS_KEPT_FOR),
            strangers_full: FullLog::default(),
            refused: Places::new(limits.probe_sockets, 0, REFUSED_KEPT_FOR),
            admin: Places::new(limits.probe_sockets, 0, ADMIN_KEPT_FOR),
            addresses,
            handshakes,
            websockets: AtomicUsize::new(0),
        }
    }

    /// The maximum number of sockets with a token on this node.
    pub fn limit(&self) -> usize {
        self.known.limit()
    }

    /// The number of open sockets that showed no valid token so far.
    pub fn strangers(&self) -> usize {
        self.strangers.held()
    }

    /// The number of open sockets that showed a valid token.
    pub fn sockets(&self) -> usize {
        self.known.limit() - self.known.free()
    }

    /// True if another socket fits under the cap.
    pub fn has_room(&self) -> bool {
        self.known.free() > 0
    }

    /// True if a stranger would be refused, which is logged.
    pub fn is_full(&self) -> bool {
        let full = !self.has_room();
        if full {
            self.known.log_full();
        }
        full
    }

    /// The number of open WebSockets.
    pub fn websockets(&self) -> usize {
        self.websockets.load(Ordering::Relaxed)
    }

    /// Counts a WebSocket for the lifetime of the returned value.
    pub fn opened(self: &Arc<Self>) -> Opened {
        self.websockets.fetch_add(1, Ordering::Relaxed);
        Opened(Arc::clone(self))
    }

    /// Counts a client's new socket, as a stranger. `address` also counts it by its address; behind a proxy, the handshake
    /// does that instead.
    pub fn admit(&self, address: Option<IpAddr>) -> Admission {
        let by_address = match address.map(|address| self.address(address)).transpose() {
            Ok(by_address) => by_address.flatten(),
            Err(refusal) => return self.refuse(refusal),
        };
        match self.strangers.take(address.map(network_of)) {
            Ok(place) => Admission::Admitted(self.permit(place, Counted::Stranger, by_address)),
            Err(no_place) => {
                if no_place == NoPlace::Full && self.strangers_full.is_due() {
                    tracing::warn!(
                        limit = self.strangers.limit(),
                        "this node has its maximum of sockets without a valid token and refuses further ones \
                         (MAX_UNAUTHENTICATED, or less if the limit of open files allows no more)"
                    );
                }
                self.refuse(no_place.into())
            }
        }
    }

    fn permit(&self, place: Place, kind: fn(Place) -> Counted, address: Option<AddressPermit>) -> Permit {
        let address = address.map(OnceLock::from).unwrap_or_default();
        Permit { place: Mutex::new(kind(place)), known: Arc::clone(&self.known), address }
    }

    fn refuse(&self, refusal: Refusal) -> Admission {
        match self.refused.take(None) {
            Ok(place) => Admission::Refused(refusal, self.permit(place, Counted::Refused, None)),
            Err(_) => Admission::Dropped,
        }
    }

    /// Counts a socket of the admin listener. If necessary, another one of its sockets loses its place.
    pub fn admit_admin(&self) -> Admission {
        match self.admin.take(None) {
            Ok(place) => Admission::Admitted(self.permit(place, Counted::Admin, None)),
            Err(_) => Admission::Dropped,
        }
    }

    /// Counts a socket by its address. Returns `None` if there is no cap per address.
    pub fn address(&self, address: IpAddr) -> Result<Option<AddressPermit>, Refusal> {
        let Some(addresses) = &self.addresses else { return Ok(None) };
        addresses.acquire(address).map(Some).ok_or(Refusal::AddressFull)
    }

    /// Counts a handshake against the cap per second.
    pub fn handshake(&self) -> Result<(), Refusal> {
        match &self.handshakes {
            Some(bucket) if !lock(bucket).try_take(Instant::now()) => Err(Refusal::HandshakeRate),
            _ => Ok(()),
        }
    }
}

/// A counted open WebSocket. Dropping it lowers the count.
#[derive(Debug)]
pub struct Opened(Arc<ConnectionAdmission>);

impl Drop for Opened {
    fn drop(&mut self) {
        self.0.websockets.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A token bucket that holds the tokens of one second.
#[derive(Debug)]
struct Bucket {
    per_second: f64,
    tokens: f64,
    filled: Instant,
}

impl Bucket {
    fn new(per_second: u32) -> Self {
        let per_second = f64::from(per_second);
        Self { per_second, tokens: per_second, filled: Instant::now() }
    }

    fn try_take(&mut self, now: Instant) -> bool {
        let passed: Duration = now.saturating_duration_since(self.filled);
        self.tokens = (self.tokens + passed.as_secs_f64() * self.per_second).min(self.per_second);
        self.filled = now;
        let enough = self.tokens >= 1.0;
        if enough {
            self.tokens -= 1.0;
        }
        enough
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
