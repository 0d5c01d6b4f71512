//! Admins keep users out: disconnect, revoke, block. On two nodes, in every dialect, over REST, by the command line.

mod attacks;
mod audit;
mod cli;
mod outages;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Answer, Client, Node, Postgres, RedisServer, token, token_with};

/// The user who is kept out, as in a token and as in a path.
const BOB: &str = "auth0|bob";
const BOB_IN_PATH: &str = "auth0%7Cbob";

/// Closes of the native dialect and of the others.
type Closes = [(u16, &'static str); 2];
const DISCONNECTED: Closes = [(4410, "Disconnected by an administrator"), (1008, "Disconnected by an administrator")];
const REVOKED: Closes = [(4401, "Token revoked"), (1008, "Token revoked")];
const BLOCKED: Closes = [(4403, "Blocked by an administrator"), (1008, "Blocked by an administrator")];

/// Two nodes and their servers.
struct Cluster {
    redis: RedisServer,
    database: String,
    one: Node,
    two: Node,
}

impl Cluster {
    async fn new() -> Self {
        let redis = RedisServer::start().await;
        let database = Postgres::shared().await.database().await;
        let (one, two) = (node(&redis, &database).await, node(&redis, &database).await);
        Self { redis, database, one, two }
    }

    fn nodes(&self) -> [&Node; 2] {
        [&self.one, &self.two]
    }
}

async fn node(redis: &RedisServer, database: &str) -> Node {
    let node = Node::serve(&redis.url(), database).set("MAX_CONNECTIONS_PER_USER", 100);
    node.set("MAX_SOCKETS_PER_USER", 1_000).start().await
}

fn admin() -> String {
    token_with("root", json!({"role": "admin"}))
}

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

/// A token of BOB that was issued `offset` seconds from now.
fn issued(offset: i64) -> String {
    token_with(BOB, json!({"iat": now() + offset}))
}

async fn change(node: &Node, method: Method, action: &str, body: Option<&Value>) -> Answer {
    let path = format!("/api/admin/users/{BOB_IN_PATH}/{action}");
    let answer = node.request(method, &path, Some(&admin()), body).await;
    assert!(answer.status.is_success(), "{action}: {}", answer.text);
    answer
}

async fn disconnect(node: &Node) -> Answer {
    change(node, Method::POST, "disconnect", None).await
}

async fn revoke(node: &Node, body: Value) -> Answer {
    change(node, Method::POST, "revoke", Some(&body)).await
}

async fn block(node: &Node) -> Answer {
    change(node, Method::PUT, "block", None).await
}

async fn unblock(node: &Node) -> Answer {
    change(node, Method::DELETE, "block", None).await
}

/// The sockets of BOB in every dialect on a node, the native one first.
async fn sockets(node: &Node, token: &str) -> Vec<Client> {
    let mut sockets = Vec::new();
    for path in ["/v1/ws", "/ws", "/ws/auth", "/ws/lobby", "/api/chat/ws/lobby"] {
        sockets.push(open(node, path, token).await);
    }
    for socket in &mut sockets {
        socket.recv().await;
    }
    sockets
}

/// A socket without its greeting. The direct dialect gets the token in the first frame.
async fn open(node: &Node, path: &str, token: &str) -> Client {
    if path != "/ws" {
        return Client::connect(&format!("{}{path}?token={token}", node.ws())).await;
    }
    let mut client = Client::connect(&format!("{}{path}", node.ws())).await;
    client.send(&json!({"type": "authenticate", "token": token})).await;
    client
}

async fn expect_closes(sockets: &mut [Client], [native, others]: Closes) {
    for (at, socket) in sockets.iter_mut().enumerate() {
        let (code, reason) = socket.expect_close().await;
        assert_eq!((code, &*reason), if at % 5 == 0 { native } else { others }, "socket {at}");
    }
}

/// Expects that a token of BOB is refused in every way, on a node that knows the restriction.
async fn expect_refused(node: &Node, token: &str, closes: Closes) {
    let (status, code) = if closes == BLOCKED { (403, "blocked") } else { (401, "token_revoked") };
    for (method, path) in [(Method::GET, "/api/connections/info"), (Method::POST, "/api/websocket/token")] {
        let answer = node.request(method, path, Some(token), None).await;
        assert_eq!((answer.status.as_u16(), answer.json["code"].as_str()), (status, Some(code)), "{}", answer.text);
        assert_eq!(answer.headers.contains_key("www-authenticate"), status == 401);
    }
    let mut sockets = Vec::new();
    for path in ["/v1/ws", "/ws", "/ws/auth", "/ws/lobby", "/api/chat/ws/lobby"] {
        sockets.push(open(node, path, token).await);
    }
    expect_closes(&mut sockets, closes).await;
    let mut first_frame = Client::connect(&format!("{}/v1/ws", node.ws())).await;
    first_frame.send(&json!({"type": "authenticate", "token": token})).await;
    let (code, reason) = first_frame.expect_close().await;
    assert_eq!((code, &*reason), closes[0]);
}

/// Waits until a node refuses the token over REST with this code.
async fn until_code(node: &Node, token: &str, code: Option<&str>) {
    let refused = async || {
        let answer = node.get("/api/connections/info", token).await;
        (answer.json["code"].as_str() == code).then_some(())
    };
    crate::support::eventually(&format!("the node to answer {code:?}"), refused).await;
}

#[tokio::test]
async fn the_users_sockets_of_every_dialect_end_on_all_nodes() {
    let cluster = Cluster::new().await;
    let (mut native, mut alice) =
        (Client::native(&cluster.one, BOB).await, Client::native(&cluster.two, "alice").await);
    alice.join("lobby").await;
    native.close().await;
    for (at, (closes, action, offset)) in
        [(DISCONNECTED, "disconnect", 0), (REVOKED, "revoke", 0), (BLOCKED, "block", 4)].into_iter().enumerate()
    {
        // After the revocation, only a token that is issued later counts.
        let token = issued(offset);
        let mut open = Vec::new();
        for node in cluster.nodes() {
            open.extend(sockets(node, &token).await);
        }
        // Either node takes the change.
        let node = cluster.nodes()[at % 2];
        match action {
            "disconnect" => drop(disconnect(node).await),
            "revoke" => drop(revoke(node, json!({})).await),
            _ => drop(block(node).await),
        }
        expect_closes(&mut open, closes).await;
    }
    for node in cluster.nodes() {
        for (reason, count) in [("disconnected", 5.0), ("token_revoked", 5.0), ("blocked", 5.0)] {
            let series = format!(r#"switchboard_closes_total{{reason="{reason}"}}"#);
            node.metric(&series, |closes| closes >= count).await;
        }
        assert_eq!(node.metrics().await.get("switchboard_restrictions"), Some(2.0));
    }
    assert!(alice.drain().await.iter().all(|frame| frame["type"] != "error"), "others stay connected");
    native = Client::native(&cluster.one, "carol").await;
    native.close().await;
}

#[tokio::test]
async fn a_disconnected_user_may_come_back_at_once() {
    let cluster = Cluster::new().await;
    let token = issued(0);
    let mut before = sockets(&cluster.one, &token).await;
    let first = disconnect(&cluster.one).await.json;
    assert_eq!((&first["user_id"], &first["by"]), (&json!(BOB), &json!("root")), "{first}");
    expect_closes(&mut before, DISCONNECTED).await;
    let mut after = sockets(&cluster.one, &token).await;
    // The node reads its own change from the store too.
    block_and_unblock_carol(&cluster.two).await;
    until_code(&cluster.one, &token_with("carol", json!({})), None).await;
    for socket in &mut after {
        socket.drain().await;
    }
    assert_eq!(disconnect(&cluster.two).await.json["by"], "root", "without sockets there, and again");
    expect_closes(&mut after, DISCONNECTED).await;
}

async fn block_and_unblock_carol(node: &Node) {
    for (method, status) in [(Method::PUT, 200), (Method::DELETE, 204)] {
        let answer = node.request(method, "/api/admin/users/carol/block", Some(&admin()), None).await;
        assert_eq!(answer.status, status, "{}", answer.text);
    }
}

#[tokio::test]
async fn revoked_tokens_are_refused_everywhere_and_newer_ones_accepted() {
    let cluster = Cluster::new().await;
    let (old, without_time) = (issued(-100), token_with(BOB, json!({"iat": null})));
    // A derived token is as old as its source.
    let derived =
        cluster.one.post("/api/websocket/token", &old, &json!({})).await.json["token"].as_str().unwrap().to_owned();
    let revoked = revoke(&cluster.one, json!({})).await.json;
    let until: jiff::Timestamp = revoked["issued_until"].as_str().unwrap().parse().unwrap();
    assert_eq!(until.subsec_nanosecond(), 0, "a whole second, as in tokens: {revoked}");
    let same_second = token_with(BOB, json!({"iat": until.as_second()}));
    let newer = token_with(BOB, json!({"iat": until.as_second() + 1}));
    until_code(&cluster.two, &old, Some("token_revoked")).await;
    for node in cluster.nodes() {
        for token in [&old, &without_time, &derived, &same_second] {
            expect_refused(node, token, REVOKED).await;
        }
        sockets(node, &newer).await;
        until_code(node, &newer, None).await;
        until_code(node, &token("bob"), None).await;
    }
    // FLUSHALL and restarts change nothing.
    let () = cluster.redis.command(&["FLUSHALL"]).await;
    cluster.two.kill().await;
    let restarted = node(&cluster.redis, &cluster.database).await;
    for node in [&cluster.one, &restarted] {
        expect_refused(node, &old, REVOKED).await;
        until_code(node, &newer, None).await;
    }
    // Another time: earlier ones change nothing, later ones are the rule.
    let earlier = revoke(&restarted, json!({"issued_until": "2020-01-01T00:00:00Z"})).await.json;
    assert_eq!(earlier["issued_until"], revoked["issued_until"], "the later revocation stands");
    let future = json!({"issued_until": "2999-01-01T00:00:00Z"});
    let path = format!("/api/admin/users/{BOB_IN_PATH}/revoke");
    let refused = restarted.post(&path, &admin(), &future).await;
    assert_eq!((refused.status.as_u16(), refused.json["code"].as_str()), (400, Some("invalid")), "{}", refused.text);
}

/// A token without `iat` is revoked by the time of the revocation, so that time must be the one of the last.
#[tokio::test]
async fn a_revocation_is_recorded_anew_after_half_an_hour() {
    let cluster = Cluster::new().await;
    let without_time = token_with(BOB, json!({"iat": null}));
    let name = cluster.database.rsplit('/').next().unwrap();
    let database = Postgres::shared().await.connect(name).await;
    for body in [json!({"issued_until": "2020-01-01T00:00:00Z"}), json!({"jti": "t-1"})] {
        let first = revoke(&cluster.one, body.clone()).await.json;
        assert_eq!(revoke(&cluster.two, body.clone()).await.json, first, "a repeat changes nothing");
        database
            .execute("UPDATE restriction_changes SET made_at = made_at - interval '31 minutes' WHERE standing", &[])
            .await
            .unwrap();
        let again = revoke(&cluster.two, body).await.json;
        assert!(again["at"].as_str() > first["at"].as_str(), "{again} {first}");
        assert_eq!(
            (&again["issued_until"], &again["jti"], &again["user_id"]),
            (&first["issued_until"], &first["jti"], &first["user_id"])
        );
    }
    for node in cluster.nodes() {
        until_code(node, &without_time, Some("token_revoked")).await;
        node.metric("switchboard_restrictions", |count| count == 2.0).await;
    }
}

#[tokio::test]
async fn one_token_is_revoked_by_its_id() {
    let cluster = Cluster::new().await;
    let [one, other] = ["t|1/ä", "t-2"].map(|jti| token_with(BOB, json!({"jti": jti})));
    let of_another = token_with("carol", json!({"jti": "t|1/ä"}));
    let derived =
        cluster.one.post("/api/websocket/token", &one, &json!({})).await.json["token"].as_str().unwrap().to_owned();
    let mut on_one = sockets(&cluster.two, &one).await;
    let mut on_other = sockets(&cluster.two, &other).await;
    for node in cluster.nodes() {
        let answer = revoke(node, json!({"jti": "t|1/ä"})).await.json;
        assert_eq!((&answer["jti"], answer.get("issued_until")), (&json!("t|1/ä"), None), "{answer}");
    }
    expect_closes(&mut on_one, REVOKED).await;
    for socket in &mut on_other {
        socket.drain().await;
    }
    for node in cluster.nodes() {
        until_code(node, &one, Some("token_revoked")).await;
        expect_refused(node, &one, REVOKED).await;
        expect_refused(node, &derived, REVOKED).await;
        until_code(node, &of_another, None).await;
    }
}

#[tokio::test]
async fn a_block_holds_until_it_is_ended_and_its_first_admin_is_shown() {
    let cluster = Cluster::new().await;
    let token = issued(0);
    let state = async |node: &Node| node.get(&format!("/api/admin/users/{BOB_IN_PATH}/block"), &admin()).await.json;
    assert_eq!(state(&cluster.one).await, json!({"user_id": BOB, "blocked": false}));
    let first = block(&cluster.one).await.json;
    let second = token_with("second", json!({"roles": ["admin"]}));
    let path = format!("/api/admin/users/{BOB_IN_PATH}/block");
    let again = cluster.two.request(Method::PUT, &path, Some(&second), None).await;
    assert_eq!((again.status.as_u16(), &again.json), (200, &first), "the first block stands");
    let expected = json!({"user_id": BOB, "blocked": true, "at": first["at"], "by": "root"});
    for node in cluster.nodes() {
        assert_eq!(state(node).await, expected);
        until_code(node, &token, Some("blocked")).await;
        expect_refused(node, &token, BLOCKED).await;
        expect_refused(node, &issued(1), BLOCKED).await;
    }
    let list = cluster.two.get("/api/admin/blocks?limit=10", &admin()).await.json;
    assert_eq!(list, json!({"blocks": [first], "total": 1, "limit": 10, "offset": 0}));
    for _ in 0..2 {
        assert_eq!(unblock(&cluster.two).await.status, 204);
    }
    for node in cluster.nodes() {
        until_code(node, &token, None).await;
        sockets(node, &token).await;
    }
    assert_eq!(cluster.one.get("/api/admin/blocks", &admin()).await.json["total"], 0);
}

#[tokio::test]
async fn the_bound_is_a_clear_refusal() {
    let redis = RedisServer::start().await;
    let database = Postgres::shared().await.database().await;
    let node = Node::serve(&redis.url(), &database).set("MAX_REVOCATIONS", 2).start().await;
    block(&node).await;
    revoke(&node, json!({"jti": "t-1"})).await;
    for (method, action) in [(Method::PUT, "block"), (Method::POST, "revoke")] {
        let path = format!("/api/admin/users/carol/{action}");
        let refused = node.request(method, &path, Some(&admin()), None).await;
        assert_eq!((refused.status.as_u16(), refused.json["code"].as_str()), (409, Some("conflict")));
        assert!(refused.json["detail"].as_str().unwrap().contains("MAX_REVOCATIONS"), "{}", refused.text);
    }
    until_code(&node, &token("carol"), None).await;
    block(&node).await;
    disconnect(&node).await;
    unblock(&node).await;
    let blocked = node.request(Method::PUT, "/api/admin/users/carol/block", Some(&admin()), None).await;
    assert_eq!(blocked.status, 200, "there is room again: {}", blocked.text);
    let metrics = node.metrics().await;
    assert_eq!(metrics.get("switchboard_restrictions"), Some(2.0));
    assert_eq!(metrics.get("switchboard_restrictions_limit"), Some(2.0));
}

#[tokio::test]
async fn a_token_that_lives_too_long_is_refused() {
    let node = Node::dev().set("TOKEN_LIFETIME_MAX", "1h").set("TOKEN_TTL", "30m").start().await;
    until_code(&node, &token("alice"), None).await;
    for claims in [json!({"exp": now() + 3_700}), json!({"exp": now() + 3_700, "iat": null})] {
        let answer = node.get("/api/connections/info", &token_with("alice", claims)).await;
        assert_eq!(answer.status, 401);
        assert!(answer.json["detail"].as_str().unwrap().contains("TOKEN_LIFETIME_MAX"), "{}", answer.text);
    }
}

#[tokio::test]
async fn a_dev_node_keeps_users_out_too() {
    let node = Node::dev().start().await;
    let mut open = Client::connect(&format!("{}/ws/bob", node.ws())).await;
    open.expect("online_users").await;
    let path = "/api/admin/users/bob/block";
    assert_eq!(node.request(Method::PUT, path, Some(&admin()), None).await.status, 200);
    assert_eq!(open.expect_close().await, (1008, "Blocked by an administrator".to_owned()));
    let mut again = Client::connect(&format!("{}/ws/bob", node.ws())).await;
    assert_eq!(again.expect_close().await, (1008, "Blocked by an administrator".to_owned()), "also without a token");
    assert_eq!(node.request(Method::DELETE, path, Some(&admin()), None).await.status, 204);
    Client::connect(&format!("{}/ws/bob", node.ws())).await.expect("online_users").await;
}
