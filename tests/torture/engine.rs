//! Redis as one server, as a primary with sentinels, or as a cluster: the questions and the faults that all of them know.
//!
//! A shard is a master and its replica; a server has a place, the masters of the begin first, then their replicas in the
//! same order. One server is a shard without a replica.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    str::FromStr,
    time::Duration,
};

use futures_util::future::join_all;
use redis::FromRedisValue;
use tokio::{sync::Mutex, time::sleep};

use crate::{
    history::Name,
    nemesis::NODES,
    run::until,
    support::{RedisCluster, RedisServer, Replicated, SENTINEL_NAME, ask_redis},
};

/// Time after which a master that does not answer is replaced.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Maximum time for an answer.
const ANSWERING: Duration = Duration::from_secs(5);
/// Maximum time for an answer to a question that is asked again.
const GLANCE: Duration = Duration::from_secs(1);
/// Maximum time until a shard has a master and a replica that is in step. A sentinel leaves a former primary alone for 10 s.
const WHOLE_WITHIN: Duration = Duration::from_secs(45);

/// A kind of deployment of Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Engine {
    /// One server; each node reaches it over a link that can be broken.
    #[default]
    Single,
    /// A primary with a replica, and three sentinels.
    Sentinel,
    /// Three masters with a replica each.
    Cluster,
}

impl Engine {
    /// Number of masters.
    pub fn shards(self) -> usize {
        if self == Self::Cluster { 3 } else { 1 }
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Single => "single",
            Self::Sentinel => "sentinel",
            Self::Cluster => "cluster",
        })
    }
}

impl FromStr for Engine {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = [Self::Single, Self::Sentinel, Self::Cluster].into_iter();
        let found = all.into_iter().find(|engine| engine.to_string() == text);
        found.ok_or_else(|| format!("{text} is not single, sentinel or cluster"))
    }
}

#[derive(Debug)]
enum Servers {
    Single(RedisServer),
    Sentinel(Replicated),
    Cluster(RedisCluster),
}

impl Servers {
    fn at(&mut self, place: usize) -> &mut RedisServer {
        match self {
            Self::Single(server) => server,
            Self::Sentinel(set) => &mut set.servers[place],
            Self::Cluster(cluster) => &mut cluster.servers[place],
        }
    }
}

/// All servers of Redis.
pub struct Redis {
    pub engine: Engine,
    /// The URL of each server, in the order of their places.
    urls: Vec<String>,
    /// The URL of each sentinel.
    sentinels: Vec<String>,
    /// The URL that leads nodes to all of it, with `{login}` in the place of a login.
    url: String,
    servers: Mutex<Servers>,
}

impl Redis {
    /// Starts the servers. Each node has a login of its own, except on a single one.
    pub async fn start(engine: Engine) -> Self {
        let logins: Vec<String> = (0..NODES).map(login).collect();
        let secrets: Vec<String> = logins.iter().map(|login| format!(">{login}")).collect();
        let mut args = vec!["--enable-debug-command", "yes"];
        for (login, secret) in logins.iter().zip(&secrets) {
            args.extend(["--user", login, "on", secret, "~*", "&*", "+@all"]);
        }
        let url_of = RedisServer::url;
        let (servers, urls, sentinels, url) = match engine {
            Engine::Single => {
                let server = RedisServer::with(&args[..2]).await;
                let url = server.url();
                (Servers::Single(server), vec![url.clone()], Vec::new(), url)
            }
            Engine::Sentinel => {
                let set = Replicated::with(TIMEOUT, &args).await;
                let (urls, sentinels) = (set.servers.iter().map(url_of), set.sentinels.iter().map(url_of));
                let (urls, sentinels) = (urls.collect(), sentinels.collect());
                let url = set.url_for("{login}");
                (Servers::Sentinel(set), urls, sentinels, url)
            }
            Engine::Cluster => {
                // A master without slots stays one, and replicas stay with their masters.
                args.extend(["--cluster-require-full-coverage", "no", "--cluster-allow-replica-migration", "no"]);
                let cluster = RedisCluster::with(TIMEOUT, &args).await;
                let (urls, url) = (cluster.servers.iter().map(url_of).collect(), cluster.url_with("{login}"));
                (Servers::Cluster(cluster), urls, Vec::new(), url)
            }
        };
        Self { engine, urls, sentinels, url, servers: Mutex::new(servers) }
    }

    /// The URL for a node.
    pub fn url_for(&self, node: usize) -> String {
        let login = login(node);
        self.url.replace("{login}", &format!("{login}:{login}@"))
    }

    /// Runs a command on the server in a place, past all links.
    pub async fn ask<T: FromRedisValue>(&self, place: usize, words: &[&str]) -> Option<T> {
        ask_redis(&self.urls[place], words, ANSWERING).await
    }

    /// Runs a command on every master.
    pub async fn on_masters<T: FromRedisValue>(&self, words: &[&str]) -> Vec<Option<T>> {
        join_all(self.masters().await.into_iter().map(|place| self.ask(place, words))).await
    }

    /// The places of the present masters.
    pub async fn masters(&self) -> Vec<usize> {
        let found = join_all((0..self.engine.shards()).map(|shard| self.master_of(shard))).await;
        found.into_iter().flatten().collect()
    }

    fn places_of(&self, shard: usize) -> Vec<usize> {
        (shard..self.urls.len()).step_by(self.engine.shards()).collect()
    }

    /// The place of the master of a shard, also if a former one has not noticed yet that it was replaced.
    pub async fn master_of(&self, shard: usize) -> Option<usize> {
        let places = self.places_of(shard);
        if self.engine == Engine::Single {
            return Some(0);
        }
        if self.engine == Engine::Sentinel {
            let asked = self
                .sentinels
                .iter()
                .map(|url| ask_redis::<HashMap<String, String>>(url, &["SENTINEL", "MASTER", SENTINEL_NAME], GLANCE));
            let known = join_all(asked).await.into_iter().flatten();
            let newest = known.max_by_key(|known| known["config-epoch"].parse::<u64>().unwrap_or_default())?;
            return places.into_iter().find(|place| port(&self.urls[*place]) == newest["port"]);
        }
        let epochs = join_all(places.iter().map(|place| self.epoch_as_master(*place))).await;
        let masters = places.into_iter().zip(epochs).filter_map(|(place, epoch)| Some((epoch?, place)));
        masters.max().map(|(_, place)| place)
    }

    /// The epoch of a node of a cluster; `None` if it is no master.
    async fn epoch_as_master(&self, place: usize) -> Option<u64> {
        let info: String = ask_redis(&self.urls[place], &["INFO", "replication"], GLANCE).await?;
        let cluster: String = ask_redis(&self.urls[place], &["CLUSTER", "INFO"], GLANCE).await?;
        let epoch = cluster.lines().find_map(|line| line.strip_prefix("cluster_my_epoch:"))?;
        info.contains("role:master").then(|| epoch.trim().parse().ok())?
    }

    /// True if a shard has one master, and its replica is in step.
    async fn is_shard_whole(&self, shard: usize) -> bool {
        let Some(master) = self.master_of(shard).await else { return false };
        for place in self.places_of(shard) {
            let info: Option<String> = ask_redis(&self.urls[place], &["INFO", "replication"], GLANCE).await;
            let state = if place == master { "role:master" } else { "master_link_status:up" };
            if !info.is_some_and(|info| info.contains(state)) {
                return false;
            }
            if self.engine == Engine::Cluster {
                let Some(nodes) = ask_redis::<String>(&self.urls[place], &["CLUSTER", "NODES"], GLANCE).await else {
                    return false;
                };
                let own = self.places_of(shard).into_iter().map(|place| format!(":{}@", port(&self.urls[place])));
                let own: Vec<_> = own.collect();
                if nodes.lines().any(|line| own.iter().any(|port| line.contains(port)) && line.contains("fail")) {
                    return false;
                }
            }
        }
        true
    }

    /// True if all shards are whole.
    pub async fn is_whole(&self) -> bool {
        join_all((0..self.engine.shards()).map(|shard| self.is_shard_whole(shard))).await.into_iter().all(|whole| whole)
    }

    /// Waits until a shard is whole. `Err` if it never is.
    pub async fn until_whole(&self, shard: usize) -> Result<(), String> {
        let whole = until(WHOLE_WITHIN, async || self.is_shard_whole(shard).await).await;
        if whole {
            Ok(())
        } else {
            Err(format!("shard {shard} of Redis has no replica in step after {WHOLE_WITHIN:?}"))
        }
    }

    /// Waits until a shard has a master that answers.
    async fn present_master(&self, shard: usize) -> Result<usize, String> {
        let found = Mutex::new(None);
        until(WHOLE_WITHIN, async || {
            *found.lock().await = self.master_of(shard).await;
            found.lock().await.is_some()
        })
        .await;
        found.into_inner().ok_or_else(|| format!("shard {shard} of Redis has no master"))
    }

    /// Waits until another server than the one in `place` is the master of a shard, up to `limit`.
    async fn until_replaced(&self, shard: usize, place: usize, limit: Duration) -> bool {
        until(limit, async || self.master_of(shard).await.is_some_and(|master| master != place)).await
    }

    /// Kills the master of a shard, and starts it again, empty, after a time.
    pub async fn kill_master(&self, shard: usize, lasts: Duration) -> Result<(), String> {
        let place = self.present_master(shard).await?;
        self.servers.lock().await.at(place).kill().await;
        sleep(lasts).await;
        self.servers.lock().await.at(place).restart().await;
        self.until_whole(shard).await
    }

    /// Freezes the master of a shard for a time. If it was replaced meanwhile, it takes writes until it notices that.
    pub async fn freeze_master(&self, shard: usize, lasts: Duration) -> Result<(), String> {
        let place = self.present_master(shard).await?;
        self.servers.lock().await.at(place).pause();
        sleep(lasts).await;
        self.servers.lock().await.at(place).resume();
        self.until_whole(shard).await
    }

    /// Has the replica of a shard take over by hand.
    pub async fn replace_master(&self, shard: usize) -> Result<(), String> {
        let place = self.present_master(shard).await?;
        let other = self.places_of(shard).into_iter().find(|other| *other != place).ok_or("no replica")?;
        // A replica that is not in step refuses; the next one may not.
        let replaced = until(WHOLE_WITHIN, async || {
            let _begun: Option<String> = match self.engine {
                Engine::Sentinel => {
                    ask_redis(&self.sentinels[0], &["SENTINEL", "FAILOVER", SENTINEL_NAME], GLANCE).await
                }
                _ => self.ask(other, &["CLUSTER", "FAILOVER"]).await,
            };
            self.until_replaced(shard, place, Duration::from_secs(5)).await
        });
        if !replaced.await {
            return Err(format!("the replica of shard {shard} did not take over"));
        }
        self.until_whole(shard).await
    }

    /// Keeps writes from the replica of a shard for a time, and kills its master, so that the replica is promoted without them.
    pub async fn lose_writes(&self, shard: usize, lasts: Duration) -> Result<(), String> {
        let place = self.present_master(shard).await?;
        let other = self.places_of(shard).into_iter().find(|other| *other != place).ok_or("no replica")?;
        {
            let mut servers = self.servers.lock().await;
            let master = servers.at(place).url();
            servers.at(other).fall_behind(&master).await;
        }
        sleep(lasts).await;
        self.servers.lock().await.at(place).kill().await;
        let promoted = self.until_replaced(shard, place, WHOLE_WITHIN).await;
        self.servers.lock().await.at(other).catch_up().await;
        self.servers.lock().await.at(place).restart().await;
        let whole = self.until_whole(shard).await;
        if promoted { whole } else { Err(format!("the replica of shard {shard} that lagged was not promoted")) }
    }

    /// Moves all slots of a shard to another one, and after a time back.
    pub async fn move_slots(&self, from: usize, to: usize, lasts: Duration) -> Result<(), String> {
        let master = self.present_master(from).await?;
        let Some(slots) = RedisCluster::slots_of(&self.urls[master]).await else {
            return Err(format!("the master of shard {from} does not tell its slots"));
        };
        for (from, to) in [(from, to), (to, from)] {
            self.move_all(&slots, from, to).await?;
            sleep(lasts).await;
        }
        self.until_whole(from).await
    }

    async fn move_all(&self, slots: &[u16], from: usize, to: usize) -> Result<(), String> {
        let moved = until(WHOLE_WITHIN, async || {
            let (Some(source), Some(target)) = (self.master_of(from).await, self.master_of(to).await) else {
                return false;
            };
            let (source, target) = (&self.urls[source], &self.urls[target]);
            let Some(mut left) = RedisCluster::slots_of(source).await else { return false };
            left.retain(|slot| slots.contains(slot));
            RedisCluster::move_slots(&left, source, target).await.is_some()
        });
        if moved.await { Ok(()) } else { Err(format!("the slots of shard {from} can't be moved to shard {to}")) }
    }

    /// Freezes a sentinel for a time.
    pub async fn freeze_sentinel(&self, sentinel: usize, lasts: Duration) {
        let signal = async |signal: fn(&RedisServer)| {
            if let Servers::Sentinel(set) = &*self.servers.lock().await {
                signal(&set.sentinels[sentinel]);
            }
        };
        signal(RedisServer::pause).await;
        sleep(lasts).await;
        signal(RedisServer::resume).await;
    }

    /// Ends the connections of a node to all servers, and refuses it new ones.
    pub async fn shut_out(&self, node: usize) {
        let login = login(node);
        let shut = self.urls.iter().map(async |url| {
            let _: Option<String> = ask_redis(url, &["ACL", "SETUSER", &login, "off"], GLANCE).await;
            let _: Option<i64> = ask_redis(url, &["CLIENT", "KILL", "USER", &login], GLANCE).await;
        });
        join_all(shut).await;
    }

    /// Takes a node in again, also on servers that are frozen now.
    pub async fn let_in(&self, node: usize) {
        let login = login(node);
        let taken_in = self.urls.iter().map(async |url| {
            until(WHOLE_WITHIN, async || {
                // A server that was killed takes everybody in when it comes back.
                ask_redis::<String>(url, &["ACL", "SETUSER", &login, "on"], GLANCE).await.is_some()
            })
            .await
        });
        join_all(taken_in).await;
    }

    /// The log of each server.
    pub async fn logs(&self) -> Vec<Vec<String>> {
        let mut servers = self.servers.lock().await;
        (0..self.urls.len()).map(|place| servers.at(place).log()).collect()
    }

    /// The keys on all masters, without those that expire by themselves once nobody sends any more.
    pub async fn keys(&self) -> Vec<String> {
        let all: BTreeSet<String> =
            self.on_masters::<Vec<String>>(&["KEYS", "*"]).await.into_iter().flatten().flatten().collect();
        let lasting = |key: &String| !key.starts_with("room_messages:") && !key.starts_with("rate_limit:");
        all.into_iter().filter(lasting).collect()
    }

    /// The channels with subscribers on all masters.
    pub async fn channels(&self) -> Vec<String> {
        let words = if self.engine == Engine::Cluster { "SHARDCHANNELS" } else { "CHANNELS" };
        self.on_masters::<Vec<String>>(&["PUBSUB", words, "*"]).await.into_iter().flatten().flatten().collect()
    }

    /// The users who are online.
    pub async fn online(&self) -> Vec<String> {
        let mut online = Vec::new();
        for (place, key) in self.keys_with("ws:online_users*").await {
            online.extend(self.ask::<Vec<String>>(place, &["SMEMBERS", &key]).await.unwrap_or_default());
        }
        online
    }

    /// The number of registered connections of each user.
    pub async fn connections(&self) -> BTreeMap<Name, usize> {
        let mut connections = BTreeMap::new();
        for (place, key) in self.keys_with("ws:conns:*").await {
            let user = key.rsplit(':').next().unwrap_or_default();
            if let Some(Some(lines)) = self.ask::<Option<String>>(place, &["HGET", &key, "c"]).await {
                connections.insert(user.into(), lines.lines().count());
            }
        }
        connections
    }

    async fn keys_with(&self, pattern: &str) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        for place in self.masters().await {
            let keys = self.ask::<Vec<String>>(place, &["KEYS", pattern]).await.unwrap_or_default();
            found.extend(keys.into_iter().map(|key| (place, key)));
        }
        found
    }

    /// The shard of each of these users' windows of sends, which each of their sends needs, as slots lie in the end.
    pub async fn shards_of(&self, users: impl IntoIterator<Item = Name>) -> BTreeMap<Name, usize> {
        let mut shards = BTreeMap::new();
        if self.engine == Engine::Cluster {
            for user in users {
                let key = format!("rate_limit:message:{user}");
                let slot: u16 = self.ask(0, &["CLUSTER", "KEYSLOT", &key]).await.unwrap_or_default();
                shards.insert(user, usize::from(slot) * self.engine.shards() / 16_384);
            }
        }
        shards
    }
}

/// The port in a URL of a server.
fn port(url: &str) -> &str {
    url.trim_end_matches('/').rsplit_once(':').expect("the URL has a port").1
}

/// The login and the password of a node.
fn login(node: usize) -> String {
    format!("node-{node}")
}
