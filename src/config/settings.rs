//! The table of settings: the only place with their names, defaults, units and descriptions. Flags, `--help`, the
//! environment and `docs/operations/configuration.md` are derived from it.

#![allow(
    rustdoc::bare_urls,
    reason = "the help of a setting is also its documentation, and shows URLs as they are typed"
)]

pub use super::group::Group;
use super::parse::{self, MINUTES};

/// The form of a setting's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Text, with the word that describes it.
    Text(&'static str),
    /// A whole number: its unit, minimum and maximum.
    Count(&'static str, u64, u64),
    /// A duration: minimum and maximum in milliseconds.
    Duration(u64, u64),
    /// A size: minimum and maximum in bytes.
    Size(u64, u64),
    /// `true` or `false`.
    Switch,
}

impl Kind {
    /// The unit, as shown in the documentation.
    pub fn unit(self) -> &'static str {
        match self {
            Self::Text(unit) | Self::Count(unit, ..) => unit,
            Self::Duration(..) => "duration",
            Self::Size(..) => "bytes",
            Self::Switch => "true or false",
        }
    }

    /// The smallest and the largest value, as shown in the documentation.
    pub fn range(self) -> Option<String> {
        let text: fn(u64) -> String = match self {
            Self::Text(_) | Self::Switch => return None,
            Self::Count(..) => |number| number.to_string(),
            Self::Duration(..) => parse::duration_text,
            Self::Size(..) => parse::size_text,
        };
        let (Self::Count(_, low, high) | Self::Duration(low, high) | Self::Size(low, high)) = self else { return None };
        Some(format!("{} to {}", text(low), text(high)))
    }
}

/// Another environment variable from which a setting is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alias {
    /// The name.
    pub name: &'static str,
    /// The unit of a plain number under this name, if it differs from the setting's.
    pub plain_unit: &'static str,
}

/// One setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    /// The environment variable. The flag is the same name in lower case with dashes.
    pub name: &'static str,
    /// The group.
    pub group: Group,
    /// The form of the value.
    pub kind: Kind,
    /// The default, in the form of a given value; empty: none.
    pub default: &'static str,
    /// The default under `switchboard dev`, if it differs.
    pub dev_default: Option<&'static str>,
    /// The description for the documentation and `--help`.
    pub help: &'static str,
    /// Other names of the setting.
    pub aliases: &'static [Alias],
    /// True if the value is never shown, and `NAME_FILE` may name a file that holds it.
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

    /// The flag, without the leading dashes.
    pub fn flag(&self) -> String {
        parse::flag_of(self.name)
    }

    /// The variable that names a file with the value; only secrets have one.
    pub fn file_name(&self) -> Option<String> {
        self.secret.then(|| format!("{}_FILE", self.name))
    }

    /// The default in this mode; `None` if there is none.
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
        "Addresses for clients, separated by commas: `0.0.0.0:8000,[::]:8000` for IPv4 and IPv6 (`[::]:8000` alone takes both). Under dev they must be loopback addresses.",
        dev("127.0.0.1:8000");
    ADMIN_LISTEN = Network, Kind::Text("address or off"), "127.0.0.1:8001",
        "Address for /metrics, /livez and /readyz, and with ADMIN_TOKEN for the admin console; or \"off\".";
    PUBLIC_URL = Network, Kind::Text("URL"), "",
        "The URL under which clients reach this deployment (wss://chat.example.com); by default it is taken from each request.";
    TRUSTED_PROXIES = Network, Kind::Text("networks"), "",
        "Networks of proxies (CIDR, separated by commas) whose X-Forwarded-For and X-Forwarded-Proto are trusted; by default none.";
    PROXY_PROTOCOL = Network, Kind::Switch, "false",
        "Every socket of TRUSTED_PROXIES on LISTEN begins with a PROXY header (version 1 or 2), which names the client, as TCP load balancers send it. Sockets of other addresses have none.";
    ALLOWED_ORIGINS = Network, Kind::Text("origins"), "",
        "Origins whose pages may open WebSockets and use REST (CORS), separated by commas: https://app.example.com, https://*.example.com (subdomains), http://localhost:* (any port), null, or * for all. Requests without an Origin, and those whose Origin is the host that they are sent to, always pass. By default pages of any origin may open WebSockets, and only pages of the server's own origin may use REST. Under dev, pages from this machine may do both, and other pages only if they are listed.";
    HEALTH_DETAILS = Network, Kind::Text("status, components or all"), "components",
        "What /api/health shows on the clients' address to callers without an admin's token. status: the status only; components: also the node's id, the state of Redis and the store, and what works; all: also version, uptime, connections of all nodes, latencies.", dev("all");
    NODE_ID = Network, Kind::Text("id"), "",
        "This node's id, unique among the nodes that share a Redis; by default a random one.";
    OPEN_CONVERSATIONS = Network, Kind::Switch, "false",
        "Joining a conversation that doesn't exist creates it, open to everyone.", dev("true");

    REDIS_URL = Redis, Kind::Text("URL"), "",
        "URL of Redis, in one of four forms. One server: redis://user:password@host:port/database; all but the host may be left out, but a user needs a password. Sentinels: redis+sentinel://user:password@host:port/database?addr=host:port&addr=host:port&sentinel_master_name=NAME, where host and each addr are sentinels, user and password those of the servers; with sentinel_user=…&sentinel_password=… the sentinels have a login too, and sentinel_tls=true or false makes their TLS differ. A Redis Cluster: redis+cluster://user:password@host:port?addr=host:port&addr=host:port, where host and each addr are any of its nodes, which tell the others. A socket on this machine: unix:///path?db=1&user=…&pass=…. rediss://, rediss+sentinel:// and rediss+cluster:// use TLS. IPv6 addresses stand in brackets. In a password, write # as %23, / as %2F, ? as %3F, & as %26, @ as %40 and % as %25. Required by serve, not used by dev. If what answers there needs another form, serve ends with code 78 and names that form.", secret();
    REDIS_PASSWORD = Redis, Kind::Text("password"), "",
        "Password for the Redis servers, if REDIS_URL has none; as it is, without % codes.", secret();
    REDIS_SENTINEL_PASSWORD = Redis, Kind::Text("password"), "",
        "Password for the sentinels, if REDIS_URL has none; as it is, without % codes.", secret();
    REDIS_CA_FILE = Redis, Kind::Text("file"), "",
        "File with certificates (PEM) to trust for Redis instead of the system's.";
    REDIS_SENTINEL_CA_FILE = Redis, Kind::Text("file"), "",
        "File with certificates (PEM) to trust for the sentinels; by default REDIS_CA_FILE.";
    REDIS_CLIENT_CERT_FILE = Redis, Kind::Text("file"), "",
        "File with the certificate (PEM) that the node shows to Redis, and the certificates up to its CA. Read again when it is replaced.";
    REDIS_CLIENT_KEY_FILE = Redis, Kind::Text("file"), "",
        "File with the private key (PEM, without a password) of REDIS_CLIENT_CERT_FILE.";
    REDIS_SENTINEL_CLIENT_CERT_FILE = Redis, Kind::Text("file"), "",
        "The same for the sentinels; by default REDIS_CLIENT_CERT_FILE.";
    REDIS_SENTINEL_CLIENT_KEY_FILE = Redis, Kind::Text("file"), "",
        "File with the private key of REDIS_SENTINEL_CLIENT_CERT_FILE.";
    REDIS_PREFIX = Redis, Kind::Text("name"), "",
        "A name before every key in Redis: with staging, ws:nodes is staging:ws:nodes. Deployments with databases of their own need different ones if they share a database number of one Redis; nodes of one deployment need the same one.";
    CACHE_TTL = Redis, Kind::Duration(SECOND, 7 * DAY), "600s",
        "Lifetime of the cache of a conversation's recent messages.";
    PRESENCE_CACHE = Redis, Kind::Count("users", 0, 10_000_000), "100000",
        "Maximum number of users of whom a node remembers on which nodes they are connected, so that it asks Redis for members of conversations with new messages only after a change; about 200 bytes each. 0: it asks each time.";
    NODE_LEASE = Redis, Kind::Duration(3 * SECOND, 600 * SECOND), "15s",
        "A node that does not renew its lease for this long counts as dead, and its users go offline.";

    DATABASE_URL = Store, Kind::Text("URL"), "",
        "URL of PostgreSQL, as psql takes it: postgres://user:password@host:port/database?sslmode=verify-full. Several hosts are separated by commas, each with its port (host:port,host:port, or ?host=one,two&port=5432,5433): the first that takes writes is used, also after a failover, because target_session_attrs is then read-write unless the URL says any. ?host=/folder names a Unix socket. In a password, write @ as %40 and % as %25. Required by serve, not used by dev.", secret();
    DATABASE_PASSWORD = Store, Kind::Text("password"), "",
        "Password for PostgreSQL, if DATABASE_URL has none; as it is, without % codes.", secret();
    DATABASE_CA_FILE = Store, Kind::Text("file"), "",
        "File with certificates (PEM) to trust for PostgreSQL instead of the system's. With it, TLS is required, unless DATABASE_URL has sslmode=disable.";
    DATABASE_CLIENT_CERT_FILE = Store, Kind::Text("file"), "",
        "File with the certificate (PEM) that the node shows to PostgreSQL, and the certificates up to its CA. With it, TLS is required. Read again when it is replaced.";
    DATABASE_CLIENT_KEY_FILE = Store, Kind::Text("file"), "",
        "File with the private key (PEM, without a password) of DATABASE_CLIENT_CERT_FILE.";
    DATABASE_POOLER = Store, Kind::Text("off or transaction"), "off",
        "transaction: DATABASE_URL leads to a pooler that lends connections by the transaction (PgBouncer: pool_mode = transaction). A pooler in session mode needs no setting.";
    DATABASE_MIGRATE_URL = Store, Kind::Text("URL"), "",
        "URL of PostgreSQL for migrations; by default DATABASE_URL. Through a pooler that lends connections by the transaction no migration is applied, so this URL must lead to PostgreSQL itself. Its role may be another one, which owns the tables.", secret();
    DATABASE_POOL_SIZE = Store, Kind::Count("connections", 7, 1_000), "11",
        "Number of PostgreSQL connections of this node; each writer lane has one more. They are shared out to pools (docs/operations/scaling.md), so that no class of calls takes the connections of another.";
    DATABASE_START_TIMEOUT = Store, Kind::Duration(SECOND, 7 * DAY), "10m",
        "Maximum time that serve, not ready, and migrate wait at start until PostgreSQL can be reached and migrations are applied. After it the program exits with 1. A fault that only an operator can end (a wrong password, a missing database, a schema newer than the program) ends it at once. Not used by dev.";
    WRITER_LANES = Store, Kind::Count("lanes", 1, 64), "2",
        "Maximum number of commits at a time. Messages begin a second one only if they fill it (400), or if the first takes longer than 20 ms.";
    STORE_QUEUE = Store, Kind::Count("calls", 1, 100_000), "1000",
        "Maximum number of calls that wait for a connection of one pool. Further ones are refused.";
    HEAVY_READ_WAIT = Store, Kind::Duration(100, 60 * SECOND), "2s",
        "Maximum time that a heavy read (history, search, list) waits: for earlier ones of its user, and for a connection. After it the read is refused.";
    HEAVY_READ_TIMEOUT = Store, Kind::Duration(100, 4 * SECOND), "2s",
        "Maximum duration of a heavy read's query. After it the read is refused.";
    SEARCH_INDEX = Store, Kind::Switch, "true",
        "Keep the search index of PostgreSQL up to date, after the commit and in the background. Without it, a search reads only the newest messages. SQLite always has its index.";
    RETENTION_DAYS = Store, Kind::Count("days", 0, 36_500), "0",
        "Days for which messages and other entries are kept; older ones are removed (docs/operations/retention.md). A conversation may have a rule of its own; 0: for ever. Must be the same on all nodes.";
    RETENTION_INTERVAL = Store, Kind::Duration(SECOND, DAY), "1h",
        "Time between two passes that remove old entries. One node makes them for all.";
    MIGRATE = Store, Kind::Switch, "true",
        "Apply pending migrations at start.";
    DATA_DIR = Store, Kind::Text("folder"), "./switchboard-data",
        "Folder for the database and the secret of dev. Not used by serve.";

    JWT_SECRET = Tokens, Kind::Text("secret"), "",
        "The shared secret for signing and checking tokens, at least 32 bytes. serve requires exactly one of JWT_SECRET, JWT_PUBLIC_KEY and JWT_JWKS_URL; dev creates a secret if none is given.",
        alias(&[Alias { name: "SECRET_KEY", plain_unit: "" }]), secret();
    JWT_PREVIOUS_SECRET = Tokens, Kind::Text("secret"), "",
        "The secret before JWT_SECRET was changed. Tokens that it signed stay valid until they expire; new ones are signed with JWT_SECRET.", secret();
    JWT_PUBLIC_KEY = Tokens, Kind::Text("PEM"), "",
        "The public key for checking tokens. It can't mint tokens.", secret();
    JWT_JWKS_URL = Tokens, Kind::Text("URL"), "",
        "URL of the published keys (JWKS) for checking tokens. They can't mint tokens. Redirects are not followed.", secret();
    JWT_JWKS_REFRESH = Tokens, Kind::Duration(10 * SECOND, DAY), "5m",
        "Interval between two fetches of the published keys: a withdrawn key ends within this time, also if the set is then empty.";
    JWT_JWKS_MAX_AGE = Tokens, Kind::Duration(60 * SECOND, 30 * DAY), "1h",
        "Age at which published keys end if JWT_JWKS_URL no longer answers with a key set. Until a fetch succeeds, every token is then refused as temporarily unavailable.";
    JWT_ALGORITHM = Tokens, Kind::Text("algorithm"), "",
        "The only algorithm that tokens may use. With JWT_SECRET: HS256 (the default), HS384, HS512. Required with JWT_PUBLIC_KEY: RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384 or EdDSA. Not allowed with JWT_JWKS_URL, where each key names its own.",
        alias(&[Alias { name: "ALGORITHM", plain_unit: "" }]);
    JWT_AUDIENCE = Tokens, Kind::Text("text"), "",
        "A value that a token's aud must be or contain; by default aud is not checked.";
    JWT_ISSUER = Tokens, Kind::Text("text"), "",
        "The value that a token's iss must be; by default iss is not checked.";
    JWT_LEEWAY = Tokens, Kind::Duration(0, 600 * SECOND), "5s",
        "Maximum difference between clocks when a token's exp and nbf are checked.";
    TOKEN_TTL = Tokens, Kind::Duration(SECOND, 365 * DAY), "30m",
        "Lifetime of minted tokens. A token minted over REST never outlives the token of the request.",
        alias(&[Alias { name: "ACCESS_TOKEN_EXPIRE_MINUTES", plain_unit: MINUTES }]);

    TOKEN_LIFETIME_MAX = Tokens, Kind::Duration(60 * SECOND, 36_500 * DAY), "365d",
        "Maximum time from a token's iat to its exp, or from now to exp if it has no iat. A token that lives longer is refused, so that revocations of a user's tokens can be forgotten after this time. Must be the same on all nodes; raise it only if the older revocations are not needed.";

    MESSAGE_RATE_LIMIT = Limits, Kind::Count("messages a minute", 0, 1_000_000), "10",
        "Messages that a user may send per minute; 0: no limit.";
    MESSAGE_RATE_LIMITS = Limits, Kind::Text("tier=number"), "",
        "Messages per minute for users whose token has a tier (pro=60,bot=600); 0: no limit.";
    WRITE_RATE_LIMIT = Limits, Kind::Count("units a minute", 0, 1_000_000), "300",
        "Budget of a user per minute for changes other than messages: 1 for an edit, deletion, reaction or archiving, 1 for each member added or removed, 10 for a status; 0: no limit.";
    WRITE_RATE_LIMITS = Limits, Kind::Text("tier=number"), "",
        "WRITE_RATE_LIMIT for users whose token has a tier (pro=600,bot=6000); 0: no limit.";
    READ_RATE_LIMIT = Limits, Kind::Count("units a minute", 0, 1_000_000), "6000",
        "Budget of a user per minute for reads and typing: 1 for each conversation joined and each user whose presence is asked, 5 for a page of a list or a read mark, 10 for a typing indicator, 20 for a search; 0: no limit.";
    READ_RATE_LIMITS = Limits, Kind::Text("tier=number"), "",
        "READ_RATE_LIMIT for users whose token has a tier (pro=12000,bot=60000); 0: no limit.";
    EVENT_RATE_LIMIT = Limits, Kind::Count("units a minute", 0, 1_000_000), "600",
        "Budget of a user per minute for events: 1 for each, or 1 for each started KiB of its data; 0: no limit.";
    EVENT_RATE_LIMITS = Limits, Kind::Text("tier=number"), "",
        "EVENT_RATE_LIMIT for users whose token has a tier (pro=1800,bot=6000); 0: no limit.";
    MAX_EVENTS_PER_RECEIVER = Limits, Kind::Count("events a second", 0, 1_000_000), "500",
        "Maximum number of events per second that this node accepts from all users for one conversation, or for one user. Further ones are refused with rate_limited; 0: no limit.";
    MAX_CONNECTIONS = Limits, Kind::Count("sockets", 1, 10_000_000), "100000",
        "Maximum number of sockets of this node that showed a valid token, including HTTP ones. Lowered at start to what the limit of open files allows.";
    MAX_UNAUTHENTICATED = Limits, Kind::Count("sockets", 1, 10_000_000), "5000",
        "Maximum number of further sockets that showed no valid token so far. Beyond it, a new socket gets the place of one that waited for 250 ms without a request, or for a second with one, else it is refused. At most an eighth of what the limit of open files allows.";
    MAX_UNAUTHENTICATED_PER_IP = Limits, Kind::Count("sockets", 0, MANY), "1000",
        "Maximum number of sockets without a valid token from one client address (IPv6: one /64 network); 0: no limit. Many users may share an address, so it must allow as many handshakes as they begin at a time.";
    MAX_CONNECTIONS_PER_USER = Limits, Kind::Count("sockets", 1, MANY), "5",
        "Maximum number of a user's sockets over all nodes. Sockets bound to one conversation have a separate count, by user and conversation.";
    MAX_SOCKETS_PER_USER = Limits, Kind::Count("sockets", 1, MANY), "100",
        "Maximum number of all sockets of a user over all nodes.";
    MAX_CONNECTIONS_PER_IP = Limits, Kind::Count("sockets", 0, MANY), "0",
        "Maximum number of all sockets of one client address (IPv6: one /64 network) on this node; 0: no limit, because thousands of users may share an address (carrier-grade NAT). Sockets with a token are bounded by user in any case.";
    HANDSHAKES_PER_SECOND = Limits, Kind::Count("handshakes a second", 0, 1_000_000), "0",
        "New WebSockets per second on this node; 0: no limit.";
    MAX_FRAMES_PER_SECOND = Limits, Kind::Count("frames a second", 1, 1_000_000), "1000",
        "Maximum number of frames per second from one socket.";
    MAX_FRAME_BYTES = Limits, Kind::Size(1_024, 16 * MIB), "64KiB",
        "Maximum length of a frame, and of a message.";
    MAX_FRAGMENTS = Limits, Kind::Count("fragments", 1, 10_000), "64",
        "Maximum number of fragments of one message.";
    MAX_DATA_BYTES = Limits, Kind::Size(0, 32 * 1_024), "8KiB",
        "Maximum length of the data of a message, without the blanks between its tokens; 0: messages have none.";
    OUTBOX_BYTES = Limits, Kind::Size(64 * 1_024, 1_024 * MIB), "1MiB",
        "Maximum number of bytes that wait for one slow client. Beyond it the socket is closed, and the client may resume. An answer waits for room, and has at most a quarter of it: a longer page ends early, and says how to go on.";
    MAX_PAGE_BYTES = Limits, Kind::Size(64 * 1_024, 64 * MIB), "4MiB",
        "Maximum length of a list over REST. A longer page ends early, and says how to go on.";
    UNREAD_ANSWER_BYTES_PER_USER = Limits, Kind::Size(64 * 1_024, 1_024 * MIB), "16MiB",
        "Maximum number of bytes of one user's answers over REST that wait on this node until the user reads them. Beyond it, further reads are refused with rate_limited. Answers below 16 KiB don't count.";
    UNREAD_ANSWER_BYTES_TOTAL = Limits, Kind::Size(MIB, 1_024 * 1_024 * MIB), "256MiB",
        "The same for all users of this node together. Beyond it, further reads are refused with overloaded.";
    OUTBOX_TOTAL_BYTES = Limits, Kind::Size(MIB, 1_024 * 1_024 * MIB), "256MiB",
        "Maximum number of bytes that wait for all clients of this node together. Beyond it, the sockets for which most waits, for longest without taking any, are closed, and their clients may resume.";
    MAX_CONVERSATIONS_PER_CONNECTION = Limits, Kind::Count("conversations", 1, 100_000), "500",
        "Maximum number of conversations that one socket joins by command, and of those that it joins by itself. Beyond the latter it gives up the least recently active one, and joins again when a message is stored there.";
    MAX_BLOCKS_PER_USER = Limits, Kind::Count("users", 1, 100_000), "1000",
        "Maximum number of users that one user may block.";
    MAX_REVOCATIONS = Limits, Kind::Count("restrictions", 1, 1_000_000), "100000",
        "Maximum number of standing blocks and revocations by admins. Each node keeps them in memory. Further ones are refused.";
    MAX_COMMANDS_IN_FLIGHT = Limits, Kind::Count("commands", 1, 10_000), "64",
        "Maximum number of commands of one socket that run at a time; further frames wait.";
    HEAVY_READS_PER_USER = Limits, Kind::Count("reads", 1, 10_000), "2",
        "Maximum number of heavy reads (history, search, lists) of one user that run at a time on this node.";
    HEAVY_READ_QUEUE_PER_USER = Limits, Kind::Count("reads", 0, 100_000), "8",
        "Maximum number of further heavy reads of one user that wait on this node. Further ones are refused with rate_limited.";
    RESUME_MAX = Limits, Kind::Count("entries", 1, 1_000_000), "10000",
        "Maximum number of entries that a resume replays. A client that missed more has to resync.";

    AUTH_TIMEOUT = Timing, Kind::Duration(SECOND, 300 * SECOND), "10s",
        "Maximum time until a socket authenticates in its first frame.";
    UNAUTHENTICATED_TIMEOUT = Timing, Kind::Duration(SECOND, 300 * SECOND), "10s",
        "Maximum time until a new socket sends its first request, and between two requests as long as none had a valid token. Sockets of TRUSTED_PROXIES may be idle for 75 s.";
    PING_INTERVAL = Timing, Kind::Duration(SECOND, 3_600 * SECOND), "25s",
        "Interval between two pings to a client.";
    PONG_TIMEOUT = Timing, Kind::Duration(SECOND, 600 * SECOND), "10s",
        "Maximum time until a client answers a ping.";
    SLOW_READER_TIMEOUT = Timing, Kind::Duration(SECOND, 3_600 * SECOND), "30s",
        "Maximum time for which frames, or an answer over REST, wait for a client that takes no byte, even if it answers pings. While frames wait, a client that takes bytes needs not answer pings.";
    TYPING_TIMEOUT = Timing, Kind::Duration(SECOND, 300 * SECOND), "5s",
        "Time after a user's last typing command until the user counts as no longer typing.";
    PRESENCE_GRACE = Timing, Kind::Duration(0, 600 * SECOND), "5s",
        "Time from the end of a user's last socket until the user is offline.";
    SHUTDOWN_DELAY = Timing, Kind::Duration(0, 600 * SECOND), "10s",
        "Time after SIGTERM during which the node reports not ready and still accepts connections. Not used by dev.";
    DRAIN_WINDOW = Timing, Kind::Duration(0, 3_600 * SECOND), "45s",
        "Time after SHUTDOWN_DELAY over which connections are closed evenly. Not used by dev.";

    PERSONA_WEBHOOK_URL = Webhooks, Kind::Text("URL"), "",
        "URL of the webhook that answers for personas (docs/protocol/webhooks.md): https, or http to localhost, a loopback or a private address. If it is not set, messages to a persona are refused.",
        secret();
    PERSONA_WEBHOOK_SECRET = Webhooks, Kind::Text("secret"), "",
        "Secret that signs the requests to PERSONA_WEBHOOK_URL.", secret();
    PERSONA_IDS = Webhooks, Kind::Text("ids"), "",
        "Ids of the personas, separated by commas; required with PERSONA_WEBHOOK_URL. Messages to other ids are refused, and so are tokens whose sub is one of these. Under dev, the persona echo answers with what it is told.",
        dev("echo");
    PERSONA_TIMEOUT = Webhooks, Kind::Duration(SECOND, 600 * SECOND), "30s",
        "Maximum time until a persona answers, including retries.";
    PERSONA_CONCURRENCY = Webhooks, Kind::Count("requests", 1, 10_000), "16",
        "Maximum number of concurrent requests to personas from this node.";
    PERSONA_QUEUE = Webhooks, Kind::Count("messages", 1, 1_000_000), "1000",
        "Maximum number of messages to personas that wait on this node. For further ones the sender is told that the persona does not answer.";
    NOTIFICATION_WEBHOOK_URL = Webhooks, Kind::Text("URL"), "",
        "URL of the webhook for push notifications: called when messages wait for a user who is away (docs/protocol/webhooks.md). Same rules as for PERSONA_WEBHOOK_URL.",
        secret();
    NOTIFICATION_WEBHOOK_SECRET = Webhooks, Kind::Text("secret"), "",
        "Secret that signs the requests to NOTIFICATION_WEBHOOK_URL.", secret();
    NOTIFICATION_TIMEOUT = Webhooks, Kind::Duration(SECOND, 600 * SECOND), "30s",
        "Maximum time for one notification request, including retries. A request that fails waits in the store and is made again.";
    NOTIFICATION_MAX_AGE = Webhooks, Kind::Duration(60 * SECOND, 30 * DAY), "1d",
        "Time after which a notification request that never succeeded is given up.";
    NOTIFICATION_CONCURRENCY = Webhooks, Kind::Count("requests", 1, 10_000), "16",
        "Maximum number of concurrent notification requests from this node.";
    NOTIFICATION_QUEUE = Webhooks, Kind::Count("notifications", 1, 1_000_000), "10000",
        "Maximum number of notification requests that wait, over all nodes; for further notifications none is sent. Also the maximum number of conversations of this node with new messages whose away members are not yet determined.";
    WEBHOOK_RETRIES = Webhooks, Kind::Count("retries", 0, 10), "3",
        "Number of retries of a webhook request that could not be sent, or was answered with 429 or 5xx.";

    ADMIN_TOKEN = Console, Kind::Text("secret"), "",
        "The token for the admin console and its API on ADMIN_LISTEN (docs/operations/console.md), at least 32 bytes; without one they are off. Whoever has it reads and moderates everything. dev creates one if none is given.", secret();
    ADMIN_HOSTS = Console, Kind::Text("hosts"), "",
        "Host names under which browsers reach the console, separated by commas. IP addresses, localhost, names without a dot and those of services in a cluster (.svc, .svc.cluster.local) need not be listed. Others are refused, so that no page of the internet can reach the console under a name of its own.";
    ADMIN_TOKEN_GUESSES = Console, Kind::Count("tries a minute", 1, 1_000), "10",
        "Wrong tokens per minute from one address; beyond it, its requests to the console are refused for the rest of the minute.";
    ADMIN_TAIL_EVENTS = Console, Kind::Count("events", 1, 10_000), "1000",
        "Number of the newest connects, refusals and closes that a node keeps in memory for the console.";
    ADMIN_WATCHERS = Console, Kind::Count("requests", 1, 1_000), "8",
        "Maximum number of requests that wait on this node for the next connect, refusal or close. A further one takes the place of the oldest.";
    ADMIN_DELIVERIES = Console, Kind::Count("requests", 1, 10_000), "200",
        "Number of the newest finished webhook requests that a node keeps in memory for the console, to show and repeat them; their bodies together have at most 16 MiB.";

    LOG = Logs, Kind::Text("filter"), "info",
        "Log filter: a level (error, warn, info, debug, trace), or levels by module (info,switchboard::http=debug).";
    LOG_FORMAT = Logs, Kind::Text("auto, json or pretty"), "auto",
        "Format of the logs on standard error. auto: pretty on a terminal, else JSON.";
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
