//! Restrictions of users by admins: a command stores a change and applies it on this node at once.

use super::{
    Chat,
    command::{Caller, CommandReply, unavailable, unwritten},
};
use crate::{
    degrade::Feature,
    model::{Page, Reject, Reply, RestrictionRequest, UserId},
    store::{RestrictOutcome, StoreError},
};

impl Chat {
    /// Reads the store's restrictions. Until this has succeeded once, no token is accepted.
    ///
    /// # Errors
    /// The store is unavailable.
    pub async fn read_restrictions(&self) -> Result<(), StoreError> {
        self.restriction_reader.read_all().await
    }

    pub(super) async fn restrict(
        &self,
        caller: &Caller,
        user: &UserId,
        request: RestrictionRequest,
    ) -> Result<CommandReply, Reject> {
        self.require_feature(Feature::Append)?;
        let now = self.restriction_reader.clock.now();
        let request = match request {
            RestrictionRequest::RevokeIssued(None) => RestrictionRequest::RevokeIssued(Some(now)),
            RestrictionRequest::RevokeIssued(Some(until)) if until.seconds() > now.seconds() => {
                return Err(Reject::Invalid(
                    "issued_until must not be in the future: block the user to refuse tokens to come".into(),
                ));
            }
            request => request,
        };
        let by = caller.identity.user.as_str();
        let outcome = self.store.restrict(user, &request, by, self.restriction_reader.max).await;
        match outcome.map_err(|error| unwritten(&error))? {
            RestrictOutcome::Changed(change) => {
                self.restriction_reader.restrictions.apply_own(change.clone());
                Ok(Reply::Restricted(change).into())
            }
            RestrictOutcome::Unchanged(Some(change)) => Ok(Reply::Restricted(change).into()),
            RestrictOutcome::Unchanged(None) => Ok(Reply::Done.into()),
            RestrictOutcome::TooMany => Err(Reject::Conflict(
                "The maximum number of blocks and revocations stands (MAX_REVOCATIONS): end blocks, or raise it on all nodes",
            )),
        }
    }

    pub(super) async fn show_block(&self, user: &UserId) -> Result<CommandReply, Reject> {
        self.require_feature(Feature::History)?;
        let block = self.store.block_of(user).await.map_err(|error| unavailable(&error))?;
        Ok(Reply::BlockOf(block).into())
    }

    pub(super) async fn blocked_users(&self, page: Page) -> Result<CommandReply, Reject> {
        self.require_feature(Feature::History)?;
        let (blocks, total) = self.store.blocked_users(page).await.map_err(|error| unavailable(&error))?;
        Ok(Reply::BlockedUsers(blocks, total).into())
    }
}
