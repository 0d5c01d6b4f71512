//! What the backplane tells this node.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::{
    presence::Presence,
    reconciler::Reconciler,
    router::{Origin, Router},
};
use crate::backplane::BackplaneEvent;

/// Hands on what the backplane tells.
pub(super) struct BackplaneEvents {
    pub(super) router: Arc<Router>,
    pub(super) reconciler: Arc<Reconciler>,
    pub(super) presence: Arc<Presence>,
}

impl BackplaneEvents {
    /// Hands events on, one after the other, until it is stopped.
    pub(super) async fn run(self, mut events: mpsc::Receiver<BackplaneEvent>) {
        while let Some(event) = events.recv().await {
            match event {
                BackplaneEvent::Events(events) => self.router.dispatch(events, Origin::Remote),
                BackplaneEvent::Missed => self.reconciler.compare_soon(),
                BackplaneEvent::Departed(departure) => self.presence.departed(departure).await,
                BackplaneEvent::Returned(returned) => self.presence.returned(returned).await,
            }
        }
    }
}
