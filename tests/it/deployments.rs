//! Two deployments, each with a database of its own, on one Redis: production and staging have the same users and
//! conversations. With other database numbers or prefixes they share nothing; on the same keys one of them is kept off.

use reqwest::Method;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::support::{
    Client, Link, Node, NodeBuilder, Postgres, Proxy, RedisServer, SECRET, eventually, token, token_with, within,
};

/// The routes of all dialects, the native one first.
const ROUTES: [&str; 5] = ["/v1/ws", "/ws", "/ws/auth", "/ws/team", "/api/chat/ws/team"];
/// A word in everything that production's users write.
const SECRET_WORD: &str = "production";

/// A deployment's place on the Redis, and its database.
struct Place {
    url: String,
    prefix: &'static str,
    database: String,
}

impl Place {
    async fn on(redis: &RedisServer, number: u8, prefix: &'static str) -> Self {
        let database = Postgres::shared().await.database().await;
        Self { url: format!("{}{number}", redis.url()), prefix, database }
    }

    /// Both places have nodes of the same names, as in a copied configuration.
    async fn node(&self, name: &str) -> Node {
        self.builder(name).start().await
    }

    fn builder(&self, name: &str) -> NodeBuilder {
        let node = Node::serve(&self.url, &self.database).set("REDIS_PREFIX", self.prefix).set("NODE_ID", name);
        node.set("MESSAGE_RATE_LIMIT", 20).set("NODE_LEASE", "3s").set("PRESENCE_GRACE", "0s")
    }

    /// Runs `switchboard check`; returns its output and exit code.
    async fn check(&self) -> (String, i32) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_switchboard"));
        command.arg("check").env_clear().env("JWT_SECRET", SECRET).env("REDIS_PREFIX", self.prefix);
        command.env("REDIS_URL", &self.url).env("DATABASE_URL", &self.database);
        let done = within("the check", command.output()).await.unwrap();
        (String::from_utf8(done.stdout).unwrap(), done.status.code().unwrap())
    }

    /// The tag of this deployment, as `check` shows it.
    async fn tag(&self) -> String {
        let (printed, _) = self.check().await;
        let (_, rest) = printed.split_once("this is deployment ").unwrap_or_else(|| panic!("{printed}"));
        rest[..12].to_owned()
    }
}

/// A socket of a user in each dialect, which listens to `team`.
async fn sockets(node: &Node, user: &str) -> Vec<Client> {
    let mut sockets = Vec::new();
    for path in ROUTES {
        let mut socket = if path == "/ws" {
            let mut socket = Client::connect(&format!("{}/ws", node.ws())).await;
            socket.send(&json!({"type": "authenticate", "token": token(user)})).await;
            socket
        } else {
            Client::connect(&format!("{}{path}?token={}", node.ws(), token(user))).await
        };
        socket.greeting = socket.recv().await;
        match path {
            "/v1/ws" => drop(socket.join("team").await),
            "/ws/auth" => {
                socket.send(&json!({"type": "join_conversation", "conversation_id": "team"})).await;
                socket.until("conversation_joined").await;
            }
            _ => {}
        }
        sockets.push(socket);
    }
    sockets
}

/// Alice's life in a deployment: messages, typing, an event, a direct message, read marks. Returns her first message's seq.
async fn lead_a_life(alice: &mut Client, word: &str) -> Value {
    let seq = alice.send_text("team", &format!("{word} 1")).await["seq"].clone();
    for n in 2..=4 {
        alice.send_text("team", &format!("{word} {n}")).await;
    }
    for frame in [
        json!({"type": "typing", "conversation_id": "team", "active": true}),
        json!({"type": "event", "conversation_id": "team", "name": "cursor", "data": {"word": word}}),
        json!({"type": "event", "user_id": "bob", "name": "call", "data": {"word": word}}),
        json!({"type": "send", "recipient_id": "bob", "content": format!("{word} to you"), "client_id": "d", "ref": "d"}),
    ] {
        alice.send(&frame).await;
    }
    alice.until_where(|frame| frame["ref"] == "d" && frame["type"] == "ack").await;
    seq
}

/// Reads a socket until it was told a text; returns all frames, that one last.
async fn read_until(socket: &mut Client, text: &str) -> Vec<Value> {
    let mut frames = Vec::new();
    socket
        .until_where(|frame| {
            frames.push(frame.clone());
            frame.to_string().contains(text)
        })
        .await;
    frames
}

async fn refused(node: &Node) -> f64 {
    node.metrics().await.sum("switchboard_redis_refused_total")
}

/// The users who are online, sorted.
async fn online(node: &Node) -> Vec<String> {
    let users = node.get("/api/websocket/users/online", &token("alice")).await.json["users"].clone();
    let mut users: Vec<String> = serde_json::from_value(users).unwrap();
    users.sort();
    users
}

/// Staging lives beside production, on other keys of the same Redis.
async fn they_share_nothing(redis: &RedisServer, production: &Place, staging: &Place) {
    let (one, two) = (production.node("one").await, production.node("two").await);
    let (staged, other_staged) = (staging.node("one").await, staging.node("two").await);
    // Bob is in both, with a socket of each dialect; some users are in one of them only.
    let mut in_production = sockets(&two, "bob").await;
    let mut in_staging = sockets(&staged, "bob").await;
    let mut alice = Client::native(&one, "alice").await;
    let begun = alice.join("team").await["head"].clone();
    let _only_in_production = Client::native(&one, "user-of-production").await;
    let first = lead_a_life(&mut alice, SECRET_WORD).await;
    for (path, socket) in ROUTES.iter().zip(&mut in_production) {
        // The direct dialect shows direct messages only.
        let text = if *path == "/ws" { "production to you" } else { "production 4" };
        read_until(socket, text).await;
    }
    // Production's limit on alice, its block of carol and its caches are its own.
    for n in 5..=19 {
        alice.send_text("team", &format!("{SECRET_WORD} {n}")).await;
    }
    alice
        .send(&json!({"type": "send", "conversation_id": "team", "content": SECRET_WORD, "client_id": "x", "ref": "x"}))
        .await;
    assert_eq!(alice.until("error").await["code"], "rate_limited");
    let mut carol = Client::native(&staged, "carol").await;
    let admin = token_with("root", json!({"role": "admin"}));
    let blocked = one.request(Method::PUT, "/api/admin/users/carol/block", Some(&admin), None).await;
    assert!(blocked.status.is_success(), "{}", blocked.text);

    let mut staged_alice = Client::native(&other_staged, "alice").await;
    assert_eq!(staged_alice.join("team").await["head"], begun);
    assert_eq!(lead_a_life(&mut staged_alice, "rehearsal").await, first);
    for (path, socket) in ROUTES.iter().zip(&mut in_staging) {
        let text = if *path == "/ws" { "rehearsal to you" } else { "rehearsal 4" };
        let frames = read_until(socket, text).await;
        let told = Value::from(frames).to_string();
        assert!(!told.contains(SECRET_WORD), "{path}: {told}");
    }
    assert!(carol.drain().await.iter().all(|frame| !frame.to_string().contains(SECRET_WORD)), "carol is not closed");
    let mut resumed = Client::native(&other_staged, "bob").await;
    resumed.send(&json!({"type": "join", "conversation_id": "team", "since_seq": 0, "ref": 1})).await;
    let missed = Value::from(read_until(&mut resumed, "rehearsal 4").await).to_string();
    assert!(missed.contains("rehearsal 1") && !missed.contains(SECRET_WORD), "{missed}");
    assert_eq!(online(&other_staged).await, ["alice", "bob", "carol"]);
    assert_eq!(online(&two).await, ["alice", "bob", "user-of-production"]);
    for node in [&one, &two, &staged, &other_staged] {
        let health = node.admin_get("/api/health").await.json;
        assert_eq!(health["status"], "healthy", "{health}");
        assert_eq!(refused(node).await, 0.0, "{:?}", node.log());
    }
    // A node that starts names those that were there; the check of each names the other one, and no fault.
    let named = format!("also used by deployment {} (nodes one, two)", production.tag().await);
    staged.logged(&named).await;
    for (place, other) in [(production, staging), (staging, production)] {
        let (printed, code) = place.check().await;
        let named = format!("also used by deployment {} (nodes one, two)", other.tag().await);
        assert!(code == 0 && printed.contains(&named), "{named}: {printed}");
    }
    let everything: Vec<String> = redis.command(&["PUBSUB", "CHANNELS"]).await;
    let (ours, theirs) = (production.tag().await, staging.tag().await);
    assert!(everything.iter().all(|channel| channel.contains(&ours) || channel.contains(&theirs)), "{everything:?}");
}

#[tokio::test]
async fn deployments_on_two_database_numbers_share_nothing() {
    let redis = RedisServer::start().await;
    they_share_nothing(&redis, &Place::on(&redis, 0, "").await, &Place::on(&redis, 1, "").await).await;
}

#[tokio::test]
async fn deployments_with_two_prefixes_share_nothing() {
    let redis = RedisServer::start().await;
    they_share_nothing(&redis, &Place::on(&redis, 0, "").await, &Place::on(&redis, 0, "staging").await).await;
    let keys: Vec<String> = redis.command(&["KEYS", "*"]).await;
    let staged = keys.iter().filter(|key| key.starts_with("staging:ws:")).count();
    assert!(staged >= 5 && keys.iter().any(|key| key == "staging:room_messages:team"), "{keys:?}");
}

#[tokio::test]
async fn a_deployment_on_the_keys_of_another_one_is_kept_off_until_that_is_gone() {
    let redis = RedisServer::start().await;
    let (production, staging) = (Place::on(&redis, 0, "").await, Place::on(&redis, 0, "").await);
    let one = production.node("production-1").await;
    let mut bob = Client::native(&one, "bob").await;
    bob.join("team").await;

    let (staged, other_staged) = (staging.node("staging-1").await, staging.node("staging-2").await);
    let tag = production.tag().await;
    for node in [&staged, &other_staged] {
        let warned = node.logged("\"fault\":\"redis-shared\"").await;
        assert!(
            warned.contains(&tag) && warned.contains("production-1") && warned.contains("REDIS_PREFIX"),
            "{warned}"
        );
        node.metric(r#"switchboard_fault{fault="redis-shared"}"#, |stands| stands == 1.0).await;
        node.metric(r#"switchboard_degraded{part="redis"}"#, |down| down == 1.0).await;
        let health = node.admin_get("/api/health").await.json;
        assert_eq!(
            (&health["status"], &health["works"]["fanout"]),
            (&json!("degraded"), &json!("relayed")),
            "{health}"
        );
    }
    // Staging's nodes reach each other through their database.
    let mut staged_bob = Client::native(&staged, "bob").await;
    staged_bob.join("team").await;
    let mut alice = Client::native(&other_staged, "alice").await;
    alice.join("team").await;
    let ack = alice.send_text("team", "rehearsal").await;
    assert_eq!(staged_bob.until("message").await["id"], ack["id"]);
    // Production notices nothing.
    let two = production.node("production-2").await;
    let mut alice_in_production = Client::native(&two, "alice").await;
    alice_in_production.join("team").await;
    alice_in_production.send_text("team", "production").await;
    assert_eq!(bob.until("message").await["content"], "production");
    assert_eq!(online(&one).await, ["alice", "bob"]);
    for node in [&one, &two] {
        assert_eq!(node.admin_get("/api/health").await.json["status"], "healthy");
        assert_eq!(refused(node).await, 0.0);
    }
    let (printed, code) = staging.check().await;
    assert!(code == 1 && printed.contains("FAIL  Redis: redis-shared: ") && printed.contains(&tag), "{printed}");
    let (printed, code) = production.check().await;
    assert!(code == 0 && !printed.contains("redis-shared"), "{printed}");

    // Production moves away: staging goes on by itself, without what production left.
    for node in [&one, &two] {
        assert_eq!(node.terminate().await, 0);
    }
    for node in [&staged, &other_staged] {
        node.metric(r#"switchboard_fault{fault="redis-shared"}"#, |stands| stands == 0.0).await;
        node.metric(r#"switchboard_degraded{part="redis"}"#, |down| down == 0.0).await;
    }
    let foreign = r#"switchboard_redis_refused_total{place="foreign"}"#;
    let counted = async |node: &Node| node.metrics().await.get(foreign).unwrap();
    assert!(counted(&staged).await + counted(&other_staged).await > 0.0);
    assert_eq!(
        refused(&staged).await + refused(&other_staged).await,
        counted(&staged).await + counted(&other_staged).await
    );
    eventually("staging's users, and nobody else", async || (online(&staged).await == ["alice", "bob"]).then_some(()))
        .await;
    alice.send(&json!({"type": "typing", "conversation_id": "team", "active": true})).await;
    staged_bob.until("typing").await;
    let (printed, code) = staging.check().await;
    assert!(code == 0, "{printed}");
}

#[tokio::test]
async fn a_copy_of_production_beside_it_is_kept_off_too() {
    let redis = RedisServer::start().await;
    let production = Place::on(&redis, 0, "").await;
    production.node("one").await.terminate().await;
    let name = production.database.rsplit('/').next().unwrap();
    let admin = Postgres::shared().await.connect("postgres").await;
    admin.batch_execute(&format!("CREATE DATABASE {name}_copy TEMPLATE {name}")).await.unwrap();
    let copy = |number: u8| Place {
        url: format!("{}{number}", redis.url()),
        prefix: "",
        database: format!("{}_copy", production.database),
    };
    let one = production.node("one").await;
    let kept_off = copy(0).node("copy").await;
    kept_off.logged("\"fault\":\"redis-shared\"").await;
    // On another database number it has the same keys of nodes as its original, and hears nothing of it.
    let beside = copy(1).node("copy").await;
    let mut bob = Client::native(&beside, "bob").await;
    bob.join("team").await;
    let mut alice = Client::native(&one, "alice").await;
    alice.join("team").await;
    alice.send_text("team", "production").await;
    let mut alice = Client::native(&beside, "alice").await;
    alice.join("team").await;
    alice.send_text("team", "rehearsal").await;
    assert_eq!(bob.until("message").await["content"], "rehearsal");
}

#[tokio::test]
async fn check_names_nodes_of_the_deployment_with_other_keys() {
    let redis = RedisServer::start().await;
    let place = Place::on(&redis, 0, "").await;
    let _right = place.node("right").await;
    let (printed, _) = place.check().await;
    assert!(!printed.contains("another database number"), "{printed}");
    let astray = Place { url: place.url.clone(), prefix: "astray", database: place.database.clone() };
    let _astray = astray.node("astray-1").await;
    let (printed, code) = place.check().await;
    assert!(code == 1 && printed.contains("FAIL  Redis: redis-split: node astray-1: alive"), "{printed}");
}

/// An operator puts a restored copy into the place of the database: it is another deployment, under the eyes of the nodes.
#[tokio::test]
async fn nodes_go_on_as_another_deployment_when_their_database_is_replaced() {
    let redis = RedisServer::start().await;
    let database = Postgres::shared().await.database().await;
    let (server, name) = database.split_once('@').unwrap().1.split_once('/').unwrap();
    let proxy = Proxy::to(server).await;
    let place = Place { url: redis.url(), prefix: "", database: proxy.url(&database) };
    let (one, two) = (place.node("one").await, place.node("two").await);
    let (mut alice, mut bob) = (Client::native(&one, "alice").await, Client::native(&two, "bob").await);
    alice.join("team").await;
    bob.join("team").await;
    let before = place.tag().await;

    proxy.set(Link::Cut);
    let admin = Postgres::shared().await.connect("postgres").await;
    let end = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'");
    eventually("no connection to the database", async || {
        admin.query(&end, &[]).await.unwrap().is_empty().then_some(())
    })
    .await;
    admin.batch_execute(&format!("CREATE DATABASE {name}_copy TEMPLATE {name}")).await.unwrap();
    admin.batch_execute(&format!("ALTER DATABASE {name} RENAME TO {name}_old")).await.unwrap();
    admin.batch_execute(&format!("ALTER DATABASE {name}_copy RENAME TO {name}")).await.unwrap();
    proxy.set(Link::Open);

    let after = eventually("another tag", async || Some(place.tag().await).filter(|tag| *tag != before)).await;
    eventually("both nodes with the new tag", async || {
        let leases: Vec<String> = redis.command(&["ZRANGE", "ws:nodes", "0", "-1"]).await;
        let new = leases.iter().filter(|lease| lease.contains(&format!("#{after}."))).count();
        (new == 2 && leases.len() == 3).then_some(())
    })
    .await;
    for node in [&one, &two] {
        node.metric(r#"switchboard_degraded{part="redis"}"#, |down| down == 0.0).await;
    }
    eventually("both users online", async || (online(&one).await == ["alice", "bob"]).then_some(())).await;
    alice.send_text("team", "hello").await;
    assert_eq!(bob.until("message").await["content"], "hello");
}
