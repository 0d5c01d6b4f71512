//! Connections over which Redis tells of changes to what was read over them (`CLIENT TRACKING`): one to a server, or one to each
//! master of a cluster. Replies and told changes arrive in the order in which Redis executed the commands. So whoever sends a
//! command over such a connection and has the reply was told of every change before it.
//!
//! Nobody depends on them: without one, Redis is asked each time.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use futures_util::future::join_all;
use redis::{
    AsyncConnectionConfig, Pipeline, PushInfo, PushKind, Value,
    aio::{MultiplexedConnection, SendError},
};
use tokio::{
    sync::{Mutex, Notify},
    time::sleep,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    connection::Connection,
    connector::{CONNECT_TIMEOUT, RESPONSE_TIMEOUT},
    keys::Keys,
    known_nodes::{KnownNodes, Source},
    link::Link,
    link_error::LinkError,
    shards::Shard,
    target::Target,
};
use crate::{
    config::HostPort,
    degrade::{Fault, Finding},
    metrics::Metrics,
    model::UserId,
    supervise::{TaskName, checkpoint},
};

/// First and longest pause between two tries to connect.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// Pause after a server refused to tell of changes.
const REFUSED_PAUSE: Duration = Duration::from_secs(60);

/// A server: a master of a cluster, or `None` for the only one.
type Server = Option<HostPort>;

/// A connection whose server tells of changes.
#[derive(Clone)]
pub(super) struct Tracked {
    pub(super) connection: Connection,
    pub(super) source: Source,
    /// Held by the caller that reads what is not known, so that the next one finds it known.
    pub(super) turn: Arc<Mutex<()>>,
    ended: CancellationToken,
    /// The way to the server when it was opened, as [`Tracking::way`] tells it.
    way: (u64, u64),
}

impl Tracked {
    /// Ends the use of the connection.
    pub(super) fn end(&self) {
        self.ended.cancel();
    }

    /// True after its end.
    pub(super) fn has_ended(&self) -> bool {
        self.ended.is_cancelled()
    }

    /// True if the connection works and leads to the server to which this way leads.
    fn leads(&self, way: (u64, u64)) -> bool {
        self.way == way && !self.has_ended()
    }
}

/// Why a server does not tell of changes.
enum Untold {
    /// The server does not do it, or this Redis user may not ask for it.
    Refused(String),
    /// It can't be reached now.
    Failed(LinkError),
}

impl<E: Into<LinkError>> From<E> for Untold {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// Keeps the connections.
pub(super) struct Tracking {
    link: Arc<Link>,
    known: Arc<KnownNodes>,
    metrics: Arc<Metrics>,
    tracked: ArcSwap<HashMap<Server, Tracked>>,
    /// Wakes the task because a connection is missing.
    missing: Arc<Notify>,
    /// The log has said that a server refuses.
    said: AtomicBool,
}

impl Tracking {
    /// Makes no connection before one is missed.
    pub(super) fn new(link: Arc<Link>, known: Arc<KnownNodes>, metrics: Arc<Metrics>) -> Self {
        let (tracked, missing, said) = (ArcSwap::default(), Arc::default(), AtomicBool::new(false));
        Self { link, known, metrics, tracked, missing, said }
    }

    /// The connection to the server of a shard. If there is none, one is made meanwhile.
    pub(super) fn to(&self, shard: Shard) -> Option<Tracked> {
        let target = self.link.target()?;
        let server = match target.cluster() {
            Some(cluster) => Some(cluster.owner_of(shard.tag().as_bytes())?),
            None => None,
        };
        let way = self.way();
        let tracked = self.tracked.load().get(&server).filter(|tracked| tracked.leads(way)).cloned();
        if tracked.is_none() {
            self.missing.notify_one();
        }
        tracked
    }

    /// Changes whenever the same address may lead to another server than before.
    fn way(&self) -> (u64, u64) {
        (self.link.target().map_or(0, |target| target.route().number), self.link.times_opened())
    }

    /// Makes connections that are missing until the task is stopped.
    pub(super) async fn run(&self) {
        let mut pause = BACKOFF.0;
        loop {
            self.missing.notified().await;
            checkpoint(TaskName::Tracking, || "");
            let wait = match self.connect_missing().await {
                Ok(()) => {
                    pause = BACKOFF.0;
                    pause
                }
                Err(Untold::Refused(why)) => {
                    if !self.said.swap(true, Ordering::AcqRel) {
                        tracing::warn!(
                            why,
                            "Redis does not tell this node who connects and leaves; it is asked for each member of a \
                             conversation with new messages instead, which costs Redis more (docs/operations/redis.md)"
                        );
                    }
                    REFUSED_PAUSE
                }
                Err(Untold::Failed(error)) => {
                    tracing::debug!(%error, "no connection over which Redis tells of changes; connecting again");
                    pause = (pause * 2).min(BACKOFF.1);
                    pause
                }
            };
            sleep(wait.mul_f64(rand::random_range(0.8..1.2))).await;
        }
    }

    /// Connects to the servers to which no connection works. Returns one of the errors.
    async fn connect_missing(&self) -> Result<(), Untold> {
        let Some(target) = self.link.target() else { return Ok(()) };
        let (servers, way) = (servers(target, self.link.keys()), self.way());
        let mut tracked: HashMap<Server, Tracked> = HashMap::clone(&self.tracked.load());
        tracked.retain(|server, tracked| tracked.leads(way) && servers.iter().any(|(one, _)| one == server));
        self.store(tracked.clone());
        if !self.link.is_open() {
            return Ok(());
        }
        let missing = servers.into_iter().filter(|(server, _)| !tracked.contains_key(server));
        let opened = join_all(missing.map(|(server, shard)| async move {
            let opened = self.open(target, &server, shard, way.1).await;
            (server, opened)
        }));
        let mut result = Ok(());
        for (server, opened) in opened.await {
            match opened {
                Ok(opened) => {
                    tracked.insert(server, opened);
                }
                Err(error) => result = Err(error),
            }
        }
        self.store(tracked);
        result
    }

    fn store(&self, tracked: HashMap<Server, Tracked>) {
        self.metrics.presence_tracked.set(i64::try_from(tracked.len()).unwrap_or(i64::MAX));
        self.tracked.store(Arc::new(tracked));
    }

    /// Opens a connection to the server of a shard.
    async fn open(
        &self,
        target: &Arc<Target>,
        server: &Server,
        shard: Shard,
        times_opened: u64,
    ) -> Result<Tracked, Untold> {
        let (keys, source, ended) = (self.link.keys(), self.known.new_source(), CancellationToken::new());
        let push = {
            let (keys, known, ended, missing) = (keys.clone(), self.known.clone(), ended.clone(), self.missing.clone());
            move |info: &PushInfo| match (&info.kind, &info.data[..]) {
                (PushKind::Disconnection, _) => {
                    ended.cancel();
                    missing.notify_one();
                }
                (PushKind::Invalidate, [Value::Array(changed)]) => {
                    changed.iter().filter_map(|key| user_of(&keys, key)).for_each(|user| known.forget(&user));
                }
                // All keys were deleted.
                (PushKind::Invalidate, _) => known.forget_those(|_| true),
                _ => {}
            }
        };
        let (connection, route) = connect(target, keys, (server, shard), push).await?;
        let connection = Connection::Single(connection);
        Ok(Tracked { connection, source, turn: Arc::default(), ended, way: (route, times_opened) })
    }
}

/// The user whose entry this key is.
fn user_of(keys: &Keys, key: &Value) -> Option<UserId> {
    match key {
        Value::BulkString(key) => keys.user_of_entry(std::str::from_utf8(key).ok()?),
        _ => None,
    }
}

/// The servers with state of users, each with one of its shards.
fn servers(target: &Target, keys: &Keys) -> Vec<(Server, Shard)> {
    match target.cluster() {
        None => vec![(None, Shard::HOME)],
        Some(cluster) => {
            let held = cluster.shards_by_master(keys.shards());
            held.into_iter().map(|(master, shards)| (Some(master), shards[0])).collect()
        }
    }
}

/// Connects to a server, has it tell of changes, and proves that it does. Returns the connection and the number of the route.
async fn connect(
    target: &Arc<Target>,
    keys: &Keys,
    (server, shard): (&Server, Shard),
    push: impl Fn(&PushInfo) + Send + Sync + 'static,
) -> Result<(MultiplexedConnection, u64), Untold> {
    let [key, ..] = keys.checks(shard, &Uuid::new_v4().simple().to_string());
    let told = Arc::new(AtomicBool::new(false));
    let sender = {
        let (key, told) = (Value::BulkString(key.clone().into_bytes()), told.clone());
        move |info: PushInfo| {
            if info.kind == PushKind::Invalidate {
                let of_check = matches!(&info.data[..], [Value::Array(keys)] if keys.contains(&key));
                told.fetch_or(of_check, Ordering::AcqRel);
            }
            push(&info);
            Ok::<(), SendError>(())
        }
    };
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_TIMEOUT))
        .set_response_timeout(Some(RESPONSE_TIMEOUT))
        .set_push_sender(sender);
    let number = target.route().number;
    let (mut connection, route) = match (target.cluster(), server) {
        (Some(cluster), Some(master)) => (cluster.connect(master, &config).await?, number),
        _ => target.connect(&config).await?,
    };
    target.check_role(&mut connection).await?;
    let mut pipeline = Pipeline::new();
    pipeline.cmd("CLIENT").arg("TRACKING").arg("ON").cmd("GET").arg(&key);
    pipeline.cmd("SET").arg(&key).arg("v").arg("EX").arg(10).cmd("DEL").arg(&key).cmd("PING");
    let mut replies = Connection::Single(connection.clone()).send(&pipeline).await?;
    if let Err(LinkError::Refused(refusal)) = replies.take::<Value>(0) {
        return Err(Untold::Refused(refusal.words));
    }
    (1..pipeline.len()).try_for_each(|index| replies.take::<Value>(index).map(drop))?;
    if told.load(Ordering::Acquire) {
        Ok((connection, route))
    } else {
        Err(Untold::Refused("it accepts CLIENT TRACKING ON and tells of no change".to_owned()))
    }
}

/// The finding if a server does not tell of changes, for `switchboard check`.
pub(super) async fn check(target: &Arc<Target>, keys: &Keys) -> Option<Finding> {
    for (server, shard) in servers(target, keys) {
        if let Err(Untold::Refused(why)) = connect(target, keys, (&server, shard), |_| ()).await {
            let place = server.map_or_else(String::new, |master| format!("{master}: "));
            return Some(Finding::new(Fault::RedisUntracked, format!("{place}{why}; nodes ask Redis more often")));
        }
    }
    None
}
