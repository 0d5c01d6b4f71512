//! The rules of what is shown: deleted texts, conversations that are read anew, and the presence of users.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{index::Index, violation};
use crate::{
    evidence::{Rule, Shown, Violation},
    history::{About, Delivered, Dialect, Kind, Name, Record, Session, What},
};

/// A text is not shown to anybody who asks after its deletion was acked: to a socket that joins, or over REST. A socket
/// that listened before may get it, followed by the deletion.
pub(super) fn deleted_is_gone(index: &Index<'_>) -> Vec<Violation> {
    let mut joined = BTreeMap::<(Session, &Name), Duration>::new();
    let mut opened = BTreeMap::<Session, Duration>::new();
    let gone = |conversation: &Name, seq: i64, asked: Duration| {
        index.deleted.get(&(conversation, seq)).copied().flatten().filter(|acked| *acked < asked)
    };
    let mut found = Vec::new();
    for (line, record) in index.evidence.history.iter().enumerate() {
        let Some(session) = record.session else { continue };
        match &record.what {
            What::Open { asked, .. } => drop(opened.insert(session, *asked)),
            What::Resume { conversation, asked, .. } => drop(joined.insert((session, conversation), *asked)),
            What::Deliver { conversation, entry } if entry.text != 0 => {
                let direct = index.dialect(session) == Dialect::Direct;
                let asked = joined.get(&(session, conversation)).or_else(|| opened.get(&session).filter(|_| direct));
                let seq = message_of(entry);
                if let Some(acked) = asked.and_then(|asked| gone(conversation, seq, *asked)) {
                    let what = format!("{conversation} {seq} was deleted at {acked:?}, and shown to who asked later");
                    found.push(violation(Rule::DeletedIsGone, what, [line]));
                }
            }
            What::Read { conversation, asked, shown, user, .. } => {
                for seq in shown {
                    if let Some(acked) = gone(conversation, *seq, *asked) {
                        let what = format!("{conversation} {seq} was deleted at {acked:?}; {user} read it later");
                        found.push(violation(Rule::DeletedIsGone, what, [line]));
                    }
                }
            }
            _ => {}
        }
    }
    found
}

/// The message whose text an entry shows.
fn message_of(entry: &Delivered) -> i64 {
    match (&entry.kind, &entry.about) {
        (Kind::Edited, About::Message(seq)) => *seq,
        _ => entry.seq,
    }
}

/// Whoever reads a conversation from its first entry, on any node and in any way, sees what the store has.
pub(super) fn same_everywhere(index: &Index<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    for view in &index.evidence.views {
        let Some(log) = index.evidence.store.get(&view.conversation) else { continue };
        let visible = log.rows.iter().filter(|(_, row)| view.whole || row.kind == Kind::Message && row.text != 0);
        let stored: BTreeMap<i64, u64> = visible.map(|(seq, row)| (*seq, row.text)).collect();
        if stored != view.texts {
            let lacks: Vec<_> = stored.keys().filter(|seq| !view.texts.contains_key(seq)).take(5).collect();
            let differs = view.texts.iter().filter(|(seq, text)| stored.get(seq) != Some(text)).take(5);
            let differs: Vec<_> = differs.map(|(seq, _)| (seq, log.rows.get(seq))).collect();
            let what = format!("{}: {} lacks {lacks:?}, differs in {differs:?}", view.place, view.conversation);
            found.push(violation(Rule::SameEverywhere, what, []));
        }
    }
    found
}

/// True if a socket was last shown the truth about everybody of whom it was shown anything.
pub fn shown_is_true(shown: &Shown) -> bool {
    let (ghosts, missing) = differences(shown);
    ghosts.is_empty() && missing.is_empty()
}

fn differences(shown: &Shown) -> (BTreeSet<&Name>, BTreeSet<&Name>) {
    let Shown { present, absent, complete, truth, .. } = shown;
    let missing = |user: &&Name| absent.contains(*user) || *complete && !present.contains(*user);
    (present.difference(truth).collect(), truth.iter().filter(missing).collect())
}

/// At the end, each socket was last shown the true presence of other users.
pub(super) fn shown_is_true_at_the_end(index: &Index<'_>) -> Vec<Violation> {
    let wrong = index.evidence.shown.iter().filter(|shown| !shown_is_true(shown));
    let violation = |shown: &Shown| {
        let (ghosts, missing) = differences(shown);
        let dialect = index.dialect(shown.session);
        let what =
            format!("{:?} {dialect:?} in {}: ghosts {ghosts:?}, missing {missing:?}", shown.session, shown.place);
        let wrong: BTreeSet<_> = ghosts.into_iter().chain(missing).collect();
        let is_about = |(_, Record { session, what, .. }): &(usize, &Record)| matches!(what, What::Shown { user, .. } if *session == Some(shown.session) && wrong.contains(user));
        // The last words about them.
        let said = index.evidence.history.iter().enumerate().rev().filter(is_about);
        violation(Rule::ShownIsTrue, what, said.take(wrong.len()).map(|(line, _)| line))
    };
    wrong.map(violation).collect()
}
