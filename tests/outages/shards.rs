//! One master of a Redis Cluster dies: who depends on the others notices nothing.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;

use super::scene::{node_with_short_times, status, until_status};
use crate::support::{Client, Node, Postgres, RedisCluster, allowed, eventually};

/// Time after which a master that does not answer is replaced.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Number of pairs of a speaker and a listener, each in a conversation of its own, enough to depend on every master.
const PAIRS: usize = 24;
/// Interval between two messages of a speaker.
const PACE: Duration = Duration::from_millis(100);
/// Time for which all masters work, before one is struck.
const BEFORE: Duration = Duration::from_secs(4);
/// Maximum time from the ack to the delivery on the other node, also through the store.
const DELIVERED: Duration = Duration::from_secs(3);
/// Maximum time from the promotion until nodes are healthy.
const HEALED: Duration = Duration::from_secs(15);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blow {
    Killed,
    Frozen,
}

/// The messages of a speaker: for each the time at which it was sent, and that of its ack.
type Spoken = BTreeMap<i64, (Instant, Instant)>;

/// The frames that a listener received: the messages in the order in which they came, and users who were shown as offline.
type Heard = (Vec<(i64, Instant)>, Vec<String>);

/// Sends at a steady pace until told to stop.
async fn speak(speaker: &mut Client, room: &str, stop: &CancellationToken) -> Spoken {
    let (mut spoken, mut pace) = (Spoken::new(), tokio::time::interval(PACE));
    while !stop.is_cancelled() {
        pace.tick().await;
        let sent = Instant::now();
        let ack = speaker.send_text(room, &format!("{}", spoken.len())).await;
        spoken.insert(ack["seq"].as_i64().unwrap(), (sent, Instant::now()));
    }
    spoken
}

/// Receives until told to stop.
async fn listen(listener: &mut Client, stop: &CancellationToken) -> Heard {
    let (mut heard, mut offline) = (Vec::new(), Vec::new());
    loop {
        tokio::select! {
            frame = listener.recv() => match frame["type"].as_str() {
                Some("message") => heard.push((frame["seq"].as_i64().unwrap(), Instant::now())),
                Some("presence") if frame["online"] == false => offline.push(frame["user_id"].to_string()),
                _ => {}
            },
            () = stop.cancelled() => return (heard, offline),
        }
    }
}

fn percentile(times: &mut [Duration], of: usize) -> Duration {
    times.sort_unstable();
    times.get((times.len() * of / 100).min(times.len().saturating_sub(1))).copied().unwrap_or_default()
}

/// The place of the master of what a user's sends, connections and pair need.
async fn masters_of(cluster: &RedisCluster, n: usize) -> Vec<usize> {
    let mut places = Vec::new();
    for user in [format!("speaker-{n}"), format!("listener-{n}")] {
        let entry = cluster.keys(&format!("ws:conns:*:{user}")).await.remove(0);
        places.push(cluster.master_of(&entry).await);
    }
    places.push(cluster.master_of(&format!("rate_limit:message:speaker-{n}")).await);
    places
}

/// The place of the master of a conversation's channel.
async fn master_of_channel(cluster: &RedisCluster, room: &str) -> usize {
    for (place, server) in cluster.servers.iter().enumerate().take(3) {
        let channels: Vec<String> = server.command(&["PUBSUB", "SHARDCHANNELS", &format!("*:c:{room}")]).await;
        if !channels.is_empty() {
            return place;
        }
    }
    panic!("nobody hears {room}");
}

/// A user whose connections and limits are on one master.
async fn user_on(cluster: &RedisCluster, node: &Node, place: usize, name: &str) -> Client {
    for n in 0.. {
        let user = format!("{name}-{n}");
        if cluster.master_of(&format!("rate_limit:message:{user}")).await != place {
            continue;
        }
        let client = Client::native(node, &user).await;
        let entry = cluster.keys(&format!("ws:conns:*:{user}")).await.remove(0);
        if cluster.master_of(&entry).await == place {
            return client;
        }
    }
    unreachable!("some user has its state there")
}

/// Speakers and listeners on two nodes, and the masters on which each pair depends.
struct Pairs {
    rooms: Vec<String>,
    speakers: Vec<Client>,
    listeners: Vec<Client>,
    /// The place of the master of each conversation's channel.
    channels: Vec<usize>,
    others: Vec<Vec<usize>>,
}

impl Pairs {
    async fn connect(cluster: &RedisCluster, nodes: &[Node; 2]) -> Self {
        let (mut speakers, mut listeners, mut channels, mut others) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut rooms = Vec::new();
        for n in 0..PAIRS {
            let room = format!("room-{n}");
            for (list, name, node) in [(&mut speakers, "speaker", n % 2), (&mut listeners, "listener", 1 - n % 2)] {
                let mut client = Client::native(&nodes[node], &format!("{name}-{n}")).await;
                client.join_with_roster(&room).await;
                list.push(client);
            }
            channels.push(master_of_channel(cluster, &room).await);
            others.push(masters_of(cluster, n).await);
            rooms.push(room);
        }
        Self { rooms, speakers, listeners, channels, others }
    }

    /// Adds a pair that depends on one master alone.
    async fn add_on(&mut self, cluster: &RedisCluster, nodes: &[Node; 2], place: usize) {
        let n = self.rooms.len();
        let mut speaker = user_on(cluster, &nodes[n % 2], place, &format!("speaker-{n}")).await;
        let mut listener = user_on(cluster, &nodes[1 - n % 2], place, &format!("listener-{n}")).await;
        for tried in 0.. {
            let room = format!("room-{n}-{tried}");
            listener.join_with_roster(&room).await;
            if master_of_channel(cluster, &room).await == place {
                speaker.join_with_roster(&room).await;
                self.rooms.push(room);
                break;
            }
        }
        self.speakers.push(speaker);
        self.listeners.push(listener);
        self.channels.push(place);
        self.others.push(vec![place]);
    }

    /// Has everybody talk until `during` is over.
    async fn talk<T>(&mut self, during: impl Future<Output = T>) -> (Vec<Spoken>, Vec<Heard>, T) {
        let (stop, end) = (CancellationToken::new(), CancellationToken::new());
        let speaking = async {
            let speak = self.speakers.iter_mut().zip(&self.rooms).map(|(one, room)| speak(one, room, &stop));
            let spoken = join_all(speak).await;
            // The message that was acked last is on its way.
            tokio::time::sleep(DELIVERED).await;
            end.cancel();
            spoken
        };
        let listening = join_all(self.listeners.iter_mut().map(|one| listen(one, &end)));
        let during = async {
            let result = during.await;
            stop.cancel();
            result
        };
        tokio::join!(speaking, listening, during)
    }

    /// The pairs that don't depend on a master, and those whose conversation does.
    fn divide(&self, struck: usize) -> [Vec<usize>; 2] {
        let is_spared = |n: &usize| self.channels[*n] != struck && !self.others[*n].contains(&struck);
        let spared: Vec<usize> = (0..PAIRS).filter(is_spared).collect();
        let cut: Vec<usize> = (0..PAIRS).filter(|n| self.channels[*n] == struck).collect();
        assert!(spared.len() >= 3 && cut.len() >= 3, "{:?} {:?}", self.channels, self.others);
        [spared, cut]
    }
}

/// The course of an outage.
struct Outage {
    began: Instant,
    over: Instant,
    /// Time until both nodes knew of it.
    noticed: Duration,
    /// Time from the promotion until both nodes were healthy.
    healed: Duration,
}

/// A cluster, and two nodes that use it.
async fn stage() -> (RedisCluster, [Node; 2]) {
    let cluster = Box::pin(RedisCluster::with(TIMEOUT, &["--cluster-require-full-coverage", "no"])).await;
    let (url, database) = (cluster.url(), Postgres::shared().await.database().await);
    let start = || node_with_short_times(&url, &database).set("PING_INTERVAL", "600s").start();
    let nodes: [Node; 2] = tokio::join!(start(), start()).into();
    heal(&nodes).await;
    (cluster, nodes)
}

/// Waits until both nodes are healthy. Returns the time that it took.
async fn heal(nodes: &[Node; 2]) -> Duration {
    let since = Instant::now();
    tokio::join!(until_status(&nodes[0], "healthy"), until_status(&nodes[1], "healthy"));
    since.elapsed()
}

/// Strikes a master, and waits until its replica has taken over and all nodes are healthy.
async fn strike(blow: Blow, cluster: &mut RedisCluster, nodes: &[Node; 2], struck: usize) -> Outage {
    let began = Instant::now();
    match blow {
        Blow::Killed => cluster.servers[struck].kill().await,
        Blow::Frozen => cluster.servers[struck].pause(),
    }
    for node in nodes {
        let health = eventually("the shards to be down", async || {
            let health = node.admin_get("/api/health").await.json;
            (health["redis"]["shards"]["down"] != 0).then_some(health)
        })
        .await;
        let down = health["redis"]["shards"]["down"].as_u64().unwrap();
        assert!((21..=22).contains(&down), "{health}");
        let reasons = health["reasons"].as_array().unwrap();
        assert!(health["status"] == "degraded" && reasons.iter().any(|why| why == "redis_shards_down"), "{health}");
        assert_eq!(health["components"]["redis"]["status"], "up", "{health}");
    }
    let noticed = began.elapsed();
    cluster.until_master(struck + 3).await;
    let healed = heal(nodes).await;
    if blow == Blow::Frozen {
        cluster.servers[struck].resume();
        tokio::time::sleep(TIMEOUT).await;
        assert_eq!(status(&nodes[0]).await, "healthy");
    }
    Outage { began, over: Instant::now(), noticed, healed }
}

/// The messages of all speakers, and the frames of all listeners.
struct Outcome {
    spoken: Vec<Spoken>,
    heard: Vec<Heard>,
    outage: Outage,
}

impl Outcome {
    /// The times that acks to these pairs took, before the outage or during it.
    fn acks(&self, pairs: &[usize], during: bool) -> Vec<Duration> {
        let Outage { began, over, .. } = self.outage;
        let all = pairs.iter().flat_map(|n| self.spoken[*n].values()).filter(|(sent, _)| *sent < over);
        all.filter(|(sent, _)| (*sent >= began) == during).map(|(sent, acked)| acked.duration_since(*sent)).collect()
    }

    /// The longest time from an ack during the outage to the delivery.
    fn slowest_delivery(&self, pairs: &[usize]) -> Duration {
        let Outage { began, over, .. } = self.outage;
        let of = |n: &usize| {
            let at: BTreeMap<i64, Instant> = self.heard[*n].0.iter().copied().collect();
            let acked = self.spoken[*n].iter().filter(|(_, (_, acked))| (began..over).contains(acked));
            acked.map(|(seq, (_, acked))| at[seq].saturating_duration_since(*acked)).collect::<Vec<_>>()
        };
        pairs.iter().flat_map(of).max().unwrap()
    }

    /// Each acked message was heard once and in order, and nobody was shown as offline.
    fn check_promises(&self) {
        for (n, ((heard, offline), spoken)) in self.heard.iter().zip(&self.spoken).enumerate() {
            let seqs: Vec<i64> = heard.iter().map(|(seq, _)| *seq).collect();
            assert_eq!(seqs, spoken.keys().copied().collect::<Vec<_>>(), "room-{n}");
            assert_eq!(*offline, Vec::<String>::new(), "room-{n}");
        }
    }
}

async fn spare_the_others(blow: Blow) {
    let (mut cluster, nodes) = Box::pin(stage()).await;
    let mut pairs = Box::pin(Pairs::connect(&cluster, &nodes)).await;
    let struck = pairs.channels[0];
    let [spared, cut] = pairs.divide(struck);
    let outage = Box::pin(async {
        tokio::time::sleep(BEFORE).await;
        let outage = strike(blow, &mut cluster, &nodes, struck).await;
        tokio::time::sleep(BEFORE / 2).await;
        outage
    });
    let (spoken, heard, outage) = Box::pin(pairs.talk(outage)).await;
    let outcome = Outcome { spoken, heard, outage };
    outcome.check_promises();
    eprint!("{blow:?}: noticed after {:?}, ", outcome.outage.noticed);
    outcome.check_times(&spared, &cut);
}

/// Two of three masters die one after the other: the second one as soon as the first one is replaced, while nodes register anew.
async fn spare_those_of_the_third() {
    let (mut cluster, nodes) = Box::pin(stage()).await;
    let mut pairs = Box::pin(Pairs::connect(&cluster, &nodes)).await;
    for _ in 0..3 {
        Box::pin(pairs.add_on(&cluster, &nodes, 2)).await;
    }
    let spared: Vec<usize> = (PAIRS..pairs.rooms.len()).collect();
    let cut: Vec<usize> = (0..PAIRS).filter(|n| pairs.channels[*n] != 2).collect();
    let outage = Box::pin(async {
        tokio::time::sleep(BEFORE / 2).await;
        let began = Instant::now();
        for struck in [0, 1] {
            cluster.servers[struck].kill().await;
            cluster.until_master(struck + 3).await;
        }
        let healed = heal(&nodes).await;
        tokio::time::sleep(BEFORE / 4).await;
        Outage { began, over: Instant::now(), noticed: Duration::ZERO, healed }
    });
    let (spoken, heard, outage) = Box::pin(pairs.talk(outage)).await;
    let outcome = Outcome { spoken, heard, outage };
    outcome.check_promises();
    eprint!("two masters killed: ");
    outcome.check_times(&spared, &cut);
}

/// A master dies while a conversation's slot is on its way to another one, with half of its keys there already.
async fn keep_what_a_moving_slot_has() {
    let (mut cluster, nodes) = Box::pin(stage()).await;
    let mut pairs = Box::pin(Pairs::connect(&cluster, &nodes)).await;
    // The state of speaker-0 is in the slot, and what nodes keep of its shard.
    let entry = cluster.keys("ws:conns:*:speaker-0").await.remove(0);
    let (from, slot): (usize, u16) =
        (cluster.master_of(&entry).await, cluster.command_on(&entry, &["CLUSTER", "KEYSLOT", &entry]).await);
    let (to, cut) = ((from + 1) % 3, (0..PAIRS).filter(|n| pairs.channels[*n] == from).collect::<Vec<_>>());
    let outage = Box::pin(async {
        tokio::time::sleep(BEFORE / 2).await;
        let began = Instant::now();
        cluster.begin_move(slot, from, to).await;
        let (place, port) = (slot.to_string(), cluster.servers[to].port().to_string());
        let keys: Vec<String> = cluster.servers[from].command(&["CLUSTER", "GETKEYSINSLOT", &place, "100"]).await;
        assert!(keys.len() >= 2, "{keys:?}");
        let mut moved = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
        moved.extend(keys.iter().step_by(2).map(String::as_str));
        let _: String = cluster.servers[from].command(&moved).await;
        // Everything is asked of both masters for a while.
        tokio::time::sleep(BEFORE / 4).await;
        assert_eq!(status(&nodes[0]).await, "healthy");
        cluster.servers[from].kill().await;
        cluster.until_master(from + 3).await;
        let healed = heal(&nodes).await;
        tokio::time::sleep(BEFORE / 4).await;
        Outage { began, over: Instant::now(), noticed: Duration::ZERO, healed }
    });
    let (spoken, heard, outage) = Box::pin(pairs.talk(outage)).await;
    let outcome = Outcome { spoken, heard, outage };
    outcome.check_promises();
    let (healed, relayed) = (outcome.outage.healed, outcome.slowest_delivery(&cut));
    eprintln!("a moving slot: healthy {healed:?} after the promotion, slowest delivery of cut ones {relayed:?}");
    assert!(healed < allowed(HEALED) && relayed < allowed(DELIVERED), "{healed:?}, {relayed:?}");
    // Whoever is connected is registered with the master that took over.
    let entries: Vec<String> = cluster.servers[from + 3].command(&["KEYS", &entry]).await;
    assert_eq!(entries, [entry]);
}

impl Outcome {
    /// Nodes healed in time, pairs that depend on no struck master noticed nothing, and those whose conversation did were served
    /// through the store.
    fn check_times(&self, spared: &[usize], cut: &[usize]) {
        let (mut before, mut during) = (self.acks(spared, false), self.acks(spared, true));
        let (p99_before, p99, slowest) =
            (percentile(&mut before, 99), percentile(&mut during, 99), percentile(&mut during, 100));
        let (delivered, relayed) = (self.slowest_delivery(spared), self.slowest_delivery(cut));
        let healed = self.outage.healed;
        eprintln!(
            "healthy {healed:?} after the promotion. {} spared pairs: p99 of acks {p99_before:?} before, {p99:?} during, slowest \
             {slowest:?}, slowest delivery {delivered:?}. {} cut ones: slowest delivery {relayed:?}",
            spared.len(),
            cut.len()
        );
        assert!(healed < allowed(HEALED), "{healed:?}");
        assert!(relayed < allowed(DELIVERED), "{relayed:?}");
        // Half a second is the timeout of a call to Redis: no call of these users waited for the master.
        assert!(
            p99 < allowed((p99_before * 3 / 2).max(Duration::from_millis(40))),
            "{p99_before:?} before, {p99:?} during"
        );
        assert!(slowest < allowed(Duration::from_millis(400)), "{slowest:?}");
        assert!(delivered < allowed(Duration::from_millis(900)), "{delivered:?}");
    }
}

#[tokio::test]
async fn a_killed_master_concerns_its_own_users_alone() {
    tokio::spawn(spare_the_others(Blow::Killed)).await.unwrap();
}

#[tokio::test]
async fn a_frozen_master_concerns_its_own_users_alone() {
    tokio::spawn(spare_the_others(Blow::Frozen)).await.unwrap();
}

#[tokio::test]
async fn two_masters_that_die_one_after_the_other_concern_no_user_of_the_third() {
    tokio::spawn(spare_those_of_the_third()).await.unwrap();
}

#[tokio::test]
async fn a_master_that_dies_while_its_slot_moves_loses_nothing() {
    tokio::spawn(keep_what_a_moving_slot_has()).await.unwrap();
}
