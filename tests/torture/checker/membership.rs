//! The rules of members who come and go.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    index::{Change, Index},
    violation,
};
use crate::{
    evidence::{Rule, Violation},
    history::{Dialect, Kind, Name, Session, What},
};

/// A removed member hears nothing after the removal, and neither reads, joins nor writes once it is acked.
///
/// A user who is added again may read everything, so what comes after that was asked for is no violation.
pub(super) fn removed_is_out(index: &Index<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    for (line, record) in index.evidence.history.iter().enumerate() {
        let Some(session) = record.session else { continue };
        let what = match &record.what {
            What::Deliver { conversation, entry } => {
                let user = index.user(session);
                outside_at(index, conversation, user, entry.seq, record.at).map(|change| {
                    format!("{conversation} {} was delivered to {user}: outside since {change}", entry.seq)
                })
            }
            What::Read { user, conversation, node, asked, allowed: true, .. } => {
                let change = outside_from_to(index, conversation, user, *asked, record.at);
                change.map(|change| format!("{user} read {conversation} on node {node}: outside since {change}"))
            }
            What::Resume { conversation, asked, head: Some(_), .. } => {
                let user = index.user(session);
                let change = outside_from_to(index, conversation, user, *asked, record.at);
                change.map(|change| format!("{user} joined {conversation}: outside since {change}"))
            }
            _ => None,
        };
        found.extend(what.map(|what| violation(Rule::RemovedIsOut, what, [line])));
    }
    found.extend(written_from_outside(index));
    found
}

/// The change that ended the membership that would have allowed an entry with this seq, if the user was not added again
/// by this time.
fn outside_at(index: &Index<'_>, conversation: &Name, user: &Name, seq: i64, at: Duration) -> Option<String> {
    let changes = index.changes.get(&(conversation, user))?;
    let before = changes.iter().rposition(|change| change.seq < seq)?;
    let added_again = changes.get(before + 1).is_some_and(|again| !again.removes && again.asked <= at);
    outside(&changes[before], added_again)
}

/// The change after whose ack the user was outside during the whole time.
fn outside_from_to(
    index: &Index<'_>,
    conversation: &Name,
    user: &Name,
    from: Duration,
    to: Duration,
) -> Option<String> {
    let changes = index.changes.get(&(conversation, user))?;
    let last = changes.iter().rposition(|change| change.acked.is_some_and(|acked| acked < from))?;
    let added_again = changes.get(last + 1).is_some_and(|again| again.asked <= to);
    outside(&changes[last], added_again)
}

fn outside(last: &Change, added_again: bool) -> Option<String> {
    (last.removes && !added_again).then(|| format!("{last:?}"))
}

/// The store takes nothing from a user after the entry that removed them.
fn written_from_outside(index: &Index<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    for (conversation, log) in &index.evidence.store {
        for (seq, row) in &log.rows {
            let own = matches!(row.kind, Kind::Message | Kind::Edited | Kind::Deleted | Kind::Reaction);
            let changes = index.changes.get(&(conversation, &row.sender)).filter(|_| own);
            let last = changes.and_then(|changes| changes.iter().rfind(|change| change.seq < *seq));
            if let Some(change) = last.filter(|change| change.removes) {
                let what = format!("{} wrote {conversation} {seq}: outside since {change:?}", row.sender);
                found.push(violation(Rule::RemovedIsOut, what, []));
            }
        }
    }
    found
}

/// At the end, a native socket listens to every conversation of its user: it joined by itself what the user was added
/// to, first contacts included.
pub(super) fn members_listen(index: &Index<'_>) -> Vec<Violation> {
    let mut open = BTreeMap::<Session, (usize, BTreeSet<&Name>)>::new();
    for (line, record) in index.evidence.history.iter().enumerate() {
        let Some(session) = record.session else { continue };
        match &record.what {
            What::Open { dialect: Dialect::Native, .. } => drop(open.insert(session, (line, BTreeSet::new()))),
            What::Close { .. } => drop(open.remove(&session)),
            What::Resume { conversation, .. } => {
                if let Some((_, listening)) = open.get_mut(&session) {
                    listening.insert(conversation);
                }
            }
            What::Left { conversation } => {
                if let Some((_, listening)) = open.get_mut(&session) {
                    listening.remove(conversation);
                }
            }
            _ => {}
        }
    }
    let mut found = Vec::new();
    for (session, (line, listening)) in open {
        let user = index.user(session);
        let own = index.evidence.store.iter().filter(|(_, log)| log.members.contains(user));
        let deaf: Vec<_> = own.map(|(id, _)| id).filter(|id| !listening.contains(id)).collect();
        if !deaf.is_empty() {
            let what = format!("{session:?} of {user} does not listen to {deaf:?}");
            found.push(violation(Rule::MembersListen, what, [line]));
        }
    }
    found
}
