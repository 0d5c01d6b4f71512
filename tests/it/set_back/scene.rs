//! A deployment whose database can be set back, and clients of every dialect that follow a conversation as the protocol's
//! documents say.

use std::collections::BTreeMap;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Client, Link, Node, NodeBuilder, Postgres, Proxy, RedisServer, eventually, token};

/// Redis, nodes, and a database that they reach through a proxy.
pub struct Scene {
    pub redis: RedisServer,
    pub proxy: Proxy,
    /// Name of the database.
    pub name: String,
    /// The role of the nodes.
    role: &'static str,
    pub nodes: Vec<Node>,
    /// The server, if it is not the shared one.
    pub server: Option<Postgres>,
    backups: usize,
}

impl Scene {
    /// Starts this many nodes with a database on the shared server.
    pub async fn new(nodes: usize) -> Self {
        Self::on(None, nodes).await
    }

    /// Starts this many nodes with a database on a server of their own.
    pub async fn alone(nodes: usize) -> Self {
        Self::on(Some(Postgres::start(&[("fsync", "off")]).await), nodes).await
    }

    /// Starts this many nodes with a database of this server, as this role.
    pub async fn of(server: Postgres, name: &str, role: &'static str, nodes: usize) -> Self {
        Self::start(server.address(), (name.to_owned(), role), Some(server), nodes).await
    }

    async fn on(server: Option<Postgres>, nodes: usize) -> Self {
        let database = match &server {
            Some(server) => server.database().await,
            None => Postgres::shared().await.database().await,
        };
        let (address, name) = database.split('@').next_back().unwrap().split_once('/').unwrap();
        Self::start(address.to_owned(), (name.to_owned(), "postgres"), server, nodes).await
    }

    async fn start(
        address: String,
        (name, role): (String, &'static str),
        server: Option<Postgres>,
        nodes: usize,
    ) -> Self {
        let (redis, proxy) = (RedisServer::start().await, Proxy::to(address).await);
        let mut scene = Self { redis, proxy, name, role, nodes: Vec::new(), server, backups: 0 };
        for _ in 0..nodes {
            scene.nodes.push(scene.node().start().await);
        }
        scene
    }

    /// Another node of the deployment.
    pub fn node(&self) -> NodeBuilder {
        let url = format!("postgres://{}@{}/{}", self.role, self.proxy.address(), self.name);
        // Calls are repeated while the store is away.
        let node = Node::serve(&self.redis.url(), &url);
        node.set("MESSAGE_RATE_LIMIT", 0).set("WRITE_RATE_LIMIT", 0).set("READ_RATE_LIMIT", 0)
    }

    /// The node with this number, counted from the last one.
    pub fn at(&self, number: usize) -> &Node {
        &self.nodes[number % self.nodes.len()]
    }

    /// Ends every connection to the database, and keeps nodes from opening others.
    async fn cut_off(&self) -> tokio_postgres::Client {
        self.proxy.set(Link::Cut);
        let client = Postgres::shared().await.connect("postgres").await;
        let end = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}'", self.name);
        eventually("no connection to the database", async || {
            let ended = client.query(&end, &[]).await.unwrap();
            ended.is_empty().then_some(())
        })
        .await;
        client
    }

    /// Makes a backup of the database. Returns its name.
    pub async fn back_up(&mut self) -> String {
        self.backups += 1;
        let backup = format!("{}_backup_{}", self.name, self.backups);
        let client = self.cut_off().await;
        // A node that did not notice would use sessions that have ended.
        for node in &self.nodes {
            eventually("a node without its store", async || {
                let health = node.request(Method::GET, "/api/health", None, None).await;
                (health.json["status"] != "healthy").then_some(())
            })
            .await;
        }
        client.batch_execute(&format!("CREATE DATABASE {backup} TEMPLATE {}", self.name)).await.unwrap();
        self.proxy.set(Link::Open);
        self.settled().await;
        backup
    }

    /// Puts a backup in the place of the database, with these further statements.
    pub async fn restore(&mut self, backup: &str, statements: &str) {
        self.backups += 1;
        let lost = format!("{}_lost_{}", self.name, self.backups);
        let client = self.cut_off().await;
        let restored = Postgres::shared().await.connect(backup).await;
        restored.batch_execute(statements).await.unwrap();
        drop(restored);
        client.batch_execute(&format!("ALTER DATABASE {} RENAME TO {lost}", self.name)).await.unwrap();
        let rename = format!("ALTER DATABASE {backup} RENAME TO {}", self.name);
        eventually("the backup in place", async || client.batch_execute(&rename).await.ok()).await;
        self.proxy.set(Link::Open);
    }

    /// Replaces the server by another one, to which new connections lead from now on; those that are open end.
    pub fn replace(&mut self, server: Postgres) {
        self.proxy.lead_to(server.address());
        self.proxy.drop_connections();
        self.server = Some(server);
    }

    /// Waits until every node works with the store.
    pub async fn settled(&self) {
        for node in &self.nodes {
            eventually("a node with its store", async || {
                let health = node.request(Method::GET, "/api/health", None, None).await;
                (health.json["status"] == "healthy").then_some(())
            })
            .await;
        }
    }

    /// A connection to the database that does not count as one of the nodes.
    pub async fn sql(&self) -> tokio_postgres::Client {
        match &self.server {
            Some(server) => server.connect(&self.name).await,
            None => Postgres::shared().await.connect(&self.name).await,
        }
    }

    /// Alice says something over REST, on the node with this number. Repeats the call while the store is away.
    pub async fn say(&self, number: usize, conversation: &str, content: &str) -> i64 {
        self.say_as("alice", number, conversation, content).await
    }

    pub async fn say_as(&self, user: &str, number: usize, conversation: &str, content: &str) -> i64 {
        let path = format!("/api/chat/conversations/{conversation}/messages");
        let body = json!({"content": content, "client_id": format!("id-{content}").replace(' ', "-")});
        eventually("an accepted message", async || {
            let answer = self.at(number).post(&path, &token(user), &body).await;
            assert!(answer.status.is_success() || answer.status == 503, "{content}: {}", answer.text);
            answer.status.is_success().then(|| answer.json["seq"].as_i64().unwrap())
        })
        .await
    }

    /// The messages of a conversation as the store has them.
    pub async fn stored(&self, conversation: &str) -> BTreeMap<i64, String> {
        let sql = "SELECT seq, content FROM log WHERE log = $1 AND kind = 0";
        let rows = self.sql().await.query(sql, &[&conversation]).await.unwrap();
        rows.iter().map(|row| (row.get(0), row.get(1))).collect()
    }

    /// Number of times that nodes told listeners to resync.
    pub async fn resyncs(&self) -> f64 {
        let mut sum = 0.0;
        for node in &self.nodes {
            sum += node.metrics().await.get("switchboard_resyncs_total").unwrap();
        }
        sum
    }
}

/// Adds entries to a log as a node would, for [`Scene::restore`].
pub fn appended(log: &str, contents: &[&str]) -> String {
    let append = |content: &&str| {
        format!(
            "SELECT append_messages(ARRAY['{log}'], ARRAY['alice'], ARRAY['Alice'], ARRAY['{id}'], ARRAY[true], \
             ARRAY[true], ARRAY['{content}'], ARRAY[NULL]::bigint[], ARRAY[false], ARRAY[NULL]::text[], \
             ARRAY[NULL]::text[], false, ARRAY[NULL]::bigint[]);",
            id = rand::random::<u32>()
        )
    };
    contents.iter().map(append).collect()
}

/// The dialect of an [`Ear`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speech {
    Native,
    Rooms,
    Conversation,
    Personas,
    Direct,
}

/// Those dialects that listen to groups.
pub const GROUPS: [Speech; 4] = [Speech::Native, Speech::Rooms, Speech::Conversation, Speech::Personas];

/// A client that listens to one conversation.
pub struct Ear {
    pub speech: Speech,
    user: String,
    client: Client,
    conversation: String,
    /// What it has: messages by their seq.
    pub has: BTreeMap<i64, String>,
    /// What it heard live since the last resync, in order.
    pub heard: Vec<(i64, String)>,
    /// The heads of the resyncs.
    pub resyncs: Vec<i64>,
}

impl Ear {
    /// Connects a user, and joins the conversation after `since` if that is given.
    pub async fn open(node: &Node, speech: Speech, user: &str, conversation: &str, since: Option<i64>) -> Self {
        let open = async || Self::try_open(node, speech, user, conversation, since).await;
        eventually("a socket that listens", open).await
    }

    /// None while the store is away.
    async fn try_open(node: &Node, speech: Speech, user: &str, conversation: &str, since: Option<i64>) -> Option<Self> {
        let token = token(user);
        let query = since.map_or_else(String::new, |since| format!("&since_seq={since}"));
        let url = match speech {
            Speech::Native => format!("/v1/ws?token={token}"),
            Speech::Rooms => format!("/ws/{conversation}?token={token}{query}"),
            Speech::Conversation => format!("/api/chat/ws/{conversation}?token={token}{query}"),
            Speech::Personas => format!("/ws/auth?token={token}"),
            Speech::Direct => "/ws".into(),
        };
        let client = Client::connect(&format!("{}{url}", node.ws())).await;
        let (has, heard, resyncs) = (BTreeMap::new(), Vec::new(), Vec::new());
        let mut ear =
            Self { speech, user: user.into(), client, conversation: conversation.into(), has, heard, resyncs };
        match speech {
            Speech::Rooms => ear.greeted("connected").await?,
            Speech::Conversation => ear.greeted("system").await?,
            Speech::Direct => {
                ear.client.send(&json!({"type": "authenticate", "token": token})).await;
                ear.greeted("authenticated").await?;
            }
            Speech::Native | Speech::Personas => {
                let kind = if speech == Speech::Native { "join" } else { "join_conversation" };
                let mut join = json!({"type": kind, "conversation_id": conversation});
                if let Some(since) = since {
                    join["since_seq"] = since.into();
                }
                ear.client.send(&join).await;
                loop {
                    let frame = ear.client.recv_or_close().await.ok()?;
                    if frame["type"] == "error" {
                        assert_eq!(frame["code"], "unavailable", "{frame}");
                        return None;
                    }
                    ear.take(&frame);
                    if ["joined", "conversation_joined", "resync"].contains(&frame["type"].as_str().unwrap()) {
                        break;
                    }
                }
            }
        }
        Some(ear)
    }

    /// Reads to the greeting; none if the socket is closed, as it is while the store is away.
    async fn greeted(&mut self, kind: &str) -> Option<()> {
        loop {
            if self.client.recv_or_close().await.ok()?["type"] == kind {
                return Some(());
            }
        }
    }

    /// Takes a frame of the conversation.
    fn take(&mut self, frame: &Value) {
        let parts = [frame, &frame["data"], &frame["message"]];
        let kind = frame["type"].as_str().unwrap();
        if kind == "resync" {
            let head = parts.iter().find_map(|part| part["head"].as_i64()).unwrap();
            self.resyncs.push(head);
            self.has.clear();
            self.heard.clear();
        } else if kind == "message" || kind == "new_message" {
            let part = parts.into_iter().find(|part| part["seq"].is_i64()).unwrap();
            let (seq, content) = (part["seq"].as_i64().unwrap(), part["content"].as_str().unwrap().to_owned());
            self.heard.push((seq, content.clone()));
            self.has.insert(seq, content);
        }
    }

    /// Reads frames until this message comes.
    pub async fn until(&mut self, content: &str) {
        while self.heard.last().is_none_or(|(_, last)| last != content) {
            let frame = self.client.recv().await;
            self.take(&frame);
        }
    }

    /// Reads frames until a resync comes.
    pub async fn until_resync(&mut self) {
        let before = self.resyncs.len();
        while self.resyncs.len() == before {
            let frame = self.client.recv().await;
            self.take(&frame);
        }
    }

    /// As [`Self::until_resync`], if none came yet.
    pub async fn until_resync_or_now(&mut self) {
        if self.resyncs.is_empty() {
            self.until_resync().await;
        }
    }

    /// Takes all frames that the node has queued.
    pub async fn drain(&mut self) {
        for frame in self.client.drain().await {
            self.take(&frame);
        }
    }

    /// After a resync, a client reads over REST what it lacks. It repeats the call while the store is away.
    pub async fn read_anew(&mut self, node: &Node) {
        let path = format!("/api/chat/conversations/{}/messages?limit=100", self.conversation);
        let read = eventually("the messages of the conversation", async || {
            let answer = node.get(&path, &token(&self.user)).await;
            assert!(answer.status == 200 || answer.status == 503, "{}", answer.text);
            (answer.status == 200).then_some(answer.json)
        })
        .await;
        for message in read["messages"].as_array().unwrap() {
            let content = message["content"].as_str().unwrap().to_owned();
            self.has.insert(message["seq"].as_i64().unwrap(), content);
        }
    }

    /// What was heard since the last resync has no gap and no repetition, and every message has this text.
    pub fn expect_heard(&self, contents: &[&str]) {
        let heard: Vec<&str> = self.heard.iter().map(|(_, content)| content.as_str()).collect();
        assert_eq!(heard, contents, "{:?} after resyncs {:?}", self.speech, self.resyncs);
        let rising = self.heard.windows(2).all(|pair| pair[0].0 < pair[1].0);
        assert!(rising, "{:?}: {:?}", self.speech, self.heard);
    }
}
