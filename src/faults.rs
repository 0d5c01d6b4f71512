//! Deliberate defects that the torture test must detect. Only builds with the feature `faults` contain them.

use std::sync::LazyLock;

/// The name of the defect, from `BROKEN` in the environment.
static BROKEN: LazyLock<String> = LazyLock::new(|| {
    #[expect(clippy::disallowed_methods, reason = "not a setting: production builds do not contain it")]
    let broken = std::env::var("BROKEN");
    broken.unwrap_or_default()
});

/// True if the hub must not backfill gaps.
pub fn skips_backfill() -> bool {
    *BROKEN == "no_heal"
}

/// Alters the unregister script so that it does not compare a connection with the registry: one connection that closes
/// then removes all connections of its user.
pub fn script(source: &'static str) -> &'static str {
    if *BROKEN == "no_compare_on_unregister" {
        source.replace("if other ~= ARGV[1] then kept", "if false then kept").leak()
    } else {
        source
    }
}
