//! Reads the [`Config`] from its sources.

use std::path::Path;

use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};

use super::{
    addresses::read_addresses,
    console::read_console,
    dev, in_force,
    limits::read_limits,
    origins::AllowedOrigins,
    parse,
    redis_prefix::RedisPrefix,
    redis_url::{RedisForm, RedisPasswords, RedisServers},
    secret::{Secret, check_secret_length},
    secret_source::SecretSource,
    servers::{PostgresConfig, RedisConfig, RedisSource},
    settings::{self as set, Setting},
    source::{ConfigFaults, Reader, Sources},
    tls_files::{TlsFiles, read_tls},
    urls,
    values::{
        AuthConfig, AuthKey, Config, HealthDetails, JwksConfig, LogConfig, LogFormat, StoreBackend, StoreConfig, Timing,
    },
    webhooks::{read_persona_ids, read_webhooks},
};
use crate::model::{NodeId, RetentionDays};

/// Number of files that a node opens besides client sockets, PostgreSQL and webhooks: Redis, listeners, logs, the runtime.
const OTHER_FILES: usize = 64;
impl Config {
    /// Reads all settings: for `serve`, or for `switchboard dev` if `dev` is true.
    ///
    /// # Errors
    /// Every fault, each with its variable.
    pub fn load(dev: bool, sources: &Sources) -> Result<Self, ConfigFaults> {
        let mut reader = Reader::new(sources, dev);
        reader.creates_secret = dev;
        let config = read_config(&mut reader);
        reader.finish(config)
    }
}

impl AuthConfig {
    /// Reads the settings of tokens only. With `dev` it reads the secret that `switchboard dev` created, and creates
    /// none.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load(dev: bool, sources: &Sources) -> Result<Self, ConfigFaults> {
        let mut reader = Reader::new(sources, dev);
        let auth = read_auth(&mut reader);
        reader.finish(auth)
    }
}

impl StoreConfig {
    /// Reads the settings of the store only: PostgreSQL, or the SQLite of `switchboard dev` if `dev` is true.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load(dev: bool, sources: &Sources) -> Result<Self, ConfigFaults> {
        let mut reader = Reader::new(sources, dev);
        let store = if dev { read_dev_store(&mut reader, &mut Vec::new()) } else { read_store(&mut reader) };
        reader.finish(store)
    }
}

/// Reads MAX_REVOCATIONS only.
///
/// # Errors
/// As [`Config::load`].
pub fn max_revocations(sources: &Sources) -> Result<u32, ConfigFaults> {
    let mut reader = Reader::new(sources, false);
    let number = reader.number(&set::MAX_REVOCATIONS);
    reader.finish(Some(number))
}

impl LogConfig {
    /// Reads the settings of logs only.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load(sources: &Sources) -> Result<Self, ConfigFaults> {
        let mut reader = Reader::new(sources, false);
        let log = read_log(&mut reader);
        reader.finish(log)
    }
}

fn read_config(reader: &mut Reader<'_>) -> Option<Config> {
    let mut notes = Vec::new();
    let (listen, admin_listen) = read_addresses(reader);
    let public_url =
        reader.read(&set::PUBLIC_URL, |text| parse::url(text.trim_end_matches('/'), &["https", "http", "wss", "ws"]));
    let trusted_proxies = reader.read(&set::TRUSTED_PROXIES, parse::networks).unwrap_or_default();
    let proxy_protocol = reader.switch(&set::PROXY_PROTOCOL);
    if proxy_protocol && trusted_proxies.is_empty() {
        reader.fault(set::PROXY_PROTOCOL.name, "needs TRUSTED_PROXIES: PROXY headers count only from there");
    }
    let allowed_origins = reader.read(&set::ALLOWED_ORIGINS, AllowedOrigins::parse);
    if reader.dev && allowed_origins == Some(AllowedOrigins::Any) {
        notes
            .push("ALLOWED_ORIGINS is *: every page in a browser on this machine can chat here as any user".to_owned());
    }
    let health_details = reader.read(&set::HEALTH_DETAILS, |text| match text {
        "status" => Ok(HealthDetails::Status),
        "components" => Ok(HealthDetails::Components),
        "all" => Ok(HealthDetails::All),
        _ => Err("must be status, components or all".to_owned()),
    });
    let node = reader.read(&set::NODE_ID, |text| NodeId::parse(text).map_err(|error| error.to_string()));
    let redis = read_redis(reader, &mut notes);
    let store = if reader.dev { read_dev_store(reader, &mut notes) } else { read_store(reader) };
    let auth = read_auth(reader);
    if let Some(auth) = &auth {
        note_weak_checks(reader.dev, auth, &mut notes);
    }
    let timing = read_timing(reader);
    let open_conversations = reader.switch(&set::OPEN_CONVERSATIONS);
    let (personas, notifications) = read_webhooks(reader, &mut notes);
    let store_files = store.as_ref().map_or(0, StoreConfig::max_files);
    let webhook_files = personas
        .iter()
        .map(|personas| &personas.webhook)
        .chain(&notifications.webhook)
        .map(|webhook| webhook.concurrency)
        .sum::<usize>();
    let limits = read_limits(reader, &mut notes, OTHER_FILES + store_files + webhook_files);
    let log = read_log(reader);
    let console = read_console(reader, admin_listen, &mut notes);
    Some(Config {
        dev: reader.dev,
        node: node.unwrap_or_else(NodeId::fresh),
        listen,
        admin_listen,
        public_url,
        trusted_proxies,
        proxy_protocol,
        health_details: health_details?,
        allowed_origins: allowed_origins.unwrap_or(AllowedOrigins::Unset),
        redis,
        store: store?,
        auth: auth?,
        limits,
        timing,
        open_conversations,
        personas,
        notifications,
        log: log?,
        console,
        in_force: in_force::of(reader),
        notes,
    })
}

fn read_redis(reader: &mut Reader<'_>, notes: &mut Vec<String>) -> Option<RedisConfig> {
    if reader.dev {
        note_ignored(reader, &set::REDIS_URL, notes);
        return None;
    }
    let (password, sentinel_password) =
        (reader.secret(&set::REDIS_PASSWORD), reader.secret(&set::REDIS_SENTINEL_PASSWORD));
    let value = |source: &Option<SecretSource>| source.as_ref().map(|source| source.value().clone());
    let passwords = RedisPasswords { server: value(&password), sentinel: value(&sentinel_password) };
    let servers = reader.read(&set::REDIS_URL, |text| RedisServers::parse(text, &passwords));
    if !reader.given(&set::REDIS_URL) {
        reader.missing(&set::REDIS_URL);
    }
    let tls = read_tls(reader, &set::REDIS_CA_FILE, &set::REDIS_CLIENT_CERT_FILE, &set::REDIS_CLIENT_KEY_FILE);
    let certificate = (&set::REDIS_SENTINEL_CLIENT_CERT_FILE, &set::REDIS_SENTINEL_CLIENT_KEY_FILE);
    let own = read_tls(reader, &set::REDIS_SENTINEL_CA_FILE, certificate.0, certificate.1);
    let sentinel_tls = TlsFiles {
        ca: own.ca.or_else(|| tls.ca.clone()),
        setting: if own.client.is_none() && tls.client.is_some() { tls.setting } else { own.setting },
        client: own.client.or_else(|| tls.client.clone()),
    };
    if let Some(servers) = &servers {
        let at_sentinels = matches!(&servers.form, RedisForm::Sentinel(sentinels) if sentinels.tls);
        for (setting, uses_tls) in
            [(&set::REDIS_CLIENT_CERT_FILE, servers.tls || at_sentinels), (certificate.0, at_sentinels)]
        {
            if reader.given(setting) && !uses_tls {
                reader.fault(setting.name, "is set, but REDIS_URL asks for no TLS there");
            }
        }
    }
    let prefix = reader.read(&set::REDIS_PREFIX, RedisPrefix::parse).unwrap_or_default();
    let source = RedisSource { url: reader.secret(&set::REDIS_URL)?, password, sentinel_password };
    Some(RedisConfig { servers: servers?, source, tls, sentinel_tls, prefix })
}

fn note_ignored(reader: &mut Reader<'_>, setting: &Setting, notes: &mut Vec<String>) {
    if reader.given(setting) {
        notes.push(format!("{} is set, but switchboard dev ignores it", setting.name));
    }
}

fn read_store(reader: &mut Reader<'_>) -> Option<StoreConfig> {
    let postgres = read_postgres(reader);
    read_store_with(reader, postgres.map(|postgres| StoreBackend::Postgres(Box::new(postgres))))
}

fn read_postgres(reader: &mut Reader<'_>) -> Option<PostgresConfig> {
    let config = reader.read(&set::DATABASE_URL, urls::read_postgres_url);
    let url = reader.secret(&set::DATABASE_URL);
    if !reader.given(&set::DATABASE_URL) {
        reader.missing(&set::DATABASE_URL);
    }
    let password = reader.secret(&set::DATABASE_PASSWORD);
    if password.is_some() && config.as_ref().is_some_and(|config| config.get_password().is_some()) {
        reader.fault(set::DATABASE_PASSWORD.name, "is set, and DATABASE_URL has a password too: give only one");
    }
    let migrate = reader.read(&set::DATABASE_MIGRATE_URL, urls::read_postgres_url);
    let migrate_url = reader.secret(&set::DATABASE_MIGRATE_URL).filter(|_| migrate.is_some());
    let certificate = (&set::DATABASE_CLIENT_CERT_FILE, &set::DATABASE_CLIENT_KEY_FILE);
    let tls = read_tls(reader, &set::DATABASE_CA_FILE, certificate.0, certificate.1);
    if tls.client.is_some() && config.as_ref().is_some_and(urls::is_without_tls) {
        reader.fault(certificate.0.name, "is set, but DATABASE_URL has sslmode=disable");
    }
    let pooled = reader.read(&set::DATABASE_POOLER, |text| match text {
        "off" => Ok(false),
        "transaction" => Ok(true),
        _ => Err("must be off or transaction; a pooler in session mode needs no setting".to_owned()),
    });
    Some(PostgresConfig { url: url.filter(|_| config.is_some())?, password, migrate_url, tls, pooled: pooled? })
}

fn read_dev_store(reader: &mut Reader<'_>, notes: &mut Vec<String>) -> Option<StoreConfig> {
    note_ignored(reader, &set::DATABASE_URL, notes);
    let path = reader.text(&set::DATA_DIR).map(|folder| Path::new(&folder).join(dev::DATABASE_FILE));
    read_store_with(reader, path.map(|path| StoreBackend::Sqlite { path }))
}

fn read_store_with(reader: &mut Reader<'_>, backend: Option<StoreBackend>) -> Option<StoreConfig> {
    let migrate = reader.switch(&set::MIGRATE);
    let start_timeout = reader.duration(&set::DATABASE_START_TIMEOUT);
    let pool_size = reader.number(&set::DATABASE_POOL_SIZE);
    let lanes = reader.number(&set::WRITER_LANES);
    let queue = reader.number(&set::STORE_QUEUE);
    let heavy_read_wait = reader.duration(&set::HEAVY_READ_WAIT);
    let heavy_read_timeout = reader.duration(&set::HEAVY_READ_TIMEOUT);
    let search_index = reader.switch(&set::SEARCH_INDEX);
    let retention = RetentionDays::new(reader.number(&set::RETENTION_DAYS)).unwrap_or_default();
    let retention_interval = reader.duration(&set::RETENTION_INTERVAL);
    backend.map(|backend| StoreConfig {
        backend,
        migrate,
        start_timeout,
        pool_size,
        lanes,
        queue,
        heavy_read_wait,
        heavy_read_timeout,
        search_index,
        retention,
        retention_interval,
    })
}

fn read_auth(reader: &mut Reader<'_>) -> Option<AuthConfig> {
    let key = read_key(reader);
    let audience = reader.text(&set::JWT_AUDIENCE);
    let issuer = reader.text(&set::JWT_ISSUER);
    let leeway = reader.duration(&set::JWT_LEEWAY);
    let token_ttl = reader.duration(&set::TOKEN_TTL);
    let lifetime_max = reader.duration(&set::TOKEN_LIFETIME_MAX);
    if token_ttl > lifetime_max {
        reader.fault(set::TOKEN_LIFETIME_MAX.name, "must not be shorter than TOKEN_TTL");
    }
    let explains = reader.dev;
    let persona_ids = read_persona_ids(reader);
    key.map(|key| AuthConfig { key, audience, issuer, leeway, token_ttl, lifetime_max, explains, persona_ids })
}

/// Notes settings under which tokens are accepted that the operator may not expect.
fn note_weak_checks(dev: bool, auth: &AuthConfig, notes: &mut Vec<String>) {
    if auth.audience.is_none() && !dev {
        notes.push(
            "JWT_AUDIENCE is not set: a token that was issued for another application with the same key is accepted too"
                .to_owned(),
        );
    }
    match &auth.key {
        AuthKey::Jwks(JwksConfig { url, .. }) if url.reveal().starts_with("http:") => notes.push(
            "JWT_JWKS_URL is not https: an attacker on the network can replace the keys and forge tokens".to_owned(),
        ),
        AuthKey::Secret { previous: Some(_), .. } => notes.push(
            "JWT_PREVIOUS_SECRET is set: its tokens are accepted too; remove it once the last of them has expired"
                .to_owned(),
        ),
        _ => {}
    }
}

fn read_key(reader: &mut Reader<'_>) -> Option<AuthKey> {
    let given = [&set::JWT_SECRET, &set::JWT_PUBLIC_KEY, &set::JWT_JWKS_URL].map(|setting| reader.given(setting));
    let algorithm = reader.read(&set::JWT_ALGORITHM, |text| {
        text.parse::<Algorithm>()
            .map_err(|_| "is not a known algorithm; docs/operations/configuration.md lists them".to_owned())
    });
    if reader.given(&set::JWT_PREVIOUS_SECRET) && !given[0] {
        reader.fault(set::JWT_PREVIOUS_SECRET.name, "is given without JWT_SECRET, the secret that replaces it");
    }
    match given {
        [true, false, false] => {
            let secret = reader.read(&set::JWT_SECRET, check_secret_length)?;
            secret_key(reader, secret, algorithm)
        }
        [false, true, false] => {
            let pem = reader.text(&set::JWT_PUBLIC_KEY)?;
            public_key(reader, &pem, algorithm)
        }
        [false, false, true] => {
            if algorithm.is_some() {
                reader.fault(
                    set::JWT_ALGORITHM.name,
                    "can't be used with JWT_JWKS_URL: each key names its own algorithm",
                );
            }
            read_jwks(reader).map(AuthKey::Jwks)
        }
        [false, false, false] if reader.dev => {
            let secret = dev::secret(reader)?;
            Some(AuthKey::Secret { secret: Secret::new(secret), previous: None, algorithm: Algorithm::HS256 })
        }
        [false, false, false] => {
            reader.fault(set::JWT_SECRET.name, "is required, unless JWT_PUBLIC_KEY or JWT_JWKS_URL is set");
            None
        }
        _ => {
            reader.fault(
                set::JWT_SECRET.name,
                "is one of several keys: set only one of JWT_SECRET, JWT_PUBLIC_KEY and JWT_JWKS_URL",
            );
            None
        }
    }
}

fn read_jwks(reader: &mut Reader<'_>) -> Option<JwksConfig> {
    let url = reader.read(&set::JWT_JWKS_URL, |text| parse::url(text, &["https", "http"]).map(Secret::new));
    let refresh = reader.duration(&set::JWT_JWKS_REFRESH);
    let max_age = reader.duration(&set::JWT_JWKS_MAX_AGE);
    if max_age < refresh {
        reader.fault(set::JWT_JWKS_MAX_AGE.name, "must not be shorter than JWT_JWKS_REFRESH");
    }
    url.map(|url| JwksConfig { url, refresh, max_age })
}

fn secret_key(reader: &mut Reader<'_>, secret: String, algorithm: Option<Algorithm>) -> Option<AuthKey> {
    let algorithm = algorithm.unwrap_or(Algorithm::HS256);
    let previous = reader.read(&set::JWT_PREVIOUS_SECRET, check_secret_length);
    if previous.as_ref() == Some(&secret) {
        reader.fault(set::JWT_PREVIOUS_SECRET.name, "is the same as JWT_SECRET");
    }
    if algorithm.family() == AlgorithmFamily::Hmac {
        let (secret, previous) = (Secret::new(secret), previous.map(Secret::new));
        return Some(AuthKey::Secret { secret, previous, algorithm });
    }
    reader.fault(set::JWT_ALGORITHM.name, "can't be used with JWT_SECRET; use HS256, HS384 or HS512");
    None
}

fn public_key(reader: &mut Reader<'_>, pem: &str, algorithm: Option<Algorithm>) -> Option<AuthKey> {
    let Some(algorithm) = algorithm else {
        if !reader.given(&set::JWT_ALGORITHM) {
            reader.fault(set::JWT_ALGORITHM.name, "is required with JWT_PUBLIC_KEY");
        }
        return None;
    };
    // In environment variables, line breaks are often written as \n.
    let pem = pem.replace("\\n", "\n");
    if pem.contains("PRIVATE KEY-----") {
        reader.fault(set::JWT_PUBLIC_KEY.name, "is a private key; give the public key");
        return None;
    }
    let key = match algorithm.family() {
        AlgorithmFamily::Hmac => {
            reader.fault(set::JWT_ALGORITHM.name, "can't be used with JWT_PUBLIC_KEY: it needs a shared secret");
            return None;
        }
        AlgorithmFamily::Rsa => DecodingKey::from_rsa_pem(pem.as_bytes()),
        AlgorithmFamily::Ec => DecodingKey::from_ec_pem(pem.as_bytes()),
        AlgorithmFamily::Ed => DecodingKey::from_ed_pem(pem.as_bytes()),
    };
    // A point of P-256 has 65 bytes, one of P-384 has 97. With a key of the wrong curve every token would be refused.
    let fits = |key: &DecodingKey| match (algorithm, key.try_get_as_bytes()) {
        (Algorithm::ES256, Ok(point)) => point.len() == 65,
        (Algorithm::ES384, Ok(point)) => point.len() == 97,
        _ => true,
    };
    let key = key.ok().filter(fits);
    if key.is_none() {
        reader.fault(set::JWT_PUBLIC_KEY.name, format!("is not a public key in PEM form for {algorithm:?}"));
    }
    key.map(|key| AuthKey::Public { key, algorithm })
}

fn read_timing(reader: &mut Reader<'_>) -> Timing {
    Timing {
        auth_timeout: reader.duration(&set::AUTH_TIMEOUT),
        unauthenticated_timeout: reader.duration(&set::UNAUTHENTICATED_TIMEOUT),
        ping_interval: reader.duration(&set::PING_INTERVAL),
        pong_timeout: reader.duration(&set::PONG_TIMEOUT),
        slow_reader_timeout: reader.duration(&set::SLOW_READER_TIMEOUT),
        typing_timeout: reader.duration(&set::TYPING_TIMEOUT),
        presence_grace: reader.duration(&set::PRESENCE_GRACE),
        lease: reader.duration(&set::NODE_LEASE),
        cache_ttl: reader.duration(&set::CACHE_TTL),
        shutdown_delay: reader.duration(&set::SHUTDOWN_DELAY),
        drain_window: reader.duration(&set::DRAIN_WINDOW),
    }
}

fn read_log(reader: &mut Reader<'_>) -> Option<LogConfig> {
    let filter = reader.read(&set::LOG, parse::log_filter);
    let format = reader.read(&set::LOG_FORMAT, |text| match text {
        "auto" => Ok(LogFormat::Auto),
        "json" => Ok(LogFormat::Json),
        "pretty" => Ok(LogFormat::Pretty),
        _ => Err("must be auto, json or pretty".to_owned()),
    });
    Some(LogConfig { filter: filter?, format: format? })
}
