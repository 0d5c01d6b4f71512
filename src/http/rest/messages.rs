//! Sends, edits and deletes messages, and sets reactions.

use hyper::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{
    Call,
    call::{MessageRef, read_json},
    json, no_content, ok, unexpected,
};
use crate::{
    http::{HttpResult, body::RequestBody, problem::Problem},
    model::{
        self, ClientId, Command, Content, ConversationId, Data, DataEdit, Emoji, EntryId, InvalidEmoji, Reject, Reply,
        Seq, Target, Timestamp, UserId, given_or_null,
    },
};

/// Body of a request that sends a message.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewMessage {
    #[serde(default)]
    content: String,
    data: Option<Box<RawValue>>,
    client_id: Option<ClientId>,
    reply_to: Option<MessageRef>,
    persona_id: Option<UserId>,
}

impl NewMessage {
    /// Checks the fields that the types don't check.
    fn checked(self, conversation: ConversationId) -> Result<model::NewMessage, Problem> {
        let data = Data::given(self.data.as_deref()).map_err(Reject::from)?;
        let content = content(&self.content, data.as_ref())?;
        let unknown = || Problem::invalid("reply_to is neither a seq nor the id of a message of this conversation");
        let reply_to = self.reply_to.map(|named| named.seq_in(&conversation).ok_or_else(unknown)).transpose()?;
        Ok(model::NewMessage {
            to: Target::Conversation(conversation),
            content,
            data,
            client_id: self.client_id,
            reply_to,
            persona: self.persona_id,
        })
    }
}

fn content(text: &str, data: Option<&Data>) -> Result<Content, Problem> {
    Content::beside(data, text).map_err(|error| Problem::invalid(error.to_string()))
}

/// Body of a request that edits a message.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewText {
    #[serde(default)]
    content: String,
    /// `null` removes the data.
    #[serde(default, deserialize_with = "given_or_null")]
    data: Option<Box<RawValue>>,
    client_id: Option<ClientId>,
}

/// The stored entry of a message or a change.
#[derive(Serialize)]
struct Sent<'a> {
    id: EntryId,
    conversation_id: &'a str,
    seq: Seq,
    created_at: Timestamp,
    client_id: Option<&'a ClientId>,
}

impl<'a> Sent<'a> {
    fn of(sent: &'a model::Sent) -> Self {
        Self {
            id: sent.id(),
            conversation_id: sent.log.as_str(),
            seq: sent.seq,
            created_at: sent.at,
            client_id: sent.client_id.as_ref(),
        }
    }
}

impl Call<'_> {
    pub(super) async fn send(&self, body: RequestBody) -> HttpResult {
        let conversation = self.conversation_of_path()?;
        let new: NewMessage = read_json(body).await?;
        match self.execute(Command::Send(new.checked(conversation)?)).await? {
            Reply::Sent(sent) => {
                let status = if sent.duplicate { StatusCode::OK } else { StatusCode::CREATED };
                json(status, &Sent::of(&sent))
            }
            other => Err(unexpected(&other)),
        }
    }

    pub(super) async fn edit(&self, body: RequestBody) -> HttpResult {
        let (conversation, target) = self.message_of_path()?;
        let new: NewText = read_json(body).await?;
        let data = DataEdit::given(new.data.as_deref()).map_err(Reject::from)?;
        let (content, client_id) = (content(&new.content, data.data())?, new.client_id);
        match self.execute(Command::Edit { conversation, target, content, data, client_id }).await? {
            Reply::Sent(sent) => ok(&Sent::of(&sent)),
            other => Err(unexpected(&other)),
        }
    }

    pub(in crate::http) async fn delete(&self) -> HttpResult {
        let (conversation, target) = self.message_of_path()?;
        stored(&self.execute(Command::Delete { conversation, target, client_id: None }).await?)
    }

    /// Adds or removes a reaction.
    pub(super) async fn react(&self, active: bool) -> HttpResult {
        let (conversation, target) = self.message_of_path()?;
        let emoji = self.segment("emoji").ok_or(InvalidEmoji).and_then(|text| Emoji::parse(&text));
        let emoji = emoji.map_err(Reject::from)?;
        match self.execute(Command::React { conversation, target, emoji, active, client_id: None }).await? {
            Reply::Unchanged(_) => no_content(),
            reply => stored(&reply),
        }
    }
}

/// The response to a stored change, without a body.
fn stored(reply: &Reply) -> HttpResult {
    match reply {
        Reply::Sent(_) => no_content(),
        other => Err(unexpected(other)),
    }
}
