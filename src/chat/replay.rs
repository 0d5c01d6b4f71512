//! What a connection that listens still has to get before it is live.

use std::{iter::Peekable, sync::Arc, time::Duration};

use super::{connection::Connection, tasks::Tasks};
use crate::{
    hub::{self, Hub},
    model::{ConversationId, Entry, LogId, Seq},
};

/// Between two tries to read what a client missed.
const RETRY: Duration = Duration::from_millis(200);

/// What an entry's frame has beside its text, in bytes, at most about.
const FRAME_BYTES: usize = 1_024;

/// What a connection that listens still has to get before it is live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replay {
    /// The log it is of.
    pub(super) log: LogId,
    /// The seq up to which the connection has everything.
    pub(super) has: Seq,
    /// Which join of which conversation it belongs to; none for an inbox, which is joined once.
    pub(super) join: Option<(ConversationId, u64)>,
}

/// Brings replays.
pub(super) struct Replayer {
    pub(super) hub: Arc<Hub>,
    pub(super) tasks: Tasks,
    /// Bytes that may wait for a connection.
    pub(super) outbox_bytes: usize,
}

impl Replayer {
    /// Gives a connection what it missed, beside what goes on.
    pub(super) fn begin(self: &Arc<Self>, connection: &Arc<Connection>, replays: Vec<Replay>) {
        let (replayer, connection) = (self.clone(), connection.clone());
        self.tasks.spawn(async move { replayer.replay(&connection, replays).await });
    }

    /// Gives a connection what it missed of each log, one after the other, as fast as it reads; then it is live.
    pub(super) async fn replay(&self, connection: &Connection, replays: Vec<Replay>) {
        for replay in replays {
            self.replay_one(connection, replay).await;
        }
    }

    async fn replay_one(&self, connection: &Connection, Replay { log, mut has, join }: Replay) {
        // What is handed over is noted under the connection's lock, so that a later join knows where this one stood.
        let current = |act: &mut dyn FnMut() -> Option<Seq>| match &join {
            Some((conversation, join)) => connection.during(conversation, *join, act),
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
                    // Looked up before: `current` holds the connection's lock.
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
                // The store is down, or not as far as the hub: both pass.
                Ok(_) | Err(_) => tokio::time::sleep(RETRY).await,
            }
        }
    }

    /// The next entries that an outbox with room surely takes, however their texts grow as JSON: an eighth of it.
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
