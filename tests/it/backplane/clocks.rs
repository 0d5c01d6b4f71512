//! Redis' clock was set back: times that were written before then lie in the future. They delay nothing for longer than a
//! window or a grace lasts.

use std::time::Duration;

use switchboard::{
    backplane::RateDecision,
    model::{Cost, Timestamp},
};

use tokio::time::Instant;

use super::{
    node::{Node, settings, user},
    redis_server::Server,
};

const BACK: Duration = Duration::from_secs(600);

async fn in_the_future(redis: &Server) -> i64 {
    let (seconds, micros): (i64, i64) = redis.query(&["TIME"]).await;
    Timestamp::from_micros(seconds * 1_000_000 + micros).micros() + BACK.as_micros() as i64
}

#[tokio::test]
async fn a_window_is_never_longer_than_its_length() {
    let redis = Server::start();
    let mut short = settings("one", Some(&redis.url()));
    short.window = Duration::from_millis(700);
    let node = Node::with(short).await;
    let later = in_the_future(&redis).await.to_string();
    let _: i64 = redis.query(&["LPUSH", "rate_limit:message:alice", &later, &later, &later]).await;
    let RateDecision::Refused { retry_after, .. } = node.backplane.admit(&user("alice"), Cost::MESSAGE, 3).await else {
        panic!("the window is full")
    };
    assert!(retry_after <= Duration::from_millis(700), "{retry_after:?}");
    tokio::time::sleep(retry_after).await;
    assert_eq!(node.backplane.admit(&user("alice"), Cost::MESSAGE, 3).await, RateDecision::Admitted);
}

#[tokio::test]
async fn a_departure_that_is_due_too_late_is_due_now() {
    let redis = Server::start();
    let mut node = Node::start("one", Some(&redis.url())).await;
    let later = in_the_future(&redis).await.to_string();
    let _: i64 = redis.query(&["SADD", "ws:online_users", "alice"]).await;
    let _: i64 =
        redis.query(&["HSET", "ws:conns:alice", "n", "Alice", "d", &later, "r/team", &format!("!{later}")]).await;
    let _: i64 = redis.query(&["ZADD", "ws:leaving", &later, &format!("alice/{later}")]).await;
    let departure = node.departure().await;
    assert_eq!((departure.user.as_str(), departure.offline), ("alice", true));
    assert_eq!(&*departure.name, "alice", "nobody signed the name");
    assert!(!node.online("alice").await);
    let left: i64 = redis.query(&["ZCARD", "ws:leaving"]).await;
    assert_eq!(left, 0);
}

/// Steps back, shorter and longer than the window. A sender who used up the budget waits for one window from the step at
/// most, on the node that took the budget and on another one, and gets no more than one budget in it.
#[tokio::test]
async fn a_step_back_of_redis_clock_refuses_for_one_window_at_most() {
    const WINDOW: Duration = Duration::from_secs(6);
    let tries = [-4, -8, -3_600].map(|step| async move {
        let redis = Server::with_own_clock();
        let start = async |name: &str| {
            let mut short = settings(name, Some(&redis.url()));
            short.window = WINDOW;
            Node::with(short).await
        };
        let (one, two) = (start("one").await, start("two").await);
        let admit = async |node: &Node| node.backplane.admit(&user("alice"), Cost::MESSAGE, 3).await;
        for _ in 0..3 {
            assert_eq!(admit(&one).await, RateDecision::Admitted);
        }
        let taken = Instant::now();
        redis.shift_clock(step);
        // No node looks before the window is over, so none could note the step by its look at the window.
        // Two seconds more, because a node on a busy machine may notice the step late.
        tokio::time::sleep_until(taken + WINDOW + Duration::from_secs(2)).await;
        for (node, at) in [(&two, 0), (&one, 1), (&two, 2)] {
            assert_eq!(admit(node).await, RateDecision::Admitted, "{step}: {at}");
        }
        for node in [&one, &two] {
            assert!(matches!(admit(node).await, RateDecision::Refused { .. }), "{step}: a second budget");
        }
    });
    futures_util::future::join_all(tries).await;
}

#[tokio::test]
async fn a_step_back_of_redis_clock_delays_no_departure() {
    let tries = [-2, -20, -45, -600].map(|step| async move {
        let redis = Server::with_own_clock();
        let mut node = Node::start("one", Some(&redis.url())).await;
        let (connection, _) = node.connect("alice").await;
        node.backplane.unregister(connection).await;
        redis.shift_clock(step);
        let left = Instant::now();
        node.departure().await;
        assert!(left.elapsed() < crate::support::allowed(Duration::from_secs(10)), "{step}: {:?}", left.elapsed());
    });
    futures_util::future::join_all(tries).await;
}
