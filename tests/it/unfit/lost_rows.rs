//! A trigger or a rule of the database drops rows without an error: nothing is acked that is not stored.

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::json;

use super::*;
use crate::support::{RedisServer, eventually, token};

/// A function that drops each row for which it is called.
const DROPS: &str = "CREATE FUNCTION drops() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$";
/// More messages at once than are appended one by one.
const AT_ONCE: usize = 12;

/// A request of a client: its method, path below the conversation, and body.
type Request = (Method, String, Value);

#[tokio::test]
async fn what_a_trigger_or_a_rule_drops_is_refused_and_never_acked() {
    let redis = RedisServer::start().await;
    let (admin, limited, name) = databases::limited_role(&redis).await;
    let node = databases::limited_node(&redis, &limited).set("MESSAGE_RATE_LIMIT", 10_000).start().await;
    admin.batch_execute(&format!("{DROPS}; GRANT EXECUTE ON FUNCTION drops TO {name}")).await.unwrap();
    let alice = token("alice");
    let room = node.conversation(&alice, &["bob"]).await;
    let ask = async |(method, path, body): &Request| {
        let path = format!("/api/chat/conversations/{room}{path}");
        node.request(method.clone(), &path, Some(&alice), Some(body)).await
    };
    let message = |text: &str| (Method::POST, "/messages".to_owned(), json!({"content": text}));
    let mut stored = vec!["first".to_owned()];
    let id = ask(&message("first")).await.json["id"].as_str().unwrap().to_owned();
    let edit = (Method::PATCH, format!("/messages/{id}"), json!({"content": "edited"}));
    let react = (Method::PUT, format!("/messages/{id}/reactions/+1"), Value::Null);
    let add = (Method::POST, "/members".to_owned(), json!({"user_ids": ["carol"]}));
    let trigger = |when: &str, table: &str| {
        (
            format!("CREATE TRIGGER drops BEFORE {when} ON {table} FOR EACH ROW EXECUTE FUNCTION drops()"),
            format!("DROP TRIGGER drops ON {table}"),
            format!("the trigger drops of {table}"),
        )
    };
    let rule = (
        "CREATE RULE drops AS ON INSERT TO log DO INSTEAD NOTHING".to_owned(),
        "DROP RULE drops ON log".to_owned(),
        "the rule drops of log".to_owned(),
    );
    let cases = [
        (trigger("INSERT", "log"), vec![message("lost"), edit.clone(), react.clone(), add.clone()]),
        (rule, vec![message("lost"), edit.clone()]),
        (trigger("UPDATE", "heads"), vec![message("lost"), edit.clone()]),
        (trigger("UPDATE", "log"), vec![edit.clone()]),
        (trigger("INSERT", "reactions"), vec![react.clone()]),
        (trigger("INSERT", "members"), vec![add.clone()]),
    ];
    for ((harm, mend, named), refused) in cases {
        admin.batch_execute(&harm).await.unwrap();
        for request in &refused {
            assert_eq!(ask(request).await.status, 503, "{harm}: {request:?}");
        }
        if refused[0].1 == "/messages" {
            let texts: Vec<_> = (0..AT_ONCE).map(|n| message(&format!("at once {n}"))).collect();
            for answer in join_all(texts.iter().map(&ask)).await {
                assert_eq!(answer.status, 503, "{harm}");
            }
        }
        assert_eq!(node.admin_get("/api/health").await.json["status"], "degraded", "{harm}");
        let printed = check(Some(&redis.url()), &limited).await;
        assert!(printed.contains("store-altered") && printed.contains(&named), "{harm}: {printed}");
        admin.batch_execute(&mend).await.unwrap();
        let text = format!("after: {harm}");
        let answer = ask(&message(&text)).await;
        assert_eq!(answer.status, 201, "{harm}: {answer:?}");
        stored.push(text);
    }
    for request in [&edit, &react, &add] {
        assert!(ask(request).await.status.is_success(), "{request:?}");
    }
    stored[0] = "edited".to_owned();
    let history = ask(&(Method::GET, "/messages?limit=100".to_owned(), Value::Null)).await.json;
    let mut texts: Vec<_> = history["messages"].as_array().unwrap().iter().map(|one| one["content"].clone()).collect();
    texts.reverse();
    assert_eq!(texts, stored);
    let healthy = async || (node.admin_get("/api/health").await.json["status"] == "healthy").then_some(());
    eventually("the health to recover", healthy).await;
    assert!(!check(Some(&redis.url()), &limited).await.contains("store-altered"));
}

#[tokio::test]
async fn the_check_names_row_level_security_that_hides_rows_from_the_role() {
    let redis = RedisServer::start().await;
    let (admin, limited, _) = databases::limited_role(&redis).await;
    admin.batch_execute("ALTER TABLE members ENABLE ROW LEVEL SECURITY").await.unwrap();
    let printed = check(Some(&redis.url()), &limited).await;
    assert!(
        printed.contains("note  PostgreSQL: store-altered") && printed.contains("row level security of members"),
        "{printed}"
    );
    // The owner of the tables is not subject to it.
    let owner = limited.replacen(&format!("{}@", limited.rsplit('/').next().unwrap()), "postgres@", 1);
    assert!(!check(Some(&redis.url()), &owner).await.contains("store-altered"));
}
