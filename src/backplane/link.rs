//! The link for commands: a few multiplexed connections with bounded waits.
//!
//! [`super::watchdog`] decides whether Redis is up, and opens and closes the link. While the link is closed, or after a
//! call timed out, calls fail at once, so that callers do not wait for the timeout one after another.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use arc_swap::ArcSwapOption;
use redis::{AsyncConnectionConfig, Pipeline, aio::MultiplexedConnection};
use tokio::sync::Notify;

use super::{
    cluster::{Cluster, Router, revive},
    connection::Connection,
    connector::{CONNECT_TIMEOUT, RESPONSE_TIMEOUT},
    fault, foreign,
    keys::Keys,
    link_error::{LinkError, Refusal},
    ops::{Op, Ops},
    query_pool::QueryPool,
    replies::Replies,
    scan::ScanCursor,
    scripts::SCRIPTS,
    shards::{Layout, Shard},
    target::Target,
    types::StartError,
};
use crate::{
    config::{HostPort, RedisConfig, RedisPrefix},
    degrade::{Degrade, Fault, Finding, Part},
};

/// Number of connections for commands. A connection is limited by what one core can encode and decode; more than a few
/// connections make the batches smaller.
const CONNECTIONS: usize = 4;
/// The same to each master of a cluster. The second one is for queries.
const ROUTERS: usize = 2;
/// Number of connections for queries that may return long replies.
const QUERY_CONNECTIONS: u32 = 4;
/// Maximum number of connections of a node: those of the link, that of the subscription, and that over which Redis tells of
/// changes.
pub(super) const NODE_CONNECTIONS: usize = CONNECTIONS + QUERY_CONNECTIONS as usize + 2;
/// The same for each master of a cluster: for commands, for queries, for the subscription, for changes, and for questions about the
/// masters.
pub(super) const NODE_CONNECTIONS_PER_MASTER: usize = 5;
/// Maximum number of commands queued on one connection. Beyond it callers wait for room, within the same timeout.
const WRITE_QUEUE: usize = 1_024;

/// The link. Without a target (no Redis configured) it stays closed.
pub(super) struct Link {
    target: Option<Arc<Target>>,
    keys: Arc<Keys>,
    query_pool: Option<QueryPool>,
    open: ArcSwapOption<Vec<Connection>>,
    times_opened: AtomicU64,
    /// A call timed out, and not all connections have answered a probe since. Other calls then fail at once.
    silent: AtomicBool,
    /// A probe is late. Calls that can do without Redis then do.
    late: AtomicBool,
    /// Wakes the watchdog to check Redis now, because a call failed.
    pub(super) check_now: Notify,
    ops: Ops,
    degrade: Arc<Degrade>,
}

impl Link {
    /// A closed link to the Redis of `config`. Makes no connection.
    ///
    /// # Errors
    /// As [`Target::new`].
    pub(super) fn of(config: Option<&RedisConfig>, ops: Ops, degrade: Arc<Degrade>) -> Result<Self, StartError> {
        let target = config.map(Target::new).transpose()?;
        let prefix = config.map(|config| config.prefix.clone()).unwrap_or_default();
        Ok(Self::new(target, &prefix, ops, degrade))
    }

    /// A closed link to this target. Makes no connection.
    pub(super) fn new(target: Option<Arc<Target>>, prefix: &RedisPrefix, ops: Ops, degrade: Arc<Degrade>) -> Self {
        let pool = |target| QueryPool::new(target, QUERY_CONNECTIONS, RESPONSE_TIMEOUT);
        let cluster = target.as_ref().is_some_and(|target| target.cluster().is_some());
        let layout = if cluster { Layout::Cluster } else { Layout::Single };
        Self {
            keys: Arc::new(Keys::new(prefix, layout)),
            query_pool: target.clone().filter(|_| !cluster).map(pool),
            target,
            open: ArcSwapOption::empty(),
            times_opened: AtomicU64::new(0),
            silent: AtomicBool::new(false),
            late: AtomicBool::new(false),
            check_now: Notify::new(),
            ops,
            degrade,
        }
    }

    /// The keys and channels of this node.
    pub(super) fn keys(&self) -> &Arc<Keys> {
        &self.keys
    }

    /// The server, to which subscribers connect; `None` without Redis.
    pub(super) fn target(&self) -> Option<&Arc<Target>> {
        self.target.as_ref()
    }

    /// Connects; calls use the connections only after [`Link::open`].
    pub(super) async fn connect(&self) -> Result<Vec<Connection>, LinkError> {
        let target = self.target.as_ref().ok_or(LinkError::Down)?;
        let config = config();
        if let Some(cluster) = target.cluster() {
            target.found().await;
            let all = [(); ROUTERS].map(|()| Box::pin(Router::open(cluster, config.clone(), false)));
            let all = futures_util::future::try_join_all(all).await?;
            return Ok(all.into_iter().map(Connection::Cluster).collect());
        }
        let mut connections = target.connect_several(CONNECTIONS, &config).await?;
        target.check_role(connections.first_mut().ok_or(LinkError::Down)?).await?;
        Ok(connections.into_iter().map(Connection::Single).collect())
    }

    /// Waits until a master of a cluster that is down answers. Returns it, and connections to it.
    pub(super) async fn revive(&self) -> (HostPort, Vec<MultiplexedConnection>) {
        match self.cluster() {
            Some(cluster) => revive(cluster.clone(), config(), ROUTERS).await,
            None => std::future::pending().await,
        }
    }

    /// The cluster; `None` for one server.
    pub(super) fn cluster(&self) -> Option<&Arc<Cluster>> {
        self.target.as_ref()?.cluster()
    }

    /// The shards that are not known to be down, in order.
    pub(super) fn up_shards(&self) -> Vec<Shard> {
        let down = self.cluster().map_or(0, |cluster| cluster.shards_down());
        self.keys.shards().filter(|shard| down & shard.bit() == 0).collect()
    }

    /// The master of a shard of a cluster.
    pub(super) fn owner_of(&self, shard: Shard) -> Option<HostPort> {
        self.cluster()?.owner_of(shard.tag().as_bytes())
    }

    /// True if one of these masters of a cluster has this key.
    pub(super) fn is_on(&self, key: &str, masters: &[&HostPort]) -> bool {
        let owner = self.cluster().and_then(|cluster| cluster.owner_of(key.as_bytes()));
        owner.is_some_and(|owner| masters.contains(&&owner))
    }

    /// True if calls with this key or channel may be made: its master is not known to be silent or down.
    pub(super) fn may_call(&self, key: &str) -> bool {
        self.cluster().is_none_or(|cluster| cluster.may_call(key.as_bytes()))
    }

    /// Opens the link: calls use these connections.
    pub(super) fn open(&self, connections: Vec<Connection>) {
        self.silent.store(false, Ordering::Release);
        self.late.store(false, Ordering::Release);
        self.times_opened.fetch_add(1, Ordering::AcqRel);
        self.open.store(Some(Arc::new(connections)));
    }

    /// Number of times that new connections were opened. The same address may have led to another server each time.
    pub(super) fn times_opened(&self) -> u64 {
        self.times_opened.load(Ordering::Acquire)
    }

    /// Closes the link: calls fail at once.
    pub(super) fn close(&self) {
        self.open.store(None);
    }

    /// True while the link is open.
    pub(super) fn is_open(&self) -> bool {
        self.open.load().is_some()
    }

    /// True after a call timed out, until all connections have answered a probe.
    pub(super) fn is_silent(&self) -> bool {
        self.silent.load(Ordering::Acquire)
    }

    /// Records that a probe is late.
    pub(super) fn note_late(&self) {
        self.late.store(true, Ordering::Release);
    }

    /// True while a probe of the server of this key is late.
    pub(super) fn is_late(&self, key: &str) -> bool {
        self.late.load(Ordering::Acquire) || self.cluster().is_some_and(|cluster| !cluster.is_prompt(key.as_bytes()))
    }

    /// Records a successful probe. If it was one of all connections that began while the link was `silent`, calls are tried
    /// again: no command of an earlier call waits in a connection any more.
    pub(super) fn probe_succeeded(&self, silent: bool) {
        self.late.store(false, Ordering::Release);
        if silent {
            self.silent.store(false, Ordering::Release);
        }
    }

    /// Sends a pipeline. Calls with the same `route` (a user, a log) reach Redis in the order in which they were made.
    /// Error replies stay in [`Replies`]. If Redis does not know a script, this loads all scripts and sends the whole
    /// pipeline again, so the other commands in a pipeline with scripts must be safe to repeat.
    pub(super) async fn run(&self, op: Op, route: &str, pipeline: &Pipeline) -> Result<Replies, LinkError> {
        let open = self.open.load();
        let connections = open.as_ref().filter(|_| !self.silent.load(Ordering::Acquire)).ok_or(LinkError::Down)?;
        let mut connection = match self.keys.layout() {
            Layout::Single => {
                let mut hasher = DefaultHasher::new();
                route.hash(&mut hasher);
                let index = usize::try_from(hasher.finish() % CONNECTIONS as u64).unwrap_or(0) % connections.len();
                connections[index].clone()
            }
            Layout::Cluster => connections.first().ok_or(LinkError::Down)?.clone(),
        };
        drop(open);
        self.run_on(op, &mut connection, pipeline).await
    }

    /// Sends a pipeline whose commands from `second` on must reach Redis after those before it, also if they have other keys.
    pub(super) async fn run_in_order(
        &self,
        op: Op,
        route: &str,
        pipeline: &Pipeline,
        second: usize,
    ) -> Result<Replies, LinkError> {
        // One server executes all in order.
        if self.keys.layout() == Layout::Single || second == 0 || second >= pipeline.len() {
            return self.run(op, route, pipeline).await;
        }
        let mut parts = [Pipeline::with_capacity(second), Pipeline::with_capacity(pipeline.len() - second)];
        for (index, command) in pipeline.cmd_iter().enumerate() {
            parts[usize::from(index >= second)].add_command(command.clone());
        }
        let [one, other] = parts;
        let mut replies = self.run(op, route, &one).await?;
        let others = self.run(op, route, &other).await;
        replies.append(others.unwrap_or_else(|error| Replies::unanswered(other.len(), &error)));
        Ok(replies)
    }

    /// Sends a pipeline of queries with long replies over a connection of the query pool.
    pub(super) async fn query(&self, op: Op, pipeline: &Pipeline) -> Result<Replies, LinkError> {
        let Some(pool) = &self.query_pool else {
            let mut connection = self.query_connection()?;
            return self.run_on(op, &mut connection, pipeline).await;
        };
        let closed = !self.is_open() || self.silent.load(Ordering::Acquire);
        if closed {
            return Err(LinkError::Down);
        }
        match pool.get().await {
            Ok(mut lent) => self.run_on(op, &mut lent.connection, pipeline).await,
            Err(error) => {
                self.record_failure(op, &error);
                self.note_kept_out(op, &error);
                Err(error)
            }
        }
    }

    /// Tells [`Degrade`] that the query pool has no connection for this operation, if an operator must end that.
    fn note_kept_out(&self, op: Op, error: &LinkError) {
        let finding = fault::link_finding(error);
        if let (Some(work), true) = (op.work(), is_lasting(&finding)) {
            self.degrade.call_kept_out(work, op.label(), finding);
        }
    }

    /// Tries whether the query pool can lend a connection, if it could lend none for a call.
    pub(super) fn try_after_refusal(&self) {
        let Some(target) = self.target.clone() else { return };
        self.degrade.try_entry(Part::Redis, || QueryPool::can_lend(target));
    }

    /// Reads the next keys with a name of the registry, of all servers in turn.
    pub(super) async fn scan(&self, op: Op, cursor: &mut ScanCursor, count: usize) -> Result<Vec<String>, LinkError> {
        let [pattern, ..] = self.keys.patterns();
        let scan = cursor.command(&pattern, count);
        let mut replies = match &self.query_pool {
            Some(_) => self.query(op, &scan).await?,
            None => match self.query_connection()?.servers().into_iter().nth(cursor.server()) {
                Some(mut server) => self.run_on(op, &mut server, &scan).await?,
                None => return Ok(cursor.end()),
            },
        };
        let (next, found) = replies.take(0)?;
        cursor.advance(next, self.query_pool.is_some());
        Ok(found)
    }

    /// The connection for queries, without a pool.
    fn query_connection(&self) -> Result<Connection, LinkError> {
        let open = self.open.load();
        let connections = open.as_ref().filter(|_| !self.silent.load(Ordering::Acquire)).ok_or(LinkError::Down)?;
        connections.last().cloned().ok_or(LinkError::Down)
    }

    /// Sends a pipeline over `connection`, which need not belong to the open link.
    pub(super) async fn run_on(
        &self,
        op: Op,
        connection: &mut Connection,
        pipeline: &Pipeline,
    ) -> Result<Replies, LinkError> {
        let started = Instant::now();
        let mut result = connection.send(pipeline).await;
        if result.as_ref().is_ok_and(|replies| replies.errors().any(|error| error.code() == "NOSCRIPT")) {
            let mut load = redis::pipe();
            for script in SCRIPTS {
                load.cmd("SCRIPT").arg("LOAD").arg(script.source());
            }
            connection.send(&load).await?;
            result = connection.send(pipeline).await;
        }
        self.ops.observe(op, started.elapsed());
        self.record_result(op, &result);
        if let Ok(replies) = &result {
            let foreign = replies.keys_of_another_type(&self.keys, pipeline);
            if !foreign.is_empty() {
                // If this fails, the next call that meets one deletes it; this call has its replies.
                let deleted = connection.send(&foreign::deletion(&self.keys, &foreign)).await;
                let mut deleted = deleted.unwrap_or_default();
                // Several calls may meet a key at the same time; the one that deleted it names it.
                let keys = (0..).zip(foreign).filter(|(index, _)| deleted.take::<i64>(*index) == Ok(1));
                let keys: Vec<_> = keys.map(|(_, key)| key).collect();
                if !keys.is_empty() {
                    let keys = keys.join(" ");
                    tracing::warn!(keys, "another program stored values of another type; they are deleted");
                }
            }
        }
        result
    }

    /// Tells [`Degrade`] whether Redis refuses this operation for a reason that only an operator can end: the check at the
    /// start of an era found no fault, and the probes send other commands.
    fn judge(&self, op: Op, refusals: impl Iterator<Item = Refusal>) {
        let Some(work) = op.work() else { return };
        match refusals.map(|refusal| fault::refused(&refusal)).find(is_lasting) {
            // Redis' error for a script does not name the command.
            Some(Finding { fault, detail }) => {
                self.degrade.call_refused(work, op.label(), Finding::new(fault, format!("{detail} ({})", op.label())));
            }
            None => self.degrade.call_succeeded(work, op.label()),
        }
    }

    fn record_result(&self, op: Op, result: &Result<Replies, LinkError>) {
        match result {
            Ok(replies) => {
                for error in replies.failures().filter(|error| **error != LinkError::Down) {
                    self.ops.count_failure(op);
                    tracing::debug!(?op, %error, "a master did not answer a command");
                    self.check_now.notify_one();
                }
                for error in replies.errors() {
                    let code = error.code();
                    self.ops.count_failure(op);
                    tracing::debug!(?op, code, "Redis refused a command");
                    if matches!(code, "READONLY" | "OOM" | "MISCONF" | "LOADING" | "MASTERDOWN" | "CLUSTERDOWN") {
                        self.check_now.notify_one();
                    }
                }
                self.judge(op, replies.errors().map(Refusal::from));
            }
            Err(error) => {
                self.record_failure(op, error);
                if let LinkError::Refused(refusal) = error {
                    self.judge(op, std::iter::once(refusal.clone()));
                }
            }
        }
    }

    fn record_failure(&self, op: Op, error: &LinkError) {
        // No call is made to a server that is known to be down.
        if *error == LinkError::Down {
            return;
        }
        self.ops.count_failure(op);
        tracing::debug!(?op, %error, "a call to Redis failed");
        // Of a cluster, each master may be silent alone.
        let silent = *error == LinkError::Timeout && self.keys.layout() == Layout::Single;
        self.silent.fetch_or(silent, Ordering::AcqRel);
        self.check_now.notify_one();
    }
}

/// The settings of connections for commands.
fn config() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_TIMEOUT))
        .set_response_timeout(Some(RESPONSE_TIMEOUT))
        .set_pipeline_buffer_size(WRITE_QUEUE)
}

/// True if only an operator can end the fault of a refused call.
fn is_lasting(finding: &Finding) -> bool {
    matches!(finding.fault, Fault::RedisDeniesAccess | Fault::RedisLacksCommand)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    #[tokio::test]
    async fn without_redis_calls_fail_at_once() {
        let ops = Ops::new(&Metrics::new().unwrap());
        let link = Link::new(None, &RedisPrefix::default(), ops, Degrade::unwatched());
        let mut ping = redis::pipe();
        ping.cmd("PING");
        assert_eq!(link.run(Op::Admit, "x", &ping).await.err(), Some(LinkError::Down));
    }
}
