//! Commands that create and read conversations and change their members.

use super::{
    Chat,
    command::{Caller, CommandReply, unavailable},
};
use crate::{
    degrade::Feature,
    model::{
        Body, Conversation, ConversationId, ConversationKind, Identity, Listed, NewConversation, Page, Reject, Reply,
        UserId,
    },
    store::Authority,
};

impl Chat {
    pub(super) async fn create(&self, caller: &Caller, new: NewConversation) -> Result<CommandReply, Reject> {
        self.require_feature(Feature::Append)?;
        let creator = &caller.identity.user;
        self.users.ensure_stored(&caller.identity).await?;
        if let ([other], false, None) = (&new.members[..], new.is_group, &new.id) {
            let (id, inbox_entries) = self.store.direct(creator, other).await.map_err(|error| unavailable(&error))?;
            self.router.send_entries(inbox_entries);
            return Ok(Reply::Created(self.read_conversation(&id, creator).await?).into());
        }
        let id = new.id.clone().unwrap_or_else(ConversationId::fresh);
        let made = self.store.create(&new, &id, creator).await.map_err(|error| unavailable(&error))?;
        let (conversation, inbox_entries) = made.ok_or(Reject::Conflict("There is a conversation with this id"))?;
        self.router.send_entries(inbox_entries);
        Ok(Reply::Created(conversation).into())
    }

    pub(super) async fn conversations(
        &self,
        caller: &Caller,
        archived: bool,
        page: Page,
    ) -> Result<CommandReply, Reject> {
        self.require_feature(Feature::History)?;
        let listed = self.store.conversations(&caller.identity.user, archived, page).await;
        let (conversations, total) = listed.map_err(|error| unavailable(&error))?;
        Ok(Reply::Conversations(conversations, total).into())
    }

    pub(super) async fn archive(
        &self,
        caller: &Caller,
        id: &ConversationId,
        archived: bool,
    ) -> Result<CommandReply, Reject> {
        self.require_feature(Feature::Append)?;
        match self.store.archive(id, &caller.identity.user, archived).await.map_err(|error| unavailable(&error))? {
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
        for user in users {
            let authority = authority(&caller.identity);
            self.journal
                .append_change(&caller.identity, &conversation.id, Body::MemberAdded { user }, authority)
                .await?;
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
        self.journal.append_change(identity, id, Body::MemberRemoved { user }, authority(identity)).await?;
        Ok(Reply::Done.into())
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

fn authority(identity: &Identity) -> Authority {
    if identity.admin { Authority::Admin } else { Authority::Member }
}
