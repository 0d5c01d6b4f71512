//! Every key in Redis, named in one place; [`super::channels`] has the channels. `docs/operations/redis.md` describes their
//! contents.
//!
//! [`Keys`] puts the prefix of REDIS_PREFIX before every key. On a cluster, what belongs to the state of one user has the hash tag
//! of the user's [`Shard`]; a single Redis has no tags.
//!
//! No id can produce another family's key: ids contain none of `{ } # / ~` and no white space, and no family's prefix
//! is the beginning of another's. A script touches one key, and so one slot.

use redis::Cmd;
use tokio::sync::watch;

use super::{
    channels::Channels,
    incarnation::Incarnation,
    shards::{Layout, Shard},
};
use crate::{
    config::RedisPrefix,
    model::{Budget, ConversationId, DeploymentTag, UserId},
};

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
    layout: Layout,
    /// By [`Shard::index`].
    shards: Vec<ShardKeys>,
    /// The deployment of this node; `None` until the store told it.
    deployment: watch::Sender<Option<DeploymentTag>>,
}

/// The keys of a shard that are named after nothing else.
#[derive(Debug)]
struct ShardKeys {
    online: String,
    nodes: String,
    connections: String,
    leaving: String,
}

impl Keys {
    /// Keys that begin with this prefix, of a deployment that is not known yet.
    pub(super) fn new(prefix: &RedisPrefix, layout: Layout) -> Self {
        let prefix = prefix.before_keys();
        let shard = |shard: Shard| {
            let key = |name| match layout {
                Layout::Single => format!("{prefix}{name}"),
                Layout::Cluster => format!("{prefix}{name}:{{{}}}", shard.tag()),
            };
            ShardKeys {
                online: key("ws:online_users"),
                nodes: key("ws:nodes"),
                connections: key("ws:node_connections"),
                leaving: key("ws:leaving"),
            }
        };
        Self { layout, shards: Shard::all(layout).map(shard).collect(), deployment: watch::Sender::new(None), prefix }
    }

    /// The kind of Redis over which the keys are spread.
    pub(super) fn layout(&self) -> Layout {
        self.layout
    }

    /// Every shard.
    pub(super) fn shards(&self) -> impl DoubleEndedIterator<Item = Shard> + ExactSizeIterator + Clone + use<> {
        Shard::all(self.layout)
    }

    /// The shard of a user.
    pub(super) fn shard_of(&self, user: &UserId) -> Shard {
        match self.layout {
            Layout::Single => Shard::HOME,
            Layout::Cluster => Shard::of(user.as_str()),
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
        self.deployment.borrow().map(|deployment| self.channels_of(deployment))
    }

    /// The channels of a deployment.
    pub(super) fn channels_of(&self, deployment: DeploymentTag) -> Channels {
        Channels { deployment, layout: self.layout }
    }

    /// SET of the ids of online users.
    pub(super) fn online(&self, shard: Shard) -> &str {
        &self.of(shard).online
    }

    /// ZSET of incarnations, scored by the time at which their lease expires; and the member that names the epoch.
    pub(super) fn nodes(&self, shard: Shard) -> &str {
        &self.of(shard).nodes
    }

    /// HASH: number of connections per incarnation. On a cluster only one shard has it.
    pub(super) fn connections(&self) -> &str {
        &self.of(Shard::HOME).connections
    }

    /// ZSET of [`departure`] members, scored by the time at which their departure is checked.
    pub(super) fn leaving(&self, shard: Shard) -> &str {
        &self.of(shard).leaving
    }

    /// The shard of a key of [`online`](Self::online).
    pub(super) fn shard_of_online(&self, key: &str) -> Option<Shard> {
        self.shards().find(|shard| self.online(*shard) == key)
    }

    fn of(&self, shard: Shard) -> &ShardKeys {
        // A single Redis has only one.
        &self.shards[shard.index().min(self.shards.len() - 1)]
    }

    /// STRING: JSON summary of a user's newest connection.
    pub(super) fn summary(&self, user: &UserId) -> String {
        format!("{}ws:user:{user}", self.prefix)
    }

    /// HASH: a user's registry entry: connections, and the conversations they listen to. Every decision about a user is
    /// made on this key.
    pub(super) fn entry(&self, user: &UserId) -> String {
        match self.layout {
            Layout::Single => format!("{}ws:conns:{user}", self.prefix),
            Layout::Cluster => format!("{}ws:conns:{{{}}}:{user}", self.prefix, Shard::of(user.as_str()).tag()),
        }
    }

    /// The user of an [`entry`](Self::entry) key.
    pub(super) fn user_of_entry(&self, key: &str) -> Option<UserId> {
        let rest = self.bare(key)?.strip_prefix("ws:conns:")?;
        let user = match self.layout {
            Layout::Single => rest,
            Layout::Cluster => rest.strip_prefix('{')?.split_once("}:")?.1,
        };
        UserId::parse(user).ok()
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

    /// SET: users of a shard with a connection on a node. Other nodes read it to clean up after the node's death.
    pub(super) fn node_users(&self, shard: Shard, incarnation: &Incarnation) -> String {
        match self.layout {
            Layout::Single => format!("{}ws:node_users:{incarnation}", self.prefix),
            Layout::Cluster => format!("{}ws:node_users:{{{}}}:{incarnation}", self.prefix, shard.tag()),
        }
    }

    /// The conversation of an [`audience`](Self::audience) key.
    pub(super) fn conversation_of_audience(&self, key: &str) -> Option<ConversationId> {
        ConversationId::parse(self.bare(key)?.strip_prefix("ws:room_users:")?).ok()
    }

    /// The shard and the incarnation of a [`node_users`](Self::node_users) key.
    pub(super) fn node_of_users(&self, key: &str) -> Option<(Shard, Incarnation)> {
        let rest = self.bare(key)?.strip_prefix("ws:node_users:")?;
        match self.layout {
            Layout::Single => Some((Shard::HOME, Incarnation::parse(rest)?)),
            Layout::Cluster => {
                let (tag, incarnation) = rest.strip_prefix('{')?.split_once("}:")?;
                Some((Shard::with_tag(tag)?, Incarnation::parse(incarnation)?))
            }
        }
    }

    /// True if the key has a name that only nodes use.
    pub(super) fn is_ours(&self, key: &str) -> bool {
        self.bare(key).is_some_and(|key| FAMILIES.iter().any(|family| key.starts_with(family)))
    }

    /// True if the key holds many users, whom each node adds when it registers anew.
    pub(super) fn is_view(&self, key: &str) -> bool {
        self.shard_of_online(key).is_some()
            || self.conversation_of_audience(key).is_some()
            || self.node_of_users(key).is_some()
    }

    /// Keys that a node and `switchboard check` write to learn whether they may; one for each family. On a cluster they are in
    /// this shard.
    pub(super) fn checks(&self, shard: Shard, id: &str) -> [String; 3] {
        FAMILIES.map(|family| match self.layout {
            Layout::Single => format!("{}{family}check:{id}", self.prefix),
            Layout::Cluster => format!("{}{family}check:{{{}}}:{id}", self.prefix, shard.tag()),
        })
    }

    /// A key of a shard that nobody writes.
    pub(super) fn absent(&self, shard: Shard) -> String {
        let [key, ..] = self.checks(shard, "absent");
        key
    }

    /// Keys with the names of all that a node uses, for what has the id. Some exist, so that they may only be read.
    pub(super) fn samples(&self, shard: Shard, id: &str) -> Vec<String> {
        let ShardKeys { online, nodes, connections, leaving } = self.of(shard);
        let shared = [online, nodes, connections, leaving];
        let named = TYPED_READS.iter().map(|(family, _)| match self.layout {
            Layout::Single => format!("{}{family}check:{id}", self.prefix),
            // In the same shard: the master of another one may be away.
            Layout::Cluster => format!("{}{family}check:{{{}}}:{id}", self.prefix, shard.tag()),
        });
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::cluster::slot, *};
    use crate::model::{LogId, NodeId};

    const TAG: &str = "0123456789ab";

    const LAYOUTS: [Layout; 2] = [Layout::Single, Layout::Cluster];

    fn keys(prefix: &str, layout: Layout) -> Keys {
        Keys::new(&RedisPrefix::parse(prefix).unwrap(), layout)
    }

    fn families(keys: &Keys, id: &str) -> Vec<String> {
        let (user, room) = (UserId::parse(id).unwrap(), ConversationId::parse(id).unwrap());
        let (log, inbox) = (LogId::from(&room), LogId::inbox(&user));
        let incarnation = Incarnation::parse(&format!("{id}#00")).unwrap();
        let channels = keys.channels_of(DeploymentTag::parse(TAG).unwrap());
        vec![
            keys.summary(&user),
            keys.entry(&user),
            keys.window(Budget::Send, &user),
            keys.window(Budget::Write, &user),
            keys.window(Budget::Read, &user),
            keys.recent(&room),
            keys.audience(&room),
            keys.node_users(Shard::HOME, &incarnation),
            channels.log(&log),
            channels.log(&inbox),
            channels.canary(Shard::HOME, incarnation.as_str()),
            channels.hints(&NodeId::parse(id).unwrap()),
        ]
    }

    fn fixed(keys: &Keys) -> [&str; 4] {
        [keys.online(Shard::HOME), keys.nodes(Shard::HOME), keys.connections(), keys.leaving(Shard::HOME)]
    }

    #[test]
    fn what_is_tried_on_one_master_leads_to_no_other_one() {
        let keys = keys("staging", Layout::Cluster);
        let channels = keys.channels_of(DeploymentTag::parse(TAG).unwrap());
        for shard in Shard::all(Layout::Cluster) {
            let tried = keys.samples(shard, "id").into_iter().chain(keys.checks(shard, "id"));
            for key in tried.chain(channels.checks(shard, "id")) {
                assert_eq!(slot(key.as_bytes()), slot(shard.tag().as_bytes()), "{key}");
            }
        }
    }

    proptest! {
        #[test]
        fn no_id_looks_like_another_familys_key(
            one in "(ws:|user:|conns:|rate_limit:message:|write:|s0|c:)?[A-Za-z0-9_:@+=|-][A-Za-z0-9._:@+=|-]{0,19}",
            other in "(ws:|user:|conns:|rate_limit:message:|write:|s0|c:)?[A-Za-z0-9_:@+=|-][A-Za-z0-9._:@+=|-]{0,19}",
        ) {
            for keys in LAYOUTS.map(|layout| keys("", layout)) {
            for (a, mine) in families(&keys, &one).into_iter().enumerate() {
                prop_assert!(!fixed(&keys).contains(&mine.as_str()));
                for (b, theirs) in families(&keys, &other).into_iter().enumerate() {
                    prop_assert_eq!(mine == theirs, a == b && one == other);
                }
            }
            }
        }

        #[test]
        fn no_prefix_gives_the_keys_of_another_one(
            one in "([A-Za-z0-9._-]{1,20})?", other in "([A-Za-z0-9._-]{1,20})?",
            id in "(ws:|user:|a:ws:)?[A-Za-z0-9_:@+=|-][A-Za-z0-9._:@+=|-]{0,19}",
        ) {
            let (Ok(one), Ok(other)) = (RedisPrefix::parse(&one), RedisPrefix::parse(&other)) else { return Ok(()) };
            for layout in LAYOUTS {
                let (mine, theirs) = (Keys::new(&one, layout), Keys::new(&other, layout));
                let all = families(&mine, &id).into_iter().take(8).chain(fixed(&mine).map(String::from));
                for key in all.chain(mine.checks(Shard::HOME, &id)) {
                    prop_assert!(mine.is_ours(&key));
                    prop_assert_eq!(theirs.is_ours(&key), one == other, "{}", key);
                }
            }
        }
    }

    #[test]
    fn no_family_begins_another() {
        let keys = keys("", Layout::Single);
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
            let keys = keys(prefix, Layout::Single);
            assert_eq!(keys.summary(&user), format!("{before}ws:user:123"));
            assert_eq!(keys.window(Budget::Send, &user), format!("{before}rate_limit:message:123"));
            assert_eq!(keys.recent(&room), format!("{before}room_messages:r"));
            assert_eq!(keys.conversation_of_audience(&keys.audience(&room)).as_ref(), Some(&room));
            let incarnation = Incarnation::parse("n#00").unwrap();
            let users = keys.node_users(Shard::HOME, &incarnation);
            assert_eq!(users, format!("{before}ws:node_users:n#00"));
            assert_eq!(keys.node_of_users(&users), Some((Shard::HOME, incarnation)));
            assert_eq!(keys.entry(&user), format!("{before}ws:conns:123"));
            assert_eq!(keys.user_of_entry(&keys.entry(&user)), Some(user.clone()));
            assert_eq!(keys.user_of_entry(&keys.summary(&user)), None);
            assert!(keys.is_view(keys.online(Shard::HOME)) && !keys.is_view(&keys.summary(&user)));
        }
        for id in ["123", "auth0|abc", "bob+test@example.com", "a=|+b"] {
            let user = UserId::parse(id).unwrap();
            assert_eq!(departing_user(&departure(&user, 7)), Some(user));
        }
    }
    #[test]
    fn on_a_cluster_the_state_of_a_user_is_in_one_slot() {
        let keys = keys("staging", Layout::Cluster);
        let (user, incarnation) = (UserId::parse("123").unwrap(), Incarnation::parse("n#00").unwrap());
        let shard = keys.shard_of(&user);
        let users = keys.node_users(shard, &incarnation);
        assert_eq!(keys.node_of_users(&users), Some((shard, incarnation)));
        assert!(keys.is_view(&users) && keys.is_view(keys.online(shard)));
        let [one, ..] = keys.checks(shard, "id");
        let all = [&keys.entry(&user), &users, keys.online(shard), keys.nodes(shard), keys.leaving(shard), &one];
        for key in all {
            assert!(key.contains(&format!("{{{}}}", shard.tag())), "{key}");
            assert_eq!(slot(key.as_bytes()), slot(shard.tag().as_bytes()), "{key}");
        }
        assert_eq!(keys.entry(&user), "staging:ws:conns:{sdk}:123");
        assert_eq!(keys.user_of_entry(&keys.entry(&user)), Some(user.clone()));
        assert_eq!(slot(keys.absent(shard).as_bytes()), slot(shard.tag().as_bytes()));
        assert_eq!(keys.nodes(Shard::HOME), "staging:ws:nodes:{sd3}");
        assert_eq!(keys.window(Budget::Send, &user), "staging:rate_limit:message:123");
    }
}
