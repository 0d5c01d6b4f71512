//! A primary of Redis with a replica, and three sentinels that watch them.

use std::{collections::HashMap, time::Duration};

use super::{RedisServer, eventually};

/// The name of the primary.
pub const NAME: &str = "chat";

/// The servers. Which of them is the primary changes.
#[derive(Debug)]
pub struct Replicated {
    /// The first one is the primary at first.
    pub servers: [RedisServer; 2],
    /// The sentinels.
    pub sentinels: Vec<RedisServer>,
}

impl Replicated {
    /// Starts them. A primary that does not answer for `down_after` is replaced.
    pub async fn start(down_after: Duration) -> Self {
        Self::with(down_after, &[]).await
    }

    /// Starts them with more arguments for both servers.
    pub async fn with(down_after: Duration, args: &[&str]) -> Self {
        let (primary, replica) = (RedisServer::with(args).await, RedisServer::with(args).await);
        let _: String = replica.command(&["REPLICAOF", "127.0.0.1", &primary.port().to_string()]).await;
        let servers = [primary, replica];
        let mut sentinels = Vec::new();
        for _ in 0..3 {
            let sentinel = RedisServer::sentinel().await;
            watch(&sentinel, &servers[0], down_after).await;
            sentinels.push(sentinel);
        }
        let set = Self { servers, sentinels };
        set.until_agreed().await;
        set
    }

    /// The URL by which a node finds the primary.
    pub fn url(&self) -> String {
        self.url_with(&self.sentinels.iter().map(RedisServer::port).collect::<Vec<_>>())
    }

    /// The same, with a login of the servers, such as `name:password@`.
    pub fn url_for(&self, login: &str) -> String {
        self.url().replacen("://", &format!("://{login}"), 1)
    }

    /// The same, by sentinels at these ports.
    pub fn url_with(&self, ports: &[u16]) -> String {
        let others: String = ports[1..].iter().map(|port| format!("addr=127.0.0.1:{port}&")).collect();
        format!("redis+sentinel://127.0.0.1:{}?{others}sentinel_master_name={NAME}", ports[0])
    }

    /// Waits until the replica has everything, and each sentinel knows it and the other sentinels.
    async fn until_agreed(&self) {
        eventually("the replica to be in step", async || {
            let info: String = self.servers[1].command(&["INFO", "replication"]).await;
            info.contains("master_link_status:up").then_some(())
        })
        .await;
        for sentinel in &self.sentinels {
            eventually("the sentinels to know each other", async || {
                let known: HashMap<String, String> = sentinel.command(&["SENTINEL", "MASTER", NAME]).await;
                (known["num-slaves"] == "1" && known["num-other-sentinels"] == "2").then_some(())
            })
            .await;
            // A replica is promoted only once its state was read.
            eventually("the sentinels to have read the state of the replica", async || {
                let known: Vec<HashMap<String, String>> = sentinel.command(&["SENTINEL", "REPLICAS", NAME]).await;
                known.first().is_some_and(|one| one["master-link-status"] == "ok").then_some(())
            })
            .await;
        }
    }

    /// Begins a failover by hand.
    pub async fn fail_over(&self) {
        let _: String = self.sentinels[0].command(&["SENTINEL", "FAILOVER", NAME]).await;
    }

    /// Makes a sentinel of no quorum that knows only `server` as the primary.
    pub async fn lone_sentinel(server: &RedisServer) -> RedisServer {
        let sentinel = RedisServer::sentinel().await;
        watch(&sentinel, server, Duration::from_secs(60)).await;
        sentinel
    }
}

/// Has a sentinel watch a primary.
async fn watch(sentinel: &RedisServer, primary: &RedisServer, down_after: Duration) {
    let port = primary.port().to_string();
    let _: String = sentinel.command(&["SENTINEL", "MONITOR", NAME, "127.0.0.1", &port, "2"]).await;
    let down_after = down_after.as_millis().to_string();
    for (name, value) in [("down-after-milliseconds", down_after.as_str()), ("failover-timeout", "3000")] {
        let _: String = sentinel.command(&["SENTINEL", "SET", NAME, name, value]).await;
    }
}
