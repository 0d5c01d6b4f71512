//! Gives the backplane the keys of the nodes and their deployment, again and again.

use std::{sync::Arc, time::Duration};

use tokio::time::{sleep, timeout};

use crate::{
    backplane::Backplane,
    store::{Lifecycle, StoreError},
    supervise::{TaskName, checkpoint},
};

/// Interval at which the keys are read. A new key signs a minute after it was made, so each node has read it by then, even
/// if one read fails.
const REFRESH: Duration = Duration::from_secs(20);
/// Shortest pause between two reads, however often an unknown key is seen.
const PAUSE: Duration = Duration::from_secs(1);

/// Reads the keys at each interval, when something was signed with an unknown key, and when a connection to the store was lost,
/// since the next one may lead to another database, until its task is stopped. While they can't be read, the last ones stay in
/// use.
pub(super) async fn refresh(store: Arc<dyn Lifecycle>, backplane: Arc<Backplane>) {
    let mut reconnects = store.reconnects();
    loop {
        sleep(PAUSE).await;
        let wanted = async {
            tokio::select! {
                () = backplane.wants_keys() => {}
                Ok(()) = reconnects.changed() => {}
            }
        };
        // After the interval the keys are read in any case.
        let _elapsed = timeout(REFRESH, wanted).await;
        checkpoint(TaskName::NodeKeys, || "");
        let read = async { Ok((store.node_keys().await?, store.deployment().await?)) };
        match read.await {
            Ok((keys, deployment)) => {
                backplane.set_keys(&keys);
                backplane.set_deployment(&deployment.id).await;
            }
            Err(error @ StoreError::Failed(_)) => {
                tracing::warn!(%error, "the keys of the nodes, or their deployment, can't be read")
            }
            Err(error) => tracing::debug!(%error, "the keys of the nodes, or their deployment, can't be read"),
        }
    }
}
