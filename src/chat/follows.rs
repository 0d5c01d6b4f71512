//! The logs that this node follows: the hub delivers their entries, and the backplane subscribes to their channels.

use std::sync::Arc;

use super::{batch_loader::BatchLoader, command::require_feature, present::PresentUsers};
use crate::{
    backplane::Backplane,
    degrade::{Degrade, Feature},
    hub::{Hub, Opened},
    model::{LogId, Reject, Seq},
    store::Ends,
};

/// Follows and unfollows logs.
pub(super) struct Follows {
    pub(super) hub: Arc<Hub>,
    pub(super) backplane: Arc<Backplane>,
    pub(super) degrade: Arc<Degrade>,
    pub(super) loader: BatchLoader,
    pub(super) present: Arc<PresentUsers>,
}

/// One follow of a log. If it is dropped before [`Following::keep`], for example because its join is refused or
/// cancelled, it unfollows the log. The count of followers therefore stays right on every path.
pub(super) struct Following {
    pub(super) log: LogId,
    opened: Opened,
    /// None after [`Following::keep`].
    follows: Option<Arc<Follows>>,
}

impl Following {
    /// Keeps the follow until [`Follows::release`].
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
    /// Follows a log. The follow ends when the result is dropped, unless it is [kept](Following::keep).
    pub(super) fn follow(self: &Arc<Self>, log: &LogId) -> Following {
        Following { opened: self.hub.follow(log), log: log.clone(), follows: Some(self.clone()) }
    }

    /// Ends one follow of a log.
    pub(super) fn release(&self, log: &LogId) {
        self.hub.unfollow(log, || {
            self.backplane.unsubscribe(log);
            self.present.shown.unfollow(log);
        });
    }

    /// Opens a followed log, once for all its followers. Subscribe before reading the head; otherwise an entry that is
    /// published between the two is missed.
    pub(super) async fn open(
        &self,
        following: &Following,
        ends: impl Future<Output = Result<Ends, Reject>>,
    ) -> Result<(), Reject> {
        let log = &following.log;
        let opened = following.opened.get_or_try_init(|| async {
            self.backplane.subscribe(log).await;
            self.present.shown.follow(log);
            let ends = ends.await?;
            self.hub.set_base(log, ends.head, ends.newest());
            Ok::<_, Reject>(())
        });
        opened.await.map(drop)
    }

    /// Opens a followed log whose access needs no check, such as the user's own inbox. Returns its head.
    pub(super) async fn open_unchecked(&self, following: &Following) -> Result<Seq, Reject> {
        require_feature(&self.degrade, Feature::History)?;
        self.open(following, self.loader.ends(&following.log)).await?;
        Ok(self.hub.last(&following.log).unwrap_or(0))
    }
}
