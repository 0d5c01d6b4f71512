//! The store was set back to an earlier state, and assigns seqs again.

use super::*;

fn other_event(log: &LogId, seq: Seq) -> Event {
    Event::Entry { entry: Arc::new(other_entry(log, seq)), origin: None }
}

impl Fixture {
    /// Sets the store back to `kept`, and adds other entries up to `head`.
    fn set_back(&self, kept: Seq, head: Seq) {
        self.stored.kept.store(kept, Ordering::SeqCst);
        self.stored.set(head);
    }

    /// A listener that got the entries 6 to 10.
    async fn listener_at_ten(&self) -> (Arc<Outbox>, TcpStream) {
        let (outbox, mut client) = self.listen(5).await;
        self.hub.apply((6..=10).map(|seq| event(&self.log, seq)).collect());
        for seq in 6..=10 {
            assert_eq!(next_seq(&mut client).await, seq);
        }
        (outbox, client)
    }

    /// Compares and restarts, as the reconciler does, if the last kept entry is known.
    fn compare_and_restart(&self) {
        let set_back = self.compare().expect("a set-back");
        let kept = set_back.kept.expect("the last kept entry");
        assert!(self.hub.restart(&set_back, 1, kept, self.stored.head.load(Ordering::SeqCst)));
    }
}

async fn expect_resync(client: &mut TcpStream, head: Seq) {
    let note = next_frame(client).await;
    assert_eq!((&note["type"], &note["head"]), (&"resync".into(), &head.into()), "{note}");
}

async fn expect_new(client: &mut TcpStream, seqs: std::ops::RangeInclusive<Seq>) {
    for seq in seqs {
        let frame = next_frame(client).await;
        assert_eq!((&frame["seq"], &frame["content"]), (&seq.into(), &format!("new {seq}").into()), "{frame}");
    }
}

#[tokio::test]
async fn a_lower_head_makes_listeners_resync() {
    let fixture = Fixture::new(5);
    let (_outbox, mut client) = fixture.listener_at_ten().await;
    fixture.set_back(6, 6);
    fixture.compare_and_restart();
    expect_resync(&mut client, 6).await;
    fixture.hub.apply(vec![other_event(&fixture.log, 7)]);
    expect_new(&mut client, 7..=7).await;
}

#[tokio::test]
async fn other_entries_at_the_same_height_or_above_make_listeners_resync() {
    for head in [10, 14] {
        let fixture = Fixture::new(5);
        let (_outbox, mut client) = fixture.listener_at_ten().await;
        fixture.set_back(7, head);
        fixture.compare_and_restart();
        expect_resync(&mut client, 7).await;
        expect_new(&mut client, 8..=head).await;
    }
}

#[tokio::test]
async fn an_entry_under_a_seq_that_went_out_is_doubted_and_comes_once_after_the_comparison() {
    let fixture = Fixture::new(5);
    let (_outbox, mut client) = fixture.listener_at_ten().await;
    fixture.set_back(8, 12);
    fixture.hub.apply((9..=12).map(|seq| other_event(&fixture.log, seq)).collect());
    assert_eq!(fixture.hub.doubted().await.len(), 1);
    assert_eq!(fixture.hub.last(&fixture.log), Some(10), "11 and 12 would hide that 9 and 10 are lacking");
    fixture.compare_and_restart();
    expect_resync(&mut client, 8).await;
    expect_new(&mut client, 9..=12).await;
}

#[tokio::test]
async fn a_doubt_without_a_reason_ends_with_the_comparison() {
    let fixture = Fixture::new(5);
    let (_outbox, mut client) = fixture.listener_at_ten().await;
    fixture.stored.set(11);
    fixture.hub.apply(vec![other_event(&fixture.log, 10), event(&fixture.log, 11)]);
    assert_eq!(fixture.hub.doubted().await.len(), 1);
    assert_eq!(fixture.compare(), None);
    assert_eq!(next_seq(&mut client).await, 11);
}

#[tokio::test]
async fn repeated_entries_are_no_contradiction() {
    let fixture = Fixture::new(5);
    let (_outbox, mut client) = fixture.listener_at_ten().await;
    fixture.stored.set(11);
    fixture.hub.apply((1..=11).map(|seq| event(&fixture.log, seq)).collect());
    assert_eq!(next_seq(&mut client).await, 11);
}

#[tokio::test]
async fn a_backfill_finds_another_entry_at_the_end_of_what_went_out() {
    let fixture = Fixture::new(5);
    let (_outbox, mut client) = fixture.listener_at_ten().await;
    fixture.set_back(9, 13);
    fixture.hub.apply(vec![other_event(&fixture.log, 13)]);
    assert_eq!(fixture.hub.doubted().await.len(), 1);
    fixture.compare_and_restart();
    expect_resync(&mut client, 9).await;
    expect_new(&mut client, 10..=13).await;
}

/// The log continues right after the last entry that went out, which is another one in the store.
#[tokio::test]
async fn lost_entries_below_a_new_one_are_found() {
    let fixture = Fixture::new(5);
    let (_outbox, mut client) = fixture.listener_at_ten().await;
    fixture.set_back(9, 11);
    fixture.hub.apply(vec![other_event(&fixture.log, 11)]);
    expect_new(&mut client, 11..=11).await;
    fixture.compare_and_restart();
    expect_resync(&mut client, 9).await;
    expect_new(&mut client, 10..=11).await;
}

/// Fewer entries are remembered than were lost: the reconciler looks for the last kept one by its time.
#[tokio::test]
async fn if_every_remembered_entry_is_lost_the_time_of_the_newest_one_is_told() {
    let fixture = Fixture::new(5);
    let (_outbox, mut client) = fixture.listener_at_ten().await;
    fixture.set_back(2, 4);
    let set_back = fixture.compare().unwrap();
    assert_eq!((set_back.kept, set_back.lost_at), (None, Some(Timestamp::from_micros(10))));
    assert!(fixture.hub.restart(&set_back, 1, 2, 4));
    expect_resync(&mut client, 2).await;
    expect_new(&mut client, 3..=4).await;
    // A second comparison that began before the restart changes nothing.
    assert!(!fixture.hub.restart(&set_back, 1, 0, 4));
    fixture.hub.apply(vec![other_event(&fixture.log, 5)]);
    expect_new(&mut client, 5..=5).await;
}

#[tokio::test]
async fn a_comparison_from_before_a_restart_finds_nothing() {
    let fixture = Fixture::new(5);
    let (_outbox, mut client) = fixture.listener_at_ten().await;
    fixture.set_back(6, 6);
    let before = fixture.hub.given(&fixture.log);
    fixture.compare_and_restart();
    expect_resync(&mut client, 6).await;
    assert_eq!(fixture.compare_with(before.as_ref()), None);
    assert_eq!(fixture.compare(), None);
}

#[tokio::test]
async fn a_replay_during_a_restart_ends_with_a_resync() {
    let fixture = Fixture::new(5);
    let (_live, _live_client) = fixture.listener_at_ten().await;
    let (outbox, mut client) = fixture.reader().await;
    let attached = fixture.hub.attach(&fixture.log, Dialect::Native, &outbox, Terms::default()).unwrap();
    assert_eq!(attached, Attached { last: 10, restarts: 0 });
    fixture.set_back(6, 7);
    fixture.compare_and_restart();
    fixture.hub.splice(&fixture.log, outbox.connection(), 10, attached.restarts).unwrap();
    let head = next_frame(&mut client).await["head"].as_i64().unwrap();
    assert!((6..=7).contains(&head), "{head}");
    expect_new(&mut client, head + 1..=7).await;
    fixture.hub.apply(vec![other_event(&fixture.log, 8)]);
    expect_new(&mut client, 8..=8).await;
}

#[tokio::test]
async fn an_ack_of_a_lost_entry_waits_no_longer() {
    let fixture = Fixture::new(5);
    let (outbox, mut client) = fixture.listener_at_ten().await;
    let wait = tokio::spawn(place(&fixture, 12, &outbox));
    fixture.set_back(6, 6);
    fixture.compare_and_restart();
    expect_resync(&mut client, 6).await;
    assert!(!wait.await.unwrap());
}

/// The ack of a message whose seq went out before, with another entry, comes after the resync, in its place.
#[tokio::test]
async fn an_ack_under_a_seq_that_went_out_waits_for_the_resync() {
    let fixture = Fixture::new(5);
    let (outbox, mut client) = fixture.listener_at_ten().await;
    fixture.set_back(8, 9);
    let sent = |entry: Entry| {
        let Entry { log, seq, at, .. } = entry;
        Sent { log, recipient: None, seq, at, client_id: None, duplicate: false }
    };
    let ack = Arc::new(PendingAck::new(outbox.connection(), None, None));
    let stored = other_entry(&fixture.log, 9);
    assert!(!fixture.hub.place_ack(&ack, &sent(stored.clone())).await, "the log is doubted");
    let event = Event::Entry { entry: Arc::new(stored.clone()), origin: Some(ack.clone()) };
    fixture.hub.apply(vec![event]);
    fixture.compare_and_restart();
    let placed = fixture.hub.place_ack(&ack, &sent(stored));
    expect_resync(&mut client, 8).await;
    assert_eq!(next_place(&mut client).await, ("ack".into(), 9));
    assert!(placed.await);
}

#[tokio::test]
async fn the_listeners_of_a_log_are_listed() {
    let fixture = Fixture::new(0);
    let (one, _one) = fixture.listen(0).await;
    let (other, _other) = fixture.reader().await;
    fixture.hub.attach(&fixture.log, Dialect::Native, &other, Terms::default()).unwrap();
    let mut listed: Vec<_> = fixture.hub.listeners(&fixture.log).await.iter().map(|one| one.connection()).collect();
    let mut expected = vec![one.connection(), other.connection()];
    listed.sort();
    expected.sort();
    assert_eq!(listed, expected);
}

#[tokio::test]
async fn a_gap_behind_entries_that_retention_removed_is_closed() {
    let fixture = Fixture::new(5);
    let (_outbox, mut client) = fixture.listener_at_ten().await;
    // Everything that went out is gone, and of what followed this node heard only the last entry.
    fixture.stored.removed.lock().unwrap().extend(1..=10);
    fixture.stored.set(12);
    fixture.hub.apply(vec![event(&fixture.log, 12)]);
    assert_eq!(fixture.hub.doubted().await.len(), 1);
    let (given, newest) = (fixture.hub.given(&fixture.log), Some(entry(&fixture.log, 12).stamp()));
    let stored = Stored { first: 11, head: 12, newest, stamps: &[] };
    assert_eq!(fixture.hub.compare(&fixture.log, stored, given.as_ref()), None, "nothing is lost");
    for seq in 11..=12 {
        assert_eq!(next_seq(&mut client).await, seq);
    }
}
