//! Publishing, receiving, and the recent cache.

use std::collections::BTreeMap;

use switchboard::{
    backplane::RateDecision,
    model::{Body, Cost},
};

use super::{
    node::{Node, entry, log, message, seqs, typing, user},
    redis_server::Server,
};

#[tokio::test]
async fn a_node_receives_events_that_another_publishes() {
    let redis = Server::start();
    let (one, mut other) = (Node::start("one", Some(&redis.url())).await, Node::start("two", Some(&redis.url())).await);
    other.backplane.subscribe(&log("room")).await;
    other.backplane.subscribe(&log("~bob")).await;
    let sent = vec![message("room", 1), typing("room"), message("room", 2)];
    one.backplane.publish(sent.clone());
    assert_eq!(other.events().await, sent);
    one.backplane.publish(vec![message("elsewhere", 1), entry("~bob", 1, Body::Deleted { target: 1 })]);
    assert_eq!(other.events().await[0].log(), &log("~bob"));
}

#[tokio::test]
async fn a_subscription_is_confirmed_before_anything_is_published() {
    let redis = Server::start();
    let (one, mut other) = (Node::start("one", Some(&redis.url())).await, Node::start("two", Some(&redis.url())).await);
    for turn in 0..50 {
        // End it and begin it again at once: the confirmation of the first subscription must not count for the second.
        other.backplane.subscribe(&log("room")).await;
        other.backplane.unsubscribe(&log("room"));
        other.backplane.subscribe(&log("room")).await;
        one.backplane.publish(vec![message("room", turn)]);
        assert_eq!(seqs(&other.events().await), [turn]);
        other.backplane.unsubscribe(&log("room"));
    }
}

#[tokio::test]
async fn a_node_does_not_receive_its_own_events() {
    let redis = Server::start();
    let (mut one, other) =
        (Node::start("same", Some(&redis.url())).await, Node::start("same", Some(&redis.url())).await);
    one.backplane.subscribe(&log("room")).await;
    one.backplane.publish(vec![message("room", 1)]);
    one.backplane.recent(&log("room"), 0).await;
    other.backplane.publish(vec![message("room", 2)]);
    assert_eq!(seqs(&one.events().await), [2], "processes of one name are told apart");
}

#[tokio::test]
async fn a_node_that_cannot_keep_up_gets_a_missed_notice() {
    let redis = Server::start();
    let mut node = Node::start("one", Some(&redis.url())).await;
    let logs: Vec<_> = (0..500).map(|n| format!("room-{n}")).collect();
    futures_util::future::join_all(logs.iter().map(async |id| node.backplane.subscribe(&log(id)).await)).await;
    let other = Node::start("two", Some(&redis.url())).await;
    let missed = node.metrics.bus_missed.get();
    // Nothing reads the notices meanwhile: the queue is bounded, so entries are lost and `Missed` follows.
    for seq in 1..=40 {
        other.backplane.publish(logs.iter().map(|id| message(id, seq)).collect());
        let published = || async { other.backplane.recent(&log("room-499"), seq - 1).await.is_some() };
        other.until("published", published).await;
    }
    let heard = node.until_missed(missed).await;
    assert!(heard < 500 * 40, "{heard} of them were received");
    other.backplane.publish(vec![message("room-7", 41)]);
    while seqs(&node.events().await) != [41] {}
}

#[tokio::test]
async fn the_cache_serves_only_contiguous_entries() {
    let redis = Server::start();
    let node = Node::start("one", Some(&redis.url())).await;
    let recent = async |after| {
        let found = node.backplane.recent(&log("room"), after).await;
        found.map(|entries| entries.iter().map(|entry| entry.seq).collect::<Vec<_>>())
    };
    let cached = |newest: i64| {
        let (node, log) = (node.backplane.clone(), log("room"));
        move || {
            let (node, log) = (node.clone(), log.clone());
            async move { node.recent(&log, newest - 1).await.is_some() }
        }
    };
    assert_eq!(recent(0).await, None);
    node.backplane.publish((1..=60).map(|seq| message("room", seq)).collect());
    node.until("cached", cached(60)).await;
    assert_eq!(recent(10).await, Some((11..=60).collect()));
    assert_eq!(recent(9).await, None, "50 are kept");
    assert_eq!(recent(60).await, None);
    node.backplane.publish(vec![message("room", 62)]);
    node.backplane.publish(vec![message("room", 63)]);
    node.until("cached", cached(63)).await;
    assert_eq!(recent(60).await, None, "61 is missing");
    assert_eq!(recent(61).await, Some(vec![62, 63]));
    node.backplane.publish(vec![message("room", 61)]);
    node.until("the cached entry", cached(61)).await;
    assert_eq!(recent(60).await, Some(vec![61, 62, 63]), "a late entry is still cached");
    let ttl: i64 = redis.query(&["TTL", "room_messages:room"]).await;
    assert!((1..=600).contains(&ttl));
    node.backplane.publish(vec![entry("room", 64, Body::edited(63, "new"))]);
    node.backplane.publish(vec![message("room", 65)]);
    node.until("cached", cached(65)).await;
    assert_eq!(recent(62).await, None, "an edit empties the cache");
    assert!(node.metrics.cache_hits.get() > 3 && node.metrics.cache_misses.get() > 3);
}

/// Calls between two readings, without the node's own periodic calls and the test's.
fn calls_between(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let own = ["info", "zscore", "zrangebyscore", "zrange", "hello", "select", "client|setinfo", "ping"];
    let more = after.iter().map(|(name, calls)| (name.clone(), calls - before.get(name).unwrap_or(&0)));
    more.filter(|(name, calls)| *calls > 0 && !own.contains(&name.as_str())).collect()
}

#[tokio::test]
async fn a_message_costs_five_commands() {
    let redis = Server::start();
    let mut settings = super::node::settings("one", Some(&redis.url()));
    // Long enough that no renewal comes between.
    settings.lease = std::time::Duration::from_secs(60);
    let node = Node::with(settings).await;
    let mut other = Node::start("two", Some(&redis.url())).await;
    other.backplane.subscribe(&log("room")).await;
    assert_eq!(node.backplane.admit(&user("alice"), Cost::MESSAGE, 100).await, RateDecision::Admitted);
    let published = |calls: &BTreeMap<String, u64>| calls.get("publish").copied().unwrap_or(0);
    let before = redis.calls().await;
    for seq in 1..=10 {
        node.backplane.admit(&user("alice"), Cost::MESSAGE, 100).await;
        node.backplane.publish(vec![message("room", seq)]);
        other.events().await;
    }
    let after = redis.calls().await;
    let calls = calls_between(&before, &after);
    // The other node's lease and the canaries go on meanwhile.
    assert!((10..=13).contains(&calls["evalsha"]), "{calls:?}");
    assert!((10..=16).contains(&(published(&after) - published(&before))), "{calls:?}");
    assert_eq!(calls["expire"], 10, "{calls:?}");
    // One call by the cache, one by the script.
    assert_eq!((calls["lpush"], calls["ltrim"]), (20, 20), "{calls:?}");
    for known in ["evalsha", "publish", "expire", "lpush", "ltrim", "lindex", "pexpire", "time", "zadd"] {
        assert!(calls.contains_key(known) || known == "zadd", "{calls:?}");
    }
    assert!(calls.len() <= 9, "{calls:?}");
}

#[tokio::test]
async fn idle_connections_cost_nothing() {
    let redis = Server::start();
    let node = Node::start("one", Some(&redis.url())).await;
    let rate = async || {
        let before = redis.calls().await;
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
        calls_between(&before, &redis.calls().await).values().sum::<u64>()
    };
    let none = rate().await;
    for n in 0..200 {
        let (connection, _) = node.connect(&format!("user-{n}")).await;
        node.backplane.listen(connection, &super::node::room("room")).await;
    }
    let many = rate().await;
    // Equal, up to where the seconds begin.
    assert!(many <= none + 6, "{none} {many}");
    let looked = async || redis.calls().await.get("lindex").copied();
    let before = looked().await;
    assert_eq!(node.backplane.admit(&user("alice"), Cost::MESSAGE, 0).await, RateDecision::Admitted);
    assert_eq!(looked().await, before, "no limit, no command");
}
