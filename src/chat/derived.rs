//! What this node remembers of the store. It must not outlive a state of the store that was lost.

use std::sync::Arc;

use super::{hints::Hints, members::Members, speakers::Speakers, statuses::Statuses, user_upserts::UserUpserts};

/// The caches in front of the store.
pub(super) struct Derived {
    pub(super) members: Arc<Members>,
    pub(super) users: Arc<UserUpserts>,
    pub(super) statuses: Arc<Statuses>,
    pub(super) speakers: Arc<Speakers>,
    pub(super) hints: Arc<Hints>,
}

impl Derived {
    /// Forgets everything, because the store became another one than before.
    pub(super) fn forget(&self) {
        self.members.forget_pairs();
        self.users.forget();
        self.statuses.forget();
        self.speakers.forget_all();
        self.hints.forget_announced();
    }
}
