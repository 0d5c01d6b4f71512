//! The frames that a client receives: the state of its session, and the records of it.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use serde_json::Value;

use crate::{
    history::{Delivered, Dialect, Name, Recorder, Session, What},
    wire::{self, Heard},
};

/// A join without an answer.
#[derive(Debug, Clone, Copy)]
struct Join {
    since: Option<i64>,
    asked: Duration,
}

/// Who is where, as frames of this session say: per place (a conversation, or everywhere) the users last shown as
/// present and absent.
pub type ShownUsers = BTreeMap<(String, Name), bool>;

/// The ears of one client. They outlive its connections.
#[derive(Debug)]
pub struct Ear {
    pub recorder: Recorder,
    pub session: Session,
    pub dialect: Dialect,
    /// The conversation of the socket's URL.
    pub bound: Option<Name>,
    /// Conversations to which this session listens.
    pub listening: BTreeSet<Name>,
    /// The presence of other users as this session was shown it.
    pub shown: ShownUsers,
    /// The highest seq of each conversation that a frame has shown since the join, which clients take for all that they
    /// have.
    progress: BTreeMap<Name, i64>,
    joins: BTreeMap<Name, Join>,
    /// The conversations of `joins` in the order of the requests.
    order: VecDeque<Name>,
    /// Joins for which a refusal was taken that named none: it may have been that of another command.
    doubtful: BTreeMap<Name, Join>,
    /// Heads at which the user was added to conversations that the socket will join by itself.
    added: BTreeMap<Name, Vec<i64>>,
    /// Conversations that the socket joined by itself after several additions, from the head of any of them.
    undecided: BTreeMap<Name, Vec<i64>>,
    /// Ids of messages that the client sent more than once.
    pub repeated: BTreeSet<Name>,
    opened: Duration,
}

impl Ear {
    /// Makes the ears of a client that has no connection yet.
    pub fn new(recorder: Recorder, client: usize, dialect: Dialect) -> Self {
        Self {
            recorder,
            session: Session { client, number: 0 },
            dialect,
            bound: None,
            listening: BTreeSet::new(),
            shown: BTreeMap::new(),
            progress: BTreeMap::new(),
            joins: BTreeMap::new(),
            order: VecDeque::new(),
            doubtful: BTreeMap::new(),
            added: BTreeMap::new(),
            undecided: BTreeMap::new(),
            repeated: BTreeSet::new(),
            opened: Duration::ZERO,
        }
    }

    /// Records a line of this session.
    pub fn record(&self, what: What) {
        self.recorder.record(Some(self.session), what);
    }

    /// Begins a session on a connection that was opened at `asked` with the seq `since` in its URL.
    pub fn open(&mut self, node: usize, asked: Duration, since: Option<i64>, early: &[Value]) {
        self.session.number += 1;
        self.opened = asked;
        self.listening.clear();
        self.shown.clear();
        self.joins.clear();
        self.order.clear();
        self.doubtful.clear();
        self.added.clear();
        self.undecided.clear();
        self.record(What::Open { node, dialect: self.dialect, asked });
        for frame in early {
            self.record(What::Early { frame: frame.to_string() });
        }
        if let Some(bound) = self.bound.clone() {
            self.joins.insert(bound, Join { since, asked });
        }
    }

    /// Records the request to join a conversation.
    pub fn asked_to_join(&mut self, conversation: &Name, since: Option<i64>) {
        self.joins.insert(conversation.clone(), Join { since, asked: self.recorder.now() });
        self.order.push_back(conversation.clone());
    }

    /// The seq up to which the client has a conversation, if it ever listened to it.
    pub fn has(&self, conversation: &Name) -> Option<i64> {
        self.progress.get(conversation).copied()
    }

    /// The seqs up to which the client has each conversation.
    pub fn progress(&self) -> BTreeMap<Name, i64> {
        self.progress.clone()
    }

    /// True if the node told of a conversation to which the user was added.
    pub fn was_added(&self) -> bool {
        !self.added.is_empty()
    }

    /// True if the join of this conversation waits for its answer.
    pub fn awaits_join(&self, conversation: &Name) -> bool {
        self.joins.contains_key(conversation)
    }

    /// True if a join waits for its answer.
    pub fn awaits(&self) -> bool {
        !self.joins.is_empty()
    }

    /// Reads a frame, records what it says, and returns it.
    pub fn hear(&mut self, frame: &Value) -> Vec<Heard> {
        let heard = wire::read(self.dialect, self.bound.as_ref(), frame);
        for one in &heard {
            self.take(one);
        }
        heard
    }

    fn take(&mut self, heard: &Heard) {
        match heard {
            Heard::Joined { conversation, head, by_itself } => self.joined(conversation, *head, false, *by_itself),
            // The socket listened already, because it joined by itself or before the store was set back. The answer of the join
            // that is under way follows, maybe after entries.
            Heard::Resync { conversation, head, asked: false } if self.awaits_join(conversation) => {
                self.listens(conversation, None, *head, Some(*head), true, self.opened);
            }
            Heard::Resync { conversation, head, .. } => self.joined(conversation, *head, true, false),
            Heard::JoinRefused { conversation, .. } => {
                let named = conversation.is_some();
                let refused = conversation.clone().or_else(|| self.order.front().cloned());
                if let Some(refused) = refused
                    && let Some(join) = self.answered(&refused)
                    && !named
                {
                    self.doubtful.insert(refused, join);
                }
            }
            Heard::Left { conversation } => {
                self.record(What::Left { conversation: conversation.clone() });
                self.listening.remove(conversation);
                self.undecided.remove(conversation);
                self.shown.retain(|(place, _), _| **place != **conversation);
            }
            Heard::Added { conversation, head } => {
                self.added.entry(conversation.clone()).or_default().push(*head);
            }
            Heard::Entry { conversation, entry } => self.delivered(conversation, entry),
            Heard::Here { conversation, user, here } => self.show(&format!("{conversation}"), user, *here),
            Heard::Online { user, online } => self.show("online", user, *online),
            Heard::Roster { users } => {
                let place = self.bound.as_deref().unwrap_or_default().to_owned();
                self.shown.iter_mut().for_each(|(_, present)| *present = false);
                users.iter().for_each(|user| self.show(&place, user, true));
            }
            Heard::Acked { conversation, seq, .. } => self.acked(conversation, *seq),
            Heard::Unchanged { .. } | Heard::Refused { .. } => {}
        }
    }

    fn show(&mut self, place: &str, user: &Name, present: bool) {
        self.record(What::Shown { place: place.to_owned(), user: user.clone(), present });
        self.shown.insert((place.to_owned(), user.clone()), present);
    }

    fn answered(&mut self, conversation: &Name) -> Option<Join> {
        if let Some(at) = self.order.iter().position(|one| one == conversation) {
            self.order.remove(at);
        }
        self.joins.remove(conversation)
    }

    fn joined(&mut self, conversation: &Name, head: i64, resync: bool, by_itself: bool) {
        let answered = |ear: &mut Self| {
            let doubtful = ear.doubtful.remove(conversation);
            ear.answered(conversation).or(doubtful)
        };
        let join = if by_itself { None } else { answered(self) };
        let (since, asked) = match join {
            Some(Join { since, asked }) => (since, asked),
            // It goes on where it is.
            None if by_itself && self.listening.contains(conversation) => (self.has(conversation), self.opened),
            // The socket joins from the head at which its user was added. A bound socket that is told to resync after
            // its greeting asked when it connected.
            None if by_itself => {
                let heads = self.added.remove(conversation).unwrap_or_default();
                // Additions after this head are joined later, or were joined with it.
                let newest = heads.iter().copied().filter(|added| *added <= head).max();
                self.undecided.insert(conversation.clone(), heads);
                // Nobody asked, and the node may have checked the membership at any time of the session.
                (newest, self.opened)
            }
            None => (self.has(conversation), self.opened),
        };
        let from = if resync { head } else { since.unwrap_or(head) };
        self.listens(conversation, since, from, Some(head), resync, asked);
    }

    fn listens(
        &mut self,
        conversation: &Name,
        since: Option<i64>,
        from: i64,
        head: Option<i64>,
        resync: bool,
        asked: Duration,
    ) {
        self.listening.insert(conversation.clone());
        self.progress.insert(conversation.clone(), from);
        self.record(What::Resume { conversation: conversation.clone(), since, from, head, resync, asked });
    }

    /// Notes that the socket must get every entry of a new direct conversation, because it writes there first.
    pub fn awaits_new_direct(&mut self, conversation: &Name) {
        self.listens(conversation, Some(0), 0, None, false, self.recorder.now());
    }

    fn acked(&mut self, conversation: &Name, seq: i64) {
        // The ack of a socket that does not listen says nothing about what the client has. No frame tells that a socket of
        // the direct dialect listens.
        if self.listening.contains(conversation) || self.dialect == Dialect::Direct {
            self.has_seen(conversation, seq);
        }
    }

    fn has_seen(&mut self, conversation: &Name, seq: i64) {
        let has = self.progress.entry(conversation.clone()).or_default();
        *has = seq.max(*has);
    }

    fn delivered(&mut self, conversation: &Name, entry: &Delivered) {
        // In dialects whose echo is the ack, a repeat is answered with the stored message, which the socket may have.
        let repeated = entry.id.as_ref().is_some_and(|id| self.repeated.contains(id));
        if self.dialect.echoes() && repeated && self.has(conversation).is_some_and(|has| entry.seq <= has) {
            return;
        }
        // The first entry tells from which addition the socket listens.
        let (before, heads) = (entry.seq - 1, self.undecided.remove(conversation).unwrap_or_default());
        if heads.contains(&before) && self.has(conversation) != Some(before) {
            self.listens(conversation, Some(before), before, heads.last().copied(), false, self.opened);
        }
        self.has_seen(conversation, entry.seq);
        self.record(What::Deliver { conversation: conversation.clone(), entry: entry.clone() });
    }
}
