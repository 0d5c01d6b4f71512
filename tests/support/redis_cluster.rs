//! A Redis Cluster of three masters with a replica each.

use std::time::Duration;

use redis::{AsyncConnectionConfig, aio::MultiplexedConnection};

use super::{RedisServer, ask_redis, eventually, within};

/// Number of masters.
const MASTERS: usize = 3;
/// Number of slots.
const SLOTS: u16 = 16_384;

/// The servers. Which of them are masters changes.
#[derive(Debug)]
pub struct RedisCluster {
    /// The masters at first, then the replica of each.
    pub servers: Vec<RedisServer>,
    args: Vec<String>,
}

impl RedisCluster {
    /// Starts them. A master that does not answer for `timeout` is replaced.
    pub async fn start(timeout: Duration) -> Self {
        Self::with(timeout, &[]).await
    }

    /// Starts them with more arguments for each.
    pub async fn with(timeout: Duration, args: &[&str]) -> Self {
        let timeout = timeout.as_millis().to_string();
        let all = ["--cluster-node-timeout", &timeout, "--cluster-announce-ip", "127.0.0.1"];
        // A replica is promoted however long it heard nothing of its master, and gets its copy at once.
        let quick = ["--cluster-replica-validity-factor", "0", "--repl-diskless-sync-delay", "0"];
        let args = [&all[..], &quick[..], args].concat();
        let start = (0..2 * MASTERS).map(|_| RedisServer::cluster_node(&args));
        let servers = futures_util::future::join_all(start).await;
        let args = args.iter().map(|&arg| arg.to_owned()).collect();
        let cluster = Self { servers, args };
        cluster.form().await;
        cluster
    }

    /// The URL by which a node finds the masters.
    pub fn url(&self) -> String {
        self.url_with("")
    }

    /// The same with a login, such as `name:password@`.
    pub fn url_with(&self, login: &str) -> String {
        let ports: Vec<u16> = self.servers.iter().map(RedisServer::port).collect();
        let others: Vec<String> = ports[1..].iter().map(|port| format!("addr=127.0.0.1:{port}")).collect();
        format!("redis+cluster://{login}127.0.0.1:{}?{}", ports[0], others.join("&"))
    }

    /// Starts one more master, without slots, and returns its place.
    pub async fn add_master(&mut self) -> usize {
        let args: Vec<&str> = self.args.iter().map(String::as_str).collect();
        self.servers.push(RedisServer::cluster_node(&args).await);
        let place = self.servers.len() - 1;
        let (port, bus) = (self.servers[place].port().to_string(), self.servers[place].bus_port().to_string());
        let _: String = self.servers[0].command(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus]).await;
        for server in &self.servers {
            eventually("the nodes to know the new one", async || {
                let nodes: String = server.command(&["CLUSTER", "NODES"]).await;
                let info: String = server.command(&["CLUSTER", "INFO"]).await;
                let all = nodes.lines().count() == self.servers.len() && !nodes.contains("handshake");
                (all && info.contains("cluster_state:ok")).then_some(())
            })
            .await;
        }
        place
    }

    async fn form(&self) {
        let range = |index: usize| (usize::from(SLOTS) * index / MASTERS).to_string();
        for (index, master) in self.servers[..MASTERS].iter().enumerate() {
            let _: String = master.command(&["CLUSTER", "SET-CONFIG-EPOCH", &(index + 1).to_string()]).await;
            let end = (usize::from(SLOTS) * (index + 1) / MASTERS - 1).to_string();
            let _: String = master.command(&["CLUSTER", "ADDSLOTSRANGE", &range(index), &end]).await;
        }
        for server in &self.servers[1..] {
            let (port, bus) = (server.port().to_string(), server.bus_port().to_string());
            let _: String = self.servers[0].command(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus]).await;
        }
        for server in &self.servers {
            eventually("the nodes to know each other", async || {
                let nodes: String = server.command(&["CLUSTER", "NODES"]).await;
                (nodes.lines().count() == 2 * MASTERS && !nodes.contains("handshake")).then_some(())
            })
            .await;
        }
        for index in 0..MASTERS {
            let id: String = self.servers[index].command(&["CLUSTER", "MYID"]).await;
            let _: String = self.servers[index + MASTERS].command(&["CLUSTER", "REPLICATE", &id]).await;
        }
        self.until_whole().await;
    }

    /// Waits until every running node knows every slot's master, and that each master has a replica that is in step.
    pub async fn until_whole(&self) {
        for server in &self.servers {
            eventually("the cluster to be whole", async || {
                let info: String = server.command(&["CLUSTER", "INFO"]).await;
                let nodes: String = server.command(&["CLUSTER", "NODES"]).await;
                let replication: String = server.command(&["INFO", "replication"]).await;
                let replicas = nodes.lines().filter(|line| line.contains("slave")).count();
                let in_step = replication.contains("role:master") && replication.contains("state=online")
                    || replication.contains("master_link_status:up");
                (info.contains("cluster_state:ok") && replicas == MASTERS && !nodes.contains("fail") && in_step)
                    .then_some(())
            })
            .await;
        }
    }

    /// The place of the master of a key.
    pub async fn master_of(&self, key: &str) -> usize {
        let mut client = self.connection().await;
        let slot: u16 = redis::cmd("CLUSTER").arg("KEYSLOT").arg(key).query_async(&mut client).await.unwrap();
        self.master_of_slot(slot).await
    }

    /// The place of the master of a slot.
    pub async fn master_of_slot(&self, slot: u16) -> usize {
        type Range = (u16, u16, redis::Value);
        let mut client = self.connection().await;
        let ranges: Vec<Vec<redis::Value>> = redis::cmd("CLUSTER").arg("SLOTS").query_async(&mut client).await.unwrap();
        for range in ranges {
            let (start, end, node): Range = redis::from_redis_value(redis::Value::Array(range[..3].to_vec())).unwrap();
            if (start..=end).contains(&slot) {
                let redis::Value::Array(node) = node else { panic!("a node is a list") };
                let port: u16 = redis::from_redis_value(node[1].clone()).unwrap();
                return self.servers.iter().position(|server| server.port() == port).unwrap();
            }
        }
        panic!("slot {slot} has no master");
    }

    /// A connection to one of the servers that answer.
    async fn connection(&self) -> MultiplexedConnection {
        for server in self.servers.iter().filter(|server| server.is_running()) {
            let client = redis::Client::open(server.url()).unwrap();
            if let Ok(Ok(connection)) =
                tokio::time::timeout(Duration::from_secs(1), client.get_multiplexed_async_connection()).await
            {
                return connection;
            }
        }
        panic!("no server answers");
    }

    /// Runs a command on the master of a key.
    pub async fn command_on<T: redis::FromRedisValue>(&self, key: &str, words: &[&str]) -> T {
        self.servers[self.master_of(key).await].command(words).await
    }

    /// The keys with this pattern on all masters, in order.
    pub async fn keys(&self, pattern: &str) -> Vec<String> {
        let mut found = Vec::new();
        for server in self.servers.iter().filter(|server| server.is_running()) {
            let role: Vec<redis::Value> = server.command(&["ROLE"]).await;
            if redis::from_redis_value::<String>(role[0].clone()).unwrap() == "master" {
                found.extend(server.command::<Vec<String>>(&["KEYS", pattern]).await);
            }
        }
        found.sort();
        found.dedup();
        found
    }

    /// Begins to move a slot: keys that its master does not have are with the new master from now on. Returns its id.
    pub async fn begin_move(&self, slot: u16, from: usize, to: usize) -> String {
        let (source, target) = (&self.servers[from], &self.servers[to]);
        let ids: [String; 2] = [source.command(&["CLUSTER", "MYID"]).await, target.command(&["CLUSTER", "MYID"]).await];
        let slot = slot.to_string();
        let _: String = target.command(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &ids[0]]).await;
        let _: String = source.command(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &ids[1]]).await;
        let [_, new_owner] = ids;
        new_owner
    }

    /// Moves a slot with all its keys to another master.
    pub async fn move_slot(&self, slot: u16, from: usize, to: usize) {
        let new_owner = self.begin_move(slot, from, to).await;
        let (source, target) = (&self.servers[from], &self.servers[to]);
        let (slot, port) = (slot.to_string(), target.port().to_string());
        loop {
            let keys: Vec<String> = source.command(&["CLUSTER", "GETKEYSINSLOT", &slot, "100"]).await;
            if keys.is_empty() {
                break;
            }
            let mut words = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
            words.extend(keys.iter().map(String::as_str));
            let _: String = source.command(&words).await;
        }
        let _: String = target.command(&["CLUSTER", "SETSLOT", &slot, "NODE", &new_owner]).await;
        let (mut told, mut connection) = (redis::cmd("CLUSTER"), source.connection().await);
        told.arg("SETSLOT").arg(&slot).arg("NODE").arg(&new_owner);
        if let Err(error) = told.query_async::<String>(&mut connection).await {
            // A master that has given its last slot away becomes a replica as soon as it hears of that.
            assert!(error.to_string().contains("only with masters"), "{error}");
        }
    }

    /// The slots of the master of `url`; `None` if it does not answer.
    pub async fn slots_of(url: &str) -> Option<Vec<u16>> {
        let nodes: String = ask_redis(url, &["CLUSTER", "NODES"], Duration::from_secs(1)).await?;
        let own = nodes.lines().find(|line| line.contains("myself"))?;
        let ranges = own.split_whitespace().skip(8).filter(|range| !range.starts_with('['));
        let slots = ranges.flat_map(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            first.parse::<u16>().expect("a slot")..=last.parse().expect("a slot")
        });
        Some(slots.collect())
    }

    /// Moves slots of a master with their keys to another one. `None` if a server refuses, or does not answer: what was moved
    /// stays moved.
    pub async fn move_slots(slots: &[u16], from: &str, to: &str) -> Option<()> {
        let limit = AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(6)));
        let connect = async |url: &str| {
            let client = redis::Client::open(url).expect("the URL is well formed");
            client.get_multiplexed_async_connection_with_config(&limit).await.ok()
        };
        let (mut source, mut target) = (connect(from).await?, connect(to).await?);
        let port = to.trim_end_matches('/').rsplit_once(':').expect("the URL has a port").1;
        let mut ids = Vec::<String>::new();
        for server in [&mut source, &mut target] {
            ids.push(redis::cmd("CLUSTER").arg("MYID").query_async(server).await.ok()?);
        }
        for slots in slots.chunks(1_024) {
            on_each(&mut target, slots, &["IMPORTING", &ids[0]]).await?;
            on_each(&mut source, slots, &["MIGRATING", &ids[1]]).await?;
            loop {
                let mut asked = redis::pipe();
                for slot in slots {
                    asked.cmd("CLUSTER").arg("GETKEYSINSLOT").arg(slot).arg(100);
                }
                let keys: Vec<Vec<String>> = asked.query_async(&mut source).await.ok()?;
                if keys.iter().all(Vec::is_empty) {
                    break;
                }
                for keys in keys.iter().filter(|keys| !keys.is_empty()) {
                    let mut moved = redis::cmd("MIGRATE");
                    moved.arg(&["127.0.0.1", port, "", "0", "5000", "KEYS"]).arg(keys);
                    let _: String = moved.query_async(&mut source).await.ok()?;
                }
            }
            for server in [&mut target, &mut source] {
                on_each(server, slots, &["NODE", &ids[1]]).await?;
            }
        }
        Some(())
    }

    /// Has a replica take over from its master, and waits until it has.
    pub async fn fail_over(&self, replica: usize) {
        let server = &self.servers[replica];
        let _: String = server.command(&["CLUSTER", "FAILOVER"]).await;
        self.until_master(replica).await;
    }

    /// Waits until a server is a master.
    pub async fn until_master(&self, place: usize) {
        within("a promotion", async {
            eventually("a replica to be promoted", async || {
                let info: String = self.servers[place].command(&["INFO", "replication"]).await;
                info.contains("role:master").then_some(())
            })
            .await;
        })
        .await;
    }
}

/// Runs `CLUSTER SETSLOT` for each of these slots.
async fn on_each(server: &mut MultiplexedConnection, slots: &[u16], words: &[&str]) -> Option<()> {
    let mut pipe = redis::pipe();
    for slot in slots {
        pipe.cmd("CLUSTER").arg("SETSLOT").arg(slot).arg(words).ignore();
    }
    pipe.query_async(server).await.ok()
}
