//! Who is online where: for one user, and for operators.

use super::{Answer, Caller, Chat};
use crate::model::{NodeStats, PageLimit, Reply, Stats};

impl Chat {
    /// A page of those who are online and wish to be seen.
    pub(super) async fn online(&self, cursor: u64, limit: PageLimit) -> Answer {
        let (users, next) = self.backplane.online_page(cursor, limit.get()).await;
        let users = self.visible(users).await;
        let count = self.backplane.online_count().await;
        Reply::Online { users, count, next: (next != 0).then_some(next) }.into()
    }

    pub(super) async fn connections_of(&self, caller: &Caller) -> Answer {
        Reply::Connections(self.backplane.connections_of(&caller.identity.user).await).into()
    }

    pub(super) async fn stats(&self) -> Answer {
        let (node, connections) = (self.config.node.clone(), self.connections());
        let users_online = self.backplane.online_count().await;
        let mut nodes: Vec<_> = self.backplane.nodes().await.into_iter().map(NodeStats::from).collect();
        if nodes.is_empty() {
            nodes.push(NodeStats { node: node.clone(), alive: true, users: users_online, connections });
        }
        let followed = u64::try_from(self.metrics.followed.get()).unwrap_or(0);
        Reply::Stats(Stats { node, connections, followed, users_online, nodes }).into()
    }
}
