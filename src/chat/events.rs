//! Events of clients: passed on to a conversation's listeners or to a user's sockets, and never stored.
//!
//! The sender's right is read in the store, one statement each time, and remembered for a few seconds where this node
//! learns of what ends it: of a user whom it names at all times, of a conversation while this node follows its log.

use std::sync::Arc;

use super::{
    command::{BARRED, Caller, CommandReply, require_feature, unavailable},
    router::Router,
    speakers::Speakers,
};
use crate::{
    degrade::{Degrade, Feature},
    hub::Hub,
    metrics::Metrics,
    model::{ConversationId, Ephemeral, LogId, NewEvent, Reject, Reply, Seq, Target, UserId},
    store::Store,
};

mod rates;

pub(super) use rates::Rates;

/// Passes events on.
pub(super) struct Events {
    pub(super) store: Arc<dyn Store>,
    pub(super) hub: Arc<Hub>,
    pub(super) router: Arc<Router>,
    pub(super) degrade: Arc<Degrade>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) speakers: Arc<Speakers>,
    pub(super) rates: Rates,
}

impl Events {
    /// Passes an event on to all nodes, if its sender may send it.
    pub(super) async fn send(&self, caller: &Caller, event: NewEvent) -> Result<CommandReply, Reject> {
        let user = &caller.identity.user;
        let (log, after) = match &event.to {
            Target::Conversation(conversation) => self.require_speaker(user, conversation).await?,
            Target::User(other) => self.require_acquaintance(user, other).await?,
        };
        self.rates.admit(&log).inspect_err(|_| self.metrics.events_refused.inc())?;
        let NewEvent { name, data, to: _ } = event;
        let what = Ephemeral::Custom { user: user.clone(), name, data, after };
        self.router.send_ephemeral(&log, caller.connection.as_ref().map(|connection| connection.id()), [what]);
        Ok(Reply::Done.into())
    }

    /// Forgets who may send, because a block changed that.
    pub(super) fn forget_rights(&self) {
        self.speakers.forget_all();
    }

    /// The log of a conversation to which the user may send, and the newest entry that this node knows there.
    async fn require_speaker(&self, user: &UserId, conversation: &ConversationId) -> Result<(LogId, Seq), Reject> {
        let log = LogId::from(conversation);
        let right = (user.clone(), log);
        // Without the log, nothing tells this node that a member was removed.
        let followed = self.hub.last(&right.1);
        if let Some(last) = followed
            && self.speakers.knows(&right)
        {
            return Ok((right.1, last));
        }
        require_feature(&self.degrade, Feature::History)?;
        let head = self.store.speaks(conversation, user).await.map_err(|error| unavailable(&error))?;
        let Some(head) = head else { return Err(self.why_not(user, conversation).await) };
        if followed.is_some() {
            self.speakers.remember(right.clone());
        }
        Ok((right.1, self.hub.last(&LogId::from(conversation)).unwrap_or(0).max(head)))
    }

    /// Why a user may not speak in a conversation: no member, or a block in a direct conversation.
    async fn why_not(&self, user: &UserId, conversation: &ConversationId) -> Reject {
        match self.store.access(conversation, user).await {
            Ok(Some(access)) if access.member => BARRED,
            Ok(_) => Reject::NotMember,
            Err(error) => unavailable(&error),
        }
    }

    /// The inbox of a user whom the sender may reach.
    async fn require_acquaintance(&self, user: &UserId, other: &UserId) -> Result<(LogId, Seq), Reject> {
        let right = (user.clone(), LogId::inbox(other));
        if user != other && !self.speakers.knows(&right) {
            require_feature(&self.degrade, Feature::History)?;
            if !self.store.acquainted(user, other).await.map_err(|error| unavailable(&error))? {
                return Err(BARRED);
            }
            self.speakers.remember(right.clone());
        }
        Ok((right.1, 0))
    }
}
