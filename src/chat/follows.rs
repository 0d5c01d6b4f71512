//! Which logs this node follows: the hub delivers them, and the backplane is subscribed to them.

use std::sync::Arc;

use super::{batch_loader::BatchLoader, command::needs};
use crate::{
    backplane::Backplane,
    degrade::{Degrade, Feature},
    hub::{Hub, Opened},
    model::{LogId, Reject, Seq},
};

/// The logs that are followed.
pub(super) struct Follows {
    pub(super) hub: Arc<Hub>,
    pub(super) backplane: Arc<Backplane>,
    pub(super) degrade: Arc<Degrade>,
    pub(super) loader: BatchLoader,
}

/// A log that is followed. Dropped before it was kept, as when its join is refused or cut short, it is given up again: the
/// count of followers stays right whatever happens on the way.
pub(super) struct Following {
    pub(super) log: LogId,
    opened: Opened,
    /// None once it was kept.
    follows: Option<Arc<Follows>>,
}

impl Following {
    /// Goes on until [`Follows::release`].
    pub(super) fn keep(mut self) {
        self.follows = None;
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        if let Some(follows) = self.follows.take() {
            follows.release(&self.log);
        }
    }
}

impl Follows {
    /// Begins to follow a log; what is not [kept](Following::keep) ends when it is dropped.
    pub(super) fn follow(self: &Arc<Self>, log: &LogId) -> Following {
        Following { opened: self.hub.follow(log), log: log.clone(), follows: Some(self.clone()) }
    }

    /// Gives up one following of a log.
    pub(super) fn release(&self, log: &LogId) {
        self.hub.unfollow(log, || self.backplane.unsubscribe(log));
    }

    /// Opens a followed log. Whoever comes first subscribes and then reads the head, so that nothing falls between.
    pub(super) async fn open(
        &self,
        following: &Following,
        head: impl Future<Output = Result<Seq, Reject>>,
    ) -> Result<(), Reject> {
        let log = &following.log;
        let opened = following.opened.get_or_try_init(|| async {
            self.backplane.subscribe(log).await;
            self.hub.base(log, head.await?);
            Ok::<_, Reject>(())
        });
        opened.await.map(drop)
    }

    /// Opens a followed log that the user is known to have a part in. Returns its head.
    pub(super) async fn open_own(&self, following: &Following) -> Result<Seq, Reject> {
        needs(&self.degrade, Feature::History)?;
        self.open(following, self.loader.head(&following.log)).await?;
        Ok(self.hub.last(&following.log).unwrap_or(0))
    }
}
