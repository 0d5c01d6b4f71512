//! Where what runs beside commands runs: counted, and ended with the node.

use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// The chat's tasks.
#[derive(Debug, Clone)]
pub(super) struct Tasks {
    /// Counts them.
    pub(super) tracker: TaskTracker,
    /// Ends them.
    pub(super) stop: CancellationToken,
}

impl Tasks {
    /// Runs a task until it ends or the node does.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tracker.spawn(async move { stop.run_until_cancelled(task).await });
    }
}
