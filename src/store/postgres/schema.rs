//! Checks that the database has what the statements need, before a node takes a client: a missing function or right would
//! else refuse sends for ever, with an answer that says "try again".

use std::cmp::Ordering;

use tokio_postgres::{Client, Row, types::Type};

use super::{
    super::{Cause, StoreError, migrations},
    errors::prepare_error,
};
use crate::degrade::{Fault, Finding};

/// Every column, unique index, trigger and function of the newest migration, one a line. A test compares the file with a migrated database.
const EXPECTED: &str = include_str!("schema.txt");
/// Maximum number of missing parts that an error names.
const NAMED: usize = 5;

/// The columns with their types, unique indexes, triggers that are not disabled, and functions of the schema of this session.
const PRESENT: &str = "
    SELECT 'column ' || c.relname || '.' || a.attname || ' ' || format_type(a.atttypid, a.atttypmod) AS part
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
    WHERE c.relkind IN ('r', 'p') AND c.relnamespace = current_schema()::regnamespace AND a.attnum > 0 AND NOT a.attisdropped
    UNION ALL
    SELECT 'unique index ' || c.relname
    FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
    WHERE c.relnamespace = current_schema()::regnamespace AND i.indisunique AND i.indisvalid
    UNION ALL
    SELECT 'trigger ' || t.tgname
    FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
    WHERE c.relnamespace = current_schema()::regnamespace AND NOT t.tgisinternal AND t.tgenabled IN ('O', 'A')
    UNION ALL
    SELECT 'function ' || p.proname || '(' || pg_get_function_identity_arguments(p.oid) || ')'
    FROM pg_proc p WHERE p.pronamespace = current_schema()::regnamespace
    ORDER BY part";
/// Tables and functions that this session's role may not use. Nodes only read `node_keys`, read and update `deployment`, and
/// never read the history of the migrations.
const DENIED: &str = "
    SELECT 'table ' || c.relname AS part
    FROM pg_class c
    WHERE c.relkind IN ('r', 'p') AND c.relnamespace = current_schema()::regnamespace AND c.relname = ANY ($1)
        AND NOT (has_table_privilege(c.oid, 'SELECT') AND (c.relname = 'node_keys' OR has_table_privilege(c.oid, 'UPDATE')
            AND (c.relname = 'deployment'
                OR has_table_privilege(c.oid, 'INSERT') AND has_table_privilege(c.oid, 'DELETE'))))
    UNION ALL
    SELECT 'function ' || p.proname
    FROM pg_proc p
    WHERE p.pronamespace = current_schema()::regnamespace AND p.proname = ANY ($2)
        AND NOT has_function_privilege(p.oid, 'EXECUTE')
    ORDER BY part";

/// Triggers and rules of Switchboard's tables that no migration made, tables whose rows this role may be kept from seeing, and
/// tables that a crash empties; what the relay between nodes writes need not outlive one.
const ADDED: &str = "
    SELECT 'the trigger ' || t.tgname || ' of ' || c.relname AS part
    FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_proc p ON p.oid = t.tgfoid
    WHERE c.relnamespace = current_schema()::regnamespace AND c.relname = ANY ($1) AND NOT t.tgisinternal
        AND t.tgenabled <> 'D' AND NOT (p.pronamespace = c.relnamespace AND p.proname = ANY ($2))
    UNION ALL
    SELECT 'the rule ' || r.rulename || ' of ' || c.relname
    FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class
    WHERE c.relnamespace = current_schema()::regnamespace AND c.relname = ANY ($1) AND r.ev_enabled <> 'D'
    UNION ALL
    SELECT 'row level security of ' || c.relname
    FROM pg_class c
    WHERE c.relnamespace = current_schema()::regnamespace AND c.relname = ANY ($1) AND row_security_active(c.oid)
    UNION ALL
    SELECT 'UNLOGGED for ' || c.relname || ' (its rows are gone after a crash)'
    FROM pg_class c
    WHERE c.relnamespace = current_schema()::regnamespace AND c.relname = ANY ($1) AND c.relpersistence = 'u'
        AND c.relname NOT IN ('alone', 'notices')
    ORDER BY part";

/// The schema of this session, whether its role may make tables there, where it looks for a schema, and another schema that has
/// Switchboard's tables, unless this one has some or the client chose it.
const PLACE: &str = "SELECT current_schema()::text, coalesce(has_schema_privilege(current_schema(), 'CREATE'), false), \
     current_setting('search_path'), current_user::text, \
     (SELECT n.nspname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
      WHERE c.relname = 'refinery_schema_history' AND c.relkind = 'r' AND to_regclass('refinery_schema_history') IS NULL \
          AND has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT') \
          AND (SELECT source <> 'client' FROM pg_settings WHERE name = 'search_path') \
      ORDER BY n.nspname LIMIT 1)";

/// Checks that the session has a schema to work in. If it `creates`, it must be able to make tables there.
///
/// # Errors
/// `Failed` if it has none, lacks the right, or would make tables beside those of another schema.
pub(super) async fn check_place(client: &Client, creates: bool) -> Result<(), StoreError> {
    let row = client.query_typed_one(PLACE, &[]).await.map_err(|error| prepare_error(&error))?;
    let (schema, may_create, path, role): (Option<&str>, bool, &str, &str) =
        (row.get(0), row.get(1), row.get(2), row.get(3));
    if let Some(other) = row.get::<_, Option<&str>>(4).filter(|_| creates) {
        let detail = format!(
            "Switchboard's tables are in the schema {other}, which the search_path of the role {role} ({path}) lacks: correct \
             that, or say in DATABASE_URL which schema is meant (options=-csearch_path=name)"
        );
        return Err(StoreError::Failed(Cause::named(Fault::StoreLacksPart, detail)));
    }
    let denied = |detail: String| Err(StoreError::Failed(Cause::named(Fault::StoreDeniesAccess, detail)));
    match schema.filter(|schema| !schema.starts_with("pg_")) {
        None => denied(format!(
            "the role {role} may use no schema of its search_path ({path}): GRANT USAGE ON SCHEMA public TO {role}, or \
             correct the search_path"
        )),
        Some(schema) if creates && !may_create => denied(format!(
            "migrations are pending, and the role {role} may not make tables in the schema {schema}: run switchboard \
             migrate with a role that may, and set MIGRATE=false for nodes"
        )),
        Some(_) => Ok(()),
    }
}

/// Reads the schema and the rights of the session's role.
///
/// # Errors
/// `Failed` if a part is missing or a right is: both last until an operator acts.
pub(super) async fn check(client: &Client) -> Result<(), StoreError> {
    let failed = |error: tokio_postgres::Error| prepare_error(&error);
    let present: Vec<String> =
        client.query_typed(PRESENT, &[]).await.map_err(failed)?.iter().map(|row| row.get(0)).collect();
    let missing: Vec<&str> = EXPECTED.lines().filter(|part| !present.iter().any(|known| known == part)).collect();
    if !missing.is_empty() {
        let detail = format!("the database lacks {}", list(&missing));
        return Err(StoreError::Failed(Cause::named(Fault::StoreLacksPart, detail)));
    }
    let rows = query_names(client, DENIED).await.map_err(failed)?;
    let denied: Vec<&str> = rows.iter().map(|row| row.get(0)).collect();
    if denied.is_empty() {
        return Ok(());
    }
    let detail = format!("the role may not use {}; security.md has the grants", list(&denied));
    Err(StoreError::Failed(Cause::named(Fault::StoreDeniesAccess, detail)))
}

/// Finds what was added to the tables and may refuse, change or hide rows.
///
/// # Errors
/// The session ended, or the role may not read the catalogue.
pub(super) async fn find_additions(client: &Client) -> Result<Option<Finding>, StoreError> {
    let rows = query_names(client, ADDED).await.map_err(|error| prepare_error(&error))?;
    let added: Vec<&str> = rows.iter().map(|row| row.get(0)).collect();
    let detail = || format!("no migration of Switchboard made {}", list(&added));
    Ok((!added.is_empty()).then(|| Finding::new(Fault::StoreAltered, detail())))
}

/// Compares the migrations that are applied with those that this program knows: `Less` if some are pending, or the role can't
/// tell.
pub(super) async fn compare(client: &Client) -> Ordering {
    applied(client).await.cmp(&migrations::POSTGRES.len())
}

/// True if there is nothing to migrate, and the role could not: it may not even ask for the table of the migrations.
pub(super) async fn need_not_migrate(client: &Client) -> bool {
    compare(client).await == Ordering::Equal && check_place(client, true).await.is_err()
}

/// Number of migrations that are applied; 0 if the role can't tell.
async fn applied(client: &Client) -> usize {
    let applied = client.query_typed_one("SELECT count(*) FROM refinery_schema_history", &[]).await;
    applied.map_or(0, |row| usize::try_from(row.get::<_, i64>(0)).unwrap_or(0))
}

/// Asks with the names of our tables and functions. They have types, so that no statement is prepared, which a pooler would not
/// keep for the session.
async fn query_names(client: &Client, sql: &str) -> Result<Vec<Row>, tokio_postgres::Error> {
    let (tables, functions) = (tables(), functions());
    client.query_typed(sql, &[(&tables, Type::TEXT_ARRAY), (&functions, Type::TEXT_ARRAY)]).await
}

fn tables() -> Vec<&'static str> {
    let columns = EXPECTED.lines().filter_map(|part| part.strip_prefix("column "));
    let mut tables: Vec<_> = columns.filter_map(|column| column.split('.').next()).collect();
    tables.dedup();
    tables
}

fn functions() -> Vec<&'static str> {
    let functions = EXPECTED.lines().filter_map(|part| part.strip_prefix("function "));
    functions.filter_map(|function| function.split('(').next()).collect()
}

/// The first parts in words, and how many there are beyond them.
fn list(parts: &[&str]) -> String {
    let named = parts.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
    match parts.len().saturating_sub(NAMED) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}
