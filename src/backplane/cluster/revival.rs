//! Connects to masters that are down, until one answers: the same one again, or one that took over.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt, future::try_join_all, stream::FuturesUnordered};
use redis::{AsyncConnectionConfig, aio::MultiplexedConnection};
use tokio::time::{sleep, timeout};

use super::{discovery::Cluster, router::open_one};
use crate::{
    backplane::{connector::CONNECT_TIMEOUT, fault},
    config::HostPort,
};

/// Pause between two rounds of tries.
const RETRY: Duration = Duration::from_millis(150);

/// Waits until a master that is down answers. Returns `count` connections to it, with the scripts loaded.
pub(in crate::backplane) async fn revive(
    cluster: Arc<Cluster>,
    config: AsyncConnectionConfig,
    count: usize,
) -> (HostPort, Vec<MultiplexedConnection>) {
    let mut changes = cluster.changes();
    loop {
        changes.mark_unchanged();
        let down: Vec<HostPort> =
            cluster.states().into_iter().filter(|(_, up)| !up).map(|(master, _)| master).collect();
        if down.is_empty() {
            // The sender lives as long as the cluster.
            let _ = changes.changed().await;
            continue;
        }
        let tries = down.into_iter().map(|master| async {
            let open = (0..count).map(|_| open_one(&cluster, &master, &config));
            match timeout(2 * CONNECT_TIMEOUT, try_join_all(open)).await.ok()? {
                Ok(opened) => Some((master, opened)),
                Err(error) => {
                    cluster.note_reason(&master, fault::link_finding(&error));
                    None
                }
            }
        });
        let mut tries: FuturesUnordered<_> = tries.collect();
        let answered = async {
            while let Some(tried) = tries.next().await {
                if tried.is_some() {
                    return tried;
                }
            }
            sleep(RETRY).await;
            None
        };
        tokio::select! {
            answered = answered => if let Some(answered) = answered { return answered },
            // Whoever waits for a former master waits in vain.
            _ = changes.changed() => {}
        }
    }
}
