//! Nodes die, freeze and come back: nobody stays as a ghost, nobody is erased by a late word, and each departure is told
//! once to everybody.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{
    ear::Ear,
    scene::{TEAM, assert_read, brisk, listener, presence, rest, until_offline, until_status},
};
use crate::support::{Client, Link, NodeBuilder, Postgres, Proxy, RedisServer, Signal, eventually};

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
        brisk(&self.redis.url(), &self.database).set("PRESENCE_GRACE", "1s")
    }

    /// A user's connections in the registry, each a line.
    async fn connections(&self, user: &str) -> usize {
        let lines: Option<String> = self.redis.command(&["HGET", &format!("ws:conns:{user}"), "c"]).await;
        lines.unwrap_or_default().lines().count()
    }

    /// Waits until so many nodes have a lease and nobody's departure is pending: then nothing is left to be told.
    async fn settled(&self, nodes: usize) {
        eventually("the registry to settle", || async {
            // One member names the epoch.
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

/// Whether somebody was told to be online, in order.
fn told_of(user: &str, frames: &[Value]) -> Vec<bool> {
    presence(frames).into_iter().filter(|(who, _)| who == user).map(|(_, online)| online).collect()
}

/// Collects frames until the user was told to be online.
async fn until_online(watcher: &mut Client, user: &str) -> Vec<Value> {
    let mut frames = Vec::new();
    while told_of(user, &frames) != [true] {
        frames.push(watcher.recv().await);
    }
    frames
}

#[tokio::test]
async fn a_killed_node_leaves_no_ghost() {
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
        let mut told = Vec::new();
        while presence(&told).iter().filter(|(_, online)| !online).count() < 3 {
            told.push(watcher.recv().await);
        }
        eprintln!("killed: told after {:?}", killed.elapsed());
        assert!(killed.elapsed() < LEASE * 2 + Duration::from_secs(1), "told after {:?}", killed.elapsed());
        cluster.settled(2).await;
        told.extend(rest(watcher).await);
        for user in ["ann", "ben", "cid"] {
            assert_eq!(told_of(user, &told), [true, false], "{user}, each once");
        }
        assert!(!told_of("both", &told).contains(&false), "who is elsewhere stays");
    }
    assert_eq!(cluster.online().await, ["both", "walt", "xena"]);
    assert_eq!(cluster.connections("both").await, 1);
}

#[tokio::test]
async fn a_node_frozen_past_its_lease_registers_anew_and_erases_nobody() {
    let cluster = Cluster::start().await;
    let (one, two) = tokio::join!(cluster.node().start(), cluster.node().start());
    let mut walt = listener(&one, "walt").await;
    let (mut eve, nina, mallory) =
        (listener(&two, "eve").await, listener(&two, "nina").await, listener(&two, "mallory").await);
    walt.drain().await;
    two.signal(Signal::Stop);
    // Leaves a node that can't hear it, and comes to the other at once; the goodbye is heard when that one thaws.
    drop(mallory);
    let _mallory = listener(&one, "mallory").await;
    let mut told = Vec::new();
    while !["eve", "nina"].iter().all(|user| told_of(user, &told).contains(&false)) {
        told.push(walt.recv().await);
    }
    // Comes back to the other node once all took her for gone; her first socket is still open.
    let nina_again = listener(&one, "nina").await;
    told.extend(until_online(&mut walt, "nina").await);
    let missed = walt.say(TEAM, "while you were frozen").await["seq"].as_i64().unwrap();

    two.signal(Signal::Continue);
    let thawed = Instant::now();
    told.extend(until_online(&mut walt, "eve").await);
    eprintln!("frozen: told to be back after {:?}", thawed.elapsed());
    assert!(thawed.elapsed() < Duration::from_secs(5), "back after {:?}", thawed.elapsed());
    assert_read(&mut eve, &[(missed, "while you were frozen".to_owned())].into()).await;
    for (user, connections) in [("eve", 1), ("nina", 2), ("mallory", 1)] {
        eventually(&format!("{user} in the registry"), || async {
            (cluster.connections(user).await == connections).then_some(())
        })
        .await;
    }
    // One of her two sockets ends: she stays, by the one that the frozen node still has.
    nina_again.close().await;
    cluster.settled(2).await;
    told.extend(rest(&mut walt).await);
    assert_eq!(told_of("eve", &told), [false, true]);
    assert_eq!(told_of("nina", &told), [false, true]);
    assert!(!told_of("mallory", &told).contains(&false), "never gone: {:?}", presence(&told));
    assert_eq!(cluster.online().await, ["eve", "mallory", "nina", "walt"]);
    assert_eq!(two.metrics().await.get("switchboard_lease_losses_total"), Some(1.0));
    nina.close().await;
    until_offline(&mut walt, "nina").await;
}

/// One node can't reach Redis, the other one can and takes it for dead: what either has told is not told again.
#[tokio::test]
async fn a_node_cut_off_past_its_lease_comes_back_as_one_that_was_dead() {
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
    while !["alice", "bob"].iter().all(|user| told_of(user, &far).contains(&true)) {
        far.push(carol.recv().await);
    }
    // By then the node has told the others what they could not know.
    tokio::time::sleep(LEASE * 3 / 2).await;
    cluster.settled(2).await;
    near.extend(rest(&mut bob).await);
    far.extend(rest(&mut carol).await);
    for user in ["alice", "bob"] {
        assert_eq!(told_of(user, &far), [false, true], "{user}, for the other node");
        assert!(!told_of(user, &near).contains(&false), "{user}, for their own");
    }
    assert_eq!(told_of("frank", &far), [false]);
    assert_eq!(told_of("frank", &near), [true, false]);
    assert_eq!(cluster.online().await, ["alice", "bob", "carol"]);
}

#[tokio::test]
async fn who_comes_back_within_the_grace_never_left() {
    let cluster = Cluster::start().await;
    let (one, two) = tokio::join!(cluster.node().start(), cluster.node().start());
    let mut watchers = [listener(&one, "walt").await, listener(&two, "xena").await];
    let mut bob = listener(&one, "bob").await;
    for back_to in [&one, &two, &one] {
        bob.close().await;
        bob = listener(back_to, "bob").await;
        // What was to be told when the grace was over has been looked at, and found void.
        cluster.settled(2).await;
        assert_eq!(cluster.connections("bob").await, 1);
    }
    bob.close().await;
    for watcher in &mut watchers {
        let mut told = until_offline(watcher, "bob").await;
        cluster.settled(2).await;
        told.extend(rest(watcher).await);
        assert_eq!(told_of("bob", &told), [true, false], "on either node, once");
        let moves = told.iter().filter(|frame| frame["user_id"] == "bob").filter_map(|frame| frame["type"].as_str());
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
    eventually("the goodbye in Redis", || async { (cluster.connections("bob").await == 0).then_some(()) }).await;
    two.kill().await;
    let killed = Instant::now();
    let mut told = until_offline(&mut walt, "bob").await;
    assert!(killed.elapsed() < Duration::from_secs(4), "when the grace is over, not the lease: {:?}", killed.elapsed());
    told.extend(until_offline(&mut walt, "ann").await);
    assert!(killed.elapsed() > Duration::from_secs(4), "when the lease is over: {:?}", killed.elapsed());
    cluster.settled(1).await;
    told.extend(rest(&mut walt).await);
    assert_eq!((told_of("bob", &told), told_of("ann", &told)), (vec![true, false], vec![true, false]));
    assert_eq!(cluster.online().await, ["walt"]);
}

/// The node dies between the commit and everything that follows it.
#[tokio::test]
async fn what_a_dead_node_stored_is_delivered_when_it_is_sent_again() {
    let cluster = Cluster::start().await;
    let server = cluster.database.split([':', '/']).rev().nth(1).unwrap().parse().unwrap();
    let ear = Ear::before(server, "say-").await;
    let behind = cluster.database.replace(&format!(":{server}/"), &format!(":{}/", ear.port()));
    let (one, two) = tokio::join!(cluster.node().set("DATABASE_URL", behind).start(), cluster.node().start());
    let (mut alice, mut bob) = (listener(&one, "alice").await, listener(&two, "bob").await);
    ear.deafen();
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
