//! A Redis Cluster: everything that one Redis does, while slots and masters change.

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use switchboard::{
    backplane::{BackplaneEvent, Departure, Hint, Listening, RateDecision, Scope, TooMany},
    degrade::{LinkState, Part},
    model::{Cost, NodeId},
};
use tokio::time::Instant;

use super::{
    node::{Node, departures_until, log, message, registration, room, seqs, settings, user},
    redis_server::make_certificate,
};
use crate::support::{RedisCluster, RedisServer, allowed, free_port, within};

/// Time after which a master that does not answer is replaced.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Longer than the grace plus the interval and the margin of the sweep.
const AFTER_GRACE: Duration = Duration::from_millis(2_500);
/// Number of conversations and users, enough to be in every shard.
const MANY: usize = 300;

async fn pair(cluster: &RedisCluster) -> [Node; 2] {
    let url = cluster.url();
    let nodes = [Node::start("one", Some(&url)).await, Node::start("two", Some(&url)).await];
    for node in &nodes {
        node.redis_is(LinkState::Up).await;
    }
    nodes
}

/// Waits until some shards are down for both nodes, or none.
async fn lack_shards(nodes: &[Node; 2], some: bool) {
    for node in nodes {
        node.until("shards to go down or come up", async || node.degrade.lacks_shards() == some).await;
        assert!(node.degrade.state(Part::Redis).link == LinkState::Up);
    }
}

/// Publishes an entry on each of many logs, which the other node follows, and waits until all are heard.
async fn all_are_heard(from: &Node, to: &mut Node, seq: i64) {
    for n in 0..MANY {
        to.backplane.subscribe(&log(&format!("room-{n}"))).await;
    }
    for n in 0..MANY {
        from.backplane.publish(vec![message(&format!("room-{n}"), seq)]);
    }
    let mut heard = 0;
    within("all entries", async {
        while heard < MANY {
            heard += seqs(&to.events().await).into_iter().filter(|one| *one == seq).count();
        }
    })
    .await;
}

#[tokio::test]
async fn users_are_counted_limited_and_heard_over_all_masters() {
    let cluster = RedisCluster::start(TIMEOUT).await;
    let [mut one, mut other] = pair(&cluster).await;
    all_are_heard(&one, &mut other, 1).await;

    for n in 0..MANY {
        let (connection, first) = one.connect(&format!("user-{n}")).await;
        assert!(first);
        assert_eq!(one.backplane.listen(connection, &room("team")).await, Listening { first: true });
    }
    let (mut all, mut cursor, mut pages) = (HashSet::new(), 0, 0);
    loop {
        let (users, next) = other.backplane.online_page(cursor, 40).await;
        assert!(users.len() <= 60, "{} users on a page", users.len());
        all.extend(users);
        (cursor, pages) = (next, pages + 1);
        if cursor == 0 {
            break;
        }
    }
    assert!(all.len() == MANY && pages < 20, "{} users on {pages} pages", all.len());
    assert_eq!(other.backplane.online_count().await, MANY as u64);
    let asked = [user("user-7"), user("nobody"), user("user-249")];
    assert_eq!(other.backplane.online(&asked).await, [true, false, true]);
    assert_eq!(other.backplane.audience(&room("team")).await.users.len(), MANY);
    let hints = vec![Hint { conversation: room("team"), users: asked.to_vec() }];
    assert_eq!(other.backplane.hint(hints.clone()).await, []);
    let hinted = within("hints", async {
        loop {
            one.backplane.subscribe(&log("another")).await;
            if let Some(BackplaneEvent::Hints(hints)) = one.hints_so_far().first() {
                return hints.clone();
            }
            one.backplane.hint(vec![]).await;
            other.backplane.publish(vec![message("another", 1)]);
            one.events().await;
        }
    });
    let hinted: HashSet<_> = hinted.await.into_iter().flat_map(|hint| hint.users).collect();
    assert_eq!(hinted, HashSet::from([user("user-7"), user("user-249")]));

    one.connect("carol").await;
    other.connect("carol").await;
    let refused = one.backplane.register(&registration("carol", Scope::User)).await;
    assert_eq!(refused, Err(TooMany { retry_may_succeed: false }));
    for n in 0..5 {
        let node = if n % 2 == 0 { &one } else { &other };
        assert_eq!(node.backplane.admit(&user("carol"), Cost::MESSAGE, 5).await, RateDecision::Admitted);
    }
    let sixth = other.backplane.admit(&user("carol"), Cost::MESSAGE, 5).await;
    assert!(matches!(sixth, RateDecision::Refused { .. }));
    let recent = one.backplane.recent(&log("room-3"), 0).await.expect("the entry is cached");
    assert_eq!(recent.iter().map(|entry| entry.seq).collect::<Vec<_>>(), [1]);
    let known = one.backplane.nodes().await;
    let mut counts: Vec<_> = known.iter().map(|node| (node.node.as_str(), node.users)).collect();
    counts.sort_unstable();
    assert_eq!(counts, [("one", MANY as u64 + 1), ("two", 1)]);

    let (a, _) = one.connect("alice").await;
    one.backplane.listen(a, &room("r")).await;
    one.backplane.unregister(a).await;
    let told = departures_until(&mut [&mut one, &mut other], Instant::now() + AFTER_GRACE).await;
    let gone = |id: &str, left: &str| Departure {
        user: user(id),
        name: id.to_uppercase().into(),
        left: vec![room(left)],
        left_before: Vec::new(),
        offline: true,
        announced_here: false,
    };
    assert_eq!(told, [gone("alice", "r")]);
    assert_eq!(cluster.keys("*alice*").await, Vec::<String>::new());
    let died = Instant::now();
    one.die().await;
    let told = departures_until(&mut [&mut other], died + Duration::from_secs(8)).await;
    let users: HashSet<_> = told.iter().map(|departure| departure.user.clone()).collect();
    assert_eq!((told.len(), users.len()), (MANY, MANY), "carol is still connected to the other node");
    assert!(other.online("carol").await && !other.online("user-3").await);
    assert_eq!(cluster.keys("ws:node_users:*one#*").await, Vec::<String>::new());
}

/// Connects users to both nodes in turn, each listening to a conversation.
async fn connect_users(nodes: &[Node; 2], name: &str, count: usize) -> Vec<String> {
    let mut users = Vec::new();
    for n in 0..count {
        let (node, user) = (&nodes[n % 2], format!("{name}-{n}"));
        let (connection, first) = node.connect(&user).await;
        assert!(first, "{user}");
        node.backplane.listen(connection, &room("team")).await;
        users.push(user);
    }
    users
}

/// Waits until exactly these users are online and listen, as Redis has it, with one connection each.
async fn until_registered(cluster: &RedisCluster, node: &Node, users: &[String]) {
    let expected: HashSet<_> = users.iter().map(|id| user(id)).collect();
    let all: Vec<_> = expected.iter().cloned().collect();
    let mut seen = Vec::new();
    let whole = within("the registry to be whole", async {
        loop {
            let online = node.backplane.online_count().await;
            let listening = node.backplane.audience(&room("team")).await;
            let connected = node.backplane.connected(&all).await.into_iter().filter(|yes| *yes).count();
            seen = vec![online, listening.users.len() as u64, connected as u64];
            let right = seen.iter().all(|count| *count == all.len() as u64);
            if right && listening.of_all_nodes && listening.users.iter().collect::<HashSet<_>>().len() == all.len() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    whole.await;
    for user in users {
        let infos = node.backplane.connections_of(&self::user(user)).await;
        assert_eq!(infos.len(), 1, "{user}: {infos:?}");
        let keys = cluster.keys(&format!("ws:conns:*:{user}")).await;
        assert_eq!(keys.len(), 1, "{keys:?}");
    }
}

#[tokio::test]
async fn slots_that_move_under_load_lose_nobody_and_begin_no_era() {
    let cluster = RedisCluster::start(TIMEOUT).await;
    let mut nodes = pair(&cluster).await;
    let users = connect_users(&nodes, "user", 60).await;
    let settled = nodes[0].backplane.registry_version();
    nodes[0].until("the registry to be complete", async || nodes[0].backplane.registry_is_complete()).await;
    let era = nodes[0].backplane.registry_version();
    assert!(settled.is_none() || settled == era);
    for n in 0..MANY {
        nodes[1].backplane.subscribe(&log(&format!("room-{n}"))).await;
    }
    let coming_and_going = async {
        for n in 0..400 {
            let (connection, _) = nodes[n % 2].connect(&format!("guest-{}", n % 37)).await;
            nodes[n % 2].backplane.listen(connection, &room("team")).await;
            nodes[n % 2].backplane.unregister(connection).await;
            nodes[0].backplane.publish(vec![message(&format!("room-{}", n % MANY), 1)]);
        }
    };
    let moving = async {
        // The slots of whole shards, with the keys and the channels in them.
        for slot in slots_of(&cluster, &users[..12]).await {
            let from = cluster.master_of_slot(slot).await;
            cluster.move_slot(slot, from, (from + 1) % 3).await;
        }
    };
    tokio::join!(coming_and_going, moving);
    for server in &cluster.servers {
        let _: String = server.command(&["SCRIPT", "FLUSH"]).await;
    }
    let more = connect_users(&nodes, "later", 20).await;
    let here: Vec<String> = users.into_iter().chain(more).collect();
    until_registered(&cluster, &nodes[0], &here).await;
    let [one, other] = &mut nodes;
    all_are_heard(one, other, 2).await;
    for node in &nodes {
        node.redis_is(LinkState::Up).await;
        assert_eq!(node.metrics.lease_losses.get(), 0);
    }
    assert_eq!(nodes[0].backplane.registry_version(), era, "a moved slot is no new era");
    let [one, other] = &mut nodes;
    let told = departures_until(&mut [one, other], Instant::now() + AFTER_GRACE).await;
    assert!(told.iter().all(|gone| gone.user.as_str().starts_with("guest")), "{told:?}");
}

/// The users who were told as gone, in order.
async fn told_as_gone(nodes: &mut [Node; 2], wait: Duration) -> Vec<String> {
    let [one, other] = nodes;
    let told = departures_until(&mut [one, other], Instant::now() + wait).await;
    let mut gone: Vec<_> = told.iter().filter(|gone| gone.offline).map(|gone| gone.user.to_string()).collect();
    gone.sort();
    gone
}

#[tokio::test]
async fn masters_that_are_replaced_by_hand_or_killed_lose_nobody() {
    let mut cluster = RedisCluster::start(TIMEOUT).await;
    let mut nodes = pair(&cluster).await;
    let mut users = connect_users(&nodes, "user", 40).await;
    let [one, other] = &mut nodes;
    all_are_heard(one, other, 1).await;

    cluster.fail_over(3).await;
    let changed = |node: &Node| node.backplane.redis_status().is_some_and(|status| status.changes >= 1);
    for node in &nodes {
        node.until("the new master to be known", async || changed(node)).await;
        node.redis_is(LinkState::Up).await;
    }
    users.extend(connect_users(&nodes, "after", 10).await);
    until_registered(&cluster, &nodes[0], &users).await;
    let [one, other] = &mut nodes;
    all_are_heard(one, other, 2).await;

    // The replica of another master gets no more writes, and is promoted.
    let _: String = cluster.servers[4].command(&["CONFIG", "SET", "masteruser", "nobody"]).await;
    let _: String = cluster.servers[4].command(&["CONFIG", "SET", "masterauth", "wrong"]).await;
    let _: i64 = cluster.servers[1].command(&["CLIENT", "KILL", "TYPE", "replica"]).await;
    let lost = connect_users(&nodes, "lost", 30).await;
    cluster.servers[1].kill().await;
    lack_shards(&nodes, true).await;
    // Comes and goes while its shard may be down, on nodes that count alone then.
    let (leaver, _) = nodes[0].connect("leaver").await;
    nodes[0].backplane.unregister(leaver).await;
    cluster.until_master(4).await;
    lack_shards(&nodes, false).await;
    users.extend(lost);
    until_registered(&cluster, &nodes[1], &users).await;
    let [one, other] = &mut nodes;
    all_are_heard(one, other, 3).await;
    let gone = told_as_gone(&mut nodes, Duration::from_secs(6)).await;
    assert!(gone.iter().all(|user| user == "leaver"), "{gone:?}");
    assert!(!nodes[1].online("leaver").await);
}

#[tokio::test]
async fn a_frozen_master_is_replaced_and_a_stale_one_moves_nobody_back() {
    let cluster = RedisCluster::start(TIMEOUT).await;
    let mut nodes = pair(&cluster).await;
    let mut users = connect_users(&nodes, "user", 40).await;
    cluster.servers[0].pause();
    lack_shards(&nodes, true).await;
    cluster.until_master(3).await;
    lack_shards(&nodes, false).await;
    cluster.servers[0].resume();
    users.extend(connect_users(&nodes, "after", 20).await);
    let [one, other] = &mut nodes;
    all_are_heard(one, other, 1).await;
    cluster.until_whole().await;
    until_registered(&cluster, &nodes[0], &users).await;
    let gone = told_as_gone(&mut nodes, Duration::from_secs(4)).await;
    assert_eq!(gone, Vec::<String>::new());
    for node in &nodes {
        node.redis_is(LinkState::Up).await;
        assert_eq!(node.backplane.redis_status().unwrap().changes, 1, "nobody moved back");
    }
}

#[tokio::test]
async fn a_master_that_is_emptied_is_noticed_at_once_and_written_again_alone() {
    let cluster = RedisCluster::start(TIMEOUT).await;
    let mut nodes = pair(&cluster).await;
    let users = connect_users(&nodes, "user", 60).await;
    let leases = async || {
        let mut leases = BTreeMap::new();
        for key in cluster.keys("ws:nodes:*").await {
            let members: Vec<String> = cluster.command_on(&key, &["ZRANGE", &key, "0", "-1"]).await;
            leases.insert(key, members.into_iter().collect::<HashSet<_>>());
        }
        leases
    };
    let (before, emptied) = (leases().await, Instant::now());
    let _: String = cluster.servers[1].command(&["FLUSHALL"]).await;
    for node in &nodes {
        node.until("the loss to be noticed", async || node.metrics.lease_losses.get() > 0).await;
    }
    let noticed = emptied.elapsed();
    assert!(noticed < allowed(Duration::from_secs(1)), "{noticed:?}");
    until_registered(&cluster, &nodes[0], &users).await;
    assert_eq!(told_as_gone(&mut nodes, Duration::from_secs(4)).await, Vec::<String>::new());
    let after = leases().await;
    assert_eq!(after.len(), 64);
    for (key, members) in before {
        let emptied = cluster.master_of(&key).await == 1;
        assert_eq!(after[&key] != members, emptied, "{key}: {members:?}, then {:?}", after[&key]);
    }
}

#[tokio::test]
async fn one_deployment_at_a_time_has_a_cluster() {
    let cluster = RedisCluster::start(TIMEOUT).await;
    let of = async |number: u64, name: &str| Node::of(number, settings(name, Some(&cluster.url()))).await;
    // At the same time on an empty cluster.
    let (one, two) = tokio::join!(of(1, "one"), of(2, "two"));
    let up = |node: &Node| node.degrade.state(Part::Redis).link == LinkState::Up;
    within("one of them to have the cluster", async {
        while !up(&one) && !up(&two) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let (owner, other) = if up(&one) { (one, two) } else { (two, one) };
    for n in 0..50 {
        owner.connect(&format!("user-{n}")).await;
    }
    other.redis_is(LinkState::Down).await;
    assert!(other.connect("user-3").await.1, "counted alone");
    owner.die().await;
    other.redis_is(LinkState::Up).await;
    other.until("the users of the former owner to be gone", async || other.backplane.online_count().await == 1).await;
    let entries = cluster.keys("ws:conns:*").await;
    assert!(entries.len() == 1 && entries[0].ends_with(":user-3"), "{entries:?}");
}

/// The slots of the first users' entries, each once.
async fn slots_of(cluster: &RedisCluster, users: &[String]) -> Vec<u16> {
    let mut slots = Vec::new();
    for user in users {
        let key = cluster.keys(&format!("ws:conns:*:{user}")).await.remove(0);
        slots.push(cluster.command_on::<u16>(&key, &["CLUSTER", "KEYSLOT", &key]).await);
    }
    slots.sort_unstable();
    slots.dedup();
    slots
}

#[tokio::test]
async fn a_master_that_joins_and_leaves_loses_nobody() {
    let mut cluster = RedisCluster::start(TIMEOUT).await;
    let mut nodes = pair(&cluster).await;
    let users = connect_users(&nodes, "user", 40).await;
    let joined = cluster.add_master().await;
    let slots = slots_of(&cluster, &users[..10]).await;
    let known = async |changes: u64| {
        for node in &nodes {
            let status = || node.backplane.redis_status().unwrap();
            node.until("the masters to be known", async || status().changes >= changes).await;
        }
    };
    let coming_and_going = async {
        for n in 0..200 {
            let (connection, _) = nodes[n % 2].connect(&format!("guest-{}", n % 37)).await;
            nodes[n % 2].backplane.unregister(connection).await;
        }
    };
    let moving = async {
        let mut homes = Vec::new();
        for slot in &slots {
            // No node of the cluster names the new master before it has its first slot.
            let from = cluster.master_of_slot(*slot).await;
            cluster.move_slot(*slot, from, joined).await;
            homes.push((*slot, from));
        }
        homes
    };
    let ((), homes) = tokio::join!(coming_and_going, moving);
    known(1).await;
    until_registered(&cluster, &nodes[0], &users).await;
    for (slot, home) in homes {
        cluster.move_slot(slot, joined, home).await;
    }
    // Without slots, it is asked for nothing, and may go.
    known(2).await;
    cluster.servers[joined].kill().await;
    until_registered(&cluster, &nodes[1], &users).await;
    let [one, other] = &mut nodes;
    all_are_heard(one, other, 1).await;
    let gone = told_as_gone(&mut nodes, Duration::from_secs(3)).await;
    assert!(gone.iter().all(|user| user.starts_with("guest")), "{gone:?}");
    for node in &nodes {
        node.redis_is(LinkState::Up).await;
    }
}

#[tokio::test]
async fn a_cluster_with_tls_is_reached_by_the_names_that_it_announces() {
    let folder = tempfile::tempdir().unwrap();
    make_certificate(folder.path());
    let file = |name: &str| folder.path().join(name).display().to_string();
    let (cert, key, ca, port) = (file("cert.pem"), file("key.pem"), file("ca.pem"), free_port().to_string());
    let tls = ["--tls-port", &port, "--tls-cluster", "yes", "--tls-auth-clients", "no"];
    let files = ["--tls-cert-file", &cert, "--tls-key-file", &key, "--tls-ca-cert-file", &ca];
    let names = ["--cluster-announce-ip", "127.0.0.1", "--cluster-announce-hostname", "localhost"];
    let server = RedisServer::cluster_node(&[&tls[..], &files[..], &names[..]].concat()).await;
    let _: String = server.command(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]).await;
    let mut settings = settings("one", Some(&format!("rediss+cluster://localhost:{port}")));
    settings.redis.as_mut().unwrap().tls.ca = Some(ca.into());
    let mut node = Node::with(settings.clone()).await;
    node.redis_is(LinkState::Up).await;
    // The certificate has no address, so every connection was made by the name.
    settings.node = NodeId::parse("two").unwrap();
    let other = Node::with(settings).await;
    other.redis_is(LinkState::Up).await;
    all_are_heard(&other, &mut node, 1).await;
}
