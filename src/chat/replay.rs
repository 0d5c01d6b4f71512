//! Replay: sends a listener the entries that it misses before it goes live.

use std::{iter::Peekable, sync::Arc, time::Duration};

use tokio::{sync::oneshot, time::timeout};

use super::connection::Connection;
use crate::{
    hub::Hub,
    model::{ConversationId, Entry, LogId, Seq},
    supervise::{Supervisor, TaskName, checkpoint},
};

/// Pause between two tries to read missed entries.
const RETRY: Duration = Duration::from_millis(200);

/// Estimated maximum of an entry's frame without its text, in bytes.
const FRAME_BYTES: usize = 1_024;

/// The entries of one log that a listener misses before it goes live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replay {
    /// The log of the entries.
    pub(super) log: LogId,
    /// The seq up to which the connection has every entry.
    pub(super) has: Seq,
    /// Number of restarts of the log when the connection was attached.
    pub(super) restarts: u64,
    /// The log's head when the user's access was read; a removal up to there was undone.
    pub(super) admitted_at: Seq,
    /// The conversation and the number of the join that this belongs to; none for an inbox, which is attached once.
    pub(super) join: Option<(ConversationId, u64)>,
}

/// Sends replays.
pub(super) struct Replayer {
    pub(super) hub: Arc<Hub>,
    pub(super) supervisor: Supervisor,
    /// Capacity of an outbox, in bytes.
    pub(super) outbox_bytes: usize,
}

impl Replayer {
    /// Starts a task that sends the replays.
    pub(super) fn begin(self: &Arc<Self>, connection: &Arc<Connection>, replays: Vec<Replay>) {
        let (replayer, connection) = (self.clone(), connection.clone());
        self.supervisor.spawn_job(TaskName::Replay, async move { replayer.replay(&connection, replays).await });
    }

    /// Sends a replay in a task, and waits for its end for at most `limit`. True if it ended; else it goes on by itself.
    pub(super) async fn replay_within(
        self: &Arc<Self>,
        connection: &Arc<Connection>,
        replay: Replay,
        limit: Duration,
    ) -> bool {
        let (ended, wait) = oneshot::channel();
        let (replayer, connection) = (self.clone(), connection.clone());
        self.supervisor.spawn_job(TaskName::Replay, async move {
            replayer.replay(&connection, vec![replay]).await;
            // The waiter may have given up.
            let _ = ended.send(());
        });
        timeout(limit, wait).await.is_ok_and(|ended| ended.is_ok())
    }

    /// Sends a connection the entries that it missed of each log, one log after the other, at the speed at which the
    /// client reads. After that the connection is live. A panic ends the connection: it would never go live.
    pub(super) async fn replay(&self, connection: &Connection, replays: Vec<Replay>) {
        let _replaying = connection.begin_replay();
        for replay in replays {
            if self.supervisor.guard(TaskName::Replay, self.replay_one(connection, replay)).await.is_none() {
                return connection.outbox.fail();
            }
        }
    }

    async fn replay_one(&self, connection: &Connection, replay: Replay) {
        let Replay { log, mut has, restarts, admitted_at, join } = replay;
        checkpoint(TaskName::Replay, || log.to_string());
        // Progress is recorded under the connection's lock, so that a later join knows where this one ended.
        let current = |act: &mut dyn FnMut() -> Option<Seq>| match &join {
            Some((conversation, join)) => connection.update_join(conversation, *join, act),
            None => act(),
        };
        let outbox = &connection.outbox;
        loop {
            let mut spliced = false;
            let mut behind = || {
                let splice = self.hub.splice(&log, connection.id(), has, restarts);
                spliced = splice.is_ok();
                splice.err().map(|_| has)
            };
            let is_behind = current(&mut behind).is_some();
            if let (true, Some((conversation, join))) = (spliced, &join) {
                connection.record_live(conversation, *join);
            }
            if !is_behind || !outbox.has_room().await {
                return;
            }
            match self.hub.fetch(&log, has).await {
                Ok(entries) if !entries.is_empty() => {
                    // Read the pair outside `current`, which holds the connection's lock.
                    let pair = log.conversation().and_then(|conversation| connection.pair(&conversation));
                    let mut entries = entries.into_iter().peekable();
                    while entries.peek().is_some() {
                        let mut slice = self.slice(&mut entries);
                        let (dialect, pair) = (connection.dialect, pair.as_ref());
                        let mut hand_over =
                            || self.hub.hand_over_missed(outbox, dialect, pair, admitted_at, slice.drain(..));
                        let Some(last) = current(&mut hand_over) else { return };
                        has = last;
                        if !outbox.has_room().await {
                            return;
                        }
                    }
                }
                Ok(_) => match self.hub.first(&log).await {
                    // Retention removed everything that was to be replayed, after the join.
                    Ok(first) if first > has + 1 => has = first - 1,
                    // The store is behind the hub, or unavailable; both are temporary.
                    Ok(_) | Err(_) => tokio::time::sleep(RETRY).await,
                },
                Err(_) => tokio::time::sleep(RETRY).await,
            }
        }
    }

    /// The next entries that surely fit into an outbox with room: an eighth of its capacity, because JSON escapes can
    /// lengthen the text.
    fn slice(&self, entries: &mut Peekable<impl Iterator<Item = Entry>>) -> Vec<Entry> {
        let mut left = self.outbox_bytes / 8;
        let mut slice = Vec::from_iter(entries.next());
        while let Some(entry) = entries.next_if(|entry| entry.body.payload_bytes() + FRAME_BYTES <= left) {
            left -= entry.body.payload_bytes() + FRAME_BYTES;
            slice.push(entry);
        }
        slice
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use async_trait::async_trait;
    use tokio::io::AsyncReadExt;

    use super::*;
    use crate::{
        chat::connection::fixture::connected,
        dialect::Dialect,
        hub::{Source, SourceFailed, Terms, Wanted},
        metrics::Metrics,
        model::{Body, Clock, Timestamp, UserId},
    };

    /// A store with one entry that can be away.
    struct Away(AtomicBool);

    #[async_trait]
    impl Source for Away {
        async fn after(&self, Wanted { log, after, .. }: Wanted<'_>) -> Result<Vec<Entry>, SourceFailed> {
            if self.0.load(Ordering::SeqCst) {
                return Err(SourceFailed);
            }
            let body = Body::message("hi");
            let (sender, at) = (UserId::parse("bob").unwrap(), Timestamp::from_seconds(1));
            let (log, sender_name) = (log.clone(), "Bob".into());
            let entry = Entry { log, seq: 1, message_no: 1, sender, sender_name, client_id: None, at, body };
            Ok(Vec::from_iter((after < 1).then_some(entry)))
        }
    }

    #[tokio::test]
    async fn a_replay_that_takes_too_long_goes_on_without_its_waiter() {
        let (metrics, source) = (Arc::new(Metrics::new().unwrap()), Arc::new(Away(AtomicBool::new(true))));
        let supervisor = Supervisor::new(metrics.clone());
        let hub = Hub::start(1, source.clone(), metrics.clone(), Clock::system(), supervisor.clone());
        let replayer = Replayer { hub: hub.clone(), supervisor: supervisor.clone(), outbox_bytes: 1 << 20 };
        let replayer = Arc::new(replayer);
        let log = LogId::parse("room").unwrap();
        let _opened = hub.follow(&log);
        hub.set_base(&log, 1, None);
        let (connection, mut client) = connected(&metrics).await;
        hub.attach(&log, Dialect::Native, &connection.outbox, Terms::default());
        let replay = || Replay { log: log.clone(), has: 0, restarts: 0, admitted_at: 0, join: None };
        assert!(!replayer.replay_within(&connection, replay(), Duration::from_millis(50)).await, "the store is away");
        source.0.store(false, Ordering::SeqCst);
        let mut frame = [0; 1_024];
        let read = tokio::time::timeout(Duration::from_secs(30), client.read(&mut frame)).await.unwrap().unwrap();
        assert!(String::from_utf8_lossy(&frame[..read]).contains("\"hi\""), "the entry comes later");
        supervisor.stop().cancel();
    }
}
