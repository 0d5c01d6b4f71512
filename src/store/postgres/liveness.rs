//! Finds dead connections: a call whose answer does not come is looked up on the server over a new connection.
//!
//! TCP takes minutes to notice a connection that a firewall or a failover dropped silently. The server knows at once
//! whether it still works on the call. If it does (a lock, a slow query), the call goes on waiting; so a busy server
//! raises no false alarm.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::time::{sleep, timeout};
use tokio_postgres::SimpleQueryMessage;

use super::sessions::{Served, Session, Sessions};

/// Time without an answer after which the server is asked, and between two such questions.
pub(super) const DOUBT_AFTER: Duration = Duration::from_secs(1);
/// Maximum time for the question, including the new connection.
const LOOK_UP_TIMEOUT: Duration = Duration::from_secs(1);
/// Maximum age of an answer that serves further calls. It is shorter than [`DOUBT_AFTER`], so that every call in doubt had
/// begun before it.
const MAX_AGE: Duration = Duration::from_millis(500);
/// Time that an answer may still be under way after the server has ended the call.
const ANSWER_GRACE: Duration = Duration::from_millis(250);
/// Sessions of this user that the server works on. Without `track_activities` the state is `disabled`. Through a pooler, one
/// that waits for the rest of a transaction does not work either: a node sends all of it at once.
const WORKING: &str = "SELECT pid FROM pg_stat_activity \
     WHERE usename = current_user AND state IS DISTINCT FROM 'idle' AND coalesce(state, '') NOT LIKE 'idle in transaction%'";

/// Processes of the server that work on a call.
type Working = Arc<HashSet<i32>>;

/// Looks up calls on the server. One question at a time serves all calls that wait.
pub(super) struct Liveness {
    sessions: Sessions,
    /// The last answer, and when it was asked for; `None` in place of an answer that did not come.
    working: tokio::sync::Mutex<Option<(Instant, Option<Working>)>>,
    /// Sessions without an answer since then are not used again.
    distrusted_since: Mutex<Option<Instant>>,
    /// Sessions opened before then are not used again, because the server took no writes.
    unfit_until: Mutex<Option<Instant>>,
}

impl Liveness {
    pub(super) fn new(sessions: Sessions) -> Self {
        Self {
            sessions,
            working: tokio::sync::Mutex::default(),
            distrusted_since: Mutex::default(),
            unfit_until: Mutex::default(),
        }
    }

    /// Returns once the session, whose call began at `began`, is known to be dead.
    pub(super) async fn until_dead(&self, session: &Session, began: Instant) {
        loop {
            sleep(DOUBT_AFTER).await;
            let before = session.served();
            let Some(working) = self.working().await else { continue };
            let is_dead = match session.served() {
                Served::By(pid) => !working.contains(&pid),
                // A pooler serves first who waits longest. The question was asked later than the call, so it would have no
                // answer if the call still waited for a connection of the server.
                Served::Nobody => before == Served::Nobody,
                Served::Untold => false,
            };
            if is_dead {
                sleep(ANSWER_GRACE).await;
                self.distrust(began);
                return;
            }
        }
    }

    /// Declares sessions without an answer since `began` dead.
    pub(super) fn distrust(&self, began: Instant) {
        let mut since = self.distrusted_since.lock().unwrap_or_else(PoisonError::into_inner);
        *since = Some(since.map_or(began, |known| known.max(began)));
        drop(since);
        self.sessions.note_loss();
    }

    /// Declares every session that is open now unfit: the server that one of them reached takes no writes. After a failover
    /// a pool is full of sessions of the former primary, which would serve old data.
    pub(super) fn reject_open_sessions(&self) {
        *self.unfit_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        self.sessions.note_loss();
    }

    /// True if a call may use the session.
    pub(super) fn trusts(&self, session: &Session) -> bool {
        let unfit = *self.unfit_until.lock().unwrap_or_else(PoisonError::into_inner);
        if unfit.is_some_and(|until| session.opened <= until) {
            return false;
        }
        let since = *self.distrusted_since.lock().unwrap_or_else(PoisonError::into_inner);
        !session.client.is_closed() && since.is_none_or(|since| session.last_answer() > since)
    }

    /// Processes of the server that work now; none if the server does not answer. The answer may be as old as
    /// [`MAX_AGE`]; the call in doubt has then waited for longer.
    async fn working(&self) -> Option<Working> {
        let asked = Instant::now();
        let mut known = self.working.lock().await;
        if let Some((at, working)) = known.as_ref()
            && *at + MAX_AGE >= asked
        {
            return working.clone();
        }
        let at = Instant::now();
        let answers = timeout(LOOK_UP_TIMEOUT, async {
            let client = self.sessions.open().await?;
            client.simple_query(WORKING).await
        });
        let answers = answers.await.ok().and_then(Result::ok);
        let pid = |answer: &SimpleQueryMessage| match answer {
            SimpleQueryMessage::Row(row) => row.get(0)?.parse().ok(),
            _ => None,
        };
        let working = answers.map(|answers| Arc::new(answers.iter().filter_map(pid).collect()));
        *known = Some((at, working.clone()));
        working
    }
}
