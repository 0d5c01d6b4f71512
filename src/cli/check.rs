//! `switchboard check`: checks the configuration and the parts that a node needs, without starting one.

use std::{collections::BTreeSet, time::Duration};

use tokio::time::{sleep, timeout};

use super::outcome::{Failure, Outcome, block_on, print, with_causes};
use crate::{
    auth::Auth,
    backplane::{self, Gathering},
    config::{AuthKey, Config, RedisConfig, Sources, StoreConfig},
    degrade::{Diagnosis, Finding},
    model::{Clock, NodeId},
    restrictions::Restrictions,
    store,
};

/// Maximum time to fetch published keys.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Age of a sign of life up to which its node counts as alive at the first look.
const FRESH: Duration = Duration::from_secs(8);
/// Time in which each living node gives another sign, and by which it must be newer than the first look.
const NEXT_SIGN: Duration = Duration::from_secs(7);
const NEWER_BY: Duration = Duration::from_secs(1);

/// Checks the configuration, then each part, and prints the result of each. ConfigFaults have the names that
/// `docs/operations/failure-modes.md` lists. Fails if a node could not work.
pub(super) fn run(sources: &Sources) -> Result<Outcome, Failure> {
    let config = Config::load(false, sources)?;
    print("ok    configuration\n")?;
    for note in &config.notes {
        print(&format!("note  {note}\n"))?;
    }
    let all_well = block_on(async {
        let clock = Clock::system();
        let keys = report_keys(timeout(TIMEOUT, check_keys(&config)).await.unwrap_or_else(|_| Err(timeout_message())))?;
        let (found, deployment) = store::diagnose(&config.store, &clock).await;
        let redis = match &config.redis {
            Some(redis) => {
                let mut found = backplane::diagnose(redis, deployment, &clock).await;
                if deployment.is_some() && is_fit(&found) {
                    found.findings.extend(find_split(redis, &config.store).await);
                }
                report("Redis", &found)?
            }
            None => true,
        };
        let store = report("PostgreSQL", &found)?;
        Ok::<_, Failure>(keys && redis && store)
    })??;
    Ok(if all_well { Outcome::Done } else { Outcome::Failed })
}

fn timeout_message() -> String {
    format!("no answer within {} s", TIMEOUT.as_secs())
}

fn report_keys(found: Result<String, String>) -> Result<bool, Failure> {
    match &found {
        Ok(state) => print(&format!("ok    keys: {state}\n"))?,
        Err(why) => print(&format!("FAIL  keys: {why}\n"))?,
    }
    Ok(found.is_ok())
}

/// Prints the result for a part; true if a node can work with it.
fn report(part: &str, diagnosis: &Diagnosis) -> Result<bool, Failure> {
    let well = is_fit(diagnosis);
    if well {
        print(&format!("ok    {part}: {}\n", diagnosis.state))?;
    }
    for finding in &diagnosis.findings {
        let label = if finding.fault.is_critical() { "FAIL" } else { "note" };
        print(&format!("{label}  {part}: {}: {}\n", finding.fault.name(), finding.detail))?;
    }
    Ok(well)
}

/// True if a node can work with this part.
fn is_fit(diagnosis: &Diagnosis) -> bool {
    !diagnosis.findings.iter().any(|finding| finding.fault.is_critical())
}

/// Finds nodes that are alive and use another Redis than the configured one. A node that just ends or starts may look like that; so
/// only one that gave a newer sign than at the first look counts. Without such a node, nobody waits.
async fn find_split(redis: &RedisConfig, stored: &StoreConfig) -> Option<Finding> {
    let mut missing = missing_nodes(redis, stored, FRESH).await?.1;
    if missing.is_empty() {
        return None;
    }
    sleep(NEXT_SIGN).await;
    let (gathering, newer) = missing_nodes(redis, stored, NEXT_SIGN - NEWER_BY).await?;
    missing.retain(|node| newer.contains(node));
    (!missing.is_empty()).then(|| gathering.finding(&missing))
}

/// The nodes that gave a sign of life within `span`, don't say that they are without Redis, and have no lease in this one.
async fn missing_nodes(
    redis: &RedisConfig,
    stored: &StoreConfig,
    span: Duration,
) -> Option<(Gathering, BTreeSet<NodeId>)> {
    let living = store::living(stored, span).await;
    let gathering = Gathering::at(redis).await?;
    let missing = living.into_iter().filter(|one| !one.alone && !gathering.here.contains(&one.node));
    let missing = missing.map(|one| one.node).collect();
    Some((gathering, missing))
}

async fn check_keys(config: &Config) -> Result<String, String> {
    let auth = Auth::new(&config.auth, Clock::system(), Restrictions::none()).map_err(|error| with_causes(&error))?;
    match &config.auth.key {
        AuthKey::Secret { algorithm, previous, .. } => {
            let rotation = if previous.is_some() { ", and the previous one" } else { "" };
            Ok(format!("a shared secret, {algorithm:?}{rotation}"))
        }
        AuthKey::Public { algorithm, .. } => Ok(format!("a public key, {algorithm:?}; tokens can't be made with it")),
        AuthKey::Jwks(_) => match auth.fetch_keys().await {
            Some(Ok(0)) => Err("no usable signature key is published (RSA, EC P-256 or P-384, Ed25519)".to_owned()),
            Some(fetched) => {
                let count = fetched.map_err(|error| with_causes(&*error))?;
                Ok(format!("{count} published keys; tokens can't be made with them"))
            }
            None => Ok("none to fetch".to_owned()),
        },
    }
}
