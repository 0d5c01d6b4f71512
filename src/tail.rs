//! The live tail: the newest connects, refusals and closes of this node, in memory, for the admin console.
//!
//! It is off, and costs nothing, unless the console is on. A full ring forgets its oldest event; readers are told how many
//! they missed.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    time::{Instant, timeout},
};

use crate::{
    config::ConsoleConfig,
    metrics::Metrics,
    model::{ConnectionId, Timestamp, TokenFlaw, UserId},
};

/// Maximum number of different origins that are told apart; further ones are shown as [`OTHER`].
const ORIGINS_MAX: usize = 256;
/// Maximum length of an origin and of a user agent that is kept, in characters. Clients choose both.
const TEXT_CHARS: usize = 200;
/// Time in which further events are awaited after the first: a busy node must not answer for each.
const GATHER: Duration = Duration::from_millis(250);
/// Shown instead of an origin beyond [`ORIGINS_MAX`].
const OTHER: &str = "(others)";

/// The kind of an event of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A WebSocket opened.
    Connect,
    /// A socket was refused.
    Refusal,
    /// A WebSocket closed.
    Close,
}

impl Kind {
    /// The name in the API.
    pub fn label(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Refusal => "refusal",
            Self::Close => "close",
        }
    }
}

/// The origin of the page that opened a socket, as its browser named it.
pub type Origin = Arc<str>;

/// The origin and the user agent that a client sent.
#[derive(Debug, Clone, Default)]
pub struct ClientInfo {
    /// The `Origin` header.
    pub origin: Option<Origin>,
    /// The `User-Agent` header.
    pub agent: Option<Box<str>>,
}

/// A connect, a refusal or a close.
#[derive(Debug, Clone)]
pub struct Event {
    /// The kind of the event.
    pub kind: Kind,
    /// Why; "open" for a connect. The label in metrics.
    pub reason: &'static str,
    /// The flaw of the token, if that is why.
    pub flaw: Option<TokenFlaw>,
    /// The client.
    pub client: ClientInfo,
    /// The client's address.
    pub address: Option<IpAddr>,
    /// The label of the dialect.
    pub dialect: Option<&'static str>,
    /// The user, if the token proved one.
    pub user: Option<UserId>,
    /// The connection.
    pub connection: Option<ConnectionId>,
    /// The time.
    pub at: Timestamp,
}

/// Events after a position, oldest first.
#[derive(Debug, Default)]
pub struct Page {
    /// The events, each with its number.
    pub events: Vec<(u64, Event)>,
    /// Number of the newest event, from which a reader goes on.
    pub next: u64,
    /// Number of events after the reader's position that were forgotten or left out.
    pub lost: u64,
}

/// The number of events of one kind, reason and origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// The kind.
    pub kind: Kind,
    /// The reason.
    pub reason: &'static str,
    /// The origin, if clients named one.
    pub origin: Option<Origin>,
    /// The number of the kept events in it.
    pub count: u64,
    /// Time of the newest one.
    pub last: Timestamp,
}

/// The kind, the reason and the origin that the events of a group share.
type GroupKey = (Kind, &'static str, Option<Origin>);

#[derive(Debug, Default)]
struct Ring {
    events: VecDeque<Event>,
    /// Number of events ever recorded: the number of the newest one.
    recorded: u64,
    /// The number of the kept events of each group, and the time of the newest. Counted as they come, because readers must
    /// not hold up the sockets that write.
    groups: HashMap<GroupKey, (u64, Timestamp)>,
}

impl Ring {
    fn push(&mut self, event: Event, kept: usize) {
        if self.events.len() >= kept
            && let Some(oldest) = self.events.pop_front()
        {
            let key = key_of(&oldest);
            let left = self.groups.get_mut(&key).map(|(count, _)| {
                *count -= 1;
                *count
            });
            if left == Some(0) {
                self.groups.remove(&key);
            }
        }
        let (count, last) = self.groups.entry(key_of(&event)).or_insert((0, event.at));
        (*count, *last) = (*count + 1, event.at.max(*last));
        self.events.push_back(event);
        self.recorded += 1;
    }
}

fn key_of(event: &Event) -> GroupKey {
    (event.kind, event.reason, event.client.origin.clone())
}

/// The tail of a node.
#[derive(Debug)]
pub struct Tail {
    /// Number of events that are kept; 0 if the console is off.
    kept: usize,
    ring: Mutex<Ring>,
    origins: Mutex<HashSet<Origin>>,
    recorded: watch::Sender<u64>,
    /// The maximum number of watchers, and those that wait, the oldest first.
    watchers_max: usize,
    watchers: Mutex<VecDeque<Watcher>>,
    metrics: Arc<Metrics>,
}

/// A request that waits for events.
#[derive(Debug)]
struct Watcher {
    since: Instant,
    /// Tells it to answer now, because another one needs its place.
    displaced: Arc<Notify>,
}

/// Time after which a watcher gives its place to a new one, if all are taken. Its client may be gone: a page that is loaded anew
/// leaves one behind.
const DISPLACED_AFTER: Duration = Duration::from_secs(2);

/// The maximum number of watchers wait already, and all began a moment ago.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooManyWatchers;

impl Tail {
    /// An empty tail; without a console it stays empty.
    pub fn new(console: Option<&ConsoleConfig>, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            kept: console.map_or(0, |console| console.tail_events),
            ring: Mutex::default(),
            origins: Mutex::default(),
            recorded: watch::Sender::new(0),
            watchers_max: console.map_or(0, |console| console.watchers),
            watchers: Mutex::default(),
            metrics,
        })
    }

    /// The client's origin and user agent, shortened; nothing if the console is off.
    pub fn client(&self, origin: Option<&str>, agent: Option<&str>) -> ClientInfo {
        if self.kept == 0 {
            return ClientInfo::default();
        }
        let agent = agent.map(|agent| shortened(agent).into());
        ClientInfo { origin: origin.map(|origin| self.origin(&shortened(origin))), agent }
    }

    /// The one copy of an origin that all its sockets share.
    fn origin(&self, text: &str) -> Origin {
        let mut origins = self.origins.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = origins.get(text) {
            return known.clone();
        }
        if origins.len() >= ORIGINS_MAX {
            // Those that no socket and no event uses any more make room.
            origins.retain(|origin| Arc::strong_count(origin) > 1);
        }
        let origin: Origin = if origins.len() >= ORIGINS_MAX { OTHER.into() } else { text.into() };
        origins.insert(origin.clone());
        origin
    }

    /// Keeps an event, unless the console is off.
    pub fn record(&self, event: impl FnOnce() -> Event) {
        if self.kept == 0 {
            return;
        }
        let event = event();
        let (recorded, kept) = {
            let ring = &mut *self.ring();
            ring.push(event, self.kept);
            (ring.recorded, ring.events.len())
        };
        self.metrics.console_events.set(i64::try_from(kept).unwrap_or(i64::MAX));
        self.recorded.send_replace(recorded);
    }

    /// The events after the one with the number `after`, the oldest `limit` of them; without a position, the newest.
    pub fn page(&self, after: Option<u64>, limit: usize) -> Page {
        let ring = self.ring();
        let first = ring.recorded - ring.events.len() as u64 + 1;
        // A number of the future is one of another run of the node.
        let after = after.filter(|after| *after <= ring.recorded);
        let newest = ring.recorded.saturating_sub(limit as u64) + 1;
        let from = after.map_or(newest.max(first), |after| (after + 1).max(first));
        let skip = usize::try_from(from - first).unwrap_or(usize::MAX);
        let events: Vec<_> = (from..).zip(ring.events.iter().skip(skip).take(limit).cloned()).collect();
        let next = events.last().map_or(ring.recorded, |(number, _)| *number);
        Page { events, next, lost: after.map_or(0, |after| from - after - 1) }
    }

    /// The same, but waits up to `most` until there is an event, and then a moment for more. If a newer watcher needs its place,
    /// it waits no longer.
    ///
    /// # Errors
    /// As many requests wait as may.
    pub async fn wait(&self, after: u64, limit: usize, most: Duration) -> Result<Page, TooManyWatchers> {
        let watching = self.take_place()?;
        let mut recorded = self.recorded.subscribe();
        let grown = timeout(most, recorded.wait_for(|recorded| *recorded != after));
        let grown = tokio::select! {
            grown = grown => grown.is_ok(),
            () = watching.displaced.notified() => false,
        };
        if grown {
            let full = after.saturating_add(limit as u64);
            let _gathered = timeout(GATHER.min(most), recorded.wait_for(|recorded| *recorded >= full)).await;
        }
        Ok(self.page(Some(after), limit))
    }

    /// Takes a place among the watchers, that of the oldest one if none is free.
    fn take_place(&self) -> Result<Watching<'_>, TooManyWatchers> {
        let mut watchers = self.watchers.lock().unwrap_or_else(PoisonError::into_inner);
        if watchers.len() >= self.watchers_max {
            let long = watchers.front().is_some_and(|oldest| oldest.since.elapsed() >= DISPLACED_AFTER);
            let oldest = if long { watchers.pop_front() } else { None };
            oldest.ok_or(TooManyWatchers)?.displaced.notify_one();
        }
        let displaced = Arc::new(Notify::new());
        watchers.push_back(Watcher { since: Instant::now(), displaced: displaced.clone() });
        self.metrics.console_watchers.set(i64::try_from(watchers.len()).unwrap_or(i64::MAX));
        Ok(Watching { tail: self, displaced })
    }

    /// The kept events by kind, reason and origin, the most frequent first, at most `limit` groups.
    pub fn groups(&self, limit: usize) -> Vec<Group> {
        let groups: Vec<_> = self.ring().groups.iter().map(|(key, counted)| (key.clone(), *counted)).collect();
        let group = |((kind, reason, origin), (count, last))| Group { kind, reason, origin, count, last };
        let mut groups: Vec<Group> = groups.into_iter().map(group).collect();
        groups.sort_by(|one, other| {
            let rest = |group: &Group| (group.kind, group.reason, group.origin.clone());
            other.count.cmp(&one.count).then_with(|| rest(one).cmp(&rest(other)))
        });
        groups.truncate(limit);
        groups
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place among the watchers, until it is dropped or given to another one.
struct Watching<'a> {
    tail: &'a Tail,
    displaced: Arc<Notify>,
}

impl Drop for Watching<'_> {
    fn drop(&mut self) {
        let mut watchers = self.tail.watchers.lock().unwrap_or_else(PoisonError::into_inner);
        watchers.retain(|watcher| !Arc::ptr_eq(&watcher.displaced, &self.displaced));
        self.tail.metrics.console_watchers.set(i64::try_from(watchers.len()).unwrap_or(i64::MAX));
    }
}

/// The beginning of a text.
fn shortened(text: &str) -> String {
    text.chars().take(TEXT_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    fn tail(tail_events: usize, watchers: usize) -> Arc<Tail> {
        let console = ConsoleConfig {
            token: Secret::new("x"),
            hosts: Vec::new(),
            guesses: 1,
            tail_events,
            watchers,
            deliveries: 1,
        };
        Tail::new(Some(&console), Arc::new(Metrics::new().unwrap()))
    }

    fn event(tail: &Tail, kind: Kind, origin: Option<&str>) -> Event {
        let client = tail.client(origin, Some("agent"));
        let at = Timestamp::from_seconds(7);
        Event {
            kind,
            reason: "open",
            flaw: None,
            client,
            address: None,
            dialect: None,
            user: None,
            connection: None,
            at,
        }
    }

    fn record(tail: &Tail, kind: Kind, origin: Option<&str>) {
        tail.record(|| event(tail, kind, origin));
    }

    fn numbers(page: &Page) -> Vec<u64> {
        page.events.iter().map(|(number, _)| *number).collect()
    }

    #[test]
    fn the_ring_forgets_its_oldest_events_and_says_how_many() {
        let tail = tail(3, 1);
        for _ in 0..5 {
            record(&tail, Kind::Connect, None);
        }
        assert_eq!(tail.metrics.console_events.get(), 3);
        let page = tail.page(Some(0), 10);
        assert_eq!((numbers(&page), page.next, page.lost), (vec![3, 4, 5], 5, 2));
        let page = tail.page(Some(3), 1);
        assert_eq!((numbers(&page), page.next, page.lost), (vec![4], 4, 0));
        let page = tail.page(None, 2);
        assert_eq!((numbers(&page), page.next, page.lost), (vec![4, 5], 5, 0));
        let page = tail.page(Some(99), 2);
        assert_eq!((numbers(&page), page.next, page.lost), (vec![4, 5], 5, 0), "a position of another run");
    }

    #[test]
    fn without_a_console_nothing_is_kept() {
        let tail = Tail::new(None, Arc::new(Metrics::new().unwrap()));
        tail.record(|| panic!("not even made"));
        assert!(tail.page(None, 10).events.is_empty());
        assert!(tail.client(Some("https://a.example"), Some("x")).origin.is_none());
    }

    #[test]
    fn events_are_grouped_and_origins_are_bounded_and_short() {
        let tail = tail(10_000, 1);
        for number in 0..ORIGINS_MAX + 50 {
            record(&tail, Kind::Refusal, Some(&format!("https://{number}.example")));
        }
        record(&tail, Kind::Close, None);
        let groups = tail.groups(1_000);
        assert_eq!(groups.len(), ORIGINS_MAX + 2);
        assert_eq!((groups[0].count, groups[0].origin.as_deref()), (50, Some(OTHER)));
        assert_eq!(tail.groups(3).len(), 3);
        let small = super::tests::tail(2, 1);
        for origin in ["https://a.example", "https://b.example", "https://b.example"] {
            record(&small, Kind::Refusal, Some(origin));
        }
        assert_eq!(small.groups(9).len(), 1, "what the ring forgot is not counted");
        assert_eq!(small.groups(9)[0].count, 2);
        let long = tail.client(None, Some(&"é".repeat(5_000))).agent.unwrap();
        assert_eq!(long.chars().count(), TEXT_CHARS);
    }

    #[tokio::test]
    async fn watchers_wake_with_the_next_event_and_are_bounded() {
        let tail = tail(3, 1);
        let watching = tokio::spawn({
            let tail = tail.clone();
            async move { tail.wait(0, 10, Duration::from_secs(60)).await.unwrap() }
        });
        while tail.metrics.console_watchers.get() == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(tail.wait(0, 10, Duration::from_secs(60)).await.unwrap_err(), TooManyWatchers);
        record(&tail, Kind::Connect, None);
        assert_eq!(numbers(&watching.await.unwrap()), [1]);
        assert_eq!(tail.metrics.console_watchers.get(), 0);
        assert_eq!(numbers(&tail.wait(0, 10, Duration::ZERO).await.unwrap()), [1], "no wait is needed");
        assert!(tail.wait(1, 10, Duration::ZERO).await.unwrap().events.is_empty(), "the wait is over");
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_watcher_gives_its_place_to_a_new_one() {
        let tail = tail(3, 2);
        let watch = || {
            let tail = tail.clone();
            tokio::spawn(async move { tail.wait(0, 10, Duration::from_secs(60)).await })
        };
        let (first, second) = (watch(), watch());
        tokio::time::sleep(DISPLACED_AFTER).await;
        let began = Instant::now();
        let third = watch();
        assert!(first.await.unwrap().unwrap().events.is_empty() && began.elapsed() < DISPLACED_AFTER);
        assert_eq!(tail.metrics.console_watchers.get(), 2);
        record(&tail, Kind::Connect, None);
        for watcher in [second, third] {
            assert_eq!(numbers(&watcher.await.unwrap().unwrap()), [1]);
        }
        assert_eq!(tail.metrics.console_watchers.get(), 0);
    }
}
