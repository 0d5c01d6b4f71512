//! Every key and channel in Redis, named in one place. `docs/operations/redis.md` describes their contents.
//!
//! [`Keys`] puts the prefix of REDIS_PREFIX before every key. [`Channels`] puts the deployment into every channel, because
//! channels have no database number: nodes of other deployments on the same server would hear them.
//!
//! No id can produce another family's key: ids contain none of `{ } # / ~` and no white space, and no family's prefix
//! is the beginning of another's. Each key is hashed as a whole, so a script that touches one key touches one slot.

use std::fmt;

use redis::Cmd;
use tokio::sync::watch;

use super::incarnation::Incarnation;
use crate::{
    config::RedisPrefix,
    model::{Budget, ConversationId, DeploymentTag, LogId, NodeId, UserId},
};

/// Number of shards for channels. Part of every channel's name, and so of the protocol between nodes.
const SHARDS: u64 = 64;
/// The beginnings of all keys, after the prefix. REDIS_PREFIX can be none of them.
const FAMILIES: [&str; 3] = ["ws:", "rate_limit:", "room_messages:"];

/// Commands that read a key of a family, without the key.
const TYPED_READS: [(&str, &str); 9] = [
    ("ws:user:", "GET"),
    ("ws:conns:", "HEXISTS -"),
    ("ws:room_users:", "SCARD"),
    ("ws:node_users:", "SCARD"),
    ("rate_limit:message:", "LINDEX 0"),
    ("rate_limit:write:", "LINDEX 0"),
    ("rate_limit:read:", "LINDEX 0"),
    ("rate_limit:event:", "LINDEX 0"),
    ("room_messages:", "LINDEX 0"),
];

/// The keys and channels of this node.
#[derive(Debug)]
pub(super) struct Keys {
    /// Empty, or a name and a colon.
    prefix: String,
    online: String,
    nodes: String,
    connections: String,
    leaving: String,
    /// The deployment of this node; `None` until the store told it.
    deployment: watch::Sender<Option<DeploymentTag>>,
}

impl Keys {
    /// Keys that begin with this prefix, of a deployment that is not known yet.
    pub(super) fn new(prefix: &RedisPrefix) -> Self {
        let prefix = prefix.before_keys();
        let key = |name| format!("{prefix}{name}");
        Self {
            online: key("ws:online_users"),
            nodes: key("ws:nodes"),
            connections: key("ws:node_connections"),
            leaving: key("ws:leaving"),
            deployment: watch::Sender::new(None),
            prefix,
        }
    }

    /// Sets the deployment of this node.
    pub(super) fn set_deployment(&self, deployment: DeploymentTag) {
        self.deployment.send_if_modified(|known| known.replace(deployment) != Some(deployment));
    }

    /// The deployment of this node, and its changes.
    pub(super) fn deployment(&self) -> watch::Receiver<Option<DeploymentTag>> {
        self.deployment.subscribe()
    }

    /// The channels of this deployment; `None` until the store told which it is.
    pub(super) fn channels(&self) -> Option<Channels> {
        self.deployment.borrow().map(Channels)
    }

    /// SET of the ids of online users.
    pub(super) fn online(&self) -> &str {
        &self.online
    }

    /// ZSET of incarnations, scored by the time at which their lease expires; and the member that names the epoch.
    pub(super) fn nodes(&self) -> &str {
        &self.nodes
    }

    /// HASH: number of connections per incarnation.
    pub(super) fn connections(&self) -> &str {
        &self.connections
    }

    /// ZSET of [`departure`] members, scored by the time at which their departure is checked.
    pub(super) fn leaving(&self) -> &str {
        &self.leaving
    }

    /// STRING: JSON summary of a user's newest connection.
    pub(super) fn summary(&self, user: &UserId) -> String {
        format!("{}ws:user:{user}", self.prefix)
    }

    /// HASH: a user's registry entry: connections, and the conversations they listen to. Every decision about a user is
    /// made on this key.
    pub(super) fn entry(&self, user: &UserId) -> String {
        format!("{}ws:conns:{user}", self.prefix)
    }

    /// LIST: times at which a user's latest shares of a budget were taken.
    pub(super) fn window(&self, budget: Budget, user: &UserId) -> String {
        let family = match budget {
            Budget::Send => "message",
            Budget::Write => "write",
            Budget::Read => "read",
            Budget::Event => "event",
        };
        format!("{}rate_limit:{family}:{user}", self.prefix)
    }

    /// LIST: a conversation's newest messages.
    pub(super) fn recent(&self, conversation: &ConversationId) -> String {
        format!("{}room_messages:{conversation}", self.prefix)
    }

    /// SET: users who listen to a conversation.
    pub(super) fn audience(&self, conversation: &ConversationId) -> String {
        format!("{}ws:room_users:{conversation}", self.prefix)
    }

    /// SET: users with a connection on a node. Other nodes read it to clean up after the node's death.
    pub(super) fn node_users(&self, incarnation: &Incarnation) -> String {
        format!("{}ws:node_users:{incarnation}", self.prefix)
    }

    /// The conversation of an [`audience`](Self::audience) key.
    pub(super) fn conversation_of_audience(&self, key: &str) -> Option<ConversationId> {
        ConversationId::parse(self.bare(key)?.strip_prefix("ws:room_users:")?).ok()
    }

    /// The incarnation of a [`node_users`](Self::node_users) key.
    pub(super) fn node_of_users(&self, key: &str) -> Option<Incarnation> {
        Incarnation::parse(self.bare(key)?.strip_prefix("ws:node_users:")?)
    }

    /// True if the key has a name that only nodes use.
    pub(super) fn is_ours(&self, key: &str) -> bool {
        self.bare(key).is_some_and(|key| FAMILIES.iter().any(|family| key.starts_with(family)))
    }

    /// True if the key holds many users, whom each node adds when it registers anew.
    pub(super) fn is_view(&self, key: &str) -> bool {
        key == self.online || self.conversation_of_audience(key).is_some() || self.node_of_users(key).is_some()
    }

    /// Keys that a node and `switchboard check` write to learn whether they may; one for each family.
    pub(super) fn checks(&self, id: &str) -> [String; 3] {
        FAMILIES.map(|family| format!("{}{family}check:{id}", self.prefix))
    }

    /// Keys with the names of all that a node uses, for what has the id. Some exist, so that they may only be read.
    pub(super) fn samples(&self, id: &str) -> Vec<String> {
        let shared = [&self.online, &self.nodes, &self.connections, &self.leaving];
        let named = TYPED_READS.iter().map(|(family, _)| format!("{}{family}check:{id}", self.prefix));
        shared.into_iter().cloned().chain(named).collect()
    }

    /// A command that reads a key that is named after a user, a conversation or a node, and fails if the key has another type than
    /// its name promises; `None` for other keys.
    pub(super) fn typed_read(&self, key: &str) -> Option<Cmd> {
        let key_of = |family: &&str| self.bare(key).is_some_and(|key| key.starts_with(family));
        let (_, command) = TYPED_READS.iter().find(|(family, _)| key_of(family))?;
        let mut words = command.split(' ');
        let mut read = redis::cmd(words.next()?);
        read.arg(key);
        words.for_each(|word| {
            read.arg(word);
        });
        Some(read)
    }

    /// Patterns of all keys; the first one has those of the registry. The prefix contains no character that a pattern
    /// gives a meaning.
    pub(super) fn patterns(&self) -> [String; 3] {
        FAMILIES.map(|family| format!("{}{family}*", self.prefix))
    }

    /// A key without the prefix; `None` if it has another one.
    fn bare<'a>(&self, key: &'a str) -> Option<&'a str> {
        key.strip_prefix(&self.prefix)
    }
}

/// A member of [`Keys::leaving`]: one departure of a user. The due time is part of the member, so that removing one departure
/// never removes a later one.
pub(super) fn departure(user: &UserId, due_micros: i64) -> String {
    format!("{user}/{due_micros}")
}

/// The user of a [`departure`] member.
pub(super) fn departing_user(member: &str) -> Option<UserId> {
    UserId::parse(member.split_once('/')?.0).ok()
}

/// Pattern of the channels of canaries, those of all deployments and of earlier versions.
pub(super) const CANARIES: &str = "{s*:n:*";

/// The deployment and the process of a canary's channel; no deployment for a process of an earlier version.
pub(super) fn process_of_canary(channel: &str) -> Option<(Option<DeploymentTag>, &str)> {
    let (_, rest) = channel.strip_prefix("{s")?.split_once("}:")?;
    if let Some(process) = rest.strip_prefix("n:") {
        return Some((None, process));
    }
    let (deployment, rest) = rest.split_once(':')?;
    Some((Some(DeploymentTag::parse(deployment).ok()?), rest.strip_prefix("n:")?))
}

/// The channels of a deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Channels(pub(super) DeploymentTag);

impl Channels {
    /// The channel of a log.
    pub(super) fn log(self, log: &LogId) -> String {
        self.name('c', log.as_str())
    }

    /// One channel of each kind, to try whether a Redis user may use it: of a canary, of hints and of a log.
    pub(super) fn checks(self, id: &str) -> [String; 3] {
        let id = format!("check/{id}");
        ['n', 'h', 'c'].map(|kind| self.name(kind, &id))
    }

    /// The log of a channel of [`log`](Self::log).
    pub(super) fn log_of(self, channel: &str) -> Option<LogId> {
        let rest = channel.split_once("}:")?.1.strip_prefix(&format!("{}:c:", self.0))?;
        LogId::parse(rest).ok()
    }

    /// The channel on which a process receives its own canary messages.
    pub(super) fn canary(self, process: &str) -> String {
        self.name('n', process)
    }

    /// The channel on which a node receives hints.
    pub(super) fn hints(self, node: &NodeId) -> String {
        self.name('h', node.as_str())
    }

    fn name(self, kind: char, of: &str) -> String {
        format!("{}:{}:{kind}:{of}", Shard::of(of), self.0)
    }
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

    const TAG: &str = "0123456789ab";

    fn keys(prefix: &str) -> Keys {
        Keys::new(&RedisPrefix::parse(prefix).unwrap())
    }

    fn channels() -> Channels {
        Channels(DeploymentTag::parse(TAG).unwrap())
    }

    fn families(keys: &Keys, id: &str) -> Vec<String> {
        let (user, room) = (UserId::parse(id).unwrap(), ConversationId::parse(id).unwrap());
        let (log, inbox) = (LogId::from(&room), LogId::inbox(&user));
        let incarnation = Incarnation::parse(&format!("{id}#00")).unwrap();
        vec![
            keys.summary(&user),
            keys.entry(&user),
            keys.window(Budget::Send, &user),
            keys.window(Budget::Write, &user),
            keys.window(Budget::Read, &user),
            keys.recent(&room),
            keys.audience(&room),
            keys.node_users(&incarnation),
            channels().log(&log),
            channels().log(&inbox),
            channels().canary(incarnation.as_str()),
            channels().hints(&NodeId::parse(id).unwrap()),
        ]
    }

    fn fixed(keys: &Keys) -> [&str; 4] {
        [keys.online(), keys.nodes(), keys.connections(), keys.leaving()]
    }

    proptest! {
        #[test]
        fn no_id_looks_like_another_familys_key(
            one in "(ws:|user:|conns:|rate_limit:message:|write:|s0|c:)?[A-Za-z0-9._:@+=|-]{1,20}",
            other in "(ws:|user:|conns:|rate_limit:message:|write:|s0|c:)?[A-Za-z0-9._:@+=|-]{1,20}",
        ) {
            let keys = keys("");
            for (a, mine) in families(&keys, &one).into_iter().enumerate() {
                prop_assert!(!fixed(&keys).contains(&mine.as_str()));
                for (b, theirs) in families(&keys, &other).into_iter().enumerate() {
                    prop_assert_eq!(mine == theirs, a == b && one == other);
                }
            }
        }

        #[test]
        fn no_prefix_gives_the_keys_of_another_one(
            one in "([A-Za-z0-9._-]{1,20})?", other in "([A-Za-z0-9._-]{1,20})?",
            id in "(ws:|user:|a:ws:)?[A-Za-z0-9._:@+=|-]{1,20}",
        ) {
            let (Ok(one), Ok(other)) = (RedisPrefix::parse(&one), RedisPrefix::parse(&other)) else { return Ok(()) };
            let (mine, theirs) = (Keys::new(&one), Keys::new(&other));
            let all = families(&mine, &id).into_iter().take(8).chain(fixed(&mine).map(String::from));
            for key in all.chain(mine.checks(&id)) {
                prop_assert!(mine.is_ours(&key));
                prop_assert_eq!(theirs.is_ours(&key), one == other, "{}", key);
            }
        }
    }

    #[test]
    fn no_family_begins_another() {
        let keys = keys("");
        let families: Vec<_> = families(&keys, "0").into_iter().map(|key| key.replace(['0', '#'], "")).collect();
        for (a, one) in families.iter().enumerate().take(8) {
            for (b, other) in families.iter().enumerate().take(8) {
                assert!(a == b || !one.starts_with(other.as_str()), "{one} {other}");
            }
            assert!(fixed(&keys).iter().all(|fixed| !fixed.starts_with(one.as_str())));
        }
    }

    #[test]
    fn keys_have_their_documented_names() {
        let (user, room) = (UserId::parse("123").unwrap(), ConversationId::parse("r").unwrap());
        for (prefix, before) in [("", ""), ("staging", "staging:")] {
            let keys = keys(prefix);
            assert_eq!(keys.summary(&user), format!("{before}ws:user:123"));
            assert_eq!(keys.window(Budget::Send, &user), format!("{before}rate_limit:message:123"));
            assert_eq!(keys.recent(&room), format!("{before}room_messages:r"));
            assert_eq!(keys.conversation_of_audience(&keys.audience(&room)).as_ref(), Some(&room));
            let incarnation = Incarnation::parse("n#00").unwrap();
            assert_eq!(keys.node_of_users(&keys.node_users(&incarnation)), Some(incarnation));
            assert!(keys.is_view(keys.online()) && !keys.is_view(&keys.summary(&user)));
        }
        for id in ["123", "auth0|abc", "bob+test@example.com", "a=|+b"] {
            let user = UserId::parse(id).unwrap();
            assert_eq!(departing_user(&departure(&user, 7)), Some(user));
        }
    }

    #[test]
    fn channels_spread_over_the_shards() {
        let shards: HashSet<_> = (0..2_000).map(|n| Shard::of(&format!("room-{n}")).to_string()).collect();
        assert_eq!(shards.len(), 64);
        assert_eq!(channels().log(&LogId::parse("room").unwrap()), format!("{{s26}}:{TAG}:c:room"));
        let others = Channels(DeploymentTag::parse("ffffffffffff").unwrap());
        for log in ["room", "~alice", "a:c:b"] {
            let log = LogId::parse(log).unwrap();
            assert_eq!(channels().log_of(&channels().log(&log)).as_ref(), Some(&log));
            assert_eq!(others.log_of(&channels().log(&log)), None);
        }
    }
}
