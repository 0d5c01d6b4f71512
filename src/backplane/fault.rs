//! Names what Redis answers, or doesn't, as `docs/operations/failure-modes.md` does.

use redis::{ErrorKind, RedisError};

use super::link_error::{LinkError, Refusal};
use crate::degrade::{Fault, Finding};

/// The reason if a reply can't be read.
const NO_REDIS: &str = "a reply has a form that Redis does not use: perhaps another program listens at this address, or a proxy \
     changes replies";

/// The fault of a failed call.
pub(super) fn finding(error: &RedisError) -> Finding {
    match LinkError::from(error) {
        LinkError::Refused(refusal) => refused(&refusal),
        _ if error.kind() == ErrorKind::AuthenticationFailed => {
            Finding::new(Fault::RedisDeniesAccess, error.to_string())
        }
        LinkError::Timeout => Finding::new(Fault::RedisSilent, error.to_string()),
        _ => Finding::new(Fault::RedisUnreachable, error.to_string()),
    }
}

/// The fault of a failed call through the link.
pub(super) fn link_finding(error: &LinkError) -> Finding {
    match error {
        LinkError::Refused(refusal) => refused(refusal),
        LinkError::Timeout => Finding::new(Fault::RedisSilent, error.to_string()),
        LinkError::Down | LinkError::Broken(_) => Finding::new(Fault::RedisUnreachable, error.to_string()),
        LinkError::CertificateRefused(why) => Finding::new(Fault::RedisDeniesAccess, why.clone()),
        LinkError::Unexpected => Finding::new(Fault::RedisUnreachable, NO_REDIS),
        LinkError::Unfit(mode) => mode.finding(),
        LinkError::NoPrimary(finding) => Finding::clone(finding),
        LinkError::Shared(sharing) => Finding::new(Fault::RedisShared, sharing.to_string()),
    }
}

/// The fault behind an error reply. Most errors have the code ERR, so the words decide.
pub(super) fn refused(Refusal { code, words }: &Refusal) -> Finding {
    let lower = words.to_lowercase();
    let says = |part: &str| lower.contains(part);
    let fault = match code.as_str() {
        "NOAUTH" | "WRONGPASS" | "NOPERM" => Fault::RedisDeniesAccess,
        // Before version 7 a script that may not call a command has another code.
        _ if says("script can't run this command") => Fault::RedisDeniesAccess,
        "OOM" => Fault::RedisFull,
        // A long script runs, and everything else waits.
        "BUSY" => Fault::RedisSilent,
        "CLUSTERDOWN" | "TRYAGAIN" => Fault::RedisClusterDown,
        "MOVED" | "ASK" | "CROSSSLOT" => Fault::RedisIsCluster,
        "NOPROTO" => Fault::RedisTooOld,
        // Before version 7 the error of a script has another code.
        _ if says("wrongtype") => Fault::RedisForeignValues,
        _ if says("max number of clients") => Fault::RedisTooManyClients,
        _ if says("not allowed in cluster mode") => Fault::RedisIsCluster,
        _ if says("db index") || says("refused to switch database") => Fault::RedisWrongDatabase,
        _ if says("unknown command") && says("hello") || says("resp3") => Fault::RedisTooOld,
        _ if says("unknown command") => Fault::RedisLacksCommand,
        _ if says("without any password configured") || says("authentication") => Fault::RedisDeniesAccess,
        _ => Fault::RedisRefusesWrites,
    };
    Finding::new(fault, words.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_have_the_names_of_their_faults() {
        let cases = [
            ("WRONGPASS", "WRONGPASS: invalid username-password pair or user is disabled.", Fault::RedisDeniesAccess),
            ("NOPERM", "NOPERM: this user has no permissions to run the 'publish' command", Fault::RedisDeniesAccess),
            ("ERR", "ERR: max number of clients reached", Fault::RedisTooManyClients),
            ("ERR", "ERR: unknown command 'evalsha', with args beginning with: 'x'", Fault::RedisLacksCommand),
            ("ERR", "ERR: unknown command `HELLO`, with args beginning with: `3`, ", Fault::RedisTooOld),
            (
                "ERR",
                "ERR: Redis server refused to switch database: DB index is out of range",
                Fault::RedisWrongDatabase,
            ),
            ("ERR", "ERR: SELECT is not allowed in cluster mode", Fault::RedisIsCluster),
            ("ERR", "ERR Error running script: @user_script:9: WRONGTYPE Operation", Fault::RedisForeignValues),
            ("BUSY", "BUSY: Redis is busy running a script.", Fault::RedisSilent),
            ("MOVED", "MOVED: 866 127.0.0.1:7001", Fault::RedisIsCluster),
            ("READONLY", "READONLY: You can't write against a read only replica.", Fault::RedisRefusesWrites),
        ];
        for (code, words, fault) in cases {
            assert_eq!(refused(&Refusal { code: code.into(), words: words.into() }).fault, fault, "{words}");
        }
    }
}
