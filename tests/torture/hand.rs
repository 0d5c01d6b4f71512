//! A user who works over REST alone, on any node: sends, edits, deletes, reads, makes conversations, and adds and
//! removes the members of one group.

use std::time::Duration;

use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use reqwest::Method;
use serde_json::json;
use tokio::{sync::watch, time::sleep};

use crate::{
    history::{About, Kind, Name, Recorder, Session, What},
    operations::{Operation, Operations, To},
    orders::{Orders, Phase},
    rest::{Outcome, Rest},
};

/// Pause between two requests, in milliseconds.
const PACE: std::ops::Range<u64> = 60..350;
/// Pause before a try is repeated.
const AGAIN: Duration = Duration::from_millis(150);
/// Number of own messages remembered as targets of edits and deletions.
const REMEMBERED: usize = 30;

/// A group whose members one hand changes, and no other.
#[derive(Debug, Clone)]
pub struct Churned {
    /// The user of the hand.
    pub owner: Name,
    pub conversation: Name,
    /// The users who come and go, with their present membership.
    pub users: Vec<(Name, bool)>,
}

/// A user who works over REST.
pub struct Hand {
    user: Name,
    session: Session,
    rng: StdRng,
    rest: Rest,
    recorder: Recorder,
    phase: watch::Receiver<Phase>,
    conversations: Vec<Name>,
    churned: Option<Churned>,
    /// Users whom it can invite to new conversations.
    others: Vec<Name>,
    operations: Operations,
    own: Vec<(Name, i64)>,
    made: u32,
}

impl Hand {
    /// Makes a hand, client `number` of a user.
    pub fn new(
        (number, user): (usize, Name),
        (conversations, churned, others): (Vec<Name>, Option<Churned>, Vec<Name>),
        rest: Rest,
        seed: u64,
        recorder: Recorder,
        orders: &Orders,
    ) -> Self {
        Self {
            session: Session { client: number, number: 1 },
            rng: StdRng::seed_from_u64(seed.wrapping_mul(31).wrapping_add(number as u64)),
            rest,
            recorder,
            phase: orders.phase.subscribe(),
            conversations,
            churned,
            others,
            operations: Operations::new(user.clone(), number),
            own: Vec::new(),
            made: 0,
            user,
        }
    }

    /// Works until the phase is no longer busy. Returns the members of its group.
    pub async fn run(mut self) -> Option<Churned> {
        while *self.phase.borrow() == Phase::Busy {
            match self.rng.random_range(0..100) {
                0..30 => self.send().await,
                30..40 => self.change(Kind::Edited).await,
                40..52 => self.change(Kind::Deleted).await,
                52..68 => self.read().await,
                68..92 => self.churn().await,
                _ => self.create().await,
            }
            sleep(Duration::from_millis(self.rng.random_range(PACE))).await;
        }
        self.churned
    }

    fn node(&mut self) -> usize {
        self.rng.random_range(0..self.rest.nodes())
    }

    fn record(&self, what: What) {
        self.recorder.record(Some(self.session), what);
    }

    /// Does an operation, with as many tries on changing nodes as it takes. Returns conversation and seq of its entry,
    /// if the answer names them.
    async fn accomplish(&mut self, mut operation: Operation) -> Option<(Name, i64)> {
        loop {
            let (node, id) = (self.node(), operation.id.clone());
            let (conversation, about) = (operation.to.label(), operation.about.clone());
            self.record(What::Invoke { conversation, id: id.clone(), kind: operation.kind, about });
            match self.rest.operation(node, &self.user, &operation).await {
                Outcome::Done { body, again } => {
                    let entry = body["conversation_id"].as_str().map(Name::from).zip(body["seq"].as_i64());
                    let duplicate = again || operation.outcome_unknown;
                    self.record(match entry.clone() {
                        Some((conversation, seq)) => What::Ok { conversation, id, seq, duplicate },
                        None => What::Done { id },
                    });
                    return entry;
                }
                Outcome::Refused { code, retryable: false } => {
                    // A deletion that is repeated after an unknown outcome finds nothing to delete.
                    let done = operation.outcome_unknown && operation.kind == Kind::Deleted && code == "not_found";
                    self.record(if done { What::Done { id } } else { What::Fail { id, code, last: true } });
                    return None;
                }
                Outcome::Refused { code, retryable: true } => self.record(What::Fail { id, code, last: false }),
                Outcome::Unknown => {
                    self.record(What::Unknown { id });
                    operation.outcome_unknown = true;
                }
            }
            sleep(AGAIN).await;
        }
    }

    async fn send(&mut self) {
        let Some(to) = self.conversations.choose(&mut self.rng).cloned() else { return };
        let message = self.operations.message(&mut self.rng, To::Conversation(to));
        if let Some(sent) = self.accomplish(message).await {
            self.own.push(sent);
            if self.own.len() > REMEMBERED {
                self.own.remove(0);
            }
        }
    }

    /// Edits or deletes an own message.
    async fn change(&mut self, kind: Kind) {
        if self.own.is_empty() {
            return;
        }
        let at = self.rng.random_range(0..self.own.len());
        let (to, seq) = if kind == Kind::Deleted { self.own.swap_remove(at) } else { self.own[at].clone() };
        let text = if kind == Kind::Edited { "edited over REST" } else { "" };
        let operation = self.operations.change(To::Conversation(to.clone()), kind, About::Message(seq), text);
        self.accomplish(operation).await;
        if kind == Kind::Deleted {
            let (node, user) = (self.node(), self.user.clone());
            self.rest.read(&self.recorder, self.session, node, &user, &to).await;
        }
    }

    async fn read(&mut self) {
        let (node, user) = (self.node(), self.user.clone());
        if let Some(conversation) = self.conversations.choose(&mut self.rng).cloned() {
            self.rest.read(&self.recorder, self.session, node, &user, &conversation).await;
        }
    }

    /// Removes or adds a user of its group. The user reads on some node before the removal and on every node after it;
    /// some are added again at once.
    async fn churn(&mut self) {
        let Some(Churned { conversation, users, .. }) = self.churned.clone() else { return };
        let at = self.rng.random_range(0..users.len());
        let (user, member) = users[at].clone();
        if !member {
            return self.change_member(at, Kind::MemberAdded).await;
        }
        let before = self.node();
        self.rest.read(&self.recorder, self.session, before, &user, &conversation).await;
        self.change_member(at, Kind::MemberRemoved).await;
        if self.rng.random_range(0..3) == 0 {
            return self.change_member(at, Kind::MemberAdded).await;
        }
        for node in (0..self.rest.nodes()).map(|nth| (before + nth) % self.rest.nodes()) {
            self.rest.read(&self.recorder, self.session, node, &user, &conversation).await;
        }
    }

    async fn change_member(&mut self, at: usize, kind: Kind) {
        let Some(Churned { conversation, users, .. }) = &mut self.churned else { return };
        users[at].1 = kind == Kind::MemberAdded;
        let (to, about) = (To::Conversation(conversation.clone()), About::User(users[at].0.clone()));
        let operation = self.operations.change(to, kind, about, "");
        self.accomplish(operation).await;
    }

    /// Makes a conversation with two others and sends a first message.
    async fn create(&mut self) {
        self.made += 1;
        let id: Name = format!("made-{}-{}-{}", self.user, self.session.client, self.made).into();
        let invited: Vec<&Name> = self.others.sample(&mut self.rng, 2).collect();
        let body = json!({ "id": id, "name": "made", "is_group": true, "participant_ids": invited });
        loop {
            let node = self.node();
            let made = self.rest.call(node, &self.user, Method::POST, "/api/chat/conversations", Some(body.clone()));
            match made.await {
                Outcome::Done { .. } => break,
                Outcome::Refused { code, .. } if code == "conflict" => break,
                Outcome::Refused { retryable: false, .. } => return,
                Outcome::Refused { .. } | Outcome::Unknown => sleep(AGAIN).await,
            }
        }
        let message = self.operations.message(&mut self.rng, To::Conversation(id.clone()));
        self.accomplish(message).await;
        self.conversations.push(id);
    }
}
