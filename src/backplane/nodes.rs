//! The nodes with a lease in the Redis of this node. A node of the deployment that is alive and not among them uses another Redis,
//! or other keys.

use std::collections::BTreeSet;

use redis::AsyncConnectionConfig;
use tokio::time::timeout;

use super::{
    checks::{self, REPLY_TIMEOUT},
    cluster::Router,
    connection::Connection,
    incarnation::Incarnation,
    keys::Keys,
    lossy::Lossy,
    shards::{Layout, Shard},
    sharing,
    target::Target,
    types::{NodeInfo, RedisStatus},
};
use crate::{
    config::RedisConfig,
    degrade::{Fault, Finding},
    model::NodeId,
};

/// The nodes that share a Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gathering {
    /// Those with a lease.
    pub here: BTreeSet<NodeId>,
    /// The address of the server, or those of the masters.
    place: String,
}

impl Gathering {
    /// The nodes that use the Redis of this configuration, for `switchboard check`; `None` if it does not tell.
    pub async fn at(config: &RedisConfig) -> Option<Self> {
        let target = Target::new(config).ok()?;
        target.look_once(false).await;
        let settings = || AsyncConnectionConfig::new().set_response_timeout(Some(REPLY_TIMEOUT));
        let (mut connection, layout) = match target.cluster() {
            Some(cluster) => {
                (Connection::Cluster(Router::open(cluster, settings(), true).await.ok()?), Layout::Cluster)
            }
            None => {
                let connecting = timeout(REPLY_TIMEOUT, target.connect(&settings())).await;
                (Connection::from(connecting.ok()?.ok()?.0), Layout::Single)
            }
        };
        let range =
            redis::cmd("ZRANGE").arg(Keys::new(&config.prefix, layout).nodes(Shard::HOME)).arg(0).arg(-1).take();
        let members: Vec<Lossy> = checks::ask(&mut connection, range).await.ok()?;
        let leases = members.iter().filter_map(|Lossy(member)| Incarnation::parse(member));
        Some(Self { here: leases.filter_map(|lease| lease.node()).collect(), place: place(&target.status()) })
    }

    /// The nodes with a lease in the Redis at this place.
    pub fn of(nodes: Vec<NodeInfo>, status: &RedisStatus) -> Self {
        Self { here: nodes.into_iter().map(|info| info.node).collect(), place: place(status) }
    }

    /// The fault that these nodes are alive and not here.
    pub fn finding(&self, missing: &BTreeSet<NodeId>) -> Finding {
        let (these, node) = (sharing::named(missing), if missing.len() > 1 { "nodes" } else { "node" });
        let here = match self.here.len() {
            0 => "which no node uses".to_owned(),
            _ => format!("which is used by {}", sharing::named(&self.here)),
        };
        let why = format!(
            "{node} {these}: alive by the signs in PostgreSQL, and without a lease in this Redis ({}), {here}. REDIS_URL or \
             REDIS_PREFIX of one side is wrong: all nodes of a deployment need the same server, database number and prefix",
            self.place
        );
        Finding::new(Fault::RedisSplit, why)
    }
}

/// The address of the server, or those of the masters.
fn place(status: &RedisStatus) -> String {
    let masters = || status.cluster.iter().flat_map(|cluster| &cluster.masters).map(|(master, _)| master.as_str());
    status.primary.clone().unwrap_or_else(|| masters().collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_names_both_sides() {
        let nodes = |names: &[&str]| names.iter().map(|name| NodeId::parse(name).unwrap()).collect::<BTreeSet<_>>();
        let said = |here: &[&str], missing: &[&str]| {
            Gathering { here: nodes(here), place: "redis-1:6379".into() }.finding(&nodes(missing)).detail
        };
        let one = said(&["a", "b"], &["c"]);
        assert!(one.starts_with("node c: alive") && one.contains("(redis-1:6379), which is used by a, b."), "{one}");
        let two = said(&[], &["d", "c"]);
        assert!(two.starts_with("nodes c, d: alive") && two.contains("which no node uses"), "{two}");
    }
}
