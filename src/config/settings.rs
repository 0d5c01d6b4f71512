//! The table of settings. It alone says their names, defaults, units and meanings: flags, `--help`, the environment
//! and `docs/operations/configuration.md` all follow it.

#![allow(
    rustdoc::bare_urls,
    reason = "the help of a setting is also its documentation, and shows URLs as they are typed"
)]

use super::parse::{self, MINUTES};

/// What a setting is about; `--help` and the documentation are ordered by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// Addresses and names.
    Network,
    /// Redis.
    Redis,
    /// PostgreSQL, or the file in its place.
    Store,
    /// Who may connect.
    Tokens,
    /// How much of anything.
    Limits,
    /// How long anything.
    Timing,
    /// Personas and notifications.
    Webhooks,
    /// Logs.
    Logs,
}

impl Group {
    /// All groups, in the order in which they are shown.
    pub const ALL: [Self; 8] =
        [Self::Network, Self::Redis, Self::Store, Self::Tokens, Self::Limits, Self::Timing, Self::Webhooks, Self::Logs];

    /// The group's heading.
    pub fn title(self) -> &'static str {
        match self {
            Self::Network => "Network",
            Self::Redis => "Redis",
            Self::Store => "Store",
            Self::Tokens => "Tokens",
            Self::Limits => "Limits",
            Self::Timing => "Timing",
            Self::Webhooks => "Webhooks",
            Self::Logs => "Logs",
        }
    }
}

/// How a setting's value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Text; what it stands for.
    Text(&'static str),
    /// A whole number: of what, the least and the most.
    Count(&'static str, u64, u64),
    /// A length of time, with the least and the most in milliseconds.
    Duration(u64, u64),
    /// A number of bytes, with the least and the most.
    Size(u64, u64),
    /// `true` or `false`.
    Switch,
}

impl Kind {
    /// The unit, as the documentation names it.
    pub fn unit(self) -> &'static str {
        match self {
            Self::Text(unit) | Self::Count(unit, ..) => unit,
            Self::Duration(..) => "duration",
            Self::Size(..) => "bytes",
            Self::Switch => "true or false",
        }
    }
}

/// Another name under which a setting is also read from the environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alias {
    /// The name.
    pub name: &'static str,
    /// The unit that a plain number has under that name, where it differs.
    pub plain_unit: &'static str,
}

/// One setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    /// Its name in the environment. The flag is the same in lower case with dashes.
    pub name: &'static str,
    /// What it is about.
    pub group: Group,
    /// How its value is written.
    pub kind: Kind,
    /// Its default, as one would write it; empty: none.
    pub default: &'static str,
    /// Its default under `switchboard dev`, where that differs.
    pub dev_default: Option<&'static str>,
    /// What it does.
    pub help: &'static str,
    /// Its other names.
    pub aliases: &'static [Alias],
    /// Its value is never shown, and `NAME_FILE` names a file to read it from.
    pub secret: bool,
}

impl Setting {
    const fn new(name: &'static str, group: Group, kind: Kind, default: &'static str, help: &'static str) -> Self {
        Self { name, group, kind, default, dev_default: None, help, aliases: &[], secret: false }
    }

    const fn dev(mut self, default: &'static str) -> Self {
        self.dev_default = Some(default);
        self
    }

    const fn alias(mut self, aliases: &'static [Alias]) -> Self {
        self.aliases = aliases;
        self
    }

    const fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    /// Its flag, without the dashes in front.
    pub fn flag(&self) -> String {
        parse::flag_of(self.name)
    }

    /// The variable that names a file with its value; secrets have one.
    pub fn file_name(&self) -> Option<String> {
        self.secret.then(|| format!("{}_FILE", self.name))
    }

    /// Its default in this mode; `None` where it has none.
    pub fn default_in(&self, dev: bool) -> Option<&'static str> {
        let default = if dev { self.dev_default.unwrap_or(self.default) } else { self.default };
        (!default.is_empty()).then_some(default)
    }
}

macro_rules! settings {
    ($($name:ident = $group:ident, $kind:expr, $default:literal, $help:literal $(, $with:ident($($arg:expr)?))*;)*) => {
        $(
            #[doc = $help]
            pub const $name: Setting =
                Setting::new(stringify!($name), Group::$group, $kind, $default, $help)$(.$with($($arg)?))*;
        )*
        /// Every setting.
        pub const ALL: &[Setting] = &[$($name),*];
    };
}

const SECOND: u64 = 1_000;
const DAY: u64 = 86_400 * SECOND;
const MIB: u64 = 1 << 20;
const MANY: u64 = u32::MAX as u64;

settings! {
    LISTEN = Network, Kind::Text("addresses"), "0.0.0.0:8000",
        "Where clients connect; several addresses are separated by commas. Under dev only loopback addresses are taken.",
        dev("127.0.0.1:8000");
    ADMIN_LISTEN = Network, Kind::Text("address or off"), "127.0.0.1:8001",
        "Where /metrics, /livez and /readyz are served, or \"off\".";
    PUBLIC_URL = Network, Kind::Text("URL"), "",
        "The URL under which clients reach this deployment (wss://chat.example.com); without it, it is taken from the request.";
    TRUSTED_PROXIES = Network, Kind::Text("networks"), "",
        "Networks (CIDR, separated by commas) whose X-Forwarded-For and X-Forwarded-Proto are believed; with none, neither is.";
    ALLOWED_ORIGINS = Network, Kind::Text("origins"), "",
        "Origins (https://app.example.com, separated by commas) whose pages may open WebSockets and use REST (CORS); with none, pages of any origin may open WebSockets, and REST is for those of its own.";
    NODE_ID = Network, Kind::Text("id"), "",
        "This node's id, unique among the nodes that share a Redis; without it a random one.";
    OPEN_CONVERSATIONS = Network, Kind::Switch, "false",
        "Joining a conversation that doesn't exist makes it, open to anyone.", dev("true");

    REDIS_URL = Redis, Kind::Text("URL"), "",
        "Redis: redis:// or rediss:// (TLS), with user and password where needed. Required by serve, not used by dev.", secret();
    REDIS_CA_FILE = Redis, Kind::Text("file"), "",
        "Certificates (PEM) to trust for Redis instead of the system's.";
    CACHE_TTL = Redis, Kind::Duration(SECOND, 7 * DAY), "600s",
        "How long the cache of a conversation's recent messages lives.";
    NODE_LEASE = Redis, Kind::Duration(3 * SECOND, 600 * SECOND), "15s",
        "A node that has not renewed its lease for so long counts as dead, and its users go offline.";

    DATABASE_URL = Store, Kind::Text("URL"), "",
        "PostgreSQL: postgres://user:password@host/database. Required by serve, not used by dev.", secret();
    DATABASE_CA_FILE = Store, Kind::Text("file"), "",
        "Certificates (PEM) to trust for PostgreSQL instead of the system's.";
    DATABASE_POOL_SIZE = Store, Kind::Count("connections", 1, 1_000), "8",
        "Connections to PostgreSQL for reads, beside one for each writer lane.";
    WRITER_LANES = Store, Kind::Count("lanes", 1, 64), "2",
        "Group commits that run side by side; few are faster than many.";
    MIGRATE = Store, Kind::Switch, "true",
        "Apply pending migrations at start.";
    DATA_DIR = Store, Kind::Text("folder"), "./switchboard-data",
        "Where dev keeps its database and its secret. Not used by serve.";

    JWT_SECRET = Tokens, Kind::Text("secret"), "",
        "The shared secret that tokens are signed with, at least 32 bytes. serve requires exactly one of JWT_SECRET, JWT_PUBLIC_KEY and JWT_JWKS_URL; dev makes its own where none is given.",
        alias(&[Alias { name: "SECRET_KEY", plain_unit: "" }]), secret();
    JWT_PUBLIC_KEY = Tokens, Kind::Text("PEM"), "",
        "The public key that tokens are checked with. Tokens can't be made with it.", secret();
    JWT_JWKS_URL = Tokens, Kind::Text("URL"), "",
        "Where the keys that tokens are checked with are published (JWKS). Tokens can't be made with them.";
    JWT_ALGORITHM = Tokens, Kind::Text("algorithm"), "",
        "The one algorithm tokens may use. With JWT_SECRET: HS256 (the default), HS384, HS512; with JWT_PUBLIC_KEY it must be given: RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384 or EdDSA; with JWT_JWKS_URL each key names its own.",
        alias(&[Alias { name: "ALGORITHM", plain_unit: "" }]);
    JWT_AUDIENCE = Tokens, Kind::Text("text"), "",
        "What a token's aud must be or contain; where it is not set, aud is not looked at.";
    JWT_ISSUER = Tokens, Kind::Text("text"), "",
        "What a token's iss must be; where it is not set, iss is not looked at.";
    JWT_LEEWAY = Tokens, Kind::Duration(0, 600 * SECOND), "5s",
        "How far clocks may differ when a token's exp and nbf are checked.";
    TOKEN_TTL = Tokens, Kind::Duration(SECOND, 365 * DAY), "30m",
        "How long tokens made here live; those made over REST never outlive the token they were asked for with.",
        alias(&[Alias { name: "ACCESS_TOKEN_EXPIRE_MINUTES", plain_unit: MINUTES }]);

    MESSAGE_RATE_LIMIT = Limits, Kind::Count("messages a minute", 0, 1_000_000), "10",
        "Messages a user may send a minute; 0: no limit.";
    MESSAGE_RATE_LIMITS = Limits, Kind::Text("tier=number"), "",
        "The same for users whose token has a tier (pro=60,bot=600); 0: no limit.";
    MAX_CONNECTIONS = Limits, Kind::Count("sockets", 1, 10_000_000), "100000",
        "Sockets of this node, HTTP ones included. Lowered at start to what the limit of open files allows.";
    MAX_CONNECTIONS_PER_USER = Limits, Kind::Count("sockets", 1, MANY), "5",
        "A user's sockets over all nodes; those bound to one conversation count by user and conversation.";
    MAX_SOCKETS_PER_USER = Limits, Kind::Count("sockets", 1, MANY), "100",
        "All sockets of a user over all nodes.";
    MAX_CONNECTIONS_PER_IP = Limits, Kind::Count("sockets", 0, MANY), "0",
        "Sockets of one client address (IPv6: one /64 network) on this node; 0: no limit.";
    HANDSHAKES_PER_SECOND = Limits, Kind::Count("handshakes a second", 0, 1_000_000), "0",
        "New WebSockets a second on this node; 0: no limit.";
    MAX_FRAMES_PER_SECOND = Limits, Kind::Count("frames a second", 1, 1_000_000), "1000",
        "Frames a second from one socket.";
    MAX_FRAME_BYTES = Limits, Kind::Size(1_024, 16 * MIB), "64KiB",
        "The largest frame, and the largest message.";
    MAX_FRAGMENTS = Limits, Kind::Count("fragments", 1, 10_000), "64",
        "Fragments of one message.";
    OUTBOX_BYTES = Limits, Kind::Size(64 * 1_024, 1_024 * MIB), "1MiB",
        "What may wait for one slow reader; past it the socket is closed, to resume.";
    MAX_CONVERSATIONS_PER_CONNECTION = Limits, Kind::Count("conversations", 1, 100_000), "500",
        "Conversations one socket may listen to.";
    MAX_COMMANDS_IN_FLIGHT = Limits, Kind::Count("commands", 1, 10_000), "64",
        "Commands of one socket that may be under way at a time; further frames wait.";
    RESUME_MAX = Limits, Kind::Count("entries", 1, 1_000_000), "10000",
        "Entries that a resume replays at most; who missed more reads anew.";

    AUTH_TIMEOUT = Timing, Kind::Duration(SECOND, 300 * SECOND), "10s",
        "How long a socket may take to authenticate in its first frame.";
    PING_INTERVAL = Timing, Kind::Duration(SECOND, 3_600 * SECOND), "25s",
        "Between two pings to a client.";
    PONG_TIMEOUT = Timing, Kind::Duration(SECOND, 600 * SECOND), "10s",
        "How long a client may take to answer a ping.";
    TYPING_TIMEOUT = Timing, Kind::Duration(SECOND, 300 * SECOND), "5s",
        "A typist who says nothing more for so long has stopped.";
    PRESENCE_GRACE = Timing, Kind::Duration(0, 600 * SECOND), "5s",
        "From the end of a user's last socket until the user is offline.";
    SHUTDOWN_DELAY = Timing, Kind::Duration(0, 600 * SECOND), "10s",
        "After SIGTERM: how long connections are still accepted, while readiness is already off. Not used by dev.";
    DRAIN_WINDOW = Timing, Kind::Duration(0, 3_600 * SECOND), "45s",
        "After that: the time over which connections are closed evenly. Not used by dev.";

    PERSONA_WEBHOOK_URL = Webhooks, Kind::Text("URL"), "",
        "Where personas answer (docs/protocol/webhooks.md): https, or http to localhost, a loopback or a private address. Without it, messages to a persona are refused.",
        secret();
    PERSONA_WEBHOOK_SECRET = Webhooks, Kind::Text("secret"), "",
        "What requests to it are signed with.", secret();
    PERSONA_TIMEOUT = Webhooks, Kind::Duration(SECOND, 600 * SECOND), "30s",
        "How long a persona may take to answer, retries included.";
    PERSONA_CONCURRENCY = Webhooks, Kind::Count("requests", 1, 10_000), "16",
        "Personas asked at a time by this node.";
    PERSONA_QUEUE = Webhooks, Kind::Count("messages", 1, 1_000_000), "1000",
        "Messages to personas that may wait on this node; the senders of further ones are told that the persona does not answer.";
    NOTIFICATION_WEBHOOK_URL = Webhooks, Kind::Text("URL"), "",
        "Where it is told that messages wait for somebody who is away, to push it to their devices (docs/protocol/webhooks.md); what PERSONA_WEBHOOK_URL may be.",
        secret();
    NOTIFICATION_WEBHOOK_SECRET = Webhooks, Kind::Text("secret"), "",
        "What requests to it are signed with.", secret();
    NOTIFICATION_TIMEOUT = Webhooks, Kind::Duration(SECOND, 600 * SECOND), "30s",
        "How long one of these requests may take, retries included.";
    NOTIFICATION_CONCURRENCY = Webhooks, Kind::Count("requests", 1, 10_000), "16",
        "How many of them this node sends at a time.";
    NOTIFICATION_QUEUE = Webhooks, Kind::Count("notifications", 1, 1_000_000), "10000",
        "How many of them may wait on this node, and how many conversations with new messages until their away members are noted; further ones are dropped.";
    WEBHOOK_RETRIES = Webhooks, Kind::Count("retries", 0, 10), "3",
        "How often a request is tried again that could not be sent, or was answered with 429 or 5xx.";

    LOG = Logs, Kind::Text("filter"), "info",
        "What is logged: a level (error, warn, info, debug, trace), or levels by module (info,switchboard::http=debug).";
    LOG_FORMAT = Logs, Kind::Text("auto, json or pretty"), "auto",
        "How it is logged, to standard error; auto: pretty on a terminal, else JSON.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_unlike_those_of_files() {
        let mut names: Vec<String> = ALL.iter().map(|s| s.name.to_owned()).collect();
        names.extend(ALL.iter().flat_map(|s| s.aliases).map(|a| a.name.to_owned()));
        names.extend(ALL.iter().filter_map(Setting::file_name));
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn no_secret_has_a_default() {
        assert!(ALL.iter().filter(|s| s.secret).all(|s| s.default.is_empty() && s.dev_default.is_none()));
    }
}
