//! Replay: sends a listener the entries that it misses before it goes live.

use std::{iter::Peekable, sync::Arc, time::Duration};

use super::{connection::Connection, tasks::Tasks};
use crate::{
    hub::{self, Hub},
    model::{ConversationId, Entry, LogId, Seq},
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
    /// The conversation and the number of the join that this belongs to; none for an inbox, which is attached once.
    pub(super) join: Option<(ConversationId, u64)>,
}

/// Sends replays.
pub(super) struct Replayer {
    pub(super) hub: Arc<Hub>,
    pub(super) tasks: Tasks,
    /// Capacity of an outbox, in bytes.
    pub(super) outbox_bytes: usize,
}

impl Replayer {
    /// Starts a task that sends the replays.
    pub(super) fn begin(self: &Arc<Self>, connection: &Arc<Connection>, replays: Vec<Replay>) {
        let (replayer, connection) = (self.clone(), connection.clone());
        self.tasks.spawn(async move { replayer.replay(&connection, replays).await });
    }

    /// Sends a connection the entries that it missed of each log, one log after the other, at the speed at which the
    /// client reads. After that the connection is live.
    pub(super) async fn replay(&self, connection: &Connection, replays: Vec<Replay>) {
        for replay in replays {
            self.replay_one(connection, replay).await;
        }
    }

    async fn replay_one(&self, connection: &Connection, Replay { log, mut has, join }: Replay) {
        // Progress is recorded under the connection's lock, so that a later join knows where this one ended.
        let current = |act: &mut dyn FnMut() -> Option<Seq>| match &join {
            Some((conversation, join)) => connection.update_join(conversation, *join, act),
            None => act(),
        };
        let outbox = &connection.outbox;
        loop {
            let mut behind = || self.hub.splice(&log, connection.id(), has).err().map(|_| has);
            if current(&mut behind).is_none() || !outbox.has_room().await {
                return;
            }
            match self.hub.fetch(&log, has).await {
                Ok(entries) if !entries.is_empty() => {
                    // Read the pair outside `current`, which holds the connection's lock.
                    let pair = log.conversation().and_then(|conversation| connection.pair(&conversation));
                    let mut entries = entries.into_iter().peekable();
                    while entries.peek().is_some() {
                        let mut slice = self.slice(&mut entries);
                        let mut hand_over =
                            || hub::hand_over_missed(outbox, connection.dialect, pair.as_ref(), slice.drain(..));
                        let Some(last) = current(&mut hand_over) else { return };
                        has = last;
                        if !outbox.has_room().await {
                            return;
                        }
                    }
                }
                // The store is unavailable, or behind the hub; both are temporary.
                Ok(_) | Err(_) => tokio::time::sleep(RETRY).await,
            }
        }
    }

    /// The next entries that surely fit into an outbox with room: an eighth of its capacity, because JSON escapes can
    /// lengthen the text.
    fn slice(&self, entries: &mut Peekable<impl Iterator<Item = Entry>>) -> Vec<Entry> {
        let mut left = self.outbox_bytes / 8;
        let mut slice = Vec::from_iter(entries.next());
        while let Some(entry) = entries.next_if(|entry| entry.body.content_bytes() + FRAME_BYTES <= left) {
            left -= entry.body.content_bytes() + FRAME_BYTES;
            slice.push(entry);
        }
        slice
    }
}
