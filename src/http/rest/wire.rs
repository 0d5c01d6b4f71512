//! The JSON of the REST endpoints, as the chat documents show it, with what they leave out.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    http::problem::Problem,
    model::{
        self, Body, ClientId, Content, ConversationId, ConversationKind, Entry, EntryId, LogId, MessagePage, Seq,
        Target, Timestamp, UserId,
    },
};

/// The longest name of a conversation, in characters.
const MAX_NAME_CHARS: usize = 200;
/// The longest description, in characters.
const MAX_DESCRIPTION_CHARS: usize = 2_000;
/// The most users that one request may make members.
const MAX_USERS: usize = 1_000;

/// A token for a socket.
#[derive(Serialize)]
pub(super) struct Token<'a> {
    pub(super) token: &'a str,
    pub(super) websocket_url: String,
    pub(super) expires_in: u64,
}

/// A conversation to be made.
#[derive(Deserialize)]
pub(super) struct NewConversation {
    id: Option<ConversationId>,
    name: Option<String>,
    description: Option<String>,
    is_group: Option<bool>,
    #[serde(default)]
    open: bool,
    #[serde(default)]
    participant_ids: Vec<UserId>,
}

impl NewConversation {
    /// Checks what the types don't.
    pub(super) fn checked(self) -> Result<model::NewConversation, Problem> {
        let name = text("name", self.name, MAX_NAME_CHARS)?;
        let description = text("description", self.description, MAX_DESCRIPTION_CHARS)?;
        let members = at_most("participant_ids", self.participant_ids)?;
        let is_group = self.is_group.unwrap_or(name.is_some() || members.len() != 1);
        Ok(model::NewConversation { id: self.id, name, description, is_group, open: self.open, members })
    }
}

/// A text that may be missing; one of nothing but blanks counts as missing.
fn text(field: &str, value: Option<String>, most: usize) -> Result<Option<Arc<str>>, Problem> {
    let Some(value) = value else { return Ok(None) };
    let value = value.trim();
    if value.chars().count() > most {
        return Err(Problem::invalid(format!("{field} has at most {most} characters")));
    }
    if value.chars().any(|c| c.is_control() && !matches!(c, '\t' | '\n' | '\r')) {
        return Err(Problem::invalid(format!("{field} has a control character")));
    }
    Ok((!value.is_empty()).then(|| value.into()))
}

fn at_most(field: &str, users: Vec<UserId>) -> Result<Vec<UserId>, Problem> {
    if users.len() > MAX_USERS {
        return Err(Problem::invalid(format!("{field} has at most {MAX_USERS} ids")));
    }
    Ok(users)
}

/// Users to be made members.
#[derive(Deserialize)]
pub(super) struct NewMembers {
    user_ids: Vec<UserId>,
}

impl NewMembers {
    pub(super) fn checked(self) -> Result<Vec<UserId>, Problem> {
        let users = at_most("user_ids", self.user_ids)?;
        if users.is_empty() { Err(Problem::invalid("user_ids is empty")) } else { Ok(users) }
    }
}

/// A message to be sent.
#[derive(Deserialize)]
pub(super) struct NewMessage {
    content: String,
    client_id: Option<ClientId>,
    reply_to: Option<MessageRef>,
}

/// A message, named by its seq or by its id.
#[derive(Deserialize)]
#[serde(untagged)]
enum MessageRef {
    Seq(Seq),
    Id(String),
}

impl NewMessage {
    /// Checks what the types don't.
    pub(super) fn checked(self, conversation: ConversationId) -> Result<model::NewMessage, Problem> {
        let content = Content::parse(&self.content).map_err(|error| Problem::invalid(error.to_string()))?;
        let log = LogId::from(&conversation);
        let seq = |reference| match reference {
            MessageRef::Seq(seq) => Some(seq).filter(|seq| *seq > 0),
            MessageRef::Id(id) => EntryId::parse(&id).ok()?.seq_in(&log),
        };
        let unknown = || Problem::invalid("reply_to is neither a seq nor the id of a message of this conversation");
        let reply_to = self.reply_to.map(|reference| seq(reference).ok_or_else(unknown)).transpose()?;
        Ok(model::NewMessage {
            to: Target::Conversation(conversation),
            content,
            client_id: self.client_id,
            reply_to,
            persona: None,
        })
    }
}

/// What became of a send.
#[derive(Serialize)]
pub(super) struct Sent<'a> {
    id: EntryId,
    conversation_id: &'a str,
    seq: Seq,
    created_at: Timestamp,
    client_id: Option<&'a ClientId>,
}

impl<'a> Sent<'a> {
    pub(super) fn of(sent: &'a model::Sent) -> Self {
        Self {
            id: sent.id(),
            conversation_id: sent.log.as_str(),
            seq: sent.seq,
            created_at: sent.at,
            client_id: sent.client_id.as_ref(),
        }
    }
}

/// A conversation, as one of its members sees it.
#[derive(Serialize)]
pub(super) struct Conversation<'a> {
    id: &'a ConversationId,
    name: Option<&'a str>,
    description: Option<&'a str>,
    is_group: bool,
    open: bool,
    created_by: &'a UserId,
    created_at: Timestamp,
    updated_at: Timestamp,
    seq: Seq,
    unread_count: i64,
    users: Vec<User<'a>>,
}

#[derive(Serialize)]
struct User<'a> {
    id: &'a UserId,
    username: &'a str,
}

impl<'a> Conversation<'a> {
    pub(super) fn of(conversation: &'a model::Conversation) -> Self {
        let user = |member: &'a model::Member| User {
            id: &member.user,
            username: member.name.as_deref().unwrap_or_else(|| member.user.as_str()),
        };
        Self {
            id: &conversation.id,
            name: conversation.name.as_deref(),
            description: conversation.description.as_deref(),
            is_group: conversation.kind == ConversationKind::Group,
            open: conversation.open,
            created_by: &conversation.created_by,
            created_at: conversation.created_at,
            updated_at: conversation.updated_at,
            seq: conversation.head,
            unread_count: conversation.unread,
            users: conversation.members.iter().map(user).collect(),
        }
    }
}

/// A list of conversations.
#[derive(Serialize)]
pub(super) struct Conversations<'a> {
    pub(super) conversations: Vec<Conversation<'a>>,
    pub(super) total: i64,
    pub(super) limit: u32,
    pub(super) offset: u32,
}

/// A list of messages, newest first.
#[derive(Serialize)]
pub(super) struct Messages<'a> {
    messages: Vec<Message<'a>>,
    total: i64,
    limit: u32,
    offset: u32,
}

impl<'a> Messages<'a> {
    pub(super) fn of(page: &'a MessagePage) -> Self {
        let messages = page.messages.iter().filter_map(|shown| Message::of(&page.conversation, &shown.entry)).collect();
        Self { messages, total: page.total, limit: page.limit, offset: page.offset }
    }
}

#[derive(Serialize)]
struct Message<'a> {
    id: EntryId,
    conversation_id: &'a ConversationId,
    seq: Seq,
    message_no: i64,
    sender_id: &'a UserId,
    sender_username: &'a str,
    content: &'a str,
    created_at: Timestamp,
    updated_at: Timestamp,
    is_edited: bool,
    is_deleted: bool,
    is_ai: bool,
    reply_to: Option<Seq>,
    client_id: Option<&'a ClientId>,
}

impl<'a> Message<'a> {
    /// An entry as a message; `None` where it is none.
    fn of(conversation: &'a ConversationId, entry: &'a Entry) -> Option<Self> {
        let Body::Message { content, reply_to, is_ai, edited_at, deleted } = &entry.body else { return None };
        Some(Self {
            id: entry.id(),
            conversation_id: conversation,
            seq: entry.seq,
            message_no: entry.message_no,
            sender_id: &entry.sender,
            sender_username: &entry.sender_name,
            content,
            created_at: entry.at,
            updated_at: edited_at.unwrap_or(entry.at),
            is_edited: edited_at.is_some(),
            is_deleted: *deleted,
            is_ai: *is_ai,
            reply_to: *reply_to,
            client_id: entry.client_id.as_ref(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> model::NewConversation {
        serde_json::from_str::<NewConversation>(json).unwrap().checked().unwrap()
    }

    #[test]
    fn new_conversations_are_read_as_the_document_shows_them() {
        let new =
            parse(r#"{"name":"Team","description":" ","is_group":true,"participant_ids":["user-123",456],"extra":1}"#);
        assert_eq!((new.name.as_deref(), new.description.as_deref(), new.is_group), (Some("Team"), None, true));
        assert_eq!(new.members[1].as_str(), "456");
        assert!(!parse(r#"{"participant_ids":["bob"]}"#).is_group);
        assert!(parse(r#"{"name":"x","participant_ids":["bob"]}"#).is_group);
        assert!(parse("{}").is_group);
    }

    #[test]
    fn bad_conversations_are_refused() {
        for bad in [r#"{"participant_ids":["a b"]}"#, r#"{"id":"~a"}"#, "[]", "{} x", ""] {
            assert!(serde_json::from_str::<NewConversation>(bad).is_err(), "{bad}");
        }
        let long = format!(r#"{{"name":"{}"}}"#, "x".repeat(201));
        assert!(serde_json::from_str::<NewConversation>(&long).unwrap().checked().is_err());
        let control = r#"{"name":"a\u0000b"}"#;
        assert!(serde_json::from_str::<NewConversation>(control).unwrap().checked().is_err());
    }

    #[test]
    fn a_reply_names_its_message_either_way() {
        let room = ConversationId::parse("room").unwrap();
        let id = EntryId::of(&LogId::from(&room), 7);
        let send = |json: String| serde_json::from_str::<NewMessage>(&json).unwrap().checked(room.clone());
        for reference in ["7".to_owned(), format!("\"{id}\"")] {
            let sent = send(format!(r#"{{"content":"hi","reply_to":{reference}}}"#)).unwrap();
            assert_eq!(sent.reply_to, Some(7));
        }
        let other = EntryId::of(&LogId::parse("other").unwrap(), 7);
        assert!(send(format!(r#"{{"content":"hi","reply_to":"{other}"}}"#)).is_err());
        assert!(send(r#"{"content":"hi","reply_to":0}"#.into()).is_err());
        assert!(send(r#"{"content":"  "}"#.into()).is_err());
        assert_eq!(send(r#"{"content":"hi","reply_to":null}"#.into()).unwrap().reply_to, None);
    }
}
