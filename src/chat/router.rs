//! The one way that an event takes, wherever it comes from: past those who take note of it, to this node's hub, and to
//! the other nodes.

use std::sync::Arc;

use super::{members::Members, notifications::unread::Unread, relay::growth::Growth, rosters::news::RosterNews};
use crate::{
    backplane::Backplane,
    hub::Hub,
    model::{Clock, ConnectionId, Entry, Ephemeral, EphemeralEvent, Event, LogId},
};

/// Where events come from, which says where they go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// The writer committed these entries: they go to this node's hub and to other nodes.
    Committed,
    /// They came into being on this node, outside the writer: they go the same way.
    Local,
    /// Another node published them: they go to this node's hub.
    Remote,
    /// This node's listeners know already: they go to other nodes alone.
    ElsewhereOnly,
    /// Every node finds them out by itself: they go to this node's hub alone.
    HereOnly,
}

impl Origin {
    fn goes_here(self) -> bool {
        self != Self::ElsewhereOnly
    }

    fn goes_elsewhere(self) -> bool {
        matches!(self, Self::Committed | Self::Local | Self::ElsewhereOnly)
    }
}

/// Those who take note of events on their way. To add one, add it here and to [`Router::observe`].
pub(super) struct Observers {
    /// Forgets memberships that ended.
    pub(super) members: Arc<Members>,
    /// Gathers messages of which members who are away are to be notified.
    pub(super) unread: Arc<Unread>,
    /// Has rosters told anew.
    pub(super) rosters: RosterNews,
    /// Gathers which logs grew, while nodes are told through the store.
    pub(super) growth: Arc<Growth>,
}

/// The way to whoever listens, on all nodes.
pub(super) struct Router {
    hub: Arc<Hub>,
    backplane: Arc<Backplane>,
    clock: Clock,
    observers: Observers,
}

impl Router {
    pub(super) fn new(hub: Arc<Hub>, backplane: Arc<Backplane>, clock: Clock, observers: Observers) -> Self {
        Self { hub, backplane, clock, observers }
    }

    /// Sends events where their origin says.
    pub(super) fn dispatch(&self, events: Vec<Event>, origin: Origin) {
        if events.is_empty() {
            return;
        }
        self.observe(&events, origin);
        match (origin.goes_here(), origin.goes_elsewhere()) {
            (true, true) => {
                self.hub.apply(events.clone());
                self.backplane.publish(events);
            }
            (true, false) => self.hub.apply(events),
            (false, _) => self.backplane.publish(events),
        }
    }

    /// How many operations wait to be delivered to this node's sockets.
    pub(super) fn undelivered(&self) -> usize {
        self.hub.queued()
    }

    /// Who takes note of what, before anybody is told.
    fn observe(&self, events: &[Event], origin: Origin) {
        let Observers { members, unread, rosters, growth } = &self.observers;
        match origin {
            Origin::Committed => {
                unread.note(events);
                members.forget_removed(events);
                growth.note(events);
            }
            Origin::Local => {
                rosters.note(events);
                growth.note(events);
            }
            Origin::Remote => {
                members.forget_removed(events);
                rosters.note(events);
            }
            Origin::ElsewhereOnly | Origin::HereOnly => {}
        }
    }

    /// Tells a log's audience, on all nodes, what just happened.
    pub(super) fn tell(&self, log: &LogId, by: Option<ConnectionId>, what: impl IntoIterator<Item = Ephemeral>) {
        self.dispatch(self.ephemerals(log, by, what), Origin::Local);
    }

    /// Tells a log's audience on other nodes alone.
    pub(super) fn tell_elsewhere(&self, log: &LogId, what: impl IntoIterator<Item = Ephemeral>) {
        self.dispatch(self.ephemerals(log, None, what), Origin::ElsewhereOnly);
    }

    /// Sends entries that the store made by itself, beside the writer's lanes.
    pub(super) fn send_entries(&self, entries: Vec<Entry>) {
        let event = |entry| Event::Entry { entry: Arc::new(entry), origin: None };
        self.dispatch(entries.into_iter().map(event).collect(), Origin::Local);
    }

    fn ephemerals(
        &self,
        log: &LogId,
        by: Option<ConnectionId>,
        what: impl IntoIterator<Item = Ephemeral>,
    ) -> Vec<Event> {
        let at = self.clock.now();
        let ephemeral = |what| Arc::new(EphemeralEvent { log: log.clone(), at, what });
        what.into_iter().map(|what| Event::Ephemeral { ephemeral: ephemeral(what), origin: by }).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use async_trait::async_trait;
    use tokio_util::{sync::CancellationToken, task::TaskTracker};

    use super::*;
    use crate::{
        backplane::Settings,
        degrade::{Degrade, LinkState},
        hub::{Source, SourceFailed},
        metrics::Metrics,
        model::{Body, NodeId, Seq, Timestamp, UserId},
        store::Sqlite,
    };

    struct Nothing;

    #[async_trait]
    impl Source for Nothing {
        async fn after(&self, _: &LogId, _: Seq) -> Result<Vec<Entry>, SourceFailed> {
            Ok(Vec::new())
        }
    }

    fn message(log: &LogId, seq: Seq) -> Event {
        let body =
            Body::Message { content: "hi".into(), reply_to: None, is_ai: false, edited_at: None, deleted: false };
        let sender = UserId::parse("alice").unwrap();
        let (log, sender_name, at) = (log.clone(), "Alice".into(), Timestamp::from_seconds(1));
        let entry = Entry { log, seq, message_no: seq, sender, sender_name, client_id: None, at, body };
        Event::Entry { entry: Arc::new(entry), origin: None }
    }

    #[tokio::test]
    async fn where_events_come_from_says_where_they_go_and_who_takes_note() {
        let (metrics, degrade) = (Arc::new(Metrics::new().unwrap()), Arc::new(Degrade::new(LinkState::Off)));
        let (clock, tasks, stop) = (Clock::system(), TaskTracker::new(), CancellationToken::new());
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Sqlite::open(&folder.path().join("store.db"), metrics.clone()).unwrap());
        let (m, c) = (metrics.clone(), clock.clone());
        let hub = Hub::start(1, Arc::new(Nothing), m, c, tasks.clone(), stop.clone());
        let settings = Settings {
            redis: None,
            node: NodeId::parse("n").unwrap(),
            lease: Duration::from_secs(15),
            presence_grace: Duration::from_secs(5),
            cache_ttl: Duration::ZERO,
            window: Duration::from_secs(60),
            connections_per_user: 5,
            sockets_per_user: 100,
        };
        let (d, m, c) = (degrade.clone(), metrics.clone(), clock.clone());
        let (backplane, _notices) = Backplane::start(settings, d, m, c, &tasks, stop.clone()).await.unwrap();
        let (rosters, _comings) = RosterNews::new(hub.clone(), metrics.clone());
        let observers = Observers {
            members: Arc::new(Members::new(store, degrade.clone())),
            unread: Arc::new(Unread::new(10, metrics.clone())),
            rosters,
            growth: Arc::new(Growth::new(degrade)),
        };
        let router = Router::new(hub.clone(), backplane, clock, observers);
        let cases = [
            (Origin::Committed, true, true),
            (Origin::Local, true, false),
            (Origin::Remote, true, false),
            (Origin::HereOnly, true, false),
            (Origin::ElsewhereOnly, false, false),
        ];
        for (origin, here, notified) in cases {
            let log = LogId::parse(&format!("{origin:?}")).unwrap();
            let _opened = hub.follow(&log);
            hub.base(&log, 0);
            let before = metrics.notification_queue.get();
            router.dispatch(vec![message(&log, 1)], origin);
            assert_eq!(hub.last(&log), Some(Seq::from(here)), "{origin:?}");
            assert_eq!(metrics.notification_queue.get() - before, i64::from(notified), "{origin:?}");
        }
        stop.cancel();
    }
}
