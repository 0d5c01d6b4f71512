//! Tests of the configuration: precedence, secrets in files, and every fault at once.

use std::{collections::BTreeMap, ffi::OsString, fs, net::SocketAddr, time::Duration};

use jsonwebtoken::Algorithm;
use tempfile::TempDir;

use crate::{auth::fixture::Pair, model::UserId};

use super::{
    AuthConfig, AuthKey, Config, ConfigFaults, PersonaConfig, RedisForm, Secret, Sources, StoreBackend, health_address,
    parse, settings,
};

const SECRET: &str = "planted-secret-of-more-than-32-bytes";
const REDIS: &str = "redis://user:planted-redis@redis:6379";
const POSTGRES: &str = "postgres://user:planted-postgres@db/chat";

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn sources(environment: &[(&str, &str)]) -> Sources {
    let environment = map(environment);
    Sources {
        flags: BTreeMap::new(),
        environment: Box::new(move |name| environment.get(name).map(OsString::from)),
        dotenv: BTreeMap::new(),
        open_files: None,
    }
}

/// The settings that serve requires, and others.
fn serve_with(more: &[(&str, &str)]) -> Sources {
    let needed = [("REDIS_URL", REDIS), ("DATABASE_URL", POSTGRES), ("JWT_SECRET", SECRET), ("JWT_AUDIENCE", "chat")];
    sources(&[&needed, more].concat())
}

fn serve(more: &[(&str, &str)]) -> Result<Config, ConfigFaults> {
    Config::load(false, &serve_with(more))
}

/// The variables with faults.
fn faults<T: std::fmt::Debug>(result: Result<T, ConfigFaults>) -> Vec<String> {
    result.unwrap_err().0.into_iter().map(|fault| fault.variable).collect()
}

/// Loads the settings of dev with a data folder of their own.
fn dev(folder: &TempDir, more: &[(&str, &str)]) -> Result<Config, ConfigFaults> {
    let folder = folder.path().join("data");
    Config::load(true, &sources(&[&[("DATA_DIR", folder.to_str().unwrap())], more].concat()))
}

#[test]
fn the_defaults_are_those_of_the_contract() {
    let config = serve(&[]).unwrap();
    assert_eq!(config.listen, ["0.0.0.0:8000".parse::<SocketAddr>().unwrap()]);
    assert_eq!(config.admin_listen, Some("127.0.0.1:8001".parse().unwrap()));
    assert!(!config.dev && !config.open_conversations && config.store.migrate && config.notes.is_empty());
    let limits = &config.limits;
    assert_eq!((limits.connections, limits.connections_per_user, limits.sockets_per_user), (100_000, 5, 100));
    assert_eq!((limits.connections_per_ip, limits.handshakes_per_second, limits.frames_per_second), (0, 0, 1_000));
    assert_eq!((limits.frame_bytes, limits.outbox_bytes, limits.conversations_per_connection), (65_536, 1 << 20, 500));
    assert_eq!((limits.message_rate.per_minute, limits.resume_max, limits.fragments), (10, 10_000, 64));
    assert_eq!((limits.write_rate.per_minute, limits.read_rate.per_minute), (300, 6_000));
    assert_eq!((limits.event_rate.per_minute, limits.events_per_receiver), (600, 500));
    let timing = &config.timing;
    let seconds = [timing.auth_timeout, timing.ping_interval, timing.pong_timeout, timing.typing_timeout]
        .map(|duration| duration.as_secs());
    assert_eq!(seconds, [10, 25, 10, 5]);
    let seconds = [timing.presence_grace, timing.lease, timing.cache_ttl, timing.shutdown_delay, timing.drain_window]
        .map(|duration| duration.as_secs());
    assert_eq!(seconds, [5, 15, 600, 10, 45]);
    assert_eq!(config.auth.token_ttl, Duration::from_secs(1_800));
    assert!(matches!(config.auth.key, AuthKey::Secret { algorithm: Algorithm::HS256, .. }));
}

#[test]
fn webhooks_need_a_url_and_an_unsigned_one_is_noted() {
    let config = serve(&[("PERSONA_WEBHOOK_SECRET", "planted-persona")]).unwrap();
    assert!(config.personas.is_none() && config.notifications.webhook.is_none() && config.notes.is_empty());
    assert_eq!(config.notifications.queue, 10_000);

    let url = "https://user:planted-password@ai.example.com/hook?key=planted-key";
    let ids = ("PERSONA_IDS", "ada, echo");
    let webhooks = [("PERSONA_WEBHOOK_URL", url), ids, ("NOTIFICATION_WEBHOOK_URL", "http://10.0.0.7/")];
    let config = serve(&webhooks).unwrap();
    let PersonaConfig { ids: known, webhook: personas } = config.personas.as_ref().unwrap();
    assert_eq!(known.iter().map(UserId::as_str).collect::<Vec<_>>(), ["ada", "echo"]);
    assert_eq!(config.auth.persona_ids, *known);
    assert_eq!((personas.timeout, personas.retries), (Duration::from_secs(30), 3));
    assert_eq!((personas.concurrency, personas.queue), (16, 1_000));
    assert_eq!(config.notes.len(), 2, "{:?}", config.notes);
    assert!(config.notes[0].contains("PERSONA_WEBHOOK_SECRET"));
    assert!(!format!("{config:?}").contains("planted-"));
    let signed = serve(&[("PERSONA_WEBHOOK_URL", url), ids, ("PERSONA_WEBHOOK_SECRET", "planted-persona")]).unwrap();
    assert!(signed.notes.is_empty() && !format!("{signed:?}").contains("planted-"));

    let bad = serve(&[("PERSONA_WEBHOOK_URL", "http://u:planted-password@ai.example.com"), ("WEBHOOK_RETRIES", "11")]);
    assert!(!bad.as_ref().unwrap_err().to_string().contains("planted-"));
    assert_eq!(faults(bad), ["PERSONA_IDS", "PERSONA_WEBHOOK_URL", "WEBHOOK_RETRIES"]);
    assert_eq!(faults(serve(&[("PERSONA_IDS", "ada, a b")])), ["PERSONA_IDS"]);
}

#[test]
fn every_default_is_valid() {
    // A default that can't be parsed would read as a zero or as nothing.
    let reader = |dev| super::source::Reader::new(Box::leak(Box::new(sources(&[]))), dev);
    for setting in settings::ALL {
        for dev in [false, true] {
            if setting.default_in(dev).is_none() {
                continue;
            }
            let mut reader = reader(dev);
            match setting.kind {
                settings::Kind::Count(_, least, _) | settings::Kind::Size(least, _) => {
                    assert!(reader.number::<u64>(setting) >= least, "{}", setting.name);
                }
                settings::Kind::Duration(least, _) => {
                    let default = setting.default_in(dev).unwrap();
                    assert_eq!(Ok(reader.duration(setting)), parse::duration(default), "{}", setting.name);
                    assert!(reader.duration(setting).as_millis() >= u128::from(least), "{}", setting.name);
                }
                settings::Kind::Switch | settings::Kind::Text(_) => {}
            }
        }
    }
}

#[test]
fn flags_override_environment_overrides_dotenv() {
    let mut sources = serve_with(&[("RESUME_MAX", "2"), ("MAX_FRAGMENTS", "2")]);
    sources.flags = map(&[("RESUME_MAX", "1")]);
    sources.dotenv = map(&[("RESUME_MAX", "3"), ("MAX_FRAGMENTS", "3"), ("MAX_CONNECTIONS_PER_USER", "3")]);
    let limits = Config::load(false, &sources).unwrap().limits;
    assert_eq!((limits.resume_max, limits.fragments, limits.connections_per_user), (1, 2, 3));
}

#[test]
fn aliases_are_read_after_the_name_itself() {
    let needed = [("REDIS_URL", REDIS), ("DATABASE_URL", POSTGRES), ("SECRET_KEY", SECRET), ("ALGORITHM", "HS512")];
    let minutes = [("ACCESS_TOKEN_EXPIRE_MINUTES", "45")];
    let config = Config::load(false, &sources(&[&needed[..], &minutes].concat())).unwrap();
    assert!(
        matches!(&config.auth.key, AuthKey::Secret { secret, algorithm: Algorithm::HS512, .. } if secret.reveal() == SECRET)
    );
    assert_eq!(config.auth.token_ttl, Duration::from_secs(45 * 60));
    let both = serve(&[("SECRET_KEY", "short"), ("TOKEN_TTL", "10"), ("ACCESS_TOKEN_EXPIRE_MINUTES", "45")]).unwrap();
    assert_eq!(both.auth.token_ttl, Duration::from_secs(10));
}

#[test]
fn an_empty_value_counts_as_not_set() {
    assert_eq!(serve(&[("RESUME_MAX", " "), ("NODE_ID", "")]).unwrap().limits.resume_max, 10_000);
    assert_eq!(faults(serve(&[("REDIS_URL", "")])), ["REDIS_URL"]);
}

#[test]
fn secrets_can_be_read_from_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    fs::write(&path, format!("{SECRET}\n")).unwrap();
    let path = path.to_str().unwrap();
    let needed = [("REDIS_URL", REDIS), ("DATABASE_URL", POSTGRES)];
    let with = |more: &[(&str, &str)]| Config::load(false, &sources(&[&needed[..], more].concat()));
    let config = with(&[("JWT_SECRET_FILE", path)]).unwrap();
    assert!(matches!(&config.auth.key, AuthKey::Secret { secret, .. } if secret.reveal() == SECRET));
    assert_eq!(faults(with(&[("JWT_SECRET_FILE", path), ("JWT_SECRET", SECRET)])), ["JWT_SECRET_FILE"]);
    assert_eq!(faults(with(&[("JWT_SECRET_FILE", "/does/not/exist")])), ["JWT_SECRET_FILE"]);
    // A flag that names a file overrides a variable that holds the secret.
    let mut sources = serve_with(&[("JWT_SECRET", "too short, and not looked at")]);
    sources.flags = map(&[("JWT_SECRET_FILE", path)]);
    assert!(Config::load(false, &sources).is_ok());
}

#[test]
fn serve_reports_every_fault_at_once() {
    let bad = [
        ("LISTEN", "nowhere"),
        ("TRUSTED_PROXIES", "10.0.0.0/99"),
        // There is no TRUSTED_PROXIES.
        ("PROXY_PROTOCOL", "true"),
        ("JWT_SECRET", "short"),
        ("JWT_LEEWAY", "soon"),
        ("MAX_FRAME_BYTES", "1"),
        ("MESSAGE_RATE_LIMITS", "pro"),
        ("PING_INTERVAL", "0s"),
        ("MIGRATE", "perhaps"),
        ("LOG_FORMAT", "xml"),
        ("PUBLIC_URL", "chat.example.com"),
        ("NODE_ID", "a b"),
    ];
    let found = faults(Config::load(false, &sources(&bad)));
    for (name, _) in bad {
        assert_eq!(found.iter().filter(|variable| *variable == name).count(), 1, "{name} in {found:?}");
    }
    assert!(found.contains(&"REDIS_URL".to_owned()) && found.contains(&"DATABASE_URL".to_owned()));
    assert_eq!(found.len(), bad.len() + 2);
}

#[test]
fn no_output_shows_a_secret() {
    let shown = format!("{:?}", serve(&[]).unwrap());
    assert!(!shown.contains("planted"), "{shown}");
    let faults = serve(&[
        ("JWT_SECRET", "planted"),
        ("REDIS_URL", "planted://"),
        ("DATABASE_URL", "postgres://user:planted@host:planted/x"),
    ]);
    let shown = faults.unwrap_err().to_string();
    assert!(shown.contains("JWT_SECRET") && shown.contains("DATABASE_URL") && !shown.contains("planted"), "{shown}");
}

#[test]
fn redis_has_three_forms_and_a_cluster_is_refused() {
    let sentinel = "rediss+sentinel://one?addr=two&sentinel_master_name=m&sentinel_user=watcher";
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    fs::write(&file, "planted@/%\n").unwrap();
    let files =
        [("REDIS_PASSWORD_FILE", file.to_str().unwrap()), ("REDIS_SENTINEL_PASSWORD_FILE", file.to_str().unwrap())];
    let without_url = [("DATABASE_URL", POSTGRES), ("JWT_SECRET", SECRET), ("JWT_AUDIENCE", "chat")];
    let with = |url: &str, more: &[(&str, &str)]| {
        let url = [("REDIS_URL", url)];
        Config::load(false, &sources(&[&without_url[..], &url[..], more].concat()))
    };
    let redis = with(sentinel, &files).unwrap().redis.unwrap();
    let RedisForm::Sentinel(sentinels) = &redis.servers.form else { panic!("{redis:?}") };
    for login in [&redis.servers.login, &sentinels.login] {
        assert_eq!(login.password.as_ref().map(Secret::reveal), Some("planted@/%"));
    }
    assert!(!format!("{redis:?}").contains("planted"));
    assert!(matches!(with("unix:///run/redis.sock", &[]).unwrap().redis.unwrap().servers.form, RedisForm::Socket(_)));
    let cluster = with("rediss+cluster://h1?addr=h2:7", &files[..1]).unwrap().redis.unwrap().servers;
    assert!(cluster.tls && matches!(&cluster.form, RedisForm::Cluster(nodes) if nodes.len() == 2), "{cluster:?}");
    assert_eq!(cluster.login.password.as_ref().map(Secret::reveal), Some("planted@/%"));
    assert_eq!(faults(with("redis://:planted@h", &files[..1])), ["REDIS_URL"]);
}

#[test]
fn exactly_one_key_is_required() {
    let needed = [("REDIS_URL", REDIS), ("DATABASE_URL", POSTGRES), ("JWT_AUDIENCE", "chat")];
    let with = |more: &[(&str, &str)]| Config::load(false, &sources(&[&needed[..], more].concat()));
    assert_eq!(faults(with(&[])), ["JWT_SECRET"]);
    let jwks = ("JWT_JWKS_URL", "https://id.example.com/keys");
    assert_eq!(faults(with(&[("JWT_SECRET", SECRET), jwks])), ["JWT_SECRET"]);
    assert!(matches!(with(&[jwks]).unwrap().auth.key, AuthKey::Jwks { .. }));
    assert!(with(&[jwks]).unwrap().notes.is_empty());
    assert_eq!(with(&[("JWT_JWKS_URL", "http://keys")]).unwrap().notes.len(), 1);
    assert_eq!(faults(with(&[jwks, ("JWT_ALGORITHM", "RS256")])), ["JWT_ALGORITHM"]);
    assert_eq!(faults(with(&[("JWT_JWKS_URL", "ftp://x")])), ["JWT_JWKS_URL"]);
    let short_lived = with(&[jwks, ("JWT_JWKS_REFRESH", "10m"), ("JWT_JWKS_MAX_AGE", "5m")]);
    assert_eq!(faults(short_lived), ["JWT_JWKS_MAX_AGE"]);
    let password = with(&[("JWT_JWKS_URL", "https://user:planted@id.example.com/keys")]).unwrap();
    assert!(!format!("{password:?}").contains("planted"));
    let bad = with(&[("JWT_JWKS_URL", "ftp://user:planted@id")]).unwrap_err().to_string();
    assert!(!bad.contains("planted"), "{bad}");
}

#[test]
fn a_secret_is_rotated_beside_its_successor() {
    let previous = "the-previous-secret-of-more-than-32-bytes";
    let rotating = serve(&[("JWT_PREVIOUS_SECRET", previous)]).unwrap();
    assert!(matches!(&rotating.auth.key, AuthKey::Secret { previous: Some(found), .. } if found.reveal() == previous));
    assert!(rotating.notes.len() == 1 && rotating.notes[0].contains("JWT_PREVIOUS_SECRET"), "{:?}", rotating.notes);
    for bad in ["short", SECRET] {
        assert_eq!(faults(serve(&[("JWT_PREVIOUS_SECRET", bad)])), ["JWT_PREVIOUS_SECRET"], "{bad}");
    }
    let alone = [("JWT_PREVIOUS_SECRET", previous), ("JWT_JWKS_URL", "https://id/keys"), ("JWT_SECRET", "")];
    assert_eq!(faults(serve(&alone)), ["JWT_PREVIOUS_SECRET"]);
}

#[test]
fn missing_checks_and_open_origins_are_noted() {
    let noted = |config: Config, name: &str| config.notes.iter().any(|note| note.contains(name));
    assert!(noted(serve(&[("JWT_AUDIENCE", "")]).unwrap(), "JWT_AUDIENCE"));
    let folder = tempfile::tempdir().unwrap();
    assert!(!noted(dev(&folder, &[]).unwrap(), "JWT_AUDIENCE"));
    assert!(noted(dev(&folder, &[("ALLOWED_ORIGINS", "*")]).unwrap(), "ALLOWED_ORIGINS"));
    assert_eq!(faults(serve(&[("ALLOWED_ORIGINS", "https://a.example/app")])), ["ALLOWED_ORIGINS"]);
    assert_eq!(faults(serve(&[("HEALTH_DETAILS", "none")])), ["HEALTH_DETAILS"]);
}

#[test]
fn a_key_and_its_algorithm_must_fit() {
    let needed = [("REDIS_URL", REDIS), ("DATABASE_URL", POSTGRES)];
    let with = |key: &str, algorithm: &str| {
        let more = [("JWT_PUBLIC_KEY", key), ("JWT_ALGORITHM", algorithm)];
        Config::load(false, &sources(&[&needed[..], &more].concat()))
    };
    let (rsa, ec, ed) = (Pair::rsa(), Pair::ec(), Pair::ed());
    let [rsa_key, ec_key, ed_key] = [&rsa.public, &ec.public, &ed.public].map(String::as_str);
    for (key, algorithm) in [(rsa_key, "RS256"), (rsa_key, "PS512"), (ec_key, "ES256"), (ed_key, "EdDSA")] {
        assert!(matches!(with(key, algorithm).unwrap().auth.key, AuthKey::Public { .. }), "{algorithm}");
        assert!(with(&key.replace('\n', "\\n"), algorithm).is_ok(), "{algorithm} on one line");
    }
    for (key, algorithm) in [
        (rsa_key, "ES256"),
        (ec_key, "RS256"),
        (ec_key, "ES384"),
        (ed_key, "ES256"),
        ("junk", "RS256"),
        (&rsa.private, "RS256"),
    ] {
        assert_eq!(faults(with(key, algorithm)), ["JWT_PUBLIC_KEY"], "{algorithm}");
    }
    for algorithm in ["", "none", "HS256"] {
        assert_eq!(faults(with(rsa_key, algorithm)), ["JWT_ALGORITHM"], "{algorithm}");
    }
    assert_eq!(faults(serve(&[("JWT_ALGORITHM", "RS256")])), ["JWT_ALGORITHM"]);
}

#[test]
fn dev_needs_nothing_and_keeps_its_secret() {
    let folder = tempfile::tempdir().unwrap();
    let config = dev(&folder, &[]).unwrap();
    assert!(config.dev && config.open_conversations && config.redis.is_none());
    assert_eq!(config.listen, ["127.0.0.1:8000".parse::<SocketAddr>().unwrap()]);
    assert!(matches!(&config.store.backend, StoreBackend::Sqlite { path } if path.ends_with("data/switchboard.db")));
    let secret = |config: &Config| match &config.auth.key {
        AuthKey::Secret { secret, .. } => secret.reveal().to_owned(),
        other => panic!("{other:?}"),
    };
    let first = secret(&config);
    assert_eq!((first.len(), secret(&dev(&folder, &[]).unwrap())), (64, first));
    assert_eq!(secret(&dev(&folder, &[("JWT_SECRET", SECRET)]).unwrap()), SECRET);
}

#[test]
fn dev_listens_on_loopback_only() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(faults(dev(&folder, &[("LISTEN", "127.0.0.1:0,0.0.0.0:0")])), ["LISTEN"]);
    assert_eq!(faults(dev(&folder, &[("ADMIN_LISTEN", "192.0.2.1:1")])), ["ADMIN_LISTEN"]);
    assert!(dev(&folder, &[("LISTEN", "[::1]:0,localhost:0"), ("ADMIN_LISTEN", "off")]).is_ok());
    let notes = dev(&folder, &[("REDIS_URL", REDIS)]).unwrap().notes;
    assert!(notes.len() == 1 && notes[0].contains("REDIS_URL"), "{notes:?}");
}

#[test]
fn connections_stay_below_the_file_limit() {
    let limited = |open_files, wanted| {
        let mut sources = serve_with(&[("MAX_CONNECTIONS", wanted)]);
        sources.open_files = Some(open_files);
        let config = Config::load(false, &sources).unwrap();
        (config.limits.connections, config.notes.len())
    };
    assert_eq!(limited(1_024, "100000"), (712, 1));
    assert_eq!(limited(1_048_576, "100000"), (100_000, 0));
    assert_eq!(limited(300, "100000"), (126, 1));
    assert_eq!(limited(100, "100000"), (22, 1));
    assert_eq!(limited(1_024, "10"), (10, 0));
}

#[test]
fn groups_of_settings_can_be_read_alone() {
    assert!(AuthConfig::load(false, &sources(&[("JWT_SECRET", SECRET)])).is_ok());
    assert_eq!(faults(AuthConfig::load(false, &sources(&[]))), ["JWT_SECRET"]);
    let at = |pairs: &[(&str, &str)]| health_address(false, &sources(pairs)).unwrap().to_string();
    assert_eq!(at(&[]), "127.0.0.1:8001");
    assert_eq!(at(&[("ADMIN_LISTEN", "off"), ("LISTEN", "0.0.0.0:9000")]), "0.0.0.0:9000");
    assert_eq!(faults(serve(&[("ADMIN_LISTEN", "0.0.0.0:8000")])), ["ADMIN_LISTEN"]);
}
