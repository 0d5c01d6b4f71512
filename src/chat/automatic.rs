//! Automatic joins: they have room of their own, so that they never take that of joins that the client asks for. If it
//! is used up, the least recently active one is given up, and comes back when something is said there.

use std::sync::Arc;

use super::{
    command::{Caller, CommandReply, unavailable},
    connection::{Connection, Joining},
    hints::hint,
    subscriptions::Subscriptions,
};
use crate::{
    dialect::AutoJoin,
    model::{ConversationId, Identity, LogId, Pair, Reject, Reply, Resumed, Seq},
};

/// Maximum number of entries of a direct conversation that are replayed to a client that can't name its last seq.
const MISSED_MAX: Seq = 100;

/// The entries of a direct conversation that its client is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Undelivered {
    /// Those after this seq.
    pub(super) after: Seq,
    /// The first one that is still stored.
    pub(super) first: Seq,
    /// The newest one.
    pub(super) head: Seq,
    /// True if the client missed more than that.
    pub(super) cut: bool,
}

impl Undelivered {
    /// The newest of the entries after `delivered`, of which those up to `removed` are gone.
    pub(super) fn of(delivered: Seq, removed: Seq, head: Seq) -> Self {
        let oldest = removed.max(head - MISSED_MAX);
        Self { after: delivered.max(oldest), first: removed + 1, head, cut: delivered < oldest }
    }
}

impl Subscriptions {
    /// Joins a conversation without a command of the client: the user was added, or a hint says that something was said
    /// there. Without `since` it continues after the last entry that the connection received.
    pub(super) async fn join_automatically(
        &self,
        caller: &Caller,
        conversation: &ConversationId,
        since: Option<Seq>,
    ) -> Result<CommandReply, Reject> {
        let connection = caller.connection.as_ref().ok_or(Reject::Unsupported("Joining needs a WebSocket"))?;
        let pair = match connection.dialect.joins() {
            AutoJoin::Directs => match self.members.pair_of(conversation).await? {
                Some(pair) => Some(pair),
                // The dialect does not listen to other conversations.
                None => return Ok(Reply::Done.into()),
            },
            AutoJoin::Nothing | AutoJoin::Added => None,
        };
        let from = since.or_else(|| connection.dropped_at(conversation, self.hub.past()));
        let (since, head, cut, first) = match (from, &pair) {
            (None, Some(pair)) => match self.undelivered_from(conversation, &caller.identity, pair).await? {
                Some(Undelivered { after, first, head, cut }) => (Some(after), head, cut, first),
                None => return Ok(Reply::Done.into()),
            },
            (from, _) => (from, 0, false, 1),
        };
        let joining = Joining::by_itself(pair, self.hub.activity()).knowing_head(head);
        match self.listen(&caller.identity, connection, conversation, since, joining).await {
            Ok((mut joined, replay)) => {
                if let Resumed::From(after) = joined.resumed {
                    // The client named no seq, so the head tells what follows.
                    joined.head = after;
                }
                if cut || since.is_none() {
                    // More was missed than is sent, or nothing says where the client stands: it reads the conversation anew.
                    joined.resumed = Resumed::Resync { first };
                }
                let reply = Reply::Joined(conversation.clone(), joined);
                Ok(CommandReply { replays: vec![replay], ..CommandReply::from(reply) })
            }
            Err(Reject::NotMember) => {
                connection.forget_dropped(conversation);
                Ok(Reply::Done.into())
            }
            Err(reject) => Err(reject),
        }
    }

    /// The entries of a direct conversation to send to a client that can't name its last seq; none if the user is not one
    /// of its members.
    async fn undelivered_from(
        &self,
        conversation: &ConversationId,
        identity: &Identity,
        pair: &Pair,
    ) -> Result<Option<Undelivered>, Reject> {
        if !pair.users().contains(&&identity.user) {
            return Ok(None);
        }
        let access = self.store.access(conversation, &identity.user).await.map_err(|error| unavailable(&error))?;
        Ok(access.map(|access| Undelivered::of(access.delivered, access.ends.first - 1, access.ends.head)))
    }

    /// Gives up automatic joins of a connection until there is room for one of `conversation`.
    pub(super) async fn make_room(
        &self,
        identity: &Identity,
        connection: &Arc<Connection>,
        conversation: &ConversationId,
    ) {
        let limit = self.limits.conversations_per_connection;
        let activity_of = |id: &ConversationId| self.hub.activity_of(&LogId::from(id));
        while let Some(least) = connection.least_active(conversation, limit, activity_of) {
            // Hints first: a message that is stored later is then never overlooked.
            self.hints.add(connection);
            self.drop_join(identity, connection, &least).await;
        }
    }

    /// Gives up one automatic join.
    async fn drop_join(&self, identity: &Identity, connection: &Connection, conversation: &ConversationId) {
        let limit = self.limits.conversations_per_connection;
        let Some(before) = connection.drop_join(conversation, limit) else { return };
        let (log, past) = (LogId::from(conversation), self.hub.past());
        let has = self.end_earlier_join(connection, &log, before).await;
        connection.record_dropped(conversation, has.map(|has| (has, past)));
        self.follows.release(&log);
        self.metrics.joins_dropped.inc();
        self.backplane.unlisten(connection.id(), conversation).await;
        self.typing.stop(identity, conversation, Some(connection.id()));
        // A message whose hints went out before the join ended, and that was still on its way. If the store can't be read
        // now, the next comparison finds it.
        if let Ok(ends) = self.follows.loader.ends(&log).await
            && has.is_none_or(|has| ends.head > has)
        {
            hint(connection, conversation);
        }
    }

    /// Leaves an automatic join to a hint, because too many are under way.
    pub(super) fn defer_join(&self, connection: &Arc<Connection>, conversation: &ConversationId, since: Seq) {
        connection.record_missed(conversation, (since, self.hub.past()), self.limits.conversations_per_connection);
        self.hints.add(connection);
        self.hints.check_soon();
    }
}
