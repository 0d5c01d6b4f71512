//! Repeats of stored commands, which a rate limit must not refuse: a client repeats what it got no answer to. A command
//! that only reuses a stored `client_id` is no repeat.

use std::{sync::Arc, time::Duration};

use futures_util::FutureExt;

use super::{
    Chat,
    command::{Begun, Caller, CommandReply, ID_REUSED},
    personas::Asked,
    router::Origin,
};
use crate::{
    degrade::Feature,
    model::{Body, ClientId, Command, Cost, Event, LogId, Pair, Reply, Sent, Target, UserId},
    store::{StoreError, StoredCommand},
};

/// Maximum wait for sends of the same log that are under way.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(1);

/// A command with a `client_id`, as the store would have it.
struct Repeated<'a> {
    client_id: &'a ClientId,
    target: Log<'a>,
    body: Body,
}

/// The log of a command.
enum Log<'a> {
    Of(LogId),
    /// The direct conversation with this user.
    With(&'a UserId),
}

impl<'a> Repeated<'a> {
    /// `None` if the command has no `client_id`.
    fn of(command: &'a Command) -> Option<Self> {
        let client_id = command.client_id()?;
        let (target, body) = match command {
            Command::Send(message) => match &message.to {
                Target::Conversation(conversation) => (Log::Of(conversation.into()), message.body()),
                Target::User(user) => (Log::With(user), message.body()),
            },
            Command::Edit { conversation, target, content, data, .. } => {
                let (target, content, data) = (target.get(), content.clone().into(), data.clone());
                let body = Body::Edited { target, content, data };
                (Log::Of(conversation.into()), body)
            }
            Command::Delete { conversation, target, .. } => {
                (Log::Of(conversation.into()), Body::Deleted { target: target.get() })
            }
            Command::React { conversation, target, emoji, active, .. } => {
                let body = Body::Reacted { target: target.get(), emoji: emoji.as_str().into(), active: *active };
                (Log::Of(conversation.into()), body)
            }
            _ => return None,
        };
        Some(Self { client_id, target, body })
    }
}

impl Chat {
    /// The answer to a command that a rate limit refused, if its `client_id` is stored; `None` if it is not, or if the
    /// read budget, which pays for the look-up, is used up too.
    pub(super) async fn recall(&self, caller: &Caller, command: &Command) -> Option<Begun> {
        let repeated = Repeated::of(command)?;
        self.require_feature(Feature::History).ok()?;
        self.budgets.charge(&caller.identity, Cost::LOOKUP).await.ok()?;
        // An admin may delete without being a member.
        let unchecked = caller.identity.admin && matches!(command, Command::Delete { .. });
        let stored = self.stored(&caller.identity.user, &repeated, unchecked).await.unwrap_or_else(|error| {
            tracing::debug!(%error, "a repeat could not be looked up");
            None
        })?;
        if !stored.is_repeated_by(&repeated.body) {
            // A later try would be refused as well.
            return Some(Begun::Done(Err(ID_REUSED)));
        }
        let entry = stored.entry;
        self.metrics.repeats_recalled.inc();
        let recipient = match repeated.target {
            Log::Of(_) => None,
            Log::With(user) => Some(user.clone()),
        };
        let client_id = Some(repeated.client_id.clone());
        let sent = Sent { log: entry.log.clone(), recipient, seq: entry.seq, at: entry.at, client_id, duplicate: true };
        // The node that stored the entry may have died before it published it.
        self.router.dispatch(vec![Event::Entry { entry: Arc::new(entry), origin: None }], Origin::Committed);
        let answer = Ok(CommandReply::from(Reply::Sent(sent)));
        let begun = self.echo_repeat(caller, Begun::Pending(std::future::ready(answer).boxed()));
        Some(match command {
            Command::Send(message) => self.ask_persona(caller, Asked::of(message), begun),
            _ => begun,
        })
    }

    /// Adds the stored entry to the answer to a repeat, for a socket whose dialect has no acks and which listens only to
    /// later entries: nothing else would tell it that its message is stored. A socket that does not listen gets none, because a
    /// client takes the highest seq that it was shown for all that it has.
    pub(super) fn echo_repeat(&self, caller: &Caller, begun: Begun) -> Begun {
        let Some(connection) = caller.connection.clone().filter(|connection| !connection.dialect.acks()) else {
            return begun;
        };
        let Begun::Pending(answer) = begun else { return begun };
        let store = self.store.clone();
        Begun::Pending(
            async move {
                let mut answer = answer.await?;
                if let Reply::Sent(Sent { log, seq, duplicate: true, .. }) = &answer.reply
                    && log.conversation().is_some_and(|id| connection.listens_only_after(&id, *seq))
                {
                    let read = store.entries(log, seq - 1, 1).await.unwrap_or_default();
                    answer.echo = read.into_iter().next().map(Arc::new);
                }
                Ok(answer)
            }
            .boxed(),
        )
    }

    /// Returns the entry that is stored under the command's id. Returns none if the sender is no longer a member, unless the
    /// membership is `unchecked`.
    async fn stored(
        &self,
        sender: &UserId,
        repeated: &Repeated<'_>,
        unchecked: bool,
    ) -> Result<Option<StoredCommand>, StoreError> {
        let log = match &repeated.target {
            Log::Of(log) => log.clone(),
            Log::With(user) => match self.members.cached_direct(&Pair::of(sender, user)) {
                Some(known) => LogId::from(&known),
                None => match self.store.known_direct(sender, user).await? {
                    Some(found) => LogId::from(&found),
                    None => return Ok(None),
                },
            },
        };
        // The first send may be under way on this node, if the client repeats it at once.
        let _ = tokio::time::timeout(SETTLE_TIMEOUT, self.journal.settled(&log)).await;
        let stored = self.store.stored(&log, sender, repeated.client_id).await?;
        let (Some(conversation), Some(_), false) = (log.conversation(), &stored, unchecked) else { return Ok(stored) };
        let access = self.store.access(&conversation, sender).await?;
        Ok(stored.filter(|_| access.is_some_and(|access| access.member)))
    }
}
