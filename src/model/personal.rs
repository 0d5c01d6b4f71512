//! The data of one user: its export in pages, and its erasure.

use std::sync::Arc;

use super::{ClientId, ConversationId, Entry, LogId, Notification, Seq, Status, Timestamp, UserId};

/// A user's membership of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// The conversation.
    pub conversation: ConversationId,
    /// True for a conversation of two users.
    pub direct: bool,
    /// Its name.
    pub name: Option<Arc<str>>,
    /// True if the user created it.
    pub created: bool,
    /// Time at which the user became a member.
    pub joined_at: Timestamp,
    /// The user received every entry up to this seq.
    pub delivered_seq: Seq,
    /// The user read every entry up to this seq.
    pub read_seq: Seq,
    /// True if the user archived it.
    pub archived: bool,
}

/// A record of an export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExportRecord {
    /// The user's name, status and last-seen time, as far as they are stored.
    Profile {
        /// The display name.
        name: Option<Arc<str>>,
        /// The status.
        status: Option<Status>,
        /// Time at which the user was last online.
        last_seen: Option<Timestamp>,
    },
    /// A user whom the user blocks.
    Block(UserId),
    /// A conversation of which the user is a member, with the user's marks.
    Membership(Membership),
    /// A notification.
    Notification(Notification),
    /// An entry that the user made: a message, an edit, a deletion, a reaction or a change of members.
    Entry(Box<Entry>),
}

/// A page of an export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportPage {
    /// Time at which it was read.
    pub at: Timestamp,
    /// Its records.
    pub records: Vec<ExportRecord>,
    /// Where the next page begins; none after the last one.
    pub next: Option<ExportCursor>,
}

/// The position of a page of an export.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ExportCursor {
    /// The first page: profile and blocks.
    #[default]
    Begin,
    /// The memberships of conversations after this one.
    Memberships(Option<ConversationId>),
    /// The notifications after this one.
    Notifications(i64),
    /// The entries in the logs after this one.
    Logs(Option<LogId>),
    /// The entries in this log whose keys come after this one.
    Entries(LogId, ClientId),
}

impl std::fmt::Display for ExportCursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Begin => f.write_str("b"),
            Self::Memberships(None) => f.write_str("m"),
            Self::Memberships(Some(id)) => write!(f, "m {id}"),
            Self::Notifications(id) => write!(f, "n {id}"),
            Self::Logs(None) => f.write_str("l"),
            Self::Logs(Some(log)) => write!(f, "l {log}"),
            Self::Entries(log, id) => write!(f, "e {log} {id}"),
        }
    }
}

impl ExportCursor {
    /// Reads the `cursor` of a request; `None` if no page said it.
    pub fn parse(text: &str) -> Option<Self> {
        // No id has a blank.
        let mut words = text.split(' ');
        let (kind, one, two) = (words.next()?, words.next(), words.next());
        let cursor = match (kind, one, two) {
            ("b", None, None) => Self::Begin,
            ("m", id, None) => Self::Memberships(id.map(ConversationId::parse).transpose().ok()?),
            ("n", Some(id), None) => Self::Notifications(id.parse().ok()?),
            ("l", log, None) => Self::Logs(log.map(LogId::parse).transpose().ok()?),
            ("e", Some(log), Some(id)) => Self::Entries(LogId::parse(log).ok()?, ClientId::parse(id).ok()?),
            _ => return None,
        };
        words.next().is_none().then_some(cursor)
    }
}

/// The erasure of a user's data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Erasure {
    /// The user.
    pub user: UserId,
    /// Time of the request. What the user does later, with a new token, is not erased.
    pub requested_at: Timestamp,
    /// The operator who requested it.
    pub by: UserId,
    /// The last log, in the order of names, from which the user's entries are erased.
    pub position: Option<LogId>,
    /// Time at which everything was erased.
    pub done_at: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_are_read_as_they_are_written() {
        let (room, log) = (ConversationId::parse("a:b").unwrap(), LogId::parse("room").unwrap());
        for cursor in [
            ExportCursor::Begin,
            ExportCursor::Memberships(None),
            ExportCursor::Memberships(Some(room)),
            ExportCursor::Notifications(7),
            ExportCursor::Logs(None),
            ExportCursor::Logs(Some(log.clone())),
            ExportCursor::Entries(log, ClientId::parse("c-1").unwrap()),
        ] {
            assert_eq!(ExportCursor::parse(&cursor.to_string()), Some(cursor.clone()), "{cursor}");
        }
        for bad in ["", "x", "b 1", "n", "n x", "e room", "e room c d", "m a/b"] {
            assert_eq!(ExportCursor::parse(bad), None, "{bad}");
        }
    }
}
