//! The join of many conversations with one command.

use futures_util::future::join_all;

use super::{
    command::{Caller, CommandReply},
    connection::Joining,
    subscriptions::Subscriptions,
};
use crate::model::{ConversationId, Listed, Reject, Reply, SinceSeq};

/// Conversations that one command joins concurrently.
const JOINS_AT_ONCE: usize = 16;

impl Subscriptions {
    /// Joins conversations, each from its seq. Each has an outcome of its own: one refusal, also for want of a place, does
    /// not affect the others. The first ones of the list get the places that the socket has left.
    pub(super) async fn sync(
        &self,
        caller: &Caller,
        cursors: Listed<(ConversationId, SinceSeq)>,
        roster: bool,
    ) -> Result<CommandReply, Reject> {
        let connection = caller.connection.as_ref().ok_or(Reject::Unsupported("Joining needs a WebSocket"))?;
        let join = async |(conversation, since): (ConversationId, SinceSeq)| {
            let (since, joining) = (Some(since.get()), Joining::asked_for(roster));
            let entered = self.listen(&caller.identity, connection, &conversation, since, joining).await;
            (conversation, entered)
        };
        let (mut each, mut replays) = (Vec::with_capacity(cursors.len()), Vec::with_capacity(cursors.len()));
        let mut cursors = cursors.into_iter();
        loop {
            // No more at once than there are places: joins that are under way don't see each other.
            let places = connection.free_places(self.limits.conversations_per_connection);
            let some = cursors.by_ref().take(places.clamp(1, JOINS_AT_ONCE)).map(join);
            let some = join_all(some).await;
            if some.is_empty() {
                let reply = Reply::Synced { conversations: each, more: false };
                return Ok(CommandReply { replays, ..CommandReply::from(reply) });
            }
            for (conversation, entered) in some {
                let outcome = entered.map(|(joined, replay)| {
                    replays.push(replay);
                    joined
                });
                each.push((conversation, outcome));
            }
        }
    }
}
