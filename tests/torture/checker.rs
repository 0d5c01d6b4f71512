//! The rules: one function for each, from the evidence to its violations.
//!
//! The functions only read; `checker_tests` shows each rule kept and broken.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use crate::{
    evidence::{Evidence, Figure, Log, Presence, Row, Rule, Violation},
    history::{Delivered, Name, Record, Session, What},
};

/// Returns all violations of all rules.
pub fn check(evidence: &Evidence) -> Vec<Violation> {
    let rules = [
        acked_is_stored,
        refused_never_was,
        seqs_have_no_gap,
        stored_once,
        delivered_by_one,
        delivered_in_time,
        acks_in_order,
        settled,
        presence_is_true,
        nothing_leaks,
        everything_comes_back,
    ];
    rules.into_iter().flat_map(|rule| rule(evidence)).collect()
}

fn violation(rule: Rule, what: String, lines: impl IntoIterator<Item = usize>) -> Violation {
    Violation { rule, what, lines: lines.into_iter().collect() }
}

/// An ack names the log and seq under which the store has the entry.
fn acked_is_stored(evidence: &Evidence) -> Vec<Violation> {
    let mut found = Vec::new();
    for (line, record) in evidence.history.iter().enumerate() {
        let (Some(session), What::Ok { conversation, id, seq, .. }) = (record.session, &record.what) else { continue };
        let row = evidence.store.get(conversation).and_then(|log| log.rows.get(seq));
        if row.is_none_or(|row| row.id != *id || row.sender != evidence.users[session.client]) {
            let what = format!("{id} was acked as {conversation} {seq}, where the store has {row:?}");
            found.push(violation(Rule::AckedIsStored, what, [line]));
        }
    }
    found
}

/// Outcome of an operation over all its tries.
#[derive(Debug, Default)]
struct Operation {
    invoked: Vec<usize>,
    failed: Vec<usize>,
    unknown: usize,
    given_up: bool,
    acked: bool,
}

impl Operation {
    /// True if the client got a refusal, i.e. "not stored", for every try.
    fn refused(&self) -> bool {
        !self.acked && self.failed.len() == self.invoked.len()
    }
}

fn operations(evidence: &Evidence) -> BTreeMap<&Name, Operation> {
    let mut operations = BTreeMap::<&Name, Operation>::new();
    for (line, record) in evidence.history.iter().enumerate() {
        match &record.what {
            What::Invoke { id, .. } => operations.entry(id).or_default().invoked.push(line),
            What::Ok { id, .. } => operations.entry(id).or_default().acked = true,
            What::Unknown { id } => operations.entry(id).or_default().unknown += 1,
            What::Fail { id, last, .. } => {
                let operation = operations.entry(id).or_default();
                operation.failed.push(line);
                operation.given_up |= last;
            }
            _ => {}
        }
    }
    operations
}

/// A refused operation is neither in the store nor delivered.
fn refused_never_was(evidence: &Evidence) -> Vec<Violation> {
    let operations = operations(evidence);
    let mut found = Vec::new();
    for (conversation, log) in &evidence.store {
        for (seq, row) in &log.rows {
            if let Some(operation) = operations.get(&row.id).filter(|operation| operation.refused()) {
                let what = format!("{} was refused, and the store has it as {conversation} {seq}", row.id);
                found.push(violation(Rule::RefusedNeverWas, what, operation.failed.clone()));
            }
        }
    }
    for (line, record) in evidence.history.iter().enumerate() {
        let What::Deliver { conversation, entry: Delivered { seq, id: Some(id), .. } } = &record.what else { continue };
        // Count only tries and refusals before this delivery: a later try may be accepted.
        let refused = |operation: &&Operation| {
            let tries = operation.invoked.iter().filter(|at| **at < line).count();
            tries == operation.failed.iter().filter(|at| **at < line).count() || operation.refused()
        };
        if let Some(operation) = operations.get(id).filter(|operation| operation.unknown == 0).filter(refused) {
            let what = format!("{id} was refused, and delivered as {conversation} {seq}");
            found.push(violation(Rule::RefusedNeverWas, what, operation.failed.iter().copied().chain([line])));
        }
    }
    found
}

/// The store numbers a log 1, 2, 3 … up to its head.
fn seqs_have_no_gap(evidence: &Evidence) -> Vec<Violation> {
    let gapless = |log: &Log| log.rows.keys().copied().eq(1..=log.head);
    let broken = evidence.store.iter().filter(|(_, log)| !gapless(log));
    let violation = |(conversation, log): (&Name, &Log)| {
        let lacking: Vec<_> = (1..=log.head).filter(|seq| !log.rows.contains_key(seq)).take(5).collect();
        let what = format!("{conversation} has head {}, {} entries, and lacks {lacking:?}", log.head, log.rows.len());
        violation(Rule::SeqsHaveNoGap, what, [])
    };
    broken.map(violation).collect()
}

/// The store has an operation once, and only operations that a client sent.
fn stored_once(evidence: &Evidence) -> Vec<Violation> {
    let operations = operations(evidence);
    let mut places = HashMap::<&Name, (&Name, i64)>::new();
    let mut found = Vec::new();
    for (conversation, log) in &evidence.store {
        for (seq, row) in &log.rows {
            let Some(operation) = operations.get(&row.id) else {
                let what = format!("no client sent {} of {}, stored as {conversation} {seq}", row.id, row.sender);
                found.push(violation(Rule::StoredOnce, what, []));
                continue;
            };
            if let Some((other, at)) = places.insert(&row.id, (conversation, *seq)) {
                let what = format!("{} is stored twice: {other} {at} and {conversation} {seq}", row.id);
                found.push(violation(Rule::StoredOnce, what, operation.invoked.clone()));
            }
        }
    }
    found
}

/// Operations that a session sent, by id. True if an earlier try had stored it; otherwise the session gets only an ack
/// and no copy.
type SentOperations<'a> = HashMap<(Session, &'a Name), bool>;

fn sent_operations(history: &[Record]) -> SentOperations<'_> {
    let mut sent_operations = SentOperations::new();
    for record in history {
        let Some(session) = record.session else { continue };
        match &record.what {
            What::Invoke { id, .. } => drop(sent_operations.insert((session, id), false)),
            What::Ok { id, duplicate, .. } => drop(sent_operations.insert((session, id), *duplicate)),
            _ => {}
        }
    }
    sent_operations
}

/// True if a session needs no copy of an entry because that session sent it.
fn may_lack(
    evidence: &Evidence,
    sent_operations: &SentOperations<'_>,
    session: Session,
    conversation: &Name,
    seq: i64,
) -> bool {
    let row = evidence.store.get(conversation).and_then(|log| log.rows.get(&seq));
    row.is_some_and(|row| sent_operations.get(&(session, &row.id)) == Some(&false))
}

/// A connection gets a log's entries strictly +1 from the seq where it resumed, except its own. They equal the store's
/// entries, and a connection that is open at the end has all of them.
fn delivered_by_one(evidence: &Evidence) -> Vec<Violation> {
    let sent_operations = sent_operations(&evidence.history);
    let mut last = BTreeMap::<(Session, &Name), (i64, usize)>::new();
    let mut found = Vec::new();
    let skipped = |session, conversation: &Name, from: i64, to: i64| -> Vec<i64> {
        (from + 1..to).filter(|seq| !may_lack(evidence, &sent_operations, session, conversation, *seq)).collect()
    };
    for (line, record) in evidence.history.iter().enumerate() {
        let Some(session) = record.session else { continue };
        match &record.what {
            What::Resume { conversation, since, from, resync } => {
                if !resync && since.is_some_and(|since| since != *from) {
                    let what = format!("{conversation}: asked for entries after {since:?}, got those after {from}");
                    found.push(violation(Rule::DeliveredByOne, what, [line]));
                }
                if *resync && since.is_some_and(|since| can_resume(evidence, conversation, since)) {
                    let what = format!("{conversation}: got a resync although it could resume after {since:?}");
                    found.push(violation(Rule::DeliveredByOne, what, [line]));
                }
                last.insert((session, conversation), (*from, line));
            }
            What::Deliver { conversation, entry } => {
                let Some((before, line_before)) = last.insert((session, conversation), (entry.seq, line)) else {
                    let what = format!("{conversation} {}: delivered to a session that does not listen", entry.seq);
                    found.push(violation(Rule::DeliveredByOne, what, [line]));
                    continue;
                };
                let lacking = skipped(session, conversation, before, entry.seq);
                if entry.seq <= before || !lacking.is_empty() {
                    let what = format!("{conversation}: {} after {before}; lacks {lacking:?}", entry.seq);
                    found.push(violation(Rule::DeliveredByOne, what, [line_before, line]));
                }
                found.extend(differs(evidence, conversation, entry, line));
            }
            What::Close { .. } => last.retain(|(open, _), _| *open != session),
            _ => {}
        }
    }
    for ((session, conversation), (before, line)) in last {
        let head = evidence.store.get(conversation).map_or(0, |log| log.head);
        let lacking = skipped(session, conversation, before, head + 1);
        if !lacking.is_empty() {
            let what = format!("{conversation}: {session:?} never got {lacking:?}");
            found.push(violation(Rule::DeliveredByOne, what, [line]));
        }
    }
    found
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
        row.kind == entry.kind && row.sender == entry.sender && entry.id.as_ref().is_none_or(|id| *id == row.id)
    };
    let what = || format!("{conversation} {}: {entry:?} was delivered, the store has {row:?}", entry.seq);
    (!row.is_some_and(same)).then(|| violation(Rule::DeliveredByOne, what(), [line]))
}

/// Time during which a session listened to a conversation, and the arrival time of each entry.
#[derive(Debug)]
struct Listening {
    from: i64,
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

fn waits(evidence: &Evidence) -> Vec<Wait<'_>> {
    let (sent_operations, mut listening, mut acks) = (sent_operations(&evidence.history), BTreeMap::new(), Vec::new());
    for (line, record) in evidence.history.iter().enumerate() {
        let (Some(session), at) = (record.session, record.at) else { continue };
        match &record.what {
            What::Resume { conversation, from, .. } => {
                let anew = Listening { from: *from, begun: at, ended: None, got: HashMap::new() };
                listening.insert((session, conversation), anew);
            }
            What::Deliver { conversation, entry } => {
                if let Some(one) = listening.get_mut(&(session, conversation)) {
                    one.got.entry(entry.seq).or_insert(at);
                }
            }
            What::Close { .. } | What::Stall { begins: true } => {
                for (_, one) in listening.iter_mut().filter(|((open, _), _)| *open == session) {
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
        for ((session, _), one) in listening.iter().filter(|((_, of), _)| *of == conversation) {
            let until = one.got.get(&seq).copied().unwrap_or(end).min(one.ended.unwrap_or(end));
            if one.begun < at && one.from < seq && !may_lack(evidence, &sent_operations, *session, conversation, seq) {
                let lasted = until.saturating_sub(at);
                waits.push(Wait { ack, session: *session, conversation, seq, lasted });
            }
        }
    }
    waits
}

/// The longest time that a listening session waited for an entry.
pub fn longest_wait(evidence: &Evidence) -> Duration {
    waits(evidence).iter().map(|wait| wait.lasted).max().unwrap_or_default()
}

/// Every listening session gets an entry soon after its ack.
fn delivered_in_time(evidence: &Evidence) -> Vec<Violation> {
    let waits = waits(evidence).into_iter().filter(|wait| wait.lasted > evidence.delivered_within);
    let violation = |Wait { ack, session, conversation, seq, lasted }: Wait<'_>| {
        let what = format!("{conversation} {seq}: {session:?} waited for it for {lasted:?}");
        violation(Rule::DeliveredInTime, what, [ack])
    };
    waits.map(violation).collect()
}

/// On one connection and in one conversation, acks and seqs follow the order of the sends.
fn acks_in_order(evidence: &Evidence) -> Vec<Violation> {
    let mut invoked = HashMap::new();
    let mut last = HashMap::<_, (usize, i64, usize)>::new();
    let mut found = Vec::new();
    for (line, record) in evidence.history.iter().enumerate() {
        let Some(session) = record.session else { continue };
        match &record.what {
            What::Invoke { id, .. } => drop(invoked.insert((session, id), line)),
            What::Ok { conversation, id, seq, duplicate: false } => {
                let sent = invoked.get(&(session, id)).copied().unwrap_or(usize::MAX);
                let before = last.insert((session, conversation), (sent, *seq, line));
                if let Some((sent_before, seq_before, acked_before)) = before
                    && (sent_before >= sent || seq_before >= *seq)
                {
                    let what = format!("{conversation}: {id} was acked as {seq} after {seq_before}");
                    found.push(violation(Rule::AcksInOrder, what, [sent_before, sent, acked_before, line]));
                }
            }
            _ => {}
        }
    }
    found
}

/// Every operation has an outcome: acked, or refused and given up.
fn settled(evidence: &Evidence) -> Vec<Violation> {
    let operations = operations(evidence);
    let open = operations.into_iter().filter(|(_, operation)| !operation.acked && !operation.given_up);
    open.map(|(id, operation)| violation(Rule::Settled, format!("{id} has no outcome"), operation.invoked)).collect()
}

/// The users shown online are those with a socket.
fn presence_is_true(evidence: &Evidence) -> Vec<Violation> {
    let wrong = evidence.presence.iter().filter(|presence| presence.reported != presence.live);
    let violation = |Presence { place, reported, live }: &Presence| {
        let ghosts: Vec<_> = reported.difference(live).collect();
        let missing: Vec<_> = live.difference(reported).collect();
        violation(Rule::PresenceIsTrue, format!("{place}: ghosts {ghosts:?}, missing {missing:?}"), [])
    };
    wrong.map(violation).collect()
}

/// Every resource that the run used is free again.
fn nothing_leaks(evidence: &Evidence) -> Vec<Violation> {
    let grown = evidence.figures.iter().filter(|figure| !figure.is_well());
    let violation = |Figure { name, before, after, slack }: &Figure| {
        let what = format!("{name}: {after} after, {before} before; at most {slack} more are allowed");
        violation(Rule::NothingLeaks, what, [])
    };
    grown.map(violation).collect()
}

/// A server or node that a fault ended works again, and a node that got SIGTERM exited with 0.
fn everything_comes_back(evidence: &Evidence) -> Vec<Violation> {
    evidence.lost.iter().map(|what| violation(Rule::EverythingComesBack, what.clone(), [])).collect()
}
