//! The durable store: users, conversations, members, the logs, read state and notifications.
//!
//! `traits` has one trait for each subject, and [`Store`], their sum. Two backends implement the traits, with one file
//! for each subject, and one contract suite tests both (`tests/it/store.rs`). The [`Writer`] appends entries: it
//! gathers queued entries into group commits. This module imports `model`, `config` and `metrics`; never the backplane
//! or the hub.

mod codes;
mod fingerprint;
mod message_pages;
mod migrations;
mod operation;
mod pools;
mod postgres;
mod restriction_row;
mod retention;
mod row;
mod signs;
mod sqlite;
mod traits;
mod turns;
mod values;
mod watch;
mod writer;

pub use fingerprint::StoredCommand;
pub use message_pages::{MessagesPage, ReadMessages};
pub(crate) use operation::Operation;
pub use pools::Pool;
pub use postgres::{
    Postgres,
    diagnose::{diagnose, living},
};
pub use retention::{AgedLog, AgedPage, Job, JobTurn, RemovedEntries};
pub use signs::{LIVING_MAX, LivingNode, RelaySign};
pub use sqlite::Sqlite;
pub use traits::{
    Blocks, Conversations, Lifecycle, Logs, Members, Messages, Notifications, PersonalData, Relay, Restrictions,
    Retention, Store, Users, Watches,
};
pub use values::{
    Access, AppendRefused, Appended, Authority, Cause, Direct, Ends, FoundDirect, NewEntry, Notices, NotificationPost,
    Notified, NotifyOptions, Outcome, Pulse, RestrictOutcome, RestrictionRow, Scope, SearchScope, Started, StoreError,
    TakenWatch, Waiting, WaitingPosts,
};
pub use watch::watch;
pub use writer::{AppendError, Committed, Outcomes, Writer, WriterSettings};
