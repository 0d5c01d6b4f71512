//! Appends to logs, and the mapping of the writer's result to a reply.

use std::sync::Arc;

use futures_util::FutureExt;

use super::{
    budgets::Budgets,
    command::{BARRED, Begun, Caller, CommandReply, ID_REUSED, require_feature},
};
use crate::{
    degrade::{Degrade, Feature},
    metrics::Metrics,
    model::{Body, Budget, ClientId, ConversationId, Data, Identity, LogId, Reject, Reply, Sent, UserId},
    store::{AppendError, AppendRefused, Appended, Authority, NewEntry, Writer},
};

/// Appends entries for commands.
pub(super) struct Journal {
    pub(super) writer: Arc<Writer>,
    pub(super) budgets: Arc<Budgets>,
    pub(super) degrade: Arc<Degrade>,
    pub(super) metrics: Arc<Metrics>,
}

impl Journal {
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
        let (is_message, data_bytes) = (body.is_message(), body.payload().1.map_or(0, Data::bytes));
        let is_reaction = matches!(body, Body::Reacted { .. });
        let entry = new_entry(&caller.identity, log.clone(), body, client_id.clone(), authority);
        let (metrics, budgets) = (self.metrics.clone(), self.budgets.clone());
        let (identity, appended) = (caller.identity.clone(), self.writer.append(entry, caller.ack.clone()));
        let answer = async move {
            let appended = match appended.await {
                Err(AppendError::Refused(AppendRefused::Unchanged)) if is_reaction => {
                    return Ok(Reply::Unchanged(client_id).into());
                }
                appended => appended.map_err(|error| refusal(error, identity.admin))?,
            };
            if appended.duplicate {
                let charged = if is_message { Budget::Send } else { Budget::Write };
                budgets.charge_as_repeat(&identity, charged).await;
            } else {
                metrics.messages.inc_by(u64::from(is_message));
                metrics.data_bytes.inc_by(data_bytes as u64);
            }
            let Appended { seq, at, duplicate, .. } = appended;
            Ok(CommandReply::from(Reply::Sent(Sent { log, recipient, seq, at, client_id, duplicate })))
        };
        Begun::Pending(answer.boxed())
    }

    /// Waits until every entry of this log that this node queued before has its outcome.
    pub(super) async fn settled(&self, log: &LogId) {
        self.writer.settled(log).await;
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
            Err(error) => Err(refusal(error, identity.admin)),
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

/// Maps a failed append to the reject for the client. Only admins learn that a conversation doesn't exist; for others it
/// is the same as one of other users.
fn refusal(error: AppendError, admin: bool) -> Reject {
    match error {
        AppendError::Refused(refused) => match refused {
            AppendRefused::NotMember => Reject::NotMember,
            AppendRefused::NoSuchLog if admin => Reject::NotFound("Conversation"),
            AppendRefused::NoSuchLog => Reject::NotMember,
            AppendRefused::NoSuchTarget => Reject::NotFound("Message"),
            AppendRefused::NotYours => Reject::Forbidden("Not your message"),
            AppendRefused::Barred => BARRED,
            AppendRefused::Unchanged => Reject::Conflict("Nothing to change"),
            AppendRefused::IdReused => ID_REUSED,
            AppendRefused::TooManyReactions => Reject::TooManyReactions,
        },
        AppendError::Unavailable => Reject::Unavailable,
        AppendError::Unknown => Reject::Unknown,
    }
}
