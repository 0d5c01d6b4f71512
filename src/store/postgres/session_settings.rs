//! Settings of sessions, or, through a pooler that lends connections by the transaction, of each transaction: what one session
//! sets there stays on the server's connection, and reaches others.

use std::time::Duration;

use tokio_postgres::{SimpleQueryMessage, SimpleQueryRow};

use super::super::{Cause, StoreError};
use crate::degrade::Fault;

/// Settings of every session. The timeouts are shorter than [`CALL_TIMEOUT`](super::CALL_TIMEOUT), so that a frozen node
/// doesn't hold a conversation's locks.
const SETTINGS: [&str; 4] = [
    "statement_timeout = '4s'",
    "lock_timeout = '2s'",
    "idle_in_transaction_session_timeout = '4s'",
    "client_min_messages = 'warning'",
];

/// Settings of the sessions of the pools, which make the plan of a statement once for each session. The planner would
/// otherwise plan a statement with an array anew at each call, because it takes a plan for one value to be cheaper than the
/// plan for any number of values; that costs more than to run it. A plan may be made while tables are empty and used once they
/// are large: therefore no plan reads a whole table where there is an index, nor joins other than through an index. The
/// planner takes a scan without an index to be so expensive that it would compile it.
const PLANNED_ONCE: [&str; 5] = [
    "plan_cache_mode = force_generic_plan",
    "enable_seqscan = off",
    "enable_hashjoin = off",
    "enable_mergejoin = off",
    "jit = off",
];

/// A heavy read uses one process of the server, and the planner never compiles it.
const HEAVY: [&str; 2] = ["max_parallel_workers_per_gather = 0", "jit = off"];

/// Asks for the process, and whether the server is fit for a node.
macro_rules! identity {
    () => {
        "SELECT pg_backend_pid(), pg_is_in_recovery(), current_setting('transaction_read_only'), \
         current_setting('server_encoding'), extract(epoch FROM pg_postmaster_start_time()), \
         (SELECT oid FROM pg_database WHERE datname = current_database())"
    };
}

/// The first statement of a session that keeps no settings.
pub(super) const IDENTITY: &str = identity!();

/// The time since the start of the process that serves the session: the server has not crashed since.
const AGE: &str =
    "extract(epoch FROM clock_timestamp() - (SELECT backend_start FROM pg_stat_get_activity(pg_backend_pid())))";

/// The identity of a server process and its database: when it started, and the number of the database. The server after a
/// failover has another one, and so has a copy of a database beside the original.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Server {
    /// Time of its start, as the server writes it.
    pub(super) started: String,
    /// Number of the database.
    pub(super) database: String,
}

/// Settings of the sessions of a pool.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct SessionSettings {
    /// Maximum duration of a heavy read's statement; `None` for other calls.
    pub(super) heavy: Option<Duration>,
    /// True if each session makes a plan of each statement once.
    pub(super) planned_once: bool,
}

impl SessionSettings {
    /// The first statements of a session: its settings, and the question for its process.
    pub(super) fn of_session(self) -> String {
        let isolation = "SET default_transaction_isolation = 'read committed'";
        format!("{}; {isolation}; {}, {}", self.each("SET"), identity!(), durable("false"))
    }

    /// The first statements of a transaction: its settings, which end with it, and the question for the process that serves
    /// it. With `age`, the answer has the age of that process in seconds.
    pub(super) fn of_transaction(self, age: bool) -> String {
        let age = if age { AGE } else { "NULL" };
        format!(
            "BEGIN ISOLATION LEVEL READ COMMITTED; {}; {}, {age}, {}",
            self.each("SET LOCAL"),
            identity!(),
            durable("true")
        )
    }

    fn each(self, set: &str) -> String {
        let mut all: Vec<_> = SETTINGS.iter().map(|&setting| setting.to_owned()).collect();
        if let Some(timeout) = self.heavy {
            // One that waits for a lock fails before, and by another name than one that has too much to read.
            all.push(format!("statement_timeout = {}", timeout.as_millis()));
            all.push(format!("lock_timeout = {}", timeout.as_millis() / 2));
            all.extend(HEAVY.map(str::to_owned));
        }
        if self.planned_once {
            all.extend(PLANNED_ONCE.map(str::to_owned));
        }
        all.iter().map(|setting| format!("{set} {setting}")).collect::<Vec<_>>().join("; ")
    }
}

/// Makes an ack wait for the disk, although the role or the database does not: a message that is acked is stored.
fn durable(local: &str) -> String {
    #[cfg(feature = "faults")]
    if crate::faults::has(crate::faults::Fault::AckBeforeCommit) {
        return "NULL".to_owned();
    }
    format!(
        "CASE current_setting('synchronous_commit') WHEN 'off' \
         THEN set_config('synchronous_commit', 'on', {local}) END"
    )
}

/// The first row of answers.
pub(super) fn first_row(answers: &[SimpleQueryMessage]) -> Option<&SimpleQueryRow> {
    answers.iter().find_map(|answer| match answer {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    })
}

/// Checks the answers to [`IDENTITY`]: the server must take writes. Returns the process that serves the session, and
/// the server.
pub(super) fn fit(answers: &[SimpleQueryMessage]) -> Result<(i32, Server), StoreError> {
    let row = first_row(answers);
    let column = |index| row.and_then(|row| row.try_get(index).ok().flatten()).unwrap_or_default();
    let refuses = |why: &str| Err(StoreError::Unavailable(Cause::named(Fault::StoreRefusesWrites, why)));
    match (column(0).parse(), column(1), column(2), column(3)) {
        (Err(_), ..) => Err(StoreError::Unavailable("the server did not tell its process id".into())),
        (Ok(_), "t", ..) => refuses("the server is a standby (pg_is_in_recovery)"),
        (Ok(_), _, "on", _) => refuses("the server's transactions are read-only (default_transaction_read_only)"),
        (Ok(pid), _, _, "UTF8") => Ok((pid, Server { started: column(4).to_owned(), database: column(5).to_owned() })),
        (Ok(_), _, _, encoding) => Err(StoreError::Failed(Cause::named(
            Fault::StoreWrongEncoding,
            format!(
                "the database's encoding is {encoding}; it must be UTF8: create it with ENCODING 'UTF8' TEMPLATE template0"
            ),
        ))),
    }
}
