//! State that nodes share through Redis: registry and presence, limits, recent messages, and the bus between nodes.
//!
//! The backplane is Off (no Redis configured), Up or Down. While it is Off or Down, this node's local state
//! (`local.rs`) serves every call. The backplane imports `model`, `config`, `metrics` and `degrade`, never the store or the hub.
//! `docs/operations/redis.md` describes the contents of Redis for operators.
//!
//! Read in this order: `types` (inputs and outputs), `shards`, `keys` and `channels` (every name), `target` (where the server is;
//! `connector`, `route`, `sentinels`, `sentinel`, `belief` and `cluster` serve it), `connection` and `link` (calls), `lease`, `incarnation`, `era`
//! and `watchdog` (whether Redis is up, and this node's identity in it), `sharing` and `takeover` (other deployments), `local`, `line` and `registry` (connections),
//! `departures`, `reaping`, `view_repeats`, `scrub`, `nodes`, `presence_query`, `node_query` with `known_nodes` and `tracking`, `mac` and `refusals` (what is trusted), `publisher`, `wire`, `subscriber` and
//! `incoming` (the bus), `hints`, `recent`, `limit`.

use std::sync::Arc;

use futures_util::FutureExt;
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};

use crate::{
    degrade::Degrade,
    metrics::Metrics,
    model::{
        Budget, Clock, ConnectionId, ConnectionInfo, ConversationId, Cost, DeploymentId, Entry, Event, LogId, NodeId,
        NodeKeys, Seq, UserId,
    },
    supervise::{Supervisor, TaskName},
};

mod belief;
mod channels;
mod checks;
mod cluster;
mod connection;
mod connector;
mod departures;
mod diagnose;
mod diagnose_cluster;
mod era;
mod fault;
mod foreign;
mod form;
mod hearing;
mod hints;
mod incarnation;
mod incoming;
mod info;
mod keys;
mod known_nodes;
mod lease;
mod lease_calls;
mod lease_view;
mod limit;
mod line;
mod link;
mod link_error;
mod local;
mod lossy;
mod mac;
mod names;
mod needs;
mod neighbours;
mod node_counts;
mod node_query;
mod nodes;
mod ops;
mod plain_text;
mod presence_query;
mod publish_lanes;
mod publisher;
mod push_signals;
mod query_pool;
mod reaping;
mod recent;
mod redis_clock;
mod refusals;
mod registry;
mod registry_calls;
mod registry_upkeep;
mod replies;
mod route;
mod scan;
mod scripts;
mod scrub;
mod sentinel;
mod sentinels;
mod server_mode;
mod settings;
mod shards;
mod sharing;
mod subscriber;
mod subscription;
mod takeover;
mod target;
mod topics;
mod tracking;
mod types;
mod view_repeats;
mod watchdog;
mod watchdog_masters;
mod wire;

pub use diagnose::diagnose;
pub use form::check_form;
pub use mac::{Kind as SignedKind, Macs};
pub use nodes::Gathering;
pub use refusals::RefusedPlace;
pub use settings::Settings;
pub use types::{
    BackplaneEvent, ClusterStatus, Departure, Hint, Listeners, Listening, NodeInfo, RateDecision, RedisStatus,
    Registration, Return, Scope, StartError, TooMany,
};

/// The state that nodes share. Every method may be called at any time, and waits for Redis for at most about a second.
pub struct Backplane {
    link: Arc<link::Link>,
    lease: Arc<lease::Lease>,
    local: Arc<local::Local>,
    registry: Arc<registry::Registry>,
    presence: presence_query::PresenceQuery,
    limiter: limit::Limiter,
    hints: hints::Hints,
    recent: Arc<recent::Recent>,
    publisher: Arc<publisher::Publisher>,
    subscriber: Arc<subscriber::Subscriber>,
    macs: Arc<mac::Macs>,
    eras: watch::Receiver<era::Eras>,
}

impl Backplane {
    /// Starts the backplane, also while Redis is down. It uses Redis after [`Backplane::set_deployment`]. Its tasks end with the
    /// supervisor's stop.
    ///
    /// # Errors
    /// The URL or the CA file of Redis is bad. A Redis that is down is not an error.
    pub async fn start(
        settings: Settings,
        degrade: Arc<Degrade>,
        metrics: Arc<Metrics>,
        clock: Clock,
        supervisor: &Supervisor,
    ) -> Result<(Arc<Self>, mpsc::Receiver<BackplaneEvent>), StartError> {
        let (events, receiver) = mpsc::channel(incoming::EVENTS);
        let link = Arc::new(link::Link::of(settings.redis.as_ref(), ops::Ops::new(&metrics), degrade.clone())?);
        let lease = Arc::new(lease::Lease::new(settings.node.clone(), settings.lease, clock.clone()));
        let process = wire::Process::new(&settings.node);
        let grace = settings.presence_grace;
        let caps = local::Caps { connections: settings.connections_per_user, sockets: settings.sockets_per_user };
        let local = Arc::new(local::Local::new(caps, grace));
        let macs = Arc::<mac::Macs>::default();
        let refusals = Arc::new(refusals::Refusals::new(metrics.clone()));
        let names =
            Arc::new(names::Names { keys: link.keys().clone(), macs: macs.clone(), refusals: refusals.clone() });
        let (n, l, c, m) = (names.clone(), local.clone(), clock.clone(), metrics.clone());
        let registry = registry::Registry::new(link.clone(), lease.clone(), l, n, (caps, grace), (c, m));
        let registry = Arc::new(registry);
        let departures = departures::Departures {
            link: link.clone(),
            lease: lease.clone(),
            local: local.clone(),
            registry: registry.clone(),
            names,
            degrade: degrade.clone(),
            metrics: metrics.clone(),
            events: events.clone(),
            repeats: Default::default(),
        };
        let (l, m, ttl) = (link.clone(), metrics.clone(), settings.cache_ttl);
        let recent = Arc::new(recent::Recent::new(l.clone(), m.clone(), ttl, macs.clone(), refusals.clone()));
        let (p, r) = (process.clone(), recent.clone());
        let (publisher, publish_task) = publisher::Publisher::new(l, m, r, p, macs.clone(), degrade.clone());
        let incoming = incoming::Incoming {
            node: process.node().clone(),
            macs: macs.clone(),
            refusals: refusals.clone(),
            metrics: metrics.clone(),
            clock: clock.clone(),
            supervisor: supervisor.clone(),
            events: events.clone(),
        };
        let (l, m, p, d) = (link.clone(), metrics.clone(), process.clone(), degrade.clone());
        let subscriber = Arc::new(subscriber::Subscriber::new(l, m, p, incoming, d));
        let nodes = node_query::NodeQuery::start(&link, settings.presence_cache, &metrics, supervisor);
        let (era_sender, eras) = watch::channel(era::Eras::new(link.keys().layout()));
        let sweeps = departures::Sweeps::new(&departures);
        let state = (departures, sweeps, eras.clone());
        supervisor.spawn_until_stop(TaskName::Departures, state, |(departures, sweeps, eras)| {
            departures.run(sweeps, eras).boxed()
        });
        if let Some(target) = link.target().cloned() {
            target::spawn(target, (degrade.clone(), metrics.clone()), supervisor);
            let state = (registry.clone(), eras.clone(), events);
            supervisor.spawn_until_stop(TaskName::Registry, state, |(registry, eras, events)| {
                registry.run(eras.clone(), events.clone()).boxed()
            });
            let state = (publish_task, eras.clone(), supervisor.clone());
            supervisor.spawn(TaskName::Publisher, state, |(task, eras, supervisor)| task.run(eras, supervisor).boxed());
            let state = (subscriber.clone(), eras.clone());
            supervisor.spawn_until_stop(TaskName::Subscriber, state, |(subscriber, eras)| {
                subscriber.run(eras.clone()).boxed()
            });
            let (link, lease, local) = (link.clone(), lease.clone(), local.clone());
            let eras = era_sender;
            let watchdog = watchdog::Watchdog { link, lease, local, degrade, metrics, clock, refusals, eras };
            supervisor.spawn_until_stop(TaskName::Watchdog, watchdog, |watchdog| watchdog.run().boxed());
        }
        let limiter = limit::Limiter::new(link.clone(), lease.clone(), settings.window);
        let (l, e, o, node) = (link.clone(), lease.clone(), local.clone(), settings.node);
        let presence = presence_query::PresenceQuery { link: l, lease: e, local: o, nodes, node };
        let hints = hints::Hints { link: link.clone(), process, macs: macs.clone() };
        let backplane =
            Self { link, lease, local, registry, presence, limiter, hints, recent, publisher, subscriber, macs, eras };
        Ok((Arc::new(backplane), receiver))
    }

    /// Sets the keys with which nodes sign what they publish and cache. Until then nothing is published or cached, and
    /// everything from Redis is refused.
    pub fn set_keys(&self, keys: &NodeKeys) {
        self.macs.set_keys(keys);
    }

    /// Sets the epoch of the store. Of entries that were published or cached in another one, none is delivered before it was
    /// compared with the store.
    pub fn set_epoch(&self, epoch: i64) {
        self.macs.set_epoch(epoch);
    }

    /// Sets the deployment of this node, and waits until Redis is up or a try to use it failed. Until then nothing in Redis
    /// is read or written, because channels and keys are the deployment's.
    pub async fn set_deployment(&self, deployment: &DeploymentId) {
        self.link.keys().set_deployment(deployment.tag());
        if self.link.target().is_some() {
            // An error means that the watchdog has ended. To remove what another deployment left may take longer.
            let _ = timeout(settings::FIRST_TRY, self.eras.clone().wait_for(|eras| eras.tried)).await;
        }
    }

    /// True if there is another node to share keys with, that is, if Redis is configured.
    pub fn needs_keys(&self) -> bool {
        self.link.target().is_some()
    }

    /// Where Redis is now; `None` if it is off. Read from memory.
    pub fn redis_status(&self) -> Option<RedisStatus> {
        self.link.target().map(|target| target.status())
    }

    /// Returns when something in Redis was signed with a key that this node does not know.
    pub async fn wants_keys(&self) {
        self.macs.wants_keys().await;
    }

    /// Decides on one command of `user`. `limit` is the user's budget in 60 s over all nodes; 0: no limit. A command is
    /// admitted while any of the budget is left, and then uses its weight, at most the whole budget.
    pub async fn admit(&self, user: &UserId, cost: Cost, limit: u32) -> RateDecision {
        self.limiter.admit(user, cost, limit).await
    }

    /// Takes back the cost of an admitted command of weight 1 that did nothing.
    pub async fn refund(&self, user: &UserId, budget: Budget, limit: u32) {
        self.limiter.refund(user, budget, limit).await;
    }

    /// Queues events for publishing to other nodes; messages among them are also cached. Never blocks.
    pub fn publish(&self, events: Vec<Event>) {
        self.publisher.publish(events);
    }

    /// Logs whose newest entry is not published yet, with its seq. The entries are published when Redis is back.
    pub fn unpublished(&self) -> Vec<(LogId, Seq)> {
        self.publisher.unpublished()
    }

    /// A conversation's cached entries after `after`, oldest first, if they follow it without a gap; newer ones may exist.
    pub async fn recent(&self, log: &LogId, after: Seq) -> Option<Vec<Entry>> {
        self.recent.after(log, after).await
    }

    /// Forgets the cached entries of conversations, because some were removed from the store. Without Redis they expire.
    pub async fn forget_recent(&self, conversations: &[ConversationId]) {
        self.recent.forget(conversations).await;
    }

    /// Subscribes to a log: after this call, the node receives what others publish on it. One [`Backplane::unsubscribe`] ends it.
    /// Without a connection to Redis it returns at once; [`BackplaneEvent::Missed`] follows once the subscription is made.
    pub async fn subscribe(&self, log: &LogId) {
        self.subscriber.subscribe(log).await;
    }

    /// Ends a subscription.
    pub fn unsubscribe(&self, log: &LogId) {
        self.subscriber.unsubscribe(log);
    }

    /// Registers a connection. Returns true if its user came online by it; the caller then announces that. A caller
    /// that gives up waiting must call [`Backplane::unregister`].
    ///
    /// # Errors
    /// The user has reached a connection limit.
    pub async fn register(&self, registration: &Registration) -> Result<bool, TooMany> {
        self.registry.register(registration).await
    }

    /// Records that listeners were told a user's departure. If the user is connected here, Redis has lost that, and a
    /// [`BackplaneEvent::Returned`] follows.
    pub fn note_told_gone(&self, user: &UserId) {
        if self.local.is_connected(user) {
            self.registry.mark_unwritten(user, registry_calls::Unwritten { told_gone: true, ..Default::default() });
        }
    }

    /// Records that a connection does not answer, or does again. A silent connection gives way to a new one of its user that
    /// would exceed a cap. Returns false if it did so.
    pub async fn set_silent(&self, connection: ConnectionId, silent: bool) -> bool {
        self.registry.set_silent(connection, silent).await
    }

    /// Removes a connection and all its listening. If the user departs by it, exactly one node gets a
    /// [`BackplaneEvent::Departed`] after the grace.
    pub async fn unregister(&self, connection: ConnectionId) {
        self.registry.unregister(connection).await;
    }

    /// Records that a registered connection listens to a conversation.
    pub async fn listen(&self, connection: ConnectionId, conversation: &ConversationId) -> Listening {
        self.registry.listen(connection, conversation).await
    }

    /// Records that a connection no longer listens to a conversation.
    pub async fn unlisten(&self, connection: ConnectionId, conversation: &ConversationId) {
        self.registry.unlisten(connection, conversation).await;
    }

    /// Passes hints to the nodes that hold connections of their users. Returns those for this node. The other nodes get
    /// none while Redis is off or down.
    pub async fn hint(&self, hints: Vec<Hint>) -> Vec<Hint> {
        let users: Vec<UserId> = hints.iter().flat_map(|hint| hint.users.iter().cloned()).collect();
        let nodes = self.presence.nodes_of(&users).await;
        self.hints.send(hints, nodes).await
    }

    /// For each user, in order, true if online; during the grace a user still is.
    pub async fn online(&self, users: &[UserId]) -> Vec<bool> {
        self.presence.online(users).await
    }

    /// For each user, in order, true if there is a connection on any node right now; there is no grace.
    pub async fn connected(&self, users: &[UserId]) -> Vec<bool> {
        self.presence.connected(users).await
    }

    /// A page of about `limit` online users, and the cursor of the next page. Cursor 0 starts the listing, and marks
    /// its end. A user who comes or goes meanwhile may be missing or appear twice.
    pub async fn online_page(&self, cursor: u64, limit: u32) -> (Vec<UserId>, u64) {
        self.presence.online_page(cursor, limit).await
    }

    /// Number of online users.
    pub async fn online_count(&self) -> u64 {
        self.presence.online_count().await
    }

    /// Users who listen to a conversation now.
    pub async fn audience(&self, conversation: &ConversationId) -> Listeners {
        self.audiences(std::slice::from_ref(conversation)).await.pop().unwrap_or_default()
    }

    /// Users who listen to each of these conversations now, in order. Asks Redis once.
    pub async fn audiences(&self, conversations: &[ConversationId]) -> Vec<Listeners> {
        self.presence.audiences(conversations).await
    }

    /// For each user, in order, true if the user listens to a conversation on any node; during the grace a user still does.
    /// `None` while Redis is off or down; for users whose shard of a cluster is down, likewise.
    pub async fn listening(&self, conversation: &ConversationId, users: &[UserId]) -> Option<Vec<Option<bool>>> {
        self.presence.listening(conversation, users).await
    }

    /// True if every node has had the time to register its connections since Redis was lost: a user without an entry is
    /// then offline. False while Redis is off or down. Of shards of a cluster that are down nothing is known.
    pub fn registry_is_complete(&self) -> bool {
        self.eras.borrow().are_settled_where_up(self.lease.length(), era::REGISTER_AGAIN)
    }

    /// A number that changes whenever Redis may have lost users; `None` while the registry
    /// [may lack users](Self::registry_may_lack_users).
    pub fn registry_version(&self) -> Option<u64> {
        (!self.registry_may_lack_users()).then(|| self.eras.borrow().version())
    }

    /// True if another node may have users whom the registry lacks: Redis is configured, and not all of the registry is up and
    /// [complete](Self::registry_is_complete).
    pub fn registry_may_lack_users(&self) -> bool {
        self.link.target().is_some() && !self.eras.borrow().are_settled(self.lease.length(), era::REGISTER_AGAIN)
    }

    /// True if the registry may name users who left: Redis kept its data while this node did not reach it, or was replaced by a
    /// server with older data, and nodes had no time yet to remove what is no longer true.
    pub fn registry_may_be_old(&self) -> bool {
        self.link.target().is_some() && self.eras.borrow().may_be_old(self.lease.length(), era::REGISTER_AGAIN)
    }

    /// A user's connections on all nodes; while Redis is down, those on this node.
    pub async fn connections_of(&self, user: &UserId) -> Vec<ConnectionInfo> {
        self.presence.connections_of(user).await
    }

    /// Conversations that a user listens to, over all nodes. Presence of the user is announced in them.
    pub async fn joined(&self, user: &UserId) -> Vec<ConversationId> {
        self.presence.joined(user).await
    }

    /// The nodes with a lease in Redis; empty while Redis is off or down.
    pub async fn nodes(&self) -> Vec<NodeInfo> {
        self.presence.nodes().await.unwrap_or_default()
    }

    /// True if this node saw a lease of another one when it renewed its own last. Read from memory.
    pub fn sees(&self, node: &NodeId) -> bool {
        self.lease.sees(node)
    }

    /// Number of connections on all other nodes, as of this node's last renewal of its lease, which may be long ago
    /// while Redis is down. Read from memory.
    pub fn connections_elsewhere(&self) -> u64 {
        self.lease.connections_elsewhere()
    }

    /// Number of users online on this node. Read from memory.
    pub fn users_here(&self) -> u64 {
        self.local.online_count()
    }

    /// Removes the node's lease after all its connections were unregistered. Does nothing while some are left, so that
    /// other nodes reap them. Must be the last call before `stop` is cancelled.
    pub async fn leave(&self) {
        if !self.local.is_empty() {
            return;
        }
        self.lease.leave(&self.link).await;
    }
}

impl std::fmt::Debug for Backplane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Backplane").field("node", &self.presence.node).finish_non_exhaustive()
    }
}
