//! `switchboard check`: what works, and what doesn't, without starting a node.

use std::{fs, sync::Arc, time::Duration};

use tokio::time::timeout;

use super::{Failure, Outcome, block_on, print};
use crate::{
    app,
    auth::Auth,
    config::{AuthKey, Config, RedisConfig, Sources, StoreConfig},
    metrics::Metrics,
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
        let store = report("PostgreSQL", within(check_store(&config.store)).await);
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

async fn check_store(config: &StoreConfig) -> Finding {
    let fail = |error: &dyn std::fmt::Display| error.to_string();
    let metrics = Arc::new(Metrics::new().map_err(|error| fail(&error))?);
    let store = app::open_store(config, metrics).await.map_err(|error| fail(&error))?;
    store.ping().await.map_err(|error| fail(&error))?;
    Ok("answers".to_owned())
}
