//! Typing indicators. A user without a new indicator within the timeout counts as stopped, and so does the sender of a
//! message. Every node notices by itself that a user stopped whose node ended.

use std::{sync::Arc, time::Duration};

use super::{
    command::{Caller, CommandReply},
    router::Router,
    statuses::Statuses,
    typists::{Expired, Place, Typists},
};
use crate::{
    model::{ConnectionId, ConversationId, Ephemeral, Identity, LogId, Reply, Status},
    supervise::{TaskName, checkpoint},
};

/// Interval between two checks for expired indicators.
const SWEEP_INTERVAL: Duration = Duration::from_millis(250);

/// Publishes typing indicators.
pub(super) struct Typing {
    pub(super) typists: Arc<Typists>,
    pub(super) router: Arc<Router>,
    pub(super) statuses: Arc<Statuses>,
}

impl Typing {
    /// Records that the caller types or stopped, and publishes a change. An invisible user is never shown as typing.
    pub(super) async fn set_typing(
        &self,
        caller: &Caller,
        conversation: &ConversationId,
        active: bool,
    ) -> CommandReply {
        let identity = &caller.identity;
        if active && self.statuses.of(&identity.user).await == Status::Invisible {
            return Reply::Done.into();
        }
        let source = caller.connection.as_ref().map(|connection| connection.id());
        match active {
            false => self.stop(identity, conversation, source),
            true => {
                let place = (conversation.clone(), identity.user.clone());
                let _turn = self.typists.turn(conversation);
                if self.typists.start(&place, &identity.name, source) {
                    self.publish(place, identity.name.clone(), true, source);
                }
            }
        }
        Reply::Done.into()
    }

    /// Ends a user's typing at one source, and publishes it if no other source is left.
    pub(super) fn stop(&self, identity: &Identity, conversation: &ConversationId, source: Option<ConnectionId>) {
        let place = (conversation.clone(), identity.user.clone());
        let _turn = self.typists.turn(conversation);
        if self.typists.stop(&place, source) {
            self.publish(place, identity.name.clone(), false, source);
        }
    }

    /// Ends typing that expired, until its task is stopped.
    pub(super) async fn run(&self) {
        let mut sweep = tokio::time::interval(SWEEP_INTERVAL);
        loop {
            checkpoint(TaskName::Typing, || "");
            sweep.tick().await;
            self.typists.expiring().iter().for_each(|place| self.expire(place));
        }
    }

    fn expire(&self, place: &Place) {
        let _turn = self.typists.turn(&place.0);
        let Some(Expired { name, here }) = self.typists.expire(place) else { return };
        match here {
            Some(source) => self.publish(place.clone(), name, false, source),
            None => self.tell_here(place.clone(), name),
        }
    }

    /// Tells the listeners on all nodes, except the source.
    fn publish(&self, (conversation, user): Place, name: Arc<str>, active: bool, source: Option<ConnectionId>) {
        let what = Ephemeral::Typing { user, name, active };
        self.router.send_ephemeral(&LogId::from(&conversation), source, [what]);
    }

    /// Tells the listeners on this node that a user stopped; the other nodes know it.
    fn tell_here(&self, (conversation, user): Place, name: Arc<str>) {
        let what = Ephemeral::Typing { user, name, active: false };
        self.router.send_ephemeral_here(&LogId::from(&conversation), None, [what]);
    }
}
