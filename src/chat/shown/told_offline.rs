//! Users who were told to be offline in one conversation, although another shows them as present.
//!
//! Most of them leave the other conversation a moment later. For those who stay, the last word that a listener of both
//! conversations has is wrong, and no comparison of one conversation finds it.

use std::{collections::HashSet, mem};

use tokio::sync::Notify;

use crate::model::UserId;

/// Maximum number of users who wait for [`ToldOffline::next`]. Each look costs time in all followed conversations.
const USERS_MAX: usize = 1_000;

/// The users, in the order of two looks: those who were told since the last look are not looked at in the next one.
#[derive(Debug, Default)]
pub(super) struct ToldOffline {
    before: HashSet<UserId>,
    since: HashSet<UserId>,
}

impl ToldOffline {
    /// Adds a user, unless too many wait, and wakes who [waits](Self::is_empty).
    pub(super) fn add(&mut self, user: &UserId, added: &Notify) {
        if self.since.len() < USERS_MAX {
            self.since.insert(user.clone());
            added.notify_one();
        }
    }

    /// True if no user waits for a look.
    pub(super) fn is_empty(&self) -> bool {
        self.before.is_empty() && self.since.is_empty()
    }

    /// Removes and returns the users who were told before the last look.
    pub(super) fn next(&mut self) -> HashSet<UserId> {
        mem::replace(&mut self.before, mem::take(&mut self.since))
    }
}
