//! The fault of the store that a refused batch shows.

use super::super::{NewEntry, StoreError};
use crate::degrade::{Finding, Work};

/// The kind of work that stores these entries. The store accepts no batch of both kinds.
pub(super) fn work_of(entries: &[NewEntry]) -> Work {
    if entries.iter().all(|entry| entry.body.is_message()) { Work::Append } else { Work::Change }
}

/// The fault that an append of these entries met, if it lasts until an operator acts. A message of a batch may be at fault
/// alone, so that an error without a name counts once its entry is alone.
pub(super) fn lasting_fault(error: &StoreError, entries: &[NewEntry]) -> Option<Finding> {
    let alone = entries.len() == 1 && work_of(entries) == Work::Append;
    error.lasting_fault().or_else(|| error.nameless_refusal().filter(|_| alone))
}
