//! Floods of searches, histories and large conversations: sends of others go on, and health tells slow reads from a
//! store that is down.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::{
    count,
    support::{Client, Node, NodeBuilder, Postgres, RedisServer, connect_to_postgres, eventually, token},
};

/// Duration of a flood.
const FLOOD: Duration = Duration::from_secs(4);
/// Maximum latency of a send during a flood. The bounds of the store's waits are longer, so a send that waits for the
/// reads fails here.
const PATIENCE: Duration = Duration::from_millis(1_500);
/// The same on a busy machine, as a multiple of the slowest send before the flood.
const PATIENCE_RATIO: u32 = 10;

/// Every word contains the searched one and none equals it, so each message passes the cheap filter and must be split.
const HEAVY_TEXT: &str = "xneedle ";
const HEAVY_SEARCH: &str = "/api/chat/search?q=needle&conversation_id=wall";
const HEAVY_HISTORY: &str = "/api/chat/conversations/wall/messages?limit=100";

/// Makes a conversation of `members` with 1,000 messages of 5,000 characters.
async fn fill_wall(node: &Node, database: &str, members: &[String]) {
    fill_wall_with(node, database, members, 5).await;
}

/// Makes a conversation of `members` with this many times 200 messages of 5,000 characters.
async fn fill_wall_with(node: &Node, database: &str, members: &[String], batches: usize) {
    let body = json!({"id": "wall", "name": "wall", "is_group": true, "participant_ids": members});
    let made = node.post("/api/chat/conversations", &token("mallory"), &body).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    let client = connect_to_postgres(database).await;
    for batch in 0..batches {
        let fill = format!(
            "SELECT count(append_messages) FROM (SELECT append_messages(array_agg('wall'::text), array_agg('mallory'::text), \
                array_agg('Mallory'::text), array_agg('{batch}-' || i), array_agg(true), array_agg(true), \
                array_agg(repeat('{HEAVY_TEXT}', 625)), array_agg(NULL::bigint), array_agg(false), NULL, NULL, false, NULL) \
             FROM generate_series(1, 200) i) stored"
        );
        client.batch_execute(&fill).await.unwrap();
    }
}

/// A node on Redis and PostgreSQL without a search index, so that a search reads every message.
async fn node(set: impl FnOnce(NodeBuilder) -> NodeBuilder) -> (RedisServer, String, Arc<Node>) {
    let redis = RedisServer::start().await;
    let database = Postgres::shared().await.database().await;
    let builder = Node::serve(&redis.url(), &database).set("SEARCH_INDEX", false).set("MAX_CONNECTIONS_PER_USER", 100);
    let node = set(builder).start().await;
    (redis, database, Arc::new(node))
}

/// What happened during a flood: answers by status and code; the sends' latencies; the answers of health.
#[derive(Debug, Default)]
struct Flood {
    answers: BTreeMap<(u16, String), usize>,
    slowest_send: Duration,
    sends: usize,
    health: Vec<Value>,
}

impl Flood {
    fn count(&self, status: u16, code: &str) -> usize {
        self.answers.get(&(status, code.to_owned())).copied().unwrap_or(0)
    }
}

/// One client of a flood: a user, and the requests that it repeats in turn: paths to read, or paths and bodies to post.
struct Flooder {
    user: String,
    requests: Vec<(String, Option<Value>)>,
}

impl Flooder {
    fn reading(user: impl Into<String>, paths: &[&str]) -> Self {
        Self { user: user.into(), requests: paths.iter().map(|path| ((*path).to_owned(), None)).collect() }
    }

    /// Repeats the requests until `stop`; returns status and code of each answer.
    async fn run(self, node: Arc<Node>, stop: Arc<AtomicBool>) -> Vec<(u16, String)> {
        let (token, mut answers) = (token(&self.user), Vec::new());
        for (path, body) in self.requests.iter().cycle() {
            if stop.load(Ordering::Acquire) {
                break;
            }
            let answer = match body {
                Some(body) => node.post(path, &token, body).await,
                None => node.get(path, &token).await,
            };
            if answer.status == StatusCode::TOO_MANY_REQUESTS || answer.status == StatusCode::SERVICE_UNAVAILABLE {
                assert!(answer.json["retry_after_ms"].as_u64().is_some(), "{}", answer.text);
                assert!(answer.headers.contains_key("retry-after"), "{}", answer.text);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            answers.push((answer.status.as_u16(), answer.json["code"].as_str().unwrap_or_default().to_owned()));
        }
        answers
    }
}

/// Runs the flooders at once, while an honest user sends over REST and over a socket, and health is asked. Every send must
/// succeed.
async fn flood(node: &Arc<Node>, flooders: impl IntoIterator<Item = Flooder>) -> Flood {
    let mut bob = Client::native(node, "bob").await;
    bob.join("honest").await;
    let mut before = Duration::ZERO;
    for _ in 0..50 {
        let sent = Instant::now();
        bob.send_text("honest", "before").await;
        before = before.max(sent.elapsed());
    }
    let stop = Arc::new(AtomicBool::new(false));
    let mut floods = JoinSet::new();
    for flooder in flooders {
        floods.spawn(flooder.run(node.clone(), stop.clone()));
    }
    let mut result = Flood::default();
    let mut carol = Client::native(node, "carol").await;
    carol.join("made-during-the-flood").await;
    let began = Instant::now();
    while began.elapsed() < FLOOD {
        let sent = Instant::now();
        let path = "/api/chat/conversations/honest/messages";
        let answer = node.post(path, &token("bob"), &json!({"content": "hello"})).await;
        assert_eq!(answer.status, StatusCode::CREATED, "send {}: {}", result.sends, answer.text);
        let over_rest = sent.elapsed();
        let sent = Instant::now();
        bob.send(&json!({"type": "send", "conversation_id": "honest", "content": "hi", "ref": result.sends})).await;
        let mine = result.sends;
        let answer = bob.until_where(|frame| frame["ref"] == mine).await;
        assert_eq!(answer["type"], "ack", "{answer}");
        result.slowest_send = result.slowest_send.max(over_rest).max(sent.elapsed());
        result.sends += 1;
        result.health.push(node.request(reqwest::Method::GET, "/api/health", None, None).await.json);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stop.store(true, Ordering::Release);
    for answer in floods.join_all().await.into_iter().flatten() {
        *result.answers.entry(answer).or_default() += 1;
    }
    println!("{} sends, at most {:?}; the flood got {:?}", 2 * result.sends, result.slowest_send, result.answers);
    let patience = PATIENCE.max(before * PATIENCE_RATIO);
    assert!(result.slowest_send < patience, "a send took {:?}, and {before:?} before", result.slowest_send);
    result
}

#[tokio::test(flavor = "multi_thread")]
async fn one_users_searches_and_histories_starve_nobody() {
    let (_redis, database, node) = node(|node| node).await;
    fill_wall(&node, &database, &[]).await;
    let searches = (0..20).map(|_| Flooder::reading("mallory", &[HEAVY_SEARCH, HEAVY_HISTORY]));
    let flood = flood(&node, searches).await;
    assert!(flood.count(429, "rate_limited") > 0, "one user has too many reads at a time");
    assert_eq!(flood.count(503, "overloaded"), 0, "reads of others would not be refused");
    assert!(flood.health.iter().all(|health| health["status"] == "healthy"), "{:?}", flood.health.last());
    assert!(count(&node, "switchboard_heavy_read_refusals_total").await > 0.0);
    assert_eq!(count(&node, r#"switchboard_store_pool_refused_total{pool="append"}"#).await, 0.0);
    for series in ["switchboard_heavy_reads", "switchboard_heavy_reads_waiting"] {
        node.metric(series, |running| running == 0.0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_of_many_users_are_refused_while_sends_go_on_and_health_says_so() {
    // Small bounds, so that the flood of a test reaches them.
    let few =
        |node: NodeBuilder| node.set("DATABASE_POOL_SIZE", 7).set("STORE_QUEUE", 20).set("HEAVY_READ_WAIT", "300ms");
    let (_redis, database, node) = node(few).await;
    let members: Vec<String> = (0..60).map(|number| format!("reader-{number}")).collect();
    fill_wall(&node, &database, &members).await;
    let reads = members.into_iter().map(|member| Flooder::reading(member, &[HEAVY_SEARCH, HEAVY_HISTORY]));
    let flood = flood(&node, reads).await;
    assert!(flood.count(503, "overloaded") > 0, "{:?}", flood.answers);
    assert!(flood.count(200, "") > 0, "{:?}", flood.answers);
    let slow: Vec<_> = flood.health.iter().filter(|health| health["status"] != "healthy").collect();
    let last = slow.last().expect("health says that reads are refused");
    for health in &slow {
        assert_eq!(health["status"], "degraded", "{health}");
        assert_eq!(health["reasons"], json!(["slow_reads"]), "{health}");
        assert_eq!(health["components"]["store"]["status"], "up", "{health}");
    }
    assert_eq!((&last["works"]["append"], &last["works"]["history"]), (&json!("shared"), &json!("limited")));
    let refused = |pool: &str| format!(r#"switchboard_store_pool_refused_total{{pool="{pool}"}}"#);
    assert!(count(&node, &refused("search")).await > 0.0);
    for pool in ["append", "ping", "relay", "write"] {
        assert_eq!(count(&node, &refused(pool)).await, 0.0, "{pool}");
    }
    let healthy = async || {
        let health = node.request(reqwest::Method::GET, "/api/health", None, None).await.json;
        (health["status"] == "healthy" && health["reasons"] == json!([])).then_some(())
    };
    eventually("health to recover", healthy).await;
    node.metric("switchboard_slow_reads", |slow| slow == 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn creators_of_large_conversations_starve_nobody() {
    let (_redis, _database, node) = node(|node| node).await;
    let members: Vec<String> = (0..1_000).map(|number| format!("member-{number}")).collect();
    let body = json!({"name": "large", "is_group": true, "participant_ids": members});
    let creators = (0..20).map(|creator| Flooder {
        user: format!("creator-{creator}"),
        requests: vec![("/api/chat/conversations".to_owned(), Some(body.clone()))],
    });
    let flood = flood(&node, creators).await;
    assert!(flood.count(201, "") > 0, "{:?}", flood.answers);
    assert!(flood.health.iter().all(|health| health["components"]["store"]["status"] == "up"));
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_starve_nobody_on_sqlite() {
    let node = Arc::new(Node::dev().set("MAX_CONNECTIONS_PER_USER", 100).start().await);
    let mut mallory = Client::native(&node, "mallory").await;
    mallory.join("wall").await;
    let text = HEAVY_TEXT.repeat(625);
    for number in 0..200 {
        mallory.send(&json!({"type": "send", "conversation_id": "wall", "content": text, "ref": number})).await;
    }
    mallory.until_where(|frame| frame["ref"] == 199).await;
    let reads = (0..50).map(|_| Flooder::reading("mallory", &[HEAVY_HISTORY, "/api/chat/search?q=x"]));
    // These are refused after the check of their membership.
    let strangers = (0..50).map(|number| Flooder::reading(format!("stranger-{number}"), &[HEAVY_HISTORY]));
    let reads = reads.chain(strangers);
    let flood = flood(&node, reads).await;
    assert!(flood.count(200, "") > 0 && flood.count(429, "rate_limited") > 0, "{:?}", flood.answers);
    assert!(flood.health.iter().all(|health| health["components"]["store"]["status"] == "up"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limit_on_a_users_reads_holds_over_sockets() {
    let one = |node: NodeBuilder| node.set("HEAVY_READS_PER_USER", 1).set("HEAVY_READ_QUEUE_PER_USER", 1);
    let (_redis, database, node) = node(one).await;
    fill_wall(&node, &database, &[]).await;
    let mut sockets = Vec::new();
    for _ in 0..4 {
        sockets.push(Client::native(&node, "mallory").await);
    }
    let mut answers = JoinSet::new();
    for mut socket in sockets {
        answers.spawn(async move {
            socket.send(&json!({"type": "search", "words": "needle", "conversation_id": "wall", "ref": 1})).await;
            socket.until_where(|frame| frame["ref"] == 1).await
        });
    }
    let answers = answers.join_all().await;
    let refused: Vec<_> = answers.iter().filter(|answer| answer["code"] == "rate_limited").collect();
    assert!(!refused.is_empty(), "{answers:?}");
    for refusal in refused {
        assert_eq!(refusal["retryable"], true, "{refusal}");
        assert!(refusal["retry_after_ms"].as_u64().is_some(), "{refusal}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_that_takes_too_long_is_refused_clearly() {
    let (_redis, database, node) = node(|node| node.set("HEAVY_READ_TIMEOUT", "100ms")).await;
    fill_wall_with(&node, &database, &[], 40).await;
    let answer = node.get(HEAVY_SEARCH, &token("mallory")).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{}", answer.text);
    assert_eq!(answer.json["code"], "too_slow", "{}", answer.text);
    let answer = node.get(HEAVY_HISTORY, &token("mallory")).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
}
