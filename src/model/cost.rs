//! The cost of a command: the budget of its user that it counts against, and its weight there.

use super::{Command, Data};

/// A budget that each user has. Commands of one budget never use up another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Budget {
    /// Messages.
    Send,
    /// Other changes: edits, deletions, reactions, conversations, members, statuses.
    Write,
    /// Reads, joins, typing, and the user's own marks, which follow what others send.
    Read,
    /// Events of clients.
    Event,
}

impl Budget {
    /// Every budget, in index order.
    pub const ALL: [Self; 4] = [Self::Send, Self::Write, Self::Read, Self::Event];

    /// The position in [`Budget::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The label in metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Send => "send",
            Self::Write => "write",
            Self::Read => "read",
            Self::Event => "event",
        }
    }

    /// The setting that has its limit.
    pub const fn setting(self) -> &'static str {
        match self {
            Self::Send => "MESSAGE_RATE_LIMIT",
            Self::Write => "WRITE_RATE_LIMIT",
            Self::Read => "READ_RATE_LIMIT",
            Self::Event => "EVENT_RATE_LIMIT",
        }
    }
}

/// The cost of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    /// The budget.
    pub budget: Budget,
    /// The weight, at least 1.
    pub weight: u32,
}

/// Weight of a command that reads one page of a list, or that reports to all listeners of a conversation.
const PAGE: u32 = 5;
/// Weight of a typing indicator: all listeners of the conversation may get it.
const TYPING: u32 = 10;
/// Weight of a status: the listeners of all the user's conversations get it.
const STATUS: u32 = 10;
/// Weight of a search, which may read many conversations.
const SEARCH: u32 = 20;
/// Length of data for which an event costs one unit, in bytes.
const EVENT_UNIT: usize = 1_024;

impl Cost {
    /// The cost of a message.
    pub const MESSAGE: Self = Self { budget: Budget::Send, weight: 1 };
    /// The cost of one change.
    pub const CHANGE: Self = Self::write(1);
    /// The cost of one look-up.
    pub const LOOKUP: Self = Self { budget: Budget::Read, weight: 1 };

    const fn write(weight: u32) -> Self {
        Self { budget: Budget::Write, weight }
    }

    const fn read(weight: u32) -> Self {
        Self { budget: Budget::Read, weight }
    }

    /// A read that costs one unit for each item.
    fn read_each(items: usize) -> Self {
        Self::read(weight_of(items))
    }
}

/// The weight of this many items.
fn weight_of(items: usize) -> u32 {
    u32::try_from(items).unwrap_or(u32::MAX).max(1)
}

impl Command {
    /// The command's cost; `None` if it is free.
    pub fn cost(&self) -> Option<Cost> {
        Some(match self {
            Self::Send(_) => Cost::MESSAGE,
            Self::Edit { .. }
            | Self::Delete { .. }
            | Self::React { .. }
            | Self::Archive { .. }
            | Self::Block { .. }
            | Self::Restrict { .. }
            | Self::SetRetention { .. }
            | Self::Erase { .. }
            | Self::RemoveMember { .. } => Cost::CHANGE,
            Self::Create(new) => Cost::write(weight_of(new.members.len() + 1)),
            Self::AddMembers { users, .. } => Cost::write(weight_of(users.len())),
            Self::SetStatus { .. } => Cost::write(STATUS),
            Self::Join { .. }
            | Self::Show { .. }
            | Self::ShowBlock { .. }
            | Self::Retention { .. }
            | Self::Export { .. }
            | Self::ShowErasure { .. }
            | Self::Connections
            | Self::ConnectionsOf { .. } => Cost::LOOKUP,
            Self::Sync { cursors, .. } => Cost::read_each(cursors.len()),
            Self::Presence { users } => Cost::read_each(users.len()),
            Self::Event(event) => {
                let units = event.data.as_ref().map_or(0, Data::bytes).div_ceil(EVENT_UNIT);
                Cost { budget: Budget::Event, weight: weight_of(units) }
            }
            Self::Typing { .. } => Cost::read(TYPING),
            Self::Read { .. } | Self::ReadNotifications { .. } => Cost::read(PAGE),
            Self::History { .. }
            | Self::Conversations { .. }
            | Self::Describe { .. }
            | Self::Notifications { .. }
            | Self::Blocks
            | Self::Online { .. }
            | Self::BlockedUsers { .. }
            | Self::ConversationsOf { .. }
            | Self::Entries { .. }
            | Self::Stats => Cost::read(PAGE),
            Self::Search { .. } => Cost::read(SEARCH),
            // A ping does no work. Each leave needs a join, which has its cost.
            Self::Ping | Self::Leave { .. } => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ConversationId, Listed, UserId};

    #[test]
    fn budgets_are_listed_in_index_order() {
        for (at, budget) in Budget::ALL.into_iter().enumerate() {
            assert_eq!(budget.index(), at);
        }
    }

    #[test]
    fn lists_weigh_as_much_as_their_items() {
        let users = |count: usize| {
            let users = (0..count).map(|at| UserId::parse(&format!("user{at}")).unwrap()).collect();
            Listed::given("user_ids", users).unwrap()
        };
        let conversation = ConversationId::parse("team").unwrap();
        let add = Command::AddMembers { conversation, users: users(47) };
        assert_eq!(add.cost(), Some(Cost { budget: Budget::Write, weight: 47 }));
        let presence = |count| Command::Presence { users: users(count) }.cost().unwrap();
        assert_eq!((presence(1_000).weight, presence(0).weight), (1_000, 1));
        assert_eq!(Command::Ping.cost(), None);
    }
}
