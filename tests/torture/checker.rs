//! The rules: one function for each, from the evidence to its violations.
//!
//! The functions only read; `checker_tests` shows each rule kept and broken. `index` prepares the evidence; the other
//! files have the rules of one subject each.

use std::collections::HashMap;

use crate::{
    evidence::{Evidence, Figure, Log, Presence, Rule, Violation},
    history::{Delivered, Kind, Name, What},
};

mod delivery;
mod index;
mod membership;
mod sight;

pub use delivery::longest_wait;
pub use sight::shown_is_true;

use index::Index;

/// Returns all violations of all rules.
pub fn check(evidence: &Evidence) -> Vec<Violation> {
    let rules = [
        acked_is_stored,
        refused_never_was,
        seqs_have_no_gap,
        stored_once,
        delivery::delivered_by_one,
        delivery::delivered_in_time,
        acks_in_order,
        settled,
        delivery::greeted_first,
        delivery::head_is_not_behind,
        membership::removed_is_out,
        membership::members_listen,
        sight::deleted_is_gone,
        sight::same_everywhere,
        presence_is_true,
        sight::shown_is_true_at_the_end,
        nothing_leaks,
        everything_comes_back,
    ];
    let index = Index::of(evidence);
    rules.into_iter().flat_map(|rule| rule(&index)).collect()
}

fn violation(rule: Rule, what: String, lines: impl IntoIterator<Item = usize>) -> Violation {
    Violation { rule, what, lines: lines.into_iter().collect() }
}

/// An ack names the log and seq under which the store has the entry.
fn acked_is_stored(index: &Index<'_>) -> Vec<Violation> {
    let evidence = index.evidence;
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

/// A refused operation is neither in the store nor delivered.
fn refused_never_was(index: &Index<'_>) -> Vec<Violation> {
    let evidence = index.evidence;
    let operations = &index.operations;
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
        let refused = |operation: &&index::Operation| {
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
fn seqs_have_no_gap(index: &Index<'_>) -> Vec<Violation> {
    let evidence = index.evidence;
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
fn stored_once(index: &Index<'_>) -> Vec<Violation> {
    let evidence = index.evidence;
    let operations = &index.operations;
    let mut places = HashMap::<&Name, (&Name, i64)>::new();
    let mut found = Vec::new();
    for (conversation, log) in &evidence.store {
        for (seq, row) in &log.rows {
            let Some(operation) = operations.get(&row.id) else {
                // Requests over REST name no id for a deletion, a reaction and a change of members.
                let nameless =
                    matches!(row.kind, Kind::Deleted | Kind::Reaction | Kind::MemberAdded | Kind::MemberRemoved);
                if !(nameless && index.asked.contains(&(conversation, row.kind, &row.sender, &row.about))) {
                    let what = format!("no client sent {} of {}, stored as {conversation} {seq}", row.id, row.sender);
                    found.push(violation(Rule::StoredOnce, what, []));
                }
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

/// On one connection and in one conversation, acks and seqs follow the order of the sends.
fn acks_in_order(index: &Index<'_>) -> Vec<Violation> {
    let evidence = index.evidence;
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
fn settled(index: &Index<'_>) -> Vec<Violation> {
    let open = index.operations.iter().filter(|(_, operation)| !operation.acked && !operation.given_up);
    let violation = |(id, operation): (&&Name, &index::Operation)| {
        violation(Rule::Settled, format!("{id} has no outcome"), operation.invoked.clone())
    };
    open.map(violation).collect()
}

/// The users shown online are those with a socket.
fn presence_is_true(index: &Index<'_>) -> Vec<Violation> {
    let evidence = index.evidence;
    let wrong = evidence.presence.iter().filter(|presence| presence.reported != presence.live);
    let violation = |Presence { place, reported, live }: &Presence| {
        let ghosts: Vec<_> = reported.difference(live).collect();
        let missing: Vec<_> = live.difference(reported).collect();
        violation(Rule::PresenceIsTrue, format!("{place}: ghosts {ghosts:?}, missing {missing:?}"), [])
    };
    wrong.map(violation).collect()
}

/// Every resource that the run used is free again.
fn nothing_leaks(index: &Index<'_>) -> Vec<Violation> {
    let evidence = index.evidence;
    let grown = evidence.figures.iter().filter(|figure| !figure.is_well());
    let violation = |Figure { name, before, after, slack }: &Figure| {
        let what = format!("{name}: {after} after, {before} before; at most {slack} more are allowed");
        violation(Rule::NothingLeaks, what, [])
    };
    grown.map(violation).collect()
}

/// A server or node that a fault ended works again, and a node that got SIGTERM exited with 0.
fn everything_comes_back(index: &Index<'_>) -> Vec<Violation> {
    let evidence = index.evidence;
    evidence.lost.iter().map(|what| violation(Rule::EverythingComesBack, what.clone(), [])).collect()
}
