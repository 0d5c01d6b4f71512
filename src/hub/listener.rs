//! A socket that listens to a log, and what it gets of it.

use std::sync::Arc;

use super::{delivery::Delivery, told::Told};
use crate::{
    dialect::Dialect,
    model::{ConnectionId, Ephemeral, Event, Pair, Seq},
    outbox::Outbox,
};

/// The terms on which a socket listens to a log.
#[derive(Debug, Clone, Copy, Default)]
pub struct Terms<'a> {
    /// The members of a direct conversation, for a dialect that names them.
    pub pair: Option<&'a Arc<Pair>>,
    /// The log's head when the user's access was read: a removal up to there was undone and does not end the listening.
    pub admitted_at: Seq,
    /// True if the socket is told who begins and stops to listen.
    pub roster: bool,
}

/// The state of a log when a listener was attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attached {
    /// The seq of the last entry that went out.
    pub last: Seq,
    /// Number of restarts of the log.
    pub restarts: u64,
}

/// A socket that listens to a log.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) connection: ConnectionId,
    pub(super) dialect: Dialect,
    /// The listener gets entries after this seq; none while a replay sends it missed entries.
    pub(super) live_after: Option<Seq>,
    /// The log's head when the user's access was read. A removal up to there was undone since.
    pub(super) admitted_at: Seq,
    /// True if the listener is told who begins and stops to listen.
    pub(super) roster: bool,
    pub(super) outbox: Arc<Outbox>,
}

impl Listener {
    /// True if the listener gets this event: an entry, or an ephemeral event that its own socket did not cause.
    pub(super) fn wants(&self, delivery: &Delivery) -> bool {
        match &delivery.event {
            Event::Entry { entry, .. } => self.live_after.is_some_and(|has| entry.seq > has),
            Event::Ephemeral { ephemeral, origin } => {
                let own = *origin == Some(self.connection) || self.is_told_to_be_gone(&ephemeral.what);
                !own && (self.roster || !matches!(ephemeral.what, Ephemeral::Listening { .. }))
            }
        }
    }

    /// True if the event says that the listener's own user is gone. The departure of an earlier socket may come late, and
    /// the user's arrival is not sent to the socket that caused it.
    fn is_told_to_be_gone(&self, what: &Ephemeral) -> bool {
        let gone = match what {
            Ephemeral::Listening { user, active: false, .. }
            | Ephemeral::Audience { user, active: false, .. }
            | Ephemeral::Presence { user, online: false, .. } => user,
            _ => return false,
        };
        self.outbox.user() == Some(gone)
    }

    /// True if the listener gets this event and was not told the same of its user, in another conversation.
    pub(super) fn lacks(&self, delivery: &Delivery, told: &mut Told) -> bool {
        let wants = self.wants(delivery);
        let Event::Ephemeral { ephemeral, .. } = &delivery.event else { return wants };
        match &ephemeral.what {
            Ephemeral::Listening { user, active: false, .. } => {
                told.left(self.connection, user);
                wants
            }
            Ephemeral::Presence { user, online, status } if wants && delivery.is_shown_in(self.dialect) => {
                told.tell(self.connection, user, (*online, *status))
            }
            _ => wants,
        }
    }

    /// True if the entry ends the membership that lets this listener listen.
    pub(super) fn is_removed_by(&self, delivery: &Delivery) -> bool {
        delivery.removes(&self.outbox, self.admitted_at)
    }
}
