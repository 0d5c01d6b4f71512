//! The migrations of both databases, embedded in the program.
//!
//! They are listed by hand. refinery's macro would list them, but it compiles refinery and its dependencies a second
//! time for the build host.

use refinery_core::{Migration, Runner};

use super::StoreError;

/// A migration: its file name without the extension, and its statements.
type Embedded = (&'static str, &'static str);

macro_rules! embedded {
    ($folder:literal: $($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../migrations/", $folder, "/", $name, ".sql")))),*]
    };
}

/// The migrations of PostgreSQL.
pub(super) const POSTGRES: &[Embedded] = embedded!(
    "postgres": "V1__first", "V2__threads_search_archive", "V3__notifications_from_the_log", "V4__notices",
    "V5__names_of_codes", "V6__search_index", "V7__bounds_of_reactions", "V8__blocks_and_former_members", "V9__fingerprints",
    "V10__node_keys",
    "V11__notification_posts", "V12__unread", "V13__data", "V14__restrictions",
    "V15__emoji_without_selectors", "V16__search_tokens", "V17__revocations_by_their_time", "V18__watches",
    "V19__deployment", "V20__planned_once", "V21__timeline", "V22__lost_rows", "V23__retention", "V24__erasures",
    "V25__edits_by_message",
);

/// The migrations of SQLite.
pub(super) const SQLITE: &[Embedded] = embedded!(
    "sqlite": "V1__first", "V2__threads_search_archive", "V3__notifications_from_the_log",
    "V6__search_index", "V8__blocks_and_former_members", "V9__fingerprints", "V10__node_keys",
    "V11__notification_posts", "V12__unread", "V13__data", "V14__restrictions",
    "V15__emoji_without_selectors", "V16__search_tokens", "V18__watches", "V19__deployment", "V23__retention", "V24__erasures",
    "V25__edits_by_message",
);

/// The remedy if migrations are pending, and their URL leads to a pooler that lends connections by the transaction.
pub(super) const BEHIND_A_POOLER: &str = "migrations are pending, and no migration is applied through a pooler: set \
     DATABASE_MIGRATE_URL to a URL of PostgreSQL itself";

/// Builds the runner that applies those migrations that a database lacks.
///
/// # Errors
/// A name is not a valid migration name, which a test rules out.
pub(super) fn runner(migrations: &[Embedded]) -> Result<Runner, StoreError> {
    let migrations: Result<Vec<_>, _> = migrations.iter().map(|(name, sql)| Migration::unapplied(name, sql)).collect();
    migrations.map(|migrations| Runner::new(&migrations)).map_err(|error| StoreError::Failed(error.to_string().into()))
}

#[cfg(test)]
mod tests {
    use refinery_core::load_sql_migrations;

    use super::*;

    #[test]
    fn every_migration_in_the_folders_is_listed() {
        for (folder, listed) in [("migrations/postgres", POSTGRES), ("migrations/sqlite", SQLITE)] {
            let mut files = load_sql_migrations(folder).unwrap();
            files.sort_by_key(Migration::version);
            let with_checksum = |migration: &Migration| (migration.to_string(), migration.checksum());
            let files: Vec<_> = files.iter().map(with_checksum).collect();
            let listed: Vec<_> = runner(listed).unwrap().get_migrations().iter().map(with_checksum).collect();
            assert_eq!(listed, files, "{folder}");
        }
    }
}
