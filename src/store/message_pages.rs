//! Pages of a conversation's messages: what to read, and what was read.

use crate::model::{HistoryRange, Message, Page, Seq};

/// The part of a conversation's messages to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MessagesPage {
    /// The position of the page.
    pub range: HistoryRange,
    /// Only replies to the message with this seq.
    pub thread: Option<Seq>,
    /// The limit and the offset.
    pub page: Page,
}

/// One side of a page of messages, as statement parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Side {
    /// The seq beyond which the messages are; itself not included.
    pub(super) beyond: Seq,
    /// Maximum number of messages.
    limit: i64,
    pub(super) offset: i64,
}

impl Side {
    /// The side on which a page has no messages: nothing is read.
    const NONE: Self = Self { beyond: 0, limit: -1, offset: 0 };

    /// The number of rows to read: one more than the limit shows that there are more messages.
    pub(super) fn rows(self) -> i64 {
        self.limit + 1
    }

    /// Removes what is beyond the limit; true if there was something.
    fn cut(self, messages: &mut Vec<Message>) -> bool {
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let more = messages.len() > limit;
        messages.truncate(limit);
        more
    }
}

impl MessagesPage {
    /// The older and the newer side of the page. Only a page around a message has both.
    pub(super) fn sides(self) -> (Side, Side) {
        let (limit, offset) = (i64::from(self.page.limit.get()), i64::from(self.page.offset.get()));
        let side = |beyond| Side { beyond, limit, offset };
        match self.range {
            HistoryRange::Newest => (side(Seq::MAX), Side::NONE),
            HistoryRange::Before(seq) => (side(seq.get()), Side::NONE),
            HistoryRange::After(seq) => (Side::NONE, side(seq.get())),
            HistoryRange::Around(seq) => {
                let newer = Side { limit: limit / 2, ..side(seq.get()) };
                (Side { limit: limit - newer.limit, ..side(seq.get().saturating_add(1)) }, newer)
            }
        }
    }
}

/// Messages of a conversation, all read in one snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReadMessages {
    /// The messages, newest first.
    pub messages: Vec<Message>,
    /// The number of those on the newer side of the page's position.
    pub newer: usize,
    /// Number of the conversation's messages, or of those of the thread.
    pub total: i64,
    /// The newest seq of the conversation; 0 if there is none.
    pub head: Seq,
    /// True if there are more messages on the older side.
    pub more_older: bool,
    /// True if there are more messages on the newer side.
    pub more_newer: bool,
}

impl ReadMessages {
    /// The messages of a page: those of its older side, newest first, and those of its newer side, oldest first.
    pub(super) fn of(page: MessagesPage, mut older: Vec<Message>, mut newer: Vec<Message>) -> Self {
        let (older_side, newer_side) = page.sides();
        let more_older = older_side.cut(&mut older);
        let more_newer = newer_side.cut(&mut newer);
        let count = newer.len();
        newer.reverse();
        newer.append(&mut older);
        Self { messages: newer, newer: count, more_older, more_newer, ..Self::default() }
    }
}
