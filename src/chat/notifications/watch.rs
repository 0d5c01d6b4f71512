//! Takes over what a dead node left undone: messages whose members it had not notified, users who were on its sockets, and
//! questions to personas.
//!
//! Every node keeps a row in the store: its last sign of life, and the time up to which everything that was stored is done.
//! An append writes nothing for this; the row follows a few seconds later. When a row's node gives no sign any more, another
//! node, or the next process of the same node, takes the row, reads what was stored since that time, and notifies of all that
//! is neither received nor read. What was notified before is found in the store and not told again.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{Notifications, unconfirmed::DELIVERY_MARGIN};
use crate::{
    chat::personas::Personas,
    config::Timing,
    model::{ConversationId, LogId, Seq},
    store::{StoreError, TakenWatch, Waiting},
    supervise::{TaskName, checkpoint},
};

/// Interval between two signs of life.
const SIGN_EVERY: Duration = Duration::from_secs(5);
/// Pause until the first sign is tried again, so that no message is stored long before it.
const FIRST_SIGN_PAUSE: Duration = Duration::from_millis(100);
/// Time beyond the lease of a dead node until its row is taken. Its sockets have left the registry by then.
const LAPSE_MARGIN: Duration = Duration::from_secs(10);
/// Time for which a row is taken. If its taker ends meanwhile, another node takes it.
const CLAIM: Duration = Duration::from_secs(60);
/// Conversations per read.
const PAGE: u32 = 500;
/// Entries per read of a conversation's questions.
const ENTRIES: u32 = 500;

/// The intervals of a watch.
#[derive(Debug, Clone, Copy)]
pub(in crate::chat) struct WatchTiming {
    /// Time without a sign after which a node counts as dead.
    lapse: Duration,
    /// Time for which what was handed to a socket may stay unconfirmed.
    unconfirmed: Duration,
}

impl From<&Timing> for WatchTiming {
    fn from(timing: &Timing) -> Self {
        // The last sign of life of a socket, the time that its user has to come back, and the work of a round.
        let silent = timing.ping_interval + timing.pong_timeout + timing.presence_grace;
        let unconfirmed = silent + 2 * DELIVERY_MARGIN;
        Self { lapse: timing.lease + LAPSE_MARGIN, unconfirmed }
    }
}

/// A row that this node took and has not finished.
struct Held {
    watch: TakenWatch,
    /// When it was taken.
    at: Instant,
}

/// Keeps this node's row, and takes those of dead nodes.
pub(in crate::chat) struct Watch {
    /// The process: another one of the same node has a row of its own.
    pub(in crate::chat) process: String,
    pub(in crate::chat) timing: WatchTiming,
    pub(in crate::chat) notifications: Arc<Notifications>,
    /// None if no persona is configured.
    pub(in crate::chat) personas: Option<Arc<Personas>>,
}

impl Watch {
    /// Gives signs of life and takes the rows of dead nodes until the node stops. A node that leaves nothing undone removes
    /// its row.
    pub(in crate::chat) async fn run(&self) {
        let stop = self.notifications.supervisor.stop();
        let every = SIGN_EVERY.min(self.timing.lapse / 4);
        let mut signs = interval(every);
        signs.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut has_signed, mut held) = (false, None);
        // Users of a dead node need time to come back after a restart.
        let mut look_at = Instant::now() + self.timing.lapse;
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = signs.tick() => {}
            }
            checkpoint(TaskName::NotificationWatch, || "");
            if let Err(error) = self.sign().await {
                tracing::debug!(%error, "the sign of life can't be stored; retrying");
                // When the store is back, the other nodes renew their rows first.
                look_at = look_at.max(Instant::now() + 2 * every);
                if !has_signed {
                    signs.reset_after(FIRST_SIGN_PAUSE);
                }
                continue;
            }
            has_signed = true;
            if look_at <= Instant::now() {
                let taken = stop.run_until_cancelled(self.take_over(&mut held)).await;
                if let Some(Err(error)) = taken {
                    tracing::debug!(%error, "what a dead node left can't be read; retrying");
                }
            }
        }
        self.end().await;
    }

    /// Gives a sign of life.
    pub(in crate::chat) async fn sign(&self) -> Result<(), StoreError> {
        let undone = self.undone_since().map_or(Duration::ZERO, |since| since.elapsed());
        self.notifications.store.sign_watch(&self.process, undone + self.timing.unconfirmed).await
    }

    /// The time of the oldest thing that this node has not done yet.
    fn undone_since(&self) -> Option<Instant> {
        let Notifications { unread, unconfirmed, .. } = &*self.notifications;
        let asked = self.personas.as_ref().and_then(|personas| personas.oldest());
        [unread.oldest(), unconfirmed.oldest(), asked].into_iter().flatten().min()
    }

    /// Removes the row if everything is done; otherwise another node takes it soon.
    async fn end(&self) {
        let ended = match self.undone_since() {
            None => self.notifications.store.end_watch(&self.process).await,
            Some(_) => self.sign().await,
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "the watch can't be ended; another node takes it");
        }
    }

    /// Takes the rows of dead nodes, one after the other. One that can't be finished now stays `held` for the next try.
    async fn take_over(&self, held: &mut Option<Held>) -> Result<(), StoreError> {
        let store = &self.notifications.store;
        loop {
            let own = held.take().filter(|held| held.at.elapsed() < CLAIM);
            let watch = match own {
                Some(held) => held,
                None => match store.take_watch(&self.process, self.timing.lapse, CLAIM).await? {
                    Some(watch) => Held { watch, at: Instant::now() },
                    None => return Ok(()),
                },
            };
            let Held { watch: TakenWatch { process, behind }, at } = held.insert(watch);
            let behind = *behind + at.elapsed();
            let since = Instant::now().checked_sub(behind).unwrap_or_else(Instant::now);
            let conversations = self.finish_for(behind, since).await?;
            store.end_watch(process).await?;
            self.notifications.metrics.watches_taken.inc();
            let behind_seconds = behind.as_secs();
            tracing::info!(%process, conversations, behind_seconds, "did what a dead node left undone");
            *held = None;
        }
    }

    /// Notifies of what was stored since then, and asks the questions to personas again. Returns the number of conversations.
    async fn finish_for(&self, behind: Duration, since: Instant) -> Result<usize, StoreError> {
        let (read_at, mut after, mut count) = (Instant::now(), None::<LogId>, 0);
        loop {
            let span = behind + read_at.elapsed();
            let (grown, last) = self.notifications.store.grown_within(span, after.as_ref(), PAGE).await?;
            count += grown.len();
            for (conversation, waiting) in grown {
                self.ask_again(&conversation, waiting, since).await?;
                self.notifications.notify_left(conversation, waiting).await;
            }
            match last {
                Some(_) => after = last,
                None => return Ok(count),
            }
        }
    }

    /// Asks the personas that the messages of a conversation name, unless their answers are stored.
    async fn ask_again(
        &self,
        conversation: &ConversationId,
        Waiting { first, last }: Waiting,
        since: Instant,
    ) -> Result<(), StoreError> {
        let Some(personas) = &self.personas else { return Ok(()) };
        let (log, mut has): (_, Seq) = (LogId::from(conversation), first - 1);
        while has < last {
            let entries = self.notifications.store.entries(&log, has, ENTRIES).await?;
            let Some(end) = entries.last() else { break };
            has = end.seq;
            for entry in entries.iter().filter(|entry| entry.seq <= last) {
                personas.ask_again(entry, since).await;
            }
        }
        Ok(())
    }
}
