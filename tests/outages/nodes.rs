//! Nodes die, freeze and come back: no user stays online as a ghost, a late unregister erases no newer connection, and
//! every departure is reported once to every listener.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{
    answer_blocker::AnswerBlocker,
    scene::{
        TEAM, assert_read, listener, node_with_short_times, presence, remaining_frames, until_offline, until_status,
    },
};
use crate::support::{Client, Link, NodeBuilder, Postgres, Proxy, RedisServer, Signal, allowed, eventually};

const LEASE: Duration = Duration::from_secs(3);

/// Nodes on one Redis and one database.
struct Cluster {
    redis: RedisServer,
    database: String,
}

impl Cluster {
    async fn start() -> Self {
        Self { redis: RedisServer::start().await, database: Postgres::shared().await.database().await }
    }

    fn node(&self) -> NodeBuilder {
        node_with_short_times(&self.redis.url(), &self.database).set("PRESENCE_GRACE", "1s")
    }

    /// Number of a user's connections in the registry.
    async fn connections(&self, user: &str) -> usize {
        let lines: Option<String> = self.redis.command(&["HGET", &format!("ws:conns:{user}"), "c"]).await;
        lines.unwrap_or_default().lines().count()
    }

    /// Waits until `nodes` nodes have a lease and no departure is pending; then no report is outstanding.
    async fn settled(&self, nodes: usize) {
        eventually("the registry to settle", || async {
            // One member of the set holds the epoch.
            let leases: usize = self.redis.command(&["ZCARD", "ws:nodes"]).await;
            let leaving: usize = self.redis.command(&["ZCARD", "ws:leaving"]).await;
            (leases == nodes + 1 && leaving == 0).then_some(())
        })
        .await;
    }

    async fn online(&self) -> Vec<String> {
        let mut online: Vec<String> = self.redis.command(&["SMEMBERS", "ws:online_users"]).await;
        online.sort();
        online
    }
}

/// The presence reports of a user in these frames, in order; true means online.
fn reports_of(user: &str, frames: &[Value]) -> Vec<bool> {
    presence(frames).into_iter().filter(|(who, _)| who == user).map(|(_, online)| online).collect()
}

/// Collects frames until one reports the user online.
async fn until_online(watcher: &mut Client, user: &str) -> Vec<Value> {
    let mut frames = Vec::new();
    while reports_of(user, &frames) != [true] {
        frames.push(watcher.recv().await);
    }
    frames
}

#[tokio::test]
async fn a_killed_node_leaves_no_ghost_online() {
    let cluster = Cluster::start().await;
    let (one, two, three) = tokio::join!(cluster.node().start(), cluster.node().start(), cluster.node().start());
    let mut watchers = [listener(&one, "walt").await, listener(&three, "xena").await];
    let mut sockets = vec![listener(&three, "both").await];
    for user in ["ann", "ben", "cid", "both"] {
        sockets.push(listener(&two, user).await);
    }
    two.kill().await;
    let killed = Instant::now();
    for watcher in &mut watchers {
        let mut received = Vec::new();
        while presence(&received).iter().filter(|(_, online)| !online).count() < 3 {
            received.push(watcher.recv().await);
        }
        eprintln!("killed: `offline` after {:?}", killed.elapsed());
        assert!(
            killed.elapsed() < allowed(LEASE * 2 + Duration::from_secs(1)),
            "`offline` after {:?}",
            killed.elapsed()
        );
        cluster.settled(2).await;
        received.extend(remaining_frames(watcher).await);
        for user in ["ann", "ben", "cid"] {
            assert_eq!(reports_of(user, &received), [true, false], "{user}, each once");
        }
        assert!(!reports_of("both", &received).contains(&false), "a user connected elsewhere stays online");
    }
    assert_eq!(cluster.online().await, ["both", "walt", "xena"]);
    assert_eq!(cluster.connections("both").await, 1);
}

#[tokio::test]
async fn a_node_frozen_past_its_lease_registers_again_and_erases_no_user() {
    let cluster = Cluster::start().await;
    let (one, two) = tokio::join!(cluster.node().start(), cluster.node().start());
    let mut walt = listener(&one, "walt").await;
    let (mut eve, nina, mallory) =
        (listener(&two, "eve").await, listener(&two, "nina").await, listener(&two, "mallory").await);
    walt.drain().await;
    two.signal(Signal::Stop);
    // Mallory leaves the frozen node and connects to the other at once; the frozen node sees the end after it
    // continues.
    drop(mallory);
    let _mallory = listener(&one, "mallory").await;
    let mut received = Vec::new();
    while !["eve", "nina"].iter().all(|user| reports_of(user, &received).contains(&false)) {
        received.push(walt.recv().await);
    }
    // Nina connects to the other node once all listeners were told that she left; her first socket is still open.
    let nina_again = listener(&one, "nina").await;
    received.extend(until_online(&mut walt, "nina").await);
    let missed = walt.send_text(TEAM, "while you were frozen").await["seq"].as_i64().unwrap();

    two.signal(Signal::Continue);
    let thawed = Instant::now();
    received.extend(until_online(&mut walt, "eve").await);
    eprintln!("frozen: `online` after {:?}", thawed.elapsed());
    assert!(thawed.elapsed() < allowed(Duration::from_secs(5)), "back after {:?}", thawed.elapsed());
    assert_read(&mut eve, &[(missed, "while you were frozen".to_owned())].into()).await;
    for (user, connections) in [("eve", 1), ("nina", 2), ("mallory", 1)] {
        eventually(&format!("{user} in the registry"), || async {
            (cluster.connections(user).await == connections).then_some(())
        })
        .await;
    }
    // One of Nina's two sockets ends; she stays online by the one on the frozen node.
    nina_again.close().await;
    cluster.settled(2).await;
    received.extend(remaining_frames(&mut walt).await);
    assert_eq!(reports_of("eve", &received), [false, true]);
    assert_eq!(reports_of("nina", &received), [false, true]);
    assert!(!reports_of("mallory", &received).contains(&false), "never gone: {:?}", presence(&received));
    assert_eq!(cluster.online().await, ["eve", "mallory", "nina", "walt"]);
    assert_eq!(two.metrics().await.get("switchboard_lease_losses_total"), Some(1.0));
    nina.close().await;
    until_offline(&mut walt, "nina").await;
}

/// One node can't reach Redis; the other one can, and declares it dead. Presence that either node has reported is not
/// reported again.
#[tokio::test]
async fn a_node_cut_off_past_its_lease_returns_without_double_reports() {
    let cluster = Cluster::start().await;
    let proxy = Proxy::to(format!("127.0.0.1:{}", cluster.redis.port())).await;
    let cut_off = cluster.node().set("REDIS_URL", proxy.url(&cluster.redis.url()));
    let (one, two) = tokio::join!(cut_off.start(), cluster.node().start());
    let (mut bob, mut carol) = (listener(&one, "bob").await, listener(&two, "carol").await);
    let (_alice, frank) = (listener(&one, "alice").await, listener(&one, "frank").await);
    until_online(&mut carol, "frank").await;
    proxy.set(Link::Cut);
    until_status(&one, "degraded").await;
    frank.close().await;
    let mut near = until_offline(&mut bob, "frank").await;
    let mut far = Vec::new();
    while presence(&far).iter().filter(|(_, online)| !online).count() < 3 {
        far.push(carol.recv().await);
    }
    proxy.set(Link::Open);
    until_status(&one, "healthy").await;
    while !["alice", "bob"].iter().all(|user| reports_of(user, &far).contains(&true)) {
        far.push(carol.recv().await);
    }
    // By then the node has sent the reports that the others could not make.
    tokio::time::sleep(LEASE * 3 / 2).await;
    cluster.settled(2).await;
    near.extend(remaining_frames(&mut bob).await);
    far.extend(remaining_frames(&mut carol).await);
    for user in ["alice", "bob"] {
        assert_eq!(reports_of(user, &far), [false, true], "{user}, for the other node");
        assert!(!reports_of(user, &near).contains(&false), "{user}, for their own");
    }
    assert_eq!(reports_of("frank", &far), [false]);
    assert_eq!(reports_of("frank", &near), [true, false]);
    assert_eq!(cluster.online().await, ["alice", "bob", "carol"]);
}

#[tokio::test]
async fn a_return_within_the_grace_is_not_reported() {
    let cluster = Cluster::start().await;
    let (one, two) = tokio::join!(cluster.node().start(), cluster.node().start());
    let mut watchers = [listener(&one, "walt").await, listener(&two, "xena").await];
    let mut bob = listener(&one, "bob").await;
    for back_to in [&one, &two, &one] {
        bob.close().await;
        bob = listener(back_to, "bob").await;
        // By now the pending departure has been claimed, and dropped because the user is back.
        cluster.settled(2).await;
        assert_eq!(cluster.connections("bob").await, 1);
    }
    bob.close().await;
    for watcher in &mut watchers {
        let mut received = until_offline(watcher, "bob").await;
        cluster.settled(2).await;
        received.extend(remaining_frames(watcher).await);
        assert_eq!(reports_of("bob", &received), [true, false], "once on each node");
        let moves =
            received.iter().filter(|frame| frame["user_id"] == "bob").filter_map(|frame| frame["type"].as_str());
        let moves: Vec<_> = moves.filter(|kind| ["user_joined", "user_left"].contains(kind)).collect();
        assert_eq!(moves, ["user_joined", "user_left"]);
    }
}

#[tokio::test]
async fn a_departure_outlives_its_node() {
    let cluster = Cluster::start().await;
    let long = || cluster.node().set("NODE_LEASE", "6s");
    let (one, two) = tokio::join!(long().start(), long().start());
    let mut walt = listener(&one, "walt").await;
    let (bob, _ann) = (listener(&two, "bob").await, listener(&two, "ann").await);
    bob.close().await;
    eventually("the disconnect in Redis", || async { (cluster.connections("bob").await == 0).then_some(()) }).await;
    two.kill().await;
    let killed = Instant::now();
    let mut received = until_offline(&mut walt, "bob").await;
    assert!(
        killed.elapsed() < allowed(Duration::from_secs(4)),
        "when the grace is over, not the lease: {:?}",
        killed.elapsed()
    );
    received.extend(until_offline(&mut walt, "ann").await);
    assert!(killed.elapsed() > Duration::from_secs(4), "when the lease is over: {:?}", killed.elapsed());
    cluster.settled(1).await;
    received.extend(remaining_frames(&mut walt).await);
    assert_eq!((reports_of("bob", &received), reports_of("ann", &received)), (vec![true, false], vec![true, false]));
    assert_eq!(cluster.online().await, ["walt"]);
}

/// The node dies between the commit and all that follows it.
#[tokio::test]
async fn a_message_that_a_dead_node_stored_is_delivered_when_it_is_sent_again() {
    let cluster = Cluster::start().await;
    let server = cluster.database.split([':', '/']).rev().nth(1).unwrap().parse().unwrap();
    let answer_blocker = AnswerBlocker::before(server, "say-").await;
    let behind = cluster.database.replace(&format!(":{server}/"), &format!(":{}/", answer_blocker.port()));
    let (one, two) = tokio::join!(cluster.node().set("DATABASE_URL", behind).start(), cluster.node().start());
    let (mut alice, mut bob) = (listener(&one, "alice").await, listener(&two, "bob").await);
    answer_blocker.block();
    let frame = json!({"type": "send", "conversation_id": TEAM, "content": "say-it", "client_id": "say-it", "ref": 1});
    alice.send(&frame).await;
    let database = Postgres::shared().await.connect(cluster.database.rsplit('/').next().unwrap()).await;
    let seq: i64 = eventually("the commit", || async {
        let rows = database.query("SELECT seq FROM log WHERE content = 'say-it'", &[]).await.unwrap();
        rows.first().map(|row| row.get(0))
    })
    .await;
    one.kill().await;
    let mut alice = listener(&two, "alice").await;
    alice.send(&frame).await;
    let ack = alice.until("ack").await;
    assert_eq!((&ack["seq"], &ack["duplicate"]), (&json!(seq), &json!(true)));
    assert_read(&mut bob, &[(seq, "say-it".to_owned())].into()).await;
}
