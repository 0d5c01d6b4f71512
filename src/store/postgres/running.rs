//! Calls that run: what happens to the connection, and to the statement, if nobody waits for the answer any more.

use std::time::{Duration, Instant};

use super::{
    super::turns::Turn,
    liveness::DOUBT_AFTER,
    sessions::{Session, Sessions},
};

/// Maximum time to cancel a statement on the server.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(1);

/// A call that has no answer yet. If it is dropped, for example because its caller gave up:
///
/// - A heavy read is cancelled on the server, and keeps its turn until then: otherwise a client that hangs up could run any
///   number of them.
/// - After a while, the pool discards the session: the connection may be dead.
pub(super) struct Running<'a> {
    session: &'a Session,
    began: Instant,
    /// Cancels the statement; only for heavy reads.
    cancel: Option<&'a Sessions>,
    turn: Option<Turn>,
}

impl<'a> Running<'a> {
    /// A call on the session begins. `cancel` is set for heavy reads.
    pub(super) fn new(session: &'a Session, cancel: Option<&'a Sessions>, turn: Turn) -> Self {
        Self { session, began: Instant::now(), cancel, turn: Some(turn) }
    }

    /// Time at which the call began.
    pub(super) fn began(&self) -> Instant {
        self.began
    }

    /// The server has answered.
    pub(super) fn answered(mut self) {
        self.session.answered();
        self.turn = None;
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let Some(turn) = self.turn.take() else { return };
        if self.cancel.is_some() || self.began.elapsed() >= DOUBT_AFTER / 2 {
            self.session.discard();
        }
        let (Some(sessions), Ok(runtime)) = (self.cancel, tokio::runtime::Handle::try_current()) else { return };
        let (token, tls) = (self.session.client.cancel_token(), sessions.tls());
        runtime.spawn(async move {
            let cancelled = tokio::time::timeout(CANCEL_TIMEOUT, token.cancel_query(tls)).await;
            tracing::debug!(well = matches!(cancelled, Ok(Ok(()))), "a heavy read was cancelled");
            drop(turn);
        });
    }
}
