//! PostgreSQL dies, hangs, restarts, or is cut off between commit and answer: nothing is acked that is not stored, nothing
//! stored is lost or doubled, and whatever needs no store goes on.

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
    ear::Ear,
    scene::{TEAM, assert_read, brisk, listener, status, until_offline, until_status},
};
use crate::support::{Client, Link, Node, Postgres, Proxy, RedisServer, eventually};

/// The longest until all is well, once PostgreSQL answers again.
const HEALED: Duration = Duration::from_secs(5);

/// What happens to PostgreSQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// Every process of it is killed at once; it is started again.
    Killed,
    /// Frozen: connections stay open, nothing answers.
    Frozen,
    /// Every connection is ended by an administrator, again and again.
    Terminated,
    /// Requests reach it, answers are lost with their connections, and for a while nobody gets through.
    CutOff,
}

/// How a conversation goes on.
#[derive(Debug, Default)]
struct Talk {
    stop: AtomicBool,
    /// Messages acked so far.
    acked: AtomicUsize,
}

/// Two nodes on one PostgreSQL, reached over a link that can break.
struct Pair {
    postgres: Postgres,
    ear: Ear,
    proxy: Proxy,
    nodes: [Node; 2],
    database: String,
    talk: Arc<Talk>,
    _redis: RedisServer,
}

impl Pair {
    async fn start() -> Self {
        let redis = RedisServer::start().await;
        // A process that is killed loses nothing that the kernel has; only a power cut would.
        let postgres = Postgres::start(&[("fsync", "off")]).await;
        let database = postgres.database().await;
        let server = database.split([':', '/']).rev().nth(1).unwrap().parse().unwrap();
        let ear = Ear::before(server, "say-").await;
        let proxy = Proxy::to(format!("127.0.0.1:{}", ear.port())).await;
        let url = proxy.url(&database);
        let start = || brisk(&redis.url(), &url).start();
        let nodes = tokio::join!(start(), start()).into();
        Self { postgres, ear, proxy, nodes, database, talk: Arc::default(), _redis: redis }
    }

    /// A connection of the test's own, for looking at rows.
    async fn rows(&self) -> tokio_postgres::Client {
        self.postgres.connect(self.database.rsplit('/').next().unwrap()).await
    }

    /// The messages as they are stored.
    async fn stored(&self) -> BTreeMap<i64, String> {
        let rows = self.rows().await.query("SELECT seq, content FROM log WHERE log = $1 AND kind = 0", &[&TEAM]).await;
        rows.unwrap().iter().map(|row| (row.get(0), row.get(1))).collect()
    }

    async fn both(&self, wanted: &str) {
        tokio::join!(until_status(&self.nodes[0], wanted), until_status(&self.nodes[1], wanted));
    }

    async fn strike(&mut self, fault: Fault) {
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
                self.ear.deafen();
                // On each node something is stored of which no answer came.
                eventually("two commits without an ack", || async {
                    let acked = self.talk.acked.load(Ordering::Acquire);
                    (self.stored().await.len() == acked + 2).then_some(())
                })
                .await;
                self.proxy.set(Link::Cut);
            }
        }
    }

    async fn mend(&mut self, fault: Fault) {
        match fault {
            Fault::Killed => self.postgres.restart().await,
            Fault::Frozen => self.postgres.resume(),
            Fault::Terminated => {}
            Fault::CutOff => {
                self.ear.heal();
                self.proxy.set(Link::Open);
            }
        }
    }
}

/// What somebody said until it was acked.
#[derive(Debug, Default)]
struct Said {
    acked: BTreeMap<i64, String>,
    /// How often they were told to try again.
    refused: usize,
    /// The longest wait for any answer.
    slowest: Duration,
}

/// The answer to a send.
async fn answer(client: &mut Client, id: &str) -> Value {
    let frame = json!({"type": "send", "conversation_id": TEAM, "content": id, "client_id": id, "ref": id});
    client.send(&frame).await;
    client.until_where(|frame| frame["ref"] == id).await
}

/// Says one thing after the other until told to stop, each again and again under the same `client_id` until it is acked.
async fn insist(speaker: &mut Client, talk: &Talk) -> Said {
    let (mut said, who) = (Said::default(), speaker.greeting["user_id"].as_str().unwrap().to_owned());
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

/// What goes on without a store: sockets, typing, presence; and a send is refused at once.
async fn what_goes_on(sender: &mut Client, leaver: Client, watcher: &mut Client) {
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

/// Goes through a fault while people insist on what they say.
async fn endure(fault: Fault) {
    let mut pair = Pair::start().await;
    let [one, two] = &pair.nodes;
    let (mut alice, mut dave) = (listener(one, "alice").await, listener(two, "dave").await);
    let mut readers = [listener(one, "bob").await, listener(two, "carol").await];
    let (mut erin, frank, mut wade) =
        (listener(one, "erin").await, listener(one, "frank").await, listener(two, "wade").await);
    let talk = pair.talk.clone();
    let talking = async { tokio::join!(insist(&mut alice, &talk), insist(&mut dave, &talk)) };
    let outage = async {
        let struck = Instant::now();
        pair.strike(fault).await;
        let mut noticed = None;
        if fault != Fault::Terminated {
            pair.both("degraded").await;
            noticed = Some(struck.elapsed());
            what_goes_on(&mut erin, frank, &mut wade).await;
        }
        pair.mend(fault).await;
        let mended = Instant::now();
        pair.both("healthy").await;
        let healthy = mended.elapsed();
        pair.talk.stop.store(true, Ordering::Release);
        (noticed, healthy)
    };
    let (said, (noticed, healthy)) = tokio::join!(talking, outage);
    let said = <[Said; 2]>::from(said);
    let (slowest, refused) = (said.iter().map(|said| said.slowest).max(), said.iter().map(|said| said.refused));
    let refused: Vec<_> = refused.collect();
    eprintln!("{fault:?}: noticed {noticed:?}, slowest answer {slowest:?}, refused {refused:?}, healthy {healthy:?}");
    assert!(healthy < HEALED, "{fault:?}: healthy after {healthy:?}");

    let acked: BTreeMap<_, _> = said.into_iter().flat_map(|said| said.acked).collect();
    assert_eq!(pair.stored().await, acked, "what was acked is what is stored, and nothing else");
    for reader in &mut readers {
        assert_read(reader, &acked).await;
    }
    let (seq, id) = acked.last_key_value().unwrap();
    let speaker = if id.starts_with("say-alice") { &mut alice } else { &mut dave };
    let again = answer(speaker, id).await;
    assert_eq!((&again["seq"], &again["duplicate"]), (&json!(seq), &json!(true)), "{again}");
}

#[tokio::test]
async fn a_postgres_that_fails_loses_and_doubles_nothing() {
    tokio::join!(endure(Fault::Killed), endure(Fault::Frozen), endure(Fault::Terminated), endure(Fault::CutOff),);
}

/// Cut off between commit and answer for longer than the node asks again: nobody knows, and a retry settles it.
#[tokio::test]
async fn what_nobody_could_know_is_settled_by_a_retry() {
    let pair = Pair::start().await;
    let [one, two] = &pair.nodes;
    let (mut alice, mut bob) = (listener(one, "alice").await, listener(two, "bob").await);
    pair.ear.deafen();
    let asked = Instant::now();
    let cut = async {
        eventually("the commit", || async { (!pair.stored().await.is_empty()).then_some(()) }).await;
        pair.proxy.set(Link::Cut);
    };
    let (told, ()) = tokio::join!(answer(&mut alice, "say-perhaps"), cut);
    eprintln!("cut off for good: told after {:?}", asked.elapsed());
    assert_eq!((&told["code"], &told["retryable"]), (&json!("unknown"), &json!(true)), "{told}");
    assert_eq!(status(one).await, "degraded");
    pair.ear.heal();
    pair.proxy.set(Link::Open);
    pair.both("healthy").await;
    let ack = answer(&mut alice, "say-perhaps").await;
    assert_eq!((&ack["type"], &ack["duplicate"]), (&json!("ack"), &json!(true)), "{ack}");
    let stored = pair.stored().await;
    assert_eq!(stored, [(ack["seq"].as_i64().unwrap(), "say-perhaps".to_owned())].into());
    // It was stored, so it is delivered after all.
    assert_read(&mut bob, &stored).await;
}
