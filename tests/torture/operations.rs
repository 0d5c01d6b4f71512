//! A client's operations: new ones, those under way, and those to retry.

use std::collections::VecDeque;

use rand::{RngExt, rngs::StdRng, seq::IndexedRandom};
use serde_json::{Value, json};

use crate::history::{Kind, Name};

/// Number of messages remembered as targets of edits, deletions and reactions.
const REMEMBERED: usize = 20;

/// A conversation of a client.
#[derive(Debug, Clone)]
pub struct Conversation {
    pub id: Name,
    /// The other member of a direct conversation.
    pub other: Option<Name>,
}

/// An operation that a client wants done once.
#[derive(Debug, Clone)]
pub struct Operation {
    pub id: Name,
    pub conversation: Name,
    pub kind: Kind,
    /// Frame of the operation; the same at each try.
    pub frame: Value,
    /// True if an earlier try may have been stored; the client retries until it knows.
    pub outcome_unknown: bool,
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

    /// Returns an operation to retry, otherwise a new one.
    pub fn next(&mut self, rng: &mut StdRng, conversations: &[Conversation], anything_new: bool) -> Option<&Operation> {
        let operation = match self.waiting.pop_front() {
            Some(again) => again,
            None if anything_new => self.new_operation(rng, conversations),
            None => return None,
        };
        self.under_way.push(operation);
        self.under_way.last()
    }

    fn new_operation(&mut self, rng: &mut StdRng, conversations: &[Conversation]) -> Operation {
        self.made += 1;
        let id: Name = format!("{}-{}-{}", self.user, self.device, self.made).into();
        let conversation = conversations.choose(rng).expect("everybody is in a conversation");
        let (own, others) = (pick(&self.own, rng), pick(&self.others, rng));
        let text = format!("{id} {}", "x".repeat(rng.random_range(0..800)));
        let (kind, conversation, mut frame) = match (rng.random_range(0..100), own, others) {
            (0..8, Some((of, seq)), _) => {
                (Kind::Edited, of, json!({ "type": "edit", "seq": seq, "content": format!("new {text}") }))
            }
            (8..12, Some((of, seq)), _) => (Kind::Deleted, of, json!({ "type": "delete", "seq": seq })),
            (12..20, _, Some((of, seq))) => (
                Kind::Reaction,
                of,
                json!({ "type": "react", "seq": seq, "emoji": "👍", "active": rng.random::<bool>() }),
            ),
            _ => (Kind::Message, conversation.id.clone(), json!({ "type": "send", "content": text })),
        };
        match &conversation {
            _ if kind != Kind::Message => frame["conversation_id"] = json!(conversation),
            _ => address(&mut frame, conversations, &conversation, rng),
        }
        (frame["client_id"], frame["ref"]) = (json!(id), json!(id));
        Operation { id, conversation, kind, frame, outcome_unknown: false }
    }

    /// Records an ack and returns the operation.
    pub fn acked(&mut self, id: &str, seq: i64) -> Option<Operation> {
        let operation = self.take(id)?;
        if operation.kind == Kind::Message {
            remember(&mut self.own, &operation.conversation, seq);
        }
        Some(operation)
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

/// A direct conversation can also be named by its other member.
fn address(frame: &mut Value, conversations: &[Conversation], to: &Name, rng: &mut StdRng) {
    let other = conversations.iter().find(|one| one.id == *to).and_then(|one| one.other.as_ref());
    match other {
        Some(other) if rng.random() => frame["recipient_id"] = json!(other),
        _ => frame["conversation_id"] = json!(to),
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
