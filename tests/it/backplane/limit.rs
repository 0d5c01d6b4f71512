//! The rate limit of sends.

use std::{sync::Arc, time::Duration};

use proptest::{prelude::*, test_runner::TestRunner};
use switchboard::{
    backplane::RateDecision,
    degrade::LinkState,
    model::{Budget, Cost},
};
use tokio::{task::JoinSet, time::Instant};

use super::{
    node::{Node, settings, user},
    redis_server::Server,
};

async fn node(name: &str, url: Option<&str>, window: Duration) -> Arc<Node> {
    let mut settings = settings(name, url);
    settings.window = window;
    Arc::new(Node::with(settings).await)
}

/// Sends at these intervals, in turn over the nodes, and checks that no window holds more than `limit` sends.
async fn assert_limited(nodes: &[Arc<Node>], limit: u32, window: Duration, gaps: &[u64]) -> usize {
    let name = user(&format!("user-{}", uuid::Uuid::new_v4()));
    let mut sends = JoinSet::new();
    let mut at = Instant::now();
    for (turn, gap) in gaps.iter().enumerate() {
        at += Duration::from_millis(*gap);
        let (node, name) = (nodes[turn % nodes.len()].clone(), name.clone());
        sends.spawn(async move {
            tokio::time::sleep_until(at).await;
            let asked = Instant::now();
            let answer = node.backplane.admit(&name, Cost::MESSAGE, limit).await;
            (answer, asked, Instant::now())
        });
    }
    let mut admitted = Vec::new();
    for (answer, asked, answered) in sends.join_all().await {
        match answer {
            RateDecision::Admitted => admitted.push((asked, answered)),
            RateDecision::Refused { sent, retry_after } => {
                assert!(sent >= limit && retry_after > Duration::ZERO && retry_after <= window, "{retry_after:?}");
            }
        }
    }
    admitted.sort();
    for some in admitted.windows(limit as usize + 1) {
        let (first, last) = (some[0].0, some.iter().map(|one| one.1).max().unwrap());
        assert!(last - first >= window, "{} sends within {:?}", limit + 1, last - first);
    }
    admitted.len()
}

#[test]
fn never_more_than_the_limit_within_any_window() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let redis = Server::start();
    let window = Duration::from_millis(150);
    let nodes = runtime.block_on(async {
        [node("one", Some(&redis.url()), window).await, node("two", Some(&redis.url()), window).await]
    });
    let alone = runtime.block_on(async { [node("alone", None, window).await] });
    let cases = (1_u32..6, prop::collection::vec(0_u64..40, 1..40));
    let config = ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() };
    TestRunner::new(config)
        .run(&cases, |(limit, gaps)| {
            let (shared, here) = runtime.block_on(async {
                tokio::join!(assert_limited(&nodes, limit, window, &gaps), assert_limited(&alone, limit, window, &gaps))
            });
            prop_assert!(shared >= gaps.len().min(limit as usize) && here >= gaps.len().min(limit as usize));
            Ok(())
        })
        .unwrap();
}

#[tokio::test]
async fn a_refusal_names_the_wait_and_is_not_counted() {
    let redis = Server::start();
    let window = Duration::from_millis(700);
    let (one, other) = (node("one", Some(&redis.url()), window).await, node("two", Some(&redis.url()), window).await);
    let alice = user("alice");
    assert_eq!(one.backplane.admit(&alice, Cost::MESSAGE, 2).await, RateDecision::Admitted);
    assert_eq!(one.backplane.admit(&alice, Cost::MESSAGE, 2).await, RateDecision::Admitted);
    for node in [&other, &one, &other] {
        let RateDecision::Refused { sent: 2, retry_after } = node.backplane.admit(&alice, Cost::MESSAGE, 2).await
        else {
            panic!()
        };
        assert!(retry_after <= window);
    }
    assert_eq!(other.backplane.admit(&user("bob"), Cost::MESSAGE, 2).await, RateDecision::Admitted);
    let RateDecision::Refused { retry_after, .. } = other.backplane.admit(&alice, Cost::MESSAGE, 2).await else {
        panic!()
    };
    tokio::time::sleep(retry_after).await;
    assert_eq!(
        other.backplane.admit(&alice, Cost::MESSAGE, 2).await,
        RateDecision::Admitted,
        "after the announced time"
    );
    let ttl: i64 = redis.query(&["PTTL", "rate_limit:message:alice"]).await;
    assert!((1..=701).contains(&ttl), "{ttl}");
}

#[tokio::test]
async fn a_large_budget_is_shared_by_nodes_and_costs_few_calls() {
    let redis = Server::start();
    let window = Duration::from_secs(60);
    let nodes = [node("one", Some(&redis.url()), window).await, node("two", Some(&redis.url()), window).await];
    let (alice, cost) = (user("alice"), Cost { budget: Budget::Read, weight: 10 });
    let (mut admitted, mut refused) = (0, 0);
    for turn in 0..1_000 {
        match nodes[turn % 2].backplane.admit(&alice, cost, 6_000).await {
            RateDecision::Admitted => admitted += cost.weight,
            RateDecision::Refused { .. } => refused += 1,
        }
    }
    assert_eq!((admitted, refused), (6_000, 400));
    let calls: String = redis.query(&["INFO", "commandstats"]).await;
    let line = calls.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls=")).unwrap();
    let scripts: u32 = line.split(',').next().unwrap().parse().unwrap();
    // 60 shares, and on each node one refusal; the rest are the nodes' leases.
    println!("1,000 commands on two nodes: {scripts} scripts");
    assert!(scripts < 200, "{scripts}");
    assert_eq!(redis.query::<i64>(&["LLEN", "rate_limit:read:alice"]).await, 60);
    let write = Cost { budget: Budget::Write, weight: 1 };
    assert_eq!(nodes[0].backplane.admit(&alice, write, 300).await, RateDecision::Admitted, "another budget");
}

#[tokio::test]
async fn a_heavy_command_takes_the_whole_budget_of_all_nodes() {
    let redis = Server::start();
    let window = Duration::from_secs(60);
    let (one, two) = (node("one", Some(&redis.url()), window).await, node("two", Some(&redis.url()), window).await);
    let (alice, write) = (user("alice"), |weight| Cost { budget: Budget::Write, weight });
    assert_eq!(one.backplane.admit(&alice, write(1), 300).await, RateDecision::Admitted);
    assert_eq!(two.backplane.admit(&alice, write(1_000), 300).await, RateDecision::Admitted);
    // What a node had taken before is its own.
    for _ in 0..4 {
        assert_eq!(one.backplane.admit(&alice, write(1), 300).await, RateDecision::Admitted);
    }
    for node in [&one, &two] {
        let RateDecision::Refused { retry_after, .. } = node.backplane.admit(&alice, write(1), 300).await else {
            panic!()
        };
        assert!(retry_after > window / 2 && retry_after <= window, "{retry_after:?}");
    }
}

#[tokio::test]
async fn a_refund_counts_on_all_nodes() {
    let redis = Server::start();
    let window = Duration::from_secs(60);
    let (one, two) = (node("one", Some(&redis.url()), window).await, node("two", Some(&redis.url()), window).await);
    let alice = user("alice");
    for node in [&one, &two] {
        assert_eq!(node.backplane.admit(&alice, Cost::MESSAGE, 2).await, RateDecision::Admitted);
    }
    one.backplane.refund(&alice, Budget::Send, 2).await;
    assert_eq!(two.backplane.admit(&alice, Cost::MESSAGE, 2).await, RateDecision::Admitted);
    assert!(matches!(one.backplane.admit(&alice, Cost::MESSAGE, 2).await, RateDecision::Refused { .. }));
}

#[tokio::test]
async fn the_limit_holds_while_redis_is_down() {
    let mut redis = Server::start();
    let node = node("one", Some(&redis.url()), Duration::from_secs(60)).await;
    for _ in 0..3 {
        assert_eq!(node.backplane.admit(&user("alice"), Cost::MESSAGE, 5).await, RateDecision::Admitted);
    }
    redis.kill();
    node.redis_is(LinkState::Down).await;
    let started = Instant::now();
    for _ in 0..2 {
        assert_eq!(node.backplane.admit(&user("alice"), Cost::MESSAGE, 5).await, RateDecision::Admitted);
    }
    assert!(matches!(node.backplane.admit(&user("alice"), Cost::MESSAGE, 5).await, RateDecision::Refused { .. }));
    assert!(
        started.elapsed() < crate::support::allowed(Duration::from_millis(100)),
        "no call waits for a Redis that is down"
    );
    redis.restart();
    node.redis_is(LinkState::Up).await;
    assert!(
        matches!(node.backplane.admit(&user("alice"), Cost::MESSAGE, 5).await, RateDecision::Refused { .. }),
        "even empty"
    );
}

#[tokio::test]
async fn a_silent_redis_delays_sends_once() {
    let redis = Server::start();
    let node = node("one", Some(&redis.url()), Duration::from_secs(60)).await;
    node.backplane.admit(&user("alice"), Cost::MESSAGE, 100).await;
    redis.freeze();
    let started = Instant::now();
    for _ in 0..50 {
        assert_eq!(node.backplane.admit(&user("alice"), Cost::MESSAGE, 100).await, RateDecision::Admitted);
    }
    let delay = started.elapsed();
    assert!(
        delay < crate::support::allowed(Duration::from_millis(1_200)),
        "one delay for all, not one each: {delay:?}"
    );
    node.redis_is(LinkState::Down).await;
    assert!(
        started.elapsed() < crate::support::allowed(Duration::from_secs(2)),
        "noticed within 2 s: {:?}",
        started.elapsed()
    );
    redis.thaw();
    node.redis_is(LinkState::Up).await;
}
