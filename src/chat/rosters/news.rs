//! Comings and goings that wait for their rosters.

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::{
    dialect::{Dialect, RosterPolicy},
    hub::Hub,
    metrics::Metrics,
    model::{ConnectionId, Ephemeral, EphemeralEvent, Event},
};

/// Comings and goings that may wait to be told; beyond it they are dropped, as anything that passes may be.
const QUEUE: usize = 1_000;

/// Who came or left, and the socket that brought it about.
pub(super) type News = (Arc<EphemeralEvent>, Option<ConnectionId>);

/// Has those comings and goings told anew, with all who are there, that concern a dialect which names them.
pub(in crate::chat) struct RosterNews {
    hub: Arc<Hub>,
    metrics: Arc<Metrics>,
    queue: mpsc::Sender<News>,
}

impl RosterNews {
    /// The receiver is for whoever tells them.
    pub(in crate::chat) fn new(hub: Arc<Hub>, metrics: Arc<Metrics>) -> (Self, mpsc::Receiver<News>) {
        let (queue, news) = mpsc::channel(QUEUE);
        (Self { hub, metrics, queue }, news)
    }

    /// Takes note of comings and goings among these events.
    pub(in crate::chat) fn note(&self, events: &[Event]) {
        for event in events {
            let Event::Ephemeral { ephemeral, origin } = event else { continue };
            let concerns = matches!(ephemeral.what, Ephemeral::Listening { .. })
                && self.hub.is_spoken(&ephemeral.log, names_listeners);
            if concerns && self.queue.try_send((ephemeral.clone(), *origin)).is_err() {
                self.metrics.audiences_dropped.inc();
            }
        }
    }
}

fn names_listeners(dialect: Dialect) -> bool {
    dialect.greets_with() == RosterPolicy::Listeners
}
