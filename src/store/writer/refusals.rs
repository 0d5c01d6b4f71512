//! The fault of the store that a refused batch shows.

use super::super::{NewEntry, StoreError};
use crate::{
    degrade::{Finding, Work},
    model::Body,
};

/// The kind of work that stores these entries. The store accepts no batch of both kinds.
pub(super) fn work_of(entries: &[NewEntry]) -> Work {
    if entries.iter().all(|entry| entry.body.is_message()) { Work::Append } else { Work::Change }
}

/// The name of the call that appends these entries. Each call needs tables and rights that the others don't need.
pub(super) fn call_of(entries: &[NewEntry]) -> &'static str {
    match entries.first().map(|entry| &entry.body) {
        None | Some(Body::Message { .. }) => "message",
        Some(Body::Edited { .. }) => "edit",
        Some(Body::Deleted { .. }) => "deletion",
        Some(Body::Reacted { active: true, .. }) => "reaction",
        Some(Body::Reacted { active: false, .. }) => "removal of a reaction",
        Some(Body::MemberAdded { .. }) => "addition of a member",
        Some(Body::MemberRemoved { .. }) => "removal of a member",
        Some(Body::ConversationAdded { .. } | Body::ConversationRemoved { .. } | Body::Notified { .. }) => "inbox",
    }
}

/// The fault that an append of these entries met, if it lasts until an operator acts. A message of a batch may be at fault
/// alone, so that an error without a name counts once its entry is alone. Of a change, it counts if no value can cause it.
pub(super) fn lasting_fault(error: &StoreError, entries: &[NewEntry]) -> Option<Finding> {
    let nameless = match work_of(entries) {
        Work::Append => error.nameless_refusal().filter(|_| entries.len() == 1),
        _ => error.nameless_refusal().filter(|_| error.refused_call().is_some()),
    };
    error.lasting_fault().or(nameless)
}
