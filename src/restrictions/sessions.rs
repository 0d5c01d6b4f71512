//! [`Sessions`]: the open sockets of this node, by user.

use std::collections::HashMap;

use tokio::sync::oneshot;

use super::rules::TokenClaims;
use crate::model::{CloseReason, Identity, Reject, UserId};

/// The open sockets.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    users: HashMap<UserId, Vec<Session>>,
    last_key: u64,
}

/// One open socket.
#[derive(Debug)]
struct Session {
    key: u64,
    /// Its token.
    token: TokenClaims,
    /// Ends it.
    end: oneshot::Sender<CloseReason>,
}

impl Sessions {
    pub(super) fn add(&mut self, identity: &Identity) -> (u64, oneshot::Receiver<CloseReason>) {
        self.last_key += 1;
        let (end, ended) = oneshot::channel();
        let session = Session { key: self.last_key, token: identity.into(), end };
        // A user has one socket as a rule.
        self.users.entry(identity.user.clone()).or_insert_with(|| Vec::with_capacity(1)).push(session);
        (self.last_key, ended)
    }

    /// Records the new token of a socket.
    pub(super) fn renew(&mut self, user: &UserId, key: u64, identity: &Identity) {
        let sessions = self.users.get_mut(user).into_iter().flatten();
        if let Some(session) = sessions.into_iter().find(|session| session.key == key) {
            session.token = identity.into();
        }
    }

    pub(super) fn remove(&mut self, user: &UserId, key: u64) {
        if let Some(sessions) = self.users.get_mut(user) {
            sessions.retain(|session| session.key != key);
            if sessions.is_empty() {
                self.users.remove(user);
            }
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// Ends those sockets of a user for which `reason` gives one.
    pub(super) fn end(&mut self, user: &UserId, reason: impl Fn(&TokenClaims) -> Option<CloseReason>) {
        let Some(sessions) = self.users.get_mut(user) else { return };
        end(sessions, reason);
        if sessions.is_empty() {
            self.users.remove(user);
        }
    }

    /// Ends those sockets of all users for which `refusal` gives one.
    pub(super) fn end_all(&mut self, refusal: impl Fn(&UserId, &TokenClaims) -> Option<Reject>) {
        self.users.retain(|user, sessions| {
            end(sessions, |token| refusal(user, token).map(CloseReason::Refused));
            !sessions.is_empty()
        });
    }
}

fn end(sessions: &mut Vec<Session>, reason: impl Fn(&TokenClaims) -> Option<CloseReason>) {
    for session in std::mem::take(sessions) {
        match reason(&session.token) {
            // A session that is gone needs no end.
            Some(reason) => drop(session.end.send(reason)),
            None => sessions.push(session),
        }
    }
}
