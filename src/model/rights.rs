//! The one table of rights. Every command needs a valid token; this table holds the other conditions.

use super::{Command, ConversationId, Target, UserId};

/// The condition that a user must meet for a command.
///
/// The first four are checked before the command runs. The others depend on data that only the store knows for sure, so
/// they are checked in the transaction or query that uses the data; a concurrent change is then never missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right<'a> {
    /// Any user: the command concerns only the user, or public data.
    Anyone,
    /// An admin.
    Admin,
    /// A member of the conversation, or an admin.
    Member(&'a ConversationId),
    /// A member, an admin, or a user whose socket sends the command and listens to the conversation.
    Listener(&'a ConversationId),
    /// A member, an admin, or any user who was not removed if the conversation is open. The join checks this for each
    /// conversation.
    Joiner,
    /// A member, whom the other member of a direct conversation does not block. The appending transaction checks this; of an
    /// event, the command.
    Sender,
    /// The user, or one who shares a conversation with the user and neither blocks them nor is blocked by them. The command
    /// checks this; the refusal does not tell the reasons apart.
    Acquaintance(&'a UserId),
    /// A member who may add each of the users: they don't block the member, and did not leave. The creator may also add
    /// users who left or were removed; an admin may add all. Membership is checked first, the rest by the appending
    /// transaction.
    Adder(&'a ConversationId),
    /// The author of the message, who must be a member. The appending transaction checks this.
    Author,
    /// The author of the message, who must be a member; or an admin. The appending transaction checks this.
    AuthorOrAdmin,
    /// A member who created the conversation or removes themselves; or an admin. Membership is checked first.
    CreatorOrSelf(&'a ConversationId),
}

impl Command {
    /// The condition that the sender of this command must meet.
    pub fn right(&self) -> Right<'_> {
        match self {
            Self::Join { .. } | Self::Sync { .. } => Right::Joiner,
            Self::Send(message) => match message.to {
                Target::Conversation(_) => Right::Sender,
                Target::User(_) => Right::Anyone,
            },
            Self::Event(event) => match &event.to {
                Target::Conversation(_) => Right::Sender,
                Target::User(user) => Right::Acquaintance(user),
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
            | Self::Archive { conversation, .. } => Right::Member(conversation),
            Self::AddMembers { conversation, .. } => Right::Adder(conversation),
            Self::RemoveMember { conversation, .. } => Right::CreatorOrSelf(conversation),
            // A search without a conversation covers only the user's own conversations.
            Self::Search { conversation: None, .. }
            | Self::Leave { .. }
            | Self::Presence { .. }
            | Self::SetStatus { .. }
            | Self::Ping
            | Self::Create(_)
            | Self::Conversations { .. }
            | Self::Block { .. }
            | Self::Blocks
            | Self::Notifications { .. }
            | Self::ReadNotifications { .. }
            | Self::Online { .. }
            | Self::Connections => Right::Anyone,
            Self::ConnectionsOf { .. } | Self::ConversationsOf { .. } | Self::Entries { .. } => Right::Admin,
            Self::Retention { .. } | Self::SetRetention { .. } => Right::Admin,
            Self::Export { .. } | Self::Erase { .. } | Self::ShowErasure { .. } => Right::Admin,
            Self::Stats | Self::Restrict { .. } | Self::ShowBlock { .. } | Self::BlockedUsers { .. } => Right::Admin,
        }
    }
}
