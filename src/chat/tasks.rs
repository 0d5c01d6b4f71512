//! Background tasks: tracked, and stopped with the node.

use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Spawns the chat's background tasks.
#[derive(Debug, Clone)]
pub(super) struct Tasks {
    /// Tracks the tasks.
    pub(super) tracker: TaskTracker,
    /// Stops the tasks.
    pub(super) stop: CancellationToken,
}

impl Tasks {
    /// Runs a task until it ends or the node stops.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tracker.spawn(async move { stop.run_until_cancelled(task).await });
    }
}
