//! Places of sockets that may lose them. When all are taken, a newcomer gets the place of a socket of the address with the
//! most places, so that a crowd from one address displaces only itself. Of these sockets, the one that held its place longest
//! without a request loses it; if each has sent one, the one that held its place longest.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

/// Why a newcomer gets no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoPlace {
    /// All places are taken, and none long enough to be given away.
    Full,
    /// The network has as many places as one network may have.
    NetworkFull,
}

/// Time for which a socket can't lose its place.
#[derive(Debug, Clone, Copy)]
pub(super) struct KeptFor {
    /// While it has sent no request.
    pub(super) silent: Duration,
    /// Once it has sent one; none: it keeps its place.
    pub(super) heard: Option<Duration>,
}

/// A fixed number of places.
#[derive(Debug)]
pub(super) struct Places {
    limit: usize,
    /// Maximum number of places of one network; 0: no limit.
    per_network: u32,
    kept_for: KeptFor,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    /// The number of the next place; places with lower numbers are held longer.
    next: u64,
    holders: BTreeMap<u64, Holder>,
    networks: HashMap<IpAddr, u32>,
}

#[derive(Debug)]
struct Holder {
    network: Option<IpAddr>,
    since: Instant,
    /// True once it has sent a request.
    heard: bool,
    leave: CancellationToken,
}

/// A held place. Dropping it releases the place.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    number: AtomicU64,
    leave: CancellationToken,
}

impl Places {
    pub(super) fn new(limit: usize, per_network: u32, kept_for: KeptFor) -> Arc<Self> {
        Arc::new(Self { limit: limit.max(1), per_network, kept_for, held: Mutex::default() })
    }

    /// The number of places.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// The number of held places.
    pub(super) fn held(&self) -> usize {
        self.lock().holders.len()
    }

    /// Takes a place, if necessary from another socket.
    pub(super) fn take(self: &Arc<Self>, network: Option<IpAddr>) -> Result<Place, NoPlace> {
        let held = &mut *self.lock();
        if network.is_some_and(|network| self.is_full(held, network)) {
            return Err(NoPlace::NetworkFull);
        }
        if held.holders.len() >= self.limit {
            let out = held.to_displace(self.kept_for).ok_or(NoPlace::Full)?;
            held.remove(out).leave.cancel();
        }
        let leave = CancellationToken::new();
        let number = held.insert(Holder { network, since: Instant::now(), heard: false, leave: leave.clone() });
        Ok(Place { places: Arc::clone(self), number: AtomicU64::new(number), leave })
    }

    fn is_full(&self, held: &Held, network: IpAddr) -> bool {
        self.per_network > 0 && held.networks.get(&network).is_some_and(|count| *count >= self.per_network)
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn insert(&mut self, holder: Holder) -> u64 {
        let number = self.next;
        self.next += 1;
        if let Some(network) = holder.network {
            *self.networks.entry(network).or_default() += 1;
        }
        self.holders.insert(number, holder);
        number
    }

    /// Removes a holder. One that was removed before yields a holder that nobody waits for.
    fn remove(&mut self, number: u64) -> Holder {
        let Some(holder) = self.holders.remove(&number) else {
            return Holder { network: None, since: Instant::now(), heard: false, leave: CancellationToken::new() };
        };
        if let Some(network) = holder.network
            && let Some(count) = self.networks.get_mut(&network)
        {
            *count -= 1;
            if *count == 0 {
                self.networks.remove(&network);
            }
        }
        holder
    }

    /// The holder that loses its place to a newcomer. Holders without a known network count as one network.
    fn to_displace(&self, kept_for: KeptFor) -> Option<u64> {
        let known: usize = self.networks.values().map(|count| *count as usize).sum();
        let unknown = self.holders.len() - known;
        let most = self.networks.iter().max_by_key(|(_, count)| **count);
        let network = most.filter(|(_, count)| **count as usize >= unknown).map(|(network, _)| *network);
        let oldest = |heard: bool, kept_for: Duration| {
            let mut holders = self.holders.iter();
            let (number, holder) = holders.find(|(_, holder)| holder.network == network && holder.heard == heard)?;
            (holder.since.elapsed() >= kept_for).then_some(*number)
        };
        oldest(false, kept_for.silent).or_else(|| oldest(true, kept_for.heard?))
    }
}

impl Place {
    /// Cancelled when the place is given to another socket; this one must then close.
    pub(super) fn leave(&self) -> &CancellationToken {
        &self.leave
    }

    /// Records that the socket has sent a request.
    pub(super) fn hear(&self) {
        let number = self.number.load(Ordering::Relaxed);
        if let Some(holder) = self.places.lock().holders.get_mut(&number) {
            holder.heard = true;
        }
    }

    /// Records a request, and makes this the place that was taken last.
    pub(super) fn renew(&self) {
        let held = &mut *self.places.lock();
        let number = self.number.load(Ordering::Relaxed);
        if held.holders.contains_key(&number) {
            let holder = held.remove(number);
            self.number.store(held.insert(Holder { since: Instant::now(), heard: true, ..holder }), Ordering::Relaxed);
        }
    }

    /// Counts the place for the network of the client, which a proxy has named.
    pub(super) fn set_network(&self, network: IpAddr) -> Result<(), NoPlace> {
        let held = &mut *self.places.lock();
        let number = self.number.load(Ordering::Relaxed);
        let Some(holder) = held.holders.get_mut(&number).filter(|holder| holder.network.is_none()) else {
            return Ok(());
        };
        holder.network = Some(network);
        let full = self.places.is_full(held, network);
        *held.networks.entry(network).or_default() += 1;
        if full { Err(NoPlace::NetworkFull) } else { Ok(()) }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.lock().remove(self.number.load(Ordering::Relaxed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOT_KEPT: KeptFor = KeptFor { silent: Duration::ZERO, heard: Some(Duration::ZERO) };

    fn ip(last: u8) -> Option<IpAddr> {
        Some(IpAddr::from([192, 0, 2, last]))
    }

    #[test]
    fn a_crowd_of_one_address_displaces_only_itself() {
        let places = Places::new(4, 0, NOT_KEPT);
        let one = places.take(ip(1)).unwrap();
        let crowd: Vec<_> = (0..3).map(|_| places.take(ip(2)).unwrap()).collect();
        let more = places.take(ip(2)).unwrap();
        let other = places.take(ip(3)).unwrap();
        let left = |place: &Place| place.leave().is_cancelled();
        assert_eq!(crowd.iter().map(left).collect::<Vec<_>>(), [true, true, false]);
        assert!(!left(&one) && !left(&more) && !left(&other));
        assert_eq!(places.held(), 4);
        drop(crowd);
        assert_eq!(places.held(), 3, "a displaced place is not released twice");
        drop((one, more, other));
        assert!(places.lock().networks.is_empty());
    }

    #[test]
    fn a_young_place_is_not_given_away() {
        let kept_for = Duration::from_secs(60);
        let places = Places::new(1, 0, KeptFor { silent: kept_for, heard: Some(kept_for) });
        let held = places.take(None).unwrap();
        assert_eq!(places.take(None).unwrap_err(), NoPlace::Full);
        held.hear();
        assert_eq!(places.take(None).unwrap_err(), NoPlace::Full);
    }

    #[test]
    fn only_a_socket_that_stays_silent_loses_its_place() {
        const SILENCE_ALLOWED: Duration = Duration::from_millis(250);
        let places = Places::new(2, 0, KeptFor { silent: SILENCE_ALLOWED, heard: None });
        let (heard, silent) = (places.take(None).unwrap(), places.take(None).unwrap());
        heard.hear();
        assert_eq!(places.take(None).unwrap_err(), NoPlace::Full, "the silent socket is new");
        std::thread::sleep(SILENCE_ALLOWED);
        let late = places.take(None).unwrap();
        assert!(silent.leave().is_cancelled() && !heard.leave().is_cancelled());
        drop(silent);
        assert_eq!(places.held(), 2, "its place went to the new socket");
        late.hear();
        std::thread::sleep(SILENCE_ALLOWED);
        assert_eq!(places.take(None).unwrap_err(), NoPlace::Full, "both have sent a request");
        drop((heard, late));
        assert_eq!(places.held(), 0);
    }

    #[test]
    fn a_silent_socket_loses_its_place_before_an_older_one_with_a_request() {
        let places = Places::new(2, 0, NOT_KEPT);
        let (heard, silent) = (places.take(None).unwrap(), places.take(None).unwrap());
        heard.hear();
        let last = places.take(None).unwrap();
        assert!(silent.leave().is_cancelled() && !heard.leave().is_cancelled());
        last.hear();
        let _newcomer = places.take(None).unwrap();
        assert!(heard.leave().is_cancelled() && !last.leave().is_cancelled());
    }

    #[test]
    fn a_renewed_place_is_the_youngest() {
        let places = Places::new(2, 0, NOT_KEPT);
        let (first, second) = (places.take(None).unwrap(), places.take(None).unwrap());
        first.renew();
        let _third = places.take(None).unwrap();
        assert!(!first.leave().is_cancelled() && second.leave().is_cancelled());
        second.renew();
        assert_eq!(places.held(), 2);
    }

    #[test]
    fn places_of_one_network_are_bounded_also_behind_a_proxy() {
        let places = Places::new(10, 2, NOT_KEPT);
        let _held = [places.take(ip(1)).unwrap(), places.take(ip(1)).unwrap()];
        assert_eq!(places.take(ip(1)).unwrap_err(), NoPlace::NetworkFull);
        let proxied = places.take(None).unwrap();
        assert_eq!(proxied.set_network(ip(1).unwrap()), Err(NoPlace::NetworkFull));
        drop(proxied);
        let proxied = places.take(None).unwrap();
        assert_eq!(proxied.set_network(ip(2).unwrap()), Ok(()));
        assert!(places.take(ip(2)).is_ok());
    }
}
