//! PostgreSQL dies, hangs, restarts, or is cut off between commit and answer: every acked message is stored, no stored
//! message is lost or doubled, and functions that need no store go on.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{
    answer_blocker::AnswerBlocker,
    scene::{TEAM, assert_read, listener, node_with_short_times, status, until_offline, until_status},
};
use crate::support::{Client, Link, Node, Postgres, Proxy, RedisServer, allowed, eventually};

/// Maximum time from PostgreSQL's first answer until the nodes are healthy.
const RECOVERED_WITHIN: Duration = Duration::from_secs(5);

/// A fault of PostgreSQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// All of its processes are killed at once; it is started again.
    Killed,
    /// Frozen: connections stay open, nothing answers.
    Frozen,
    /// An administrator ends every connection, repeatedly.
    Terminated,
    /// Requests reach it, answers are lost with their connections, and for a while no connection passes.
    CutOff,
}

/// Progress of a conversation.
#[derive(Debug, Default)]
struct Talk {
    stop: AtomicBool,
    /// Number of messages acked so far.
    acked: AtomicUsize,
}

/// Two nodes on one PostgreSQL, reached over a link that can break.
struct Pair {
    postgres: Postgres,
    answer_blocker: AnswerBlocker,
    proxy: Proxy,
    nodes: [Node; 2],
    database: String,
    talk: Arc<Talk>,
    _redis: RedisServer,
}

impl Pair {
    async fn start() -> Self {
        let redis = RedisServer::start().await;
        // A killed process loses nothing that the kernel has; only a power cut would.
        let postgres = Postgres::start(&[("fsync", "off")]).await;
        let database = postgres.database().await;
        let server = database.split([':', '/']).rev().nth(1).unwrap().parse().unwrap();
        let answer_blocker = AnswerBlocker::before(server, "say-").await;
        let proxy = Proxy::to(format!("127.0.0.1:{}", answer_blocker.port())).await;
        let url = proxy.url(&database);
        let start = || node_with_short_times(&redis.url(), &url).start();
        let nodes = tokio::join!(start(), start()).into();
        Self { postgres, answer_blocker, proxy, nodes, database, talk: Arc::default(), _redis: redis }
    }

    /// Connects to the database, to look at rows.
    async fn rows(&self) -> tokio_postgres::Client {
        self.postgres.connect(self.database.rsplit('/').next().unwrap()).await
    }

    /// Returns the stored messages.
    async fn stored(&self) -> BTreeMap<i64, String> {
        let rows = self.rows().await.query("SELECT seq, content FROM log WHERE log = $1 AND kind = 0", &[&TEAM]).await;
        rows.unwrap().iter().map(|row| (row.get(0), row.get(1))).collect()
    }

    async fn both(&self, wanted: &str) {
        tokio::join!(until_status(&self.nodes[0], wanted), until_status(&self.nodes[1], wanted));
    }

    async fn begin_fault(&mut self, fault: Fault) {
        match fault {
            Fault::Killed => self.postgres.kill().await,
            Fault::Frozen => self.postgres.pause(),
            Fault::Terminated => {
                let client = self.rows().await;
                let others = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                     WHERE datname = current_database() AND pid <> pg_backend_pid()";
                for _ in 0..20 {
                    let ended: i64 = client.query_one(others, &[]).await.unwrap().get(0);
                    assert!(ended >= 0);
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
            Fault::CutOff => {
                self.answer_blocker.block();
                // On each node a commit is done without an answer.
                eventually("two commits without an ack", || async {
                    let acked = self.talk.acked.load(Ordering::Acquire);
                    (self.stored().await.len() == acked + 2).then_some(())
                })
                .await;
                self.proxy.set(Link::Cut);
            }
        }
    }

    async fn end_fault(&mut self, fault: Fault) {
        match fault {
            Fault::Killed => self.postgres.restart().await,
            Fault::Frozen => self.postgres.resume(),
            Fault::Terminated => {}
            Fault::CutOff => {
                self.answer_blocker.unblock();
                self.proxy.set(Link::Open);
            }
        }
    }
}

/// Messages that a user sent until they were acked.
#[derive(Debug, Default)]
struct Sent {
    acked: BTreeMap<i64, String>,
    /// Number of refusals with a retry.
    refused: usize,
    /// Longest wait for an answer.
    slowest: Duration,
}

/// Returns the answer to a send.
async fn answer(client: &mut Client, id: &str) -> Value {
    let frame = json!({"type": "send", "conversation_id": TEAM, "content": id, "client_id": id, "ref": id});
    client.send(&frame).await;
    client.until_where(|frame| frame["ref"] == id).await
}

/// Sends messages one after the other until told to stop; repeats each with the same `client_id` until it is acked.
async fn send_until_acked(speaker: &mut Client, talk: &Talk) -> Sent {
    let (mut said, who) = (Sent::default(), speaker.greeting["user_id"].as_str().unwrap().to_owned());
    let mut pace = tokio::time::interval(Duration::from_millis(20));
    while !talk.stop.load(Ordering::Acquire) {
        let id = format!("say-{who}-{}", said.acked.len());
        loop {
            pace.tick().await;
            let asked = Instant::now();
            let answer = answer(speaker, &id).await;
            said.slowest = said.slowest.max(asked.elapsed());
            if answer["type"] == "ack" {
                said.acked.insert(answer["seq"].as_i64().unwrap(), id);
                talk.acked.fetch_add(1, Ordering::AcqRel);
                break;
            }
            assert!(["unavailable", "unknown"].contains(&answer["code"].as_str().unwrap()), "{answer}");
            assert_eq!((&answer["retryable"], &answer["client_id"]), (&json!(true), &json!(id)));
            said.refused += 1;
        }
    }
    said
}

/// Checks the functions that need no store: sockets, typing, presence. A send is refused at once.
async fn assert_storeless_functions(sender: &mut Client, leaver: Client, watcher: &mut Client) {
    let refused = answer(sender, "given-up").await;
    assert_eq!((&refused["code"], &refused["retryable"]), (&json!("unavailable"), &json!(true)), "{refused}");
    sender.send(&json!({"type": "typing", "conversation_id": TEAM, "active": true})).await;
    watcher.until_where(|frame| frame["type"] == "typing" && frame["user_id"] == sender_of(sender)).await;
    let gone = leaver.greeting["user_id"].as_str().unwrap().to_owned();
    drop(leaver);
    until_offline(watcher, &gone).await;
}

fn sender_of(client: &Client) -> Value {
    client.greeting["user_id"].clone()
}

/// Goes through a fault while users send and repeat messages.
async fn endure(fault: Fault) {
    let mut pair = Pair::start().await;
    let [one, two] = &pair.nodes;
    let (mut alice, mut dave) = (listener(one, "alice").await, listener(two, "dave").await);
    let mut readers = [listener(one, "bob").await, listener(two, "carol").await];
    let (mut erin, frank, mut wade) =
        (listener(one, "erin").await, listener(one, "frank").await, listener(two, "wade").await);
    let talk = pair.talk.clone();
    let talking = async { tokio::join!(send_until_acked(&mut alice, &talk), send_until_acked(&mut dave, &talk)) };
    let outage = async {
        let struck = Instant::now();
        pair.begin_fault(fault).await;
        let mut noticed = None;
        if fault != Fault::Terminated {
            pair.both("degraded").await;
            noticed = Some(struck.elapsed());
            assert_storeless_functions(&mut erin, frank, &mut wade).await;
        }
        pair.end_fault(fault).await;
        let mended = Instant::now();
        pair.both("healthy").await;
        let healthy = mended.elapsed();
        pair.talk.stop.store(true, Ordering::Release);
        (noticed, healthy)
    };
    let (said, (noticed, healthy)) = tokio::join!(talking, outage);
    let said = <[Sent; 2]>::from(said);
    let (slowest, refused) = (said.iter().map(|said| said.slowest).max(), said.iter().map(|said| said.refused));
    let refused: Vec<_> = refused.collect();
    eprintln!("{fault:?}: noticed {noticed:?}, slowest answer {slowest:?}, refused {refused:?}, healthy {healthy:?}");
    assert!(healthy < allowed(RECOVERED_WITHIN), "{fault:?}: healthy after {healthy:?}");

    let acked: BTreeMap<_, _> = said.into_iter().flat_map(|said| said.acked).collect();
    assert_eq!(pair.stored().await, acked, "exactly the acked messages are stored");
    for reader in &mut readers {
        assert_read(reader, &acked).await;
    }
    let (seq, id) = acked.last_key_value().unwrap();
    let speaker = if id.starts_with("say-alice") { &mut alice } else { &mut dave };
    let mut again = answer(speaker, id).await;
    while again["code"] == "unavailable" {
        again = answer(speaker, id).await;
    }
    assert_eq!((&again["seq"], &again["duplicate"]), (&json!(seq), &json!(true)), "{again}");
}

#[tokio::test]
async fn a_failing_postgres_loses_and_doubles_no_message() {
    tokio::join!(endure(Fault::Killed), endure(Fault::Frozen), endure(Fault::Terminated), endure(Fault::CutOff),);
}

/// Cut off between commit and answer for longer than the node retries: the outcome is unknown, and the client's retry
/// settles it.
#[tokio::test]
async fn a_retry_settles_an_unknown_outcome() {
    let pair = Pair::start().await;
    let [one, two] = &pair.nodes;
    let (mut alice, mut bob) = (listener(one, "alice").await, listener(two, "bob").await);
    pair.answer_blocker.block();
    let asked = Instant::now();
    let cut = async {
        eventually("the commit", || async { (!pair.stored().await.is_empty()).then_some(()) }).await;
        pair.proxy.set(Link::Cut);
    };
    let (told, ()) = tokio::join!(answer(&mut alice, "say-perhaps"), cut);
    eprintln!("cut off for good: answered after {:?}", asked.elapsed());
    assert_eq!((&told["code"], &told["retryable"]), (&json!("unknown"), &json!(true)), "{told}");
    assert_eq!(status(one).await, "degraded");
    pair.answer_blocker.unblock();
    pair.proxy.set(Link::Open);
    pair.both("healthy").await;
    let ack = answer(&mut alice, "say-perhaps").await;
    assert_eq!((&ack["type"], &ack["duplicate"]), (&json!("ack"), &json!(true)), "{ack}");
    let stored = pair.stored().await;
    assert_eq!(stored, [(ack["seq"].as_i64().unwrap(), "say-perhaps".to_owned())].into());
    // The message was stored, so it is delivered.
    assert_read(&mut bob, &stored).await;
}

/// One node's connections are dropped silently, as by a firewall; the server and new connections work. A call asks the server
/// after a second and goes on over a new connection.
#[tokio::test]
async fn connections_that_fall_silent_delay_sends_by_less_than_three_seconds() {
    const MAX: Duration = Duration::from_secs(3);
    let redis = RedisServer::start().await;
    let database = Postgres::shared().await.database().await;
    let server = database.split('@').next_back().unwrap().split('/').next().unwrap();
    let proxy = Proxy::to(server).await;
    let one = node_with_short_times(&redis.url(), &proxy.url(&database)).start().await;
    let (mut alice, mut bob) = (listener(&one, "alice").await, listener(&one, "bob").await);
    let mut figures = Vec::new();
    // On a busy machine a round may take longer, because the server starts a process late; without the cure all would.
    while figures.iter().filter(|(took, health)| *took < allowed(MAX) && health == "healthy").count() < 3 {
        let round = figures.len();
        assert!(round < 10, "{figures:?}");
        for warm in 0..5 {
            alice.send_text(TEAM, &format!("warm {round} {warm}")).await;
            bob.until("message").await;
        }
        proxy.strand();
        let struck = Instant::now();
        let content = format!("stranded {round}");
        let ack = alice.send_text(TEAM, &content).await;
        let took = struck.elapsed();
        let message = bob.until("message").await;
        assert_eq!((&message["seq"], &message["content"]), (&ack["seq"], &json!(content)));
        // One node's connections are no outage.
        figures.push((took, status(&one).await));
        until_status(&one, "healthy").await;
    }
    eprintln!("stranded connections: acked after {figures:?}");
}

/// A slow server raises no alarm: a send that waits for a lock goes on waiting on its connection.
#[tokio::test]
async fn a_call_that_the_server_still_works_on_is_not_given_up() {
    let redis = RedisServer::start().await;
    let database = Postgres::shared().await.database().await;
    let one = node_with_short_times(&redis.url(), &database).start().await;
    let mut alice = listener(&one, "alice").await;
    alice.send_text(TEAM, "first").await;
    let mut client = Postgres::shared().await.connect(database.rsplit('/').next().unwrap()).await;
    let lock = client.transaction().await.unwrap();
    lock.execute("SELECT FROM heads WHERE log = $1 FOR UPDATE", &[&TEAM]).await.unwrap();
    let asked = Instant::now();
    let (ack, ()) = tokio::join!(alice.send_text(TEAM, "behind a lock"), async {
        tokio::time::sleep(Duration::from_millis(1_600)).await;
        lock.rollback().await.unwrap();
    });
    assert!(ack["seq"].is_i64() && asked.elapsed() >= Duration::from_millis(1_600), "{ack}");
    assert!(!one.log().iter().any(|line| line.contains("got no answer")), "the session is not given up");
}
