//! Ways to be broken on purpose: what the torture test has to catch. Only a build with the feature `faults` has them.

use std::sync::LazyLock;

/// How this process is to be broken, as `BROKEN` in its environment says.
static BROKEN: LazyLock<String> = LazyLock::new(|| {
    #[expect(clippy::disallowed_methods, reason = "no setting of the program: no build for use has it")]
    let broken = std::env::var("BROKEN");
    broken.unwrap_or_default()
});

/// Gaps in logs are left as they are.
pub fn no_heal() -> bool {
    *BROKEN == "no_heal"
}

/// A connection that goes is not compared with those in the registry: it takes all of its user's with it.
pub fn script(source: &'static str) -> &'static str {
    if *BROKEN == "no_compare_on_unregister" {
        source.replace("if other ~= ARGV[1] then kept", "if false then kept").leak()
    } else {
        source
    }
}
