//! Finds who else uses a Redis server, with other keys than this deployment: each process of every deployment listens on a
//! channel that names both, and channels have no database number. `switchboard check` and a node that starts tell it. Nothing
//! depends on it, and a Redis user without the rights for it (`INFO`, `PUBSUB CHANNELS`) is told nothing.

use std::{collections::BTreeSet, fmt, time::Duration};

use redis::{Cmd, FromRedisValue};
use tokio::time::timeout;

use super::{
    channels,
    connection::Connection,
    incarnation::Incarnation,
    keys::Keys,
    lossy::Lossy,
    shards::{Layout, Shard},
    sharing::{self, Neighbours},
};
use crate::model::{DeploymentTag, NodeId};

/// Maximum time for one command.
const REPLY_TIMEOUT: Duration = Duration::from_millis(500);
/// Maximum time that a node takes to ask at its start.
const START_TIMEOUT: Duration = Duration::from_secs(1);
/// Number of channels up to which Redis is asked to look through all of them, which takes it some 0.1 µs for each.
const CHANNELS_MAX: u64 = 200_000;

/// Those who listen on the same server.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Listening {
    /// Nodes of this deployment.
    pub(super) own: BTreeSet<NodeId>,
    /// Other deployments and their nodes.
    pub(super) others: Neighbours,
    /// Nodes of an earlier version, whose channels name no deployment.
    pub(super) older: BTreeSet<NodeId>,
}

impl Listening {
    /// Asks the servers; `None` if one does not tell, or has very many channels.
    pub(super) async fn on(connection: &mut Connection, layout: Layout, own: DeploymentTag) -> Option<Self> {
        let counted = match layout {
            Layout::Single => "pubsub_channels:",
            Layout::Cluster => "pubsubshard_channels:",
        };
        let mut channels: Vec<String> = Vec::new();
        for mut server in connection.servers() {
            let info: String = answer(&mut server, redis::cmd("INFO").arg("stats").take()).await?;
            let count = info.lines().find_map(|line| line.trim_end().strip_prefix(counted)?.parse::<u64>().ok())?;
            if count > CHANNELS_MAX {
                return None;
            }
            channels.extend(answer::<Vec<String>>(&mut server, channels::list_canaries(layout)).await?);
        }
        Some(Self::of(&channels, own))
    }

    /// Names nodes of this deployment that listen, and have no lease under its keys; empty if there are none.
    pub(super) fn elsewhere(&self, leases: &[Incarnation]) -> String {
        let here = |node: &NodeId| leases.iter().any(|lease| lease.node().as_ref() == Some(node));
        let elsewhere: BTreeSet<_> = self.own.iter().filter(|node| !here(node)).collect();
        if elsewhere.is_empty() {
            return String::new();
        }
        let nodes = sharing::named(&elsewhere);
        format!("; nodes of this deployment with another database number or REDIS_PREFIX: {nodes}")
    }

    fn of(channels: &[String], own: DeploymentTag) -> Self {
        let mut found = Self::default();
        for (deployment, process) in channels.iter().filter_map(|channel| channels::process_of_canary(channel)) {
            // `switchboard check` has a process without a node.
            let Some(node) = process.split_once('#').and_then(|(node, _)| NodeId::parse(node).ok()) else { continue };
            match deployment {
                Some(deployment) if deployment == own => found.own.insert(node),
                Some(deployment) => {
                    found.others.deployments.insert(deployment);
                    found.others.nodes.insert(node)
                }
                None => found.older.insert(node),
            };
        }
        found
    }
}

/// Who else listens, for people; empty if nobody does.
impl fmt::Display for Listening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.others.deployments.is_empty() {
            write!(f, "; also used by {}", self.others)?;
        }
        if self.older.is_empty() {
            return Ok(());
        }
        write!(f, "; nodes of an earlier version: {}", super::sharing::named(&self.older))
    }
}

/// Logs who else uses the server, when a node starts.
pub(super) async fn log_at_start(connection: &mut Connection, keys: &Keys, own: DeploymentTag) {
    let ask = async {
        let listening = Listening::on(connection, keys.layout(), own).await?;
        let range = redis::cmd("ZRANGE").arg(keys.nodes(Shard::HOME)).arg(0).arg(-1).take();
        let members: Vec<Lossy> = answer(connection, range).await?;
        let leases: Vec<_> = members.iter().filter_map(|Lossy(member)| Incarnation::parse(member)).collect();
        Some(format!("{listening}{}", listening.elsewhere(&leases)))
    };
    let told = timeout(START_TIMEOUT, ask).await.ok().flatten().unwrap_or_default();
    if !told.is_empty() {
        tracing::info!("on this Redis server, this is deployment {own}{told}");
    }
}

async fn answer<T: FromRedisValue>(connection: &mut Connection, command: Cmd) -> Option<T> {
    timeout(REPLY_TIMEOUT, connection.ask(command)).await.ok()?.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_tell_who_listens() {
        let own = DeploymentTag::parse("0123456789ab").unwrap();
        let channels = [
            "{s01}:0123456789ab:n:here#00",
            "{s02}:ba9876543210:n:there#00",
            "{s02}:ba9876543210:n:there:n:2#00",
            "{s03}:n:old#00",
            "{s03}:c:n:room",
            "{s03}:ba9876543210:c:n:room",
            "{s03}:ba9876543210:n:check",
        ];
        let found = Listening::of(&channels.map(String::from), own);
        assert_eq!(found.own.iter().map(NodeId::as_str).collect::<Vec<_>>(), ["here"]);
        assert_eq!(
            found.to_string(),
            "; also used by deployment ba9876543210 (nodes there, there:n:2); nodes of an earlier version: old"
        );
        assert_eq!(Listening::of(&[], own).to_string(), "");
    }
}
