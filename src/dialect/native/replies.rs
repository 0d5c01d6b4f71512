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
        Reply::Synced { conversations, more } => {
            Out::Synced { reference, conversations: conversations.iter().map(synced).collect(), more: *more }
        }
        Reply::Sent(sent) => ack(reference, sent),
        Reply::History(page) => Out::History {
            reference,
            conversation_id: &page.conversation,
            messages: page.messages.iter().filter_map(message_view).collect(),
            total: page.total,
            as_of: page.as_of,
            next_before_seq: page.next_before,
            next_after_seq: page.next_after,
        },
        Reply::Found(found) => Out::Found {
            reference,
            messages: found.messages.iter().filter_map(message).collect(),
            next_offset: found.next_offset,
        },
        Reply::Presence { users, more } => {
            Out::PresenceList { reference, users: users.iter().map(present).collect(), more: *more }
        }
        Reply::Pong => Out::Pong { reference },
        Reply::Conversations(list) => Out::Conversations {
            reference,
            conversations: list.conversations.iter().map(|one| summary(one, &list.presence)).collect(),
            total: list.total,
            next_offset: list.next_offset,
            status: list.status,
        },
        Reply::Members { conversation, members, more } => Out::Members {
            reference,
            conversation_id: conversation,
            members: members.iter().map(member_of).collect(),
            more: *more,
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
        | Reply::Entries(_)
        | Reply::Retention(_)
        | Reply::Exported(_)
        | Reply::Erasure(_)
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

fn message_view(view: &model::Message) -> Option<MessageView<'_>> {
    let model::Message { entry, reactions, more_reactions, replies } = view;
    Some(MessageView { message: message(entry)?, reactions, more_reactions: *more_reactions, replies: *replies })
}

fn present(presence: &Presence) -> PresentUser<'_> {
    PresentUser {
        user_id: &presence.user,
        online: presence.online,
        status: presence.status,
        last_seen: presence.last_seen,
    }
}

/// A member with its marks.
fn member_of(member: &Member) -> MemberOf<'_> {
    let (delivered_seq, read_seq) = (member.delivered_seq, member.read_seq);
    MemberOf { user_id: &member.user, name: member.name.as_deref(), delivered_seq, read_seq, presence: None }
}

fn summary<'a>(of: &'a Conversation, presence: &HashMap<UserId, Presence>) -> ConversationSummary<'a> {
    let member = |member: &'a Member| {
        let shown = presence.get(&member.user).map(|presence| MemberPresence {
            online: presence.online,
            status: presence.status,
            last_seen: presence.last_seen,
        });
        MemberOf { presence: shown, ..member_of(member) }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        Body, ClientId, Data, LogId, Message as View, MessagePage, Page, Reactions, Seq, Status, Timestamp,
    };

    /// A message of which every field is as long as it can be.
    fn longest() -> View {
        let id = "x".repeat(128);
        let data = serde_json::value::RawValue::from_string(format!("\"{}\"", "d".repeat(500))).unwrap();
        let at = Timestamp::from_seconds(1_700_000_000);
        let body = Body::Message {
            content: "\"\n😀".repeat(100).into(),
            data: Data::given(Some(&data)).unwrap(),
            reply_to: Some(Seq::MAX),
            is_ai: true,
            persona: None,
            edited_at: Some(at),
            deleted: true,
        };
        let entry = Entry {
            log: LogId::parse(&id).unwrap(),
            seq: Seq::MAX,
            message_no: i64::MAX,
            sender: UserId::parse(&id).unwrap(),
            sender_name: "\"".repeat(128).into(),
            client_id: Some(ClientId::parse(&id).unwrap()),
            at,
            body,
        };
        let reaction = |_| Reactions { emoji: "\"".repeat(64).into(), count: i64::MAX, own: false };
        View { entry, reactions: (0..50).map(reaction).collect(), more_reactions: true, replies: i64::MAX }
    }

    #[test]
    fn answers_are_not_longer_than_their_size() {
        let view = longest();
        let most = view.answer_size();
        let encoded = serde_json::to_string(&message_view(&view).unwrap()).unwrap().len();
        assert!(encoded <= most && most < encoded + 1_500, "{encoded} of {most}");
        let conversation = ConversationId::parse(&"x".repeat(128)).unwrap();
        let member = |name: Option<&str>| Member {
            user: UserId::parse(&"x".repeat(128)).unwrap(),
            name: name.map(Into::into),
            delivered_seq: Seq::MAX,
            read_seq: Seq::MAX,
        };
        let at = Timestamp::from_seconds(1);
        let members: Vec<Member> = (0..50).map(|at| member((at % 2 == 0).then_some("\"\"\""))).collect();
        let user = members[0].user.clone();
        let seen = Presence { user: user.clone(), online: false, status: Status::Invisible, last_seen: Some(at) };
        let listed = Conversation {
            id: conversation.clone(),
            kind: ConversationKind::Group,
            name: Some("\"".repeat(200).into()),
            description: Some("\\".repeat(2_000).into()),
            open: false,
            created_by: user.clone(),
            created_at: at,
            updated_at: at,
            head: Seq::MAX,
            unread: i64::MAX,
            archived: false,
            members,
            last_message: Some(Box::new(view.entry.clone())),
        };
        let presence = HashMap::from([(user, seen)]);
        let encoded = serde_json::to_string(&summary(&listed, &presence)).unwrap().len();
        assert!(encoded <= listed.answer_size(), "{encoded} of {}", listed.answer_size());
        let page = MessagePage {
            conversation,
            messages: Vec::new(),
            total: i64::MAX,
            as_of: Seq::MAX,
            page: Page::default(),
            next_before: Some(Seq::MAX),
            next_after: Some(Seq::MAX),
        };
        assert!(reply(None, &Reply::History(page)).len() < 512);
    }
}
