//! Checks of membership, with a short cache in front of the store.

use std::{sync::Arc, time::Duration};

use super::{
    command::{require_feature, unavailable},
    ttl_cache::TtlCache,
};
use crate::{
    degrade::{Degrade, Feature},
    model::{Body, ConversationId, Event, Identity, Pair, Reject, UserId},
    store::Store,
};

/// Maximum age of a cached membership.
const MEMBERSHIP_TTL: Duration = Duration::from_secs(5);
/// Maximum age of a cached pair. The conversation of a pair never changes.
const PAIR_TTL: Duration = Duration::from_secs(3_600);
/// Maximum number of entries in each cache.
const CACHED_MAX: usize = 50_000;

/// Cached memberships, and cached conversations of pairs.
pub(super) struct Members {
    store: Arc<dyn Store>,
    degrade: Arc<Degrade>,
    memberships: TtlCache<(ConversationId, UserId), ()>,
    directs: TtlCache<Pair, ConversationId>,
}

impl Members {
    pub(super) fn new(store: Arc<dyn Store>, degrade: Arc<Degrade>) -> Self {
        let memberships = TtlCache::new(MEMBERSHIP_TTL, CACHED_MAX);
        Self { store, degrade, memberships, directs: TtlCache::new(PAIR_TTL, CACHED_MAX) }
    }

    /// Rejects a user who is not a member. Admins pass if the conversation exists. A membership in the cache counts
    /// without a read.
    pub(super) async fn require_member(&self, identity: &Identity, id: &ConversationId) -> Result<(), Reject> {
        let key = (id.clone(), identity.user.clone());
        if self.memberships.get(&key).is_some() {
            return Ok(());
        }
        require_feature(&self.degrade, Feature::History)?;
        let access = self.store.access(id, &identity.user).await.map_err(|error| unavailable(&error))?;
        if access.ok_or(Reject::NotFound("Conversation"))?.member {
            self.memberships.insert(key, ());
            return Ok(());
        }
        if identity.admin { Ok(()) } else { Err(Reject::NotMember) }
    }

    /// Removes ended memberships from the cache, for changes on any node.
    pub(super) fn evict_removed(&self, events: &[Event]) {
        for event in events {
            let Event::Entry { entry, .. } = event else { continue };
            if let (Body::MemberRemoved { user }, Some(conversation)) = (&entry.body, entry.log.conversation()) {
                self.memberships.remove(&(conversation, user.clone()));
            }
        }
    }

    /// The cached direct conversation of a pair.
    pub(super) fn cached_direct(&self, pair: &Pair) -> Option<ConversationId> {
        self.directs.get(pair)
    }

    /// Caches the direct conversation of a pair.
    pub(super) fn cache_direct(&self, pair: Pair, conversation: ConversationId) {
        self.directs.insert(pair, conversation);
    }
}
