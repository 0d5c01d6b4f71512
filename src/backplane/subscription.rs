//! The connection over which a node hears others: to a server, or to a master of a cluster.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use redis::{
    AsyncConnectionConfig, Pipeline, PushInfo, PushKind, Value,
    aio::{MultiplexedConnection, SendError},
};

use super::{
    cluster::Cluster,
    link_error::{LinkError, Refusal},
    target::Target,
};
use crate::config::HostPort;

/// The connection.
#[derive(Clone)]
pub(super) enum Subscription {
    /// To one server.
    Single(MultiplexedConnection),
    /// To a master of a cluster.
    Master(ShardedSubscription),
}

/// A connection to a master of a cluster.
#[derive(Clone)]
pub(super) struct ShardedSubscription {
    cluster: Arc<Cluster>,
    connection: MultiplexedConnection,
    ending: Ending,
}

/// Channels whose subscription this node ends. A server that ends one by itself has given its slot away.
#[derive(Debug, Clone, Default)]
struct Ending(Arc<Mutex<HashSet<Vec<u8>>>>);

impl Subscription {
    /// Connects, to a `master` of a cluster if there is one. `push` gets all messages, and [`PushKind::Disconnection`] also when the
    /// master gives the slot of a channel away.
    pub(super) async fn open(
        target: &Target,
        master: Option<&HostPort>,
        config: AsyncConnectionConfig,
        push: impl Fn(PushInfo) -> Result<(), SendError> + Send + Sync + 'static,
    ) -> Result<Self, LinkError> {
        let Some(cluster) = target.cluster() else {
            let (connection, _) = target.connect(&config.set_push_sender(push)).await?;
            return Ok(Self::Single(connection));
        };
        Self::to_master(cluster, master, config, push).await
    }

    /// The same for a cluster.
    pub(super) async fn to_master(
        cluster: &Arc<Cluster>,
        master: Option<&HostPort>,
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
        let master = master.ok_or(LinkError::Down)?;
        let connection = cluster.connect(master, &config).await.inspect_err(|_| cluster.ask_now())?;
        Ok(Self::Master(ShardedSubscription { cluster: cluster.clone(), connection, ending }))
    }

    /// Subscribes to channels, and waits until all subscriptions stand.
    pub(super) async fn subscribe(&mut self, channels: Vec<String>) -> Result<(), LinkError> {
        match self {
            Self::Single(one) => Ok(one.subscribe(channels).await?),
            Self::Master(sharded) => sharded.send("SSUBSCRIBE", channels).await,
        }
    }

    /// Ends subscriptions.
    pub(super) async fn unsubscribe(&mut self, channels: Vec<String>) -> Result<(), LinkError> {
        match self {
            Self::Single(one) => Ok(one.unsubscribe(channels).await?),
            Self::Master(sharded) => {
                sharded.ending.lock().extend(channels.iter().map(|channel| channel.as_bytes().to_vec()));
                sharded.send("SUNSUBSCRIBE", channels).await
            }
        }
    }
}

impl ShardedSubscription {
    /// Sends a command for each channel. Channels of several slots in one command are refused.
    async fn send(&mut self, command: &str, channels: Vec<String>) -> Result<(), LinkError> {
        if channels.is_empty() {
            return Ok(());
        }
        let mut pipeline = Pipeline::with_capacity(channels.len());
        for channel in channels {
            pipeline.cmd(command).arg(channel);
        }
        let replies = self.connection.send_packed_commands(&pipeline, 0, pipeline.len()).await?;
        match replies.iter().find_map(refusal) {
            Some(refusal) => {
                self.cluster.ask_now();
                Err(LinkError::Refused(refusal))
            }
            None => Ok(()),
        }
    }
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
