//! The sizes of answers as JSON. A page ends before it gets too long for the place where it waits for its client.
//!
//! Every size is an upper bound for all wire formats: texts are counted exactly, names of fields and numbers generously.

use super::{
    Body, Conversation, ConversationList, Data, Entry, FoundMessages, LogId, Member, Message, MessagePage, Offset,
    Presence, Reply, UserId,
};

/// Names, numbers and times of a message.
const MESSAGE_FIELDS: usize = 560;
/// Names and the number of a reaction.
const REACTION_FIELDS: usize = 64;
/// Names, numbers and times of a conversation.
const CONVERSATION_FIELDS: usize = 640;
/// Names, numbers and presence of a member.
const MEMBER_FIELDS: usize = 192;
/// Presence of a user.
const PRESENCE_FIELDS: usize = 128;
/// The outcome of a join.
const OUTCOME_FIELDS: usize = 320;

/// Length of a text as a JSON string, with its quotes.
pub fn json_length(text: &str) -> usize {
    let escaped = |byte: u8| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0C => 1,
        0..0x20 => 5,
        _ => 0,
    };
    2 + text.len() + text.bytes().map(escaped).sum::<usize>()
}

/// The first of these ids that have at most `most` bytes as a JSON list.
pub fn ids_within(mut ids: Vec<UserId>, most: usize) -> Vec<UserId> {
    let mut left = most;
    let fitting = ids.iter().take_while(|id| take(&mut left, id.as_str().len() + 3)).count();
    ids.truncate(fitting);
    ids
}

/// Takes `bytes` from what is left; false if that is too little.
fn take(left: &mut usize, bytes: usize) -> bool {
    left.checked_sub(bytes).is_some_and(|rest| {
        *left = rest;
        true
    })
}

/// The number of the first items that have at most `most` bytes, at least one.
fn fitting(sizes: impl Iterator<Item = usize>, most: usize) -> usize {
    let mut left = most;
    sizes.take_while(|bytes| take(&mut left, *bytes)).count().max(1)
}

/// The offset of the page after `count` items from `offset` on; none if there can't be one.
fn next_offset(offset: Offset, count: usize) -> Option<u32> {
    let next = offset.get().saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
    (count > 0 && next <= Offset::MAX).then_some(next)
}

impl Entry {
    /// Length of a message as JSON.
    fn answer_size(&self) -> usize {
        let (content, data) = match &self.body {
            Body::Message { content, data, .. } => (json_length(content), data.as_ref().map_or(0, Data::bytes)),
            _ => (0, 0),
        };
        let ids = LogId::as_str(&self.log).len()
            + self.sender.as_str().len()
            + self.client_id.as_ref().map_or(0, |id| id.as_str().len());
        MESSAGE_FIELDS + ids + json_length(&self.sender_name) + content + data
    }
}

impl Message {
    /// Length of the message as JSON.
    pub fn answer_size(&self) -> usize {
        let reaction = |emoji: &str| REACTION_FIELDS + json_length(emoji);
        self.entry.answer_size() + self.reactions.iter().map(|one| reaction(&one.emoji)).sum::<usize>()
    }
}

/// Length of a member as JSON. One without a name is shown with the id in its place.
fn member_size(member: &Member) -> usize {
    let user = member.user.as_str().len();
    MEMBER_FIELDS + user + member.name.as_deref().map_or(user + 2, json_length)
}

impl Conversation {
    /// Length of the conversation as JSON.
    pub fn answer_size(&self) -> usize {
        let text = |text: &Option<std::sync::Arc<str>>| text.as_deref().map_or(4, json_length);
        CONVERSATION_FIELDS
            + self.id.as_str().len()
            + self.created_by.as_str().len()
            + text(&self.name)
            + text(&self.description)
            + self.last_message.as_deref().map_or(0, Entry::answer_size)
            + self.members.iter().map(member_size).sum::<usize>()
    }
}

impl MessagePage {
    /// Leaves out messages until the page has at most `most` bytes, and says how to go on. The messages next to the page's
    /// position stay, at least one: `newer` is the number of those on its newer side, which come first.
    pub fn limit_bytes(&mut self, newer: usize, most: usize) {
        let (mut from, mut to, mut left) = (newer, newer, most);
        let fits = |at: usize, left: &mut usize, first: bool| {
            let fits = take(left, self.messages[at].answer_size());
            *left = if fits { *left } else { 0 };
            fits || first
        };
        loop {
            let (all, before) = (self.messages.len(), to - from);
            if to < all && !fits(to, &mut left, to == from) {
                break;
            }
            to += usize::from(to < all);
            if from > 0 && !fits(from - 1, &mut left, to == from) {
                break;
            }
            from -= usize::from(from > 0);
            if to - from == before {
                break;
            }
        }
        let (cut_older, cut_newer) = (to < self.messages.len(), from > 0);
        self.messages.truncate(to);
        self.messages.drain(..from);
        let seq_of = |message: Option<&Message>| message.map(|message| message.entry.seq);
        if cut_older || self.next_before.is_some() {
            self.next_before = seq_of(self.messages.last());
        }
        if cut_newer || self.next_after.is_some() {
            self.next_after = seq_of(self.messages.first());
        }
    }
}

impl FoundMessages {
    /// A page of at most `most` bytes from what a search found from `offset` on; `full` if there may be more.
    pub fn within(mut messages: Vec<Entry>, offset: Offset, full: bool, most: usize) -> Self {
        let count = fitting(messages.iter().map(Entry::answer_size), most).min(messages.len());
        let more = full || count < messages.len();
        messages.truncate(count);
        Self { messages, next_offset: next_offset(offset, count).filter(|_| more) }
    }
}

impl ConversationList {
    /// The first conversations of a list from `offset` on that have at most `most` bytes, and the offset of the next page.
    pub fn within(
        mut listed: Vec<Conversation>,
        total: i64,
        offset: Offset,
        most: usize,
    ) -> (Vec<Conversation>, Option<u32>) {
        let count = fitting(listed.iter().map(Conversation::answer_size), most).min(listed.len());
        listed.truncate(count);
        (listed, next_offset(offset, count).filter(|next| i64::from(*next) < total))
    }
}

impl Reply {
    /// The parts of a reply to a list in the command, each of at most `most` bytes. Other replies are one part.
    pub fn into_parts(self, most: usize) -> Vec<Self> {
        match self {
            Self::Presence { users, .. } => {
                let size = |one: &Presence| PRESENCE_FIELDS + one.user.as_str().len();
                parts(users, size, most, |users, more| Self::Presence { users, more })
            }
            Self::Members { conversation, members, .. } => parts(members, member_size, most, |members, more| {
                Self::Members { conversation: conversation.clone(), members, more }
            }),
            Self::Synced { conversations, .. } => {
                let size = |(id, _): &(super::ConversationId, _)| OUTCOME_FIELDS + id.as_str().len();
                parts(conversations, size, most, |conversations, more| Self::Synced { conversations, more })
            }
            whole => vec![whole],
        }
    }
}

fn parts<T>(
    items: Vec<T>,
    size: impl Fn(&T) -> usize,
    most: usize,
    part: impl Fn(Vec<T>, bool) -> Reply,
) -> Vec<Reply> {
    let (mut parts, mut rest) = (Vec::new(), items);
    loop {
        let count = fitting(rest.iter().map(&size), most).min(rest.len());
        let next = rest.split_off(count);
        parts.push(part(rest, !next.is_empty()));
        if next.is_empty() {
            return parts;
        }
        rest = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ConversationId, Page, Seq, Timestamp};

    #[test]
    fn texts_are_as_long_as_their_json() {
        for text in ["", "plain", "好 😀", "\"\\/", "\u{0}\u{1}\u{7}\u{8}\t\n\u{b}\u{c}\r\u{1f} \u{7f}\u{2028}"] {
            assert_eq!(json_length(text), serde_json::to_string(text).unwrap().len(), "{text:?}");
        }
        let ids: Vec<UserId> = ["a", "bcd", "ef"].iter().map(|id| UserId::parse(id).unwrap()).collect();
        let all = serde_json::to_string(&ids).unwrap().len();
        assert_eq!(ids_within(ids.clone(), all), ids);
        assert_eq!(ids_within(ids.clone(), all - 2).len(), 2);
        assert_eq!(ids_within(ids, 3), []);
    }

    fn page(seqs: std::ops::RangeInclusive<Seq>) -> MessagePage {
        let conversation = ConversationId::parse("team").unwrap();
        let message = |seq| Message {
            entry: Entry {
                log: LogId::from(&conversation),
                seq,
                message_no: seq,
                sender: UserId::parse("alice").unwrap(),
                sender_name: "Alice".into(),
                client_id: None,
                at: Timestamp::from_seconds(1),
                body: Body::message("x".repeat(1_000)),
            },
            reactions: Vec::new(),
            more_reactions: false,
            replies: 0,
        };
        let messages = seqs.rev().map(message).collect();
        let page = Page::default();
        MessagePage { conversation, messages, total: 9, as_of: 9, page, next_before: None, next_after: None }
    }

    #[test]
    fn a_page_keeps_what_is_next_to_its_position() {
        let one = page(1..=1).messages[0].answer_size();
        let cut = |newer, most, next: (Option<Seq>, Option<Seq>)| {
            let mut page = page(1..=9);
            (page.next_before, page.next_after) = next;
            page.limit_bytes(newer, most);
            let seqs: Vec<Seq> = page.messages.iter().map(|message| message.entry.seq).collect();
            (seqs, page.next_before, page.next_after)
        };
        let more = (Some(1), None);
        assert_eq!(cut(0, 9 * one, (None, None)), ((1..=9).rev().collect(), None, None));
        assert_eq!(cut(0, 9 * one, more), ((1..=9).rev().collect(), Some(1), None));
        assert_eq!(cut(0, 2 * one, more), (vec![9, 8], Some(8), None));
        assert_eq!(cut(0, 1, (None, None)), (vec![9], Some(9), None), "one message stays");
        assert_eq!(cut(9, 2 * one, (None, Some(9))), (vec![2, 1], None, Some(2)));
        assert_eq!(cut(9, 1, (None, None)), (vec![1], None, Some(1)));
        // Four newer ones, so the position is at 5.
        assert_eq!(cut(4, 3 * one, (None, None)), (vec![6, 5, 4], Some(4), Some(6)));
        assert_eq!(cut(4, 1, (None, None)), (vec![5], Some(5), Some(5)));
        assert_eq!(cut(8, 4 * one, (None, None)), (vec![4, 3, 2, 1], None, Some(4)));
        let mut none = page(1..=9);
        none.messages.clear();
        none.limit_bytes(0, 10);
        assert_eq!((none.next_before, none.next_after), (None, None));
    }

    #[test]
    fn a_long_reply_has_parts() {
        let user = |at: usize| UserId::parse(&format!("user-{at}")).unwrap();
        let presence = |at| Presence { user: user(at), online: true, status: Default::default(), last_seen: None };
        let reply = |count| Reply::Presence { users: (0..count).map(presence).collect(), more: false };
        assert_eq!(reply(3).into_parts(10_000), [reply(3)]);
        assert_eq!(reply(0).into_parts(10), [reply(0)]);
        let parts = reply(10).into_parts(3 * (PRESENCE_FIELDS + 6));
        let shape = |part: &Reply| match part {
            Reply::Presence { users, more } => (users.len(), *more),
            other => panic!("{other:?}"),
        };
        assert_eq!(parts.iter().map(shape).collect::<Vec<_>>(), [(3, true), (3, true), (3, true), (1, false)]);
    }
}
