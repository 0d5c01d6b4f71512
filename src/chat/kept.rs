//! [`Kept`]: the rules and signals for the commands about stored data.

use std::sync::Arc;

use tokio::sync::Notify;

use crate::model::RetentionDays;

/// The rules and signals for the commands about stored data.
pub(super) struct Kept {
    /// Time for which entries are kept, unless their conversation has a rule of its own.
    pub(super) default: RetentionDays,
    /// Notified when the erasure of a user is requested at this node.
    pub(super) erasure_requested: Arc<Notify>,
}
