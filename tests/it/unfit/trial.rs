//! `check` meets what senders and members meet: what was added to the tables, a search_path that misses them, and commits that
//! wait for ever.

use super::*;
use crate::support::{Postgres, RedisServer};

/// Makes a function that raises or drops a row.
fn function(body: &str) -> String {
    format!("CREATE FUNCTION harm() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body}; END $$;")
}

#[tokio::test]
async fn what_refuses_or_drops_rows_of_a_send_fails_the_check() {
    let redis = RedisServer::start().await;
    let database = Postgres::shared().await.database().await;
    Node::serve(&redis.url(), &database).start().await.terminate().await;
    let admin = Postgres::shared().await.connect(database.rsplit('/').next().unwrap()).await;
    let raises = function("RAISE EXCEPTION 'not today' USING ERRCODE = '40001'");
    let drops = function("RETURN NULL");
    let cases = [
        (
            &raises,
            "CREATE CONSTRAINT TRIGGER harm AFTER INSERT ON log DEFERRABLE INITIALLY DEFERRED",
            "log",
            "not today",
        ),
        (&raises, "CREATE TRIGGER harm BEFORE INSERT ON members", "members", "not today"),
        (&raises, "CREATE TRIGGER harm BEFORE UPDATE ON heads", "heads", "not today"),
        (&drops, "CREATE TRIGGER harm BEFORE UPDATE ON heads", "heads", ""),
        (&drops, "CREATE TRIGGER harm BEFORE UPDATE ON members", "members", "dropped a row"),
        (&drops, "CREATE TRIGGER harm BEFORE INSERT ON members", "members", "dropped a row"),
    ];
    for (function, trigger, table, words) in cases {
        let harm = format!("{function} {trigger} FOR EACH ROW EXECUTE FUNCTION harm()");
        admin.batch_execute(&harm).await.unwrap();
        let told = check(Some(&redis.url()), &database).await;
        assert!(told.contains("FAIL  PostgreSQL: store-appends-fail") && told.contains(words), "{trigger}: {told}");
        admin.batch_execute(&format!("DROP TRIGGER harm ON {table}; DROP FUNCTION harm")).await.unwrap();
    }
    let told = check(Some(&redis.url()), &database).await;
    assert!(!told.contains("FAIL") && !told.contains("PostgreSQL: store-"), "{told}");
    let left = "SELECT count(*) FROM log WHERE log LIKE 'switchboard check%' OR log LIKE '~switchboard check%'";
    assert_eq!(admin.query_one(left, &[]).await.unwrap().get::<_, i64>(0), 0, "it leaves nothing");
}

#[tokio::test]
async fn a_search_path_that_misses_the_tables_is_named_and_makes_no_others() {
    let redis = RedisServer::start().await;
    let (admin, limited, name) = databases::limited_role(&redis).await;
    let harm = format!(
        "CREATE SCHEMA elsewhere; GRANT ALL ON SCHEMA elsewhere TO {name}; ALTER ROLE {name} SET search_path = elsewhere;
         GRANT SELECT ON refinery_schema_history TO {name}"
    );
    admin.batch_execute(&harm).await.unwrap();
    let told = check(Some(&redis.url()), &limited).await;
    assert!(told.contains("FAIL  PostgreSQL: store-lacks-part") && told.contains("are in the schema public"), "{told}");
    let log = refused_at_start(Node::serve(&redis.url(), &limited)).await;
    assert!(log.contains("are in the schema public"), "{log}");
    let made = "SELECT count(*) FROM pg_class WHERE relnamespace = 'elsewhere'::regnamespace";
    assert_eq!(admin.query_one(made, &[]).await.unwrap().get::<_, i64>(0), 0);
    // A schema that DATABASE_URL names is used although another one has tables.
    let chosen = format!("{limited}?options=-csearch_path%3Delsewhere");
    Node::serve(&redis.url(), &chosen).set("REDIS_PREFIX", "other").start().await.terminate().await;
}

#[tokio::test]
async fn commits_that_wait_for_a_standby_are_named() {
    let redis = RedisServer::start().await;
    let server = Postgres::start(&[]).await;
    let database = server.database().await;
    Node::serve(&redis.url(), &database).start().await.terminate().await;
    let admin = server.connect("postgres").await;
    admin.batch_execute("ALTER SYSTEM SET synchronous_standby_names = 'nothere'").await.unwrap();
    admin.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    let named = async || {
        let told = check(Some(&redis.url()), &database).await;
        (told.contains("FAIL  PostgreSQL: store-silent") && told.contains("synchronous_standby_names is nothere"))
            .then_some(())
    };
    eventually("the fault", named).await;
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    let ended = async || (admin.query_one(waiting, &[]).await.unwrap().get::<_, i64>(0) == 0).then_some(());
    eventually("no session to wait", ended).await;
}
