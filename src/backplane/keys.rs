//! Every key and channel in Redis, named in one place. `docs/operations/redis.md` describes their contents.
//!
//! No id can produce another family's key: ids contain none of `{ } # / ~` and no white space, and no family's prefix
//! is the beginning of another's. Each key is hashed as a whole, so a script that touches one key touches one slot.
use std::fmt;

use super::incarnation::Incarnation;
use crate::model::{Budget, ConversationId, LogId, NodeId, UserId};

/// Number of shards for channels. Part of every channel's name, and so of the protocol between nodes.
const SHARDS: u64 = 64;

/// SET of the ids of online users.
pub(super) const ONLINE: &str = "ws:online_users";
/// ZSET of incarnations, scored by the time at which their lease expires.
pub(super) const NODES: &str = "ws:nodes";
/// HASH: number of connections per incarnation.
pub(super) const CONNECTIONS: &str = "ws:node_connections";
/// ZSET of [`leaving`] members, scored by the time at which their departure is checked.
pub(super) const LEAVING: &str = "ws:leaving";

/// STRING: JSON summary of a user's newest connection.
pub(super) fn summary(user: &UserId) -> String {
    format!("ws:user:{user}")
}

/// HASH: a user's registry entry: connections, and the conversations they listen to. Every decision about a user is
/// made on this key.
pub(super) fn entry(user: &UserId) -> String {
    format!("ws:conns:{user}")
}

/// LIST: times at which a user's latest shares of a budget were taken.
pub(super) fn window(budget: Budget, user: &UserId) -> String {
    match budget {
        Budget::Send => format!("rate_limit:message:{user}"),
        Budget::Write => format!("rate_limit:write:{user}"),
        Budget::Read => format!("rate_limit:read:{user}"),
        Budget::Event => format!("rate_limit:event:{user}"),
    }
}

/// LIST: a conversation's newest messages.
pub(super) fn recent(conversation: &ConversationId) -> String {
    format!("room_messages:{conversation}")
}

/// SET: users who listen to a conversation.
pub(super) fn audience(conversation: &ConversationId) -> String {
    format!("ws:room_users:{conversation}")
}

/// SET: users with a connection on a node. Other nodes read it to clean up after the node's death.
pub(super) fn node_users(incarnation: &Incarnation) -> String {
    format!("ws:node_users:{incarnation}")
}

/// The conversation of an [`audience`] key.
pub(super) fn conversation_of_audience(key: &str) -> Option<ConversationId> {
    ConversationId::parse(key.strip_prefix("ws:room_users:")?).ok()
}

/// The incarnation of a [`node_users`] key.
pub(super) fn node_of_users(key: &str) -> Option<Incarnation> {
    Incarnation::parse(key.strip_prefix("ws:node_users:")?)
}

/// A member of [`LEAVING`]: one departure of a user. The due time is part of the member, so that removing one departure
/// never removes a later one.
pub(super) fn leaving(user: &UserId, due_micros: i64) -> String {
    format!("{user}/{due_micros}")
}

/// The user of a [`leaving`] member.
pub(super) fn leaving_user(member: &str) -> Option<UserId> {
    UserId::parse(member.split_once('/')?.0).ok()
}

/// True if the key has a name that only nodes use.
pub(super) fn is_ours(key: &str) -> bool {
    ["ws:", "rate_limit:", "room_messages:"].iter().any(|prefix| key.starts_with(prefix))
}

/// True if the key holds many users, whom each node adds when it registers anew.
pub(super) fn is_view(key: &str) -> bool {
    key == ONLINE || conversation_of_audience(key).is_some() || node_of_users(key).is_some()
}

/// Keys that a node and `switchboard check` write to learn whether they may; one for each prefix.
pub(super) fn checks(id: &str) -> [String; 3] {
    ["ws", "rate_limit", "room_messages"].map(|prefix| format!("{prefix}:check:{id}"))
}

/// The channel of a log.
pub(super) fn channel(log: &LogId) -> String {
    format!("{}:c:{log}", Shard::of(log.as_str()))
}

/// The log of a [`channel`].
pub(super) fn log_of_channel(channel: &str) -> Option<LogId> {
    LogId::parse(channel.split_once(":c:")?.1).ok()
}

/// The channel on which a process receives its own canary messages.
pub(super) fn canary(process: &str) -> String {
    format!("{}:n:{process}", Shard::of(process))
}

/// The channel on which a node receives hints.
pub(super) fn hints(node: &NodeId) -> String {
    format!("{}:h:{node}", Shard::of(node.as_str()))
}

/// The shard of a channel; its `Display` form is a hash tag.
struct Shard(u64);

impl Shard {
    /// FNV-1a hash of the name, modulo [`SHARDS`]. It must never change, since all nodes must agree on it.
    fn of(name: &str) -> Self {
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        Self(hash % SHARDS)
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{s{:02}}}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn families(id: &str) -> Vec<String> {
        let (user, room) = (UserId::parse(id).unwrap(), ConversationId::parse(id).unwrap());
        let (log, inbox) = (LogId::from(&room), LogId::inbox(&user));
        let incarnation = Incarnation::parse(&format!("{id}#00")).unwrap();
        vec![
            summary(&user),
            entry(&user),
            window(Budget::Send, &user),
            window(Budget::Write, &user),
            window(Budget::Read, &user),
            recent(&room),
            audience(&room),
            node_users(&incarnation),
            channel(&log),
            channel(&inbox),
            canary(incarnation.as_str()),
            hints(&NodeId::parse(id).unwrap()),
        ]
    }

    proptest! {
        #[test]
        fn no_id_looks_like_another_familys_key(
            one in "(ws:|user:|conns:|rate_limit:message:|write:|s0|c:)?[A-Za-z0-9._:@+=|-]{1,20}",
            other in "(ws:|user:|conns:|rate_limit:message:|write:|s0|c:)?[A-Za-z0-9._:@+=|-]{1,20}",
        ) {
            let fixed = [ONLINE, NODES, CONNECTIONS, LEAVING].map(String::from);
            for (a, mine) in families(&one).into_iter().enumerate() {
                prop_assert!(!fixed.contains(&mine));
                for (b, theirs) in families(&other).into_iter().enumerate() {
                    prop_assert_eq!(mine == theirs, a == b && one == other);
                }
            }
        }
    }

    #[test]
    fn no_prefix_begins_another() {
        let prefixes: Vec<_> = families("0").into_iter().map(|key| key.replace(['0', '#'], "")).collect();
        for (a, one) in prefixes.iter().enumerate().take(8) {
            for (b, other) in prefixes.iter().enumerate().take(8) {
                assert!(a == b || !one.starts_with(other.as_str()), "{one} {other}");
            }
            assert!([ONLINE, NODES, CONNECTIONS, LEAVING].iter().all(|fixed| !fixed.starts_with(one.as_str())));
        }
    }

    #[test]
    fn keys_have_their_documented_names() {
        let (user, room) = (UserId::parse("123").unwrap(), ConversationId::parse("r").unwrap());
        assert_eq!(summary(&user), "ws:user:123");
        assert_eq!(window(Budget::Send, &user), "rate_limit:message:123");
        assert_eq!(recent(&room), "room_messages:r");
        assert_eq!(conversation_of_audience(&audience(&room)), Some(room));
        let incarnation = Incarnation::parse("n#00").unwrap();
        assert_eq!(node_of_users(&node_users(&incarnation)), Some(incarnation));
        for id in ["123", "auth0|abc", "bob+test@example.com", "a=|+b"] {
            let user = UserId::parse(id).unwrap();
            assert_eq!(leaving_user(&leaving(&user, 7)), Some(user));
        }
    }

    #[test]
    fn channels_spread_over_the_shards() {
        let shards: HashSet<_> = (0..2_000).map(|n| Shard::of(&format!("room-{n}")).to_string()).collect();
        assert_eq!(shards.len(), 64);
        assert_eq!(channel(&LogId::parse("room").unwrap()), "{s26}:c:room");
        for log in ["room", "~alice", "a:c:b"] {
            let log = LogId::parse(log).unwrap();
            assert_eq!(log_of_channel(&channel(&log)), Some(log));
        }
    }
}
