//! The users who are present in a conversation, as lists name them: the greeting of a socket, and the rosters that follow.
//!
//! Lists come from what this node's listeners are [shown](Shown), not from the registry. After Redis was wiped or away, the
//! registry lacks users until their nodes have registered them again, and the comparison that follows tells differences to
//! what was shown: a list that lacked other users than the events did would stay wrong.

use std::{collections::HashSet, sync::Arc};

use tokio::sync::Notify;

use super::{shown::Shown, statuses::Statuses};
use crate::{
    backplane::{Backplane, Listeners},
    model::{ConversationId, UserId},
};

/// Maximum number of users that a list names.
const USERS_MAX: usize = 1_000;

/// Names the users who are present.
pub(super) struct PresentUsers {
    pub(super) shown: Arc<Shown>,
    backplane: Arc<Backplane>,
    statuses: Arc<Statuses>,
    /// Asks for a comparison with the registry.
    compare: Notify,
}

impl PresentUsers {
    pub(super) fn new(shown: Arc<Shown>, backplane: Arc<Backplane>, statuses: Arc<Statuses>) -> Self {
        Self { shown, backplane, statuses, compare: Notify::new() }
    }

    /// The users in a conversation that this node follows, without invisible ones.
    pub(super) async fn of(&self, conversation: &ConversationId) -> Vec<UserId> {
        #[cfg(feature = "faults")]
        if crate::faults::has(crate::faults::Fault::RosterFromRegistry) {
            return self.statuses.visible(self.backplane.audience(conversation).await.users).await;
        }
        self.read_first(conversation).await;
        let mut present = self.shown.present(conversation);
        if present.partial {
            let known: HashSet<UserId> = present.users.iter().cloned().collect();
            let mut others = self.backplane.audience(conversation).await.users;
            others.retain(|user| !known.contains(user));
            present.users.extend(self.statuses.visible(others).await);
            present.users.truncate(USERS_MAX);
        }
        present.users
    }

    /// Reads who was present when this node began to follow a conversation, unless that was done: its listeners are told, in
    /// greetings and answers, of users who came before.
    pub(super) async fn read_first(&self, conversation: &ConversationId) {
        let Some(follow) = self.shown.unread(conversation) else { return };
        let Listeners { users, of_all_nodes } = self.backplane.audience(conversation).await;
        let present = self.shown.without_event(conversation, users);
        let present = if present.is_empty() { present } else { self.statuses.visible(present).await };
        self.shown.add_present(conversation, follow, present);
        if !of_all_nodes || self.backplane.registry_may_lack_users() {
            self.compare_soon();
        }
    }

    /// For each user, true if online. While the registry may lack users, those whom this node's listeners are shown as
    /// present count too: no event would correct the answer.
    pub(super) async fn online(&self, users: &[UserId]) -> Vec<bool> {
        let mut online = self.backplane.online(users).await;
        if self.backplane.registry_may_lack_users() {
            let offline = users.iter().zip(&mut online).filter(|(_, online)| !**online);
            offline.for_each(|(user, online)| *online = self.shown.is_shown(user));
        }
        online
    }

    /// Asks for a comparison of what listeners are shown with the registry.
    pub(super) fn compare_soon(&self) {
        self.compare.notify_one();
    }

    /// Returns when a comparison is asked for.
    pub(super) async fn comparison_asked(&self) {
        self.compare.notified().await;
    }
}
