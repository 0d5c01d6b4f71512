//! A client's operations: new ones, those under way, and those to retry.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use rand::{RngExt, rngs::StdRng, seq::IndexedRandom};

use crate::history::{About, Dialect, Kind, Name};

/// Number of messages remembered as targets of edits, deletions and reactions.
const REMEMBERED: usize = 20;

/// A conversation of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conversation {
    pub id: Name,
    /// The other member of a direct conversation.
    pub other: Option<Name>,
}

/// Destination of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum To {
    Conversation(Name),
    /// The direct conversation with a user, which may not exist yet.
    User(Name),
}

impl To {
    /// The destination in records.
    pub fn label(&self) -> Name {
        match self {
            Self::Conversation(id) => id.clone(),
            Self::User(user) => format!("to {user}").into(),
        }
    }
}

/// An operation that a client wants done once.
#[derive(Debug, Clone)]
pub struct Operation {
    pub id: Name,
    pub to: To,
    pub kind: Kind,
    pub about: About,
    /// The text; the same at each try.
    pub text: String,
    /// True if an earlier try may have been stored; the client retries until it knows.
    pub outcome_unknown: bool,
    /// Time of the last try.
    pub sent: Instant,
}

/// A client's operations.
#[derive(Debug)]
pub struct Operations {
    user: Name,
    device: usize,
    made: u32,
    waiting: VecDeque<Operation>,
    under_way: Vec<Operation>,
    own: VecDeque<(Name, i64)>,
    others: VecDeque<(Name, i64)>,
}

impl Operations {
    /// Makes an empty list; `device` tells the clients of one user apart.
    pub fn new(user: Name, device: usize) -> Self {
        let (waiting, under_way, own, others) = Default::default();
        Self { user, device, made: 0, waiting, under_way, own, others }
    }

    /// Number of operations without an outcome.
    pub fn unsettled(&self) -> usize {
        self.waiting.len() + self.under_way.len()
    }

    /// Number of operations that wait for an answer.
    pub fn under_way(&self) -> usize {
        self.under_way.len()
    }

    /// Returns an operation that waits for its next try.
    pub fn waiting(&mut self) -> Option<Operation> {
        self.waiting.pop_front()
    }

    /// Takes the operations that got no answer for this long, for example because the client no longer hears the
    /// broadcast that would ack them.
    pub fn overdue(&mut self, after: Duration) -> Vec<Operation> {
        let overdue = self.under_way.extract_if(.., |operation| operation.sent.elapsed() >= after);
        overdue.map(|operation| Operation { outcome_unknown: true, ..operation }).collect()
    }

    /// Puts back an operation that must be retried.
    pub fn again(&mut self, operation: Operation) {
        self.waiting.push_back(operation);
    }

    /// Adds an operation to those that wait for an answer.
    pub fn begin(&mut self, operation: Operation) {
        self.under_way.push(Operation { sent: Instant::now(), ..operation });
    }

    /// Makes a message to `to`.
    pub fn message(&mut self, rng: &mut StdRng, to: To) -> Operation {
        let id = self.next_id();
        let text = format!("{id} {}", "x".repeat(rng.random_range(0..800)));
        self.operation(id, to, Kind::Message, About::Nothing, text)
    }

    /// Makes a new operation that the dialect has in one of the conversations.
    pub fn random(&mut self, rng: &mut StdRng, dialect: Dialect, conversations: &[Conversation]) -> Option<Operation> {
        let conversation = conversations.choose(rng)?;
        let changes = dialect == Dialect::Native;
        let known = |places: &VecDeque<(Name, i64)>, rng: &mut StdRng| pick(places, rng).filter(|_| changes);
        let (own, others) = (known(&self.own, rng), known(&self.others, rng));
        let to = |of: Name| To::Conversation(of);
        let operation = match (rng.random_range(0..100), own, others) {
            (0..8, Some((of, seq)), _) => {
                let id = self.next_id();
                let text = format!("new {id} {}", "x".repeat(rng.random_range(0..800)));
                self.operation(id, to(of), Kind::Edited, About::Message(seq), text)
            }
            (8..14, Some((of, seq)), _) => self.change(to(of), Kind::Deleted, About::Message(seq), ""),
            (14..20, _, Some((of, seq))) => {
                let text = if rng.random() { "on" } else { "off" };
                self.change(to(of), Kind::Reaction, About::Message(seq), text)
            }
            _ => {
                let to = match (&conversation.other, dialect) {
                    (Some(other), Dialect::Direct) => To::User(other.clone()),
                    (Some(other), Dialect::Native) if rng.random() => To::User(other.clone()),
                    _ => To::Conversation(conversation.id.clone()),
                };
                self.message(rng, to)
            }
        };
        Some(operation)
    }

    /// Makes a change.
    pub fn change(&mut self, to: To, kind: Kind, about: About, text: &str) -> Operation {
        let id = self.next_id();
        self.operation(id, to, kind, about, text.into())
    }

    fn next_id(&mut self) -> Name {
        self.made += 1;
        format!("{}-{}-{}", self.user, self.device, self.made).into()
    }

    fn operation(&self, id: Name, to: To, kind: Kind, about: About, text: String) -> Operation {
        Operation { id, to, kind, about, text, outcome_unknown: false, sent: Instant::now() }
    }

    /// True if the operation waits for an answer.
    pub fn is_under_way(&self, id: &str) -> bool {
        self.under_way.iter().any(|operation| &*operation.id == id)
    }

    /// Records an ack and returns the operation.
    pub fn acked(&mut self, id: &str, conversation: &Name, seq: i64) -> Option<Operation> {
        let operation = self.take(id)?;
        if operation.kind == Kind::Message {
            remember(&mut self.own, conversation, seq);
        }
        Some(operation)
    }

    /// Records that an operation changed nothing. Returns false if it was not under way.
    pub fn unchanged(&mut self, id: &str) -> bool {
        self.take(id).is_some()
    }

    /// Records a message that arrived, as a possible target.
    pub fn seen(&mut self, conversation: &Name, seq: i64) {
        remember(&mut self.others, conversation, seq);
    }

    /// Records a refusal of this try. Returns true if the client gives the operation up: always if a retry can't
    /// succeed, otherwise sometimes.
    pub fn failed(&mut self, id: &str, may_pass: bool, rng: &mut StdRng) -> bool {
        let Some(operation) = self.take(id) else { return true };
        let last = !may_pass || (!operation.outcome_unknown && rng.random());
        if !last {
            self.waiting.push_back(operation);
        }
        last
    }

    /// Records that the outcome of this try is unknown; the operation must be retried.
    pub fn outcome_unknown(&mut self, id: &str) {
        if let Some(operation) = self.take(id) {
            self.waiting.push_back(Operation { outcome_unknown: true, ..operation });
        }
    }

    /// Records the end of the connection: the outcome of all operations under way is unknown. Returns their ids.
    pub fn lost(&mut self) -> Vec<Name> {
        let lost = std::mem::take(&mut self.under_way);
        let ids = lost.iter().map(|operation| operation.id.clone()).collect();
        self.waiting.extend(lost.into_iter().map(|operation| Operation { outcome_unknown: true, ..operation }));
        ids
    }

    fn take(&mut self, id: &str) -> Option<Operation> {
        let at = self.under_way.iter().position(|operation| &*operation.id == id)?;
        Some(self.under_way.remove(at))
    }
}

fn remember(places: &mut VecDeque<(Name, i64)>, conversation: &Name, seq: i64) {
    places.push_back((conversation.clone(), seq));
    if places.len() > REMEMBERED {
        places.pop_front();
    }
}

fn pick(places: &VecDeque<(Name, i64)>, rng: &mut StdRng) -> Option<(Name, i64)> {
    (!places.is_empty()).then(|| places[rng.random_range(0..places.len())].clone())
}
