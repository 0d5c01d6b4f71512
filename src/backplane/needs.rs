//! Tries every command that a node sends, so that a missing right is known before it is needed: some commands run only when
//! a node dies or a user departs.

use redis::Pipeline;
use tokio::time::timeout;
use uuid::Uuid;

use super::{
    channels::Channels,
    connection::Connection,
    connector::RESPONSE_TIMEOUT,
    keys::Keys,
    link_error::LinkError,
    shards::{Layout, Shard},
};

/// Each group leaves its key empty for the next type. `KEY`, `OTHER`, `THIRD`, and `CHANNEL`, `HINTS` and `LOG` stand for names
/// of ours. Scripts
/// call these commands too.
const COMMANDS: [&str; 36] = [
    "HSET KEY f v",
    // Without a key, they go to the server of the key before.
    "PING",
    "TIME",
    "HGET KEY f",
    "HEXISTS KEY f",
    "HKEYS KEY",
    "HGETALL KEY",
    "HDEL KEY f",
    "LPUSH KEY v",
    "LINDEX KEY 0",
    "LRANGE KEY 0 0",
    "LTRIM KEY 1 0",
    "SADD KEY v",
    "SCARD KEY",
    "SSCAN KEY 0",
    "SRANDMEMBER KEY",
    "SREM KEY v",
    "ZADD KEY 1 v",
    "ZSCORE KEY v",
    "ZRANGE KEY 0 0",
    "ZRANGEBYSCORE KEY 0 0",
    "ZREM KEY v",
    "SET KEY v EX 10",
    "GET KEY",
    "EXISTS KEY",
    "EXPIRE KEY 10",
    "PEXPIRE KEY 10000",
    "DEL KEY",
    "SCAN 0 COUNT 1",
    "PUBLISH CHANNEL v",
    "PUBLISH HINTS v",
    "PUBLISH LOG v",
    "SET OTHER v EX 10",
    "DEL OTHER",
    "SET THIRD v EX 10",
    "DEL THIRD",
];

/// Sends every command to each server, and reads a key of each name. Nothing of it stays.
///
/// # Errors
/// The first command that Redis refuses, or a broken connection.
pub(super) async fn check(keys: &Keys, channels: Channels, on: &mut Connection) -> Result<(), LinkError> {
    for shard in on.represent() {
        let pipeline = commands(keys, channels, shard);
        let mut replies = timeout(RESPONSE_TIMEOUT, on.send(&pipeline)).await.unwrap_or(Err(LinkError::Timeout))?;
        (0..pipeline.len()).try_for_each(|index| replies.take::<redis::Value>(index).map(|_| ()))?;
    }
    Ok(())
}

/// Every command, on keys and channels of a shard.
fn commands(keys: &Keys, channels: Channels, shard: Shard) -> Pipeline {
    let id = Uuid::new_v4().simple().to_string();
    let ([key, other, third], [channel, hints, log]) = (keys.checks(shard, &id), channels.checks(shard, &id));
    let mut pipeline = Pipeline::new();
    for command in COMMANDS {
        let mut words = command.split(' ').map(|word| match word {
            "KEY" => &key,
            "OTHER" => &other,
            "THIRD" => &third,
            "CHANNEL" => &channel,
            "HINTS" => &hints,
            "LOG" => &log,
            "PUBLISH" if keys.layout() == Layout::Cluster => "SPUBLISH",
            word => word,
        });
        if let Some(name) = words.next() {
            let command = pipeline.cmd(name);
            words.for_each(|word| {
                command.arg(word);
            });
        }
    }
    if keys.layout() == Layout::Cluster {
        pipeline.cmd("ASKING");
    }
    for key in keys.samples(shard, &id) {
        pipeline.cmd("EXISTS").arg(key);
    }
    pipeline
}
