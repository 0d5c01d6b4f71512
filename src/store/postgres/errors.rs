//! Errors of the driver and of migrations: their text, and what they say about the call.

use std::{error::Error, io};

use refinery_core::error::Kind;
use tokio_postgres::error::{DbError, Severity, SqlState};

use super::super::{Cause, Pool, Scope, StoreError};
use crate::{
    credentials::{causes, refused_certificate},
    degrade::Fault,
};

/// Errors of a statement that pass by themselves: the same call may succeed later.
const TRANSIENT: [SqlState; 12] = [
    SqlState::LOCK_NOT_AVAILABLE,
    SqlState::QUERY_CANCELED,
    SqlState::T_R_DEADLOCK_DETECTED,
    SqlState::T_R_SERIALIZATION_FAILURE,
    SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
    SqlState::ADMIN_SHUTDOWN,
    SqlState::CRASH_SHUTDOWN,
    SqlState::CANNOT_CONNECT_NOW,
    SqlState::TOO_MANY_CONNECTIONS,
    SqlState::READ_ONLY_SQL_TRANSACTION,
    SqlState::DISK_FULL,
    SqlState::OUT_OF_MEMORY,
];
/// Those of [`TRANSIENT`] that concern one statement: the server answers others.
const CONFLICTS: [SqlState; 4] = [
    SqlState::LOCK_NOT_AVAILABLE,
    SqlState::QUERY_CANCELED,
    SqlState::T_R_DEADLOCK_DETECTED,
    SqlState::T_R_SERIALIZATION_FAILURE,
];
/// Codes that the server itself gives only when it ends a session or refuses one (FATAL).
const OF_SESSIONS: [SqlState; 8] = [
    SqlState::ADMIN_SHUTDOWN,
    SqlState::CRASH_SHUTDOWN,
    SqlState::CANNOT_CONNECT_NOW,
    SqlState::TOO_MANY_CONNECTIONS,
    SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
    SqlState::INVALID_PASSWORD,
    SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
    SqlState::INVALID_CATALOG_NAME,
];
/// Functions of PostgreSQL that report errors with a code of somebody else's choice: RAISE in a function, and the server behind
/// a foreign table or a link.
const REPORTERS: [&str; 4] = ["exec_stmt_raise", "pgfdw_report_error", "dblink_res_error", "PLy_elog_impl"];
/// Refusals of a connection that only an operator can end.
const DENIED: [SqlState; 4] = [
    SqlState::INVALID_PASSWORD,
    SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
    SqlState::INVALID_CATALOG_NAME,
    SqlState::INSUFFICIENT_PRIVILEGE,
];
/// The statement names a part of the schema that does not exist.
const LACKS: [SqlState; 3] = [SqlState::UNDEFINED_TABLE, SqlState::UNDEFINED_FUNCTION, SqlState::UNDEFINED_COLUMN];
/// Beginnings of codes of errors that no value of a call can cause: of the server itself, of the schema, of what an operator
/// added to it.
const OF_THE_SERVER: [&str; 6] = ["0A", "42", "55", "58", "P0", "XX"];
/// The beginning of the codes of errors about a value.
const DATA_EXCEPTION: &str = "22";
/// PostgreSQL's words (55000) if the database lets nobody in.
const CLOSED: &str = "not currently accepting connections";
/// The driver's text if the server asks for a password, and DATABASE_URL has none.
const NO_PASSWORD: &str = "password missing";
/// See [`is_unfit`].
const UNFIT: [SqlState; 6] = [
    SqlState::READ_ONLY_SQL_TRANSACTION,
    SqlState::ADMIN_SHUTDOWN,
    SqlState::CRASH_SHUTDOWN,
    SqlState::CANNOT_CONNECT_NOW,
    SqlState::INVALID_SQL_STATEMENT_NAME,
    SqlState::DUPLICATE_PSTATEMENT,
];
/// Statements that a session prepared belong to another session: a pooler lends the connections.
const POOLED: [SqlState; 2] = [SqlState::INVALID_SQL_STATEMENT_NAME, SqlState::DUPLICATE_PSTATEMENT];
/// PgBouncer's words, after which it closes the connection, if it lends connections by the statement.
const POOLED_BY_STATEMENT: &str = "pooling mode";
/// The remedy for [`Fault::StorePooled`].
pub(super) const POOLED_REMEDY: &str = "a pooler lends server connections by the transaction or the statement; set \
     DATABASE_POOLER=transaction for one that lends them by the transaction (PgBouncer: pool_mode = transaction), use its \
     session mode (pool_mode = session), or connect to PostgreSQL directly";
/// PostgreSQL's words, as a pooler repeats them with another code.
const WRONG_PASSWORD: &str = "password authentication failed";
/// The driver's text if a host takes no writes, and several are given.
const NO_WRITES: &str = "database does not allow writes";
/// The driver's text if `sslmode` needs TLS and the server has none.
const NO_TLS: &str = "server does not support TLS";

/// The fault that an error of the server names, if `docs/operations/failure-modes.md` has it.
pub(super) fn fault(error: &tokio_postgres::Error) -> Option<Fault> {
    let Some(stated) = error.as_db_error() else {
        let says = |words: &str| causes(error).any(|cause| cause.to_string().ends_with(words));
        return match () {
            () if says(NO_WRITES) => Some(Fault::StoreRefusesWrites),
            () if says(NO_PASSWORD) || refused_certificate(error).is_some() => Some(Fault::StoreDeniesAccess),
            () if is_timeout(error) => Some(Fault::StoreSilent),
            () => None,
        };
    };
    Some(match stated.code() {
        _ if is_reported(stated) => Fault::StoreCallsFail,
        code if POOLED.contains(code) => Fault::StorePooled,
        code if *code == SqlState::PROTOCOL_VIOLATION && stated.message().contains(POOLED_BY_STATEMENT) => {
            Fault::StorePooled
        }
        code if *code == SqlState::INVALID_CATALOG_NAME => Fault::StoreWrongDatabase,
        code if *code == SqlState::PROTOCOL_VIOLATION && stated.message().contains(WRONG_PASSWORD) => {
            Fault::StoreDeniesAccess
        }
        _ if stated.message().contains(CLOSED) => Fault::StoreUnreachable,
        code if DENIED.contains(code) => Fault::StoreDeniesAccess,
        code if *code == SqlState::READ_ONLY_SQL_TRANSACTION => Fault::StoreRefusesWrites,
        code if *code == SqlState::DISK_FULL || *code == SqlState::OUT_OF_MEMORY => Fault::StoreFull,
        code if *code == SqlState::UNTRANSLATABLE_CHARACTER => Fault::StoreWrongEncoding,
        code if LACKS.contains(code) => Fault::StoreLacksPart,
        code if *code == SqlState::LOCK_NOT_AVAILABLE || *code == SqlState::QUERY_CANCELED => Fault::StoreSilent,
        code if CONFLICTS.contains(code) => Fault::StoreCallsFail,
        code if TRANSIENT.contains(code) => return None,
        code if OF_THE_SERVER.iter().any(|class| code.code().starts_with(class)) => Fault::StoreCallsFail,
        _ => return None,
    })
}

/// True if the server says that it is no primary any more, or is ending, or that a session lost its statements: such sessions
/// are of no use, whatever they answer later. A session that outlived a failover may belong to a standby and stay read-only.
pub(super) fn is_unfit(error: &tokio_postgres::Error) -> bool {
    stated_code(error).is_some_and(|code| UNFIT.contains(code))
}

/// True if the server, or the pooler before it, refused the user or the password.
pub(super) fn is_refused_login(error: &tokio_postgres::Error) -> bool {
    error.as_db_error().is_some_and(|stated| {
        let codes = [SqlState::INVALID_PASSWORD, SqlState::INVALID_AUTHORIZATION_SPECIFICATION];
        codes.contains(stated.code()) || stated.message().contains(WRONG_PASSWORD)
    })
}

/// True if nothing came back in time, not even the refusal of a connection.
fn is_timeout(error: &tokio_postgres::Error) -> bool {
    causes(error).filter_map(|cause| cause.downcast_ref::<io::Error>()).any(|one| one.kind() == io::ErrorKind::TimedOut)
}

/// True if a pooler gave the error. PostgreSQL always names its routine, and a pooler has none.
pub(super) fn is_of_pooler(error: &tokio_postgres::Error) -> bool {
    error.as_db_error().is_some_and(|stated| stated.routine().is_none())
}

/// True if the code says nothing about this server or session: a trigger raised it, or another server gave it.
fn is_reported(stated: &DbError) -> bool {
    let of_a_session = OF_SESSIONS.contains(stated.code());
    let session_lives = matches!(stated.parsed_severity(), Some(Severity::Error));
    of_a_session && session_lives || stated.routine().is_some_and(|routine| REPORTERS.contains(&routine))
}

/// The code by which the server tells its own state; `None` if it [tells nothing of it](is_reported).
fn stated_code(error: &tokio_postgres::Error) -> Option<&SqlState> {
    error.as_db_error().filter(|stated| !is_reported(stated)).map(DbError::code)
}

fn cause(error: &tokio_postgres::Error) -> Cause {
    let fault = fault(error);
    let remedy = if fault == Some(Fault::StorePooled) { format!(". Probably {POOLED_REMEDY}") } else { String::new() };
    let reported = error.as_db_error().is_some_and(is_reported);
    let scope = match stated_code(error) {
        Some(code) if CONFLICTS.contains(code) => Scope::Conflict,
        // A pooler says it in the middle of a session: the server lets it open no connection.
        _ if is_refused_login(error) && !reported => Scope::Entry,
        _ => Scope::Any,
    };
    Cause { fault, detail: format!("{}{remedy}", describe(error)), scope }
}

/// Maps an error of a new connection: `Failed` if the server or its certificate states a fault that only an operator can
/// end, `Unavailable` if the server is away.
pub(super) fn connect_error(error: &tokio_postgres::Error) -> StoreError {
    let denied = error.code().is_some_and(|code| DENIED.contains(code))
        || matches!(fault(error), Some(Fault::StorePooled | Fault::StoreDeniesAccess));
    let distrusted = causes(error).any(|cause| cause.is::<rustls::Error>() || cause.to_string() == NO_TLS);
    if denied || distrusted {
        StoreError::Failed(Cause { scope: Scope::Entry, ..cause(error) })
    } else {
        StoreError::Unavailable(cause(error))
    }
}

/// Maps an error of `prepare`: no statement ran, so nothing was written.
pub(super) fn prepare_error(error: &tokio_postgres::Error) -> StoreError {
    match stated_code(error) {
        Some(code) if LACKS.contains(code) => {
            let detail = format!("{}. A migration is missing: run switchboard migrate", describe(error));
            StoreError::Unavailable(Cause::named(Fault::StoreLacksPart, detail))
        }
        Some(code) if TRANSIENT.contains(code) => StoreError::Unavailable(cause(error)),
        None if error.as_db_error().is_none() => StoreError::Unavailable(cause(error)),
        _ => StoreError::Failed(cause(error)),
    }
}

/// Maps an error of an executed statement by what may have been written.
pub(super) fn query_error(pool: Pool, error: &tokio_postgres::Error) -> StoreError {
    match stated_code(error) {
        Some(code) if *code == SqlState::QUERY_CANCELED && pool.is_heavy() => StoreError::TooSlow,
        Some(code) if TRANSIENT.contains(code) => StoreError::Unavailable(cause(error)),
        None if error.as_db_error().is_none() => StoreError::Unknown(describe(error)),
        _ => StoreError::Failed(cause(error)),
    }
}

/// Maps an error of the migrations: `Unavailable` if a later try may succeed. A migration that was interrupted is rolled
/// back.
pub(super) fn migration_error(error: &(dyn Error + 'static)) -> StoreError {
    if let Some(Kind::MissingVersion(migration)) = error.downcast_ref().map(refinery_core::Error::kind) {
        let detail = format!(
            "the database has migration {migration}, which this program does not know: a newer version made it"
        );
        return StoreError::Failed(detail.into());
    }
    let code = causes(error).find_map(|cause| cause.downcast_ref::<DbError>()).map(DbError::code);
    let lost = causes(error).any(|cause| cause.is::<tokio_postgres::Error>());
    match code {
        Some(code) if TRANSIENT.contains(code) => StoreError::Unavailable(describe(error).into()),
        None if lost => StoreError::Unavailable(describe(error).into()),
        _ => StoreError::Failed(describe(error).into()),
    }
}

/// The error and its causes as text: the server's code and message where there are some, never the values of the
/// statement.
pub(super) fn describe(error: &(dyn Error + 'static)) -> String {
    let mut text = String::new();
    for cause in causes(error) {
        let words = match cause.downcast_ref::<DbError>() {
            Some(stated) => format!("{}: {}", stated.code().code(), words(stated)),
            // Its cause has the code and the message.
            None if cause.source().is_some_and(<dyn Error>::is::<DbError>) && cause.is::<tokio_postgres::Error>() => {
                continue;
            }
            // The text of its cause follows.
            None => match cause.downcast_ref().map(refinery_core::Error::kind) {
                Some(Kind::Connection(what, _)) => what.clone(),
                _ => cause.to_string(),
            },
        };
        if !text.contains(&words) {
            let colon = if text.is_empty() { "" } else { ": " };
            text = format!("{text}{colon}{words}");
        }
    }
    text
}

/// The server's words. Those about a value repeat it, and it may be the text of a message.
fn words(stated: &DbError) -> &str {
    let about_a_value = stated.code().code().starts_with(DATA_EXCEPTION);
    if about_a_value { "a value was refused (PostgreSQL's log has its words)" } else { stated.message() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("could not connect")]
    struct Outer(#[source] io::Error);

    #[test]
    fn a_description_has_every_cause_once() {
        let certificate = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        let error = Outer(io::Error::new(io::ErrorKind::InvalidData, certificate));
        assert_eq!(describe(&error), "could not connect: invalid peer certificate: UnknownIssuer");
        assert!(causes(&error).any(<dyn Error>::is::<rustls::Error>));
    }
}
