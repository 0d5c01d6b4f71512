//! Dispatch of the backplane's notices on this node.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::{
    presence::Presence,
    reconciler::Reconciler,
    router::{Origin, Router},
};
use crate::backplane::Notice;

/// Passes each notice to the part that handles it.
pub(super) struct Notices {
    pub(super) router: Arc<Router>,
    pub(super) reconciler: Arc<Reconciler>,
    pub(super) presence: Arc<Presence>,
}

impl Notices {
    /// Dispatches notices in order until its task is stopped.
    pub(super) async fn run(self, mut notices: mpsc::Receiver<Notice>) {
        while let Some(notice) = notices.recv().await {
            match notice {
                Notice::Events(events) => self.router.dispatch(events, Origin::Remote),
                Notice::Missed => self.reconciler.compare_soon(),
                Notice::Departed(departure) => self.presence.departed(departure).await,
                Notice::Returned(returned) => self.presence.returned(returned).await,
            }
        }
    }
}
