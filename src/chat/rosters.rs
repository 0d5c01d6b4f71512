//! Some dialects name all who listen whenever somebody comes or leaves: each node finds them out for its own sockets.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::{
    router::{Origin, Router},
    statuses::Statuses,
};
use crate::{
    backplane::Backplane,
    model::{Ephemeral, EphemeralEvent, Event},
};

pub(super) mod news;

use news::News;

/// Tells who listens, after each coming and going.
pub(super) struct Rosters {
    pub(super) backplane: Arc<Backplane>,
    pub(super) statuses: Arc<Statuses>,
    pub(super) router: Arc<Router>,
}

impl Rosters {
    /// Tells them one after the other, so that they stay in order.
    pub(super) async fn run(self, mut news: mpsc::Receiver<News>) {
        while let Some((ephemeral, origin)) = news.recv().await {
            let EphemeralEvent { log, at, what: Ephemeral::Listening { user, name, active } } = &*ephemeral else {
                continue;
            };
            let Some(conversation) = log.conversation() else { continue };
            let present = self.statuses.visible(self.backplane.audience(&conversation).await).await.into();
            let what = Ephemeral::Audience { user: user.clone(), name: name.clone(), active: *active, present };
            let ephemeral = Arc::new(EphemeralEvent { log: log.clone(), at: *at, what });
            self.router.dispatch(vec![Event::Ephemeral { ephemeral, origin }], Origin::HereOnly);
        }
    }
}
