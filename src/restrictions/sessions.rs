//! [`Sessions`]: the open sockets of this node, by user.

use std::collections::HashMap;

use tokio::sync::oneshot;

use crate::model::{CloseReason, Identity, Reject, Timestamp, TokenId, UserId};

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
    /// Time at which its token was issued.
    issued_at: Option<Timestamp>,
    /// The id of its token.
    token: Option<TokenId>,
    /// Ends it.
    end: oneshot::Sender<CloseReason>,
}

impl Sessions {
    pub(super) fn add(&mut self, identity: &Identity) -> (u64, oneshot::Receiver<CloseReason>) {
        self.last_key += 1;
        let (end, ended) = oneshot::channel();
        let Identity { issued_at, token_id, .. } = identity;
        let session = Session { key: self.last_key, issued_at: *issued_at, token: token_id.clone(), end };
        self.users.entry(identity.user.clone()).or_default().push(session);
        (self.last_key, ended)
    }

    /// Records the new token of a socket.
    pub(super) fn renew(&mut self, user: &UserId, key: u64, identity: &Identity) {
        let sessions = self.users.get_mut(user).into_iter().flatten();
        if let Some(session) = sessions.into_iter().find(|session| session.key == key) {
            (session.issued_at, session.token) = (identity.issued_at, identity.token_id.clone());
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
    pub(super) fn end(
        &mut self,
        user: &UserId,
        reason: impl Fn(Option<Timestamp>, Option<&TokenId>) -> Option<CloseReason>,
    ) {
        let Some(sessions) = self.users.get_mut(user) else { return };
        end(sessions, reason);
        if sessions.is_empty() {
            self.users.remove(user);
        }
    }

    /// Ends those sockets of all users for which `refusal` gives one.
    pub(super) fn end_all(&mut self, refusal: impl Fn(&UserId, Option<Timestamp>, Option<&TokenId>) -> Option<Reject>) {
        self.users.retain(|user, sessions| {
            end(sessions, |issued_at, token| refusal(user, issued_at, token).map(CloseReason::Refused));
            !sessions.is_empty()
        });
    }
}

fn end(sessions: &mut Vec<Session>, reason: impl Fn(Option<Timestamp>, Option<&TokenId>) -> Option<CloseReason>) {
    for session in std::mem::take(sessions) {
        match reason(session.issued_at, session.token.as_ref()) {
            // A session that is gone needs no end.
            Some(reason) => drop(session.end.send(reason)),
            None => sessions.push(session),
        }
    }
}
