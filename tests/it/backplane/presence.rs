//! Registry, connection caps, grace, departures.

use std::{collections::HashSet, time::Duration};

use switchboard::{
    backplane::{Departure, Listening, Scope, TooMany},
    degrade::LinkState,
};
use tokio::time::Instant;

use super::{
    node::{LONG, Node, departures_until, registration, room, settings, user},
    redis_server::Server,
};

/// Longer than the grace plus the interval and the margin of the sweep.
const AFTER_GRACE: Duration = Duration::from_millis(2_500);

fn offline(id: &str, left: &[&str]) -> Departure {
    let left = left.iter().map(|id| room(id)).collect();
    let (user, name) = (user(id), id.to_uppercase().into());
    Departure { user, name, left, left_before: Vec::new(), offline: true, announced_here: false }
}

#[tokio::test]
async fn the_first_connection_makes_online_and_the_last_departs_once() {
    let redis = Server::start();
    for url in [Some(redis.url()), None] {
        let mut one = Node::start("one", url.as_deref()).await;
        let mut other = Node::start("two", url.as_deref()).await;
        let shared = url.is_some();
        let (a, first) = one.connect("alice").await;
        assert!(first);
        let (b, first) = if shared { other.connect("alice").await } else { one.connect("alice").await };
        assert!(!first);
        let second = if shared { &other } else { &one };
        assert_eq!(one.backplane.listen(a, &room("r")).await, Listening { first: true });
        assert_eq!(one.backplane.listen(a, &room("r")).await, Listening { first: false });
        assert_eq!(second.backplane.listen(b, &room("r")).await, Listening { first: false });
        assert_eq!(second.backplane.audience(&room("r")).await.users, [user("alice")]);
        assert_eq!(second.backplane.joined(&user("alice")).await, [room("r")]);
        one.backplane.unregister(a).await;
        assert!(second.online("alice").await);
        second.backplane.unregister(b).await;
        second.backplane.unregister(b).await;
        assert!(second.online("alice").await, "within the grace");
        let told = departures_until(&mut [&mut one, &mut other], Instant::now() + AFTER_GRACE).await;
        assert_eq!(told, [offline("alice", &["r"])]);
        assert!(!one.online("alice").await);
        assert!(one.backplane.audience(&room("r")).await.users.is_empty());
        assert_eq!(one.backplane.online_count().await, 0);
    }
    assert_eq!(redis.query::<Vec<String>>(&["KEYS", "ws:*alice*"]).await, Vec::<String>::new());
    assert_eq!(redis.query::<i64>(&["ZCARD", "ws:leaving"]).await, 0);
}

#[tokio::test]
async fn a_return_within_the_grace_is_no_event() {
    let redis = Server::start();
    for url in [Some(redis.url()), None] {
        let mut one = Node::start("one", url.as_deref()).await;
        let mut other = Node::start("two", url.as_deref()).await;
        let (a, _) = one.connect("bob").await;
        one.backplane.listen(a, &room("r")).await;
        one.backplane.unregister(a).await;
        let back = if url.is_some() { &other } else { &one };
        let (b, first) = back.connect("bob").await;
        assert!(!first);
        assert_eq!(back.backplane.listen(b, &room("r")).await, Listening { first: false });
        let told = departures_until(&mut [&mut one, &mut other], Instant::now() + AFTER_GRACE).await;
        assert_eq!(told, []);
        assert!(one.online("bob").await || url.is_none());
        let back = if url.is_some() { &other } else { &one };
        back.backplane.unlisten(b, &room("r")).await;
        let told = departures_until(&mut [&mut one, &mut other], Instant::now() + AFTER_GRACE).await;
        let left = Departure { offline: false, ..offline("bob", &["r"]) };
        assert_eq!(told, [left]);
    }
}

#[tokio::test]
async fn who_heard_of_a_leaving_hears_of_the_departure_too() {
    let redis = Server::start();
    for url in [Some(redis.url()), None] {
        let mut one = Node::start("one", url.as_deref()).await;
        let (a, _) = one.connect("dora").await;
        let rooms: Vec<_> = (0..40).map(|n| format!("r{n:02}")).collect();
        for name in &rooms {
            one.backplane.listen(a, &room(name)).await;
        }
        for name in &rooms {
            one.backplane.unlisten(a, &room(name)).await;
        }
        let told = departures_until(&mut [&mut one], Instant::now() + AFTER_GRACE).await;
        let left: HashSet<_> = told.iter().flat_map(|departure| departure.left.clone()).collect();
        assert!(
            left.len() == rooms.len() && told.iter().all(|one| !one.offline && one.left_before.is_empty()),
            "{told:?}"
        );
        one.backplane.listen(a, &room("last")).await;
        one.backplane.unregister(a).await;
        let told = departures_until(&mut [&mut one], Instant::now() + AFTER_GRACE).await;
        let [Departure { left, left_before, offline: true, .. }] = &told[..] else { panic!("{told:?}") };
        assert_eq!(*left, [room("last")]);
        let before: HashSet<_> = left_before.iter().collect();
        assert!(before.len() == 32 && left_before.len() == 32, "{left_before:?}");
    }
    assert_eq!(redis.query::<Vec<String>>(&["KEYS", "ws:*dora*"]).await, Vec::<String>::new());
}

/// As after a failover to a replica that had the departure, but not yet its effect on the views.
#[tokio::test]
async fn a_departure_leaves_nothing_in_a_redis_that_lost_its_end() {
    let redis = Server::start();
    let mut one = Node::start("one", Some(&redis.url())).await;
    let (a, _) = one.connect("erik").await;
    one.backplane.unregister(a).await;
    assert!(one.departure().await.offline);
    let (b, _) = one.connect("frida").await;
    one.backplane.unregister(b).await;
    assert!(one.departure().await.offline);
    one.connect("frida").await;
    redis.query::<()>(&["SET", "ws:user:erik", "{}"]).await;
    redis.query::<()>(&["SADD", "ws:online_users", "erik"]).await;
    redis.query::<()>(&["DEL", "ws:nodes"]).await;
    let is_gone = async || redis.query::<Vec<String>>(&["KEYS", "ws:*erik*"]).await.is_empty();
    one.until("erik's summary to be gone", is_gone).await;
    assert_eq!(redis.query::<i64>(&["SISMEMBER", "ws:online_users", "erik"]).await, 0);
    assert_eq!(redis.query::<i64>(&["EXISTS", "ws:user:frida"]).await, 1, "she came back, and keeps hers");
}

#[tokio::test]
async fn caps_count_over_all_nodes() {
    let redis = Server::start();
    let (one, other) = (Node::start("one", Some(&redis.url())).await, Node::start("two", Some(&redis.url())).await);
    let (a, _) = one.connect("carol").await;
    other.connect("carol").await;
    let refused = one.backplane.register(&registration("carol", Scope::User)).await;
    assert_eq!(refused, Err(TooMany { retry_may_succeed: false }));
    for id in ["r1", "r2"] {
        let bound = registration("carol", Scope::Conversation(room(id)));
        assert_eq!(one.backplane.register(&bound).await, Ok(false));
    }
    let fifth = registration("carol", Scope::Conversation(room("r3")));
    assert_eq!(other.backplane.register(&fifth).await, Err(TooMany { retry_may_succeed: false }), "the sum");
    one.backplane.unregister(a).await;
    one.connect("carol").await;
    let infos = one.backplane.connections_of(&user("carol")).await;
    let nodes: Vec<_> = infos.iter().map(|info| info.node.as_str().to_owned()).collect();
    assert_eq!(nodes.iter().collect::<HashSet<_>>().len(), 2);
    assert_eq!(nodes.len(), 4);
    let summary: String = redis.query(&["GET", "ws:user:carol"]).await;
    let summary: serde_json::Value = serde_json::from_str(&summary).unwrap();
    assert_eq!(summary["server_id"], "one");
    assert!(summary["connected_at"].as_str().unwrap().ends_with('Z') && summary["last_seen"].is_string());
    let ttl: i64 = redis.query(&["TTL", "ws:user:carol"]).await;
    assert!((3_500..=3_600).contains(&ttl));
    let known = one.backplane.nodes().await;
    assert_eq!(known.iter().map(|node| node.users).collect::<Vec<_>>(), [1, 1]);
    assert!(known.iter().all(|node| node.lease_left > Duration::ZERO));
}

#[tokio::test]
async fn connection_counts_of_all_nodes_are_known_within_a_renewal() {
    let redis = Server::start();
    let (one, other) = (Node::start("one", Some(&redis.url())).await, Node::start("two", Some(&redis.url())).await);
    let known = async || {
        let mut counts: Vec<_> =
            other.backplane.nodes().await.iter().map(|node| (node.node.to_string(), node.connections)).collect();
        counts.sort();
        (counts.into_iter().map(|(_, count)| count).collect::<Vec<_>>(), other.backplane.connections_elsewhere())
    };
    assert_eq!(known().await, (vec![0, 0], 0));
    let (first, _) = one.connect("alice").await;
    one.connect("bob").await;
    other.connect("alice").await;
    let becomes = async |expected: (Vec<u64>, u64)| {
        let since = Instant::now();
        while known().await != expected {
            assert!(
                since.elapsed() < crate::support::allowed(LONG),
                "{:?} known instead of {expected:?}",
                known().await
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    becomes((vec![2, 1], 2)).await;
    one.backplane.unregister(first).await;
    becomes((vec![1, 1], 1)).await;
    // A process that follows another under the same name takes over its count.
    redis.query::<()>(&["FLUSHALL"]).await;
    becomes((vec![1, 1], 1)).await;
    let counted: Vec<String> = redis.query(&["HKEYS", "ws:node_connections"]).await;
    assert_eq!(counted.len(), 2, "{counted:?}");
}

#[tokio::test]
async fn two_nodes_never_exceed_the_cap_together() {
    let redis = Server::start();
    let (one, other) = (Node::start("one", Some(&redis.url())).await, Node::start("two", Some(&redis.url())).await);
    let tries = (0..20).map(|n| {
        let node = if n % 2 == 0 { &one } else { &other };
        async move { node.backplane.register(&registration("dave", Scope::User)).await }
    });
    let results = futures_util::future::join_all(tries).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 2);
    assert_eq!(results.iter().filter(|result| **result == Ok(true)).count(), 1);
}

#[tokio::test]
async fn a_page_lists_online_users() {
    let redis = Server::start();
    for url in [Some(redis.url()), None] {
        let node = Node::start("one", url.as_deref()).await;
        for n in 0..250 {
            node.connect(&format!("user-{n}")).await;
        }
        let (mut all, mut cursor) = (HashSet::new(), 0);
        loop {
            let (users, next) = node.backplane.online_page(cursor, 40).await;
            all.extend(users);
            cursor = next;
            if cursor == 0 {
                break;
            }
        }
        assert_eq!(all.len(), 250);
        assert_eq!(node.backplane.online_count().await, 250);
        let asked = [user("user-7"), user("nobody"), user("user-249")];
        assert_eq!(node.backplane.online(&asked).await, [true, false, true]);
    }
}

#[tokio::test]
async fn a_dead_nodes_users_depart_once_unless_connected_to_another_node() {
    let redis = Server::start();
    let nodes = [
        Node::start("one", Some(&redis.url())).await,
        Node::start("two", Some(&redis.url())).await,
        Node::start("three", Some(&redis.url())).await,
    ];
    for n in 0..150 {
        let (connection, _) = nodes[0].connect(&format!("user-{n}")).await;
        nodes[0].backplane.listen(connection, &room("r")).await;
    }
    nodes[0].connect("both").await;
    nodes[1].connect("both").await;
    let [dead, mut one, mut other] = nodes;
    let died = Instant::now();
    dead.die().await;
    let told = departures_until(&mut [&mut one, &mut other], died + Duration::from_secs(6)).await;
    let users: HashSet<_> = told.iter().map(|departure| departure.user.clone()).collect();
    assert_eq!((told.len(), users.len()), (150, 150));
    assert!(told.iter().all(|departure| departure.offline && departure.left == [room("r")]));
    assert!(!users.contains(&user("both")) && one.online("both").await && !one.online("user-3").await);
    assert!(one.backplane.audience(&room("r")).await.users.is_empty());
    assert_eq!(one.metrics.reaped.get() + other.metrics.reaped.get(), 151);
    assert_eq!(redis.query::<Vec<String>>(&["KEYS", "ws:node_users:one*"]).await, Vec::<String>::new());
    assert_eq!(one.backplane.nodes().await.len(), 2);
    let counted: Vec<String> = redis.query(&["HKEYS", "ws:node_connections"]).await;
    assert!(counted.iter().all(|node| !node.starts_with("one#")), "{counted:?}");
    // No user may depart before the lease is out.
    assert!(one.backplane.connections_of(&user("both")).await.len() == 1);
}

#[tokio::test]
async fn connections_of_a_node_that_may_be_dead_refuse_only_with_a_retry() {
    let redis = Server::start();
    let mut long = settings("dying", Some(&redis.url()));
    long.lease = Duration::from_secs(4);
    let dying = Node::with(long.clone()).await;
    long.node = switchboard::model::NodeId::parse("other").unwrap();
    let node = Node::with(long).await;
    dying.connect("erin").await;
    dying.connect("erin").await;
    let new = registration("erin", Scope::User);
    assert_eq!(node.backplane.register(&new).await, Err(TooMany { retry_may_succeed: false }));
    dying.die().await;
    let (mut perhaps, started) = (false, Instant::now());
    loop {
        match node.backplane.register(&new).await {
            Ok(first) => {
                assert!(!first, "`offline` was never reported");
                break;
            }
            Err(TooMany { retry_may_succeed: now }) => perhaps |= now,
        }
        assert!(
            started.elapsed() < crate::support::allowed(Duration::from_secs(10)),
            "the lease is out, the cap is free"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(perhaps, "before that, refused with a retry");
}

#[tokio::test]
async fn a_node_that_leaves_leaves_nothing_in_redis() {
    let redis = Server::start();
    let (one, other) = (Node::start("one", Some(&redis.url())).await, Node::start("two", Some(&redis.url())).await);
    let (connection, _) = one.connect("frank").await;
    one.backplane.leave().await;
    assert_eq!(other.backplane.nodes().await.len(), 2, "it stays while it holds a connection");
    one.backplane.unregister(connection).await;
    one.backplane.leave().await;
    let left = other.backplane.nodes().await;
    assert_eq!(left.iter().map(|node| node.node.as_str()).collect::<Vec<_>>(), ["two"]);
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(other.backplane.nodes().await.len(), 1, "it does not come back");
    let counted: Vec<String> = redis.query(&["HKEYS", "ws:node_connections"]).await;
    assert!(counted.len() == 1 && counted[0].starts_with("two#"), "{counted:?}");
    one.redis_is(LinkState::Up).await;
    one.die().await;
}
