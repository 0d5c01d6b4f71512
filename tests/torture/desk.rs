//! A client's operations: what it makes up, what is under way, and what has to be tried again.

use std::collections::VecDeque;

use rand::{RngExt, rngs::StdRng, seq::IndexedRandom};
use serde_json::{Value, json};

use crate::history::{Kind, Name};

/// Messages remembered, to edit, delete or react to.
const REMEMBERED: usize = 20;

/// A conversation that a client takes part in.
#[derive(Debug, Clone)]
pub struct Conversation {
    pub id: Name,
    /// The other one, where it is a direct conversation.
    pub other: Option<Name>,
}

/// Something a client wants done, once.
#[derive(Debug, Clone)]
pub struct Operation {
    pub id: Name,
    pub conversation: Name,
    pub kind: Kind,
    /// The same at each try.
    pub frame: Value,
    /// An earlier try may have been stored: it must be tried until that is known.
    pub doubtful: bool,
}

/// A client's operations.
#[derive(Debug)]
pub struct Desk {
    user: Name,
    device: usize,
    made: u32,
    waiting: VecDeque<Operation>,
    under_way: Vec<Operation>,
    own: VecDeque<(Name, i64)>,
    others: VecDeque<(Name, i64)>,
}

impl Desk {
    /// An empty one; `device` tells a user's clients apart.
    pub fn new(user: Name, device: usize) -> Self {
        let (waiting, under_way, own, others) = Default::default();
        Self { user, device, made: 0, waiting, under_way, own, others }
    }

    /// Operations without an outcome.
    pub fn unsettled(&self) -> usize {
        self.waiting.len() + self.under_way.len()
    }

    /// Operations that wait for an answer.
    pub fn under_way(&self) -> usize {
        self.under_way.len()
    }

    /// What has to be tried again, else something new.
    pub fn next(
        &mut self,
        dice: &mut StdRng,
        conversations: &[Conversation],
        anything_new: bool,
    ) -> Option<&Operation> {
        let operation = match self.waiting.pop_front() {
            Some(again) => again,
            None if anything_new => self.make_up(dice, conversations),
            None => return None,
        };
        self.under_way.push(operation);
        self.under_way.last()
    }

    fn make_up(&mut self, dice: &mut StdRng, conversations: &[Conversation]) -> Operation {
        self.made += 1;
        let id: Name = format!("{}-{}-{}", self.user, self.device, self.made).into();
        let conversation = conversations.choose(dice).expect("everybody is in a conversation");
        let (own, others) = (pick(&self.own, dice), pick(&self.others, dice));
        let text = format!("{id} {}", "x".repeat(dice.random_range(0..800)));
        let (kind, conversation, mut frame) = match (dice.random_range(0..100), own, others) {
            (0..8, Some((of, seq)), _) => {
                (Kind::Edited, of, json!({ "type": "edit", "seq": seq, "content": format!("new {text}") }))
            }
            (8..12, Some((of, seq)), _) => (Kind::Deleted, of, json!({ "type": "delete", "seq": seq })),
            (12..20, _, Some((of, seq))) => (
                Kind::Reaction,
                of,
                json!({ "type": "react", "seq": seq, "emoji": "👍", "active": dice.random::<bool>() }),
            ),
            _ => (Kind::Message, conversation.id.clone(), json!({ "type": "send", "content": text })),
        };
        match &conversation {
            _ if kind != Kind::Message => frame["conversation_id"] = json!(conversation),
            _ => address(&mut frame, conversations, &conversation, dice),
        }
        (frame["client_id"], frame["ref"]) = (json!(id), json!(id));
        Operation { id, conversation, kind, frame, doubtful: false }
    }

    /// It was acked. Its conversation.
    pub fn acked(&mut self, id: &str, seq: i64) -> Option<Operation> {
        let operation = self.take(id)?;
        if operation.kind == Kind::Message {
            remember(&mut self.own, &operation.conversation, seq);
        }
        Some(operation)
    }

    /// Somebody's message arrived.
    pub fn seen(&mut self, conversation: &Name, seq: i64) {
        remember(&mut self.others, conversation, seq);
    }

    /// This try was refused. Whether it is given up: always where another try can't end better, sometimes else.
    pub fn failed(&mut self, id: &str, may_pass: bool, dice: &mut StdRng) -> bool {
        let Some(operation) = self.take(id) else { return true };
        let last = !may_pass || (!operation.doubtful && dice.random());
        if !last {
            self.waiting.push_back(operation);
        }
        last
    }

    /// Nobody knows what became of this try: it has to be tried again.
    pub fn doubted(&mut self, id: &str) {
        if let Some(operation) = self.take(id) {
            self.waiting.push_back(Operation { doubtful: true, ..operation });
        }
    }

    /// The connection is gone: nobody knows what became of anything under way.
    pub fn lost(&mut self) -> Vec<Name> {
        let lost = std::mem::take(&mut self.under_way);
        let ids = lost.iter().map(|operation| operation.id.clone()).collect();
        self.waiting.extend(lost.into_iter().map(|operation| Operation { doubtful: true, ..operation }));
        ids
    }

    fn take(&mut self, id: &str) -> Option<Operation> {
        let at = self.under_way.iter().position(|operation| &*operation.id == id)?;
        Some(self.under_way.remove(at))
    }
}

/// A direct conversation can be named by the other one, too.
fn address(frame: &mut Value, conversations: &[Conversation], to: &Name, dice: &mut StdRng) {
    let other = conversations.iter().find(|one| one.id == *to).and_then(|one| one.other.as_ref());
    match other {
        Some(other) if dice.random() => frame["recipient_id"] = json!(other),
        _ => frame["conversation_id"] = json!(to),
    }
}

fn remember(places: &mut VecDeque<(Name, i64)>, conversation: &Name, seq: i64) {
    places.push_back((conversation.clone(), seq));
    if places.len() > REMEMBERED {
        places.pop_front();
    }
}

fn pick(places: &VecDeque<(Name, i64)>, dice: &mut StdRng) -> Option<(Name, i64)> {
    (!places.is_empty()).then(|| places[dice.random_range(0..places.len())].clone())
}
