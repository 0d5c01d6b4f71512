//! Sending, editing, deleting, reacting, and reading what was said.

use std::sync::Arc;

use futures_util::FutureExt;

use super::{Answer, Begun, Caller, Chat, unavailable};
use crate::{
    backplane::Admission,
    degrade::Feature,
    dialect::Joins,
    model::{
        Body, ClientId, Content, ConversationId, Emoji, EntrySeq, Identity, LogId, MessagePage, NewMessage, Page, Pair,
        Reject, Reply, SearchTerms, Sent, Seq, Target, UserId,
    },
    store::{AppendError, AppendRefused, Appended, Authority, MessagesPage, NewEntry, SearchScope},
};

impl Chat {
    /// Takes a message: who may, how often, then the store. The ack waits for the commit and for nothing after it.
    pub(super) async fn send(self: &Arc<Self>, caller: Caller, message: NewMessage) -> Begun {
        let recipient = match &message.to {
            Target::User(user) => Some(user.clone()),
            Target::Conversation(_) => None,
        };
        let (persona, content) = (message.persona.clone(), message.content.clone());
        match self.admit(&caller, message).await {
            Ok((log, body, client_id)) => {
                let begun = self.append(&caller, (log, recipient), body, client_id, Authority::Member);
                match persona {
                    Some(persona) => self.then_ask(persona, content.into(), caller, begun),
                    None => begun,
                }
            }
            Err(reject) => Begun::Done(Err(reject)),
        }
    }

    async fn admit(
        self: &Arc<Self>,
        caller: &Caller,
        message: NewMessage,
    ) -> Result<(LogId, Body, Option<ClientId>), Reject> {
        self.needs(Feature::Append)?;
        if message.persona.is_some() && self.personas.is_none() {
            return Err(Reject::Unsupported("No persona is configured"));
        }
        let limit = self.rate_limit(&caller.identity);
        match self.backplane.admit(&caller.identity.user, limit).await {
            Admission::Admitted => {}
            Admission::Refused { sent, retry_after } => {
                self.metrics.rate_limited.inc();
                return Err(Reject::RateLimited { sent, limit, retry_after });
            }
        }
        let conversation = match message.to {
            Target::Conversation(conversation) => conversation,
            Target::User(user) => self.direct(caller, &user).await?,
        };
        let body = Body::Message {
            content: message.content.into(),
            reply_to: message.reply_to.map(EntrySeq::get),
            is_ai: false,
            edited_at: None,
            deleted: false,
        };
        Ok((LogId::from(&conversation), body, message.client_id))
    }

    /// Messages a minute for this user: their tier's number, else everybody's.
    fn rate_limit(&self, identity: &Identity) -> u32 {
        let limits = &self.config.limits;
        let by_tier = limits.messages_per_minute_by_tier.iter().find(|(tier, _)| Some(tier) == identity.tier.as_ref());
        by_tier.map_or(limits.messages_per_minute, |(_, limit)| *limit)
    }

    /// The direct conversation with another user. A socket that brings it about listens to it before anybody is told:
    /// else it would join like the others, and be given its own message.
    async fn direct(self: &Arc<Self>, caller: &Caller, other: &UserId) -> Result<ConversationId, Reject> {
        let one = &caller.identity.user;
        let pair = Pair::of(one, other);
        if let Some(known) = self.pairs.get(&pair) {
            return Ok(known);
        }
        let (conversation, told) = self.store.direct(one, other).await.map_err(|error| unavailable(&error))?;
        if let (Some(connection), false) = (&caller.connection, told.is_empty()) {
            let said = match connection.dialect.joins() {
                Joins::Nothing => None,
                Joins::Added => Some(None),
                Joins::Directs => Some(Some(Arc::new(pair.clone()))),
            };
            if let Some(said) = said {
                self.listen_from_now(&caller.identity, connection, &conversation, said).await?;
            }
        }
        self.spread_entries(told);
        self.pairs.learn(pair, conversation.clone());
        Ok(conversation)
    }

    pub(super) fn edit(
        self: &Arc<Self>,
        caller: &Caller,
        conversation: &ConversationId,
        target: Seq,
        content: Content,
        client_id: Option<ClientId>,
    ) -> Begun {
        let body = Body::Edited { target, content: content.into() };
        self.append(caller, (LogId::from(conversation), None), body, client_id, Authority::Member)
    }

    pub(super) fn delete(
        self: &Arc<Self>,
        caller: &Caller,
        conversation: &ConversationId,
        target: Seq,
        client_id: Option<ClientId>,
    ) -> Begun {
        let authority = if caller.identity.admin { Authority::Admin } else { Authority::Member };
        self.append(caller, (LogId::from(conversation), None), Body::Deleted { target }, client_id, authority)
    }

    pub(super) fn react(
        self: &Arc<Self>,
        caller: &Caller,
        conversation: &ConversationId,
        target: Seq,
        emoji: Emoji,
        active: bool,
        client_id: Option<ClientId>,
    ) -> Begun {
        let body = Body::Reacted { target, emoji: emoji.as_str().into(), active };
        self.append(caller, (LogId::from(conversation), None), body, client_id, Authority::Member)
    }

    /// Queues an entry now, so that the next command of its sender comes after it, and answers when it is known.
    fn append(
        self: &Arc<Self>,
        caller: &Caller,
        (log, recipient): (LogId, Option<UserId>),
        body: Body,
        client_id: Option<ClientId>,
        authority: Authority,
    ) -> Begun {
        if let Err(reject) = self.needs(Feature::Append) {
            return Begun::Done(Err(reject));
        }
        let is_message = body.is_message();
        let origin = caller.connection.as_ref().map(|connection| connection.id());
        let entry = new_entry(&caller.identity, log.clone(), body, client_id.clone(), authority);
        let (chat, appended) = (self.clone(), self.writer.append(entry, origin));
        let answer = async move {
            let appended = appended.await.map_err(refusal)?;
            if is_message && !appended.duplicate {
                chat.metrics.messages.inc();
            }
            let Appended { seq, at, duplicate, .. } = appended;
            Ok(Answer::from(Reply::Sent(Sent { log, recipient, seq, at, client_id, duplicate })))
        };
        Begun::Pending(answer.boxed())
    }

    /// Appends what the broker itself has to say about members.
    pub(super) async fn append_change(
        &self,
        identity: &Identity,
        conversation: &ConversationId,
        body: Body,
        authority: Authority,
    ) -> Result<Option<Appended>, Reject> {
        self.needs(Feature::Append)?;
        let entry = new_entry(identity, LogId::from(conversation), body, None, authority);
        match self.writer.append(entry, None).await {
            Ok(appended) => Ok(Some(appended)),
            Err(AppendError::Refused(AppendRefused::Unchanged)) => Ok(None),
            Err(error) => Err(refusal(error)),
        }
    }

    pub(super) async fn history(
        &self,
        caller: &Caller,
        conversation: ConversationId,
        page: MessagesPage,
    ) -> Result<Answer, Reject> {
        self.needs(Feature::History)?;
        let read = self.store.messages(&conversation, &caller.identity.user, page).await;
        let (messages, total) = read.map_err(|error| unavailable(&error))?;
        Ok(Reply::History(MessagePage { conversation, messages, total, page: page.page }).into())
    }

    pub(super) async fn show(
        &self,
        caller: &Caller,
        conversation: &ConversationId,
        target: Seq,
    ) -> Result<Answer, Reject> {
        self.needs(Feature::History)?;
        let read = self.store.message(conversation, target, &caller.identity.user).await;
        let message = read.map_err(|error| unavailable(&error))?.ok_or(Reject::NotFound("Message"))?;
        Ok(Reply::Message(message).into())
    }

    pub(super) async fn search(
        &self,
        caller: &Caller,
        terms: &SearchTerms,
        conversation: Option<ConversationId>,
        page: Page,
    ) -> Result<Answer, Reject> {
        self.needs(Feature::History)?;
        let scope = conversation.map_or_else(|| SearchScope::Own(caller.identity.user.clone()), SearchScope::One);
        let found = self.store.search(&scope, terms, page).await;
        Ok(Reply::Found(found.map_err(|error| unavailable(&error))?).into())
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

/// What a client hears when an entry was not taken.
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
