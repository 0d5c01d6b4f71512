//! Appends to logs: the rate limit of senders, and the mapping of the writer's result to a reply.

use std::sync::Arc;

use futures_util::FutureExt;

use super::command::{Begun, Caller, CommandReply, require_feature};
use crate::{
    backplane::{Backplane, RateDecision},
    config::Limits,
    degrade::{Degrade, Feature},
    metrics::Metrics,
    model::{Body, ClientId, ConversationId, Identity, LogId, Reject, Reply, Sent, UserId},
    store::{AppendError, AppendRefused, Appended, Authority, NewEntry, Writer},
};

/// Appends entries for commands.
pub(super) struct Journal {
    pub(super) writer: Arc<Writer>,
    pub(super) backplane: Arc<Backplane>,
    pub(super) degrade: Arc<Degrade>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) limits: Limits,
}

impl Journal {
    /// Counts a message against its sender's rate limit.
    pub(super) async fn admit(&self, identity: &Identity) -> Result<(), Reject> {
        let limit = self.rate_limit(identity);
        match self.backplane.admit(&identity.user, limit).await {
            RateDecision::Admitted => Ok(()),
            RateDecision::Refused { sent, retry_after } => {
                self.metrics.rate_limited.inc();
                Err(Reject::RateLimited { sent, limit, retry_after })
            }
        }
    }

    /// Messages per minute for this user: the limit of their tier, or else the general one.
    fn rate_limit(&self, identity: &Identity) -> u32 {
        let by_tier = self.limits.messages_per_minute_by_tier.iter();
        let own = by_tier.into_iter().find(|(tier, _)| Some(tier) == identity.tier.as_ref());
        own.map_or(self.limits.messages_per_minute, |(_, limit)| *limit)
    }

    /// Queues an entry before it returns, so that the sender's next command comes after it. The result completes after
    /// the commit.
    pub(super) fn append(
        &self,
        caller: &Caller,
        (log, recipient): (LogId, Option<UserId>),
        body: Body,
        client_id: Option<ClientId>,
        authority: Authority,
    ) -> Begun {
        if let Err(reject) = require_feature(&self.degrade, Feature::Append) {
            return Begun::Done(Err(reject));
        }
        let is_message = body.is_message();
        let origin = caller.connection.as_ref().map(|connection| connection.id());
        let entry = new_entry(&caller.identity, log.clone(), body, client_id.clone(), authority);
        let (metrics, appended) = (self.metrics.clone(), self.writer.append(entry, origin));
        let answer = async move {
            let appended = appended.await.map_err(refusal)?;
            if is_message && !appended.duplicate {
                metrics.messages.inc();
            }
            let Appended { seq, at, duplicate, .. } = appended;
            Ok(CommandReply::from(Reply::Sent(Sent { log, recipient, seq, at, client_id, duplicate })))
        };
        Begun::Pending(answer.boxed())
    }

    /// Appends a change of members on behalf of the broker. Returns false if nothing changed.
    pub(super) async fn append_change(
        &self,
        identity: &Identity,
        conversation: &ConversationId,
        body: Body,
        authority: Authority,
    ) -> Result<bool, Reject> {
        require_feature(&self.degrade, Feature::Append)?;
        let entry = new_entry(identity, LogId::from(conversation), body, None, authority);
        match self.writer.append(entry, None).await {
            Ok(_) => Ok(true),
            Err(AppendError::Refused(AppendRefused::Unchanged)) => Ok(false),
            Err(error) => Err(refusal(error)),
        }
    }
}

fn new_entry(
    identity: &Identity,
    log: LogId,
    body: Body,
    client_id: Option<ClientId>,
    authority: Authority,
) -> NewEntry {
    NewEntry {
        log,
        sender: identity.user.clone(),
        sender_name: identity.name.clone(),
        client_gave_id: client_id.is_some(),
        dedupe: client_id.unwrap_or_else(ClientId::fresh),
        authority,
        body,
    }
}

/// Maps a failed append to the reject for the client.
fn refusal(error: AppendError) -> Reject {
    match error {
        AppendError::Refused(refused) => match refused {
            AppendRefused::NotMember => Reject::NotMember,
            AppendRefused::NoSuchLog => Reject::NotFound("Conversation"),
            AppendRefused::NoSuchTarget => Reject::NotFound("Message"),
            AppendRefused::NotYours => Reject::Forbidden("Not your message"),
            AppendRefused::Unchanged => Reject::Conflict("Nothing to change"),
        },
        AppendError::Unavailable => Reject::Unavailable,
        AppendError::Unknown => Reject::Unknown,
    }
}
