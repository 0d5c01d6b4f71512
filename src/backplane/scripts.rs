//! The scripts: each touches one key, each says in `scripts/*.lua` what it takes and returns.

use std::sync::OnceLock;

use redis::Pipeline;

/// A script, and the name under which Redis remembers it.
pub(super) struct Script {
    source: &'static str,
    sha: OnceLock<String>,
}

/// May a user send?
pub(super) static LIMIT: Script = Script::new(include_str!("scripts/limit.lua"));
/// A connection comes.
pub(super) static REGISTER: Script = Script::new(include_str!("scripts/register.lua"));
/// A connection listens.
pub(super) static LISTEN: Script = Script::new(include_str!("scripts/listen.lua"));
/// A connection no longer listens, or goes.
pub(super) static PART: Script = Script::new(include_str!("scripts/part.lua"));
/// What one node holds of a user.
pub(super) static SYNC: Script = Script::new(include_str!("scripts/sync.lua"));
/// Departures that are due.
pub(super) static CLAIM: Script = Script::new(include_str!("scripts/claim.lua"));
/// The leases.
pub(super) static RENEW: Script = Script::new(include_str!("scripts/renew.lua"));

/// All of them.
pub(super) static SCRIPTS: [&Script; 7] = [&LIMIT, &REGISTER, &LISTEN, &PART, &SYNC, &CLAIM, &RENEW];

impl Script {
    const fn new(source: &'static str) -> Self {
        Self { source, sha: OnceLock::new() }
    }

    /// Its text.
    pub(super) fn source(&self) -> &'static str {
        #[cfg(feature = "faults")]
        return crate::faults::script(self.source);
        #[cfg(not(feature = "faults"))]
        self.source
    }

    /// Adds a call of it on `key`; the caller goes on with `arg`.
    pub(super) fn call<'a>(&self, pipeline: &'a mut Pipeline, key: &str) -> &'a mut Pipeline {
        let sha = self.sha.get_or_init(|| redis::Script::new(self.source()).get_hash().to_owned());
        pipeline.cmd("EVALSHA").arg(sha).arg(1).arg(key)
    }
}
