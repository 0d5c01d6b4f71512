//! Lists and searches messages, and sets the caller's marks.

use serde::{Deserialize, Serialize};

use super::{
    Call,
    call::{MessageRef, read_json},
    ok, unexpected,
};
use crate::{
    http::{HttpResult, body::RequestBody, problem::Problem},
    model::{
        self, Body, ClientId, Command, ConversationId, Data, Entry, EntryId, EntrySeq, GivenNumber, HistoryRange,
        Listed, MessagePage, Offset, PageLimit, Reactions, Reject, Reply, SearchTerms, Seq, Timestamp, UserId,
    },
};

/// Maximum number of members in the view of a conversation.
const SHOWN_MEMBERS: usize = 1_000;

/// A message without its reactions and its count of replies.
#[derive(Serialize)]
struct MessageText<'a> {
    id: EntryId,
    conversation_id: ConversationId,
    seq: Seq,
    message_no: i64,
    sender_id: &'a UserId,
    sender_username: &'a str,
    content: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a Data>,
    created_at: Timestamp,
    updated_at: Timestamp,
    is_edited: bool,
    is_deleted: bool,
    is_ai: bool,
    reply_to: Option<Seq>,
    client_id: Option<&'a ClientId>,
}

impl<'a> MessageText<'a> {
    /// The message of an entry; `None` if the entry is no message.
    fn of(entry: &'a Entry) -> Option<Self> {
        let Body::Message { content, data, reply_to, is_ai, edited_at, deleted, .. } = &entry.body else { return None };
        Some(Self {
            id: entry.id(),
            conversation_id: entry.log.conversation()?,
            seq: entry.seq,
            message_no: entry.message_no,
            sender_id: &entry.sender,
            sender_username: &entry.sender_name,
            content,
            data: data.as_ref(),
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

/// A message in its current state.
#[derive(Serialize)]
struct Message<'a> {
    #[serde(flatten)]
    text: MessageText<'a>,
    reactions: &'a [Reactions],
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    more_reactions: bool,
    reply_count: i64,
}

impl<'a> Message<'a> {
    fn of(message: &'a model::Message) -> Option<Self> {
        Some(Self {
            text: MessageText::of(&message.entry)?,
            reactions: &message.reactions,
            more_reactions: message.more_reactions,
            reply_count: message.replies,
        })
    }
}

#[derive(Serialize)]
struct Messages<'a> {
    messages: Vec<Message<'a>>,
    total: i64,
    as_of: Seq,
    limit: PageLimit,
    offset: Offset,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_before_seq: Option<Seq>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_after_seq: Option<Seq>,
}

impl<'a> Messages<'a> {
    fn of(page: &'a MessagePage) -> Self {
        let messages = page.messages.iter().filter_map(Message::of).collect();
        Self {
            messages,
            total: page.total,
            as_of: page.as_of,
            limit: page.page.limit,
            offset: page.page.offset,
            next_before_seq: page.next_before,
            next_after_seq: page.next_after,
        }
    }
}

/// Result of a search.
#[derive(Serialize)]
struct SearchResult<'a> {
    messages: Vec<MessageText<'a>>,
    limit: PageLimit,
    offset: Offset,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_offset: Option<u32>,
}

/// Body of a request that sets marks.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Marks {
    conversation_id: ConversationId,
    #[serde(default)]
    message_ids: Vec<MessageRef>,
    up_to_seq: Option<GivenNumber>,
    delivered_seq: Option<GivenNumber>,
}

impl Marks {
    /// The delivered and read marks. Of several named messages the newest counts.
    fn checked(self) -> Result<(ConversationId, Option<EntrySeq>, Option<EntrySeq>), Problem> {
        let conversation = self.conversation_id;
        let unknown = || Problem::invalid("message_ids has what is no message of this conversation");
        let named = Listed::given("message_ids", self.message_ids)?;
        let named = named.iter().map(|message| message.seq_in(&conversation).ok_or_else(unknown));
        let named: Vec<EntrySeq> = named.collect::<Result<_, _>>()?;
        let up_to = EntrySeq::given("up_to_seq", self.up_to_seq)?;
        let delivered = EntrySeq::given("delivered_seq", self.delivered_seq)?;
        let read = named.into_iter().chain(up_to).max();
        if read.is_none() && delivered.is_none() {
            return Err(Problem::invalid("One of message_ids, up_to_seq and delivered_seq is needed"));
        }
        Ok((conversation, delivered, read))
    }
}

#[derive(Serialize)]
struct Marked<'a> {
    conversation_id: &'a ConversationId,
    delivered_seq: Seq,
    read_seq: Seq,
}

impl Call<'_> {
    pub(super) async fn messages(&self) -> HttpResult {
        self.history(self.conversation_of_path()?, None).await
    }

    pub(super) async fn replies(&self) -> HttpResult {
        let (conversation, thread) = self.message_of_path()?;
        self.history(conversation, Some(thread)).await
    }

    async fn history(&self, conversation: ConversationId, thread: Option<EntrySeq>) -> HttpResult {
        let page = self.page()?;
        let (before, after, around) = (self.number("before_seq"), self.number("after_seq"), self.number("around_seq"));
        let range = HistoryRange::given(before, after, around, page)?;
        match self.execute(Command::History { conversation, range, thread, page }).await? {
            Reply::History(page) => ok(&Messages::of(&page)),
            other => Err(unexpected(&other)),
        }
    }

    pub(super) async fn message(&self) -> HttpResult {
        let (conversation, target) = self.message_of_path()?;
        match self.execute(Command::Show { conversation, target }).await? {
            Reply::Message(message) => ok(&Message::of(&message).ok_or(Reject::NotFound("Message"))?),
            other => Err(unexpected(&other)),
        }
    }

    pub(super) async fn search(&self) -> HttpResult {
        let conversation = self.parameter("conversation_id").map(|id| ConversationId::parse(&id));
        let conversation = conversation.transpose();
        let conversation = conversation.map_err(|error| Problem::invalid(format!("conversation_id: {error}")))?;
        self.search_in(conversation).await
    }

    /// Searches one conversation, or those of the caller.
    pub(in crate::http) async fn search_in(&self, conversation: Option<ConversationId>) -> HttpResult {
        let page = self.page()?;
        let terms = SearchTerms::given("q", &self.parameter("q").unwrap_or_default()).map_err(Reject::from)?;
        match self.execute(Command::Search { terms, conversation, page }).await? {
            Reply::Found(found) => {
                let messages = found.messages.iter().filter_map(MessageText::of).collect();
                let next_offset = found.next_offset;
                ok(&SearchResult { messages, limit: page.limit, offset: page.offset, next_offset })
            }
            other => Err(unexpected(&other)),
        }
    }

    pub(super) async fn mark_read(&self, body: RequestBody) -> HttpResult {
        let (conversation, delivered, read) = read_json::<Marks>(body).await?.checked()?;
        self.execute(Command::Read { conversation: conversation.clone(), delivered, read }).await?;
        let marked = self.describe(conversation).await?;
        let own = marked.members.iter().find(|member| member.user == self.identity.user);
        if own.is_none() && marked.members.len() < SHOWN_MEMBERS {
            // An admin can read the conversation without being a member, but has no marks.
            return Err(Reject::NotMember.into());
        }
        // If the caller is not among the members shown, answer with the requested marks, bounded by the head.
        let requested = |mark: Option<EntrySeq>| mark.map_or(0, EntrySeq::get).min(marked.head);
        let requested = (requested(delivered.max(read)), requested(read));
        let (delivered_seq, read_seq) = own.map_or(requested, |own| (own.delivered_seq, own.read_seq));
        ok(&Marked { conversation_id: &marked.id, delivered_seq, read_seq })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::LogId;

    fn marks(json: &str) -> Result<(Option<Seq>, Option<Seq>), Problem> {
        let (_, delivered, read) = serde_json::from_str::<Marks>(json).unwrap().checked()?;
        Ok((delivered.map(EntrySeq::get), read.map(EntrySeq::get)))
    }

    #[test]
    fn marks_go_as_far_as_the_newest_message_named() {
        let id = EntryId::of(&LogId::parse("r").unwrap(), 9);
        let named = format!(r#"{{"conversation_id":"r","message_ids":[3,"{id}","4"],"up_to_seq":5}}"#);
        assert_eq!(marks(&named).unwrap(), (None, Some(9)));
        let delivered = r#"{"conversation_id":"r","delivered_seq":7}"#;
        assert_eq!(marks(delivered).unwrap(), (Some(7), None));
    }

    #[test]
    fn empty_marks_and_marks_of_other_conversations_are_refused() {
        let other = EntryId::of(&LogId::parse("other").unwrap(), 9);
        for bad in [
            r#"{"conversation_id":"r"}"#.to_owned(),
            r#"{"conversation_id":"r","message_ids":[]}"#.to_owned(),
            r#"{"conversation_id":"r","up_to_seq":0}"#.to_owned(),
            r#"{"conversation_id":"r","up_to_seq":1,"delivered_seq":-1}"#.to_owned(),
            format!(r#"{{"conversation_id":"r","message_ids":[1,"{other}"]}}"#),
        ] {
            assert!(marks(&bad).is_err(), "{bad}");
        }
    }
}
