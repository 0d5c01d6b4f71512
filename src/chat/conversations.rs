//! Commands that create and read conversations and change their members.

use std::collections::HashSet;

use super::{
    Chat,
    command::{Caller, CommandReply, unavailable, unwritten},
};
use crate::{
    degrade::Feature,
    model::{
        Body, Conversation, ConversationId, ConversationKind, ConversationList, Identity, Listed, LogId,
        NewConversation, Page, Pair, Reject, Reply, UserId,
    },
    store::{Authority, FoundDirect},
};

impl Chat {
    pub(super) async fn create(&self, caller: &Caller, new: NewConversation) -> Result<CommandReply, Reject> {
        self.require_feature(Feature::Append)?;
        let creator = &caller.identity.user;
        self.users.ensure_stored(&caller.identity).await?;
        self.require_unblocked(creator, &new.members).await?;
        if let ([other], false, None) = (&new.members[..], new.is_group, &new.id) {
            let FoundDirect { conversation, head, inbox_entries } = self.find_direct(creator, other).await?;
            self.tell_members(&Pair::of(creator, other), head == 0, inbox_entries).await;
            return Ok(Reply::Created(self.read_conversation(&conversation, creator).await?).into());
        }
        let id = new.id.clone().unwrap_or_else(ConversationId::fresh);
        let made = self.store.create(&new, &id, creator).await.map_err(|error| {
            self.retell.doubt_inboxes(&error, new.members.iter().chain([creator]));
            unwritten(&error)
        })?;
        let Some((conversation, inbox_entries)) = made else { return self.created_before(&id, &new, creator).await };
        self.router.send_entries(inbox_entries);
        Ok(Reply::Created(conversation).into())
    }

    /// Answers a creation whose id is taken. If the same user created the conversation in the same form, this is a repeat
    /// of a creation whose answer was lost: it gets the answer of the first try, and the members are told again.
    async fn created_before(
        &self,
        id: &ConversationId,
        new: &NewConversation,
        creator: &UserId,
    ) -> Result<CommandReply, Reject> {
        const TAKEN: Reject = Reject::Conflict("There is a conversation with this id");
        let found = self.store.conversation(id, creator).await.map_err(|error| unavailable(&error))?.ok_or(TAKEN)?;
        let members: HashSet<&UserId> = found.members.iter().map(|member| &member.user).collect();
        let same = found.created_by == *creator
            && found.kind == ConversationKind::Group
            && (&found.name, &found.description, found.open) == (&new.name, &new.description, new.open)
            && new.members.iter().chain([creator]).all(|user| members.contains(user));
        if !same {
            return Err(TAKEN);
        }
        self.retell.retell(members.into_iter().map(LogId::inbox).collect()).await;
        Ok(Reply::Created(found).into())
    }

    pub(super) async fn conversations(
        &self,
        caller: &Caller,
        archived: bool,
        page: Page,
    ) -> Result<CommandReply, Reject> {
        self.conversations_of(caller, &caller.identity.user, archived, page).await
    }

    /// The conversations of a user, who need not be the caller.
    pub(super) async fn conversations_of(
        &self,
        caller: &Caller,
        user: &UserId,
        archived: bool,
        page: Page,
    ) -> Result<CommandReply, Reject> {
        self.require_feature(Feature::History)?;
        let listed = self.store.conversations(user, archived, page).await;
        let (listed, total) = listed.map_err(|error| unavailable(&error))?;
        let most = self.answer_limits.of(caller);
        let (conversations, next_offset) = ConversationList::within(listed, total, page.offset, most);
        let users = shown_users(&conversations);
        let presence = self.presence.of(users).await?.into_iter().map(|one| (one.user.clone(), one)).collect();
        let status = self.presence.status_of(user).await;
        let list = ConversationList { conversations, total, next_offset, presence, status };
        Ok(Reply::Conversations(list).into())
    }

    pub(super) async fn archive(
        &self,
        caller: &Caller,
        id: &ConversationId,
        archived: bool,
    ) -> Result<CommandReply, Reject> {
        self.require_feature(Feature::Append)?;
        match self.store.archive(id, &caller.identity.user, archived).await.map_err(|error| unwritten(&error))? {
            true => Ok(Reply::Done.into()),
            false => Err(Reject::NotMember),
        }
    }

    pub(super) async fn describe(&self, caller: &Caller, id: &ConversationId) -> Result<CommandReply, Reject> {
        Ok(Reply::Conversation(self.read_conversation(id, &caller.identity.user).await?).into())
    }

    pub(super) async fn add_members(
        &self,
        caller: &Caller,
        id: &ConversationId,
        users: Listed<UserId>,
    ) -> Result<CommandReply, Reject> {
        let conversation = self.group(id, &caller.identity).await?;
        let mut refused = None;
        for user in users {
            let change = Body::MemberAdded { user: user.clone() };
            match self.change_member(&caller.identity, &conversation.id, change, &user).await {
                // A user who may not be added keeps nobody else out.
                Err(barred @ Reject::Forbidden(_)) => refused = Some(barred),
                changed => changed?,
            }
        }
        if let Some(refused) = refused {
            return Err(refused);
        }
        Ok(Reply::Conversation(self.read_conversation(id, &caller.identity.user).await?).into())
    }

    pub(super) async fn remove_member(
        &self,
        caller: &Caller,
        id: &ConversationId,
        user: UserId,
    ) -> Result<CommandReply, Reject> {
        let identity = &caller.identity;
        let conversation = self.group(id, identity).await?;
        if !(identity.admin || user == identity.user || conversation.created_by == identity.user) {
            return Err(Reject::Forbidden("Only the creator removes others"));
        }
        self.change_member(identity, id, Body::MemberRemoved { user: user.clone() }, &user).await?;
        Ok(Reply::Done.into())
    }

    /// Adds or removes a member. If there is nothing to change, an earlier try may have stored the change whose answer was
    /// lost, so its entries are sent again.
    async fn change_member(
        &self,
        identity: &Identity,
        id: &ConversationId,
        change: Body,
        member: &UserId,
    ) -> Result<(), Reject> {
        if !self.journal.append_change(identity, id, change, authority(identity)).await? {
            self.retell.retell(vec![LogId::from(id), LogId::inbox(member)]).await;
        }
        Ok(())
    }

    /// Reads a conversation and rejects a direct one, whose members can't change.
    async fn group(&self, id: &ConversationId, identity: &Identity) -> Result<Conversation, Reject> {
        let conversation = self.read_conversation(id, &identity.user).await?;
        match conversation.kind {
            ConversationKind::Group => Ok(conversation),
            ConversationKind::Direct => Err(Reject::Forbidden("A direct conversation keeps its two members")),
        }
    }

    async fn read_conversation(&self, id: &ConversationId, reader: &UserId) -> Result<Conversation, Reject> {
        self.require_feature(Feature::History)?;
        let read = self.store.conversation(id, reader).await.map_err(|error| unavailable(&error))?;
        read.ok_or(Reject::NotFound("Conversation"))
    }
}

/// The members whose presence a list shows: those of direct conversations first, then of groups in their order.
fn shown_users(conversations: &[Conversation]) -> Vec<UserId> {
    let of = |kind| conversations.iter().filter(move |one| one.kind == kind).flat_map(|one| &one.members);
    let mut known = HashSet::new();
    let members = of(ConversationKind::Direct).chain(of(ConversationKind::Group)).map(|member| &member.user);
    members.filter(|user| known.insert(*user)).take(Listed::<UserId>::MAX).cloned().collect()
}

fn authority(identity: &Identity) -> Authority {
    if identity.admin { Authority::Admin } else { Authority::Member }
}
