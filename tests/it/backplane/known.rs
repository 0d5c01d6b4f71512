//! A node remembers the users of other nodes: it asks Redis only after a change, and is never wrong.

use std::time::{Duration, Instant};

use switchboard::{
    backplane::{BackplaneEvent, Hint},
    degrade::LinkState,
    model::{ConnectionId, UserId},
};

use super::node::{Node, room, settings, user};
use crate::support::{RedisCluster, RedisServer, within};

/// Number of changes of one user in a row.
const CHANGES: usize = 150;

async fn pair(url: &str) -> [Node; 2] {
    let nodes = [Node::start("one", Some(url)).await, Node::start("two", Some(url)).await];
    for node in &nodes {
        node.redis_is(LinkState::Up).await;
    }
    nodes
}

async fn is_connected(node: &Node, id: &str) -> bool {
    node.backplane.connected(&[user(id)]).await[0]
}

/// Waits until this many servers tell the node of changes.
async fn until_tracked(node: &Node, servers: i64) {
    node.until("Redis to tell of changes", async || {
        is_connected(node, "nobody").await;
        node.metrics.presence_tracked.get() == servers
    })
    .await;
}

/// Number of HGET and HEXISTS so far, including those in scripts.
async fn reads(servers: &[RedisServer]) -> u64 {
    let mut sum = 0;
    for server in servers.iter().filter(|server| server.is_running()) {
        let stats: String = server.command(&["INFO", "commandstats"]).await;
        let calls = stats.lines().filter_map(|line| line.strip_prefix("cmdstat_")?.split_once(":calls="));
        let reads = calls.filter(|(name, _)| matches!(*name, "hget" | "hexists"));
        sum += reads.map(|(_, rest)| rest.split(',').next().unwrap().parse::<u64>().unwrap()).sum::<u64>();
    }
    sum
}

/// Users of whom one in three is connected to each of the nodes, and one in three to none.
async fn crowd(nodes: &[Node; 2], count: usize) -> (Vec<UserId>, Vec<bool>) {
    let mut expected = Vec::new();
    for n in 0..count {
        if n % 3 < 2 {
            nodes[n % 3].connect(&format!("user-{n}")).await;
        }
        expected.push(n % 3 < 2);
    }
    ((0..count).map(|n| user(&format!("user-{n}"))).collect(), expected)
}

/// Looks all of them up again and again, and returns the number of reads that this took.
async fn look_up_often(node: &Node, servers: &[RedisServer], (users, expected): &(Vec<UserId>, Vec<bool>)) -> u64 {
    assert_eq!(node.backplane.connected(users).await, *expected);
    let hint = || vec![Hint { conversation: room("team"), users: users.clone() }];
    node.backplane.hint(hint()).await;
    let (before, known) = (reads(servers).await, node.metrics.presence_known.get());
    for _ in 0..20 {
        assert_eq!(node.backplane.connected(users).await, *expected);
        let here = node.backplane.hint(hint()).await;
        assert_eq!(here.iter().map(|hint| hint.users.len()).sum::<usize>(), users.len().div_ceil(3));
    }
    if node.metrics.presence_tracked.get() > 0 {
        assert!(node.metrics.presence_known.get() - known >= 20 * users.len() as u64);
    }
    reads(servers).await - before
}

#[tokio::test]
async fn users_who_don_t_change_are_asked_for_once() {
    let redis = [RedisServer::start().await];
    let nodes = pair(&redis[0].url()).await;
    let crowd = crowd(&nodes, 240).await;
    until_tracked(&nodes[0], 1).await;
    assert_eq!(look_up_often(&nodes[0], &redis, &crowd).await, 0);
    assert!((240..260).contains(&nodes[0].metrics.presence_known_users.get()));

    // One who changes is read once, however often anybody looks.
    nodes[1].connect("user-2").await;
    let asked = nodes[0].metrics.presence_asked.get();
    for _ in 0..10 {
        assert!(is_connected(&nodes[0], "user-2").await);
    }
    assert_eq!(nodes[0].metrics.presence_asked.get() - asked, 1);
}

#[tokio::test]
async fn users_on_a_cluster_who_don_t_change_are_asked_for_once() {
    let cluster = RedisCluster::start(Duration::from_secs(5)).await;
    let nodes = pair(&cluster.url()).await;
    let crowd = crowd(&nodes, 240).await;
    until_tracked(&nodes[0], 3).await;
    assert_eq!(look_up_often(&nodes[0], &cluster.servers, &crowd).await, 0);
}

#[tokio::test]
async fn what_is_not_remembered_or_not_told_is_asked_each_time() {
    let redis = [RedisServer::start().await];
    let _: String = redis[0].command(&["ACL", "SETUSER", "default", "-client|tracking"]).await;
    let mut nodes = pair(&redis[0].url()).await;
    let crowd = crowd(&nodes, 60).await;
    assert!(look_up_often(&nodes[0], &redis, &crowd).await >= 20 * 100);
    come_and_go(&mut nodes, async |_| {}).await;
    assert_eq!((nodes[0].metrics.presence_tracked.get(), nodes[0].metrics.presence_known.get()), (0, 0));

    let without =
        Node::with(switchboard::backplane::Settings { presence_cache: 0, ..settings("three", Some(&redis[0].url())) });
    let without = without.await;
    without.redis_is(LinkState::Up).await;
    assert_eq!(without.backplane.connected(&crowd.0).await, crowd.1);
    assert_eq!(without.metrics.presence_asked.get(), 60);
}

#[tokio::test]
async fn of_more_users_than_are_remembered_all_answers_are_right() {
    let redis = [RedisServer::start().await];
    let few =
        |name: &str| switchboard::backplane::Settings { presence_cache: 50, ..settings(name, Some(&redis[0].url())) };
    let nodes = [Node::with(few("one")).await, Node::with(few("two")).await];
    for node in &nodes {
        node.redis_is(LinkState::Up).await;
    }
    let (users, expected) = crowd(&nodes, 300).await;
    until_tracked(&nodes[0], 1).await;
    for _ in 0..3 {
        assert_eq!(nodes[0].backplane.connected(&users).await, expected);
        assert!(nodes[0].metrics.presence_known_users.get() <= 50);
    }
}

/// A user connects to the second node and leaves, many times; `meanwhile` may do harm before each change. After each change the
/// first node knows at once, and the second node gets a hint exactly if it holds the user.
async fn come_and_go(nodes: &mut [Node; 2], meanwhile: impl AsyncFn(usize)) {
    let hint = |id: &str| vec![Hint { conversation: room("team"), users: vec![user(id)] }];
    let mut connection: Option<ConnectionId> = None;
    for n in 0..CHANGES {
        meanwhile(n).await;
        match connection.take() {
            Some(held) => nodes[1].backplane.unregister(held).await,
            None => connection = Some(nodes[1].connect("guest").await.0),
        }
        for _ in 0..2 {
            assert_eq!(is_connected(&nodes[0], "guest").await, connection.is_some(), "change {n}");
        }
        assert_eq!(nodes[0].backplane.hint(hint("guest")).await, []);
    }
    // Hints of one node arrive in order.
    nodes[1].connect("last").await;
    nodes[0].backplane.hint(hint("last")).await;
    let mut told = 0;
    loop {
        match nodes[1].hint().await {
            hints if hints == hint("last") => break,
            hints => told += usize::from(hints == hint("guest")),
        }
    }
    assert_eq!(told, CHANGES.div_ceil(2));
}

#[tokio::test]
async fn whoever_comes_or_goes_elsewhere_is_known_at_once() {
    let redis = RedisServer::start().await;
    let mut nodes = pair(&redis.url()).await;
    until_tracked(&nodes[0], 1).await;
    come_and_go(&mut nodes, async |_| {}).await;
    assert_eq!(nodes[0].metrics.presence_tracked.get(), 1);
    assert!(nodes[0].metrics.presence_known.get() >= CHANGES as u64);
}

#[tokio::test]
async fn a_killed_connection_hides_no_change() {
    let redis = RedisServer::start().await;
    let mut nodes = pair(&redis.url()).await;
    until_tracked(&nodes[0], 1).await;
    come_and_go(&mut nodes, async |n| {
        let list: String = redis.command(&["CLIENT", "LIST"]).await;
        for client in list.lines().filter(|client| client.contains(" flags=t ") && n % 3 == 0) {
            let id = client.strip_prefix("id=").unwrap().split(' ').next().unwrap();
            let _: i64 = redis.command(&["CLIENT", "KILL", "ID", id]).await;
        }
    })
    .await;
    until_tracked(&nodes[0], 1).await;
}

#[tokio::test]
async fn a_wipe_is_seen_at_once_and_a_frozen_redis_is_not_waited_for() {
    let redis = RedisServer::start().await;
    let nodes = pair(&redis.url()).await;
    nodes[1].connect("bob").await;
    until_tracked(&nodes[0], 1).await;
    let line = format!("{} two#0123456789ab.00 7/native \n", ConnectionId::fresh());
    let _: i64 = redis.command(&["HSET", "ws:conns:ghost", "c", &line]).await;
    for _ in 0..3 {
        assert!(is_connected(&nodes[0], "ghost").await && is_connected(&nodes[0], "bob").await);
    }
    let _: String = redis.command(&["FLUSHALL"]).await;
    assert!(!is_connected(&nodes[0], "ghost").await);
    nodes[0].until("bob to be registered again", async || is_connected(&nodes[0], "bob").await).await;

    redis.pause();
    let begun = Instant::now();
    assert!(!is_connected(&nodes[0], "bob").await, "this node alone does not know him");
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    nodes[0].redis_is(LinkState::Down).await;
    redis.resume();
    nodes[0].until("bob to be seen again", async || is_connected(&nodes[0], "bob").await).await;
    until_tracked(&nodes[0], 1).await;
    assert!(is_connected(&nodes[0], "bob").await);
}

#[tokio::test]
async fn users_whose_slot_moves_are_known_at_once() {
    let cluster = RedisCluster::start(Duration::from_secs(5)).await;
    let nodes = pair(&cluster.url()).await;
    until_tracked(&nodes[0], 3).await;
    let (before, _) = nodes[1].connect("before").await;
    let key = cluster.keys("ws:conns:*:before").await.remove(0);
    let slot: u16 = cluster.command_on(&key, &["CLUSTER", "KEYSLOT", &key]).await;
    // Others of the same shard, of whom it is known that they are away.
    let tag = &key[..key.rfind(':').unwrap() + 1];
    let mut mates = Vec::new();
    for n in 0.. {
        let id = format!("mate-{n}");
        let (connection, _) = nodes[1].connect(&id).await;
        let of_shard = cluster.keys(&format!("ws:conns:*:{id}")).await[0].starts_with(tag);
        nodes[1].backplane.unregister(connection).await;
        if of_shard {
            mates.push(id);
        }
        if mates.len() == 3 {
            break;
        }
    }
    // The departure of each changes its entry once more. Later, only the proof tells what a slot on its way hides.
    for id in &mates {
        let gone = async || cluster.keys(&format!("ws:conns:*:{id}")).await.is_empty();
        nodes[0].until("a mate to have departed", gone).await;
    }
    let all: Vec<UserId> = mates.iter().map(|id| user(id)).chain([user("before")]).collect();
    let of = async |node: &Node| node.backplane.connected(&all).await;
    for _ in 0..3 {
        assert_eq!(of(&nodes[0]).await, [false, false, false, true]);
    }

    let asked = nodes[0].metrics.presence_asked.get();
    assert_eq!(of(&nodes[0]).await, [false, false, false, true]);
    assert_eq!(nodes[0].metrics.presence_asked.get(), asked, "all are remembered");

    let from = cluster.master_of_slot(slot).await;
    let to = (from + 1) % 3;
    cluster.begin_move(slot, from, to).await;
    nodes[1].connect(&mates[0]).await;
    assert_eq!(of(&nodes[0]).await, [true, false, false, true], "a new entry is with the new master already");
    cluster.move_slot(slot, from, to).await;
    assert_eq!(of(&nodes[0]).await, [true, false, false, true]);
    nodes[1].connect(&mates[1]).await;
    nodes[1].backplane.unregister(before).await;
    for _ in 0..3 {
        assert_eq!(of(&nodes[0]).await, [true, true, false, false]);
    }
    cluster.move_slot(slot, to, from).await;
    nodes[1].connect(&mates[2]).await;
    for _ in 0..3 {
        assert_eq!(of(&nodes[0]).await, [true, true, true, false]);
    }
    let asked = nodes[0].metrics.presence_asked.get();
    assert_eq!(of(&nodes[0]).await, [true, true, true, false]);
    assert_eq!(nodes[0].metrics.presence_asked.get(), asked, "the shard is remembered again");
}

#[tokio::test]
async fn a_master_that_is_replaced_hides_no_change() {
    let cluster = RedisCluster::start(Duration::from_secs(2)).await;
    let mut nodes = pair(&cluster.url()).await;
    until_tracked(&nodes[0], 3).await;
    come_and_go(&mut nodes, async |_| {}).await;
    let (guest, _) = nodes[1].connect("guest").await;
    assert!(is_connected(&nodes[0], "guest").await);
    let key = cluster.keys("ws:conns:*:guest").await.remove(0);
    let master = cluster.master_of(&key).await;
    cluster.fail_over(master + 3).await;
    let changed = |node: &Node| node.backplane.redis_status().is_some_and(|status| status.changes >= 1);
    for node in &nodes {
        node.until("the new master to be known", async || changed(node)).await;
    }
    within("the guest to be registered with it", async {
        while !is_connected(&nodes[0], "guest").await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    nodes[1].backplane.unregister(guest).await;
    // Calls that were under way to the former master may be made again.
    within("the guest to be gone", async {
        while is_connected(&nodes[0], "guest").await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    until_tracked(&nodes[0], 3).await;
    for n in 0..CHANGES {
        let (guest, _) = nodes[1].connect("guest").await;
        assert!(is_connected(&nodes[0], "guest").await, "change {n}");
        nodes[1].backplane.unregister(guest).await;
        assert!(!is_connected(&nodes[0], "guest").await, "change {n}");
    }
}

impl Node {
    /// Returns the next hints.
    async fn hint(&mut self) -> Vec<Hint> {
        let hints = |event: &BackplaneEvent| match event {
            BackplaneEvent::Hints(hints) => Some(hints.clone()),
            _ => None,
        };
        self.find("hints", hints).await
    }
}
