//! The queue of arrivals and departures that need a roster update.

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::{
    dialect::{Dialect, RosterPolicy},
    hub::Hub,
    metrics::Metrics,
    model::{ConnectionId, Ephemeral, EphemeralEvent, Event},
};

/// Changes that may wait. Beyond this they are dropped, like other ephemeral events.
const QUEUE: usize = 1_000;

/// An arrival or departure, and the socket that caused it.
pub(in crate::chat) type RosterChange = (Arc<EphemeralEvent>, Option<ConnectionId>);

/// Queues the arrivals and departures in logs that have a listener whose dialect names all listeners.
pub(in crate::chat) struct RosterChanges {
    hub: Arc<Hub>,
    metrics: Arc<Metrics>,
    queue: mpsc::Sender<RosterChange>,
}

impl RosterChanges {
    /// The receiver is for [`Rosters`](super::Rosters).
    pub(in crate::chat) fn new(hub: Arc<Hub>, metrics: Arc<Metrics>) -> (Self, mpsc::Receiver<RosterChange>) {
        let (queue, changes) = mpsc::channel(QUEUE);
        (Self { hub, metrics, queue }, changes)
    }

    /// Queues the arrivals and departures among these events.
    pub(in crate::chat) fn observe(&self, events: &[Event]) {
        for event in events {
            let Event::Ephemeral { ephemeral, origin } = event else { continue };
            let concerns = matches!(ephemeral.what, Ephemeral::Listening { .. })
                && self.hub.has_listener(&ephemeral.log, names_listeners);
            if concerns && self.queue.try_send((ephemeral.clone(), *origin)).is_err() {
                self.metrics.audiences_dropped.inc();
            }
        }
    }
}

fn names_listeners(dialect: Dialect) -> bool {
    dialect.greets_with() == RosterPolicy::Listeners
}
