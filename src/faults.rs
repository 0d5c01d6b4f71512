//! Deliberate faults that the torture test must detect. Only builds with the feature `faults` contain them.
//!
//! A node has at most one fault, named by `BROKEN` in its environment. Each is one line at the place that it breaks, so
//! that a check of the torture test which no longer finds it has itself become blind.

use std::{
    collections::HashMap,
    sync::{LazyLock, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// A fault. The name in `BROKEN` is that of the variant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The hub does not backfill gaps.
    NoBackfill,
    /// The script that unregisters a connection does not compare it with the registry: one connection that closes then
    /// removes all connections of its user.
    NoCompareOnUnregister,
    /// A shard serves a whole batch to a listener whose membership ends within it.
    BatchAfterRemoval,
    /// A removal that the hub delivered while a join was under way is not noticed.
    UncheckedJoin,
    /// Checks of membership are cached for 5 s.
    CachedMembership,
    /// An automatic join that failed is not repeated.
    JoinNotRepeated,
    /// The socket that begins a direct conversation listens from the head instead of from the start.
    DirectFromHead,
    /// Followed logs are not compared with the store when the lease of another node ends.
    NoCompareAfterLease,
    /// The recent-message cache is trusted although it does not reach the log's head.
    StaleCache,
    /// A stored change that a retry finds is not told to inboxes and listeners again.
    NotRetold,
    /// After a node lost Redis, it does not compare the presence that its listeners were told.
    PresenceNotCompared,
    /// A removal ends a listening that began after the user was added again.
    UndoneRemovalEnds,
    /// A socket does not join again if it hears of the new membership before the removal.
    OvertakenAddition,
    /// The response to a join names the hub's head, even if the client's own seq is higher.
    LowHead,
    /// Frames do not wait for the greeting.
    FramesBeforeGreeting,
    /// An ack does not wait for the entries before its own.
    AcksAtOnce,
    /// Sessions leave it to the server's settings whether an ack waits for the disk.
    AckBeforeCommit,
    /// Lists of the users in a conversation come from the registry, which may lack users.
    RosterFromRegistry,
}

impl Fault {
    /// Every fault.
    pub const ALL: [Self; 18] = [
        Self::NoBackfill,
        Self::NoCompareOnUnregister,
        Self::BatchAfterRemoval,
        Self::UncheckedJoin,
        Self::CachedMembership,
        Self::JoinNotRepeated,
        Self::DirectFromHead,
        Self::NoCompareAfterLease,
        Self::StaleCache,
        Self::NotRetold,
        Self::PresenceNotCompared,
        Self::UndoneRemovalEnds,
        Self::OvertakenAddition,
        Self::LowHead,
        Self::FramesBeforeGreeting,
        Self::AcksAtOnce,
        Self::AckBeforeCommit,
        Self::RosterFromRegistry,
    ];
}

/// The fault of this process.
static BROKEN: LazyLock<Option<Fault>> = LazyLock::new(|| {
    #[expect(clippy::disallowed_methods, reason = "not a setting: production builds do not contain it")]
    let name = std::env::var("BROKEN").ok()?;
    Fault::ALL.into_iter().find(|fault| format!("{fault:?}") == name)
});

/// True if this process has the fault.
pub fn has(fault: Fault) -> bool {
    *BROKEN == Some(fault)
}

/// Alters the unregister script ([`Fault::NoCompareOnUnregister`]).
pub fn script(source: &'static str) -> &'static str {
    if has(Fault::NoCompareOnUnregister) {
        source.replace("if other ~= ARGV[1] then kept", "if false then kept").leak()
    } else {
        source
    }
}

/// Remembers a check of membership that passed ([`Fault::CachedMembership`]), or finds one of the last 5 s.
pub fn cached_membership(user: &str, conversation: &str, passed: bool) -> bool {
    static PASSED: LazyLock<Mutex<HashMap<String, Instant>>> = LazyLock::new(Mutex::default);
    if !has(Fault::CachedMembership) {
        return false;
    }
    let (key, mut all) = (format!("{user} {conversation}"), PASSED.lock().unwrap_or_else(PoisonError::into_inner));
    if passed {
        all.insert(key.clone(), Instant::now());
    }
    all.get(&key).is_some_and(|at| at.elapsed() < Duration::from_secs(5))
}
