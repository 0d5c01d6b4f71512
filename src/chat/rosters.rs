//! Roster updates: some dialects name all listeners whenever a user arrives or leaves. Each node makes the roster for
//! its own sockets.

use std::sync::Arc;

use super::{
    present::PresentUsers,
    router::{Origin, Router},
};
use crate::{
    model::{Ephemeral, EphemeralEvent, Event, ids_within},
    supervise::{TaskName, checkpoint},
};

pub(super) mod changes;

use changes::RosterQueue;

/// Sends the roster of a conversation after each arrival and departure.
pub(super) struct Rosters {
    pub(super) present: Arc<PresentUsers>,
    pub(super) router: Arc<Router>,
    /// Maximum length of a roster as JSON, in bytes.
    pub(super) most: usize,
}

impl Rosters {
    /// Sends a roster after each change.
    pub(super) async fn run(&self, changes: &mut RosterQueue) {
        while let Some((ephemeral, origin)) = changes.next().await {
            checkpoint(TaskName::Rosters, || "");
            let EphemeralEvent { log, at, what: Ephemeral::Listening { user, name, active } } = &*ephemeral else {
                continue;
            };
            let Some(conversation) = log.conversation() else { continue };
            let present = ids_within(self.present.of(&conversation).await, self.most).into();
            let what = Ephemeral::Audience { user: user.clone(), name: name.clone(), active: *active, present };
            let ephemeral = Arc::new(EphemeralEvent { log: log.clone(), at: *at, what });
            self.router.dispatch(vec![Event::Ephemeral { ephemeral, origin }], Origin::HereOnly);
        }
    }
}
