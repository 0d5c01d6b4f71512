//! Commands that send, edit, delete and react to messages, and those that read them.

use std::{sync::Arc, time::Duration};

use tokio::time::timeout;

use super::{
    Chat,
    command::{Begun, Caller, CommandReply, unavailable, unwritten},
    personas::Asked,
};
use crate::{
    degrade::Feature,
    dialect::AutoJoin,
    model::{
        Body, ClientId, Content, ConversationId, DataEdit, Emoji, Entry, EntryPage, EntryRange, FoundMessages, LogId,
        Message, MessagePage, NewMessage, Page, PageLimit, Pair, Reject, Reply, SearchTerms, Seq, Target, UserId,
    },
    store::{Authority, Ends, FoundDirect, MessagesPage, SearchScope},
};

/// Maximum time that a message waits for the end of a replay of its conversation to its own socket: a slow client must not
/// keep its message from others for long.
const REPLAY_WAIT: Duration = Duration::from_secs(1);

impl Chat {
    /// Sends a message. The ack waits for the commit and for nothing after it.
    pub(super) async fn send(&self, caller: Caller, message: NewMessage) -> Begun {
        let recipient = match &message.to {
            Target::User(user) => Some(user.clone()),
            Target::Conversation(_) => None,
        };
        let (asked, body, client_id) = (Asked::of(&message), message.body(), message.client_id.clone());
        match self.address(&caller, message).await {
            Ok(log) => {
                let begun = self.journal.append(&caller, (log, recipient), body, client_id, Authority::Member);
                let begun = self.echo_repeat(&caller, begun);
                self.ask_persona(&caller, asked, begun)
            }
            Err(reject) => Begun::Done(Err(reject)),
        }
    }

    /// Asks the persona that a message names once the message in `begun` is stored.
    pub(super) fn ask_persona(&self, caller: &Caller, asked: Option<Asked>, begun: Begun) -> Begun {
        match (asked, &self.personas) {
            (Some(asked), Some(personas)) => personas.enqueue_after(asked, caller.clone(), begun),
            _ => begun,
        }
    }

    /// The log that a message goes to.
    async fn address(&self, caller: &Caller, message: NewMessage) -> Result<LogId, Reject> {
        if let Some(persona) = &message.persona {
            let personas = self.personas.as_ref().ok_or(Reject::NoPersonas)?;
            if !personas.has(persona) {
                return Err(Reject::NotFound("Persona"));
            }
        }
        let conversation = match message.to {
            Target::Conversation(conversation) => conversation,
            Target::User(user) => self.direct(caller, &user).await?,
        };
        if let Some(connection) = &caller.connection {
            // A replay under way would bring the socket its own message, beside the ack.
            let _slow = timeout(REPLAY_WAIT, connection.live(&conversation)).await;
        }
        Ok(LogId::from(&conversation))
    }

    /// The direct conversation with another user, created if needed.
    async fn direct(&self, caller: &Caller, other: &UserId) -> Result<ConversationId, Reject> {
        let one = &caller.identity.user;
        let pair = Pair::of(one, other);
        if let Some(known) = self.members.cached_direct(&pair) {
            self.listen_first(caller, &known, &pair, false).await?;
            return Ok(known);
        }
        self.require_unblocked(one, std::slice::from_ref(other)).await?;
        let found = self.find_direct(one, other).await.map_err(|reject| match reject {
            // The conversation may be there, but the message is not stored.
            Reject::Unknown => Reject::Unavailable,
            reject => reject,
        });
        let FoundDirect { conversation, head, inbox_entries } = found?;
        // A conversation without entries may be this user's own, created by a try whose answer was lost.
        let new = head == 0;
        let listened = self.listen_first(caller, &conversation, &pair, new).await;
        // The conversation exists also if this connection can't listen to it now.
        self.tell_members(&pair, new, inbox_entries).await;
        listened?;
        self.members.cache_direct(pair, conversation.clone());
        Ok(conversation)
    }

    /// Lets a socket listen to a direct conversation before its own message goes there, if the conversation is `new`, or
    /// younger than the socket. Its inbox would let the socket join it, but maybe after the ack: the client would receive its
    /// own message, and the other user's earlier ones after the ack.
    async fn listen_first(
        &self,
        caller: &Caller,
        conversation: &ConversationId,
        pair: &Pair,
        new: bool,
    ) -> Result<(), Reject> {
        let Some(connection) = &caller.connection else { return Ok(()) };
        // One that listens already lacks nothing, and a second join from the start would repeat what it has.
        if connection.listens_to(conversation) || !new && !connection.is_to_join(conversation) {
            return Ok(());
        }
        let said = match connection.dialect.joins() {
            AutoJoin::Nothing => return Ok(()),
            AutoJoin::Added => None,
            AutoJoin::Directs => Some(Arc::new(pair.clone())),
        };
        self.subscriptions.listen_from_start(&caller.identity, connection, conversation, said).await
    }

    /// The direct conversation of two users in the store.
    pub(super) async fn find_direct(&self, one: &UserId, other: &UserId) -> Result<FoundDirect, Reject> {
        self.store.direct(one, other).await.map_err(|error| {
            self.retell.doubt_inboxes(&error, [one, other]);
            unwritten(&error)
        })
    }

    /// Tells the members of a direct conversation in which nobody wrote yet that it exists, whether this call created it or
    /// an earlier one whose answer was lost.
    pub(super) async fn tell_members(&self, pair: &Pair, new: bool, inbox_entries: Vec<Entry>) {
        match inbox_entries.is_empty() {
            true if new => self.retell.retell(pair.users().into_iter().map(LogId::inbox).collect()).await,
            true => {}
            false => self.router.send_entries(inbox_entries),
        }
    }

    pub(super) fn edit(
        &self,
        caller: &Caller,
        conversation: &ConversationId,
        target: Seq,
        (content, data): (Content, DataEdit),
        client_id: Option<ClientId>,
    ) -> Begun {
        let body = Body::Edited { target, content: content.into(), data };
        self.journal.append(caller, (LogId::from(conversation), None), body, client_id, Authority::Member)
    }

    pub(super) fn delete(
        &self,
        caller: &Caller,
        conversation: &ConversationId,
        target: Seq,
        client_id: Option<ClientId>,
    ) -> Begun {
        let authority = if caller.identity.admin { Authority::Admin } else { Authority::Member };
        self.journal.append(caller, (LogId::from(conversation), None), Body::Deleted { target }, client_id, authority)
    }

    pub(super) fn react(
        &self,
        caller: &Caller,
        conversation: &ConversationId,
        target: Seq,
        emoji: Emoji,
        active: bool,
        client_id: Option<ClientId>,
    ) -> Begun {
        let body = Body::Reacted { target, emoji: emoji.as_str().into(), active };
        self.journal.append(caller, (LogId::from(conversation), None), body, client_id, Authority::Member)
    }

    pub(super) async fn history(
        &self,
        caller: &Caller,
        conversation: ConversationId,
        page: MessagesPage,
    ) -> Result<CommandReply, Reject> {
        self.require_feature(Feature::History)?;
        let read = self.store.messages(&conversation, &caller.identity.user, page).await;
        let read = read.map_err(|error| unavailable(&error))?;
        let seq_of = |message: Option<&Message>| message.map(|message| message.entry.seq);
        let mut shown = MessagePage {
            conversation,
            next_before: seq_of(read.messages.last()).filter(|_| read.more_older),
            next_after: seq_of(read.messages.first()).filter(|_| read.more_newer),
            messages: read.messages,
            total: read.total,
            as_of: read.head,
            page: page.page,
        };
        shown.limit_bytes(read.newer, self.answer_limits.of(caller));
        Ok(Reply::History(shown).into())
    }

    pub(super) async fn entries(
        &self,
        conversation: &ConversationId,
        range: EntryRange,
        limit: PageLimit,
    ) -> Result<CommandReply, Reject> {
        self.require_feature(Feature::History)?;
        let log = LogId::from(conversation);
        let found = self.store.ends(std::slice::from_ref(&log)).await.map_err(|error| unavailable(&error))?;
        let (_, Ends { first, head, .. }) = found.into_iter().next().ok_or(Reject::NotFound("Conversation"))?;
        // Seqs have no gaps.
        let page = Seq::from(limit.get());
        let (after, until) = match range {
            EntryRange::Newest => ((head - page).max(0), head),
            EntryRange::Before(seq) => ((seq.get() - 1 - page).max(0), seq.get() - 1),
            EntryRange::After(seq) => (seq.get(), head),
        };
        let read = self.store.entries(&log, after, limit.get()).await.map_err(|error| unavailable(&error))?;
        let entries = read.into_iter().filter(|entry| entry.seq <= until).collect();
        Ok(Reply::Entries(EntryPage { entries, first, head }).into())
    }

    pub(super) async fn show(
        &self,
        caller: &Caller,
        conversation: &ConversationId,
        target: Seq,
    ) -> Result<CommandReply, Reject> {
        self.require_feature(Feature::History)?;
        let read = self.store.message(conversation, target, &caller.identity.user).await;
        let message = read.map_err(|error| unavailable(&error))?.ok_or(Reject::NotFound("Message"))?;
        Ok(Reply::Message(Box::new(message)).into())
    }

    pub(super) async fn search(
        &self,
        caller: &Caller,
        terms: &SearchTerms,
        conversation: Option<ConversationId>,
        page: Page,
    ) -> Result<CommandReply, Reject> {
        self.require_feature(Feature::History)?;
        let scope = conversation.map_or_else(|| SearchScope::Own(caller.identity.user.clone()), SearchScope::One);
        let found = self.store.search(&scope, terms, page).await.map_err(|error| unavailable(&error))?;
        let full = found.len() >= page.limit.get() as usize;
        let found = FoundMessages::within(found, page.offset, full, self.answer_limits.of(caller));
        Ok(Reply::Found(found).into())
    }
}
