//! Creates, lists, shows and archives conversations.

use std::{collections::HashMap, sync::Arc};

use hyper::StatusCode;
use serde::{Deserialize, Serialize};

use super::{Call, call::read_json, done, json, ok, unexpected};
use crate::{
    http::{HttpResult, body::RequestBody, problem::Problem},
    model::{
        self, Body, Command, ConversationId, ConversationKind, ConversationList, Entry, EntryId, Listed, Offset,
        PageLimit, Presence, Reply, Seq, Status, Timestamp, UserId, is_blank,
    },
};

/// Maximum length of a conversation's name, in characters.
const MAX_NAME_CHARS: usize = 200;
/// Maximum length of a description, in characters.
const MAX_DESCRIPTION_CHARS: usize = 2_000;

/// Body of a request that creates a conversation.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewConversation {
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
    /// Checks the fields that the types don't check.
    fn checked(self) -> Result<model::NewConversation, Problem> {
        let name = text("name", self.name, MAX_NAME_CHARS)?;
        let description = text("description", self.description, MAX_DESCRIPTION_CHARS)?;
        let members = Listed::given("participant_ids", self.participant_ids)?;
        let is_group = self.is_group.unwrap_or(name.is_some() || members.len() != 1);
        Ok(model::NewConversation { id: self.id, name, description, is_group, open: self.open, members })
    }
}

/// Checks an optional text. A blank text counts as missing.
fn text(field: &str, value: Option<String>, most: usize) -> Result<Option<Arc<str>>, Problem> {
    let Some(value) = value else { return Ok(None) };
    let value = value.trim();
    if value.chars().count() > most {
        return Err(Problem::invalid(format!("{field} has at most {most} characters")));
    }
    if value.chars().any(|c| c.is_control() && !matches!(c, '\t' | '\n' | '\r')) {
        return Err(Problem::invalid(format!("{field} has a control character")));
    }
    Ok((!is_blank(value)).then(|| value.into()))
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
    archived: bool,
    /// In lists only.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_message: Option<LastMessage<'a>>,
    users: Vec<User<'a>>,
}

/// The newest message of a conversation.
#[derive(Serialize)]
struct LastMessage<'a> {
    id: EntryId,
    seq: Seq,
    sender_id: &'a UserId,
    sender_username: &'a str,
    content: &'a str,
    created_at: Timestamp,
    is_edited: bool,
    is_deleted: bool,
    is_ai: bool,
}

impl<'a> LastMessage<'a> {
    fn of(entry: &'a Entry) -> Option<Self> {
        let Body::Message { content, is_ai, edited_at, deleted, .. } = &entry.body else { return None };
        Some(Self {
            id: entry.id(),
            seq: entry.seq,
            sender_id: &entry.sender,
            sender_username: &entry.sender_name,
            content,
            created_at: entry.at,
            is_edited: edited_at.is_some(),
            is_deleted: *deleted,
            is_ai: *is_ai,
        })
    }
}

#[derive(Serialize)]
struct User<'a> {
    id: &'a UserId,
    username: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    online: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_seen: Option<Timestamp>,
}

impl<'a> Conversation<'a> {
    pub(super) fn of(conversation: &'a model::Conversation) -> Self {
        Self::with_presence(conversation, &HashMap::new())
    }

    fn with_presence(conversation: &'a model::Conversation, presence: &HashMap<UserId, Presence>) -> Self {
        let user = |member: &'a model::Member| {
            let shown = presence.get(&member.user);
            User {
                id: &member.user,
                username: username(member),
                online: shown.map(|one| one.online),
                status: shown.map(|one| one.status),
                last_seen: shown.and_then(|one| one.last_seen),
            }
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
            archived: conversation.archived,
            last_message: conversation.last_message.as_deref().and_then(LastMessage::of),
            users: conversation.members.iter().map(user).collect(),
        }
    }
}

/// A member's display name. It falls back to the id for users who have never connected with a token.
pub(super) fn username(member: &model::Member) -> &str {
    member.name.as_deref().unwrap_or_else(|| member.user.as_str())
}

#[derive(Serialize)]
struct Conversations<'a> {
    conversations: Vec<Conversation<'a>>,
    total: i64,
    /// The caller's own status.
    status: Status,
    limit: PageLimit,
    offset: Offset,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_offset: Option<u32>,
}

impl Call<'_> {
    pub(super) async fn create(&self, body: RequestBody) -> HttpResult {
        let new: NewConversation = read_json(body).await?;
        match self.execute(Command::Create(new.checked()?)).await? {
            Reply::Created(made) => json(StatusCode::CREATED, &Conversation::of(&made)),
            other => Err(unexpected(&other)),
        }
    }

    pub(super) async fn conversations(&self) -> HttpResult {
        let page = self.page()?;
        let archived = self.flag("archived")?;
        match self.execute(Command::Conversations { archived, page }).await? {
            Reply::Conversations(ConversationList { conversations, total, next_offset, presence, status }) => {
                let conversations =
                    conversations.iter().map(|one| Conversation::with_presence(one, &presence)).collect();
                let (limit, offset) = (page.limit, page.offset);
                ok(&Conversations { conversations, total, status, limit, offset, next_offset })
            }
            other => Err(unexpected(&other)),
        }
    }

    pub(in crate::http) async fn conversation(&self) -> HttpResult {
        ok(&Conversation::of(&self.describe(self.conversation_of_path()?).await?))
    }

    /// A conversation with its members.
    pub(in crate::http) async fn describe(&self, conversation: ConversationId) -> Result<model::Conversation, Problem> {
        match self.execute(Command::Describe { conversation }).await? {
            Reply::Conversation(found) => Ok(found),
            other => Err(unexpected(&other)),
        }
    }

    pub(super) async fn archive(&self, archived: bool) -> HttpResult {
        let conversation = self.conversation_of_path()?;
        done(&self.execute(Command::Archive { conversation, archived }).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> model::NewConversation {
        serde_json::from_str::<NewConversation>(json).unwrap().checked().unwrap()
    }

    #[test]
    fn new_conversations_are_parsed_as_documented() {
        let new = parse(r#"{"name":"Team","description":" ","is_group":true,"participant_ids":["user-123",456]}"#);
        assert_eq!((new.name.as_deref(), new.description.as_deref(), new.is_group), (Some("Team"), None, true));
        assert_eq!(new.members[1].as_str(), "456");
        assert!(!parse(r#"{"participant_ids":["bob"]}"#).is_group);
        assert!(parse(r#"{"name":"x","participant_ids":["bob"]}"#).is_group);
        assert!(parse("{}").is_group);
    }

    #[test]
    fn invalid_conversations_are_refused() {
        for bad in [r#"{"participant_ids":["a b"]}"#, r#"{"id":"~a"}"#, r#"{"extra":1}"#, "[]", "{} x", ""] {
            assert!(serde_json::from_str::<NewConversation>(bad).is_err(), "{bad}");
        }
        let long = format!(r#"{{"name":"{}"}}"#, "x".repeat(201));
        assert!(serde_json::from_str::<NewConversation>(&long).unwrap().checked().is_err());
        let control = r#"{"name":"a\u0000b"}"#;
        assert!(serde_json::from_str::<NewConversation>(control).unwrap().checked().is_err());
    }
}
