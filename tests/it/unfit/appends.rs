//! A database that answers and refuses to store messages, while other writes succeed.

use serde_json::json;

use super::*;
use crate::support::{Client, Postgres, RedisServer, eventually};

/// Does what a client awaits as an answer, and returns the answer.
async fn answer(client: &mut Client, command: Value) -> Value {
    client.send(&command).await;
    client.until_where(|frame| frame["client_id"] == command["client_id"] && frame["type"] != "message").await
}

fn message(id: &str) -> Value {
    json!({"type": "send", "conversation_id": "team", "content": "hello", "client_id": id})
}

/// Changes every function of this name: earlier versions of the program have others.
fn of_each_append_messages(change: &str) -> String {
    format!(
        "DO $$ DECLARE f regprocedure; BEGIN FOR f IN SELECT oid FROM pg_proc WHERE proname = 'append_messages' LOOP
         EXECUTE 'ALTER FUNCTION ' || f || ' {change}'; END LOOP; END $$"
    )
}

#[tokio::test]
async fn a_store_that_refuses_messages_alone_shows_in_health_until_it_stores_one() {
    let redis = RedisServer::start().await;
    let database = Postgres::shared().await.database().await;
    // The client waits for health for longer than it may leave pings without an answer.
    let node = Node::serve(&redis.url(), &database).set("PING_INTERVAL", "10m").start().await;
    let admin = Postgres::shared().await.connect(database.rsplit('/').next().unwrap()).await;
    let mut alice = Client::native(&node, "alice").await;
    alice.join("team").await;
    let seq = answer(&mut alice, message("first")).await["seq"].clone();
    for (case, (harm, fault, words, mend)) in [
        ("ALTER TABLE log RENAME COLUMN data TO gone", "store-lacks-part", "data", "ALTER TABLE log RENAME gone TO data"),
        (
            &of_each_append_messages("SET search_path = nowhere"),
            "store-lacks-part",
            "heads",
            &of_each_append_messages("RESET search_path"),
        ),
        (
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no more rows'; END $$;
             CREATE TRIGGER refuse BEFORE INSERT ON log FOR EACH ROW WHEN (NEW.kind = 0) EXECUTE FUNCTION refuse()",
            "store-appends-fail",
            "P0001: no more rows",
            "DROP TRIGGER refuse ON log",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let before = warnings(&node, fault).len();
        admin.batch_execute(harm).await.unwrap();
        for round in 0..4 {
            let id = format!("{case}-{round}");
            let refused = answer(&mut alice, message(&id)).await;
            assert_eq!((&refused["type"], &refused["code"]), (&json!("error"), &json!("unavailable")), "{harm}: {refused}");
            let emoji = ["a", "b", "c", "d"][round];
            let reacted = json!({"type": "react", "conversation_id": "team", "seq": seq, "emoji": format!("{emoji}{case}"),
                "active": true, "client_id": format!("r{id}")});
            assert_eq!(answer(&mut alice, reacted).await["type"], "ack", "{harm}");
            let health = node.admin_get("/api/health").await.json;
            assert_eq!((&health["status"], &health["reasons"]), (&json!("degraded"), &json!(["appends_fail"])), "{harm}");
            assert_eq!((&health["works"]["append"], &health["works"]["history"]), (&json!("refused"), &json!("shared")));
            let (name, reason) = faults(&node).await.remove(0);
            assert!(name == fault && reason.contains(words), "{harm}: {name}: {reason}");
        }
        let printed = check(Some(&redis.url()), &database).await;
        assert!(printed.contains(&format!("FAIL  PostgreSQL: {fault}: ")), "{harm}: {printed}");
        told_once(&node, fault, before).await;
        admin.batch_execute(mend).await.unwrap();
        // A repeat of what is stored proves nothing.
        assert_eq!(answer(&mut alice, message("first")).await["type"], "ack", "{harm}");
        assert_eq!(node.admin_get("/api/health").await.json["status"], "degraded", "{harm}");
        assert_eq!(answer(&mut alice, message(&format!("{case}-after"))).await["type"], "ack", "{harm}");
        let healthy = async || (node.admin_get("/api/health").await.json["status"] == "healthy").then_some(());
        eventually("the health to recover", healthy).await;
        node.metric(&format!(r#"switchboard_fault{{fault="{fault}"}}"#), |value| value == 0.0).await;
        assert_eq!(faults(&node).await, [], "{harm}");
    }
    let printed = check(Some(&redis.url()), &database).await;
    assert!(printed.contains("ok    PostgreSQL"), "{printed}");
}
