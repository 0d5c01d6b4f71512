//! Faults of Redis, and recovery from each without a restart of the node.

use std::time::Duration;

use switchboard::{
    backplane::{Listening, Settings},
    degrade::LinkState,
    model::Cost,
};
use tokio::time::Instant;

use super::{
    node::{Node, departures_until, log, message, room, seqs, settings},
    redis_server::Server,
};
use crate::support::{Link, Proxy};

/// Maximum time to recover, as the design promises.
const RECOVERED_WITHIN: Duration = Duration::from_secs(5);

/// Two nodes; Bob listens on the first.
async fn pair(redis: &Server) -> (Node, Node, switchboard::model::ConnectionId) {
    let (one, other) = (Node::start("one", Some(&redis.url())).await, Node::start("two", Some(&redis.url())).await);
    one.backplane.subscribe(&log("room")).await;
    let (bob, _) = one.connect("bob").await;
    one.backplane.listen(bob, &room("room")).await;
    (one, other, bob)
}

/// Checks publishing and presence between the two nodes.
async fn assert_works(one: &mut Node, other: &mut Node, seq: i64) {
    other.until("bob is registered again", || async { other.online("bob").await }).await;
    other.until("bob listens again", || async { other.backplane.audience(&room("room")).await.users.len() == 1 }).await;
    assert_eq!(other.backplane.connections_of(&super::node::user("bob")).await.len(), 1);
    // On a busy machine, a connection that is late breaks once more; what is lost then is read from the store.
    for _ in 0..6 {
        other.backplane.publish(vec![message("room", seq)]);
        match tokio::time::timeout(Duration::from_secs(5), one.events()).await {
            Ok(events) if seqs(&events) == [seq] => return,
            Ok(events) => assert!(seqs(&events).iter().all(|earlier| *earlier < seq), "{events:?}"),
            Err(_missed) => {}
        }
    }
    panic!("message {seq} never came");
}

#[tokio::test]
async fn a_redis_that_restarts_empty_gets_the_whole_registry() {
    let mut redis = Server::start();
    let (mut one, mut other, _) = pair(&redis).await;
    assert_works(&mut one, &mut other, 1).await;
    redis.kill();
    one.redis_is(LinkState::Down).await;
    other.redis_is(LinkState::Down).await;
    let (carol, first) = one.connect("carol").await;
    assert!(first);
    assert_eq!(one.backplane.listen(carol, &room("room")).await, Listening { first: true });
    one.backplane.subscribe(&log("later")).await;
    // These entries are not lost: the other node gets them once it can.
    other.backplane.publish(vec![message("room", 2), message("room", 3)]);
    other.until("owed", || async { other.backplane.unpublished() == [(log("room"), 3)] }).await;
    redis.restart();
    let started = Instant::now();
    one.missed().await;
    one.redis_is(LinkState::Up).await;
    assert!(started.elapsed() < crate::support::allowed(RECOVERED_WITHIN), "{:?}", started.elapsed());
    other.redis_is(LinkState::Up).await;
    other.until("settled", || async { other.backplane.unpublished().is_empty() }).await;
    let back = one.returned().await;
    assert_eq!((back.user, back.online, back.joined), (super::node::user("carol"), true, vec![room("room")]));
    other.until("bob is online", || async { other.backplane.audience(&room("room")).await.users.len() == 2 }).await;
    // Other channels than this one may be subscribed before it.
    one.backplane.subscribe(&log("later")).await;
    other.backplane.publish(vec![message("later", 7)]);
    loop {
        if seqs(&one.events().await) == [7] {
            break;
        }
    }
}

#[tokio::test]
async fn a_backplane_starts_while_redis_is_down() {
    let mut redis = Server::later();
    let started = Instant::now();
    let mut one = Node::start("one", Some(&redis.url())).await;
    assert!(started.elapsed() < crate::support::allowed(Duration::from_secs(2)));
    one.redis_is(LinkState::Down).await;
    assert!(one.connect("bob").await.1);
    one.backplane.subscribe(&log("room")).await;
    redis.restart();
    let started = Instant::now();
    one.missed().await;
    assert!(started.elapsed() < crate::support::allowed(RECOVERED_WITHIN), "{:?}", started.elapsed());
    assert!(one.returned().await.online);
    let other = Node::start("two", Some(&redis.url())).await;
    other.until("registered", || async { other.online("bob").await }).await;
}

#[tokio::test]
async fn a_frozen_redis_takes_nobody_offline() {
    let redis = Server::start();
    let (mut one, mut other, bob) = pair(&redis).await;
    let (carol, _) = other.connect("carol").await;
    redis.freeze();
    let frozen = Instant::now();
    one.redis_is(LinkState::Down).await;
    assert!(frozen.elapsed() < crate::support::allowed(Duration::from_secs(2)), "{:?}", frozen.elapsed());
    // Longer than every lease.
    tokio::time::sleep(Duration::from_secs(3)).await;
    other.backplane.unregister(carol).await;
    assert_eq!(departures_until(&mut [&mut other], Instant::now() + Duration::from_secs(2)).await.len(), 1);
    redis.thaw();
    let thawed = Instant::now();
    one.missed().await;
    one.redis_is(LinkState::Up).await;
    other.redis_is(LinkState::Up).await;
    assert!(thawed.elapsed() < crate::support::allowed(RECOVERED_WITHIN), "{:?}", thawed.elapsed());
    assert_works(&mut one, &mut other, 1).await;
    let told = departures_until(&mut [&mut one, &mut other], Instant::now() + Duration::from_secs(6)).await;
    assert!(told.len() == 1 && told[0].announced_here, "only other nodes lack the departure: {told:?}");
    assert!(one.online("bob").await && !one.online("carol").await);
    one.backplane.unregister(bob).await;
    let told = departures_until(&mut [&mut one, &mut other], Instant::now() + Duration::from_secs(3)).await;
    assert_eq!(told.len(), 1, "the registry is unchanged");
}

#[tokio::test]
async fn a_flushed_redis_gets_the_whole_registry() {
    let redis = Server::start();
    let (mut one, mut other, bob) = pair(&redis).await;
    redis.query::<()>(&["FLUSHALL"]).await;
    let wiped = Instant::now();
    one.missed().await;
    other.missed().await;
    assert!(wiped.elapsed() < crate::support::allowed(RECOVERED_WITHIN), "{:?}", wiped.elapsed());
    assert_works(&mut one, &mut other, 1).await;
    assert!(one.metrics.lease_losses.get() == 1);
    one.backplane.unregister(bob).await;
    let told = departures_until(&mut [&mut one, &mut other], Instant::now() + Duration::from_secs(3)).await;
    assert_eq!(told.len(), 1);
}

#[tokio::test]
async fn a_wipe_that_a_renewal_notices_is_no_return() {
    let redis = Server::start();
    // Every check of this node is a renewal.
    let mut one =
        Node::with(Settings { lease: Duration::from_millis(600), ..settings("one", Some(&redis.url())) }).await;
    let mut other = Node::start("two", Some(&redis.url())).await;
    one.backplane.subscribe(&log("room")).await;
    let (bob, _) = one.connect("bob").await;
    one.backplane.listen(bob, &room("room")).await;
    for wipe in 1..=3 {
        redis.query::<()>(&["FLUSHALL"]).await;
        one.missed().await;
        assert_works(&mut one, &mut other, wipe).await;
    }
    one.backplane.unregister(bob).await;
    let told = departures_until(&mut [&mut one, &mut other], Instant::now() + Duration::from_secs(3)).await;
    assert_eq!(told.len(), 1);
    assert_eq!(one.returns(), [], "nobody was told that bob had left");
}

#[tokio::test]
async fn a_node_that_is_back_late_after_a_wipe_announces_its_users() {
    let redis = Server::start();
    let url = redis.url();
    let link = Proxy::to(url.trim_start_matches("redis://").trim_end_matches('/')).await;
    let mut one = Node::start("one", Some(&link.url(&url))).await;
    let other = Node::start("two", Some(&url)).await;
    let (bob, _) = one.connect("bob").await;
    one.backplane.listen(bob, &room("room")).await;
    link.set(Link::Cut);
    one.redis_is(LinkState::Down).await;
    redis.query::<()>(&["FLUSHALL"]).await;
    other.until("the wipe is noticed", || async { !other.backplane.registry_is_complete() }).await;
    let noticed = Instant::now();
    // The other node now tells its listeners that bob left.
    other.until("the time to register is over", || async { other.backplane.registry_is_complete() }).await;
    assert!(noticed.elapsed() > Duration::from_secs(1), "one lease after the wipe: {:?}", noticed.elapsed());
    link.set(Link::Open);
    let back = one.returned().await;
    assert_eq!((back.user, back.online, back.joined), (super::node::user("bob"), true, vec![room("room")]));
}

#[tokio::test]
async fn a_node_that_starts_after_a_wipe_waits_for_the_others() {
    let redis = Server::start();
    let lease = Duration::from_secs(8);
    let _one = Node::with(Settings { lease, ..settings("one", Some(&redis.url())) }).await;
    redis.query::<()>(&["FLUSHALL"]).await;
    let wiped = Instant::now();
    let other = Node::with(Settings { lease, ..settings("two", Some(&redis.url())) }).await;
    other.redis_is(LinkState::Up).await;
    other.until("settled", || async { other.backplane.registry_is_complete() }).await;
    assert!(wiped.elapsed() > lease - Duration::from_millis(500), "{:?}", wiped.elapsed());
}

#[tokio::test]
async fn forgotten_scripts_are_loaded_again() {
    let redis = Server::start();
    let (mut one, mut other, bob) = pair(&redis).await;
    redis.query::<()>(&["SCRIPT", "FLUSH"]).await;
    one.backplane.unregister(bob).await;
    let told = departures_until(&mut [&mut one, &mut other], Instant::now() + Duration::from_secs(3)).await;
    assert_eq!(told.len(), 1);
    redis.query::<()>(&["SCRIPT", "FLUSH"]).await;
    let (bob, first) = other.connect("bob").await;
    assert!(first);
    assert_eq!(other.backplane.listen(bob, &room("room")).await, Listening { first: true });
    assert_works(&mut one, &mut other, 1).await;
    assert_eq!(one.metrics.lease_losses.get() + other.metrics.lease_losses.get(), 0);
}

#[tokio::test]
async fn killed_connections_are_replaced() {
    let redis = Server::start();
    let (mut one, mut other, _) = pair(&redis).await;
    for (turn, kind) in ["pubsub", "normal"].iter().enumerate() {
        let killed: i64 = redis.query(&["CLIENT", "KILL", "TYPE", kind]).await;
        assert!(killed > 0);
        if *kind == "pubsub" {
            one.missed().await;
        }
        let started = Instant::now();
        let seq = i64::try_from(turn).unwrap() + 1;
        assert_works(&mut one, &mut other, seq).await;
        assert!(started.elapsed() < crate::support::allowed(RECOVERED_WITHIN));
        one.redis_is(LinkState::Up).await;
    }
}

#[tokio::test]
async fn a_node_recovers_from_a_paused_redis() {
    let redis = Server::start();
    let (mut one, mut other, _) = pair(&redis).await;
    redis.query::<()>(&["CLIENT", "PAUSE", "2500", "ALL"]).await;
    one.redis_is(LinkState::Down).await;
    one.missed().await;
    one.redis_is(LinkState::Up).await;
    other.redis_is(LinkState::Up).await;
    assert_works(&mut one, &mut other, 1).await;
}

#[tokio::test]
async fn a_redis_that_refuses_writes_counts_as_down() {
    let redis = Server::start();
    let node = Node::start("one", Some(&redis.url())).await;
    redis.query::<()>(&["REPLICAOF", "127.0.0.1", "1"]).await;
    node.redis_is(LinkState::Down).await;
    assert!(node.connect("bob").await.1);
    redis.query::<()>(&["REPLICAOF", "NO", "ONE"]).await;
    node.redis_is(LinkState::Up).await;
    node.until("registered", || async { redis.query::<i64>(&["EXISTS", "ws:conns:bob"]).await == 1 }).await;
}

#[tokio::test]
async fn a_node_whose_lease_was_removed_registers_again() {
    let redis = Server::start();
    let (mut one, mut other, _) = pair(&redis).await;
    // Remove the node's lease, as other nodes do after it was frozen past its lease.
    let leases: Vec<String> = redis.query(&["ZRANGE", "ws:nodes", "0", "-1"]).await;
    let lease = leases.iter().find(|lease| lease.starts_with("one#")).unwrap();
    redis.query::<i64>(&["DEL", "ws:conns:bob"]).await;
    redis.query::<i64>(&["ZREM", "ws:nodes", lease]).await;
    let back = one.returned().await;
    assert!(back.online && back.joined == [room("room")], "other nodes reported bob offline");
    assert_works(&mut one, &mut other, 1).await;
}

/// The user that `docs/operations/redis.md` tells operators to make may run every command that a node sends.
#[tokio::test]
async fn the_documented_acl_allows_every_command() {
    let redis = Server::start();
    let page = include_str!("../../../docs/operations/redis.md");
    let acl = page.lines().find(|line| line.starts_with("ACL SETUSER ")).expect("the page shows the user");
    redis.query::<()>(&acl.split_whitespace().collect::<Vec<_>>()).await;
    let url = redis.url().replace("redis://", "redis://switchboard:secret@");
    let (mut one, mut other) = (Node::start("one", Some(&url)).await, Node::start("two", Some(&url)).await);
    one.backplane.subscribe(&log("room")).await;
    let (bob, first) = one.connect("bob").await;
    assert!(first && one.backplane.listen(bob, &room("room")).await.first);
    assert_works(&mut one, &mut other, 1).await;
    one.until("cached", || async { one.backplane.recent(&log("room"), 0).await.is_some() }).await;
    one.backplane.admit(&super::node::user("bob"), Cost::MESSAGE, 5).await;
    assert_eq!(one.backplane.online_page(0, 10).await.0.len(), 1);
    assert_eq!((one.backplane.online_count().await, one.backplane.nodes().await.len()), (1, 2));
    assert_eq!(one.backplane.joined(&super::node::user("bob")).await.len(), 1);
    one.backplane.unsubscribe(&log("room"));
    one.die().await;
    assert!(other.departure().await.offline, "reaped");
    let (carol, _) = other.connect("carol").await;
    other.backplane.unregister(carol).await;
    assert!(other.departure().await.offline);
    other.backplane.leave().await;
    let failed: Vec<_> = other.metrics.render().lines().filter(|line| failed(line)).map(str::to_owned).collect();
    assert_eq!(failed, Vec::<String>::new());
    let denied: Vec<redis::Value> = redis.query(&["ACL", "LOG"]).await;
    assert!(denied.is_empty(), "{denied:?}");
}

#[tokio::test]
async fn the_link_uses_tls_and_trusts_only_the_given_ca() {
    let (_redis, port, ca) = Server::with_tls();
    let url = format!("rediss://localhost:{port}");
    let with_ca = |name: &str, ca: Option<std::path::PathBuf>| {
        let mut settings = settings(name, Some(&url));
        settings.redis.as_mut().unwrap().tls.ca = ca;
        settings
    };
    let (mut one, other) =
        (Node::with(with_ca("one", Some(ca.clone()))).await, Node::with(with_ca("two", Some(ca))).await);
    one.redis_is(LinkState::Up).await;
    one.backplane.subscribe(&log("room")).await;
    other.backplane.publish(vec![message("room", 1)]);
    assert_eq!(seqs(&one.events().await), [1]);
    let stranger = Node::with(with_ca("three", None)).await;
    stranger.redis_is(LinkState::Down).await;
}

fn failed(metric: &str) -> bool {
    metric.starts_with("switchboard_redis_errors_total") && !metric.ends_with(" 0")
}

#[tokio::test]
async fn a_connect_and_a_disconnect_while_calls_fail_are_repaired() {
    let redis = Server::start();
    let mut settings = settings("one", Some(&redis.url()));
    settings.lease = Duration::from_secs(15);
    let node = Node::with(settings).await;
    let (alice, _) = node.connect("alice").await;
    // Too short for the link to count as down, long enough for calls to fail.
    redis.freeze();
    assert!(node.connect("bob").await.1);
    node.backplane.unregister(alice).await;
    redis.thaw();
    node.until("bob is registered", || async { redis.query::<i64>(&["HEXISTS", "ws:conns:bob", "c"]).await == 1 })
        .await;
    node.until("alice is gone", || async { redis.query::<i64>(&["EXISTS", "ws:conns:alice"]).await == 0 }).await;
}

/// A call that writes many users at once times out and is executed later, after users had left.
#[tokio::test]
async fn users_who_leave_while_a_write_of_all_users_is_under_way_stay_away() {
    let redis = Server::start();
    let proxy = Proxy::to(redis.url().trim_start_matches("redis://").trim_end_matches('/')).await;
    let mut settings = settings("one", Some(&proxy.url(&redis.url())));
    settings.lease = Duration::from_secs(15);
    let node = Node::with(settings).await;
    let mut connections = Vec::new();
    // Their calls take different connections to Redis.
    for user in 0..12 {
        connections.push(node.connect(&format!("user-{user}")).await.0);
    }
    let entries = async || redis.query::<Vec<String>>(&["KEYS", "ws:conns:*"]).await.len();
    assert_eq!(entries().await, 12);
    let lease = redis.query::<Vec<String>>(&["ZRANGE", "ws:nodes", "0", "0"]).await.remove(0);
    let writing = async {
        proxy.stall_at("EXPIRE").await;
        futures_util::future::join_all(connections.iter().map(|one| node.backplane.unregister(*one))).await;
        let failures = node.metrics.redis_errors.with_label_values(&["sync"]);
        node.until("the write to fail", || async { failures.get() > 0 }).await;
        proxy.unstall();
    };
    // Without its lease, the node writes all of its users.
    let command = ["ZREM", "ws:nodes", &lease];
    tokio::join!(writing, redis.query::<i64>(&command));
    node.until("nobody is registered", || async { entries().await == 0 }).await;
}

/// Other programs may store what they like under a user's key. It must concern that user alone.
#[tokio::test]
async fn a_user_whom_redis_refuses_hides_no_departure_of_a_dead_nodes_other_users() {
    let redis = Server::start();
    let mut one = Node::start("one", Some(&redis.url())).await;
    let other = Node::start("two", Some(&redis.url())).await;
    for user in ["bob", "carol", "dave"] {
        other.connect(user).await;
    }
    let harm = || async { redis.query::<()>(&["SET", "ws:conns:carol", "foreign"]).await };
    harm().await;
    other.die().await;
    // A command that meets the value removes it: it comes back until the others have departed.
    let mut gone = Vec::new();
    while gone.len() < 2 {
        harm().await;
        let departures = one.departures_until(Instant::now() + Duration::from_millis(200)).await;
        gone.extend(departures.into_iter().filter(|departure| departure.offline).map(|departure| departure.user));
    }
    gone.sort();
    assert_eq!(gone, ["bob", "dave"].map(super::node::user));
    redis.query::<()>(&["DEL", "ws:conns:carol"]).await;
    let leases = || async { redis.query::<i64>(&["ZCARD", "ws:nodes"]).await };
    one.until("the dead node is forgotten", || async { leases().await == 2 }).await;
    let told = departures_until(&mut [&mut one], Instant::now() + Duration::from_secs(2)).await;
    assert!(told.iter().all(|departure| departure.user == super::node::user("carol")), "told twice: {told:?}");
}

#[tokio::test]
async fn a_user_whom_redis_refuses_in_a_new_era_hides_no_return_and_returns_too() {
    let redis = Server::start();
    let url = redis.url();
    let link = Proxy::to(url.trim_start_matches("redis://").trim_end_matches('/')).await;
    let mut one = Node::start("one", Some(&link.url(&url))).await;
    let other = Node::start("two", Some(&url)).await;
    for user in ["bob", "carol", "dave"] {
        one.connect(user).await;
    }
    link.set(Link::Cut);
    one.redis_is(LinkState::Down).await;
    other.until("they were told as gone", || async { !other.online("bob").await && !other.online("dave").await }).await;
    let entries = || async { redis.query::<Vec<String>>(&["KEYS", "ws:conns:*"]).await };
    other.until("nothing is left of them", || async { entries().await.is_empty() }).await;
    redis.query::<()>(&["SET", "ws:conns:carol", "foreign"]).await;
    link.set(Link::Open);
    let mut back = Vec::new();
    for _ in 0..3 {
        let returned = one.returned().await;
        assert!(returned.online);
        back.push(returned.user);
    }
    back.sort();
    assert_eq!(back, ["bob", "carol", "dave"].map(super::node::user));
    other.until("they are online", || async { other.online("carol").await && other.online("dave").await }).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(one.returns(), [], "each returned once");
}

/// Redis evicts keys if its policy says so, and other programs delete them. Departures are told in spite of it.
#[tokio::test]
async fn a_departure_is_told_once_although_its_keys_were_deleted() {
    let redis = Server::start();
    let lease = Duration::from_millis(600);
    let mut one = Node::with(Settings { lease, ..settings("one", Some(&redis.url())) }).await;
    let mut other = Node::with(Settings { lease, ..settings("two", Some(&redis.url())) }).await;
    let harms: [(&[&str], bool); 4] = [
        (&["DEL", "ws:conns:bob"], false),
        (&["SET", "ws:conns:bob", "foreign"], false),
        (&["DEL", "ws:leaving"], true),
        (&["SET", "ws:leaving", "foreign"], true),
    ];
    for (harm, after) in harms {
        let (bob, _) = one.connect("bob").await;
        one.backplane.listen(bob, &room("room")).await;
        if !after {
            redis.query::<redis::Value>(harm).await;
        }
        one.backplane.unregister(bob).await;
        if after {
            redis.query::<redis::Value>(harm).await;
        }
        let mut told = Vec::new();
        let deadline = Instant::now() + crate::support::DEADLINE;
        while told.is_empty() && Instant::now() < deadline {
            told = departures_until(&mut [&mut one, &mut other], Instant::now() + Duration::from_millis(200)).await;
        }
        told.extend(departures_until(&mut [&mut one, &mut other], Instant::now() + Duration::from_secs(2)).await);
        assert_eq!(told.len(), 1, "{harm:?}: {told:?}");
        assert!(told[0].offline && told[0].left == [room("room")], "{harm:?}: {told:?}");
        one.until("nobody is online", || async { one.backplane.online_page(0, 10).await.0.is_empty() }).await;
    }
}
