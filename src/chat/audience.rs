//! Some dialects name all who listen whenever somebody comes or leaves: each node finds them out for its own sockets.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::Chat;
use crate::{
    dialect::{Company, Dialect},
    model::{ConnectionId, Ephemeral, Event, Occurrence},
};

/// Comings and goings that may wait to be told; beyond it they are dropped, as anything that passes may be.
pub(super) const QUEUE: usize = 1_000;

/// Who came or left, and the socket that brought it about.
pub(super) type News = (Arc<Occurrence>, Option<ConnectionId>);

fn names_listeners(dialect: Dialect) -> bool {
    dialect.greets_with() == Company::Listeners
}

impl Chat {
    /// Has those comings and goings told anew, with all who are there, that concern a dialect which names them.
    pub(super) fn note_audiences(&self, events: &[Event]) {
        for event in events {
            let Event::Occurrence { occurrence, origin } = event else { continue };
            let concerns = matches!(occurrence.what, Ephemeral::Listening { .. })
                && self.hub.is_spoken(&occurrence.log, names_listeners);
            if concerns && self.audiences.try_send((occurrence.clone(), *origin)).is_err() {
                self.metrics.audiences_dropped.inc();
            }
        }
    }

    /// Tells them one after the other, so that they stay in order.
    pub(super) async fn tell_audiences(self: Arc<Self>, mut news: mpsc::Receiver<News>) {
        while let Some((occurrence, origin)) = news.recv().await {
            let Occurrence { log, at, what: Ephemeral::Listening { user, name, active } } = &*occurrence else {
                continue;
            };
            let Some(conversation) = log.conversation() else { continue };
            let present = self.visible(self.backplane.audience(&conversation).await).await.into();
            let what = Ephemeral::Audience { user: user.clone(), name: name.clone(), active: *active, present };
            let occurrence = Arc::new(Occurrence { log: log.clone(), at: *at, what });
            self.hub.apply(vec![Event::Occurrence { occurrence, origin }]);
        }
    }
}
