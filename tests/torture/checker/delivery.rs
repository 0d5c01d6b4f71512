//! The rules of delivery to sockets.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    time::Duration,
};

use super::{index::Index, violation};
use crate::{
    evidence::{Evidence, Row, Rule, Violation},
    history::{Delivered, Dialect, Kind, Name, Session, What},
};

/// Position of a session in a conversation to which it listens.
#[derive(Debug, Clone, Copy)]
struct Position {
    last: i64,
    line: usize,
    /// The last entry that the session must get; none if that is the head.
    end: Option<i64>,
}

/// A connection gets a log's entries strictly +1 from the seq where it resumed; its own may come as acks, in their place.
/// They equal the store's entries, and a connection that is open at the end has all of them.
pub(super) fn delivered_by_one(index: &Index<'_>) -> Vec<Violation> {
    let evidence = index.evidence;
    let mut positions = BTreeMap::<(Session, &Name), Position>::new();
    let mut found = Vec::new();
    let mut acked = HashSet::<(Session, &Name, i64)>::new();
    let skipped = |acked: &HashSet<_>, session, conversation, from: i64, to: i64| -> Vec<i64> {
        let has_ack = |seq| acked.contains(&(session, conversation, seq));
        (from + 1..to).filter(|seq| !has_ack(*seq) && !index.may_lack(session, conversation, *seq)).collect()
    };
    // A promoted standby begins an epoch: clients that name a seq from before read anew.
    let mut promoted = false;
    for (line, record) in evidence.history.iter().enumerate() {
        promoted |= matches!(&record.what, What::Fault { fault, .. } if fault == "StoreFailedOver");
        let Some(session) = record.session else { continue };
        match &record.what {
            What::Resume { conversation, since, from, resync, head, .. } => {
                if !(promoted && *resync) {
                    found.extend(resumes_rightly(evidence, conversation, *since, *from, *resync, line));
                }
                let end = index.removal_after(session, conversation, head.unwrap_or(i64::MAX));
                positions.insert((session, conversation), Position { last: *from, line, end });
            }
            What::Deliver { conversation, entry } => {
                // The direct dialect joins by itself, from a seq that only the server knows.
                let first = (index.dialect(session) == Dialect::Direct).then_some(Position {
                    last: entry.seq - 1,
                    line,
                    end: None,
                });
                let Some(before) = positions.get(&(session, conversation)).copied().or(first) else {
                    let what = format!("{conversation} {}: delivered to a session that does not listen", entry.seq);
                    found.push(violation(Rule::DeliveredByOne, what, [line]));
                    continue;
                };
                positions.insert((session, conversation), Position { last: entry.seq, line, ..before });
                let lacking = skipped(&acked, session, conversation, before.last, entry.seq);
                if entry.seq <= before.last || !lacking.is_empty() {
                    let what = format!("{conversation}: {} after {}; lacks {lacking:?}", entry.seq, before.last);
                    found.push(violation(Rule::DeliveredByOne, what, [before.line, line]));
                }
                found.extend(differs(evidence, conversation, entry, line));
            }
            // The highest seq that a client has seen is its cursor, so no ack may overtake an entry.
            What::Ok { conversation, seq, .. } => {
                let Some(before) = positions.get(&(session, conversation)) else { continue };
                let lacking = skipped(&acked, session, conversation, before.last, *seq);
                if !lacking.is_empty() {
                    let what = format!("{conversation}: the ack of {seq} after {}; lacks {lacking:?}", before.last);
                    found.push(violation(Rule::DeliveredByOne, what, [before.line, line]));
                }
                // In its place, it stands for the copy, also of an entry that an earlier try had stored.
                acked.insert((session, conversation, *seq));
            }
            What::Left { conversation } => {
                // A removal during a replay ends it at once, before the entry of the removal.
                if let Some(before) = positions.remove(&(session, conversation))
                    && before.end.is_none()
                {
                    let what = format!("{conversation}: the listening ended without a removal, {before:?}");
                    found.push(violation(Rule::DeliveredByOne, what, [before.line, line]));
                }
            }
            What::Close { .. } => positions.retain(|(open, _), _| *open != session),
            _ => {}
        }
    }
    for ((session, conversation), Position { last, line, end }) in positions {
        let head = evidence.store.get(conversation).map_or(0, |log| log.head);
        let lacking = skipped(&acked, session, conversation, last, end.unwrap_or(head) + 1);
        if !lacking.is_empty() {
            let what = format!("{conversation}: {session:?} never got {lacking:?}");
            found.push(violation(Rule::DeliveredByOne, what, [line]));
        }
    }
    found.extend(directs_get_all(index));
    found
}

fn resumes_rightly(
    evidence: &Evidence,
    conversation: &Name,
    since: Option<i64>,
    from: i64,
    resync: bool,
    line: usize,
) -> Option<Violation> {
    let what = match since {
        Some(since) if !resync && since != from => {
            format!("{conversation}: asked for entries after {since}, got those after {from}")
        }
        Some(since) if resync && can_resume(evidence, conversation, since) => {
            format!("{conversation}: got a resync although it could resume after {since}")
        }
        _ => return None,
    };
    Some(violation(Rule::DeliveredByOne, what, [line]))
}

/// True if the store has the entries after `since` and a resume may bring that many.
fn can_resume(evidence: &Evidence, conversation: &Name, since: i64) -> bool {
    /// Default of RESUME_MAX.
    const RESUME_MAX: i64 = 10_000;
    let head = evidence.store.get(conversation).map_or(0, |log| log.head);
    (0..=RESUME_MAX).contains(&(head - since))
}

fn differs(evidence: &Evidence, conversation: &Name, entry: &Delivered, line: usize) -> Option<Violation> {
    let row = evidence.store.get(conversation).and_then(|log| log.rows.get(&entry.seq));
    let same = |row: &Row| {
        let id = entry.id.as_ref().is_none_or(|id| *id == row.id);
        id && row.kind == entry.kind && row.sender == entry.sender && row.about == entry.about
    };
    let what = || format!("{conversation} {}: {entry:?} was delivered, the store has {row:?}", entry.seq);
    (!row.is_some_and(same)).then(|| violation(Rule::DeliveredByOne, what(), [line]))
}

/// The sockets of the direct dialect that a user had one after the other got every message of the user's direct
/// conversations, except those that they sent.
fn directs_get_all(index: &Index<'_>) -> Vec<Violation> {
    let evidence = index.evidence;
    let (mut got, mut open) = (BTreeMap::<&Name, BTreeSet<(&Name, i64)>>::new(), BTreeMap::<&Name, Session>::new());
    let mut sessions = BTreeMap::<&Name, Vec<Session>>::new();
    for record in &evidence.history {
        let Some(session) = record.session.filter(|session| index.dialect(*session) == Dialect::Direct) else {
            continue;
        };
        let user = index.user(session);
        match &record.what {
            What::Open { .. } => {
                open.insert(user, session);
                sessions.entry(user).or_default().push(session);
            }
            What::Close { .. } if open.get(user) == Some(&session) => drop(open.remove(user)),
            What::Deliver { conversation, entry } => {
                got.entry(user).or_default().insert((conversation, entry.seq));
            }
            _ => {}
        }
    }
    let mut found = Vec::new();
    // A user whose last socket is closed may get the rest on the next one.
    for (user, session) in open {
        let own = |row: &Row| sessions[user].iter().any(|session| index.sent(*session, &row.id));
        for (conversation, log) in evidence.store.iter().filter(|(_, log)| log.direct && log.members.contains(user)) {
            let due = log.rows.iter().filter(|(seq, row)| {
                row.kind == Kind::Message && !index.deleted.contains_key(&(conversation, **seq)) && !own(row)
            });
            let has = |seq: i64| got.get(user).is_some_and(|got| got.contains(&(conversation, seq)));
            let lacking: Vec<i64> = due.map(|(seq, _)| *seq).filter(|seq| !has(*seq)).collect();
            if !lacking.is_empty() {
                let what = format!("{conversation}: no direct socket of {user} got {lacking:?}, {session:?} is open");
                found.push(violation(Rule::DeliveredByOne, what, []));
            }
        }
    }
    found
}

/// Time during which a session listened to a conversation, and the arrival time of each entry.
#[derive(Debug)]
struct Listening {
    from: i64,
    end: Option<i64>,
    begun: Duration,
    ended: Option<Duration>,
    got: HashMap<i64, Duration>,
}

/// Time that a listening session waited for an entry after its ack (`ack` is a line of the history). It is a lower
/// bound if the session ended or stopped reading without the entry.
#[derive(Debug)]
struct Wait<'a> {
    ack: usize,
    session: Session,
    conversation: &'a Name,
    seq: i64,
    lasted: Duration,
}

fn waits<'a>(index: &Index<'a>) -> Vec<Wait<'a>> {
    let evidence = index.evidence;
    let (mut listening, mut acks) = (BTreeMap::<&Name, BTreeMap<Session, Listening>>::new(), Vec::new());
    for (line, record) in evidence.history.iter().enumerate() {
        let (Some(session), at) = (record.session, record.at) else { continue };
        match &record.what {
            What::Resume { conversation, from, head, .. } => {
                let end = index.removal_after(session, conversation, head.unwrap_or(i64::MAX));
                let anew = Listening { from: *from, end, begun: at, ended: None, got: HashMap::new() };
                listening.entry(conversation).or_default().insert(session, anew);
            }
            What::Deliver { conversation, entry } => {
                if let Some(one) = listening.get_mut(conversation).and_then(|all| all.get_mut(&session)) {
                    one.got.entry(entry.seq).or_insert(at);
                }
            }
            What::Close { .. } | What::Stall { begins: true } => {
                for one in listening.values_mut().filter_map(|all| all.get_mut(&session)) {
                    one.ended.get_or_insert(at);
                }
            }
            What::Ok { conversation, seq, duplicate: false, .. } => acks.push((line, at, conversation, *seq)),
            _ => {}
        }
    }
    let end = evidence.history.last().map_or(Duration::ZERO, |record| record.at);
    let mut waits = Vec::new();
    for (ack, at, conversation, seq) in acks {
        for (session, one) in listening.get(conversation).into_iter().flatten() {
            let until = one.got.get(&seq).copied().unwrap_or(end).min(one.ended.unwrap_or(end));
            let due = one.begun < at && one.from < seq && one.end.is_none_or(|end| seq <= end);
            if due && !index.may_lack(*session, conversation, seq) {
                let lasted = until.saturating_sub(at);
                waits.push(Wait { ack, session: *session, conversation, seq, lasted });
            }
        }
    }
    waits
}

/// The longest time that a listening session waited for an entry.
pub fn longest_wait(evidence: &Evidence) -> Duration {
    waits(&Index::of(evidence)).iter().map(|wait| wait.lasted).max().unwrap_or_default()
}

/// Every listening session gets an entry soon after its ack.
pub(super) fn delivered_in_time(index: &Index<'_>) -> Vec<Violation> {
    let waits = waits(index).into_iter().filter(|wait| wait.lasted > index.evidence.delivered_within);
    let violation = |Wait { ack, session, conversation, seq, lasted }: Wait<'_>| {
        let what = format!("{conversation} {seq}: {session:?} waited for it for {lasted:?}");
        violation(Rule::DeliveredInTime, what, [ack])
    };
    waits.map(violation).collect()
}

/// No frame comes before the greeting.
pub(super) fn greeted_first(index: &Index<'_>) -> Vec<Violation> {
    let lines = index.evidence.history.iter().enumerate();
    let early = lines.filter_map(|(line, record)| match &record.what {
        What::Early { frame } => Some(violation(Rule::GreetedFirst, format!("{frame} came first"), [line])),
        _ => None,
    });
    early.collect()
}

/// The answer to a join does not contradict the seq that the client named.
pub(super) fn head_is_not_behind(index: &Index<'_>) -> Vec<Violation> {
    let lines = index.evidence.history.iter().enumerate();
    let behind = lines.filter_map(|(line, record)| match &record.what {
        What::Resume { conversation, since: Some(since), head: Some(head), resync: false, .. } if head < since => {
            let what = format!("{conversation}: the node says that the head is {head}, the client has {since}");
            Some(violation(Rule::HeadIsNotBehind, what, [line]))
        }
        _ => None,
    });
    behind.collect()
}
