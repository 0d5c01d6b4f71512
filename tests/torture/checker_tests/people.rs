//! The rules of members, deleted texts, greetings, presence, and of dialects without frames for changes.

use super::*;
use crate::{
    evidence::{Shown, View},
    history::Dialect,
};

/// The hand that changes members over REST.
const HAND: usize = 2;

impl Case {
    /// A case in which Bob was removed at seq 2 and, if `again`, added at seq 3; Alice stays.
    fn with_removal(again: bool) -> Self {
        let mut case = Self::with_message(1, "a1");
        case.0.users.push("alice".into());
        case.0.store.get_mut("team").unwrap().members = ["alice".into()].into();
        case.change("h1", Kind::MemberRemoved, 2).deliver_change(BOB, Kind::MemberRemoved, 2);
        case.deliver_change(ALICE, Kind::MemberRemoved, 2).left(BOB);
        if again {
            case.change("h2", Kind::MemberAdded, 3).deliver_change(ALICE, Kind::MemberAdded, 3);
            case.0.store.get_mut("team").unwrap().members.insert("bob".into());
        }
        case
    }

    /// The hand changes Bob's membership; the entry has this seq.
    fn change(&mut self, id: &str, kind: Kind, seq: i64) -> &mut Self {
        let (conversation, about): (Name, _) = ("team".into(), About::User("bob".into()));
        self.record(HAND, What::Invoke { conversation, id: id.into(), kind, about: about.clone() });
        self.stored_as(seq, kind, about).record(HAND, What::Done { id: id.into() })
    }

    fn stored_as(&mut self, seq: i64, kind: Kind, about: About) -> &mut Self {
        let log = self.0.store.get_mut("team").unwrap();
        log.rows.insert(seq, Row { kind, sender: "alice".into(), id: format!("server-{seq}").into(), about, text: 0 });
        log.head = log.head.max(seq);
        self
    }

    fn deliver_change(&mut self, client: usize, kind: Kind, seq: i64) -> &mut Self {
        let about = About::User("bob".into());
        let entry = Delivered { seq, kind, sender: "alice".into(), id: None, about, text: 0 };
        self.record(client, What::Deliver { conversation: "team".into(), entry })
    }

    fn left(&mut self, client: usize) -> &mut Self {
        self.record(client, What::Left { conversation: "team".into() })
    }

    fn open(&mut self, client: usize, number: u32, dialect: Dialect) -> &mut Self {
        let asked = self.now();
        self.record_on(client, number, What::Open { node: 0, dialect, asked })
    }

    fn read(&mut self, user: &str, shown: &[i64]) -> &mut Self {
        let (asked, user, conversation) = (self.now(), user.into(), "team".into());
        let shown = shown.to_vec();
        self.record(HAND, What::Read { user, conversation, node: 0, asked, allowed: true, shown })
    }

    /// A case in which Alice's message 1 was deleted at seq 2.
    fn with_deletion() -> Self {
        let mut case = Self::with_message(1, "a1");
        case.0.users.push("alice".into());
        let (conversation, about): (Name, _) = ("team".into(), About::Message(1));
        case.record(ALICE, What::Invoke { conversation, id: "a2".into(), kind: Kind::Deleted, about: about.clone() });
        let log = case.0.store.get_mut("team").unwrap();
        let (kind, sender, id) = (Kind::Deleted, "alice".into(), "a2".into());
        log.rows.insert(2, Row { kind, sender, id, about: about.clone(), text: 0 });
        log.rows.get_mut(&1).unwrap().text = 0;
        log.head = 2;
        let entry = Delivered { seq: 2, kind, sender: "alice".into(), id: None, about, text: 0 };
        case.ok(2, "a2").record(BOB, What::Deliver { conversation: "team".into(), entry });
        case
    }
}

#[test]
fn a_removed_member_hears_nothing() {
    Case::with_removal(false).is_well();
    let mut heard = Case::with_removal(false);
    heard.invoke("a3").stored(3, "a3").ok(3, "a3");
    heard.0.history.retain(|record| !matches!(record.what, What::Left { .. }));
    heard.deliver(BOB, 3, "a3").breaks(&[Rule::RemovedIsOut]);
}

#[test]
fn a_removed_member_neither_reads_nor_joins_nor_writes() {
    Case::with_removal(false).read("alice", &[]).is_well();
    Case::with_removal(false).read("bob", &[]).breaks(&[Rule::RemovedIsOut]);
    Case::with_removal(true).read("bob", &[]).open(BOB, 2, Dialect::Native).resume(BOB, 2, Some(3), 3, false).is_well();
    let mut joined = Case::with_removal(false);
    joined.open(BOB, 2, Dialect::Personas).resume(BOB, 2, Some(2), 2, false).breaks(&[Rule::RemovedIsOut]);
    let mut wrote = Case::with_removal(false);
    wrote.invoke("a3").stored(3, "a3").ok(3, "a3");
    wrote.0.store.get_mut("team").unwrap().rows.get_mut(&3).unwrap().sender = "bob".into();
    wrote.0.users[ALICE] = "bob".into();
    let violations = check(&wrote.0);
    assert!(violations.iter().any(|violation| violation.rule == Rule::RemovedIsOut), "{violations:#?}");
}

#[test]
fn a_listening_ends_only_with_a_removal() {
    Case::with_message(1, "a1").left(BOB).breaks(&[Rule::DeliveredByOne]);
    // A removal that was undone before the join ends nothing.
    let mut across = Case::with_removal(true);
    across.open(BOB, 2, Dialect::Native).resume(BOB, 2, Some(0), 3, false);
    let What::Resume { from, .. } = &mut across.0.history.last_mut().unwrap().what else { panic!() };
    *from = 0;
    across.deliver(BOB, 1, "a1");
    across.0.history.last_mut().unwrap().session = Some(Session { client: BOB, number: 2 });
    across.breaks(&[Rule::DeliveredByOne]);
}

#[test]
fn members_listen() {
    let mut deaf = Case::with_message(1, "a1");
    deaf.0.store.get_mut("team").unwrap().members = ["alice".into(), "bob".into()].into();
    deaf.is_well();
    deaf.open(BOB, 2, Dialect::Native).breaks(&[Rule::MembersListen]);
    deaf.resume(BOB, 2, Some(1), 1, false).is_well();
}

#[test]
fn a_deleted_text_is_not_shown_to_who_asks_later() {
    Case::with_deletion().is_well();
    let resumed = |text| {
        let mut case = Case::with_deletion();
        case.open(BOB, 2, Dialect::Personas).resume(BOB, 2, Some(0), 2, false);
        let What::Resume { from, .. } = &mut case.0.history.last_mut().unwrap().what else { panic!() };
        *from = 0;
        case.deliver(BOB, 1, "a1");
        let last = case.0.history.last_mut().unwrap();
        last.session = Some(Session { client: BOB, number: 2 });
        let What::Deliver { entry, .. } = &mut last.what else { panic!() };
        entry.text = text;
        case
    };
    resumed(0).is_well();
    resumed(1).breaks(&[Rule::DeletedIsGone]);
    Case::with_deletion().read("bob", &[]).is_well();
    Case::with_deletion().read("bob", &[1]).breaks(&[Rule::DeletedIsGone]);
}

#[test]
fn dialects_without_frames_of_changes_lack_them() {
    let mut case = Case::with_deletion();
    case.open(BOB, 2, Dialect::Rooms).resume(BOB, 2, Some(0), 0, false).is_well();
    case.invoke("a3").stored(3, "a3").ok(3, "a3").deliver(BOB, 3, "a3").breaks(&[Rule::DeliveredByOne]);
}

#[test]
fn direct_sockets_together_get_every_message() {
    let direct = || {
        let mut case = Case::with_message(1, "a1");
        let log = case.0.store.get_mut("team").unwrap();
        (log.direct, log.members) = (true, ["alice".into(), "bob".into()].into());
        case.0.users.push("bob".into());
        case.open(HAND, 1, Dialect::Direct);
        case
    };
    direct().breaks(&[Rule::DeliveredByOne]);
    direct().deliver(HAND, 1, "a1").is_well();
    direct().deliver(HAND, 1, "a1").close(HAND).open(HAND, 2, Dialect::Direct).is_well();
}

#[test]
fn the_greeting_comes_first_and_the_head_is_not_behind() {
    let mut early = Case::with_message(1, "a1");
    early.record(BOB, What::Early { frame: "typing".into() }).breaks(&[Rule::GreetedFirst]);
    let mut behind = Case::with_message(1, "a1");
    behind.close(BOB).resume(BOB, 2, Some(1), 1, false).is_well();
    let What::Resume { head, .. } = &mut behind.0.history.last_mut().unwrap().what else { panic!() };
    *head = Some(0);
    behind.breaks(&[Rule::HeadIsNotBehind]);
}

#[test]
fn a_conversation_is_the_same_everywhere() {
    let views = |texts: &[(i64, u64)], whole| {
        let mut case = Case::with_deletion();
        let texts = texts.iter().copied().collect();
        case.0.views.push(View { place: "node 0".into(), conversation: "team".into(), whole, texts });
        case
    };
    views(&[(1, 0), (2, 0)], true).is_well();
    views(&[], false).is_well();
    views(&[(1, 1)], false).breaks(&[Rule::SameEverywhere]);
    views(&[(1, 0)], true).breaks(&[Rule::SameEverywhere]);
}

#[test]
fn what_a_socket_was_shown_of_others_is_true() {
    let shown = |present: &[&str], absent: &[&str], complete| {
        let set = |names: &[&str]| names.iter().map(|name| Name::from(*name)).collect();
        let (session, truth) = (Session { client: BOB, number: 1 }, set(&["alice"]));
        let mut case = Case::with_message(1, "a1");
        let (present, absent, place) = (set(present), set(absent), "team".into());
        case.0.shown.push(Shown { session, place, present, absent, complete, truth });
        case
    };
    shown(&["alice"], &["carol"], true).is_well();
    shown(&[], &[], false).is_well();
    shown(&[], &[], true).breaks(&[Rule::ShownIsTrue]);
    shown(&[], &["alice"], false).breaks(&[Rule::ShownIsTrue]);
    shown(&["alice", "carol"], &[], false).breaks(&[Rule::ShownIsTrue]);
}
