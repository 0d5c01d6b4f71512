//! The link for commands: a few multiplexed connections with bounded waits.
//!
//! [`super::watchdog`] decides whether Redis is up, and opens and closes the link. While the link is closed, or after a
//! call timed out, calls fail at once, so that callers do not wait for the timeout one after another.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use bb8::Pool;
use redis::{
    AsyncConnectionConfig, Client, FromRedisValue, Pipeline, ProtocolVersion, ServerError, TlsCertificates, Value,
    aio::MultiplexedConnection,
    io::tcp::{TcpSettings, socket2::TcpKeepalive},
};
use tokio::sync::Notify;

use super::{
    fault, foreign,
    keys::Keys,
    link_error::{LinkError, Refusal},
    ops::{Op, Ops},
    plain_text,
    scripts::SCRIPTS,
    types::StartError,
};
use crate::{
    config::RedisConfig,
    degrade::{Degrade, Fault, Finding},
};

/// Number of connections for commands. A connection is limited by what one core can encode and decode; more than a few
/// connections make the batches smaller.
const CONNECTIONS: usize = 4;
/// Number of connections for queries that may return long replies.
const QUERY_CONNECTIONS: u32 = 4;
/// Maximum number of connections of a node: those of the link, and that of the subscription.
pub(super) const NODE_CONNECTIONS: usize = CONNECTIONS + QUERY_CONNECTIONS as usize + 1;
/// Maximum wait for a reply.
pub(super) const RESPONSE_TIMEOUT: Duration = Duration::from_millis(500);
/// Maximum wait for a connection.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Maximum number of commands queued on one connection. Beyond it callers wait for room, within the same timeout.
const WRITE_QUEUE: usize = 1_024;

/// The reason for which a TLS connection fails that a server without TLS answered.
const NO_TLS: &str =
    "TLS failed: the server answers without TLS; REDIS_URL must begin with redis://, or lead to its tls-port";

/// The replies to a pipeline; each can be taken once.
#[derive(Debug, Default)]
pub(super) struct Replies(Vec<Value>);

impl Replies {
    /// Takes the reply to command `index`.
    pub(super) fn take<T: FromRedisValue>(&mut self, index: usize) -> Result<T, LinkError> {
        match self.0.get_mut(index).map(std::mem::take) {
            Some(Value::ServerError(error)) => Err(LinkError::Refused(Refusal::from(&error))),
            Some(value) => redis::from_redis_value(value).map_err(|_| LinkError::Unexpected),
            None => Err(LinkError::Unexpected),
        }
    }

    /// The keys of the commands that found a value of another type.
    pub(super) fn keys_of_another_type(&self, keys: &Keys, pipeline: &Pipeline) -> Vec<String> {
        foreign::keys_of_another_type(keys, pipeline, &self.0)
    }

    /// The first command that Redis refused, if there is one.
    pub(super) fn refusal(&self) -> Option<LinkError> {
        self.errors().next().map(|error| LinkError::Refused(Refusal::from(error)))
    }

    fn errors(&self) -> impl Iterator<Item = &ServerError> {
        self.0.iter().filter_map(|value| match value {
            Value::ServerError(error) => Some(error),
            _ => None,
        })
    }
}

/// The link. Without a client (no Redis configured) it stays closed.
pub(super) struct Link {
    client: Option<Client>,
    keys: Arc<Keys>,
    /// Connections for queries with long replies, which would delay the other commands.
    query_pool: Option<(Pool<Client>, LastError)>,
    open: ArcSwapOption<Vec<MultiplexedConnection>>,
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
    pub(super) fn new(config: Option<&RedisConfig>, ops: Ops, degrade: Arc<Degrade>) -> Result<Self, StartError> {
        let client = config.map(client).transpose()?;
        let pool = |client| {
            let last_error = LastError::default();
            let pool = Pool::builder().max_size(QUERY_CONNECTIONS).connection_timeout(RESPONSE_TIMEOUT);
            (pool.error_sink(Box::new(last_error.clone())).build_unchecked(client), last_error)
        };
        let prefix = config.map(|config| config.prefix.clone()).unwrap_or_default();
        Ok(Self {
            keys: Arc::new(Keys::new(&prefix)),
            query_pool: client.clone().map(pool),
            client,
            open: ArcSwapOption::empty(),
            silent: AtomicBool::new(false),
            late: AtomicBool::new(false),
            check_now: Notify::new(),
            ops,
            degrade,
        })
    }

    /// The keys and channels of this node.
    pub(super) fn keys(&self) -> &Arc<Keys> {
        &self.keys
    }

    /// The client, from which subscribers connect; `None` without Redis.
    pub(super) fn client(&self) -> Option<&Client> {
        self.client.as_ref()
    }

    /// Connects; calls use the connections only after [`Link::open`].
    pub(super) async fn connect(&self) -> Result<Vec<MultiplexedConnection>, LinkError> {
        let client = self.client.as_ref().ok_or(LinkError::Down)?;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(RESPONSE_TIMEOUT))
            .set_pipeline_buffer_size(WRITE_QUEUE);
        let all = (0..CONNECTIONS).map(|_| client.get_multiplexed_async_connection_with_config(&config));
        match futures_util::future::try_join_all(all).await {
            Ok(connections) => Ok(connections),
            Err(error) => Err(explain(client, error.into()).await),
        }
    }

    /// Opens the link: calls use these connections.
    pub(super) fn open(&self, connections: Vec<MultiplexedConnection>) {
        self.silent.store(false, Ordering::Release);
        self.late.store(false, Ordering::Release);
        self.open.store(Some(Arc::new(connections)));
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

    /// True while a probe is late.
    pub(super) fn is_late(&self) -> bool {
        self.late.load(Ordering::Acquire)
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
        let mut hasher = DefaultHasher::new();
        route.hash(&mut hasher);
        let index = usize::try_from(hasher.finish() % CONNECTIONS as u64).unwrap_or(0) % connections.len();
        let mut connection = connections[index].clone();
        drop(open);
        self.run_on(op, &mut connection, pipeline).await
    }

    /// Sends a pipeline of queries with long replies over a connection of the query pool.
    pub(super) async fn query(&self, op: Op, pipeline: &Pipeline) -> Result<Replies, LinkError> {
        let closed = !self.is_open() || self.silent.load(Ordering::Acquire);
        let (pool, last_error) = self.query_pool.as_ref().filter(|_| !closed).ok_or(LinkError::Down)?;
        match pool.get().await {
            Ok(mut connection) => self.run_on(op, &mut connection, pipeline).await,
            Err(error) => {
                let result = Err(last_error.behind(&error));
                self.record_result(op, &result);
                result
            }
        }
    }

    /// Sends a pipeline over `connection`, which need not belong to the open link.
    pub(super) async fn run_on(
        &self,
        op: Op,
        connection: &mut MultiplexedConnection,
        pipeline: &Pipeline,
    ) -> Result<Replies, LinkError> {
        let started = Instant::now();
        let mut result = send(connection, pipeline).await;
        if result.as_ref().is_ok_and(|replies| replies.errors().any(|error| error.code() == "NOSCRIPT")) {
            let mut load = redis::pipe();
            for script in SCRIPTS {
                load.cmd("SCRIPT").arg("LOAD").arg(script.source());
            }
            send(connection, &load).await?;
            result = send(connection, pipeline).await;
        }
        self.ops.observe(op, started.elapsed());
        self.record_result(op, &result);
        if let Ok(replies) = &result {
            let foreign = replies.keys_of_another_type(&self.keys, pipeline);
            if !foreign.is_empty() {
                // If this fails, the next call that meets one deletes it; this call has its replies.
                let deleted = send(connection, &foreign::deletion(&self.keys, &foreign)).await;
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
        let lasting = |finding: &Finding| matches!(finding.fault, Fault::RedisDeniesAccess | Fault::RedisLacksCommand);
        match refusals.map(|refusal| fault::refused(&refusal)).find(lasting) {
            // What Redis says of a script does not name the command.
            Some(Finding { fault, detail }) => {
                self.degrade.call_refused(work, op.label(), Finding::new(fault, format!("{detail} ({})", op.label())));
            }
            None => self.degrade.call_succeeded(work, op.label()),
        }
    }

    fn record_result(&self, op: Op, result: &Result<Replies, LinkError>) {
        match result {
            Ok(replies) => {
                for error in replies.errors() {
                    let code = error.code();
                    self.ops.count_failure(op);
                    tracing::debug!(?op, code, "Redis refused a command");
                    if matches!(code, "READONLY" | "OOM" | "MISCONF" | "LOADING" | "MASTERDOWN") {
                        self.check_now.notify_one();
                    }
                }
                self.judge(op, replies.errors().map(Refusal::from));
            }
            Err(error) => {
                self.ops.count_failure(op);
                tracing::debug!(?op, %error, "a call to Redis failed");
                self.silent.fetch_or(*error == LinkError::Timeout, Ordering::AcqRel);
                self.check_now.notify_one();
                if let LinkError::Refused(refusal) = error {
                    self.judge(op, std::iter::once(refusal.clone()));
                }
            }
        }
    }
}

/// The newest error of a pool. It tries again until its time is up, and tells no reason then.
#[derive(Debug, Clone, Default)]
struct LastError(Arc<Mutex<Option<LinkError>>>);

impl LastError {
    /// The reason why the pool lent no connection.
    fn behind(&self, error: &bb8::RunError<redis::RedisError>) -> LinkError {
        match error {
            bb8::RunError::User(error) => LinkError::from(error),
            bb8::RunError::TimedOut => {
                let last = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
                last.unwrap_or_else(|| LinkError::Broken("no connection came in time".to_owned()))
            }
        }
    }
}

impl bb8::ErrorSink<redis::RedisError> for LastError {
    fn sink(&self, error: redis::RedisError) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(LinkError::from(&error));
    }

    fn boxed_clone(&self) -> Box<dyn bb8::ErrorSink<redis::RedisError>> {
        Box::new(self.clone())
    }
}

/// The reason of a failed try to connect. A timeout gets a reason of its own if the server has no TLS and the URL asks for it.
pub(super) async fn explain(client: &Client, error: LinkError) -> LinkError {
    if error == LinkError::Timeout && plain_text::instead_of_tls(client).await {
        return LinkError::Broken(NO_TLS.to_owned());
    }
    error
}

/// Sends a pipeline; error replies stay in [`Replies`].
pub(super) async fn send(connection: &mut MultiplexedConnection, pipeline: &Pipeline) -> Result<Replies, LinkError> {
    Ok(Replies(connection.send_packed_commands(pipeline, 0, pipeline.len()).await?))
}

/// A Redis client with RESP3 (for push messages), TCP_NODELAY, and detection of half-open connections.
pub(super) fn client(config: &RedisConfig) -> Result<Client, StartError> {
    // The library's message may repeat the URL, which may hold the password.
    let parsed = Client::open(config.url.reveal()).map_err(|_| StartError::BadUrl)?;
    let info = parsed.get_connection_info().clone();
    let keepalive = TcpKeepalive::new().with_time(Duration::from_secs(10)).with_interval(Duration::from_secs(5));
    let tcp = TcpSettings::default().set_nodelay(true).set_keepalive(keepalive);
    #[cfg(target_os = "linux")]
    let tcp = tcp.set_user_timeout(Duration::from_secs(10));
    let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3).set_skip_set_lib_name();
    let info = info.set_tcp_settings(tcp).set_redis_settings(settings);
    let Some(path) = &config.ca_file else {
        return Client::open(info).map_err(|_| StartError::BadUrl);
    };
    let bad = |reason: String| StartError::BadCa { path: path.clone(), reason };
    let pem = std::fs::read(path).map_err(|error| bad(error.to_string()))?;
    if !pem.windows(27).any(|part| part == b"-----BEGIN CERTIFICATE-----") {
        return Err(bad("no certificate in it".to_owned()));
    }
    Client::build_with_tls(info, TlsCertificates { client_tls: None, root_cert: Some(pem) })
        .map_err(|error| bad(error.category().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{RedisPrefix, Secret},
        metrics::Metrics,
    };

    fn link(url: &str, ca: Option<&str>) -> Result<Link, StartError> {
        let config = RedisConfig { url: Secret::new(url), ca_file: ca.map(Into::into), prefix: RedisPrefix::default() };
        Link::new(Some(&config), Ops::new(&Metrics::new().unwrap()), Degrade::unwatched())
    }

    #[tokio::test]
    async fn a_bad_url_is_refused_without_showing_it() {
        let error = link("nonsense://user:secret@host", None).err().unwrap();
        assert_eq!(error, StartError::BadUrl);
        assert!(!error.to_string().contains("secret"));
        assert!(link("redis://localhost:6379/2", None).is_ok());
    }

    #[tokio::test]
    async fn a_bad_ca_file_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "no pem").unwrap();
        for path in ["/nowhere/ca.pem", file.path().to_str().unwrap()] {
            assert!(matches!(link("rediss://localhost", Some(path)), Err(StartError::BadCa { .. })));
        }
    }

    #[tokio::test]
    async fn without_redis_calls_fail_at_once() {
        let link = Link::new(None, Ops::new(&Metrics::new().unwrap()), Degrade::unwatched()).unwrap();
        let mut ping = redis::pipe();
        ping.cmd("PING");
        assert_eq!(link.run(Op::Admit, "x", &ping).await.err(), Some(LinkError::Down));
    }
}
