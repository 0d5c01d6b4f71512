//! The settings as the rest of the program sees them: read, checked and typed.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use ipnet::IpNet;
use jsonwebtoken::{Algorithm, DecodingKey};

use super::{
    secret::Secret,
    webhooks::{NotificationConfig, WebhookConfig},
};
use tracing_subscriber::filter::Targets;

use crate::model::NodeId;

/// All settings of a node.
#[derive(Debug, Clone)]
pub struct Config {
    /// `switchboard dev`: tokens are printed, `/ws/{user_id}` needs none.
    pub dev: bool,
    /// This node's id.
    pub node: NodeId,
    /// Where clients connect.
    pub listen: Vec<SocketAddr>,
    /// Where `/metrics`, `/livez` and `/readyz` are served.
    pub admin_listen: Option<SocketAddr>,
    /// The URL under which clients reach this deployment; else it is taken from the request.
    pub public_url: Option<String>,
    /// Whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Origins that browsers may connect from; empty: any.
    pub allowed_origins: Vec<String>,
    /// Redis; none: the node is alone.
    pub redis: Option<RedisConfig>,
    /// The store.
    pub store: StoreConfig,
    /// Tokens.
    pub auth: AuthConfig,
    /// Every limit.
    pub limits: Limits,
    /// Every wait.
    pub timing: Timing,
    /// Joining a conversation that doesn't exist makes it, open.
    pub open_conversations: bool,
    /// Where personas answer; none: messages to personas are refused.
    pub personas: Option<WebhookConfig>,
    /// How members who are away hear of messages.
    pub notifications: NotificationConfig,
    /// Logs.
    pub log: LogConfig,
    /// What the operator should know of how settings were understood; logged at start.
    pub notes: Vec<String>,
}

/// What is logged, and how.
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// Levels by module.
    pub filter: Targets,
    /// How lines look.
    pub format: LogFormat,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Pretty on a terminal, else JSON.
    Auto,
    /// One JSON object a line.
    Json,
    /// For people.
    Pretty,
}

/// Where Redis is.
#[derive(Debug, Clone)]
pub struct RedisConfig {
    /// `redis://` or `rediss://`, with user and password where needed.
    pub url: Secret,
    /// Certificates (PEM) to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
}

/// Where the store is.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// Which one.
    pub backend: StoreBackend,
    /// Whether pending migrations are applied at start.
    pub migrate: bool,
    /// Connections to PostgreSQL for reads, beside one per writer lane.
    pub pool_size: u32,
    /// Writer lanes: group commits that run side by side.
    pub lanes: usize,
}

/// Which store.
#[derive(Debug, Clone)]
pub enum StoreBackend {
    /// A file; one node alone.
    Sqlite {
        /// The database file.
        path: PathBuf,
    },
    /// PostgreSQL.
    Postgres {
        /// `postgres://…`, with `sslmode`.
        url: Secret,
        /// Certificates (PEM) to trust instead of the system's.
        ca_file: Option<PathBuf>,
    },
}

/// How tokens are checked and made.
#[derive(Debug, Clone)]
pub struct AuthConfig {
    /// The key or keys.
    pub key: AuthKey,
    /// What `aud` must be, where set.
    pub audience: Option<String>,
    /// What `iss` must be, where set.
    pub issuer: Option<String>,
    /// How much clocks may differ.
    pub leeway: Duration,
    /// How long minted tokens live.
    pub token_ttl: Duration,
    /// Clients are told what is wrong with their tokens: under `dev` alone.
    pub explains: bool,
}

/// The key that tokens are checked with; each goes with one pinned algorithm.
#[derive(Debug, Clone)]
pub enum AuthKey {
    /// A shared secret of at least 32 bytes; the only kind that can mint.
    Secret {
        /// The secret.
        secret: Secret,
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
    /// Keys published under a URL; each names its algorithm.
    Jwks {
        /// The URL.
        url: String,
    },
}

/// Every limit, with its default in the name's documentation.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Sockets of this node (100,000; never above what the file limit allows).
    pub connections: usize,
    /// User-scoped sockets per user over all nodes, and conversation-scoped ones per user and conversation (5).
    pub connections_per_user: u32,
    /// All sockets of a user over all nodes (100).
    pub sockets_per_user: u32,
    /// Sockets per client address on this node (0: off).
    pub connections_per_ip: u32,
    /// New sockets a second on this node (0: off).
    pub handshakes_per_second: u32,
    /// Frames a second from one socket (1,000).
    pub frames_per_second: u32,
    /// Bytes of one frame, and of one message (64 KiB).
    pub frame_bytes: usize,
    /// Fragments of one message (64).
    pub fragments: u32,
    /// Bytes that may wait for one socket (1 MiB).
    pub outbox_bytes: usize,
    /// Conversations one socket may listen to (500).
    pub conversations_per_connection: usize,
    /// Commands of one socket that may be under way at a time (64).
    pub commands_in_flight: usize,
    /// Entries a resume replays at most (10,000).
    pub resume_max: i64,
    /// Messages per minute per user (10); 0: off.
    pub messages_per_minute: u32,
    /// The same for users whose token has a `tier`.
    pub messages_per_minute_by_tier: Vec<(Arc<str>, u32)>,
}

/// Every wait.
#[derive(Debug, Clone)]
pub struct Timing {
    /// For the first frame to authenticate (10 s).
    pub auth_timeout: Duration,
    /// Between pings to a client (25 s), jittered.
    pub ping_interval: Duration,
    /// For the pong (10 s).
    pub pong_timeout: Duration,
    /// Until a typist who says nothing more has stopped (5 s).
    pub typing_timeout: Duration,
    /// From the last goodbye until a user is offline (5 s).
    pub presence_grace: Duration,
    /// A node's lease in Redis (15 s).
    pub lease: Duration,
    /// How long the recent-message caches live (600 s).
    pub cache_ttl: Duration,
    /// From SIGTERM until no more connections are accepted (10 s).
    pub shutdown_delay: Duration,
    /// Over which connections are closed then (45 s).
    pub drain_window: Duration,
}
