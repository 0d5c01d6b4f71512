//! Looks at a Redis as an operator would: whether a node can do on it what nodes do, and if not, what is wrong.

use std::time::Duration;

use futures_util::StreamExt;
use redis::{Client, RedisError, aio::MultiplexedConnection};
use tokio::time::timeout;
use uuid::Uuid;

use super::{incarnation::Incarnation, keys, link};
use crate::{
    config::RedisConfig,
    degrade::{Examined, Fault, Finding},
    model::{Clock, Timestamp},
};

/// How long each question may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// How far two clocks may differ before it is said.
const CLOCKS_APART: Duration = Duration::from_secs(1);

/// A question that was not answered well.
type RequestMeta<T> = Result<T, Finding>;

/// Examines the Redis of `config`.
pub async fn examine(config: &RedisConfig, clock: &Clock) -> Examined {
    let client = match link::client(config) {
        Ok(client) => client,
        Err(error) => return Finding::new(Fault::RedisUnreachable, error.to_string()).into(),
    };
    let mut connection = match asked(client.get_multiplexed_async_connection()).await {
        Ok(connection) => connection,
        Err(finding) => return finding.into(),
    };
    let mut findings = Vec::new();
    let mut note = |found: RequestMeta<Option<Finding>>| findings.extend(found.unwrap_or_else(Some));
    note(writes(&mut connection).await.map(|()| None));
    note(hears(&client, &mut connection).await.map(|()| None));
    note(clocks(&mut connection, clock).await);
    let info = Info::ask(&mut connection).await;
    note(Ok(info.eviction()));
    note(dead_nodes(&mut connection, clock).await);
    // One cause has one name, however much it hinders.
    findings.dedup_by_key(|finding| finding.fault);
    Examined { state: info.version(), findings }
}

/// Awaits an answer, and says what is wrong where it is none or a bad one.
async fn asked<T>(question: impl Future<Output = Result<T, RedisError>>) -> RequestMeta<T> {
    match timeout(PATIENCE, question).await {
        Ok(answer) => answer.map_err(|error| finding(&error)),
        Err(_) => Err(Finding::new(Fault::RedisSilent, format!("no answer within {} s", PATIENCE.as_secs()))),
    }
}

fn finding(error: &RedisError) -> Finding {
    let fault = match error.code() {
        Some("NOAUTH" | "WRONGPASS" | "NOPERM") => Fault::RedisDeniesAccess,
        Some("OOM") => Fault::RedisFull,
        Some(_) => Fault::RedisRefusesWrites,
        None if error.kind() == redis::ErrorKind::AuthenticationFailed => Fault::RedisDeniesAccess,
        None if error.is_timeout() => Fault::RedisSilent,
        None => Fault::RedisUnreachable,
    };
    Finding::new(fault, error.to_string())
}

/// Writes as a node does: a key, and by a script.
async fn writes(connection: &mut MultiplexedConnection) -> RequestMeta<()> {
    let key = keys::check(&Uuid::new_v4().simple().to_string());
    let mut load = redis::cmd("SCRIPT");
    load.arg("LOAD").arg("return redis.call('SET', KEYS[1], '1')");
    let script: String = asked(load.query_async(connection)).await?;
    asked(redis::cmd("EVALSHA").arg(script).arg(1).arg(&key).query_async::<()>(connection)).await?;
    asked(redis::cmd("EXPIRE").arg(&key).arg(10).query_async::<()>(connection)).await?;
    asked(redis::cmd("DEL").arg(&key).query_async::<()>(connection)).await
}

/// Publishes, and listens for it.
async fn hears(client: &Client, connection: &mut MultiplexedConnection) -> RequestMeta<()> {
    let word = Uuid::new_v4().simple().to_string();
    let channel = keys::canary(&format!("check#{word}"));
    let mut subscription = asked(client.get_async_pubsub()).await?;
    asked(subscription.subscribe(&channel)).await?;
    asked(redis::cmd("PUBLISH").arg(&channel).arg(&word).query_async::<()>(connection)).await?;
    let heard = timeout(PATIENCE, subscription.on_message().next()).await;
    let heard = heard.ok().flatten().and_then(|message| message.get_payload::<String>().ok());
    if heard.as_ref() == Some(&word) {
        return Ok(());
    }
    Err(Finding::new(Fault::RedisDeaf, "what was published was not heard"))
}

async fn clocks(connection: &mut MultiplexedConnection, clock: &Clock) -> RequestMeta<Option<Finding>> {
    let (seconds, micros): (i64, i64) = asked(redis::cmd("TIME").query_async(connection)).await?;
    let (theirs, ours) = (Timestamp::from_micros(seconds * 1_000_000 + micros), clock.now());
    let apart = theirs.since(ours).max(ours.since(theirs));
    let differ =
        || Finding::new(Fault::ClocksDiffer, format!("this machine's and Redis' by {:.1} s", apart.as_secs_f64()));
    Ok((apart > CLOCKS_APART).then(differ))
}

/// Nodes whose lease is out. Their users are about to go offline; when nobody is there to see to that, they stay.
async fn dead_nodes(connection: &mut MultiplexedConnection, clock: &Clock) -> RequestMeta<Option<Finding>> {
    let range = redis::cmd("ZRANGEBYSCORE").arg(keys::NODES).arg("-inf").arg(clock.now().micros() / 1_000).to_owned();
    let out: Vec<String> = asked(range.query_async(connection)).await?;
    let dead: Vec<_> =
        out.iter().filter_map(|member| Incarnation::parse(member)?.node()).map(|n| n.to_string()).collect();
    Ok((!dead.is_empty()).then(|| Finding::new(Fault::NodeDead, format!("the lease is out of: {}", dead.join(", ")))))
}

/// What Redis says of itself, where it may be asked: no node needs that.
struct Info(String);

impl Info {
    async fn ask(connection: &mut MultiplexedConnection) -> Self {
        let said = timeout(PATIENCE, redis::cmd("INFO").query_async(connection)).await;
        Self(said.ok().and_then(Result::ok).unwrap_or_default())
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.lines().find_map(|line| line.trim_end().strip_prefix(name)?.strip_prefix(':'))
    }

    fn version(&self) -> String {
        self.get("redis_version").map_or_else(|| "answers".to_owned(), |version| format!("answers, {version}"))
    }

    fn eviction(&self) -> Option<Finding> {
        let limited = self.get("maxmemory").is_some_and(|bytes| bytes != "0");
        let policy = self.get("maxmemory_policy").filter(|policy| limited && *policy != "noeviction")?;
        Some(Finding::new(Fault::RedisEvicts, format!("maxmemory-policy is {policy}; it should be noeviction")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_redis_with_a_limit_evicts() {
        let info = |text: &str| Info(text.to_owned());
        assert_eq!(info("maxmemory:0\r\nmaxmemory_policy:allkeys-lru\r\n").eviction(), None);
        assert_eq!(info("maxmemory:9\r\nmaxmemory_policy:noeviction\r\n").eviction(), None);
        let evicts = info("redis_version:7.2\r\nmaxmemory:9\r\nmaxmemory_policy:allkeys-lru\r\n");
        assert_eq!(evicts.eviction().unwrap().fault, Fault::RedisEvicts);
        assert_eq!((evicts.version(), info("").version()), ("answers, 7.2".to_owned(), "answers".to_owned()));
    }
}
