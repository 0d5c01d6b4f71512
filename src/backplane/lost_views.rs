//! Notices that Redis lost a list to which each node adds its own users, while it kept the leases: another program or an operator
//! deleted the key, or a maxmemory policy evicted it.

use std::sync::Arc;

use redis::Pipeline;

use super::{lease::Lease, link::Link, local::Local, ops::Op};
use crate::model::UserId;

/// Looks for this node's users in the lists, one user at each look.
pub(super) struct LostViews {
    pub(super) link: Arc<Link>,
    pub(super) lease: Arc<Lease>,
    pub(super) local: Arc<Local>,
    /// The user of the last look.
    last: Option<UserId>,
}

impl LostViews {
    /// Without a look yet.
    pub(super) fn new(link: Arc<Link>, lease: Arc<Lease>, local: Arc<Local>) -> Self {
        Self { link, lease, local, last: None }
    }

    /// Adds the next user who is connected here to the lists; true if one of them lacked the user.
    pub(super) async fn look(&mut self) -> bool {
        let next = self.local.users_after(self.last.as_ref(), 1).pop();
        self.last = next.or_else(|| self.local.users_after(None, 1).pop());
        let Some(user) = &self.last else { return false };
        let (mut pipeline, keys) = (Pipeline::new(), self.link.keys());
        let lists = [keys.online(), &keys.node_users(&self.lease.me())];
        for list in lists {
            pipeline.cmd("SADD").arg(list).arg(user.as_str());
        }
        // The route keeps the order of these commands and those of the user's last disconnect.
        let Ok(mut replies) = self.link.run(Op::Sync, user.as_str(), &pipeline).await else { return false };
        let lacking: Vec<_> = (0..).zip(lists).filter(|(index, _)| replies.take(*index) == Ok(true)).collect();
        for (_, key) in &lacking {
            tracing::info!(key, "a list in Redis lacked a user; this node writes all of its users again");
        }
        !lacking.is_empty()
    }
}
