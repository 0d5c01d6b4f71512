//! Checks of membership, and the cached conversations of pairs.

use std::{sync::Arc, time::Duration};

use super::{
    command::{require_feature, unavailable},
    ttl_cache::TtlCache,
};
use crate::{
    degrade::{Degrade, Feature},
    model::{ConversationId, Identity, Pair, Reject},
    store::Store,
};

/// Maximum age of a cached pair. The conversation of a pair changes only if the store is set back.
const PAIR_TTL: Duration = Duration::from_secs(3_600);
/// Maximum number of cached pairs.
const CACHED_MAX: usize = 50_000;

/// Checks memberships in the store. They are not cached: a removed member stops reading at once, on every node.
pub(super) struct Members {
    store: Arc<dyn Store>,
    degrade: Arc<Degrade>,
    directs: TtlCache<Pair, ConversationId>,
    /// The members of direct conversations; none for another kind.
    pairs: TtlCache<ConversationId, Option<Arc<Pair>>>,
}

impl Members {
    pub(super) fn new(store: Arc<dyn Store>, degrade: Arc<Degrade>) -> Self {
        let (directs, pairs) = (TtlCache::new(PAIR_TTL, CACHED_MAX), TtlCache::new(PAIR_TTL, CACHED_MAX));
        Self { store, degrade, directs, pairs }
    }

    /// Rejects a user who is not a member. Admins pass if the conversation exists. For others a missing conversation is
    /// the same as one of other users, so that they can't probe for ids. If `heavy`, a heavy read follows.
    pub(super) async fn require_member(
        &self,
        identity: &Identity,
        id: &ConversationId,
        heavy: bool,
    ) -> Result<(), Reject> {
        require_feature(&self.degrade, Feature::History)?;
        #[cfg(feature = "faults")]
        if crate::faults::cached_membership(identity.user.as_str(), id.as_str(), false) {
            return Ok(());
        }
        let access = match heavy {
            true => self.store.reader_access(id, &identity.user).await,
            false => self.store.access(id, &identity.user).await,
        };
        let access = access.map_err(|error| unavailable(&error))?;
        #[cfg(feature = "faults")]
        let access = access.map(|access: crate::store::Access| {
            let cached = crate::faults::cached_membership(identity.user.as_str(), id.as_str(), access.member);
            crate::store::Access { member: access.member || cached, ..access }
        });
        match access {
            Some(access) if access.member || identity.admin => Ok(()),
            None if identity.admin => Err(Reject::NotFound("Conversation")),
            Some(_) | None => Err(Reject::NotMember),
        }
    }

    /// The cached direct conversation of a pair.
    pub(super) fn cached_direct(&self, pair: &Pair) -> Option<ConversationId> {
        self.directs.get(pair)
    }

    /// The members of a direct conversation; none if it is another kind. Neither ever changes.
    pub(super) async fn pair_of(&self, conversation: &ConversationId) -> Result<Option<Arc<Pair>>, Reject> {
        if let Some(known) = self.pairs.get(conversation) {
            return Ok(known);
        }
        require_feature(&self.degrade, Feature::History)?;
        let pair = self.store.pair(conversation).await.map_err(|error| unavailable(&error))?.map(Arc::new);
        self.pairs.insert(conversation.clone(), pair.clone());
        Ok(pair)
    }

    /// Forgets which conversations are those of pairs.
    pub(super) fn forget_pairs(&self) {
        self.directs.clear();
        self.pairs.clear();
    }

    /// Caches the direct conversation of a pair.
    pub(super) fn cache_direct(&self, pair: Pair, conversation: ConversationId) {
        self.directs.insert(pair, conversation);
    }
}
