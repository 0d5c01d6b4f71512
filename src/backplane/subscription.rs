//! The connections over which a node hears others: one to a server, or one to each master of a cluster.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures_util::future::try_join_all;
use redis::{
    AsyncConnectionConfig, Pipeline, PushInfo, PushKind, Value,
    aio::{MultiplexedConnection, SendError},
};

use super::{
    cluster::Cluster,
    link_error::{LinkError, Refusal},
    shards::{Layout, Shard},
    target::Target,
};
use crate::config::HostPort;

/// The connections.
#[derive(Clone)]
pub(super) enum Subscription {
    /// To one server.
    Single(MultiplexedConnection),
    /// To the masters of a cluster.
    Cluster(ShardedSubscription),
}

/// Connections to the masters of a cluster.
#[derive(Clone)]
pub(super) struct ShardedSubscription {
    cluster: Arc<Cluster>,
    connections: HashMap<HostPort, MultiplexedConnection>,
    ending: Ending,
}

/// Channels whose subscription this node ends. A server that ends one by itself has given its slot away.
#[derive(Debug, Clone, Default)]
struct Ending(Arc<Mutex<HashSet<Vec<u8>>>>);

impl Subscription {
    /// Connects. `push` gets all messages, and [`PushKind::Disconnection`] also when a master gives the slot of a channel away.
    pub(super) async fn open(
        target: &Target,
        config: AsyncConnectionConfig,
        push: impl Fn(PushInfo) -> Result<(), SendError> + Send + Sync + 'static,
    ) -> Result<Self, LinkError> {
        let Some(cluster) = target.cluster() else {
            let (connection, _) = target.connect(&config.set_push_sender(push)).await?;
            return Ok(Self::Single(connection));
        };
        Self::of_cluster(cluster, config, push).await
    }

    /// The same for a cluster.
    pub(super) async fn of_cluster(
        cluster: &Arc<Cluster>,
        config: AsyncConnectionConfig,
        push: impl Fn(PushInfo) -> Result<(), SendError> + Send + Sync + 'static,
    ) -> Result<Self, LinkError> {
        let ending = Ending::default();
        let config = config.set_push_sender({
            let (ending, cluster) = (ending.clone(), cluster.clone());
            move |mut info: PushInfo| {
                if info.kind == PushKind::SUnsubscribe && !ending.take(info.data.first()) {
                    cluster.ask_now();
                    info.kind = PushKind::Disconnection;
                }
                push(info)
            }
        });
        let connect = cluster.masters().into_iter().map(|master| async {
            let connection = cluster.connect(&master, &config).await?;
            Ok::<_, LinkError>((master, connection))
        });
        let connections = try_join_all(connect).await.inspect_err(|_| cluster.ask_now())?.into_iter().collect();
        Ok(Self::Cluster(ShardedSubscription { cluster: cluster.clone(), connections, ending }))
    }

    /// Subscribes to channels, and waits until all subscriptions stand.
    pub(super) async fn subscribe(&mut self, channels: Vec<String>) -> Result<(), LinkError> {
        match self {
            Self::Single(one) => Ok(one.subscribe(channels).await?),
            Self::Cluster(sharded) => sharded.send("SSUBSCRIBE", channels).await,
        }
    }

    /// Ends subscriptions.
    pub(super) async fn unsubscribe(&mut self, channels: Vec<String>) -> Result<(), LinkError> {
        match self {
            Self::Single(one) => Ok(one.unsubscribe(channels).await?),
            Self::Cluster(sharded) => {
                sharded.ending.lock().extend(channels.iter().map(|channel| channel.as_bytes().to_vec()));
                sharded.send("SUNSUBSCRIBE", channels).await
            }
        }
    }

    /// One shard of each server that has any; another one each `turn`.
    pub(super) fn represent(&self, turn: usize) -> Vec<Shard> {
        match self {
            Self::Single(_) => vec![Shard::HOME],
            Self::Cluster(sharded) => {
                let held = sharded.cluster.shards_by_master(Shard::all(Layout::Cluster));
                held.into_values().map(|shards| shards[turn % shards.len()]).collect()
            }
        }
    }
}

impl ShardedSubscription {
    /// Sends a command for each channel to the master of its slot. Channels of several slots in one command are refused.
    async fn send(&self, command: &str, channels: Vec<String>) -> Result<(), LinkError> {
        let mut by_master: HashMap<HostPort, Pipeline> = HashMap::new();
        for channel in channels {
            let master = self.cluster.owner_of(channel.as_bytes()).ok_or(LinkError::Down)?;
            by_master.entry(master).or_default().cmd(command).arg(channel);
        }
        let all = by_master.into_iter().map(|(master, pipeline)| async move {
            let mut connection = self.connections.get(&master).cloned().ok_or_else(|| unknown(&master))?;
            let replies = connection.send_packed_commands(&pipeline, 0, pipeline.len()).await?;
            match replies.iter().find_map(refusal) {
                Some(refusal) => {
                    self.cluster.ask_now();
                    Err(LinkError::Refused(refusal))
                }
                None => Ok(()),
            }
        });
        try_join_all(all).await.map(drop)
    }
}

/// The error of a channel of a master that has come since.
fn unknown(master: &HostPort) -> LinkError {
    LinkError::Broken(format!("{master} has become a master"))
}

fn refusal(reply: &Value) -> Option<Refusal> {
    match reply {
        Value::ServerError(error) => Some(Refusal::from(error)),
        _ => None,
    }
}

impl Ending {
    /// True if this node ends the subscription to the channel.
    fn take(&self, channel: Option<&Value>) -> bool {
        match channel {
            Some(Value::BulkString(channel)) => self.lock().remove(channel),
            _ => false,
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
