//! Deliberate panics, so that tests can check what a panic of each task ends. Release builds do not contain them.

use super::TaskName;

/// Panics if the test asked for it. `item` describes what the task works on.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn checkpoint<T: AsRef<str>>(_: TaskName, _: impl FnOnce() -> T) {}

/// Panics if the test asked for it: `TEST_PANICS=typing=2,session=1` in the environment lets the first two passes of the
/// task `typing` panic, and the first pass of `session` whose item contains `panic:session`. A task without items has
/// the empty item.
///
/// # Panics
/// That is its purpose.
#[cfg(debug_assertions)]
pub fn checkpoint<T: AsRef<str>>(name: TaskName, item: impl FnOnce() -> T) {
    use std::sync::{
        LazyLock,
        atomic::{AtomicU32, Ordering},
    };

    static LEFT: LazyLock<Vec<(String, AtomicU32)>> = LazyLock::new(|| {
        #[expect(clippy::disallowed_methods, reason = "not a setting: release builds do not contain it")]
        let asked = std::env::var("TEST_PANICS").unwrap_or_default();
        let one = |text: &str| {
            let (label, count) = text.split_once('=')?;
            Some((label.to_owned(), AtomicU32::new(count.parse().ok()?)))
        };
        asked.split(',').filter_map(one).collect()
    });

    let Some((label, left)) = LEFT.iter().find(|(label, _)| label == name.label()) else { return };
    let item = item();
    let meant = item.as_ref().is_empty() || item.as_ref().contains(&format!("panic:{label}"));
    let taken = meant && left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
    assert!(!taken, "a test asked for this panic of {label}");
}
