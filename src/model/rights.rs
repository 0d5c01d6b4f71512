//! Who may do what: the one table. Everybody needs a valid token; what else a command needs stands here.

use super::{Command, ConversationId, Target};

/// What somebody must be for a command of theirs to be carried out.
///
/// The first four are checked before anything else is done. The others depend on what only the store knows for sure, and
/// are checked where it is read or written: so a change that comes in between is never overlooked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right<'a> {
    /// Anyone: the command concerns nobody else, or what anyone may know.
    Anyone,
    /// An admin.
    Admin,
    /// A member of the conversation, or an admin.
    Member(&'a ConversationId),
    /// As above, or one who listens to it over the socket that asks.
    Listener(&'a ConversationId),
    /// A member, or anyone where the conversation is open, or an admin. The join finds out, for each conversation.
    Joiner,
    /// A member. The transaction that appends finds out.
    Sender,
    /// The author of the message, being a member. The transaction that appends finds out.
    Author,
    /// The author of the message, being a member; or an admin. The transaction that appends finds out.
    AuthorOrAdmin,
    /// A member who made the conversation or means themselves; or an admin. That they are a member is checked before.
    CreatorOrSelf(&'a ConversationId),
}

impl Command {
    /// What whoever asks this must be.
    pub fn right(&self) -> Right<'_> {
        match self {
            Self::Join { .. } | Self::Sync { .. } => Right::Joiner,
            Self::Send(message) => match message.to {
                Target::Conversation(_) => Right::Sender,
                Target::User(_) => Right::Anyone,
            },
            Self::React { .. } => Right::Sender,
            Self::Edit { .. } => Right::Author,
            Self::Delete { .. } => Right::AuthorOrAdmin,
            Self::Typing { conversation, .. } => Right::Listener(conversation),
            Self::Read { conversation, .. }
            | Self::History { conversation, .. }
            | Self::Show { conversation, .. }
            | Self::Search { conversation: Some(conversation), .. }
            | Self::Describe { conversation }
            | Self::Archive { conversation, .. }
            | Self::AddMembers { conversation, .. } => Right::Member(conversation),
            Self::RemoveMember { conversation, .. } => Right::CreatorOrSelf(conversation),
            // A search everywhere finds only what is in one's own conversations.
            Self::Search { conversation: None, .. }
            | Self::Leave { .. }
            | Self::Presence { .. }
            | Self::SetStatus { .. }
            | Self::Ping
            | Self::Create(_)
            | Self::Conversations { .. }
            | Self::Notifications { .. }
            | Self::ReadNotifications { .. }
            | Self::Online { .. }
            | Self::Connections => Right::Anyone,
            Self::Stats => Right::Admin,
        }
    }
}
