//! Admission of connections: caps on sockets, on sockets per address, and on handshakes per second. A [`Permit`]
//! releases its place when it is dropped; the WebSocket owns it.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::Semaphore;

use crate::config::Limits;

mod places;

use places::{Place, Places};

/// Minimum time between two log lines about a full node.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// Reason why a socket or a handshake is refused before it becomes a WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The node is at its cap of sockets.
    Full,
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
    /// No complete request had arrived when another socket needed the place.
    Silent,
}

impl Refusal {
    /// The label in metrics, and the code in the response.
    pub fn label(self) -> &'static str {
        match self {
            Self::Full => "node_full",
            Self::Dropped => "dropped",
            Self::AddressFull => "address_full",
            Self::HandshakeRate => "handshake_rate",
            Self::Draining => "draining",
            Self::Origin => "origin",
            Self::Host => "host",
            Self::Handshake => "bad_handshake",
            Self::HeadTooLarge => "head_too_large",
            Self::Slow => "slow_handshake",
            Self::Silent => "silent",
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
    place: Place,
    _address: Option<AddressPermit>,
}

impl Permit {
    /// Records that the socket has sent a request. Until then it loses its place if another socket needs it.
    pub fn heard(&self) {
        self.place.keep();
    }

    /// Waits until the socket has lost its place and must close.
    pub async fn lost(&self) {
        self.place.lost().await;
    }
}

/// The counts of a node, shared by all its listeners.
#[derive(Debug)]
pub struct ConnectionAdmission {
    limit: usize,
    sockets: Arc<Places>,
    /// Sockets beyond the cap that may still receive a refusal with its reason, or request health.
    refused: Arc<Places>,
    /// Sockets of the admin listener. They have their own count, so that operators can inspect a full node.
    admin: Arc<Places>,
    full_logged: Mutex<Option<Instant>>,
    addresses: Option<Arc<Addresses>>,
    handshakes: Option<Mutex<Bucket>>,
    websockets: AtomicUsize,
}

impl ConnectionAdmission {
    /// Creates empty counts with these limits.
    pub fn new(limits: &Limits) -> Self {
        let limit = limits.connections.min(Semaphore::MAX_PERMITS);
        let addresses = (limits.connections_per_ip > 0)
            .then(|| Arc::new(Addresses { limit: limits.connections_per_ip, counts: Mutex::default() }));
        let handshakes =
            (limits.handshakes_per_second > 0).then(|| Mutex::new(Bucket::new(limits.handshakes_per_second)));
        Self {
            limit,
            sockets: Places::new(limit),
            refused: Places::new(limits.probe_sockets),
            admin: Places::new(limits.probe_sockets),
            full_logged: Mutex::default(),
            addresses,
            handshakes,
            websockets: AtomicUsize::new(0),
        }
    }

    /// The maximum number of sockets on this node.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// The number of open sockets.
    pub fn sockets(&self) -> usize {
        self.limit - self.sockets.free()
    }

    /// True if another socket fits under the cap.
    pub fn has_room(&self) -> bool {
        self.sockets.free() > 0
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

    /// Counts a client's socket. `address` also counts it by its address; behind a proxy, the handshake does that
    /// instead.
    pub fn admit(&self, address: Option<IpAddr>) -> Admission {
        let Some(place) = self.sockets.take() else {
            self.log_full();
            return self.refuse(Refusal::Full);
        };
        match address.map(|address| self.address(address)) {
            Some(Err(refusal)) => self.refuse(refusal),
            Some(Ok(address)) => Admission::Admitted(Permit { place, _address: address }),
            None => Admission::Admitted(Permit { place, _address: None }),
        }
    }

    fn refuse(&self, refusal: Refusal) -> Admission {
        match self.refused.take() {
            Some(place) => Admission::Refused(refusal, Permit { place, _address: None }),
            None => Admission::Dropped,
        }
    }

    /// Logs that the node is full, at most once a minute.
    fn log_full(&self) {
        let mut logged = lock(&self.full_logged);
        if logged.is_none_or(|at| at.elapsed() >= LOG_EVERY) {
            *logged = Some(Instant::now());
            tracing::warn!(
                limit = self.limit,
                "this node has its maximum of sockets and refuses further ones (MAX_CONNECTIONS, or less if the limit of \
                 open files allows no more)"
            );
        }
    }

    /// Counts a socket of the admin listener.
    pub fn admit_admin(&self) -> Admission {
        match self.admin.take() {
            Some(place) => Admission::Admitted(Permit { place, _address: None }),
            None => Admission::Dropped,
        }
    }

    /// Counts a socket by its address. Returns `None` if there is no cap per address.
    pub fn address(&self, address: IpAddr) -> Result<Option<AddressPermit>, Refusal> {
        self.addresses.as_ref().map(|addresses| addresses.acquire(address)).transpose()
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

#[derive(Debug)]
struct Addresses {
    limit: u32,
    counts: Mutex<HashMap<IpAddr, u32>>,
}

impl Addresses {
    fn acquire(self: &Arc<Self>, address: IpAddr) -> Result<AddressPermit, Refusal> {
        let network = network_of(address);
        let mut counts = lock(&self.counts);
        let count = counts.entry(network).or_default();
        if *count >= self.limit {
            return Err(Refusal::AddressFull);
        }
        *count += 1;
        Ok(AddressPermit { addresses: Arc::clone(self), network })
    }
}

/// A counted place among the sockets of one address. Dropping it releases the place.
#[derive(Debug)]
pub struct AddressPermit {
    addresses: Arc<Addresses>,
    network: IpAddr,
}

impl Drop for AddressPermit {
    fn drop(&mut self) {
        let mut counts = lock(&self.addresses.counts);
        if let Some(count) = counts.get_mut(&self.network) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.network);
            }
        }
    }
}

/// The network that counts as one client: an IPv4 address, or an IPv6 /64, because one customer holds at least a /64.
fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
        v4 @ IpAddr::V4(_) => v4,
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
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::config::{Config, Sources};

    /// The default limits.
    fn limits() -> Limits {
        let folder = tempfile::tempdir().unwrap();
        let flags = BTreeMap::from([("DATA_DIR".to_owned(), folder.path().to_str().unwrap().to_owned())]);
        let sources = Sources { flags, environment: Box::new(|_| None), dotenv: BTreeMap::new(), open_files: None };
        Config::load(true, &sources).unwrap().limits
    }

    #[test]
    fn released_places_are_reused() {
        let admission = ConnectionAdmission::new(&Limits { connections: 2, ..limits() });
        let first = admission.admit(None);
        let second = admission.admit(None);
        assert!(matches!((&first, &second), (Admission::Admitted(_), Admission::Admitted(_))));
        assert!(!admission.has_room() && admission.sockets() == 2);
        let third = admission.admit(None);
        assert!(matches!(third, Admission::Refused(Refusal::Full, _)));
        drop(first);
        assert_eq!(admission.sockets(), 1);
        assert!(matches!(admission.admit(None), Admission::Admitted(_)));
    }

    #[test]
    fn refusals_are_bounded_too() {
        let admission = ConnectionAdmission::new(&Limits { connections: 1, probe_sockets: 3, ..limits() });
        let kept: Vec<_> = (0..=3).map(|_| admission.admit(None)).collect();
        assert!(kept.iter().skip(1).all(|admission| matches!(admission, Admission::Refused(Refusal::Full, _))));
        assert!(matches!(admission.admit(None), Admission::Dropped));
    }

    #[test]
    fn addresses_are_counted_by_network() {
        let admission = ConnectionAdmission::new(&Limits { connections_per_ip: 1, ..limits() });
        let ip = |text: &str| Some(text.parse::<IpAddr>().unwrap());
        let one = admission.admit(ip("192.0.2.1"));
        assert!(matches!(one, Admission::Admitted(_)));
        assert!(matches!(admission.admit(ip("::ffff:192.0.2.1")), Admission::Refused(Refusal::AddressFull, _)));
        assert!(matches!(admission.admit(ip("192.0.2.2")), Admission::Admitted(_)));
        let six = admission.admit(ip("2001:db8::1"));
        assert!(matches!(admission.admit(ip("2001:db8::2")), Admission::Refused(Refusal::AddressFull, _)));
        assert!(matches!(admission.admit(ip("2001:db8:0:1::1")), Admission::Admitted(_)));
        drop((one, six));
        assert!(matches!(admission.admit(ip("192.0.2.1")), Admission::Admitted(_)));
        assert!(admission.addresses.as_ref().unwrap().counts.lock().unwrap().is_empty());
    }

    #[test]
    fn a_bucket_refills() {
        let mut bucket = Bucket::new(10);
        let start = bucket.filled;
        assert!((0..10).all(|_| bucket.try_take(start)));
        assert!(!bucket.try_take(start));
        assert!(bucket.try_take(start + Duration::from_millis(101)));
        assert!(!bucket.try_take(start + Duration::from_millis(102)));
        assert_eq!((0..20).filter(|_| bucket.try_take(start + Duration::from_secs(60))).count(), 10);
    }
}
