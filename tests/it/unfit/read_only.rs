//! A server that takes no writes: a standby, or a primary whose transactions are read-only.

use serde_json::json;

use super::*;
use crate::support::{Client, Postgres, RedisServer, eventually, token};

/// A node on servers of its own, and a member of `team` who has sent a message.
async fn stage() -> (RedisServer, Postgres, Node, Client) {
    let redis = RedisServer::start().await;
    let server = Postgres::start(&[("fsync", "off")]).await;
    let node = Node::serve(&redis.url(), &server.database().await).start().await;
    let mut alice = Client::native(&node, "alice").await;
    alice.join("team").await;
    alice.send_text("team", "before").await;
    (redis, server, node, alice)
}

#[tokio::test]
async fn a_server_that_became_read_only_is_named_and_its_sessions_are_dropped() {
    let (_redis, server, node, mut alice) = stage().await;
    let admin = server.connect("postgres").await;
    // As after a failover: the sessions that the pools open now are read-only for as long as they live.
    let away = "ALTER ROLE postgres SET default_transaction_read_only = on; \
                SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'switchboard'";
    admin.batch_execute(away).await.unwrap();
    let down = async || {
        let health = node.admin_get("/api/health").await.json;
        (health["components"]["store"]["status"] == "down").then_some(health)
    };
    let health = eventually("the store to be down", down).await;
    assert_eq!((&health["status"], &health["works"]["append"]), (&json!("degraded"), &json!("refused")));
    let named = async || faults(&node).await.into_iter().find(|(name, _)| name == "store-refuses-writes");
    let (_, reason) = eventually("the fault to be named", named).await;
    assert!(reason.contains("read-only"), "{reason}");
    let room = node.get("/api/chat/conversations", &token("alice")).await;
    assert_eq!(room.status, 503, "{}", room.text);
    node.metric(r#"switchboard_fault{fault="store-refuses-writes"}"#, |value| value == 1.0).await;
    admin.batch_execute("ALTER ROLE postgres RESET default_transaction_read_only").await.unwrap();
    let up = async || (node.admin_get("/api/health").await.json["status"] == "healthy").then_some(());
    eventually("the node to recover", up).await;
    alice.send_text("team", "after").await;
    told_once(&node, "store-refuses-writes", 0).await;
    assert_eq!(faults(&node).await, []);
}

#[tokio::test]
async fn sessions_of_a_former_primary_are_not_used_after_a_failover() {
    let (_redis, server, node, mut alice) = stage().await;
    let admin = server.connect("postgres").await;
    // The open sessions become read-only, and stay open.
    admin.batch_execute("ALTER SYSTEM SET default_transaction_read_only = on; ").await.unwrap();
    admin.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    // Each session takes the setting over when it next looks, so that the first messages may still be stored.
    let mut message = json!({"type": "send", "conversation_id": "team", "content": "during"});
    let mut sent = 0;
    let refused = loop {
        sent += 1;
        message["client_id"] = json!(format!("c{sent}"));
        alice.send(&message).await;
        let answer = alice.until_where(|frame| frame["type"] == "ack" || frame["type"] == "error").await;
        if answer["code"] == "unavailable" {
            break answer;
        }
    };
    assert_eq!(refused["retryable"], true, "{refused}");
    let down = async || {
        let health = node.admin_get("/api/health").await.json;
        (health["components"]["store"]["status"] == "down").then_some(())
    };
    eventually("the store to be down", down).await;
    admin.batch_execute("SET default_transaction_read_only = off").await.unwrap();
    admin.batch_execute("ALTER SYSTEM RESET default_transaction_read_only").await.unwrap();
    admin.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    let up = async || (node.admin_get("/api/health").await.json["status"] == "healthy").then_some(());
    eventually("the node to recover", up).await;
    alice.send(&message).await;
    alice.until_where(|frame| frame["type"] == "ack" && frame["client_id"] == message["client_id"]).await;
}

#[tokio::test]
async fn of_several_hosts_the_one_that_takes_writes_is_used_also_after_a_failover() {
    let redis = RedisServer::start().await;
    let mut first = Postgres::start(&[("fsync", "off")]).await;
    let database = first.database().await;
    let name = database.rsplit('/').next().unwrap();
    let second = first.standby(&first.address()).await;
    let url = |hosts: [&Postgres; 2]| {
        let ports = hosts.map(|host| host.port().to_string()).join(",");
        let [one, other] = hosts.map(Postgres::address);
        [
            format!("postgres://postgres@{one},{other}/{name}"),
            format!("postgres:///{name}?user=postgres&host=127.0.0.1,127.0.0.1&port={ports}"),
        ]
    };
    let node = Node::serve(&redis.url(), &url([&first, &second])[0]).start().await;
    let mut alice = Client::native(&node, "alice").await;
    alice.join("team").await;
    alice.send_text("team", "before").await;
    // The standby comes first.
    for url in url([&second, &first]) {
        let printed = check(Some(&redis.url()), &url).await;
        assert!(printed.contains("ok    PostgreSQL"), "{url}: {printed}");
    }
    let either = url([&second, &first])[0].clone() + "?target_session_attrs=any";
    let printed = check(Some(&redis.url()), &either).await;
    assert!(printed.contains("store-refuses-writes"), "{printed}");

    first.kill().await;
    // Each host has its own reason.
    let printed = check(Some(&redis.url()), &url([&second, &first])[0]).await;
    let [live, gone] = [&second, &first].map(Postgres::address);
    let read_only = printed.contains(&format!("{live}: ")) && printed.contains("does not allow writes");
    assert!(read_only && printed.contains(&format!("{gone}: ")) && printed.contains("refused"), "{printed}");
    second.promote().await;
    // The former primary comes back as a standby, and is still the first host of the node.
    std::fs::write(first.folder().join("data/standby.signal"), "").unwrap();
    first.restart().await;
    let admin = second.connect("postgres").await;
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'switchboard'";
    for ends in 1..=2 {
        let up = async || (node.admin_get("/api/health").await.json["status"] == "healthy").then_some(());
        eventually("the node to recover", up).await;
        let message = json!({"content": "after", "client_id": format!("c{ends}")});
        let path = "/api/chat/conversations/team/messages";
        let stored = async || (node.post(path, &token("alice"), &message).await.status == 201).then_some(());
        eventually("a message to be stored", stored).await;
        admin.batch_execute(end).await.unwrap();
    }
    // A frozen server accepts connections and says nothing. Those that follow it in the list are used all the same.
    first.pause();
    let printed = check(Some(&redis.url()), &url([&first, &second])[0]).await;
    assert!(printed.contains("ok    PostgreSQL"), "{printed}");
    let other = Node::serve(&redis.url(), &url([&first, &second])[0]).start().await;
    let up = async || (other.admin_get("/api/health").await.json["status"] == "healthy").then_some(());
    eventually("a node to start", up).await;
    admin.batch_execute(end).await.unwrap();
    for node in [&node, &other] {
        let path = "/api/chat/conversations/team/messages";
        let message = json!({"content": "beside a frozen server", "client_id": format!("frozen-{}", node.address())});
        let stored = async || (node.post(path, &token("alice"), &message).await.status == 201).then_some(());
        eventually("a message to be stored", stored).await;
    }
    first.resume();
    // Neither takes writes.
    admin.batch_execute("ALTER SYSTEM SET default_transaction_read_only = on").await.unwrap();
    admin.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    let printed = check(Some(&redis.url()), &url([&first, &second])[0]).await;
    assert!(printed.contains("store-refuses-writes"), "{printed}");
}
