//! Blocks between users: a user who is blocked can't make conversations with the blocker, add them, or write to them
//! directly. The transaction of each append checks blocks too.

use super::{
    Chat,
    command::{BARRED, Caller, CommandReply, unavailable, unwritten},
};
use crate::{
    degrade::Feature,
    model::{Reject, Reply, UserId},
};

impl Chat {
    pub(super) async fn block(&self, caller: &Caller, other: &UserId, blocked: bool) -> Result<CommandReply, Reject> {
        self.require_feature(Feature::Append)?;
        let user = &caller.identity.user;
        if user == other {
            return Err(Reject::Conflict("You can't block yourself"));
        }
        let stands = match blocked {
            true => self.store.block(user, other, self.blocks_per_user).await,
            false => self.store.unblock(user, other).await.map(|()| true),
        };
        self.events.forget_rights();
        match stands.map_err(|error| unwritten(&error))? {
            true => Ok(Reply::Done.into()),
            false => Err(Reject::Conflict("You block the maximum number of users")),
        }
    }

    pub(super) async fn blocks(&self, caller: &Caller) -> Result<CommandReply, Reject> {
        self.require_feature(Feature::History)?;
        let blocked = self.store.blocked(&caller.identity.user).await.map_err(|error| unavailable(&error))?;
        Ok(Reply::Blocks(blocked).into())
    }

    /// Refuses a user whom one of `others` blocks.
    pub(super) async fn require_unblocked(&self, user: &UserId, others: &[UserId]) -> Result<(), Reject> {
        match self.store.any_blocks(others, user).await.map_err(|error| unavailable(&error))? {
            true => Err(BARRED),
            false => Ok(()),
        }
    }
}
