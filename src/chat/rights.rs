//! Checks of a caller's rights before a command begins.

use super::{Chat, command::Caller, connection::Connection};
use crate::model::{Command, Reject, Right};

impl Chat {
    /// Rejects a caller without the right to `command`, as far as this is known before the command begins.
    pub(super) async fn require_right(&self, caller: &Caller, command: &Command) -> Result<(), Reject> {
        let heavy = command.is_heavy_read();
        match command.right() {
            Right::Admin if !caller.identity.admin => Err(Reject::Forbidden("Admins only")),
            Right::Member(conversation) | Right::Adder(conversation) | Right::CreatorOrSelf(conversation) => {
                self.members.require_member(&caller.identity, conversation, heavy).await
            }
            Right::Listener(conversation) => {
                let listens = |connection: &Connection| connection.listens_to(conversation);
                if caller.connection.as_deref().is_some_and(listens) {
                    return Ok(());
                }
                self.members.require_member(&caller.identity, conversation, heavy).await
            }
            // The command itself checks these rights.
            Right::Anyone
            | Right::Admin
            | Right::Joiner
            | Right::Sender
            | Right::Acquaintance(_)
            | Right::Author
            | Right::AuthorOrAdmin => Ok(()),
        }
    }
}
