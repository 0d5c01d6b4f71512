//! Each rule of the checker, on a tiny history that keeps it and on one that breaks it.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    checker::check,
    evidence::{Evidence, Figure, Log, Presence, Row, Rule},
    history::{About, Delivered, Kind, Name, Record, Session, What},
};

mod people;

/// Alice and Bob listen to `team` from its beginning, on one connection each; every line comes a second after the one
/// before.
struct Case(Evidence);

const ALICE: usize = 0;
const BOB: usize = 1;

impl Case {
    fn new() -> Self {
        let users: Vec<Name> = vec!["alice".into(), "bob".into()];
        let store = BTreeMap::from([("team".into(), Log::default())]);
        let mut case = Self(Evidence { users, store, delivered_within: Duration::from_secs(5), ..Evidence::default() });
        for client in [ALICE, BOB] {
            case.resume(client, 1, Some(0), 0, false);
        }
        case
    }

    /// A case in which Alice's message `id` is sent and acked, and Bob gets it.
    fn with_message(seq: i64, id: &str) -> Self {
        let mut case = Self::new();
        case.invoke(id).stored(seq, id).ok(seq, id).deliver(BOB, seq, id);
        case
    }

    fn now(&self) -> Duration {
        Duration::from_secs(self.0.history.len() as u64)
    }

    fn record_on(&mut self, client: usize, number: u32, what: What) -> &mut Self {
        let at = self.now();
        self.0.history.push(Record { at, session: Some(Session { client, number }), what });
        self
    }

    fn record(&mut self, client: usize, what: What) -> &mut Self {
        self.record_on(client, 1, what)
    }

    fn resume(&mut self, client: usize, number: u32, since: Option<i64>, from: i64, resync: bool) -> &mut Self {
        let (asked, head) = (self.now(), Some(from));
        let conversation = "team".into();
        self.record_on(client, number, What::Resume { conversation, since, from, head, resync, asked })
    }

    fn invoke(&mut self, id: &str) -> &mut Self {
        let (conversation, id) = ("team".into(), id.into());
        self.record(ALICE, What::Invoke { conversation, id, kind: Kind::Message, about: About::Nothing })
    }

    fn ok(&mut self, seq: i64, id: &str) -> &mut Self {
        self.record(ALICE, What::Ok { conversation: "team".into(), id: id.into(), seq, duplicate: false })
    }

    fn duplicate(&mut self, seq: i64, id: &str) -> &mut Self {
        self.record(ALICE, What::Ok { conversation: "team".into(), id: id.into(), seq, duplicate: true })
    }

    fn fail(&mut self, id: &str, last: bool) -> &mut Self {
        self.record(ALICE, What::Fail { id: id.into(), code: "unavailable".into(), last })
    }

    fn unknown(&mut self, id: &str) -> &mut Self {
        self.record(ALICE, What::Unknown { id: id.into() })
    }

    fn close(&mut self, client: usize) -> &mut Self {
        self.record(client, What::Close { why: "gone".into() })
    }

    fn deliver(&mut self, client: usize, seq: i64, id: &str) -> &mut Self {
        let (kind, sender, id, about) = (Kind::Message, "alice".into(), Some(id.into()), About::Nothing);
        let entry = Delivered { seq, kind, sender, id, about, text: 1 };
        self.record(client, What::Deliver { conversation: "team".into(), entry })
    }

    fn stored(&mut self, seq: i64, id: &str) -> &mut Self {
        let log = self.0.store.get_mut("team").unwrap();
        let (kind, sender, id, about) = (Kind::Message, "alice".into(), id.into(), About::Nothing);
        log.rows.insert(seq, Row { kind, sender, id, about, text: 1 });
        log.head = log.head.max(seq);
        self
    }

    #[track_caller]
    fn breaks(&self, rules: &[Rule]) {
        let violations = check(&self.0);
        let mut broken: Vec<_> = violations.iter().map(|violation| violation.rule).collect();
        broken.dedup();
        assert_eq!(broken, rules, "{violations:#?}");
    }

    #[track_caller]
    fn is_well(&self) {
        self.breaks(&[]);
    }
}

#[test]
fn acked_means_stored() {
    Case::with_message(1, "a1").is_well();
    let mut lost = Case::new();
    lost.invoke("a1").ok(1, "a1").breaks(&[Rule::AckedIsStored]);
    let mut elsewhere = Case::with_message(1, "a1");
    elsewhere.invoke("a2").ok(1, "a2").breaks(&[Rule::AckedIsStored, Rule::AcksInOrder]);
}

#[test]
fn refused_means_never() {
    let mut refused = Case::new();
    refused.invoke("a1").fail("a1", true).is_well();
    refused.stored(1, "a1").deliver(BOB, 1, "a1").breaks(&[Rule::RefusedNeverWas]);
    let mut unknown = Case::new();
    unknown.invoke("a1").unknown("a1").invoke("a1").fail("a1", true).stored(1, "a1").deliver(BOB, 1, "a1");
    unknown.is_well();
    let mut stored_after_all = Case::new();
    stored_after_all.invoke("a1").fail("a1", false).stored(1, "a1").deliver(BOB, 1, "a1").invoke("a1").ok(1, "a1");
    stored_after_all.breaks(&[Rule::RefusedNeverWas]);
    let mut tried_again = Case::new();
    tried_again.invoke("a1").fail("a1", false).invoke("a1").stored(1, "a1").deliver(BOB, 1, "a1").ok(1, "a1");
    tried_again.is_well();
}

#[test]
fn seqs_are_contiguous() {
    let mut gap = Case::with_message(1, "a1");
    gap.close(ALICE).close(BOB).invoke("a3").stored(3, "a3").ok(3, "a3").breaks(&[Rule::SeqsHaveNoGap]);
    let mut headless = Case::with_message(1, "a1");
    headless.0.store.get_mut("team").unwrap().head = 0;
    headless.breaks(&[Rule::SeqsHaveNoGap]);
}

#[test]
fn an_operation_is_stored_once() {
    let mut twice = Case::with_message(1, "a1");
    twice.stored(2, "a1").deliver(BOB, 2, "a1").breaks(&[Rule::StoredOnce]);
    let mut invented = Case::with_message(1, "a1");
    invented.stored(2, "a2").deliver(BOB, 2, "a2").deliver(ALICE, 2, "a2").breaks(&[Rule::StoredOnce]);
}

#[test]
fn deliveries_are_strictly_plus_one() {
    let two = || {
        let mut case = Case::with_message(1, "a1");
        case.invoke("a2").stored(2, "a2").ok(2, "a2");
        case
    };
    two().deliver(BOB, 2, "a2").is_well();
    two().breaks(&[Rule::DeliveredByOne]);
    two().deliver(BOB, 1, "a1").deliver(BOB, 2, "a2").breaks(&[Rule::DeliveredByOne]);
    two().deliver(BOB, 2, "a1").breaks(&[Rule::DeliveredByOne]);
    let mut three = two();
    three.invoke("a3").stored(3, "a3").ok(3, "a3").deliver(BOB, 3, "a3").breaks(&[Rule::DeliveredByOne]);
}

#[test]
fn a_resume_continues_after_the_seq_that_was_asked_for() {
    let mut resumed = Case::with_message(1, "a1");
    resumed.close(BOB).invoke("a2").stored(2, "a2").ok(2, "a2").resume(BOB, 2, Some(1), 1, false);
    resumed.breaks(&[Rule::DeliveredByOne]);
    let resynced = |since| {
        let mut case = Case::with_message(1, "a1");
        case.close(BOB).invoke("a2").stored(2, "a2").ok(2, "a2").resume(BOB, 2, Some(since), 2, true);
        case
    };
    resynced(7).is_well();
    resynced(1).breaks(&[Rule::DeliveredByOne]);
    let mut elsewhere = Case::with_message(1, "a1");
    elsewhere.close(BOB).resume(BOB, 2, Some(0), 1, false).breaks(&[Rule::DeliveredByOne]);
}

#[test]
fn only_the_sending_connection_gets_no_copy() {
    let mut moved = Case::with_message(1, "a1");
    moved.close(ALICE).resume(ALICE, 2, Some(0), 0, false).breaks(&[Rule::DeliveredByOne]);
    let mut retried = Case::new();
    retried.invoke("a1").unknown("a1").invoke("a1").stored(1, "a1").duplicate(1, "a1").deliver(BOB, 1, "a1");
    retried.is_well();
    retried.deliver(ALICE, 1, "a1").is_well();
    // Only in its place does an ack stand for the copy.
    let mut late = Case::new();
    late.invoke("a1").unknown("a1").invoke("a1").stored(1, "a1").deliver(BOB, 1, "a1");
    late.stored(2, "b1").deliver(BOB, 2, "b1").deliver(ALICE, 2, "b1").duplicate(1, "a1");
    late.breaks(&[Rule::StoredOnce, Rule::DeliveredByOne]);
}

#[test]
fn deliveries_come_in_time() {
    let late = || {
        let mut case = Case::new();
        case.invoke("a1").stored(1, "a1").ok(1, "a1");
        case.0.history.extend((0..10).map(|second| Record {
            at: Duration::from_secs(6 + second),
            session: None,
            what: What::Fault { fault: "none".into(), begins: true },
        }));
        case.deliver(BOB, 1, "a1");
        case
    };
    late().breaks(&[Rule::DeliveredInTime]);
    let mut stalled = late();
    let at = Duration::from_secs(4);
    let stall = Record { at, session: Some(Session { client: BOB, number: 1 }), what: What::Stall { begins: true } };
    stalled.0.history.insert(4, stall);
    stalled.is_well();
    let mut patient = late();
    patient.0.delivered_within = Duration::from_secs(60);
    patient.is_well();
}

#[test]
fn acks_keep_the_order_of_sends() {
    let both = |first: (i64, &str), second: (i64, &str)| {
        let mut case = Case::new();
        case.invoke("a1").invoke("a2").stored(first.0, first.1).stored(second.0, second.1);
        case.ok(first.0, first.1).ok(second.0, second.1);
        for seq in [1, 2] {
            let id = if first.0 == seq { first.1 } else { second.1 };
            case.deliver(BOB, seq, id);
        }
        case
    };
    both((1, "a1"), (2, "a2")).is_well();
    both((2, "a1"), (1, "a2")).breaks(&[Rule::AcksInOrder]);
    both((1, "a2"), (2, "a1")).breaks(&[Rule::AcksInOrder]);
}

#[test]
fn no_ack_overtakes_an_entry() {
    let case = |overtakes: bool| {
        let mut case = Case::with_message(1, "a1");
        let (conversation, kind, about): (Name, _, _) = ("team".into(), Kind::Message, About::Nothing);
        let (sender, id, text): (Name, Name, _) = ("bob".into(), "b2".into(), 1);
        let row = Row { kind, sender: sender.clone(), id: id.clone(), about: about.clone(), text };
        case.stored(2, "b2").0.store.get_mut("team").unwrap().rows.insert(2, row);
        case.record(
            BOB,
            What::Invoke { conversation: conversation.clone(), id: id.clone(), kind, about: about.clone() },
        );
        case.record(BOB, What::Ok { conversation: conversation.clone(), id: id.clone(), seq: 2, duplicate: false });
        case.invoke("a3").stored(3, "a3");
        let entry = Delivered { seq: 2, kind, sender, id: Some(id), about, text };
        let entry = What::Deliver { conversation, entry };
        match overtakes {
            true => case.ok(3, "a3").record(ALICE, entry),
            false => case.record(ALICE, entry).ok(3, "a3"),
        };
        case.deliver(BOB, 3, "a3");
        case
    };
    case(false).is_well();
    case(true).breaks(&[Rule::DeliveredByOne]);
}

#[test]
fn every_operation_ends() {
    let mut open = Case::new();
    open.invoke("a1").breaks(&[Rule::Settled]);
    open.unknown("a1").breaks(&[Rule::Settled]);
    open.invoke("a1").fail("a1", true).is_well();
}

#[test]
fn online_users_are_those_with_a_socket() {
    let says = |reported: &[&str], live: &[&str]| {
        let set = |names: &[&str]| names.iter().map(|name| Name::from(*name)).collect();
        let mut case = Case::with_message(1, "a1");
        case.0.presence.push(Presence { place: "node 0".into(), reported: set(reported), live: set(live) });
        case
    };
    says(&["alice", "bob"], &["alice", "bob"]).is_well();
    says(&["alice", "bob"], &["alice"]).breaks(&[Rule::PresenceIsTrue]);
    says(&["alice"], &["alice", "bob"]).breaks(&[Rule::PresenceIsTrue]);
}

#[test]
fn figures_return_to_their_former_values() {
    let grows = |after| {
        let mut case = Case::with_message(1, "a1");
        case.0.figures.push(Figure { name: "keys".into(), before: 10, after, slack: 2 });
        case
    };
    grows(12).is_well();
    grows(13).breaks(&[Rule::NothingLeaks]);
}

#[test]
fn nodes_and_servers_recover() {
    let mut case = Case::with_message(1, "a1");
    case.0.lost.push("node 1 was asked to end, and did so with 1".into());
    case.breaks(&[Rule::EverythingComesBack]);
}
