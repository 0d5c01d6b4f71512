//! Pages of messages in their current state.

use std::sync::Arc;

use serde::Serialize;

use super::{ConversationId, Entry, EntrySeq, GivenNumber, Page, Reject, Seq, SinceSeq};

/// The reactions to a message with one emoji.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reactions {
    /// The emoji.
    pub emoji: Arc<str>,
    /// Number of users who reacted.
    pub count: i64,
    /// True if the reader is one of them.
    pub own: bool,
}

/// A message in its current state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The message's entry, with later edits and deletion applied.
    pub entry: Entry,
    /// The current reactions, most frequent first; at most [`Message::REACTIONS`].
    pub reactions: Vec<Reactions>,
    /// True if the message has more different reactions.
    pub more_reactions: bool,
    /// Number of replies.
    pub replies: i64,
}

impl Message {
    /// Maximum number of different reactions that are shown. A message may have more only if they were stored before there
    /// was a bound.
    pub const REACTIONS: usize = 50;
}

/// The position of a page of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HistoryRange {
    /// The newest messages.
    #[default]
    Newest,
    /// The newest messages before this seq.
    Before(EntrySeq),
    /// The oldest messages after this seq.
    After(SinceSeq),
    /// The message with this seq, and the messages next to it: half of the page older, half of it newer.
    Around(EntrySeq),
}

impl HistoryRange {
    /// The newest messages before the entry with this seq.
    pub fn before(seq: Seq) -> Self {
        EntrySeq::new(seq).map_or(Self::Newest, Self::Before)
    }

    /// Checks a client's `before_seq`, `after_seq` and `around_seq`, of which it gives at most one.
    ///
    /// # Errors
    /// A number is outside its bounds, or there are two.
    pub fn given(
        before: Option<GivenNumber>,
        after: Option<GivenNumber>,
        around: Option<GivenNumber>,
        page: Page,
    ) -> Result<Self, Reject> {
        let (before, around) = (EntrySeq::given("before_seq", before)?, EntrySeq::given("around_seq", around)?);
        match (before, SinceSeq::given("after_seq", after)?, around) {
            (None, None, None) => Ok(Self::Newest),
            (Some(seq), None, None) => Ok(Self::Before(seq)),
            (None, Some(seq), None) => Ok(Self::After(seq)),
            (None, None, Some(_)) if page.offset.get() > 0 => {
                Err(Reject::Invalid("around_seq and offset do not go together".into()))
            }
            (None, None, Some(seq)) => Ok(Self::Around(seq)),
            _ => Err(Reject::Invalid("only one of before_seq, after_seq and around_seq can be given".into())),
        }
    }
}

/// A page of messages, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessagePage {
    /// The conversation.
    pub conversation: ConversationId,
    /// The messages.
    pub messages: Vec<Message>,
    /// Total number of messages in the conversation.
    pub total: i64,
    /// The conversation's newest seq at the time of the page, which shows all changes up to it and none after it.
    pub as_of: Seq,
    /// The limit and the offset that were asked for.
    pub page: Page,
    /// Position of the next page of older messages, if there are more.
    pub next_before: Option<Seq>,
    /// Position of the next page of newer messages, if there are more.
    pub next_after: Option<Seq>,
}

/// The position of a page of entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EntryRange {
    /// The newest entries.
    #[default]
    Newest,
    /// The newest entries before this seq.
    Before(EntrySeq),
    /// The oldest entries after this seq.
    After(SinceSeq),
}

impl EntryRange {
    /// Checks `before_seq` and `after_seq`, of which at most one is given.
    ///
    /// # Errors
    /// A number is outside its bounds, or there are two.
    pub fn given(before: Option<GivenNumber>, after: Option<GivenNumber>) -> Result<Self, Reject> {
        match (EntrySeq::given("before_seq", before)?, SinceSeq::given("after_seq", after)?) {
            (None, None) => Ok(Self::Newest),
            (Some(seq), None) => Ok(Self::Before(seq)),
            (None, Some(seq)) => Ok(Self::After(seq)),
            (Some(_), Some(_)) => Err(Reject::Invalid("only one of before_seq and after_seq can be given".into())),
        }
    }
}

/// A page of the entries of a log, oldest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryPage {
    /// The entries.
    pub entries: Vec<Entry>,
    /// The first seq that is still stored.
    pub first: Seq,
    /// The newest seq.
    pub head: Seq,
}

/// A page of messages that a search found, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundMessages {
    /// The messages.
    pub messages: Vec<Entry>,
    /// Offset of the next page; none after the last page.
    pub next_offset: Option<u32>,
}
