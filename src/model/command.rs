//! What somebody asks, over a socket or over REST.

use std::sync::Arc;

use super::{
    ClientId, Content, ConversationId, Emoji, EntrySeq, Listed, Page, PageLimit, SearchTerms, SinceSeq, Status, UserId,
};

/// Where a message goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Into a conversation.
    Conversation(ConversationId),
    /// To a user: into the direct conversation with them, which is made if need be.
    User(UserId),
}

/// A message to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewMessage {
    /// Where to.
    pub to: Target,
    /// The text.
    pub content: Content,
    /// Makes a repeated send harmless.
    pub client_id: Option<ClientId>,
    /// The message this one replies to.
    pub reply_to: Option<EntrySeq>,
    /// The persona that is to answer.
    pub persona: Option<UserId>,
}

/// A conversation to be made.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NewConversation {
    /// The id it shall have; a new one where none is given.
    pub id: Option<ConversationId>,
    /// A name, for groups.
    pub name: Option<Arc<str>>,
    /// What it is about.
    pub description: Option<Arc<str>>,
    /// A group, or two people.
    pub is_group: bool,
    /// Whether anyone may join.
    pub open: bool,
    /// Its members beside the creator.
    pub members: Listed<UserId>,
}

/// What somebody asks. Its types check ids, contents, numbers and lists when they are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Listen to a conversation; with `since`, first get what came after that seq. Sockets only.
    Join {
        /// Which.
        conversation: ConversationId,
        /// The last seq the client has.
        since: Option<SinceSeq>,
    },
    /// Stop listening; membership stays. Sockets only.
    Leave {
        /// Which.
        conversation: ConversationId,
    },
    /// Join many, each from its seq. Sockets only.
    Sync {
        /// Which, and the last seq the client has of each.
        cursors: Vec<(ConversationId, SinceSeq)>,
    },
    /// Send a message.
    Send(NewMessage),
    /// Give one's own message a new text.
    Edit {
        /// Where.
        conversation: ConversationId,
        /// The message.
        target: EntrySeq,
        /// Its new text.
        content: Content,
        /// Makes a repeat harmless.
        client_id: Option<ClientId>,
    },
    /// Delete one's own message (admins: anyone's).
    Delete {
        /// Where.
        conversation: ConversationId,
        /// The message.
        target: EntrySeq,
        /// Makes a repeat harmless.
        client_id: Option<ClientId>,
    },
    /// React to a message, or take that back.
    React {
        /// Where.
        conversation: ConversationId,
        /// The message.
        target: EntrySeq,
        /// The reaction.
        emoji: Emoji,
        /// False to take it back.
        active: bool,
        /// Makes a repeat harmless.
        client_id: Option<ClientId>,
    },
    /// Say that one types, or stopped.
    Typing {
        /// Where.
        conversation: ConversationId,
        /// False when stopped.
        active: bool,
    },
    /// Say how far one has got (`delivered`) and read.
    Read {
        /// Where.
        conversation: ConversationId,
        /// All up to here was delivered.
        delivered: Option<EntrySeq>,
        /// All up to here was read.
        read: Option<EntrySeq>,
    },
    /// Ask who of these is online.
    Presence {
        /// Who is asked about.
        users: Listed<UserId>,
    },
    /// Say how one wishes to be seen.
    SetStatus {
        /// How.
        status: Status,
    },
    /// Read messages, newest first.
    History {
        /// Where.
        conversation: ConversationId,
        /// Only those before this seq.
        before: Option<EntrySeq>,
        /// Only replies to this message: its thread.
        thread: Option<EntrySeq>,
        /// Which part of the list.
        page: Page,
    },
    /// Read one message.
    Show {
        /// Where.
        conversation: ConversationId,
        /// The message.
        target: EntrySeq,
    },
    /// Find messages in one's own conversations, newest first.
    Search {
        /// Words that all occur in the message; the last one may be the beginning of a word.
        terms: SearchTerms,
        /// In this one only.
        conversation: Option<ConversationId>,
        /// Which part of the list.
        page: Page,
    },
    /// Ask for a sign of life.
    Ping,
    /// Make a conversation.
    Create(NewConversation),
    /// List one's conversations.
    Conversations {
        /// The archived ones instead of the others.
        archived: bool,
        /// Which part of the list.
        page: Page,
    },
    /// Show one conversation.
    Describe {
        /// Which.
        conversation: ConversationId,
    },
    /// Put a conversation out of one's own sight, or back.
    Archive {
        /// Which.
        conversation: ConversationId,
        /// False to take it back.
        archived: bool,
    },
    /// Make users members.
    AddMembers {
        /// Of which conversation.
        conversation: ConversationId,
        /// Who.
        users: Listed<UserId>,
    },
    /// End a membership.
    RemoveMember {
        /// Of which conversation.
        conversation: ConversationId,
        /// Whose.
        user: UserId,
    },
    /// List one's notifications, newest first.
    Notifications {
        /// Which part of the list.
        page: Page,
    },
    /// Mark one's notifications read.
    ReadNotifications {
        /// Which; all where none is named.
        ids: Option<Listed<i64>>,
    },
    /// List who is online, in pages.
    Online {
        /// Where the page begins: 0, or the `next` of the one before.
        cursor: u64,
        /// About how many.
        limit: PageLimit,
    },
    /// List one's own connections on all nodes.
    Connections,
    /// Show what all nodes hold. Admins only.
    Stats,
}

impl Command {
    /// The label in metrics of what could not be read as a command.
    pub const UNREADABLE: &'static str = "unreadable";

    /// The idempotency id it carries.
    pub fn client_id(&self) -> Option<&ClientId> {
        match self {
            Self::Send(message) => message.client_id.as_ref(),
            Self::Edit { client_id, .. } | Self::Delete { client_id, .. } | Self::React { client_id, .. } => {
                client_id.as_ref()
            }
            _ => None,
        }
    }
}

macro_rules! labels {
    ($($pattern:pat => $label:literal,)*) => {
        impl Command {
            /// Every label.
            pub const LABELS: &[&str] = &[$($label),*];

            /// The label in metrics.
            pub fn label(&self) -> &'static str {
                match self {
                    $($pattern => $label,)*
                }
            }
        }
    };
}

labels! {
    Command::Join { .. } => "join",
    Command::Leave { .. } => "leave",
    Command::Sync { .. } => "sync",
    Command::Send(_) => "send",
    Command::Edit { .. } => "edit",
    Command::Delete { .. } => "delete",
    Command::React { .. } => "react",
    Command::Typing { .. } => "typing",
    Command::Read { .. } => "read",
    Command::Presence { .. } => "presence",
    Command::SetStatus { .. } => "set_status",
    Command::History { .. } => "history",
    Command::Show { .. } => "show",
    Command::Search { .. } => "search",
    Command::Ping => "ping",
    Command::Create(_) => "create",
    Command::Conversations { .. } => "conversations",
    Command::Describe { .. } => "describe",
    Command::Archive { .. } => "archive",
    Command::AddMembers { .. } => "add_members",
    Command::RemoveMember { .. } => "remove_member",
    Command::Notifications { .. } => "notifications",
    Command::ReadNotifications { .. } => "read_notifications",
    Command::Online { .. } => "online",
    Command::Connections => "connections",
    Command::Stats => "stats",
}
