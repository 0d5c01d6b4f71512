//! Three nodes on Redis and PostgreSQL. Each node reaches PostgreSQL, and a Redis of one server, over its own links, which can
//! be broken; servers of other engines of Redis refuse a node's login instead.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

use serde_json::json;
use tokio::{sync::Mutex, time::sleep};

use crate::{
    engine::{Engine, Redis},
    evidence::{Log, Row},
    history::{About, Kind, Name, hash_of},
    nemesis::NODES,
    support::{Link, Node, NodeBuilder, PostgresPair, Proxy, Signal, free_port, token},
};

/// PostgreSQL's settings: its commits survive SIGKILL, though not a power cut.
const SETTINGS: &[(&str, &str)] = &[("fsync", "off"), ("full_page_writes", "off")];
/// Maximum time for a node to exit after SIGTERM while its servers are in trouble.
const LEAVING: Duration = Duration::from_secs(40);
/// Maximum time for an answer of a server or node.
const ANSWERING: Duration = Duration::from_secs(5);

/// Defects of the cluster; none by default.
#[derive(Debug, Clone, Copy, Default)]
pub struct Defects {
    /// Additional settings of PostgreSQL.
    pub store: &'static [(&'static str, &'static str)],
    /// True if the store accepts stored duplicates as new entries.
    pub no_dedupe: bool,
    /// Defect of the nodes (`BROKEN`); needs a build with the feature `faults`.
    pub broken: Option<&'static str>,
}

/// A node, or none while it is down, and the logs of its former processes.
#[derive(Debug)]
pub struct NodeSlot {
    pub builder: NodeBuilder,
    pub node: Option<Node>,
    pub logs: Vec<String>,
}

/// All servers and nodes.
pub struct Cluster {
    pub redis: Redis,
    pub store: Mutex<PostgresPair>,
    pub places: Vec<Mutex<NodeSlot>>,
    /// The links to Redis, if it is one server.
    pub redis_links: Vec<Proxy>,
    pub store_links: Vec<Proxy>,
    /// The links to the second place of PostgreSQL, if it is a pair.
    standby_links: Vec<Proxy>,
    /// The nodes' addresses for clients.
    pub addresses: Vec<SocketAddr>,
    /// The URL of the database on the primary.
    database: std::sync::Mutex<String>,
    http: reqwest::Client,
}

impl Cluster {
    /// Starts the servers, PostgreSQL as a pair, and all nodes.
    pub async fn start(engine: Engine, defects: Defects) -> Self {
        let cluster = Self::with_nodes(NODES, engine, defects, true).await;
        if defects.no_dedupe {
            cluster.disable_dedupe().await;
        }
        cluster
    }

    /// Starts two nodes on one Redis and one PostgreSQL.
    pub async fn small(defects: Defects) -> Self {
        Self::with_nodes(2, Engine::Single, defects, false).await
    }

    async fn with_nodes(nodes: usize, engine: Engine, defects: Defects, pair: bool) -> Self {
        let redis = Redis::start(engine).await;
        let settings: Vec<_> = SETTINGS.iter().chain(defects.store).copied().collect();
        let mut store = PostgresPair::alone(&settings).await;
        let database = store.primary().database().await;
        if pair {
            store.add_standby().await;
        }
        let mut cluster = Self {
            redis,
            store: Mutex::new(store),
            places: Vec::new(),
            redis_links: Vec::new(),
            store_links: Vec::new(),
            standby_links: Vec::new(),
            addresses: Vec::new(),
            http: reqwest::Client::new(),
            database: std::sync::Mutex::new(database),
        };
        for number in 0..nodes {
            cluster.add_node(number, defects.broken).await;
        }
        cluster
    }

    async fn add_node(&mut self, number: usize, broken: Option<&str>) {
        let mut redis_url = self.redis.url_for(number);
        if self.redis.engine == Engine::Single {
            let link = Proxy::to(redis_url.trim_start_matches("redis://").trim_end_matches('/')).await;
            redis_url = link.url(&redis_url);
            self.redis_links.push(link);
        }
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let mut builder = Node::serve(&redis_url, &self.link_store().await)
            .set("NODE_ID", format!("node-{number}"))
            .set("LISTEN", address)
            .set("OPEN_CONVERSATIONS", false)
            .set("NODE_LEASE", "3s")
            .set("PRESENCE_GRACE", "1s")
            .set("PING_INTERVAL", "4s")
            .set("PONG_TIMEOUT", "6s")
            .set("CACHE_TTL", "20s")
            .set("OUTBOX_BYTES", "64KiB")
            // Each send asks Redis, and none is refused. Beside a defect none asks: a frozen Redis would be noticed by the send,
            // and nodes would reach each other through the store, before the defect shows.
            .set("MESSAGE_RATE_LIMIT", if broken.is_some() { 0 } else { 100_000 })
            // Connections of a killed or frozen node count until its lease is out.
            .set("MAX_CONNECTIONS_PER_USER", 100)
            .set("SHUTDOWN_DELAY", "500ms")
            .set("DRAIN_WINDOW", "2s");
        if let Some(broken) = broken {
            builder = builder.set("BROKEN", broken);
        }
        let node = builder.clone().start().await;
        self.places.push(Mutex::new(NodeSlot { builder, node: Some(node), logs: Vec::new() }));
        self.addresses.push(address);
    }

    /// Makes the links of one more node to PostgreSQL, and returns the URL that leads over them.
    async fn link_store(&mut self) -> String {
        let store = self.store.get_mut();
        let mut hosts = Vec::new();
        for (place, links) in [(0, &mut self.store_links), (1, &mut self.standby_links)] {
            if let Some(server) = store.server(place) {
                let link = Proxy::to(server.address()).await;
                hosts.push(link.address().to_string());
                links.push(link);
            }
        }
        let database = self.database.get_mut().unwrap();
        let name = database.rsplit('/').next().expect("the URL names the database");
        format!("postgres://postgres@{}/{name}", hosts.join(","))
    }

    /// Breaks or mends a node's links to PostgreSQL.
    pub fn set_store_link(&self, node: usize, link: Link) {
        for links in [&self.store_links, &self.standby_links] {
            if let Some(one) = links.get(node) {
                one.set(link);
            }
        }
    }

    /// Stops the primary of PostgreSQL and promotes the standby. After a time, a new standby takes the place of the former primary.
    pub async fn fail_over_store(&self, lasts: Duration) {
        let mut store = self.store.lock().await;
        store.fail_over().await;
        let name = self.database.lock().unwrap().rsplit('/').next().expect("the URL names the database").to_owned();
        *self.database.lock().unwrap() = store.primary().url(&name);
        sleep(lasts).await;
        store.add_standby().await;
        let place = 1 - store.place();
        let address = store.server(place).expect("the standby was added").address();
        for link in [&self.store_links, &self.standby_links][place] {
            link.lead_to(&address);
        }
    }

    /// Changes the function that appends messages: it no longer looks for stored duplicates.
    async fn disable_dedupe(&self) {
        let database = self.database().await.expect("PostgreSQL is up");
        // An older form of the function stays for nodes of the version before.
        let asked = "SELECT pg_get_functiondef(oid) FROM pg_proc WHERE proname = 'append_messages' \
             ORDER BY pronargs DESC LIMIT 1";
        let definition: String = database.query_one(asked, &[]).await.expect("the function is there").get(0);
        let mut broken = definition.clone();
        // A few messages and many have statements of their own.
        for comparison in ["old.dedupe = i.dedupe", "l.dedupe = p_dedupe[i]"] {
            assert!(broken.contains(comparison), "the function no longer says {comparison}:\n{definition}");
            broken = broken.replace(comparison, "false");
        }
        let unconstrained = "ALTER TABLE log DROP CONSTRAINT log_log_sender_dedupe_key";
        database.batch_execute(&format!("{broken}; {unconstrained}")).await.expect("both can be changed");
    }

    /// Connects to the database directly, past all links; `None` while PostgreSQL is away.
    pub async fn database(&self) -> Option<tokio_postgres::Client> {
        let url = self.database.lock().unwrap().clone();
        let connecting = tokio_postgres::connect(&url, tokio_postgres::NoTls);
        let (client, connection) = tokio::time::timeout(ANSWERING, connecting).await.ok()?.ok()?;
        tokio::spawn(connection);
        Some(client)
    }

    /// Runs a command on the first server of Redis directly, past all links; `None` if it doesn't answer.
    pub async fn redis<T: redis::FromRedisValue>(&self, words: &[&str]) -> Option<T> {
        self.redis.ask(0, words).await
    }

    /// Makes a conversation of these users, a direct one for two users, and returns its id.
    pub async fn conversation(&self, users: &[Name]) -> Name {
        let others: Vec<&str> = users[1..].iter().map(|user| &**user).collect();
        let body = json!({ "name": "torture", "is_group": others.len() > 1, "participant_ids": others });
        let slot = self.places[0].lock().await;
        let node = slot.node.as_ref().expect("node 0 runs");
        let made = node.post("/api/chat/conversations", &token(&users[0]), &body).await;
        made.json["id"].as_str().unwrap_or_else(|| panic!("no conversation: {}", made.text)).into()
    }

    /// Starts a node that is down, and retries as a supervisor does.
    pub async fn start_node(&self, number: usize) {
        let mut slot = self.places[number].lock().await;
        loop {
            match slot.builder.clone().try_start().await {
                Ok(node) => {
                    slot.node = Some(node);
                    return;
                }
                Err((status, log)) => {
                    slot.logs.push(format!("ended while starting, {status}\n{log}"));
                    sleep(Duration::from_millis(200)).await;
                }
            }
        }
    }

    /// Kills a node with SIGKILL.
    pub async fn kill_node(&self, number: usize) {
        let mut slot = self.places[number].lock().await;
        if let Some(node) = slot.node.take() {
            node.kill().await;
            slot.logs.extend(node.log());
        }
    }

    /// Sends SIGTERM to a node and waits for its end. `Err` if that took too long or the exit code is not 0.
    pub async fn end_node(&self, number: usize) -> Result<(), String> {
        let mut slot = self.places[number].lock().await;
        let Some(node) = slot.node.take() else { return Ok(()) };
        node.signal(Signal::Terminate);
        let gone = async {
            while std::path::Path::new(&format!("/proc/{}", node.pid())).exists() {
                sleep(Duration::from_millis(20)).await;
            }
            node.exit_code().await
        };
        let ended = tokio::time::timeout(LEAVING, gone).await;
        if ended.is_err() {
            node.kill().await;
        }
        slot.logs.extend(node.log());
        match ended {
            Ok(0) => Ok(()),
            Ok(code) => Err(format!("node {number} got SIGTERM and exited with {code}")),
            Err(_) => Err(format!("node {number} got SIGTERM and still ran after {LEAVING:?}")),
        }
    }

    /// True if every node reports `healthy`, and Redis is whole.
    pub async fn is_healthy(&self) -> bool {
        if !self.redis.is_whole().await {
            return false;
        }
        let asked = (0..self.addresses.len()).map(|number| self.get_json(number, "/api/health"));
        let answers = futures_util::future::join_all(asked).await;
        answers.iter().all(|health| health.as_ref().is_some_and(|health| health["status"] == "healthy"))
    }

    /// Sends a REST `GET` to a node; `None` without an answer.
    pub async fn get_json(&self, number: usize, path: &str) -> Option<serde_json::Value> {
        let url = format!("http://{}{path}", self.addresses[number]);
        let asked = self.http.get(url).bearer_auth(token("auditor")).timeout(ANSWERING).send();
        asked.await.ok()?.json().await.ok()
    }

    /// Reads what clients must have of each conversation from the store.
    pub async fn standings(&self) -> BTreeMap<Name, Standing> {
        let database = self.database().await.expect("PostgreSQL is up");
        let heads = "SELECT h.log, h.seq, (SELECT count(*) FROM log WHERE log = h.log AND kind IN (4, 5)), \
             (SELECT max(seq) FROM log WHERE log = h.log AND kind = 0 AND NOT deleted), c.kind = 1 \
             FROM heads h JOIN conversations c ON c.id = h.log";
        let mut standings = BTreeMap::<Name, Standing>::new();
        for row in database.query(heads, &[]).await.expect("heads can be read") {
            let (head, changes, last_message): (i64, i64, Option<i64>) = (row.get(1), row.get(2), row.get(3));
            let (churned, last_message, direct) = (changes > 0, last_message.unwrap_or(0), row.get(4));
            let standing = Standing { head, last_message, churned, direct, members: BTreeSet::new() };
            standings.insert(row.get::<_, &str>(0).into(), standing);
        }
        let members = "SELECT conversation, user_id FROM members";
        for row in database.query(members, &[]).await.expect("members can be read") {
            if let Some(standing) = standings.get_mut(row.get::<_, &str>(0)) {
                standing.members.insert(row.get::<_, &str>(1).into());
            }
        }
        standings
    }

    /// Reads the logs of all conversations from the store.
    pub async fn logs(&self) -> BTreeMap<Name, Log> {
        let standings = self.standings().await.into_iter();
        let mut logs: BTreeMap<Name, Log> = standings
            .map(|(id, Standing { head, members, direct, .. })| {
                (id, Log { head, rows: BTreeMap::new(), members, direct })
            })
            .collect();
        let database = self.database().await.expect("PostgreSQL is up");
        let rows = "SELECT log, seq, kind, sender, dedupe, target, subject, content FROM log WHERE log NOT LIKE '~%'";
        for row in database.query(rows, &[]).await.expect("logs can be read") {
            let kind = Kind::of(row.get(2)).expect("conversations have six kinds of entries");
            let about = match kind {
                Kind::Message => About::Nothing,
                Kind::Edited | Kind::Deleted | Kind::Reaction => About::Message(row.get(5)),
                Kind::MemberAdded | Kind::MemberRemoved => About::User(row.get::<_, &str>(6).into()),
            };
            let text = hash_of(row.get::<_, Option<&str>>(7).unwrap_or_default());
            let (sender, id) = (row.get::<_, &str>(3).into(), row.get::<_, &str>(4).into());
            let log = logs.entry(row.get::<_, &str>(0).into()).or_default();
            log.rows.insert(row.get(1), Row { kind, sender, id, about, text });
        }
        logs
    }
}

/// What the store has of a conversation.
#[derive(Debug)]
pub struct Standing {
    pub head: i64,
    /// The newest message that was not deleted.
    pub last_message: i64,
    /// True if members were added or removed.
    pub churned: bool,
    /// True if it belongs to a pair of users.
    pub direct: bool,
    pub members: BTreeSet<Name>,
}
