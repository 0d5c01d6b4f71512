//! The evidence, prepared for the rules.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};

use crate::{
    evidence::Evidence,
    history::{About, Dialect, Kind, Name, Record, Session, What},
};

/// Outcome of an operation over all its tries.
#[derive(Debug, Default)]
pub(super) struct Operation {
    /// Lines of the tries.
    pub(super) invoked: Vec<usize>,
    pub(super) failed: Vec<usize>,
    pub(super) unknown: usize,
    pub(super) given_up: bool,
    pub(super) acked: bool,
    /// Time of the first ack.
    pub(super) acked_at: Option<Duration>,
}

impl Operation {
    /// True if the client got a refusal, i.e. "not stored", for every try.
    pub(super) fn refused(&self) -> bool {
        !self.acked && self.failed.len() == self.invoked.len()
    }

    fn ack(&mut self, at: Duration) {
        self.acked = true;
        self.acked_at.get_or_insert(at);
    }
}

/// A change of one member of one conversation. The hand that changes members does it in one operation after the other.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) removes: bool,
    /// Seq of the entry.
    pub(super) seq: i64,
    /// Time of the first try.
    pub(super) asked: Duration,
    /// Time of the ack.
    pub(super) acked: Option<Duration>,
}

/// The evidence with maps into it.
pub(super) struct Index<'a> {
    pub(super) evidence: &'a Evidence,
    pub(super) operations: BTreeMap<&'a Name, Operation>,
    /// Conversation, kind, sender and subject of all operations.
    pub(super) asked: HashSet<(&'a Name, Kind, &'a Name, &'a About)>,
    /// Messages that were deleted, with the time of the first ack of a deletion.
    pub(super) deleted: HashMap<(&'a Name, i64), Option<Duration>>,
    /// The changes of each member of a conversation, in order.
    pub(super) changes: HashMap<(&'a Name, &'a Name), Vec<Change>>,
    dialects: HashMap<Session, Dialect>,
    /// Operations that a session sent, by id. True if an earlier try had stored it; otherwise the session gets only an
    /// ack and no copy.
    sent: HashMap<(Session, &'a Name), bool>,
}

impl<'a> Index<'a> {
    pub(super) fn of(evidence: &'a Evidence) -> Self {
        let mut index = Self {
            evidence,
            operations: operations(&evidence.history),
            asked: HashSet::new(),
            deleted: HashMap::new(),
            changes: HashMap::new(),
            dialects: HashMap::new(),
            sent: HashMap::new(),
        };
        for record in &evidence.history {
            let Some(session) = record.session else { continue };
            match &record.what {
                What::Open { dialect, .. } => drop(index.dialects.insert(session, *dialect)),
                What::Invoke { id, conversation, kind, about } => {
                    index.sent.insert((session, id), false);
                    index.asked.insert((conversation, *kind, &evidence.users[session.client], about));
                }
                What::Ok { id, duplicate, .. } => drop(index.sent.insert((session, id), *duplicate)),
                _ => {}
            }
        }
        index.read_deletions();
        index.read_changes();
        index
    }

    /// The times of acked deletions, and the messages that the store has as deleted.
    fn read_deletions(&mut self) {
        for record in &self.evidence.history {
            let What::Invoke { id, conversation, kind: Kind::Deleted, about: About::Message(seq) } = &record.what
            else {
                continue;
            };
            let acked = self.operations.get(id).and_then(|operation| operation.acked_at);
            if let Some(acked) = acked {
                let known = self.deleted.entry((conversation, *seq)).or_default();
                *known = Some(known.map_or(acked, |known| known.min(acked)));
            }
        }
        for (conversation, log) in &self.evidence.store {
            for row in log.rows.values().filter(|row| row.kind == Kind::Deleted) {
                if let About::Message(seq) = row.about {
                    self.deleted.entry((conversation, seq)).or_default();
                }
            }
        }
    }

    /// Pairs the operations that change a member with the store's entries: both are in order.
    fn read_changes(&mut self) {
        let mut asked = HashMap::<(&Name, &Name), Vec<(&Name, bool, Duration)>>::new();
        for record in &self.evidence.history {
            let What::Invoke { id, conversation, kind, about: About::User(user) } = &record.what else { continue };
            let all = asked.entry((conversation, user)).or_default();
            if all.iter().all(|(known, ..)| *known != id) {
                all.push((id, *kind == Kind::MemberRemoved, record.at));
            }
        }
        for (conversation, log) in &self.evidence.store {
            for (seq, row) in &log.rows {
                let About::User(user) = &row.about else { continue };
                let removes = row.kind == Kind::MemberRemoved;
                let changes = self.changes.entry((conversation, user)).or_default();
                let operation = asked.get(&(conversation, user)).and_then(|all| all.get(changes.len()));
                let (asked, acked) = match operation {
                    Some((id, of, asked)) if *of == removes => (*asked, self.operations[id].acked_at),
                    // Nobody asked for it; other rules say so.
                    _ => (Duration::ZERO, None),
                };
                changes.push(Change { removes, seq: *seq, asked, acked });
            }
        }
    }

    pub(super) fn dialect(&self, session: Session) -> Dialect {
        self.dialects.get(&session).copied().unwrap_or(Dialect::Native)
    }

    pub(super) fn user(&self, session: Session) -> &'a Name {
        &self.evidence.users[session.client]
    }

    /// True if a session sent this operation, and no earlier try had stored it.
    pub(super) fn sent_first(&self, session: Session, id: &Name) -> bool {
        self.sent.get(&(session, id)) == Some(&false)
    }

    /// True if a session sent this operation.
    pub(super) fn sent(&self, session: Session, id: &Name) -> bool {
        self.sent.contains_key(&(session, id))
    }

    /// True if a session need not get a copy of an entry: it sent the entry, or its dialect has no frame for it.
    pub(super) fn may_lack(&self, session: Session, conversation: &Name, seq: i64) -> bool {
        let row = self.evidence.store.get(conversation).and_then(|log| log.rows.get(&seq));
        let dialect = self.dialect(session);
        row.is_some_and(|row| {
            let frameless = row.kind != Kind::Message || self.deleted.contains_key(&(conversation, seq));
            // The direct dialect does not say whether an earlier try had been stored.
            let own = match dialect {
                Dialect::Native => self.sent_first(session, &row.id),
                Dialect::Direct => self.sent(session, &row.id),
                Dialect::Rooms | Dialect::Conversation | Dialect::Personas => false,
            };
            own || frameless && !dialect.shows_changes()
        })
    }

    /// The entry that ends the listening of a session: the first removal of its user after the join was answered with
    /// `head`. A removal up to there was undone, because a join needs the membership.
    pub(super) fn removal_after(&self, session: Session, conversation: &Name, head: i64) -> Option<i64> {
        let changes = self.changes.get(&(conversation, self.user(session)))?;
        changes.iter().find(|change| change.removes && change.seq > head).map(|change| change.seq)
    }
}

fn operations(history: &[Record]) -> BTreeMap<&Name, Operation> {
    let mut operations = BTreeMap::<&Name, Operation>::new();
    for (line, record) in history.iter().enumerate() {
        match &record.what {
            What::Invoke { id, .. } => operations.entry(id).or_default().invoked.push(line),
            What::Ok { id, .. } | What::Done { id } => operations.entry(id).or_default().ack(record.at),
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
