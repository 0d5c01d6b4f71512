//! Remembers who may send events, and forgets it when a right ends.

use std::time::Duration;

use super::ttl_cache::TtlCache;
use crate::model::{Body, Event, LogId, UserId};

/// Maximum age of a remembered right.
const RIGHT_TTL: Duration = Duration::from_secs(5);
/// Maximum number of remembered rights.
const RIGHTS_MAX: usize = 50_000;

/// The users who may send events, each with a log to which they may send.
pub(super) struct Speakers(TtlCache<(UserId, LogId), ()>);

impl Default for Speakers {
    fn default() -> Self {
        Self(TtlCache::new(RIGHT_TTL, RIGHTS_MAX))
    }
}

impl Speakers {
    /// True if the right is remembered.
    pub(super) fn knows(&self, right: &(UserId, LogId)) -> bool {
        self.0.get(right).is_some()
    }

    /// Remembers a right.
    pub(super) fn remember(&self, right: (UserId, LogId)) {
        self.0.insert(right, ());
    }

    /// Forgets the members who were removed.
    pub(super) fn observe(&self, events: &[Event]) {
        for event in events {
            let Event::Entry { entry, .. } = event else { continue };
            if let Body::MemberRemoved { user } = &entry.body {
                self.0.remove(&(user.clone(), entry.log.clone()));
            }
        }
    }

    /// Forgets all rights, because a block, or a state of the store that was lost, may end any of them.
    pub(super) fn forget_all(&self) {
        self.0.clear();
    }
}
