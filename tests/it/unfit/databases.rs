//! A database that can't serve: the wrong encoding, or a part or a right that is missing.

use super::*;
use crate::support::{Postgres, RedisServer, eventually, token};

/// Set this variable to write the file anew after a migration.
const UPDATE: &str = "UPDATE_SCHEMA";

/// A migrated database: a superuser's connection to it, its URL for a role with the documented rights, and the role's name.
pub(super) async fn limited_role(redis: &RedisServer) -> (tokio_postgres::Client, String, String) {
    let database = Postgres::shared().await.database().await;
    Node::serve(&redis.url(), &database).start().await.terminate().await;
    let name = database.rsplit('/').next().unwrap().to_owned();
    let admin = Postgres::shared().await.connect(&name).await;
    let role = format!(
        "CREATE ROLE {name} LOGIN; GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {name}"
    );
    admin.batch_execute(&role).await.unwrap();
    let limited = database.replacen("postgres@", &format!("{name}@"), 1);
    (admin, limited, name)
}

/// A node whose role changes no table.
pub(super) fn limited_node(redis: &RedisServer, database: &str) -> NodeBuilder {
    Node::serve(&redis.url(), database).set("MIGRATE", false)
}

#[tokio::test]
async fn the_expected_schema_is_that_of_a_migrated_database() {
    let database = Postgres::shared().await.database().await;
    let mut migrate = Command::new(env!("CARGO_BIN_EXE_switchboard"));
    let migrated = migrate.arg("migrate").env_clear().env("DATABASE_URL", &database).output();
    assert!(within("the migrations", migrated).await.unwrap().status.success());
    let client = Postgres::shared().await.connect(database.rsplit('/').next().unwrap()).await;
    let parts = "
        SELECT part FROM (
        SELECT 'column ' || table_name || '.' || column_name || ' ' || format_type(a.atttypid, a.atttypmod) AS part
        FROM information_schema.columns
            JOIN information_schema.tables t USING (table_schema, table_name)
            JOIN pg_attribute a ON a.attrelid = table_name::regclass AND a.attname = column_name
        WHERE table_schema = 'public' AND t.table_type = 'BASE TABLE' AND table_name <> 'refinery_schema_history'
        UNION SELECT 'unique index ' || indexname FROM pg_indexes
        WHERE schemaname = 'public' AND indexdef LIKE 'CREATE UNIQUE %' AND tablename <> 'refinery_schema_history'
        UNION SELECT 'trigger ' || trigger_name FROM information_schema.triggers WHERE trigger_schema = 'public'
        UNION SELECT 'function ' || proname || '(' || pg_get_function_identity_arguments(oid) || ')'
        FROM pg_proc WHERE pronamespace = 'public'::regnamespace
        ) parts ORDER BY part COLLATE \"C\"";
    let parts: Vec<String> = client.query(parts, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    let (path, present) = ("src/store/postgres/schema.txt", parts.join("\n") + "\n");
    #[allow(clippy::disallowed_methods, reason = "it is no setting of the program")]
    let update = std::env::var_os(UPDATE).is_some();
    if update {
        std::fs::write(path, &present).unwrap();
    }
    let expected = std::fs::read_to_string(path).unwrap();
    assert!(expected == present, "{path} is not the schema: run this test with {UPDATE}=1\n{present}");
}

#[tokio::test]
async fn a_database_without_utf8_is_refused_at_the_start() {
    let redis = RedisServer::start().await;
    let admin = Postgres::shared().await.connect("postgres").await;
    for (name, encoding) in [("latin", "LATIN1"), ("ascii", "SQL_ASCII")] {
        let make =
            format!("CREATE DATABASE {name} ENCODING '{encoding}' LOCALE_PROVIDER libc LOCALE 'C' TEMPLATE template0");
        admin.batch_execute(&make).await.unwrap();
        let database = Postgres::shared().await.url(name);
        let printed = check(Some(&redis.url()), &database).await;
        assert!(printed.contains("store-wrong-encoding") && printed.contains(encoding), "{printed}");
        let log = refused_at_start(Node::serve(&redis.url(), &database)).await;
        assert!(log.contains(encoding) && log.contains("UTF8"), "{log}");
    }
}

#[tokio::test]
async fn a_missing_part_or_right_is_named_before_a_client_meets_it() {
    let redis = RedisServer::start().await;
    let (admin, limited, name) = limited_role(&redis).await;
    let name = name.as_str();
    let healthy = check(Some(&redis.url()), &limited).await;
    assert!(healthy.contains("ok    PostgreSQL"), "{healthy}");
    for (harm, fault, named, mend) in [
        (
            "ALTER FUNCTION create_conversation RENAME TO gone",
            "store-lacks-part",
            "create_conversation",
            "ALTER FUNCTION gone RENAME TO create_conversation",
        ),
        (
            "ALTER TABLE log RENAME COLUMN data TO gone",
            "store-lacks-part",
            "log.data",
            "ALTER TABLE log RENAME COLUMN gone TO data",
        ),
        (
            "ALTER TABLE log DISABLE TRIGGER message_deleted",
            "store-lacks-part",
            "trigger message_deleted",
            "ALTER TABLE log ENABLE TRIGGER message_deleted",
        ),
        (
            "ALTER TABLE blocks ALTER COLUMN blocked TYPE varchar(200)",
            "store-lacks-part",
            "column blocks.blocked text",
            "ALTER TABLE blocks ALTER COLUMN blocked TYPE text",
        ),
        (
            "ALTER TABLE log DROP CONSTRAINT log_log_sender_dedupe_key",
            "store-lacks-part",
            "unique index log_log_sender_dedupe_key",
            "ALTER TABLE log ADD CONSTRAINT log_log_sender_dedupe_key UNIQUE (log, sender, dedupe)",
        ),
        ("REVOKE INSERT ON log FROM {}", "store-denies-access", "table log", "GRANT INSERT ON log TO {}"),
        (
            "REVOKE EXECUTE ON FUNCTION restrict_user FROM PUBLIC",
            "store-denies-access",
            "restrict_user",
            "GRANT EXECUTE ON FUNCTION restrict_user TO PUBLIC",
        ),
        (
            "REVOKE USAGE ON SCHEMA public FROM PUBLIC",
            "store-denies-access",
            "may use no schema of its search_path",
            "GRANT USAGE ON SCHEMA public TO PUBLIC",
        ),
        (
            "DELETE FROM node_keys",
            "store-lacks-part",
            "the table node_keys is empty",
            "INSERT INTO node_keys DEFAULT VALUES",
        ),
    ] {
        admin.batch_execute(&harm.replace("{}", name)).await.unwrap();
        let printed = check(Some(&redis.url()), &limited).await;
        assert!(printed.contains(&format!("FAIL  PostgreSQL: {fault}: ")), "{harm}: {printed}");
        assert!(printed.contains(named), "{harm}: {printed}");
        let log = refused_at_start(limited_node(&redis, &limited)).await;
        assert!(log.contains(named), "{harm}: {log}");
        admin.batch_execute(&mend.replace("{}", name)).await.unwrap();
    }
    limited_node(&redis, &limited).start().await.terminate().await;
}

#[tokio::test]
async fn a_right_that_a_running_node_loses_shows_in_its_health() {
    let redis = RedisServer::start().await;
    let (admin, limited, name) = limited_role(&redis).await;
    let name = name.as_str();
    let node = limited_node(&redis, &limited).start().await;
    let alice = token("alice");
    let room = node.conversation(&alice, &[]).await;
    let path = format!("/api/chat/conversations/{room}/messages");
    let send = async || node.post(&path, &alice, &serde_json::json!({"content": "hello"})).await.status.as_u16();
    assert_eq!(send().await, 201);
    admin.batch_execute(&format!("REVOKE INSERT ON log FROM {name}")).await.unwrap();
    assert_eq!(send().await, 503);
    let health = node.admin_get("/api/health").await.json;
    assert_eq!((&health["status"], &health["reasons"]), (&"degraded".into(), &serde_json::json!(["appends_fail"])));
    assert_eq!(faults(&node).await[0].0, "store-denies-access");
    node.logged("store-denies-access").await;
    told_once(&node, "store-denies-access", 0).await;
    admin.batch_execute(&format!("GRANT INSERT ON log TO {name}")).await.unwrap();
    let healthy = async || {
        assert_eq!(send().await, 201);
        (node.admin_get("/api/health").await.json["status"] == "healthy").then_some(())
    };
    eventually("the health to recover", healthy).await;
}

#[tokio::test]
async fn a_role_that_may_make_no_tables_suffices_when_nothing_is_to_migrate_but_not_one_with_few_connections() {
    let redis = RedisServer::start().await;
    let (admin, limited, name) = limited_role(&redis).await;
    Node::serve(&redis.url(), &limited).start().await.terminate().await;
    let printed = check(Some(&redis.url()), &limited).await;
    assert!(printed.contains("ok    PostgreSQL"), "{printed}");
    admin.batch_execute(&format!("ALTER ROLE {name} CONNECTION LIMIT 5")).await.unwrap();
    let printed = check(Some(&redis.url()), &limited).await;
    assert!(printed.contains("FAIL  PostgreSQL: store-unreachable: 53300"), "{printed}");
    assert!(printed.contains("a node needs up to"), "{printed}");
}

#[tokio::test]
async fn the_check_of_an_empty_database_fails_where_nodes_could_not_fill_it() {
    let redis = RedisServer::start().await;
    let database = Postgres::shared().await.database().await;
    let name = database.rsplit('/').next().unwrap();
    let admin = Postgres::shared().await.connect(name).await;
    let weak = format!("weak_{name}");
    admin
        .batch_execute(&format!("CREATE ROLE {weak} LOGIN; REVOKE CREATE ON SCHEMA public FROM PUBLIC"))
        .await
        .unwrap();
    let check = async |url: &str, migrate: bool| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_switchboard"));
        command.arg("check").env_clear().env("JWT_SECRET", SECRET).env("DATABASE_URL", url);
        command.env("REDIS_URL", redis.url());
        let done = within("the check", command.env("MIGRATE", migrate.to_string()).output()).await.unwrap();
        (done.status.code(), String::from_utf8(done.stdout).unwrap())
    };
    let (code, printed) = check(&database, true).await;
    assert!(code == Some(0) && printed.contains("note  PostgreSQL: store-not-migrated"), "{printed}");
    let (code, printed) = check(&database, false).await;
    assert!(code == Some(1) && printed.contains("FAIL  PostgreSQL: store-lacks-part"), "{printed}");
    let (code, printed) = check(&database.replacen("postgres@", &format!("{weak}@"), 1), true).await;
    assert!(code == Some(1) && printed.contains("may not make tables in the schema public"), "{printed}");
}

#[tokio::test]
async fn acked_messages_are_on_disk_although_the_role_does_not_wait_for_it() {
    let redis = RedisServer::start().await;
    let (admin, limited, name) = limited_role(&redis).await;
    let record = "CREATE TABLE seen (setting text);
                  CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
                      BEGIN INSERT INTO seen VALUES (current_setting('synchronous_commit')); RETURN NULL; END $$;
                  CREATE TRIGGER see AFTER INSERT ON log FOR EACH ROW EXECUTE FUNCTION see()";
    admin.batch_execute(record).await.unwrap();
    let alice = token("alice");
    for (set, kept) in [("off", "on"), ("remote_write", "remote_write"), ("on", "on")] {
        admin
            .batch_execute(&format!("DELETE FROM seen; ALTER ROLE {name} SET synchronous_commit = {set}"))
            .await
            .unwrap();
        let node = limited_node(&redis, &limited).start().await;
        let room = node.conversation(&alice, &[]).await;
        let path = format!("/api/chat/conversations/{room}/messages");
        assert_eq!(node.post(&path, &alice, &serde_json::json!({"content": "hello"})).await.status, 201);
        let seen = admin.query("SELECT DISTINCT setting FROM seen", &[]).await.unwrap();
        assert_eq!(seen.iter().map(|row| row.get::<_, String>(0)).collect::<Vec<_>>(), [kept], "{set}");
    }
    admin.batch_execute("DROP TRIGGER see ON log; ALTER TABLE reactions SET UNLOGGED").await.unwrap();
    let printed = check(Some(&redis.url()), &limited).await;
    assert!(
        printed.contains("note  PostgreSQL: store-altered") && printed.contains("UNLOGGED for reactions"),
        "{printed}"
    );
}

#[tokio::test]
async fn a_database_that_lets_nobody_in_is_unreachable() {
    let redis = RedisServer::start().await;
    let (admin, limited, name) = limited_role(&redis).await;
    drop(admin);
    let other = Postgres::shared().await.connect("postgres").await;
    other.batch_execute(&format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false")).await.unwrap();
    let printed = check(Some(&redis.url()), &limited).await;
    assert!(printed.contains("FAIL  PostgreSQL: store-unreachable: 55000"), "{printed}");
}
