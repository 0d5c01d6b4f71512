//! Checks of a caller's rights before a command begins.

use super::{Chat, command::Caller, connection::Connection};
use crate::model::{Reject, Right};

impl Chat {
    /// Rejects a caller without `right`, as far as this is known before the command begins.
    pub(super) async fn require_right(&self, caller: &Caller, right: Right<'_>) -> Result<(), Reject> {
        match right {
            Right::Admin if !caller.identity.admin => Err(Reject::Forbidden("Admins only")),
            Right::Member(conversation) | Right::CreatorOrSelf(conversation) => {
                self.members.require_member(&caller.identity, conversation).await
            }
            Right::Listener(conversation) => {
                let listens = |connection: &Connection| connection.listens_to(conversation);
                if caller.connection.as_deref().is_some_and(listens) {
                    return Ok(());
                }
                self.members.require_member(&caller.identity, conversation).await
            }
            // The command itself checks these rights.
            Right::Anyone | Right::Admin | Right::Joiner | Right::Sender | Right::Author | Right::AuthorOrAdmin => {
                Ok(())
            }
        }
    }
}
