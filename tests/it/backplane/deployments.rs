//! Two deployments on one Redis: with other database numbers or prefixes they share nothing, and of two on the same keys
//! only one uses them.

use std::time::Duration;

use switchboard::{
    backplane::{
        RefusedPlace::{self, Foreign},
        Settings,
    },
    config::RedisPrefix,
    degrade::{Fault, LinkState, Part},
    model::{Cost, NodeId},
};

use super::{
    node::{Node, deployment, keys, log, message, room, seqs, settings, typing, user},
    redis_server::Server,
};

/// Settings for a database number of this Redis and a prefix.
fn on(redis: &Server, name: &str, database: u8, prefix: &str) -> Settings {
    let mut settings = settings(name, Some(&format!("{}/{database}", redis.url())));
    settings.redis.as_mut().unwrap().prefix = RedisPrefix::parse(prefix).unwrap();
    settings
}

/// The fault of a node's Redis, in words.
fn fault(node: &Node) -> Option<(Fault, String)> {
    node.degrade.state(Part::Redis).fault.map(|finding| (finding.fault, finding.detail.clone()))
}

/// Waits until the node says that another deployment uses its keys.
async fn is_kept_off(node: &Node, by: &[&str]) {
    node.until("kept off", || async { fault(node).is_some_and(|(fault, _)| fault == Fault::RedisShared) }).await;
    let (_, detail) = fault(node).unwrap();
    assert!(by.iter().all(|name| detail.contains(name)) && detail.contains("REDIS_PREFIX"), "{detail}");
}

/// Nothing that a node got or read counts as forged.
fn assert_nothing_refused(node: &Node) {
    let refused = RefusedPlace::ALL.map(|place| node.refused(place));
    assert_eq!(refused, [0; RefusedPlace::ALL.len()], "{:?}", RefusedPlace::ALL);
}

#[tokio::test]
async fn deployments_on_other_keys_share_nothing() {
    let redis = Server::start();
    let places = [(0, ""), (1, ""), (0, "staging"), (0, "test")];
    let mut nodes = Vec::new();
    for (number, (database, prefix)) in (1..).zip(places) {
        // The second node has the name of the first one, as in a copied configuration.
        for name in ["one", "two"] {
            nodes.push(Node::of(number, on(&redis, name, database, prefix)).await);
        }
    }
    for node in &nodes {
        assert_eq!(node.degrade.state(Part::Redis).link, LinkState::Up, "{:?}", fault(node));
        node.backplane.subscribe(&log("room")).await;
    }
    // The first deployment is busy, with ids that all of them have.
    let (alice, first) = nodes[0].connect("alice").await;
    assert!(first);
    nodes[0].backplane.listen(alice, &room("room")).await;
    nodes[0].connect("alice").await;
    for _ in 0..3 {
        nodes[0].backplane.admit(&user("alice"), Cost::MESSAGE, 3).await;
    }
    nodes[0].backplane.publish(vec![message("room", 4), typing("room")]);
    nodes[0].until("cached", || async { nodes[0].backplane.recent(&log("room"), 3).await.is_some() }).await;
    let hint = switchboard::backplane::Hint { conversation: room("room"), users: vec![user("alice")] };
    nodes[1].backplane.hint(vec![hint]).await;
    // What the others have in the same places comes next, and nothing before it.
    for at in [2, 4, 6] {
        let other = &nodes[at];
        assert!(!other.online("alice").await);
        assert_eq!(other.backplane.audience(&room("room")).await.users, []);
        assert_eq!(other.backplane.online_count().await, 0);
        assert_eq!(other.backplane.nodes().await.len(), 2);
        assert_eq!(other.backplane.recent(&log("room"), 3).await, None);
        for _ in 0..3 {
            let admitted = other.backplane.admit(&user("alice"), Cost::MESSAGE, 3).await;
            assert_eq!(admitted, switchboard::backplane::RateDecision::Admitted);
        }
        assert!(other.connect("alice").await.1 && !other.connect("alice").await.1, "none counts against the cap");
        other.backplane.publish(vec![message("room", at as i64)]);
        assert_eq!(seqs(&nodes[at + 1].events().await), [at as i64]);
        assert!(nodes[at + 1].hints_so_far().is_empty());
    }
    assert_eq!(seqs(&nodes[1].events().await), [4]);
    for node in &nodes {
        assert_nothing_refused(node);
    }
}

#[tokio::test]
async fn of_two_deployments_on_the_same_keys_only_the_first_uses_them() {
    let redis = Server::start();
    let mut one = Node::of(1, on(&redis, "one", 0, "")).await;
    one.backplane.subscribe(&log("room")).await;
    let (alice, _) = one.connect("alice").await;
    one.backplane.listen(alice, &room("room")).await;
    one.backplane.publish(vec![message("room", 1)]);
    one.until("cached", || async { one.backplane.recent(&log("room"), 0).await.is_some() }).await;
    let before: Vec<String> = redis.query(&["KEYS", "*"]).await;

    let other = Node::of(2, on(&redis, "other", 0, "")).await;
    is_kept_off(&other, &["deployment 000000000001", "node one"]).await;
    // It works with its local state.
    assert!(other.connect("alice").await.1);
    other.backplane.subscribe(&log("room")).await;
    other.backplane.publish(vec![message("room", 2)]);
    assert_eq!(other.backplane.recent(&log("room"), 0).await, None);
    assert_eq!(other.backplane.nodes().await.len(), 0);

    let second = Node::of(1, on(&redis, "two", 0, "")).await;
    assert_eq!(second.degrade.state(Part::Redis).link, LinkState::Up, "a node of the first deployment joins it");
    second.backplane.publish(vec![message("room", 3)]);
    assert_eq!(seqs(&one.events().await), [3]);
    assert_eq!(one.backplane.connections_of(&user("alice")).await.len(), 1);
    let members: Vec<String> = redis.query(&["ZRANGE", "ws:nodes", "0", "-1"]).await;
    assert!(members.iter().all(|member| !member.starts_with("other#")), "{members:?}");
    let mut after: Vec<String> = redis.query(&["KEYS", "*"]).await;
    after.retain(|key| !before.contains(key) && !key.contains(":check:"));
    assert_eq!(after, Vec::<String>::new(), "the other deployment wrote nothing");
    assert_nothing_refused(&one);

    // The last node of the first deployment leaves: what it left is removed, and the other one goes on by itself.
    second.backplane.leave().await;
    one.backplane.unregister(alice).await;
    one.backplane.leave().await;
    other.redis_is(LinkState::Up).await;
    other.until("published", || async { other.backplane.recent(&log("room"), 1).await.is_some() }).await;
    assert_eq!(other.backplane.recent(&log("room"), 0).await, None, "nothing of the first deployment is there");
    assert!(other.refused(Foreign) > 0);
    other.until("registered", || async { other.backplane.connections_of(&user("alice")).await.len() == 1 }).await;
    assert_eq!(fault(&other), None);
    assert_eq!((other.refused(RefusedPlace::Cache), other.refused(RefusedPlace::Name)), (0, 0));
}

#[tokio::test]
async fn the_keys_of_a_dead_deployment_pass_to_the_next_one_without_its_users() {
    let redis = Server::start();
    let one = Node::of(1, on(&redis, "one", 0, "")).await;
    let (alice, _) = one.connect("alice").await;
    one.backplane.listen(alice, &room("room")).await;
    let (mut two, mut three) =
        (Node::of(2, on(&redis, "two", 0, "")).await, Node::of(2, on(&redis, "three", 0, "")).await);
    is_kept_off(&two, &["000000000001"]).await;
    is_kept_off(&three, &["000000000001"]).await;
    one.die().await;
    let last: Vec<String> = redis.query(&["ZRANGE", "ws:nodes", "0", "0"]).await;
    assert!(last[0].starts_with("one#000000000001."), "{last:?}");
    two.redis_is(LinkState::Up).await;
    three.redis_is(LinkState::Up).await;
    assert_eq!(two.backplane.nodes().await.len(), 2);
    assert!(!two.online("alice").await && two.backplane.online_count().await == 0);
    let left: Vec<String> = redis.query(&["KEYS", "*alice*"]).await;
    assert_eq!(left, Vec::<String>::new());
    let removed = (two.refused(Foreign), three.refused(Foreign));
    assert!(removed.0 == 0 || removed.1 == 0, "one node removed all: {removed:?}");
    assert!(removed.0 + removed.1 >= 3, "{removed:?}");
    // Departures of the other deployment's users are nobody's business here.
    let (bob, _) = two.connect("bob").await;
    two.backplane.unregister(bob).await;
    let gone = tokio::select! { gone = two.departure() => gone, gone = three.departure() => gone };
    assert_eq!(gone.user, user("bob"));
}

#[tokio::test]
async fn a_restart_of_the_only_node_gives_its_keys_to_nobody() {
    let redis = Server::start();
    let one = Node::of(1, on(&redis, "one", 0, "")).await;
    let patient = Settings { lease: Duration::from_secs(30), ..on(&redis, "other", 0, "") };
    let other = Node::of(2, patient).await;
    is_kept_off(&other, &["node one"]).await;
    one.backplane.leave().await;
    // A node tests its rights before each try.
    let tries = async || {
        let stats: String = redis.query(&["INFO", "commandstats"]).await;
        let line = stats.lines().find_map(|line| line.strip_prefix("cmdstat_hkeys:calls=")).unwrap();
        line.split(',').next().unwrap().parse::<u64>().unwrap()
    };
    let before = tries().await;
    other.until("another try", || async { tries().await > before }).await;
    is_kept_off(&other, &["node one"]).await;
    let one = Node::of(1, on(&redis, "one", 0, "")).await;
    assert_eq!(one.degrade.state(Part::Redis).link, LinkState::Up, "{:?}", fault(&one));
    is_kept_off(&other, &["node one"]).await;
}

#[tokio::test]
async fn a_lease_that_just_ended_keeps_another_deployment_off() {
    let redis = Server::start();
    let long = |name: &str| Settings { lease: Duration::from_secs(12), ..on(&redis, name, 0, "") };
    Node::of(1, long("one")).await.die().await;
    // As after a freeze of Redis that was longer than the lease.
    let lease: Vec<String> = redis.query(&["ZRANGE", "ws:nodes", "0", "0"]).await;
    redis.query::<i64>(&["ZADD", "ws:nodes", "XX", "CH", &(millis() - 1_000).to_string(), &lease[0]]).await;
    let other = Node::of(2, long("two")).await;
    is_kept_off(&other, &["node one"]).await;
    redis.query::<i64>(&["ZADD", "ws:nodes", "XX", "CH", &(millis() - 13_000).to_string(), &lease[0]]).await;
    other.redis_is(LinkState::Up).await;
}

#[tokio::test]
async fn what_no_node_wrote_keeps_nobody_off() {
    let redis = Server::start();
    Node::of(1, on(&redis, "one", 0, "")).await.die().await;
    let lease: Vec<String> = redis.query(&["ZRANGE", "ws:nodes", "0", "0"]).await;
    redis.query::<i64>(&["ZADD", "ws:nodes", "XX", "CH", &(millis() - 60_000).to_string(), &lease[0]]).await;
    for member in ["!", "!somebody", "stray", "node#stray"] {
        redis.query::<i64>(&["ZADD", "ws:nodes", "99999999999999", member]).await;
    }
    Node::of(2, on(&redis, "two", 0, "")).await.redis_is(LinkState::Up).await;
}

fn millis() -> i64 {
    switchboard::model::Clock::system().now().micros() / 1_000
}

#[tokio::test]
async fn after_redis_was_emptied_the_deployment_that_used_it_comes_first() {
    let redis = Server::start();
    let one = Node::of(1, on(&redis, "one", 0, "")).await;
    let mut others = Vec::new();
    for name in ["a", "b", "c", "d"] {
        others.push(Node::of(2, on(&redis, name, 0, "")).await);
    }
    for other in &others {
        is_kept_off(other, &["node one"]).await;
    }
    for _ in 0..5 {
        let losses = one.metrics.lease_losses.get();
        redis.query::<()>(&["FLUSHALL"]).await;
        one.until("a new lease", || async { one.metrics.lease_losses.get() > losses }).await;
        one.until("registered again", || async { one.backplane.nodes().await.len() == 1 }).await;
        assert_eq!(one.degrade.state(Part::Redis).link, LinkState::Up);
    }
    // Without it, the others follow.
    one.die().await;
    redis.query::<()>(&["FLUSHALL"]).await;
    for other in &others {
        other.redis_is(LinkState::Up).await;
    }
}

#[tokio::test]
async fn what_a_node_of_another_deployment_writes_late_is_removed_in_silence() {
    let redis = Server::start();
    let mut node = Node::of(1, on(&redis, "one", 0, "")).await;
    let line = "0199f300-0000-7000-8000-000000000001 late#ffffffffffff.00 1 \n";
    redis.query::<i64>(&["HSET", "ws:conns:eve", "c", line, "n", "Eve\n1.AAAAAAAAAAAAAAAAAAAAAA"]).await;
    redis.query::<i64>(&["SADD", "ws:node_users:late#ffffffffffff.00", "eve"]).await;
    redis.query::<i64>(&["ZADD", "ws:nodes", "1", "late#ffffffffffff.00"]).await;
    node.until("removed", || async { !node.online("eve").await }).await;
    let (bob, _) = node.connect("bob").await;
    node.backplane.unregister(bob).await;
    assert_eq!(node.departure().await.user, user("bob"), "nobody is told of eve");
    assert_eq!((node.refused(RefusedPlace::Name), node.refused(Foreign)), (0, 1));
}

#[tokio::test]
async fn before_the_store_told_the_deployment_nothing_in_redis_is_touched() {
    let redis = Server::start();
    let node = Node::without_deployment(on(&redis, "one", 0, "")).await;
    node.backplane.set_keys(&keys(&[1]));
    node.redis_is(LinkState::Up).await;
    node.connect("alice").await;
    node.backplane.publish(vec![message("room", 1)]);
    node.until("kept", || async { !node.backplane.unpublished().is_empty() }).await;
    assert_eq!(redis.query::<Vec<String>>(&["KEYS", "*"]).await, Vec::<String>::new());
    node.backplane.set_deployment(&deployment(1)).await;
    let other = Node::of(1, on(&redis, "two", 0, "")).await;
    other.until("registered", || async { other.online("alice").await }).await;
}

#[tokio::test]
async fn a_deployment_with_a_new_id_goes_on_without_a_restart() {
    let redis = Server::start();
    let (mut one, two) = (Node::of(1, on(&redis, "one", 0, "")).await, Node::of(1, on(&redis, "two", 0, "")).await);
    one.backplane.subscribe(&log("room")).await;
    let (alice, _) = two.connect("alice").await;
    two.backplane.listen(alice, &room("room")).await;
    one.backplane.set_deployment(&deployment(9)).await;
    is_kept_off(&one, &["deployment 000000000001", "node two"]).await;
    two.backplane.set_deployment(&deployment(9)).await;
    one.redis_is(LinkState::Up).await;
    two.redis_is(LinkState::Up).await;
    one.until("registered again", || async { one.online("alice").await }).await;
    one.until("listening again", || async { one.backplane.audience(&room("room")).await.users.len() == 1 }).await;
    two.until("both", || async { two.backplane.nodes().await.len() == 2 }).await;
    one.missed().await;
    one.backplane.subscribe(&log("room")).await;
    two.backplane.publish(vec![message("room", 5)]);
    assert_eq!(seqs(&one.events().await), [5]);
}

#[tokio::test]
async fn nodes_of_an_earlier_version_are_reached_through_the_store() {
    let redis = Server::start();
    let epoch = "/00112233445566778899aabbccddeeff";
    let until = (millis() + 600_000).to_string();
    redis.query::<i64>(&["ZADD", "ws:nodes", "+inf", epoch, &until, "old#0011223344556677"]).await;
    let node = Node::of(1, on(&redis, "new", 0, "")).await;
    assert_eq!(node.degrade.state(Part::Redis).link, LinkState::Up, "{:?}", fault(&node));
    assert!(node.degrade.may_be_alone() && node.degrade.relays());
    let names: Vec<_> = node.backplane.nodes().await.into_iter().map(|node| node.node).collect();
    assert!(names.contains(&NodeId::parse("old").unwrap()), "{names:?}");
    // The keys are this deployment's from now on.
    let other = Node::of(2, on(&redis, "other", 0, "")).await;
    is_kept_off(&other, &["deployment 000000000001", "nodes new, old"]).await;
    redis.query::<i64>(&["ZREM", "ws:nodes", "old#0011223344556677"]).await;
    node.until("the last old node is gone", || async { !node.degrade.relays() }).await;
}
