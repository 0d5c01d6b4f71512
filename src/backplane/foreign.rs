//! Keys of ours under which another program stored a value of another type: every command on them fails until they are
//! deleted, and nobody else would delete them.

use redis::{Arg, Pipeline, Value};

use super::{keys::Keys, shards::Shard};

/// The keys of the commands that Redis answered with WRONGTYPE, each once.
pub(super) fn keys_of_another_type(keys: &Keys, pipeline: &Pipeline, replies: &[Value]) -> Vec<String> {
    let wrong = |reply: &Value| match reply {
        // Before version 7 the error of a script has another code.
        Value::ServerError(error) => {
            error.code() == "WRONGTYPE" || error.details().is_some_and(|details| details.contains("WRONGTYPE"))
        }
        _ => false,
    };
    let commands = pipeline.cmd_iter().zip(replies).filter(|(_, reply)| wrong(reply));
    let mut found: Vec<String> = commands.filter_map(|(command, _)| key_of(keys, command)).collect();
    found.sort();
    found.dedup();
    found
}

/// The key of a command with one key.
fn key_of(keys: &Keys, command: &redis::Cmd) -> Option<String> {
    let word = |at: usize| match command.args_iter().nth(at) {
        Some(Arg::Simple(word)) => std::str::from_utf8(word).ok(),
        _ => None,
    };
    let key = if word(0) == Some("EVALSHA") { word(3) } else { word(1) }?;
    keys.is_ours(key).then(|| key.to_owned())
}

/// Commands that delete these keys. A view of many users is filled again only if every node registers anew, which the loss of
/// the leases makes them do.
pub(super) fn deletion(keys: &Keys, found: &[String]) -> Pipeline {
    let mut pipeline = Pipeline::new();
    for key in found {
        pipeline.cmd("DEL").arg(key);
    }
    if found.iter().any(|key| keys.is_view(key)) {
        // On a cluster the loss of one shard's leases is enough.
        pipeline.cmd("DEL").arg(keys.nodes(Shard::HOME));
    }
    pipeline
}
