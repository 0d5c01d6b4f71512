//! The console while Redis or PostgreSQL is away: it answers in bounded time, and says what it can't know.

use std::time::{Duration, Instant};

use super::*;

/// Longest time that an answer may take on a machine that is not busy.
const PROMPT: Duration = Duration::from_secs(12);

/// Nodes behind links to their servers that can break.
async fn nodes(redis: &Proxy, redis_url: &str, database: &Proxy, database_url: &str) -> [Node; 2] {
    let node = |id| {
        let node = Node::serve(&redis.url(redis_url), &database.url(database_url)).set("NODE_ID", id);
        node.with_console().start()
    };
    let (one, two) = tokio::join!(node("one"), node("two"));
    [one, two]
}

async fn answers_in_time(node: &Node, method: Method, path: &str) -> Answer {
    let began = Instant::now();
    let answer = node.console(method.clone(), path, None).await;
    assert!(began.elapsed() < crate::support::allowed(PROMPT), "{method} {path} took {:?}", began.elapsed());
    assert_documented(&method, path, &answer);
    answer
}

#[tokio::test]
async fn it_answers_while_redis_or_postgres_is_away() {
    let redis = RedisServer::start().await;
    let database = Postgres::shared().await.database().await;
    let to_redis = Proxy::to(format!("127.0.0.1:{}", redis.port())).await;
    let to_store = Proxy::to(database.split('@').next_back().unwrap().split('/').next().unwrap()).await;
    let [one, two] = nodes(&to_redis, &redis.url(), &to_store, &database).await;
    let _here = Client::native(&one, "bob").await;
    let _there = Client::native(&two, "bob").await;
    let room = one.conversation(&token("bob"), &[]).await;
    eventually("both sockets", async || {
        (get(&one, "/users/bob").await["connections"].as_array().unwrap().len() == 2).then_some(())
    })
    .await;

    for state in [Link::Frozen, Link::Cut] {
        to_redis.set(state);
        eventually("Redis counts as down", async || {
            let seen = answers_in_time(&one, GET, "/overview").await.json;
            (seen["nodes_complete"] == false).then_some(())
        })
        .await;
        let seen = answers_in_time(&one, GET, "/overview").await.json;
        assert_eq!(seen["unknown"][0]["what"], "nodes", "{seen}");
        let fault = seen["degraded"].as_array().unwrap().iter().find(|one| one["kind"] == "fault").unwrap();
        assert!(fault["name"].as_str().unwrap().starts_with("redis-") && fault["since"].is_string(), "{fault}");
        let section = fault["section"].as_str().unwrap().rsplit('#').next().unwrap().to_owned();
        assert!(get(&one, &format!("/faults/{section}")).await["text"].is_string());
        let seen = answers_in_time(&one, GET, "/users/bob").await.json;
        assert_eq!((seen["connections"].as_array().unwrap().len(), &seen["connections_complete"]), (1, &json!(false)));
        assert_eq!(answers_in_time(&one, GET, &format!("/conversations/{room}/entries")).await.status, 200);
    }
    to_redis.set(Link::Open);
    eventually("Redis is back", async || (get(&one, "/overview").await["nodes_complete"] == true).then_some(())).await;

    to_store.set(Link::Cut);
    eventually("the store counts as down", async || {
        let seen = answers_in_time(&one, GET, "/overview").await.json;
        (seen["components"]["store"]["status"] == "down").then_some(())
    })
    .await;
    let seen = answers_in_time(&one, GET, "/users/bob").await.json;
    assert_eq!(seen["connections"].as_array().unwrap().len(), 2, "{seen}");
    assert_eq!((&seen["blocked"], seen["unknown"].to_string().contains("block")), (&Value::Null, true), "{seen}");
    for (method, path) in [
        (GET, format!("/conversations/{room}")),
        (GET, format!("/conversations/{room}/entries")),
        (GET, format!("/conversations/{room}/search?q=x")),
        (GET, "/users/bob/conversations".to_owned()),
        (POST, "/users/bob/disconnect".to_owned()),
        (DELETE, format!("/conversations/{room}/messages/1")),
    ] {
        let answer = answers_in_time(&one, method.clone(), &path).await;
        assert_eq!((answer.status.as_u16(), &answer.json["code"]), (503, &json!("unavailable")), "{method} {path}");
    }
    for path in ["/tail", "/deliveries", "/settings", "/users"] {
        assert_eq!(answers_in_time(&one, GET, path).await.status, 200, "{path}");
    }
}
