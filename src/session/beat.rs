//! What a session does at its timer: pings, the end of a connection without an answer, and the list of online users.

use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::Instant;

use super::{life::Life, open::Open};
use crate::{
    model::{CloseReason, ids_within},
    outbox::Progress,
    supervise::TaskName,
};

/// Time for which what was written may still be under way to a client whose frame arrives.
const UNDER_WAY: Duration = Duration::from_secs(5);

impl Open {
    /// Reads or sends the list of online users, if it is due.
    pub(super) fn send_roster(&mut self, now: Instant) {
        let (chat, user, registry) =
            (self.context.chat.clone(), self.identity.user.clone(), self.context.chat.registry_version());
        let read = || async move { chat.acquaintances_online(&user).await }.boxed();
        if let Some(users) = self.roster.as_mut().and_then(|roster| roster.take_due(now, registry, read)) {
            let users = ids_within(users, self.context.config.limits.roster_bytes());
            self.push_frames(self.connection.dialect.roster(&users, self.context.clock.now()));
        }
    }

    /// Handles the timer of the heartbeat: finds out whether the client lives, and sends a ping that is due.
    pub(super) async fn beat(&mut self, now: Instant) -> Result<(), CloseReason> {
        if self.life.heartbeat.is_late(now) {
            self.judge_late(now).await?;
        }
        if self.life.heartbeat.take_due_ping(now) {
            let Life { heartbeat, arrivals } = &mut self.life;
            let number = arrivals.next_ping();
            let position = self.connection.outbox.ping(number);
            let waits_since = [self.connection.outbox.waits_since(), self.connection.replays_since()];
            let complete_until = waits_since.into_iter().flatten().min().unwrap_or(now);
            arrivals.pinged(number, position, complete_until);
            if arrivals.needs_ping() {
                heartbeat.ping_soon();
            }
        }
        Ok(())
    }

    /// Judges a client whose pong is late: it lives if it took bytes, is silent, or is gone.
    async fn judge_late(&mut self, now: Instant) -> Result<(), CloseReason> {
        let (reads_frames, heartbeat) = (self.reads_frames(), &mut self.life.heartbeat);
        // While frames wait, the ping waits behind those that the kernel holds: the bytes that the client takes are its sign
        // of life.
        let progress = self.connection.outbox.progress();
        let life = match progress {
            Progress::Waiting(taken_at) => taken_at.filter(|at| heartbeat.is_recent(*at, now)).map(|_| now),
            Progress::Idle(taken_at) => taken_at.filter(|at| heartbeat.is_after_ping(*at)),
        };
        match (life, progress) {
            (Some(at), _) => {
                heartbeat.record_taken(at);
                self.set_silent(false).await
            }
            // Frames were not read meanwhile, so the pong may wait in the socket.
            (None, _) if !reads_frames => {
                heartbeat.allow_pong(now);
                Ok(())
            }
            (None, _) if !heartbeat.is_overdue(now) => self.set_silent(true).await,
            // The outbox ends a client that takes nothing.
            (None, Progress::Waiting(_)) => {
                heartbeat.allow_pong(now);
                Ok(())
            }
            (None, Progress::Idle(_)) => Err(CloseReason::Silent),
        }
    }

    /// Records a frame of the client.
    pub(super) async fn record_activity(&mut self) -> Result<(), CloseReason> {
        let now = Instant::now();
        self.life.heartbeat.record_activity(now);
        self.confirm_by_frame(now);
        self.set_silent(false).await
    }

    /// Records that the client has what left some time before it sent a frame, if nothing waited since.
    pub(super) fn confirm_by_frame(&mut self, now: Instant) {
        let waits = self.connection.outbox.waits_since().is_some() || self.connection.replays_since().is_some();
        if let (false, Some(before)) = (waits, now.checked_sub(UNDER_WAY)) {
            self.life.arrivals.confirm_until(before);
        }
    }

    /// Records the pong of a ping: the entries before that ping have arrived.
    pub(super) fn record_pong(&mut self, number: u32) {
        let arrived = self.life.arrivals.confirm(number);
        if !arrived.is_empty() {
            let recorded = self.context.chat.clone().record_delivered(self.caller(), arrived);
            self.context.spawn(TaskName::Session, recorded);
        }
    }

    /// Tells all nodes that the client is silent, or no longer. A client that comes back after it gave way to another socket
    /// of its user has lost its place.
    async fn set_silent(&mut self, silent: bool) -> Result<(), CloseReason> {
        if !self.life.heartbeat.set_silent(silent) {
            return Ok(());
        }
        let in_place = Box::pin(self.context.chat.set_silent(&self.connection, silent)).await;
        if in_place || silent { Ok(()) } else { Err(CloseReason::Silent) }
    }
}
