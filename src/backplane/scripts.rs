//! The Lua scripts. Each touches one key; the head of each `scripts/*.lua` documents its arguments and reply.

use std::sync::OnceLock;

use redis::Pipeline;

/// A script, and the SHA-1 under which Redis caches it.
pub(super) struct Script {
    source: &'static str,
    sha: OnceLock<String>,
}

/// Takes shares of a user's budget.
pub(super) static LIMIT: Script = Script::new(include_str!("scripts/limit.lua"));
/// Adds a connection.
pub(super) static REGISTER: Script = Script::new(include_str!("scripts/register.lua"));
/// Records that a connection listens to a conversation.
pub(super) static LISTEN: Script = Script::new(include_str!("scripts/listen.lua"));
/// Ends a connection's listening, or removes the connection.
pub(super) static PART: Script = Script::new(include_str!("scripts/part.lua"));
/// Stores the departure of a user without an entry.
pub(super) static DEPART: Script = Script::new(include_str!("scripts/depart.lua"));
/// Replaces one node's part of a user's registry entry.
pub(super) static SYNC: Script = Script::new(include_str!("scripts/sync.lua"));
/// Claims departures that are due.
pub(super) static CLAIM: Script = Script::new(include_str!("scripts/claim.lua"));
/// Acquires or renews a lease and returns all leases.
pub(super) static RENEW: Script = Script::new(include_str!("scripts/renew.lua"));

/// Records that a connection is silent, or no longer.
pub(super) static SILENT: Script = Script::new(include_str!("scripts/silent.lua"));

/// Every script.
pub(super) static SCRIPTS: [&Script; 9] = [&LIMIT, &REGISTER, &LISTEN, &PART, &DEPART, &SYNC, &CLAIM, &RENEW, &SILENT];

impl Script {
    const fn new(source: &'static str) -> Self {
        Self { source, sha: OnceLock::new() }
    }

    /// The source text.
    pub(super) fn source(&self) -> &'static str {
        #[cfg(feature = "faults")]
        return crate::faults::script(self.source);
        #[cfg(not(feature = "faults"))]
        self.source
    }

    /// Adds a call on `key` to the pipeline; the caller adds the arguments with `arg`.
    pub(super) fn call<'a>(&self, pipeline: &'a mut Pipeline, key: &str) -> &'a mut Pipeline {
        let sha = self.sha.get_or_init(|| redis::Script::new(self.source()).get_hash().to_owned());
        pipeline.cmd("EVALSHA").arg(sha).arg(1).arg(key)
    }
}
