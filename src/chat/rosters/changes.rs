//! The queue of arrivals and departures that need a roster update.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::mpsc;

use crate::{
    dialect::{Dialect, RosterPolicy},
    hub::Hub,
    metrics::Metrics,
    model::{ConnectionId, Ephemeral, EphemeralEvent, Event, LogId},
};

/// Changes that may wait one by one. Beyond this only the newest one of each conversation waits: its roster names everybody.
const QUEUE: usize = 1_000;

/// An arrival or departure, and the socket that caused it.
pub(in crate::chat) type RosterChange = (Arc<EphemeralEvent>, Option<ConnectionId>);

/// The newest change of each conversation with changes for which the queue had no room.
#[derive(Default)]
struct Overdue(Mutex<HashMap<LogId, RosterChange>>);

impl Overdue {
    fn lock(&self) -> MutexGuard<'_, HashMap<LogId, RosterChange>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Queues the arrivals and departures in logs that have a listener whose dialect names all listeners.
pub(in crate::chat) struct RosterChanges {
    hub: Arc<Hub>,
    metrics: Arc<Metrics>,
    queue: mpsc::Sender<RosterChange>,
    overdue: Arc<Overdue>,
}

/// The waiting changes.
pub(in crate::chat) struct RosterQueue {
    queue: mpsc::Receiver<RosterChange>,
    overdue: Arc<Overdue>,
}

impl RosterChanges {
    /// The queue is for [`Rosters`](super::Rosters).
    pub(in crate::chat) fn new(hub: Arc<Hub>, metrics: Arc<Metrics>) -> (Self, RosterQueue) {
        let ((sender, queue), overdue) = (mpsc::channel(QUEUE), Arc::<Overdue>::default());
        (Self { hub, metrics, queue: sender, overdue: overdue.clone() }, RosterQueue { queue, overdue })
    }

    /// Queues the arrivals and departures among these events.
    pub(in crate::chat) fn observe(&self, events: &[Event]) {
        for event in events {
            let Event::Ephemeral { ephemeral, origin } = event else { continue };
            let concerns = matches!(ephemeral.what, Ephemeral::Listening { .. })
                && self.hub.has_listener(&ephemeral.log, names_listeners);
            if concerns {
                self.queue((ephemeral.clone(), *origin));
            }
        }
    }

    fn queue(&self, change: RosterChange) {
        // Held until the change waits in one of the two places, so that the receiver does not miss it between its looks.
        let mut overdue = self.overdue.lock();
        if let Some(newest) = overdue.get_mut(&change.0.log) {
            *newest = change;
        } else if let Err(full) = self.queue.try_send(change) {
            let change = full.into_inner();
            overdue.insert(change.0.log.clone(), change);
        } else {
            return;
        }
        self.metrics.audiences_dropped.inc();
    }
}

impl RosterQueue {
    /// Waits for the next change; `None` once the node stops. Cancel-safe.
    pub(super) async fn next(&mut self) -> Option<RosterChange> {
        if let Ok(change) = self.queue.try_recv() {
            return Some(change);
        }
        let overdue = {
            let mut overdue = self.overdue.lock();
            let log = overdue.keys().next().cloned();
            log.and_then(|log| overdue.remove(&log))
        };
        match overdue {
            Some(change) => Some(change),
            None => self.queue.recv().await,
        }
    }
}

fn names_listeners(dialect: Dialect) -> bool {
    dialect.greets_with() == RosterPolicy::Listeners
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        hub::{Source, SourceFailed, Wanted},
        model::{Clock, Entry, Timestamp, UserId},
        supervise::Supervisor,
    };

    struct Nothing;

    #[async_trait::async_trait]
    impl Source for Nothing {
        async fn after(&self, _: Wanted<'_>) -> Result<Vec<Entry>, SourceFailed> {
            Ok(Vec::new())
        }
    }

    fn change(log: &str, number: usize) -> RosterChange {
        let user = UserId::parse(&format!("u{number}")).unwrap();
        let what = Ephemeral::Listening { user, name: "User".into(), active: true };
        let log = LogId::parse(log).unwrap();
        (Arc::new(EphemeralEvent { log, at: Timestamp::from_seconds(1), what }), None)
    }

    fn name((event, _): &RosterChange) -> String {
        let Ephemeral::Listening { user, .. } = &event.what else { panic!("{event:?}") };
        format!("{} {user}", event.log)
    }

    #[tokio::test]
    async fn beyond_the_bound_the_newest_change_of_each_conversation_waits() {
        let metrics = Arc::new(Metrics::new().unwrap());
        let (m, supervisor) = (metrics.clone(), Supervisor::new(metrics.clone()));
        let hub = Hub::start(1, Arc::new(Nothing), m.clone(), Clock::system(), supervisor.clone());
        let (changes, mut queue) = RosterChanges::new(hub, m);
        (0..QUEUE).for_each(|number| changes.queue(change("team", number)));
        for (log, number) in [("team", 2_000), ("den", 2_001), ("team", 2_002), ("den", 2_003)] {
            changes.queue(change(log, number));
        }
        assert_eq!(metrics.audiences_dropped.get(), 4);
        assert_eq!(name(&queue.next().await.unwrap()), "team u0");
        // There is room again, and a later change of the same conversation still replaces the one that waits.
        changes.queue(change("team", 2_004));
        changes.queue(change("hall", 2_005));
        for number in 1..QUEUE {
            assert_eq!(name(&queue.next().await.unwrap()), format!("team u{number}"));
        }
        assert_eq!(name(&queue.next().await.unwrap()), "hall u2005");
        let mut last = [name(&queue.next().await.unwrap()), name(&queue.next().await.unwrap())];
        last.sort();
        assert_eq!(last, ["den u2003", "team u2004"]);
        supervisor.stop().cancel();
    }
}
