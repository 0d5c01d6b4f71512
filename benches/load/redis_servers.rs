//! The servers of Redis beside which nodes are measured: one, or a cluster.

use std::time::Duration;

use crate::{
    args::Engine,
    support::{RedisCluster, RedisServer},
};

/// The time after which a master that does not answer is replaced: longer than anything that a load holds up.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Running servers.
#[derive(Debug)]
pub enum RedisServers {
    /// One server.
    Single(RedisServer),
    /// The servers of a cluster.
    Cluster(RedisCluster),
}

impl RedisServers {
    /// Starts them.
    pub async fn start(engine: Engine) -> Self {
        match engine {
            Engine::Single => Self::Single(RedisServer::start().await),
            Engine::Cluster => Self::Cluster(RedisCluster::start(TIMEOUT).await),
        }
    }

    /// The URL for nodes.
    pub fn url(&self) -> String {
        match self {
            Self::Single(server) => server.url(),
            Self::Cluster(cluster) => cluster.url(),
        }
    }

    /// The process ids of all servers, the masters first.
    pub fn pids(&self) -> Vec<u32> {
        match self {
            Self::Single(server) => vec![server.pid()],
            Self::Cluster(cluster) => cluster.servers.iter().map(RedisServer::pid).collect(),
        }
    }

    /// The URLs of the masters.
    pub fn master_urls(&self) -> Vec<String> {
        match self {
            Self::Single(server) => vec![server.url()],
            Self::Cluster(cluster) => {
                cluster.servers[..cluster.servers.len() / 2].iter().map(RedisServer::url).collect()
            }
        }
    }
}
