//! What a session does with the signals of the hub and of commands.

use super::open::Open;
use crate::{
    dialect::{AutoJoin, RequestMeta},
    model::{CloseReason, ConversationId, Reject, Seq},
    outbox::Signal,
};

impl Open {
    /// Handles a signal.
    pub(super) fn handle_signal(&mut self, signal: Signal) -> Result<(), CloseReason> {
        match signal {
            Signal::Presence(changes) => {
                self.roster.iter_mut().for_each(|roster| roster.apply(&changes));
                Ok(())
            }
            Signal::Added { conversation, since } => {
                self.roster.iter_mut().for_each(|roster| roster.outdate());
                // The inbox signals a new conversation to every socket of the user; some dialects join it by
                // themselves.
                let joins = self.connection.dialect.joins() != AutoJoin::Nothing;
                if joins {
                    self.join_or_defer(conversation, since);
                }
                Ok(())
            }
            Signal::Hint(conversation) => {
                // A hint for which there is no room now is found later.
                if self.has_room_for_joins()
                    && self.connection.lacks(&conversation)
                    && !self.signalled.joins(&conversation)
                {
                    self.signalled.join(conversation, None);
                }
                Ok(())
            }
            // Admins listen also where they are no members.
            Signal::NoMember { .. } if self.identity.admin => Ok(()),
            Signal::Removed { conversation, seq } | Signal::NoMember { conversation, seq } => {
                self.lose_membership(conversation, seq)
            }
            Signal::Restarted(conversation) => {
                self.life.arrivals.forget(&conversation);
                Ok(())
            }
            Signal::Delivered { conversation, seq, position } => {
                self.life.arrivals.record(conversation, seq, position);
                self.life.heartbeat.ping_soon();
                Ok(())
            }
            Signal::Probe => {
                self.life.heartbeat.ping_now();
                Ok(())
            }
            Signal::Failed { client_id, reject } => {
                let request = RequestMeta { client_id, ..RequestMeta::at(self.context.clock.now()) };
                self.reject(request, reject);
                Ok(())
            }
        }
    }

    /// Stops listening to a conversation of which the user is no member any more since the entry `seq`.
    fn lose_membership(&mut self, conversation: ConversationId, seq: Seq) -> Result<(), CloseReason> {
        self.roster.iter_mut().for_each(|roster| roster.outdate());
        if self.connection.bound.as_ref() == Some(&conversation) {
            return Err(CloseReason::Refused(Reject::NotMember));
        }
        self.signalled.removed(conversation, seq);
        Ok(())
    }

    /// True if another join that a signal requires may wait.
    fn has_room_for_joins(&self) -> bool {
        self.signalled.count() < self.context.config.limits.conversations_per_connection
    }

    fn join_or_defer(&mut self, conversation: ConversationId, since: Seq) {
        let (limit, listens) =
            (self.context.config.limits.conversations_per_connection, self.connection.listens_to(&conversation));
        if listens || self.has_room_for_joins() {
            return self.signalled.added(conversation, since, listens, limit);
        }
        self.context.chat.defer_join(&self.connection, &conversation, since);
    }
}
