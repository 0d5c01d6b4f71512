//! Roster updates: some dialects name all listeners whenever a user arrives or leaves. Each node reads the roster for
//! its own sockets.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::{
    router::{Origin, Router},
    statuses::Statuses,
};
use crate::{
    backplane::Backplane,
    model::{Ephemeral, EphemeralEvent, Event, ids_within},
    supervise::{TaskName, checkpoint},
};

pub(super) mod changes;

use changes::RosterChange;

/// Sends the roster of a conversation after each arrival and departure.
pub(super) struct Rosters {
    pub(super) backplane: Arc<Backplane>,
    pub(super) statuses: Arc<Statuses>,
    pub(super) router: Arc<Router>,
    /// Maximum length of a roster as JSON, in bytes.
    pub(super) most: usize,
}

impl Rosters {
    /// Sends the rosters in the order of the changes.
    pub(super) async fn run(&self, changes: &mut mpsc::Receiver<RosterChange>) {
        while let Some((ephemeral, origin)) = changes.recv().await {
            checkpoint(TaskName::Rosters, || "");
            let EphemeralEvent { log, at, what: Ephemeral::Listening { user, name, active } } = &*ephemeral else {
                continue;
            };
            let Some(conversation) = log.conversation() else { continue };
            let present = self.statuses.visible(self.backplane.audience(&conversation).await).await;
            let present = ids_within(present, self.most).into();
            let what = Ephemeral::Audience { user: user.clone(), name: name.clone(), active: *active, present };
            let ephemeral = Arc::new(EphemeralEvent { log: log.clone(), at: *at, what });
            self.router.dispatch(vec![Event::Ephemeral { ephemeral, origin }], Origin::HereOnly);
        }
    }
}
