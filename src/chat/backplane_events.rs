//! Dispatch of the backplane's notices on this node.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::{
    hints::Hints,
    presence::Presence,
    present::PresentUsers,
    reconciler::Reconciler,
    router::{Origin, Router},
};
use crate::{
    backplane::BackplaneEvent,
    supervise::{Supervisor, TaskName, checkpoint},
};

/// Passes each notice to the part that handles it.
pub(super) struct BackplaneEvents {
    pub(super) router: Arc<Router>,
    pub(super) reconciler: Arc<Reconciler>,
    pub(super) presence: Arc<Presence>,
    pub(super) hints: Arc<Hints>,
    pub(super) present: Arc<PresentUsers>,
    pub(super) supervisor: Supervisor,
}

impl BackplaneEvents {
    /// Dispatches notices in order until its task is stopped. A notice that panics is lost.
    pub(super) async fn run(&self, notices: &mut mpsc::Receiver<BackplaneEvent>) {
        while let Some(notice) = notices.recv().await {
            let _panicked = self.supervisor.guard(TaskName::BackplaneEvents, self.pass_on(notice)).await;
        }
    }

    async fn pass_on(&self, notice: BackplaneEvent) {
        checkpoint(TaskName::BackplaneEvents, || format!("{notice:?}"));
        match notice {
            BackplaneEvent::Events(events) => self.router.dispatch(events, Origin::Remote),
            BackplaneEvent::Hints(hints) => self.hints.receive(hints),
            BackplaneEvent::Missed => {
                self.reconciler.compare_soon();
                self.hints.check_soon();
                self.present.compare_soon();
            }
            BackplaneEvent::Doubtful(logs) => self.reconciler.compare_logs_soon(logs),
            BackplaneEvent::Departed(departure) => self.presence.departed(departure).await,
            BackplaneEvent::Returned(returned) => self.presence.returned(returned).await,
        }
    }
}
