//! The settings as typed values, after all checks.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use ipnet::IpNet;
use jsonwebtoken::{Algorithm, DecodingKey};

use super::{
    in_force::SettingInForce,
    origins::AllowedOrigins,
    secret::Secret,
    servers::{PostgresConfig, RedisConfig},
    webhooks::{NotificationConfig, PersonaConfig},
};
use tracing_subscriber::filter::Targets;

use crate::model::{NodeId, RetentionDays, UserId};

/// All settings of a node.
#[derive(Debug, Clone)]
pub struct Config {
    /// True under `switchboard dev`: tokens are printed, and `/ws/{user_id}` needs none.
    pub dev: bool,
    /// This node's id.
    pub node: NodeId,
    /// Addresses for clients.
    pub listen: Vec<SocketAddr>,
    /// Address for `/metrics`, `/livez` and `/readyz`.
    pub admin_listen: Option<SocketAddr>,
    /// The URL under which clients reach this deployment; `None`: it is taken from each request.
    pub public_url: Option<String>,
    /// Networks of proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` are trusted.
    pub trusted_proxies: Vec<IpNet>,
    /// If true, sockets of trusted proxies begin with a PROXY header.
    pub proxy_protocol: bool,
    /// What `/api/health` shows to callers without an admin's token.
    pub health_details: HealthDetails,
    /// Origins whose pages may use the node.
    pub allowed_origins: AllowedOrigins,
    /// Redis; `None`: the node runs alone.
    pub redis: Option<RedisConfig>,
    /// Settings of the store.
    pub store: StoreConfig,
    /// Settings of tokens.
    pub auth: AuthConfig,
    /// Every limit.
    pub limits: Limits,
    /// Every timeout and interval.
    pub timing: Timing,
    /// True if joining a conversation that doesn't exist creates it, open to everyone.
    pub open_conversations: bool,
    /// The personas and their webhook; `None`: messages to personas are refused.
    pub personas: Option<PersonaConfig>,
    /// Settings of notifications for members who are away.
    pub notifications: NotificationConfig,
    /// Settings of logs.
    pub log: LogConfig,
    /// The admin console; `None`: it is off.
    pub console: Option<ConsoleConfig>,
    /// Every setting with its value and source, for the console; secrets are left out.
    pub in_force: Arc<[SettingInForce]>,
    /// Notes for the operator about surprising settings; logged at start.
    pub notes: Vec<String>,
}

/// Settings of the admin console.
#[derive(Debug, Clone)]
pub struct ConsoleConfig {
    /// The token of admins.
    pub token: Secret,
    /// Host names under which it is reached, in lower case, beside those that need not be listed.
    pub hosts: Vec<String>,
    /// Maximum number of wrong tokens per minute from one address.
    pub guesses: u32,
    /// Number of connects, refusals and closes that are kept.
    pub tail_events: usize,
    /// Maximum number of requests that wait for the next of them.
    pub watchers: usize,
    /// Number of finished webhook requests that are kept.
    pub deliveries: usize,
}

/// How much `/api/health` shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HealthDetails {
    /// The status only.
    Status,
    /// Also the node's id, its components and what works.
    Components,
    /// Everything.
    All,
}

/// Settings of logs.
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// Levels by module.
    pub filter: Targets,
    /// The format of log lines.
    pub format: LogFormat,
}

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// `Pretty` on a terminal, else `Json`.
    Auto,
    /// One JSON object per line.
    Json,
    /// Text for people.
    Pretty,
}

/// Settings of the store.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// The kind of store and its address.
    pub backend: StoreBackend,
    /// True if pending migrations are applied at start.
    pub migrate: bool,
    /// Maximum time that `serve` and `migrate` wait at start for the store.
    pub start_timeout: Duration,
    /// Number of PostgreSQL connections, without those of the writer lanes; at least 7.
    pub pool_size: u32,
    /// Number of writer lanes: group commits that run in parallel, each with a connection.
    pub lanes: usize,
    /// Maximum number of calls that wait for a connection of one pool.
    pub queue: usize,
    /// Maximum time that a heavy read waits for its turn.
    pub heavy_read_wait: Duration,
    /// Maximum duration of a heavy read's query.
    pub heavy_read_timeout: Duration,
    /// True if this node keeps the search index of PostgreSQL up to date.
    pub search_index: bool,
    /// Time for which entries are kept, unless their conversation has a rule of its own.
    pub retention: RetentionDays,
    /// Time between two removals of old entries.
    pub retention_interval: Duration,
}

impl StoreConfig {
    /// The store's settings with their defaults.
    pub fn with_defaults(backend: StoreBackend) -> Self {
        Self {
            backend,
            migrate: true,
            start_timeout: Duration::from_secs(600),
            pool_size: 11,
            lanes: 2,
            queue: 1_000,
            heavy_read_wait: Duration::from_secs(2),
            heavy_read_timeout: Duration::from_secs(2),
            search_index: true,
            retention: RetentionDays::FOR_EVER,
            retention_interval: Duration::from_secs(3_600),
        }
    }

    /// Maximum number of files that the store opens: the connections of all pools, one that asks the server about calls
    /// without an answer, and those that cancel heavy reads (at most half of the connections run such reads).
    pub fn max_files(&self) -> usize {
        let pools = usize::try_from(self.pool_size).unwrap_or(usize::MAX);
        self.lanes + pools + 1 + pools / 2
    }
}

/// The kind of store and its address.
#[derive(Debug, Clone)]
pub enum StoreBackend {
    /// SQLite: a file, for one node alone.
    Sqlite {
        /// The database file.
        path: PathBuf,
    },
    /// PostgreSQL.
    Postgres(Box<PostgresConfig>),
}

/// Settings for checking and minting tokens.
#[derive(Debug, Clone)]
pub struct AuthConfig {
    /// The key or keys.
    pub key: AuthKey,
    /// Required `aud` claim, if set.
    pub audience: Option<String>,
    /// Required `iss` claim, if set.
    pub issuer: Option<String>,
    /// Maximum difference between clocks.
    pub leeway: Duration,
    /// Lifetime of minted tokens.
    pub token_ttl: Duration,
    /// Longest time from a token's issue to its expiry.
    pub lifetime_max: Duration,
    /// True if a refusal tells the client the fault of its token: only under `dev`.
    pub explains: bool,
    /// Ids that belong to personas: no token may have them as its `sub`.
    pub persona_ids: Arc<[UserId]>,
}

impl AuthConfig {
    /// Longest time from a token's issue until it is refused as expired, with room for clocks that differ.
    pub fn longest_validity(&self) -> Duration {
        const CLOCKS: Duration = Duration::from_secs(3_600);
        self.lifetime_max.saturating_add(self.leeway).saturating_add(CLOCKS)
    }
}

/// The key for checking tokens; each kind is pinned to its algorithm.
#[derive(Debug, Clone)]
pub enum AuthKey {
    /// A shared secret of at least 32 bytes; the only kind that can mint tokens.
    Secret {
        /// The secret.
        secret: Secret,
        /// The secret before the last change; its tokens are still valid.
        previous: Option<Secret>,
        /// HS256, HS384 or HS512.
        algorithm: Algorithm,
    },
    /// A public key.
    Public {
        /// The key.
        key: DecodingKey,
        /// RS256, ES256, EdDSA, …
        algorithm: Algorithm,
    },
    /// Keys published under a URL (JWKS); each key names its algorithm.
    Jwks(JwksConfig),
}

/// Settings of published keys.
#[derive(Debug, Clone)]
pub struct JwksConfig {
    /// The URL; it may contain a password.
    pub url: Secret,
    /// Interval between two fetches, and so the time within which a withdrawn key ends.
    pub refresh: Duration,
    /// Age at which keys that could not be fetched again end.
    pub max_age: Duration,
}

/// Every limit, with its default in parentheses.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Maximum number of sockets of this node with a valid token (100,000; never above what the limit of open files allows).
    pub connections: usize,
    /// Sockets of the admin listener, and as many of clients without a place that are refused with a reason or request
    /// health (64, less if the limit of open files is low).
    pub probe_sockets: usize,
    /// User-scoped sockets per user over all nodes, and conversation-scoped ones per user and conversation (5).
    pub connections_per_user: u32,
    /// All sockets of a user over all nodes (100).
    pub sockets_per_user: u32,
    /// Maximum number of sockets without a valid token (5,000).
    pub unauthenticated: usize,
    /// Sockets without a valid token per client address (1,000; 0: off).
    pub unauthenticated_per_ip: u32,
    /// Sockets per client address on this node (0: off).
    pub connections_per_ip: u32,
    /// New sockets per second on this node (0: off).
    pub handshakes_per_second: u32,
    /// Frames per second from one socket (1,000).
    pub frames_per_second: u32,
    /// Maximum length of one frame, and of one message, in bytes (64 KiB).
    pub frame_bytes: usize,
    /// Fragments of one message (64).
    pub fragments: u32,
    /// Maximum length of the data of a message, in bytes (8 KiB).
    pub data_bytes: usize,
    /// Maximum number of bytes waiting for one socket (1 MiB).
    pub outbox_bytes: usize,
    /// Maximum length of a page over REST, in bytes (4 MiB).
    pub page_bytes: usize,
    /// Maximum number of bytes waiting for all sockets together (256 MiB).
    pub outbox_total_bytes: usize,
    /// Maximum number of bytes of a user's answers over REST that wait for their reader.
    pub unread_answer_bytes_per_user: usize,
    /// The same for all users together.
    pub unread_answer_bytes_total: usize,
    /// Conversations that one socket may join by command, and conversations that it joins by itself (500).
    pub conversations_per_connection: usize,
    /// Users that one user may block (1,000).
    pub blocks_per_user: u32,
    /// Standing blocks and revocations of admins (100,000).
    pub restrictions: u32,
    /// Commands of one socket that may run at a time (64).
    pub commands_in_flight: usize,
    /// Heavy reads of one user that run at a time on this node (2).
    pub heavy_reads_per_user: usize,
    /// Further heavy reads of one user that wait on this node (8).
    pub heavy_read_queue_per_user: usize,
    /// Maximum number of entries that a resume replays (10,000).
    pub resume_max: i64,
    /// Messages per minute per user (10).
    pub message_rate: RateLimit,
    /// Weight of other changes per minute per user (300).
    pub write_rate: RateLimit,
    /// Weight of reads and ephemeral commands per minute per user (6,000).
    pub read_rate: RateLimit,
    /// Weight of events per minute per user (600).
    pub event_rate: RateLimit,
    /// Users of whom a node remembers where they are connected (100,000); 0: none.
    pub presence_cache: usize,
    /// Events per second to one conversation or user that this node accepts (500); 0: no limit.
    pub events_per_receiver: u32,
}

impl Limits {
    /// Maximum length of an answer over a socket, in bytes. Beside it, events still fit into the outbox.
    pub fn answer_bytes(&self) -> usize {
        self.outbox_bytes / 4
    }

    /// Maximum length of the list of present users in one frame, in bytes.
    pub fn roster_bytes(&self) -> usize {
        self.outbox_bytes / 8
    }
}

/// A budget of each user per minute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateLimit {
    /// The budget of users without a listed tier; 0: no limit.
    pub per_minute: u32,
    /// The budget by the `tier` of the token; 0: no limit.
    pub by_tier: Vec<(Arc<str>, u32)>,
}

impl RateLimit {
    /// The budget per minute of a user of this tier; 0: no limit.
    pub fn of(&self, tier: Option<&Arc<str>>) -> u32 {
        let own = self.by_tier.iter().find(|(listed, _)| Some(listed) == tier);
        own.map_or(self.per_minute, |(_, limit)| *limit)
    }
}

/// Every timeout and interval, with its default in parentheses.
#[derive(Debug, Clone)]
pub struct Timing {
    /// Maximum time until the first frame authenticates the socket (10 s).
    pub auth_timeout: Duration,
    /// Maximum time until a new socket's first request, and between its requests while it is unauthenticated (10 s).
    pub unauthenticated_timeout: Duration,
    /// Interval between pings to a client (25 s), jittered.
    pub ping_interval: Duration,
    /// Maximum time until the pong (10 s).
    pub pong_timeout: Duration,
    /// Maximum time for which frames wait for a client that takes no byte (30 s).
    pub slow_reader_timeout: Duration,
    /// Time after the last typing command until the user counts as no longer typing (5 s).
    pub typing_timeout: Duration,
    /// Time from the end of a user's last socket until the user is offline (5 s).
    pub presence_grace: Duration,
    /// Duration of a node's lease in Redis (15 s).
    pub lease: Duration,
    /// Lifetime of the recent-message caches (600 s).
    pub cache_ttl: Duration,
    /// Time from SIGTERM until the node accepts no more connections (10 s).
    pub shutdown_delay: Duration,
    /// Time after that over which connections are closed (45 s).
    pub drain_window: Duration,
}

impl Timing {
    /// Time for which a client leaves a ping unanswered until it may count as silent.
    pub fn silent_after(&self) -> Duration {
        (self.pong_timeout / 3).min(Duration::from_secs(3))
    }
}
