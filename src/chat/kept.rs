//! [`Kept`]: what the commands about stored data need.

use std::sync::Arc;

use tokio::sync::Notify;

use crate::model::RetentionDays;

/// What the commands about stored data need.
pub(super) struct Kept {
    /// Time for which entries are kept, unless their conversation has a rule of its own.
    pub(super) default: RetentionDays,
    /// Notified when the erasure of a user is requested at this node.
    pub(super) erasure_requested: Arc<Notify>,
}
