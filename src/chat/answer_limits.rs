//! The maximum lengths of answers. A page that would be longer ends early, and says how to go on.

use super::Caller;
use crate::config::Limits;

/// Maximum lengths of answers as JSON, in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct AnswerLimits {
    socket: usize,
    rest: usize,
}

impl AnswerLimits {
    pub(super) fn new(limits: &Limits) -> Self {
        Self { socket: limits.answer_bytes(), rest: limits.page_bytes }
    }

    /// The maximum for the answer to this caller.
    pub(super) fn of(self, caller: &Caller) -> usize {
        if caller.connection.is_some() { self.socket } else { self.rest }
    }
}
