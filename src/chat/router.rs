//! The path of every event: through the observers, to this node's hub, and to the other nodes.

use std::sync::Arc;

use super::{
    hints::grown::Grown,
    notifications::unread::Unread,
    relay::growth::Growth,
    rosters::changes::RosterChanges,
    search_index::GrownLogs,
    shown::Shown,
    speakers::Speakers,
    typists::{Change, Typists},
};
use crate::{
    backplane::Backplane,
    hub::Hub,
    model::{Clock, ConnectionId, Entry, Ephemeral, EphemeralEvent, Event, LogId, UserId},
    supervise::{Supervisor, TaskName, checkpoint},
};

/// The origin of events, which determines their destinations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// The writer committed these entries. They go to this node's hub and to the other nodes.
    Committed,
    /// This node created them outside the writer. They go to this node's hub and to the other nodes.
    Local,
    /// Another node published them. They go to this node's hub only.
    Remote,
    /// This node's listeners have them already. They go to the other nodes only.
    ElsewhereOnly,
    /// Every node creates them itself. They go to this node's hub only.
    HereOnly,
}

impl Origin {
    fn goes_here(self) -> bool {
        self != Self::ElsewhereOnly
    }

    /// True for messages, which end their senders' typing, and for what other nodes tell. This node's own typing is
    /// recorded before its events are sent.
    fn changes_typing(self) -> bool {
        matches!(self, Self::Committed | Self::Remote)
    }

    /// True for what is told about users, who may be connected here.
    fn tells_of_users(self) -> bool {
        matches!(self, Self::Local | Self::Remote)
    }

    fn goes_elsewhere(self) -> bool {
        matches!(self, Self::Committed | Self::Local | Self::ElsewhereOnly)
    }
}

/// The observers of events. To add one, add it here and to [`Router::observe`].
pub(super) struct Observers {
    /// Queues messages whose away members must be notified.
    pub(super) unread: Arc<Unread>,
    /// Queues roster updates.
    pub(super) rosters: RosterChanges,
    /// Records the logs that grew, while nodes relay through the store.
    pub(super) growth: Arc<Growth>,
    /// Records what this node's listeners are told about presence.
    pub(super) shown: Arc<Shown>,
    /// Records who types.
    pub(super) typists: Arc<Typists>,
    /// Queues logs with new messages for the search index.
    pub(super) grown_logs: Arc<GrownLogs>,
    /// Queues conversations with new messages for hints.
    pub(super) grown: Arc<Grown>,
    /// Forgets removed members who could send events.
    pub(super) speakers: Arc<Speakers>,
}

/// Routes events to the listeners on all nodes.
pub(super) struct Router {
    hub: Arc<Hub>,
    backplane: Arc<Backplane>,
    clock: Clock,
    observers: Observers,
    supervisor: Supervisor,
}

impl Router {
    pub(super) fn new(
        hub: Arc<Hub>,
        backplane: Arc<Backplane>,
        clock: Clock,
        observers: Observers,
        supervisor: Supervisor,
    ) -> Self {
        Self { hub, backplane, clock, observers, supervisor }
    }

    /// Sends events to the destinations of their origin.
    pub(super) fn dispatch(&self, events: Vec<Event>, origin: Origin) {
        if events.is_empty() {
            return;
        }
        // A panic of one step must not keep the events from the others.
        let step = |work: &mut dyn FnMut()| {
            let _panicked = self.supervisor.catch(TaskName::Router, work);
        };
        let told_gone = if origin.tells_of_users() { told_gone(&events) } else { Vec::new() };
        let typists = &self.observers.typists;
        // Held to the end, so that listeners are told about typing in the order in which it changed.
        let turn = origin.changes_typing().then(|| typists.turns(&events)).flatten();
        let mut changes = Vec::new();
        step(&mut || self.observe(&events, origin));
        if let Some(turn) = &turn {
            step(&mut || changes = typists.observe(turn, &events));
        }
        let elsewhere = origin.goes_elsewhere().then(|| events.clone());
        if origin.goes_here() {
            let mut events = Some(events);
            step(&mut || {
                checkpoint(TaskName::Router, || format!("{events:?}"));
                self.deliver(events.take().unwrap_or_default());
            });
        }
        if let Some(mut events) = elsewhere {
            step(&mut || self.backplane.publish(std::mem::take(&mut events)));
        }
        changes.into_iter().for_each(|change| self.tell_typing(change));
        told_gone.iter().for_each(|user| self.backplane.note_told_gone(user));
    }

    fn tell_typing(&self, change: Change) {
        match change {
            Change::Stopped((conversation, user), name, source) => {
                let what = Ephemeral::Typing { user, name, active: false };
                self.send_ephemeral_here(&LogId::from(&conversation), source, [what]);
            }
            Change::StillTypes((conversation, user), name, source) => {
                let what = Ephemeral::Typing { user, name, active: true };
                self.send_ephemeral(&LogId::from(&conversation), source, [what]);
            }
        }
    }

    /// Delivers events to this node's listeners, without departures that they were told before.
    fn deliver(&self, mut events: Vec<Event>) {
        events.retain(|event| self.observers.shown.tells(event));
        self.hub.apply(events);
    }

    /// The number of operations that wait for delivery to this node's sockets.
    pub(super) fn undelivered(&self) -> usize {
        self.hub.queued()
    }

    /// Passes events to the observers of this origin, before any listener receives them.
    fn observe(&self, events: &[Event], origin: Origin) {
        let Observers { unread, rosters, growth, shown, typists: _, grown_logs, grown, speakers } = &self.observers;
        match origin {
            Origin::Committed => {
                unread.observe(events);
                growth.observe(events);
                grown_logs.observe(events);
                grown.observe(events);
                speakers.observe(events);
            }
            Origin::Local => {
                shown.observe(events);
                rosters.observe(events);
                growth.observe(events);
            }
            Origin::Remote => {
                shown.observe(events);
                rosters.observe(events);
                speakers.observe(events);
            }
            Origin::ElsewhereOnly | Origin::HereOnly => {}
        }
    }

    /// Sends ephemeral events to the listeners of a log, on all nodes. `by` is the socket that caused them.
    pub(super) fn send_ephemeral(
        &self,
        log: &LogId,
        by: Option<ConnectionId>,
        what: impl IntoIterator<Item = Ephemeral>,
    ) {
        self.dispatch(self.ephemeral_events(log, by, what), Origin::Local);
    }

    /// Sends ephemeral events to the listeners of a log on this node only, because every node creates them itself.
    pub(super) fn send_ephemeral_here(
        &self,
        log: &LogId,
        by: Option<ConnectionId>,
        what: impl IntoIterator<Item = Ephemeral>,
    ) {
        self.dispatch(self.ephemeral_events(log, by, what), Origin::HereOnly);
    }

    /// Sends ephemeral events to the listeners of a log on other nodes only.
    pub(super) fn send_ephemeral_elsewhere(&self, log: &LogId, what: impl IntoIterator<Item = Ephemeral>) {
        self.dispatch(self.ephemeral_events(log, None, what), Origin::ElsewhereOnly);
    }

    /// Sends entries that the store created itself, outside the writer's lanes.
    pub(super) fn send_entries(&self, entries: Vec<Entry>) {
        let event = |entry| Event::Entry { entry: Arc::new(entry), origin: None };
        self.dispatch(entries.into_iter().map(event).collect(), Origin::Local);
    }

    fn ephemeral_events(
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

/// The users who are told to be offline.
fn told_gone(events: &[Event]) -> Vec<UserId> {
    let gone = events.iter().filter_map(|event| match event {
        Event::Ephemeral { ephemeral, .. } => match &ephemeral.what {
            Ephemeral::Presence { user, online: false, .. } => Some(user.clone()),
            _ => None,
        },
        Event::Entry { .. } => None,
    });
    gone.collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use async_trait::async_trait;

    use super::*;
    use crate::{
        backplane::Settings,
        degrade::{Degrade, LinkState},
        hub::{Source, SourceFailed, Wanted},
        metrics::Metrics,
        model::{Body, NodeId, Seq, Timestamp, UserId},
    };

    struct Nothing;

    #[async_trait]
    impl Source for Nothing {
        async fn after(&self, _: Wanted<'_>) -> Result<Vec<Entry>, SourceFailed> {
            Ok(Vec::new())
        }
    }

    fn message(log: &LogId, seq: Seq) -> Event {
        let body = Body::message("hi");
        let sender = UserId::parse("alice").unwrap();
        let (log, sender_name, at) = (log.clone(), "Alice".into(), Timestamp::from_seconds(1));
        let entry = Entry { log, seq, message_no: seq, sender, sender_name, client_id: None, at, body };
        Event::Entry { entry: Arc::new(entry), origin: None }
    }

    #[tokio::test]
    async fn each_origin_selects_destinations_and_observers() {
        let (metrics, degrade) = (Arc::new(Metrics::new().unwrap()), Arc::new(Degrade::new(LinkState::Off)));
        let (clock, supervisor) = (Clock::system(), Supervisor::new(metrics.clone()));
        let (m, c) = (metrics.clone(), clock.clone());
        let hub = Hub::start(1, Arc::new(Nothing), m, c, supervisor.clone());
        let settings = Settings {
            redis: None,
            node: NodeId::parse("n").unwrap(),
            lease: Duration::from_secs(15),
            presence_grace: Duration::from_secs(5),
            cache_ttl: Duration::ZERO,
            presence_cache: 0,
            window: Duration::from_secs(60),
            connections_per_user: 5,
            sockets_per_user: 100,
        };
        let (d, m, c) = (degrade.clone(), metrics.clone(), clock.clone());
        let (backplane, _notices) = Backplane::start(settings, d, m, c, &supervisor).await.unwrap();
        let (rosters, _roster_changes) = RosterChanges::new(hub.clone(), metrics.clone());
        let observers = Observers {
            unread: Arc::new(Unread::new(10, metrics.clone())),
            rosters,
            growth: Arc::new(Growth::new(degrade)),
            shown: Arc::new(Shown::new(Duration::ZERO, metrics.clone()).0),
            typists: Arc::new(Typists::new(Duration::from_secs(5))),
            grown_logs: Arc::default(),
            grown: Arc::new(Grown::new(metrics.clone())),
            speakers: Arc::default(),
        };
        let router = Router::new(hub.clone(), backplane, clock, observers, supervisor.clone());
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
            hub.set_base(&log, 0, None);
            let before = metrics.notification_queue.get();
            router.dispatch(vec![message(&log, 1)], origin);
            assert_eq!(hub.last(&log), Some(Seq::from(here)), "{origin:?}");
            assert_eq!(metrics.notification_queue.get() - before, i64::from(notified), "{origin:?}");
        }
        supervisor.stop().cancel();
    }
}
