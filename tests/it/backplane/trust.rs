//! Nodes refuse payloads that another program writes into Redis: in the caches and on the channels.

use futures_util::StreamExt;
use redis::aio::PubSubStream;
use switchboard::{
    backplane::RefusedPlace::{Cache, Late, Publication, Retired},
    model::{Body, Clock, Cost, Timestamp},
};

use super::{
    node::{Node, entry, keys, log, message, seqs, typing, typing_at, user},
    redis_server::Server,
};

/// Listens to all channels of logs.
async fn eavesdrop(redis: &Server) -> PubSubStream {
    let client = redis::Client::open(redis.url()).unwrap();
    let (mut sink, stream) = client.get_async_pubsub().await.unwrap().split();
    sink.psubscribe("*:c:*").await.unwrap();
    // The subscription ends with the sink.
    tokio::spawn(async move { (sink, std::future::pending::<()>().await) });
    stream
}

/// The next publication: its channel and its payload.
async fn overhear(stream: &mut PubSubStream) -> (String, String) {
    let heard = tokio::time::timeout(super::node::LONG, stream.next()).await.unwrap().unwrap();
    (heard.get_channel_name().to_owned(), heard.get_payload().unwrap())
}

#[tokio::test]
async fn a_publication_that_no_node_signed_is_refused_and_its_log_is_doubtful() {
    let redis = Server::start();
    let (one, mut other) = (Node::start("one", Some(&redis.url())).await, Node::start("two", Some(&redis.url())).await);
    for id in ["room", "elsewhere", "~bob"] {
        other.backplane.subscribe(&log(id)).await;
    }
    let mut heard = eavesdrop(&redis).await;
    one.backplane.publish(vec![message("room", 1)]);
    let (channel, payload) = overhear(&mut heard).await;
    assert_eq!(seqs(&other.events().await), [1]);
    let moved: Vec<String> = redis.query(&["PUBSUB", "CHANNELS", "*:c:elsewhere"]).await;
    let forged = |from: &str, to: &str| payload.replacen(from, to, 1);
    let unsigned = "{\"node\":\"x#0\",\"events\":[{\"occurrence\":{}}]}".to_owned();
    let forgeries = [
        (&channel, forged("message 1", "something else")),
        (&channel, forged("\"seq\":1", "\"seq\":2")),
        (&channel, unsigned),
        (&channel, "{".to_owned()),
        (&channel, String::new()),
        (&moved[0], payload.clone()),
        (&moved[0], forged("\"log\":\"room\"", "\"log\":\"elsewhere\"")),
    ];
    for (channel, payload) in &forgeries {
        redis.query::<i64>(&["PUBLISH", channel, payload]).await;
    }
    let mut doubtful = other.doubtful().await;
    while doubtful.len() < 2 {
        for found in other.doubtful().await {
            if !doubtful.contains(&found) {
                doubtful.push(found);
            }
        }
    }
    doubtful.sort_by(|a, b| a.as_str().cmp(b.as_str()));
    assert_eq!(doubtful, [log("elsewhere"), log("room")]);
    one.backplane.publish(vec![message("room", 2)]);
    assert_eq!(seqs(&other.events().await), [2], "nothing of it arrived");
    assert_eq!(other.refused(Publication), forgeries.len() as u64);
    assert_eq!(other.metrics.bus_in_unreadable.get(), 0);
}

#[tokio::test]
async fn a_node_with_another_key_is_refused_until_the_key_is_known() {
    let redis = Server::start();
    let (one, mut other) = (Node::start("one", Some(&redis.url())).await, Node::start("two", Some(&redis.url())).await);
    other.backplane.subscribe(&log("room")).await;
    one.backplane.set_keys(&keys(&[2]));
    one.backplane.publish(vec![message("room", 1)]);
    other.backplane.wants_keys().await;
    assert_eq!(other.doubtful().await, [log("room")]);
    // The new key spreads before it signs, and then both are accepted.
    other.backplane.set_keys(&keys(&[1, 2]));
    one.backplane.set_keys(&keys(&[2, 1]));
    one.backplane.publish(vec![message("room", 2)]);
    assert_eq!(seqs(&other.events().await), [2]);
    one.backplane.subscribe(&log("room")).await;
    other.backplane.publish(vec![message("room", 3)]);
    let mut one = one;
    assert_eq!(seqs(&one.events().await), [3]);
    assert_eq!((one.refused(Publication), other.refused(Publication)), (0, 1));
}

#[tokio::test]
async fn an_ephemeral_event_from_long_ago_is_refused() {
    let redis = Server::start();
    let (one, mut other) = (Node::start("one", Some(&redis.url())).await, Node::start("two", Some(&redis.url())).await);
    other.backplane.subscribe(&log("room")).await;
    let typed = |seconds_ago: i64| {
        typing_at("room", Timestamp::from_micros(Clock::system().now().micros() - 1_000_000 * seconds_ago))
    };
    let recent = typed(10);
    one.backplane.publish(vec![typed(120), recent.clone()]);
    assert_eq!(other.events().await, [recent]);
    assert_eq!(other.refused(Late), 1);
    // Entries have a number instead.
    let old = entry("room", 1, Body::Deleted { target: 1 });
    one.backplane.publish(vec![old.clone()]);
    assert_eq!(other.events().await, [old]);
}

#[tokio::test]
async fn a_cache_that_somebody_wrote_is_refused_and_dropped() {
    let redis = Server::start();
    let node = Node::start("one", Some(&redis.url())).await;
    let cached = async |seqs: std::ops::RangeInclusive<i64>| {
        node.backplane.publish(seqs.clone().map(|seq| message("room", seq)).collect());
        node.until("cached", || async { node.backplane.recent(&log("room"), seqs.end() - 1).await.is_some() }).await;
        redis.query::<Vec<String>>(&["LRANGE", "room_messages:room", "0", "-1"]).await
    };
    redis.query::<()>(&["SET", "room_messages:room", "[]"]).await;
    assert_eq!(node.backplane.recent(&log("room"), 0).await, None);
    redis.query::<()>(&["DEL", "room_messages:room"]).await;
    let genuine = cached(1..=3).await;
    assert_eq!(genuine.len(), 3);
    let changed = genuine[1].replace("message 2", "a lie");
    let renumbered = genuine[0].replace("\"seq\":3", "\"seq\":4");
    let unsigned = genuine[0].split(",\"mac\"").next().unwrap().to_owned() + "}";
    let longer = "1".repeat(100);
    for (refused, forgery) in [&changed, &renumbered, &unsigned, "{}", &longer].into_iter().enumerate() {
        redis.query::<()>(&["LPUSH", "room_messages:room", forgery]).await;
        assert_eq!(node.backplane.recent(&log("room"), 0).await, None, "{forgery}");
        assert_eq!(node.refused(Cache), refused as u64 + 1);
        assert_eq!(redis.query::<i64>(&["EXISTS", "room_messages:room"]).await, 0, "it is dropped");
        cached(1..=3).await;
    }
    // A cache that was moved as a whole, and read there.
    redis.query::<()>(&["RENAME", "room_messages:room", "room_messages:other"]).await;
    assert_eq!(node.backplane.recent(&log("other"), 0).await, None);
    assert_eq!(node.refused(Cache), 8);
    // Of a list that is longer than a node makes it, only the beginning is read.
    let many: Vec<String> = (0..5_000).map(|n| format!("forged {n}")).collect();
    let push: Vec<&str> = ["RPUSH", "room_messages:room"].into_iter().chain(many.iter().map(String::as_str)).collect();
    redis.query::<i64>(&push).await;
    assert_eq!(node.backplane.recent(&log("room"), 0).await, None);
    assert_eq!(node.refused(Cache), 58);
    assert_eq!(redis.query::<i64>(&["EXISTS", "room_messages:room"]).await, 0);
}

/// A cached message stays as long as its conversation is active, and so outlives the key that signed it.
#[tokio::test]
async fn what_a_removed_key_signed_is_dropped_and_is_no_forgery() {
    let redis = Server::start();
    let node = Node::start("one", Some(&redis.url())).await;
    node.backplane.set_keys(&keys(&[1]));
    node.backplane.publish(vec![message("room", 1)]);
    node.until("cached", || async { node.backplane.recent(&log("room"), 0).await.is_some() }).await;
    node.backplane.set_keys(&keys(&[2]));
    assert_eq!(node.backplane.recent(&log("room"), 0).await, None);
    assert_eq!((node.refused(Cache), node.refused(Retired)), (0, 1));
    assert_eq!(redis.query::<i64>(&["EXISTS", "room_messages:room"]).await, 0);
    node.backplane.publish(vec![message("room", 2)]);
    node.until("cached again", || async { node.backplane.recent(&log("room"), 1).await.is_some() }).await;
}

#[tokio::test]
async fn without_keys_a_node_publishes_and_caches_nothing() {
    let redis = Server::start();
    let (mut one, other) =
        (Node::start("one", Some(&redis.url())).await, Node::without_keys("two", Some(&redis.url())).await);
    one.backplane.subscribe(&log("room")).await;
    other.backplane.publish(vec![message("room", 1), typing("room")]);
    let kept = || async { !other.backplane.unpublished().is_empty() };
    other.until("the entry is kept", kept).await;
    other.backplane.set_keys(&keys(&[1]));
    other.backplane.publish(vec![message("elsewhere", 1)]);
    assert_eq!(seqs(&one.events().await), [1], "it is published once the keys are known");
    assert_eq!(one.refused(Publication), 0);
}

/// Values of another type or of no meaning, in every place that all nodes read.
#[tokio::test]
async fn foreign_values_in_shared_keys_do_not_take_redis_down() {
    let redis = Server::start();
    let (one, two) = (Node::start("one", Some(&redis.url())).await, Node::start("two", Some(&redis.url())).await);
    one.connect("alice").await;
    for value in ["abc", "-5", "1.5", "", "99999999999999999999"] {
        redis.query::<i64>(&["HSET", "ws:node_connections", &format!("q{}#1", value.len()), value]).await;
    }
    redis.query::<i64>(&["SADD", "ws:online_users", "no user"]).await;
    let not_text: i64 = {
        let client = redis::Client::open(redis.url()).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let mut pipeline = redis::pipe();
        pipeline.cmd("SADD").arg("ws:online_users").arg(&b"\xff\xfe"[..]).ignore();
        pipeline.cmd("ZADD").arg("ws:nodes").arg(1).arg(&b"\xff#1"[..]).ignore();
        pipeline.cmd("ZADD").arg("ws:leaving").arg(1).arg(&b"\xff/1"[..]);
        let (added,) = pipeline.query_async::<(i64,)>(&mut connection).await.unwrap();
        added
    };
    assert_eq!(not_text, 1);
    two.until("alice elsewhere", || async { two.backplane.connections_elsewhere() == 1 }).await;
    assert_eq!(two.backplane.online_page(0, 100).await.0, [user("alice")]);
    one.until("the schedule without it", || async { redis.query::<i64>(&["ZCARD", "ws:leaving"]).await == 0 }).await;
    for key in ["ws:node_connections", "ws:leaving"] {
        redis.query::<()>(&["DEL", key]).await;
        redis.query::<()>(&["SET", key, "foreign"]).await;
        let healed = || async { redis.query::<String>(&["TYPE", key]).await.trim() != "string" };
        one.until("the foreign value to be gone", healed).await;
    }
    let leases: i64 = redis.query(&["ZCARD", "ws:nodes"]).await;
    assert!(leases <= 4, "two nodes, the epoch, and perhaps the foreign name: {leases}");
    two.until("alice elsewhere again", || async { two.backplane.connections_elsewhere() == 1 }).await;
    let lease: String = redis.query::<Vec<String>>(&["ZRANGEBYSCORE", "ws:nodes", "2", "9999999999999"]).await.concat();
    redis.query::<()>(&["SET", "ws:nodes", "foreign"]).await;
    one.until("leases again", || async { redis.query::<String>(&["TYPE", "ws:nodes"]).await.trim() == "zset" }).await;
    assert!(lease.contains("one#") && lease.contains("two#"), "no try was needed before: {lease}");
}

/// Keys of one user or one conversation, and the views that nodes fill.
#[tokio::test]
async fn a_value_of_another_type_is_deleted_wherever_a_node_meets_it() {
    let redis = Server::start();
    let (one, two) = (Node::start("one", Some(&redis.url())).await, Node::start("two", Some(&redis.url())).await);
    for key in
        ["ws:conns:alice", "rate_limit:message:alice", "room_messages:team", "ws:online_users", "ws:room_users:team"]
    {
        redis.query::<()>(&["SET", key, "foreign"]).await;
    }
    let (connection, _) = one.connect("alice").await;
    two.connect("bob").await;
    one.backplane.listen(connection, &super::node::room("team")).await;
    one.backplane.admit(&user("alice"), Cost::MESSAGE, 3).await;
    one.backplane.recent(&super::node::log("team"), 0).await;
    for (key, kind) in [("ws:conns:alice", "hash"), ("ws:online_users", "set"), ("ws:room_users:team", "set")] {
        let healed = || async { redis.query::<String>(&["TYPE", key]).await.trim() == kind };
        one.until("the own value to be back", healed).await;
    }
    for key in ["rate_limit:message:alice", "room_messages:team"] {
        assert_eq!(redis.query::<String>(&["TYPE", key]).await.trim(), "none", "{key}");
    }
    for name in ["alice", "bob"] {
        two.until("both to be online", || async { two.online(name).await }).await;
        let listed = || async { redis.query::<i64>(&["SISMEMBER", "ws:online_users", name]).await == 1 };
        two.until("both to be listed", listed).await;
    }
}
