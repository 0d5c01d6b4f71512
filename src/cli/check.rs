//! `switchboard check`: what works, and what doesn't, without starting a node.

use std::{fs, sync::Arc, time::Duration};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use tokio::time::timeout;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{Failure, Outcome, block_on, print};
use crate::{
    auth::Auth,
    config::{AuthKey, Config, RedisConfig, Sources, StoreBackend},
    model::Clock,
};

/// How long each part may take to answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Checks the configuration, then each part; says of each whether it works. Fails where one doesn't.
pub(super) fn run(sources: &Sources) -> Result<Outcome, Failure> {
    let config = Config::load(false, sources)?;
    print("ok    configuration\n");
    for note in &config.notes {
        print(&format!("note  {note}\n"));
    }
    let all_well = block_on(async {
        let keys = report("keys", check_keys(&config).await);
        let redis = match &config.redis {
            Some(redis) => report("Redis", within(check_redis(redis)).await),
            None => true,
        };
        let store = report("PostgreSQL", within(check_store(&config.store.backend)).await);
        keys && redis && store
    })?;
    Ok(if all_well { Outcome::Done } else { Outcome::Failed })
}

/// What is found of a part: how it is, or why it can't be reached.
type Finding = Result<String, String>;

fn report(part: &str, finding: Finding) -> bool {
    match &finding {
        Ok(state) => print(&format!("ok    {part}: {state}\n")),
        Err(why) => print(&format!("FAIL  {part}: {why}\n")),
    }
    finding.is_ok()
}

async fn within(check: impl Future<Output = Finding>) -> Finding {
    timeout(TIMEOUT, check).await.unwrap_or_else(|_| Err(format!("no answer within {} s", TIMEOUT.as_secs())))
}

async fn check_keys(config: &Config) -> Finding {
    let auth = Auth::new(&config.auth, Clock::system()).map_err(|error| error.to_string())?;
    match &config.auth.key {
        AuthKey::Secret { algorithm, .. } => Ok(format!("a shared secret, {algorithm:?}")),
        AuthKey::Public { algorithm, .. } => Ok(format!("a public key, {algorithm:?}; tokens can't be made with it")),
        AuthKey::Jwks { .. } => match auth.fetch_keys().await {
            Some(fetched) => fetched.map(|count| format!("{count} published keys; tokens can't be made with them")),
            None => Ok("none to fetch".to_owned()),
        },
    }
}

async fn check_redis(config: &RedisConfig) -> Finding {
    let fail = |error: redis::RedisError| error.to_string();
    let url = config.url.reveal();
    let client = match &config.ca_file {
        None => redis::Client::open(url),
        Some(path) => {
            let root_cert = Some(fs::read(path).map_err(|error| error.to_string())?);
            redis::Client::build_with_tls(url, redis::TlsCertificates { client_tls: None, root_cert })
        }
    };
    let mut connection = client.map_err(fail)?.get_multiplexed_async_connection().await.map_err(fail)?;
    let info: String = redis::cmd("INFO").arg("server").query_async(&mut connection).await.map_err(fail)?;
    let version = info.lines().find_map(|line| line.strip_prefix("redis_version:")).unwrap_or("of unknown version");
    Ok(format!("answers, {}", version.trim()))
}

async fn check_store(backend: &StoreBackend) -> Finding {
    let StoreBackend::Postgres { url, ca_file } = backend else { return Ok("not used".to_owned()) };
    let mut roots = RootCertStore::empty();
    match ca_file {
        Some(path) => {
            let certificates = CertificateDer::pem_file_iter(path).map_err(|error| error.to_string())?;
            roots.add_parsable_certificates(certificates.filter_map(Result::ok));
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let (client, connection) =
        tokio_postgres::connect(url.reveal(), MakeRustlsConnect::new(tls)).await.map_err(|error| with_cause(&error))?;
    let link = tokio::spawn(connection);
    let row = client.query_one("SELECT current_setting('server_version')", &[]).await;
    link.abort();
    let version: String = row.and_then(|row| row.try_get(0)).map_err(|error| with_cause(&error))?;
    Ok(format!("answers, {version}"))
}

/// An error with what caused it: PostgreSQL's own text says only "db error".
fn with_cause(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}
