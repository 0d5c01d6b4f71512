//! What the nodes share through Redis: registry and presence, limits, recent messages, and the bus between them.
//!
//! The backplane is Off (no Redis configured), Up or Down. Off and Down are served by the same local parts
//! (`local.rs`). Imports `model`, `config`, `metrics`, `degrade`; never the store or the hub. `docs/redis.md` tells
//! operators what stands in Redis.
//!
//! Read in this order: `keys` (every name), `link` (calls), `lease` and `watchdog` (when Redis is there, and who we are to
//! it), `local` and `registry` (connections), `departures`, `presence_query`, `publisher`, `wire` and
//! `subscriber` (the bus), `recent`, `limit`.

use std::{path::PathBuf, sync::Arc, time::Duration};

use redis::Pipeline;
use tokio::sync::{mpsc, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    config::{Config, RedisConfig},
    degrade::Degrade,
    metrics::Metrics,
    model::{
        Clock, ConnectionId, ConnectionInfo, ConversationId, Entry, Event, LogId, NodeId, NodeStats, Seq, Timestamp,
        UserId,
    },
};

mod departures;
mod diagnose;
mod keys;
mod lease;
mod limit;
mod link;
mod local;
mod ops;
mod presence_query;
mod publisher;
mod recent;
mod registry;
mod scripts;
mod subscriber;
mod watchdog;
mod wire;

pub use diagnose::examine;

/// Notices that may wait for the node to take them.
const NOTICES: usize = 1_024;
/// The span in which sends are counted.
const WINDOW: Duration = Duration::from_secs(60);

/// What the backplane has to know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Redis; none: the node is alone.
    pub redis: Option<RedisConfig>,
    /// This node.
    pub node: NodeId,
    /// How long the node counts as alive without a sign of life.
    pub lease: Duration,
    /// From a user's last goodbye until they have left.
    pub presence_grace: Duration,
    /// How long the recent-message caches live; zero: nothing is cached.
    pub cache_ttl: Duration,
    /// The span in which sends are counted (60 s).
    pub window: Duration,
    /// User-scoped sockets per user over all nodes, and conversation-scoped ones per user and conversation.
    pub connections_per_user: u32,
    /// All sockets of a user over all nodes.
    pub sockets_per_user: u32,
}

impl From<&Config> for Settings {
    fn from(config: &Config) -> Self {
        Self {
            redis: config.redis.clone(),
            node: config.node.clone(),
            lease: config.timing.lease,
            presence_grace: config.timing.presence_grace,
            cache_ttl: config.timing.cache_ttl,
            window: WINDOW,
            connections_per_user: config.limits.connections_per_user,
            sockets_per_user: config.limits.sockets_per_user,
        }
    }
}

/// Why the backplane can't be started: a fault of the configuration. A Redis that is down is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// REDIS_URL is no URL of a Redis. It is not shown, since it may hold a password.
    #[error("REDIS_URL is not a redis:// or rediss:// URL")]
    BadUrl,
    /// The file of certificates can't be used.
    #[error("the CA file {} for Redis can't be used: {reason}", path.display())]
    BadCa {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// What counts against which cap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// A socket for all of a user's conversations.
    User,
    /// A socket bound to one conversation.
    Conversation(ConversationId),
}

/// A connection, as the registry keeps it.
#[derive(Debug, Clone)]
pub struct Registration {
    /// Which.
    pub connection: ConnectionId,
    /// Whose.
    pub user: UserId,
    /// That user's display name.
    pub name: Arc<str>,
    /// What it counts against.
    pub scope: Scope,
    /// Since when.
    pub connected_at: Timestamp,
}

/// A user's connection was not registered: they have as many as they may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMany {
    /// Some of them belong to a node that may be dead: trying again may succeed.
    pub perhaps: bool,
}

/// Whether a send may go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It may, and is counted.
    Admitted,
    /// It may not.
    Refused {
        /// Sends within the window.
        sent: u32,
        /// When the next one will be taken.
        retry_after: Duration,
    },
}

/// What the backplane tells the node.
#[derive(Debug)]
pub enum Notice {
    /// Events of other nodes, as they came from one channel.
    Events(Vec<Event>),
    /// Anything may have been missed (the link was down, a queue overflowed): catch up on every log that is followed.
    Missed,
    /// This node claimed a departure whose grace is over; it is to tell those concerned, once.
    Departed(Departure),
    /// Others are to be told that somebody is here whom they don't know to be.
    Returned(Return),
}

/// A user whom others took for gone, or never saw come, because Redis lost touch with this node: they are here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Return {
    /// Who.
    pub user: UserId,
    /// Their display name.
    pub name: Arc<str>,
    /// Conversations that they listen to, unknown to others.
    pub joined: Vec<ConversationId>,
    /// Whether others don't know that they are online.
    pub online: bool,
}

/// A user's last socket ended to listen to some conversations, and perhaps the user's last socket ended altogether.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Departure {
    /// Who.
    pub user: UserId,
    /// Their display name.
    pub name: Arc<str>,
    /// Conversations that they no longer listen to.
    pub left: Vec<ConversationId>,
    /// Whether they are now offline.
    pub offline: bool,
    /// Those who listen on this node were told while Redis was away; now the others are to be told.
    pub told_here: bool,
}

/// What the first listening of a user to a conversation brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listening {
    /// No other socket of the user listened to it, on any node, nor did one just before within the grace.
    pub first: bool,
}

/// A node, as its lease shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeInfo {
    /// Which; a node that was restarted may appear twice until its former lease is out.
    pub node: NodeId,
    /// How long its lease still lasts; zero where it is out.
    pub lease_left: Duration,
    /// Users connected to it.
    pub users: u64,
    /// Connections it held when it last renewed its lease.
    pub connections: u64,
}

impl From<NodeInfo> for NodeStats {
    fn from(NodeInfo { node, lease_left, users, connections }: NodeInfo) -> Self {
        Self { node, alive: !lease_left.is_zero(), users, connections }
    }
}

/// What the nodes share. Every method may be called at any time, and waits for Redis at most about a second.
pub struct Backplane {
    link: Arc<link::Link>,
    lease: Arc<lease::Lease>,
    registry: Arc<registry::Registry>,
    who: presence_query::PresenceQuery,
    limiter: limit::Limiter,
    recent: Arc<recent::Recent>,
    publisher: Arc<publisher::Publisher>,
    subscriber: Arc<subscriber::Subscriber>,
}

impl Backplane {
    /// Starts the backplane; its tasks end when `stop` is cancelled. It starts also while Redis is down.
    ///
    /// # Errors
    /// A bad URL or CA file.
    pub async fn start(
        settings: Settings,
        degrade: Arc<Degrade>,
        metrics: Arc<Metrics>,
        clock: Clock,
        tasks: &TaskTracker,
        stop: CancellationToken,
    ) -> Result<(Arc<Self>, mpsc::Receiver<Notice>), StartError> {
        let (notices, receiver) = mpsc::channel(NOTICES);
        let link = Arc::new(link::Link::new(settings.redis.as_ref(), ops::Ops::new(&metrics))?);
        let lease = Arc::new(lease::Lease::new(settings.node.clone(), settings.lease, clock.clone()));
        let process = wire::Process::new(&settings.node);
        let caps = local::Caps { connections: settings.connections_per_user, sockets: settings.sockets_per_user };
        let grace = settings.presence_grace;
        let registry = Arc::new(registry::Registry::new(link.clone(), lease.clone(), caps, grace, clock.clone()));
        let presence = departures::Departures {
            registry: registry.clone(),
            degrade: degrade.clone(),
            metrics: metrics.clone(),
            notices: notices.clone(),
        };
        let recent = Arc::new(recent::Recent::new(link.clone(), metrics.clone(), settings.cache_ttl));
        let (publisher, pump) =
            publisher::Publisher::new(link.clone(), metrics.clone(), recent.clone(), process.clone());
        let subscriber = Arc::new(subscriber::Subscriber::new(link.clone(), metrics.clone(), process, notices.clone()));

        let (eras, era) = watch::channel(watchdog::Era::default());
        tasks.spawn({
            let (era, stop) = (era.clone(), stop.clone());
            async move { presence.run(era, stop).await }
        });
        if link.client().is_some() {
            tasks.spawn({
                let (registry, era, stop) = (registry.clone(), era.clone(), stop.clone());
                async move { registry.run(era, notices, stop).await }
            });
            tasks.spawn(pump.run(era.clone(), stop.clone()));
            tasks.spawn(subscriber.clone().run(era.clone(), stop.clone()));
            let (link, lease, registry) = (link.clone(), lease.clone(), registry.clone());
            let watchdog = watchdog::Watchdog { link, lease, registry, degrade, metrics, clock, eras };
            watchdog.start(era, tasks, stop).await;
        }
        let limiter = limit::Limiter::new(link.clone(), settings.window);
        let who = presence_query::PresenceQuery { registry: registry.clone(), node: settings.node };
        let backplane = Self { link, lease, registry, who, limiter, recent, publisher, subscriber };
        Ok((Arc::new(backplane), receiver))
    }

    /// Asks whether `user` may send; `limit` is how many sends they may make in 60 s over all nodes, 0 for any number.
    pub async fn admit(&self, user: &UserId, limit: u32) -> Admission {
        self.limiter.admit(user, limit).await
    }

    /// Takes events to be told to other nodes, and messages among them to be cached. Never blocks.
    pub fn publish(&self, events: Vec<Event>) {
        self.publisher.publish(events);
    }

    /// Logs whose newest entry could not be told to other nodes yet, and its seq. They are told when Redis is back.
    pub fn unpublished(&self) -> Vec<(LogId, Seq)> {
        self.publisher.unpublished()
    }

    /// A conversation's entries after `after`, oldest first, up to the newest one cached; `None` where the cache does
    /// not hold what follows `after` without a gap. There may be newer ones that are not cached.
    pub async fn recent(&self, log: &LogId, after: Seq) -> Option<Vec<Entry>> {
        self.recent.after(log, after).await
    }

    /// Subscribes to what other nodes publish about a log; whatever is published after this returned is heard. Not
    /// counted: however often it was called, one [`Backplane::unsubscribe`] ends it. Where there is no connection now
    /// it returns at once, and [`Notice::Missed`] follows when the log was subscribed to.
    pub async fn subscribe(&self, log: &LogId) {
        self.subscriber.subscribe(log).await;
    }

    /// Ends a subscription.
    pub fn unsubscribe(&self, log: &LogId) {
        self.subscriber.unsubscribe(log);
    }

    /// Registers a connection; true where its user thereby came online, which others are to be told. Whoever gave up
    /// waiting calls [`Backplane::unregister`].
    ///
    /// # Errors
    /// The user has as many connections as they may.
    pub async fn register(&self, registration: &Registration) -> Result<bool, TooMany> {
        self.registry.register(registration).await
    }

    /// Removes a connection, with all that it listens to. What ends for its user is told as a [`Notice::Departed`]
    /// after the grace, on some node.
    pub async fn unregister(&self, connection: ConnectionId) {
        self.registry.unregister(connection).await;
    }

    /// Notes that a registered connection listens to a conversation.
    pub async fn listen(&self, connection: ConnectionId, conversation: &ConversationId) -> Listening {
        self.registry.listen(connection, conversation).await
    }

    /// Notes that a connection no longer listens to a conversation.
    pub async fn unlisten(&self, connection: ConnectionId, conversation: &ConversationId) {
        self.registry.unlisten(connection, conversation).await;
    }

    /// Which of these users are online, in their order. Within the grace a user still is.
    pub async fn online(&self, users: &[UserId]) -> Vec<bool> {
        self.who.online(users).await
    }

    /// Who of these has a connection on any node, in their order. Unlike those who are online, nobody is counted whose
    /// last connection ended a moment ago.
    pub async fn connected(&self, users: &[UserId]) -> Vec<bool> {
        self.who.connected(users).await
    }

    /// A page of all online users, about `limit` of them, and the cursor of the next page: 0 begins and ends. Someone
    /// who comes or goes meanwhile may be missing or appear twice.
    pub async fn online_page(&self, cursor: u64, limit: u32) -> (Vec<UserId>, u64) {
        self.who.online_page(cursor, limit).await
    }

    /// How many users are online.
    pub async fn online_count(&self) -> u64 {
        self.who.online_count().await
    }

    /// Users who listen to a conversation now, over all nodes; 1,000 of them where there are more.
    pub async fn audience(&self, conversation: &ConversationId) -> Vec<UserId> {
        self.who.audience(conversation).await
    }

    /// A user's connections on all nodes; with Redis down, those on this one.
    pub async fn connections_of(&self, user: &UserId) -> Vec<ConnectionInfo> {
        self.who.connections_of(user).await
    }

    /// Conversations that a user listens to, on all nodes; presence concerns those.
    pub async fn joined(&self, user: &UserId) -> Vec<ConversationId> {
        self.who.joined(user).await
    }

    /// The nodes whose leases stand in Redis; none with Redis off or down.
    pub async fn nodes(&self) -> Vec<NodeInfo> {
        self.who.nodes().await.unwrap_or_default()
    }

    /// Connections of all other nodes, as this one last heard when it renewed its lease; with Redis off or down that may be
    /// long ago. From memory.
    pub fn connections_elsewhere(&self) -> u64 {
        self.lease.connections_elsewhere()
    }

    /// How many users are online on this node. From memory.
    pub fn users_here(&self) -> u64 {
        self.registry.local.online_count()
    }

    /// Takes the node's lease out, once all its connections were unregistered; while some are left it does nothing, so
    /// that other nodes reap them. To be called before `stop` is cancelled, as the last thing.
    pub async fn leave(&self) {
        if !self.registry.local.is_empty() {
            return;
        }
        let me = self.lease.me();
        let mut pipeline = Pipeline::new();
        pipeline.cmd("DEL").arg(keys::node_users(&me)).cmd("ZREM").arg(keys::NODES).arg(me.as_str());
        pipeline.cmd("HDEL").arg(keys::CONNECTIONS).arg(me.as_str());
        self.lease.retire();
        // Where this fails the lease runs out by itself.
        let _ = self.link.run(ops::Op::Lease, me.as_str(), &pipeline).await;
    }
}

impl std::fmt::Debug for Backplane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Backplane").field("node", &self.who.node).finish_non_exhaustive()
    }
}
