//! Replies to native clients.

use std::collections::HashMap;

use super::{
    outbound::{Out, Ref},
    shapes::{
        ConversationSummary, FirstSeq, MemberOf, MemberPresence, Message, MessageView, PresentUser, Refused, SyncedOne,
    },
};
use crate::{
    model::{
        self, Conversation, ConversationId, ConversationKind, Entry, Joined, Member, Presence, Reject, Reply, Resumed,
        Sent, UserId,
    },
    outbox::Frame,
};

/// Encodes a reply.
pub(super) fn reply(reference: Ref<'_>, reply: &Reply) -> Frame {
    match reply {
        Reply::Joined(conversation, Joined { head, resumed: Resumed::From(_) }) => {
            Out::Joined { reference, conversation_id: conversation, head: *head }
        }
        Reply::Joined(conversation, Joined { head, resumed: Resumed::Resync { first } }) => {
            Out::Resync { reference, conversation_id: conversation.clone(), first_seq: *first, head: *head }
        }
        Reply::Left { conversation } => Out::Left { reference, conversation_id: conversation },
        Reply::Synced(each) => Out::Synced { reference, conversations: each.iter().map(synced).collect() },
        Reply::Sent(sent) => ack(reference, sent),
        Reply::History(page) => Out::History {
            reference,
            conversation_id: &page.conversation,
            messages: page.messages.iter().filter_map(message_view).collect(),
            total: page.total,
        },
        Reply::Found(found) => Out::Found { reference, messages: found.iter().filter_map(message).collect() },
        Reply::Presence(users) => Out::PresenceList { reference, users: users.iter().map(present).collect() },
        Reply::Pong => Out::Pong { reference },
        Reply::Conversations(list) => Out::Conversations {
            reference,
            conversations: list.conversations.iter().map(|one| summary(one, &list.presence)).collect(),
            total: list.total,
            status: list.status,
        },
        Reply::Unchanged(client_id) => Out::Ok { reference, client_id: client_id.as_ref() },
        // These commands come only over REST.
        Reply::Done
        | Reply::Blocks(_)
        | Reply::Created(_)
        | Reply::Conversation(_)
        | Reply::Message(_)
        | Reply::Notifications(_)
        | Reply::Online { .. }
        | Reply::Connections(_)
        | Reply::Stats(_)
        | Reply::Restricted(_)
        | Reply::BlockOf(_)
        | Reply::BlockedUsers(..) => Out::Ok { reference, client_id: None },
    }
    .frame()
}

fn ack<'a>(reference: Ref<'a>, sent: &'a Sent) -> Out<'a> {
    Out::Ack {
        reference,
        client_id: sent.client_id.as_ref(),
        conversation_id: &sent.log,
        seq: sent.seq,
        id: sent.id(),
        created_at: sent.at,
        duplicate: sent.duplicate,
    }
}

fn synced((conversation_id, outcome): &(ConversationId, Result<Joined, Reject>)) -> SyncedOne<'_> {
    let mut one = SyncedOne { conversation_id, head: None, resync: None, error: None };
    match outcome {
        Ok(Joined { head, resumed }) => {
            one.head = Some(*head);
            if let Resumed::Resync { first } = resumed {
                one.resync = Some(FirstSeq { first_seq: *first });
            }
        }
        Err(reject) => {
            let (code, retryable) = (reject.code(), reject.retryable());
            one.error = Some(Refused { code, message: reject.to_string(), retryable });
        }
    }
    one
}

fn message(entry: &Entry) -> Option<Message<'_>> {
    match Out::entry(entry) {
        Out::Message(message) => Some(message),
        _ => None,
    }
}

fn message_view(model::Message { entry, reactions, replies }: &model::Message) -> Option<MessageView<'_>> {
    Some(MessageView { message: message(entry)?, reactions, replies: *replies })
}

fn present(presence: &Presence) -> PresentUser<'_> {
    PresentUser {
        user_id: &presence.user,
        online: presence.online,
        status: presence.status,
        last_seen: presence.last_seen,
    }
}

fn summary<'a>(of: &'a Conversation, presence: &HashMap<UserId, Presence>) -> ConversationSummary<'a> {
    let member = |member: &'a Member| {
        let shown = presence.get(&member.user).map(|presence| MemberPresence {
            online: presence.online,
            status: presence.status,
            last_seen: presence.last_seen,
        });
        MemberOf {
            user_id: &member.user,
            name: member.name.as_deref(),
            delivered_seq: member.delivered_seq,
            read_seq: member.read_seq,
            presence: shown,
        }
    };
    ConversationSummary {
        conversation_id: &of.id,
        name: of.name.as_deref(),
        description: of.description.as_deref(),
        is_group: of.kind == ConversationKind::Group,
        open: of.open,
        created_by: &of.created_by,
        created_at: of.created_at,
        updated_at: of.updated_at,
        head: of.head,
        unread: of.unread,
        archived: of.archived,
        last_message: of.last_message.as_deref().and_then(message),
        members: of.members.iter().map(member).collect(),
    }
}
