//! The former joins that a connection remembers. Most connections have none, and no memory for them.

use std::collections::{HashMap, HashSet};

use crate::model::{ConversationId, Seq};

/// Maximum number of conversations of which a connection remembers that it joined them after the store was set back.
const JOINED_ANEW_MAX: usize = 1_000;

/// The former joins of a connection.
#[derive(Debug, Default)]
pub(super) struct Former {
    /// True if more joins were given up than are remembered.
    pub(super) forgot: bool,
    memory: Option<Box<Memory>>,
}

/// The memory of a connection that has some.
#[derive(Debug, Default)]
struct Memory {
    /// Automatic joins that were given up for room.
    dropped: HashMap<ConversationId, Dropped>,
    /// Conversations younger than the connection that its client left.
    left: HashSet<ConversationId>,
    /// Conversations that the connection joined after the store was set back, and the hub's past at that time.
    joined_anew: (u64, HashSet<ConversationId>),
}

/// An automatic join that was given up.
#[derive(Debug)]
pub(super) struct Dropped {
    /// The seq of the last entry that the connection received.
    pub(super) has: Seq,
    /// The hub's past at that time; in another one, the seq says nothing.
    pub(super) past: u64,
    /// Number of the join that was the newest then.
    at: u64,
}

impl Former {
    /// A join that was given up.
    pub(super) fn dropped(&self, conversation: &ConversationId) -> Option<&Dropped> {
        self.memory.as_ref()?.dropped.get(conversation)
    }

    /// The same, to be changed.
    pub(super) fn dropped_mut(&mut self, conversation: &ConversationId) -> Option<&mut Dropped> {
        self.memory.as_mut()?.dropped.get_mut(conversation)
    }

    /// All joins that were given up.
    pub(super) fn all_dropped(&self) -> impl Iterator<Item = (&ConversationId, &Dropped)> {
        self.memory.iter().flat_map(|memory| &memory.dropped)
    }

    /// Forgets a join that was given up. Returns true if it was remembered.
    pub(super) fn forget_dropped(&mut self, conversation: &ConversationId) -> bool {
        self.memory.as_mut().is_some_and(|memory| memory.dropped.remove(conversation).is_some())
    }

    /// Remembers a join that was given up while `at` was the number of the newest join. At the limit, the one that was given
    /// up first is forgotten.
    pub(super) fn remember(&mut self, conversation: &ConversationId, (has, past): (Seq, u64), at: u64, limit: usize) {
        let dropped = &mut self.memory.get_or_insert_default().dropped;
        if dropped.len() >= limit
            && let Some(first) = dropped.iter().min_by_key(|(_, dropped)| dropped.at).map(|(id, _)| id.clone())
        {
            dropped.remove(&first);
            self.forgot = true;
        }
        // Joins given up between the same two joins have the same number; any of them may be forgotten first.
        dropped.insert(conversation.clone(), Dropped { has, past, at });
    }

    /// True if the client left this conversation, which is younger than the connection.
    pub(super) fn has_left(&self, conversation: &ConversationId) -> bool {
        self.memory.as_ref().is_some_and(|memory| memory.left.contains(conversation))
    }

    /// Records that the client left a conversation that is younger than the connection. At most `limit` are remembered.
    pub(super) fn leave(&mut self, conversation: &ConversationId, limit: usize) {
        let left = &mut self.memory.get_or_insert_default().left;
        if left.len() < limit {
            left.insert(conversation.clone());
        }
    }

    /// True if the connection joined the conversation in this past of the hub, which is not that of the connection's begin.
    pub(super) fn has_joined_anew(&self, conversation: &ConversationId, past: u64) -> bool {
        let joined = self.memory.as_ref().map(|memory| &memory.joined_anew);
        joined.is_some_and(|(of, conversations)| *of == past && conversations.contains(conversation))
    }

    /// Records a join in another past of the hub than that of the connection's begin. Beyond the maximum, a later join of the
    /// same conversation is a resync again.
    pub(super) fn join_anew(&mut self, conversation: &ConversationId, past: u64) {
        let (of, conversations) = &mut self.memory.get_or_insert_default().joined_anew;
        if *of != past {
            (*of, *conversations) = (past, HashSet::new());
        }
        if conversations.len() < JOINED_ANEW_MAX {
            conversations.insert(conversation.clone());
        }
    }
}
