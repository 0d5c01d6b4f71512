//! Whether somebody may do what they ask, as far as that is known before it is begun.

use super::{Caller, Chat, unavailable};
use crate::{
    degrade::Feature,
    model::{ConversationId, Identity, Reject, Right},
};

impl Chat {
    /// Refuses one who is not what the table asks for.
    pub(super) async fn must_have(&self, caller: &Caller, right: Right<'_>) -> Result<(), Reject> {
        match right {
            Right::Admin if !caller.identity.admin => Err(Reject::Forbidden("Admins only")),
            Right::Member(conversation) | Right::CreatorOrSelf(conversation) => {
                self.must_be_member(&caller.identity, conversation).await
            }
            Right::Listener(conversation) => {
                let listens = |connection: &super::Connection| connection.listens_to(conversation);
                if caller.connection.as_deref().is_some_and(listens) {
                    return Ok(());
                }
                self.must_be_member(&caller.identity, conversation).await
            }
            // The rest is found out where it is done.
            Right::Anyone | Right::Admin | Right::Joiner | Right::Sender | Right::Author | Right::AuthorOrAdmin => {
                Ok(())
            }
        }
    }

    /// Passes members, and admins wherever there is a conversation. What was read a moment ago is trusted.
    pub(super) async fn must_be_member(&self, identity: &Identity, id: &ConversationId) -> Result<(), Reject> {
        let key = (id.clone(), identity.user.clone());
        if self.memberships.get(&key).is_some() {
            return Ok(());
        }
        self.needs(Feature::History)?;
        let access = self.store.access(id, &identity.user).await.map_err(|error| unavailable(&error))?;
        if access.ok_or(Reject::NotFound("Conversation"))?.member {
            self.memberships.learn(key, ());
            return Ok(());
        }
        if identity.admin { Ok(()) } else { Err(Reject::NotMember) }
    }
}
