//! Tests of the hub's invariants over real sockets: after any losses, repeats and reorderings, a listener gets each
//! entry once, in order, from its start.

use std::sync::atomic::{AtomicI64, Ordering};

use async_trait::async_trait;
use proptest::prelude::*;
use tokio::{io::AsyncReadExt, net::TcpStream};

use super::*;
use crate::{
    model::{Body, Ephemeral, EphemeralEvent, PendingAck, Sent, TakenAck, Timestamp, UserId},
    outbox::{Frame, OutboxBudget, OutboxEvent, OutboxLimits, Signal},
};

mod set_back;

/// A store with the entries 1 to `head` of a log. A negative head makes reads fail.
struct TestStore {
    head: AtomicI64,
    /// The store was set back to this seq: later entries are [other ones](other_entry).
    kept: AtomicI64,
    /// Entries that somebody removed.
    removed: std::sync::Mutex<Vec<Seq>>,
    /// Set while this node appends: backfills wait for the outcome.
    appending: std::sync::Mutex<Option<oneshot::Receiver<()>>>,
}

impl TestStore {
    fn set(&self, head: Seq) {
        self.head.store(head, Ordering::SeqCst);
    }

    fn entry(&self, log: &LogId, seq: Seq) -> Entry {
        if seq > self.kept.load(Ordering::SeqCst) { other_entry(log, seq) } else { entry(log, seq) }
    }
}

#[async_trait]
impl Source for TestStore {
    async fn after(&self, Wanted { log, after, .. }: Wanted<'_>) -> Result<Vec<Entry>, SourceFailed> {
        let head = self.head.load(Ordering::SeqCst);
        let end = head.min(after + 7);
        if head < 0 {
            return Err(SourceFailed);
        }
        let removed = self.removed.lock().unwrap();
        Ok((after + 1..=end).filter(|seq| !removed.contains(seq)).map(|seq| self.entry(log, seq)).collect())
    }

    async fn settled(&self, _log: &LogId) {
        let appending = self.appending.lock().unwrap().take();
        if let Some(outcome) = appending {
            outcome.await.unwrap();
        }
    }
}

/// An entry that was stored after the store was set back.
fn other_entry(log: &LogId, seq: Seq) -> Entry {
    Entry { at: Timestamp::from_micros(1_000 + seq), body: Body::message(format!("new {seq}")), ..entry(log, seq) }
}

fn entry(log: &LogId, seq: Seq) -> Entry {
    Entry {
        log: log.clone(),
        seq,
        message_no: seq,
        sender: UserId::parse("alice").unwrap(),
        sender_name: "Alice".into(),
        client_id: None,
        at: Timestamp::from_micros(seq),
        body: Body::message(format!("m{seq}")),
    }
}

fn event(log: &LogId, seq: Seq) -> Event {
    Event::Entry { entry: Arc::new(entry(log, seq)), origin: None }
}

struct Fixture {
    hub: Arc<Hub>,
    stored: Arc<TestStore>,
    log: LogId,
    supervisor: Supervisor,
    metrics: Arc<Metrics>,
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.supervisor.stop().cancel();
    }
}

impl Fixture {
    fn new(head: Seq) -> Self {
        let metrics = Arc::new(Metrics::new().unwrap());
        let supervisor = Supervisor::new(metrics.clone());
        let stored = Arc::new(TestStore {
            head: AtomicI64::new(head),
            kept: AtomicI64::new(Seq::MAX),
            removed: std::sync::Mutex::default(),
            appending: std::sync::Mutex::default(),
        });
        let hub = Hub::start(2, stored.clone(), metrics.clone(), Clock::system(), supervisor.clone());
        let log = LogId::parse("room").unwrap();
        let _opened = hub.follow(&log);
        hub.set_base(&log, head, (head > 0).then(|| entry(&log, head).stamp()));
        Self { hub, stored, log, supervisor, metrics }
    }

    async fn reader(&self) -> (Arc<Outbox>, TcpStream) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (client, server) =
            tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), async { listener.accept().await });
        let (_, writer) = server.unwrap().0.into_split();
        writer.writable().await.unwrap();
        let too_slow = Frame::close(1008, "");
        let limits = Arc::new(OutboxLimits { bytes: 1 << 20, stalled_after: Duration::from_secs(30), too_slow });
        let budget = OutboxBudget::new(1 << 30, self.metrics.clone());
        let outbox = Outbox::new(ConnectionId::fresh(), writer, limits, budget);
        outbox.greet([]);
        (outbox, client.unwrap())
    }

    /// Attaches a listener that has every entry up to `has`, and replays the rest as sessions do.
    async fn listen(&self, has: Seq) -> (Arc<Outbox>, TcpStream) {
        let (outbox, client) = self.reader().await;
        self.hub.attach(&self.log, Dialect::Native, &outbox, Terms::default()).unwrap();
        self.catch_up(&outbox, has).await;
        (outbox, client)
    }

    /// Compares the log with the store, as the reconciler does.
    fn compare(&self) -> Option<SetBack> {
        let given = self.hub.given(&self.log);
        self.compare_with(given.as_ref())
    }

    fn compare_with(&self, given: Option<&Given>) -> Option<SetBack> {
        let head = self.stored.head.load(Ordering::SeqCst);
        let seqs = given.into_iter().flat_map(Given::seqs).filter(|seq| *seq <= head);
        let stamps: Vec<EntryStamp> = seqs.map(|seq| self.stored.entry(&self.log, seq).stamp()).collect();
        let newest = (head > 0).then(|| self.stored.entry(&self.log, head).stamp());
        self.hub.compare(&self.log, Stored { first: 1, head, newest, stamps: &stamps }, given)
    }

    async fn catch_up(&self, outbox: &Outbox, mut has: Seq) {
        while self.hub.splice(&self.log, outbox.connection(), has, 0).is_err() {
            let missed = self.hub.fetch(&self.log, has).await.unwrap();
            has = self.hub.hand_over_missed(outbox, Dialect::Native, None, 0, missed).unwrap_or(has);
        }
    }
}

/// The seq of the next frame on the wire.
async fn next_seq(client: &mut TcpStream) -> Seq {
    next_frame(client).await["seq"].as_i64().unwrap()
}

/// The next frame on the wire.
async fn next_frame(client: &mut TcpStream) -> serde_json::Value {
    let mut header = [0; 2];
    client.read_exact(&mut header).await.unwrap();
    let length = match header[1] {
        126 => usize::from(client.read_u16().await.unwrap()),
        short => usize::from(short),
    };
    let mut payload = vec![0; length];
    client.read_exact(&mut payload).await.unwrap();
    serde_json::from_slice(&payload).unwrap()
}

/// The fate of an entry's publication.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Arrives,
    Lost,
    Duplicated,
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![3 => Just(Fate::Arrives), 1 => Just(Fate::Lost), 1 => Just(Fate::Duplicated)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn each_entry_goes_out_once_and_in_order(
        fates in prop::collection::vec((fate(), any::<u8>()), 1..80),
        before in 0..20_i64,
        resumed_from in 0..20_i64,
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let fixture = Fixture::new(before);
            let head = before + fates.len() as Seq;
            let (_live, mut live_client) = fixture.listen(before).await;
            fixture.stored.set(head);

            let mut published: Vec<(u16, Seq)> = Vec::new();
            for (at, (fate, jitter)) in fates.iter().enumerate() {
                let (seq, when) = (before + 1 + at as Seq, at as u16 + u16::from(jitter % 6));
                let copies = match fate { Fate::Arrives => 1, Fate::Lost => 0, Fate::Duplicated => 2 };
                published.extend((0..copies).map(|copy| (when + copy * 3, seq)));
            }
            published.sort();
            let resume_at = published.len() / 2;
            let from = resumed_from.min(before);
            let mut resumed = None;
            for (at, (_, seq)) in published.iter().enumerate() {
                if at == resume_at {
                    resumed = Some(fixture.listen(from).await);
                }
                fixture.hub.apply(vec![event(&fixture.log, *seq)]);
            }
            // A comparison finds losses at the end, as after an outage.
            assert_eq!(fixture.compare(), None);

            for expected in before + 1..=head {
                assert_eq!(next_seq(&mut live_client).await, expected);
            }
            if let Some((_outbox, mut client)) = resumed {
                for expected in from + 1..=head {
                    assert_eq!(next_seq(&mut client).await, expected);
                }
            }
        });
    }
}

#[tokio::test]
async fn entries_beyond_the_buffer_are_backfilled() {
    let fixture = Fixture::new(0);
    let (_outbox, mut client) = fixture.listen(0).await;
    let head = resequencer::HELD_MAX as Seq * 3;
    fixture.stored.set(head);
    for seq in 2..=head {
        fixture.hub.apply(vec![event(&fixture.log, seq)]);
    }
    for expected in 1..=head {
        assert_eq!(next_seq(&mut client).await, expected);
    }
}

#[tokio::test]
async fn seqs_missing_from_the_store_are_dropped() {
    let fixture = Fixture::new(3);
    let (_outbox, mut client) = fixture.listen(3).await;
    fixture.hub.apply(vec![event(&fixture.log, 9)]);
    while fixture.metrics.gaps_healed.get() == 0 {
        tokio::task::yield_now().await;
    }
    fixture.stored.set(4);
    fixture.hub.apply(vec![event(&fixture.log, 4)]);
    assert_eq!(next_seq(&mut client).await, 4);
}

#[tokio::test]
async fn entries_that_the_store_lacks_between_others_are_passed_over() {
    let fixture = Fixture::new(3);
    let (_outbox, mut client) = fixture.listen(3).await;
    fixture.stored.removed.lock().unwrap().extend([4, 6, 7]);
    fixture.stored.set(9);
    fixture.hub.apply(vec![event(&fixture.log, 9)]);
    for expected in [5, 8, 9] {
        assert_eq!(next_seq(&mut client).await, expected);
    }
    assert_eq!((fixture.metrics.log_holes.get(), fixture.metrics.gaps_stuck.get()), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn a_gap_that_stays_open_counts_as_stuck() {
    let fixture = Fixture::new(0);
    let counts = || (fixture.metrics.gaps_stuck.get(), fixture.metrics.gaps_healed.get());
    fixture.stored.set(-1);
    fixture.hub.apply(vec![event(&fixture.log, 2)]);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(counts(), (0, 0), "a new gap does not count as stuck");
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(counts(), (1, 0));
    fixture.stored.set(2);
    tokio::time::sleep(BACKOFF_MAX).await;
    assert_eq!(counts(), (0, 1));
}

#[tokio::test]
async fn ephemeral_events_are_dropped_and_counted_under_congestion() {
    let fixture = Fixture::new(0);
    let (_outbox, _client) = fixture.listen(0).await;
    let what = Ephemeral::Listening { user: UserId::parse("bob").unwrap(), name: "Bob".into(), active: true };
    let ephemeral = Arc::new(EphemeralEvent { log: fixture.log.clone(), at: Timestamp::from_micros(0), what });
    // The shards' tasks do not run before this task awaits.
    while fixture.metrics.ephemeral_dropped.get() == 0 {
        fixture.hub.apply(vec![Event::Ephemeral { ephemeral: ephemeral.clone(), origin: None }]);
    }
    let waiting = fixture.hub.queued();
    fixture.hub.apply(vec![Event::Ephemeral { ephemeral, origin: None }]);
    assert_eq!((fixture.metrics.ephemeral_dropped.get(), fixture.hub.queued()), (2, waiting));
}

#[tokio::test]
async fn a_removed_member_gets_no_further_entries() {
    let fixture = Fixture::new(0);
    let (outbox, mut client) = fixture.listen(0).await;
    let bob = UserId::parse("bob").unwrap();
    outbox.belongs_to(bob.clone());
    let removed = Entry { body: Body::MemberRemoved { user: bob }, ..entry(&fixture.log, 2) };
    let removed = Event::Entry { entry: Arc::new(removed), origin: None };
    fixture.hub.apply(vec![event(&fixture.log, 1), removed]);
    fixture.hub.apply(vec![event(&fixture.log, 3)]);
    assert_eq!(next_seq(&mut client).await, 1);
    assert_eq!(next_seq(&mut client).await, 2);
    let conversation = fixture.log.conversation().unwrap();
    assert_eq!(outbox.next_event().await, OutboxEvent::Signal(Signal::Removed { conversation, seq: 2 }));
    outbox.send([Frame::text(r#"{"seq":99}"#)]);
    assert_eq!(next_seq(&mut client).await, 99);
}

/// A replay ends a membership like live delivery does: the entry of the removal goes out, the session is signalled, and
/// no later entry goes out.
#[tokio::test]
async fn a_replay_ends_a_membership_as_live_delivery_does() {
    let fixture = Fixture::new(0);
    let (user, log) = (UserId::parse("bob").unwrap(), &fixture.log);
    let removal = || Entry { body: Body::MemberRemoved { user: user.clone() }, ..entry(log, 2) };
    let (live, mut live_client) = fixture.listen(0).await;
    live.belongs_to(user.clone());
    let removed = Event::Entry { entry: Arc::new(removal()), origin: None };
    fixture.hub.apply(vec![event(log, 1), removed]);

    let (late, mut late_client) = fixture.reader().await;
    late.belongs_to(user.clone());
    assert_eq!(
        fixture.hub.hand_over_missed(&late, Dialect::Native, None, 0, [entry(log, 1), removal(), entry(log, 3)]),
        None
    );
    fixture.hub.apply(vec![event(log, 3)]);

    let told = OutboxEvent::Signal(Signal::Removed { conversation: log.conversation().unwrap(), seq: 2 });
    for (outbox, client) in [(live, &mut live_client), (late, &mut late_client)] {
        assert_eq!((next_seq(client).await, next_seq(client).await), (1, 2));
        assert_eq!(outbox.next_event().await, told);
        outbox.close([Frame::close(1000, "")]);
        let mut close = [0; 4];
        client.read_exact(&mut close).await.unwrap();
        assert_eq!(close[0], 0x88, "no frame between the removal and the close");
    }
}

/// A user who was removed and added again joins at head 3; neither live delivery nor a replay ends at the removal before.
#[tokio::test]
async fn a_removal_before_the_admission_ends_nothing() {
    let fixture = Fixture::new(0);
    let (user, log) = (UserId::parse("bob").unwrap(), &fixture.log);
    let removal = || Entry { body: Body::MemberRemoved { user: user.clone() }, ..entry(log, 2) };
    let (live, mut live_client) = fixture.reader().await;
    live.belongs_to(user.clone());
    fixture.hub.attach(log, Dialect::Native, &live, Terms { admitted_at: 3, ..Terms::default() }).unwrap();
    fixture.hub.splice(log, live.connection(), 0, 0).unwrap();
    let removed = Event::Entry { entry: Arc::new(removal()), origin: None };
    fixture.hub.apply(vec![event(log, 1), removed, event(log, 3)]);

    let (late, mut late_client) = fixture.reader().await;
    late.belongs_to(user.clone());
    assert_eq!(
        fixture.hub.hand_over_missed(&late, Dialect::Native, None, 3, [entry(log, 1), removal(), entry(log, 3)]),
        Some(3)
    );
    for client in [&mut live_client, &mut late_client] {
        assert_eq!((next_seq(client).await, next_seq(client).await, next_seq(client).await), (1, 2, 3));
    }
}

#[tokio::test]
async fn a_batch_ends_for_a_user_where_it_ends_the_membership() {
    let fixture = Fixture::new(0);
    let (bobs, mut bob) = fixture.listen(0).await;
    bobs.belongs_to(UserId::parse("bob").unwrap());
    let (carols, mut carol) = fixture.listen(0).await;
    carols.belongs_to(UserId::parse("carol").unwrap());
    let body = Body::MemberRemoved { user: UserId::parse("bob").unwrap() };
    let removal = Entry { body, ..entry(&fixture.log, 2) };
    let removal = Event::Entry { entry: Arc::new(removal), origin: None };
    fixture.hub.apply(vec![event(&fixture.log, 1), removal, event(&fixture.log, 3), event(&fixture.log, 4)]);
    for seq in 1..=4 {
        assert_eq!(next_seq(&mut carol).await, seq);
    }
    assert_eq!((next_seq(&mut bob).await, next_seq(&mut bob).await), (1, 2));
    bobs.send([Frame::text(r#"{"seq":99}"#)]);
    assert_eq!(next_seq(&mut bob).await, 99, "nothing after the removal");
}

/// An entry that this socket sent and whose ack it awaits.
fn own_event(log: &LogId, seq: Seq, outbox: &Outbox) -> (Event, Arc<PendingAck>) {
    let reference = serde_json::value::to_raw_value("mark").unwrap();
    let ack = Arc::new(PendingAck::new(outbox.connection(), Some(reference), None));
    (Event::Entry { entry: Arc::new(entry(log, seq)), origin: Some(ack.clone()) }, ack)
}

#[tokio::test]
async fn an_ack_stands_where_the_entry_of_its_socket_would() {
    let fixture = Fixture::new(0);
    let (sender, mut client) = fixture.listen(0).await;
    let (_other, mut other) = fixture.listen(0).await;
    let (own, ack) = own_event(&fixture.log, 2, &sender);
    fixture.hub.apply(vec![own, event(&fixture.log, 3)]);
    assert_eq!(ack.take(), TakenAck::Now, "nothing is delivered before the gap closes");
    let (own, ack) = own_event(&fixture.log, 4, &sender);
    fixture.hub.apply(vec![event(&fixture.log, 1), own, event(&fixture.log, 5)]);
    // The first ack is taken, so that the socket gets nothing in its place.
    for expected in [1, 3, 4, 5] {
        let frame = next_frame(&mut client).await;
        let (kind, mark) = if expected == 4 { ("ack", "mark".into()) } else { ("message", serde_json::Value::Null) };
        assert_eq!((&frame["seq"], &frame["type"], &frame["ref"]), (&expected.into(), &kind.into(), &mark));
    }
    assert_eq!(ack.take(), TakenAck::Before);
    for expected in 1..=5 {
        assert_eq!(next_seq(&mut other).await, expected);
    }
}

#[tokio::test]
async fn a_backfill_waits_for_the_acks_of_what_this_node_appends() {
    let fixture = Fixture::new(0);
    let (sender, mut client) = fixture.listen(0).await;
    let (appended, appending) = oneshot::channel();
    *fixture.stored.appending.lock().unwrap() = Some(appending);
    // Both are stored; the publication of another node is quicker than the answer to this node's own append.
    fixture.stored.set(2);
    fixture.hub.apply(vec![event(&fixture.log, 2)]);
    while fixture.stored.appending.lock().unwrap().is_some() {
        tokio::task::yield_now().await;
    }
    let (own, _ack) = own_event(&fixture.log, 1, &sender);
    fixture.hub.apply(vec![own]);
    appended.send(()).unwrap();
    for expected in [("ack", 1), ("message", 2)] {
        assert_eq!(next_place(&mut client).await, (expected.0.into(), expected.1));
    }
}

#[tokio::test]
async fn a_socket_whose_ack_was_given_up_gets_its_entry() {
    let fixture = Fixture::new(0);
    let (sender, mut client) = fixture.listen(0).await;
    let (own, ack) = own_event(&fixture.log, 1, &sender);
    assert!(ack.give_up());
    fixture.hub.apply(vec![own]);
    assert_eq!(next_frame(&mut client).await["type"], "message");
}

/// Asks for the ack of the entry `seq`, which this socket sent.
fn place(fixture: &Fixture, seq: Seq, outbox: &Outbox) -> impl Future<Output = bool> + Send + use<> {
    let ack = Arc::new(PendingAck::new(outbox.connection(), None, None));
    let Entry { log, at, .. } = entry(&fixture.log, seq);
    let sent = Sent { log, recipient: None, seq, at, client_id: None, duplicate: true };
    fixture.hub.place_ack(&ack, &sent)
}

/// The type and the seq of the next frame.
async fn next_place(client: &mut TcpStream) -> (String, i64) {
    let frame = next_frame(client).await;
    (frame["type"].as_str().unwrap().into(), frame["seq"].as_i64().unwrap())
}

#[tokio::test]
async fn an_ack_waits_for_every_earlier_entry() {
    let fixture = Fixture::new(0);
    let (listener, mut client) = fixture.listen(0).await;
    let (stranger, _theirs) = fixture.reader().await;
    assert!(!place(&fixture, 3, &stranger).await, "it does not listen");
    // The hub never hears of the entries, so it has to backfill them.
    fixture.stored.set(3);
    assert!(place(&fixture, 3, &listener).await);
    for expected in [("message", 1), ("message", 2), ("ack", 3)] {
        assert_eq!(next_place(&mut client).await, (expected.0.into(), expected.1));
    }
    let waits = place(&fixture, 4, &listener);
    let _left = fixture.hub.detach(&fixture.log, Dialect::Native, listener.connection()).await;
    assert!(!waits.await, "it listens no longer");
}

#[tokio::test]
async fn an_ack_waits_for_a_replay() {
    let fixture = Fixture::new(9);
    let (outbox, mut client) = fixture.reader().await;
    fixture.hub.attach(&fixture.log, Dialect::Native, &outbox, Terms::default()).unwrap();
    let wait = tokio::spawn(place(&fixture, 5, &outbox));
    tokio::task::yield_now().await;
    assert!(!wait.is_finished());
    fixture.catch_up(&outbox, 3).await;
    assert!(wait.await.unwrap());
    for expected in 4..=9 {
        assert_eq!(next_place(&mut client).await, ("message".into(), expected));
    }
    assert_eq!(next_place(&mut client).await, ("ack".into(), 5));
}

#[tokio::test]
async fn acks_of_entries_that_a_replay_brings_are_not_overtaken() {
    let fixture = Fixture::new(1);
    let (sender, mut client) = fixture.reader().await;
    fixture.hub.attach(&fixture.log, Dialect::Native, &sender, Terms::default()).unwrap();
    // The entry goes out while the replay is under way, which brings it.
    let (replayed, _ack) = own_event(&fixture.log, 2, &sender);
    fixture.hub.apply(vec![replayed]);
    fixture.stored.set(2);
    fixture.catch_up(&sender, 1).await;
    let (live, _ack) = own_event(&fixture.log, 3, &sender);
    fixture.hub.apply(vec![live]);
    for expected in [("message", 2), ("ack", 2), ("ack", 3)] {
        assert_eq!(next_place(&mut client).await, (expected.0.into(), expected.1));
    }
}

#[tokio::test]
async fn acks_of_entries_that_a_backfill_brings_are_not_overtaken() {
    let fixture = Fixture::new(0);
    let (sender, mut client) = fixture.listen(0).await;
    // Another node tells of the entry before this node has the answer of the store.
    let (own, _ack) = own_event(&fixture.log, 1, &sender);
    fixture.hub.apply(vec![event(&fixture.log, 1)]);
    let (next, _next_ack) = own_event(&fixture.log, 2, &sender);
    fixture.hub.apply(vec![own, next]);
    for expected in [("message", 1), ("ack", 1), ("ack", 2)] {
        assert_eq!(next_place(&mut client).await, (expected.0.into(), expected.1));
    }
}

#[tokio::test]
async fn an_ack_that_waits_takes_the_place_of_the_entry_whoever_brings_it() {
    let fixture = Fixture::new(0);
    let (sender, mut client) = fixture.listen(0).await;
    let (_other, mut other) = fixture.listen(0).await;
    let wait = place(&fixture, 2, &sender);
    let (next, _ack) = own_event(&fixture.log, 3, &sender);
    fixture.hub.apply(vec![next]);
    // The first two come from the store, which does not know which socket sent them.
    fixture.stored.set(2);
    assert!(wait.await);
    let frames = [next_frame(&mut client).await, next_frame(&mut client).await, next_frame(&mut client).await];
    let places = frames.each_ref().map(|frame| (frame["type"].as_str().unwrap(), frame["seq"].as_i64().unwrap()));
    assert_eq!(places, [("message", 1), ("ack", 2), ("ack", 3)]);
    assert_eq!(frames[1]["duplicate"], true, "{:?}", frames[1]);
    for expected in 1..=3 {
        assert_eq!(next_place(&mut other).await, ("message".into(), expected));
    }
}

#[tokio::test]
async fn no_socket_is_told_that_its_own_user_is_gone() {
    let fixture = Fixture::new(0);
    let (bobs, mut bob) = fixture.listen(0).await;
    bobs.belongs_to(UserId::parse("bob").unwrap());
    let at = Timestamp::from_micros(0);
    let told = |what| Event::Ephemeral {
        ephemeral: Arc::new(EphemeralEvent { log: fixture.log.clone(), at, what }),
        origin: None,
    };
    let gone = |user: &str| {
        let presence = Ephemeral::Presence {
            user: UserId::parse(user).unwrap(),
            online: false,
            status: crate::model::Status::Online,
        };
        told(presence)
    };
    fixture.hub.apply(vec![gone("bob"), gone("alice")]);
    assert_eq!(next_frame(&mut bob).await["user_id"], "alice");
}

#[tokio::test]
async fn an_event_waits_for_the_entries_that_its_senders_node_had() {
    let fixture = Fixture::new(3);
    let (_outbox, mut client) = fixture.listen(3).await;
    let custom = |name: &str, after: Seq| {
        let what = Ephemeral::Custom {
            user: UserId::parse("alice").unwrap(),
            name: crate::model::EventName::parse(name).unwrap(),
            data: None,
            after,
        };
        let ephemeral = EphemeralEvent { log: fixture.log.clone(), at: Clock::system().now(), what };
        Event::Ephemeral { ephemeral: Arc::new(ephemeral), origin: None }
    };
    // The store has the entries, and no publication of them comes.
    fixture.stored.set(5);
    fixture.hub.apply(vec![custom("first", 5), custom("second", 5), custom("now", 3)]);
    assert_eq!(next_frame(&mut client).await["name"], "now");
    assert_eq!((next_seq(&mut client).await, next_seq(&mut client).await), (4, 5));
    assert_eq!(next_frame(&mut client).await["name"], "first");
    assert_eq!(next_frame(&mut client).await["name"], "second");
    // The number of those that wait is bounded.
    fixture.stored.set(-1);
    fixture.hub.apply((0..1_000).map(|_| custom("early", 6)).collect());
    assert_eq!(fixture.metrics.ephemeral_dropped.get(), 1_000 - 256);
    fixture.hub.apply(vec![event(&fixture.log, 6)]);
    assert_eq!(next_seq(&mut client).await, 6);
    for _ in 0..256 {
        assert_eq!(next_frame(&mut client).await["name"], "early");
    }
}
