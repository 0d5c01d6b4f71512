//! Nodes of one deployment that use two Redis servers, as after a typo in REDIS_URL: both servers work.

use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::process::Command;

use crate::support::{Client, Node, NodeBuilder, Postgres, RedisServer, SECRET, Signal, allowed, eventually, within};

/// Maximum time from an ack to the delivery on a node with the other Redis, once the fault is known.
const RELAYED_WITHIN: Duration = Duration::from_secs(1);
const FAULT: &str = r#"switchboard_fault{fault="redis-split"}"#;

fn node(redis: &RedisServer, database: &str, name: &str) -> NodeBuilder {
    // The clients of the tests answer no pings while they wait for something else.
    let node = Node::serve(&redis.url(), database).set("PING_INTERVAL", "600s");
    node.set("NODE_ID", name).set("NODE_LEASE", "3s")
}

async fn joined(node: &Node, user: &str) -> Client {
    let mut client = Client::native(node, user).await;
    client.join("team").await;
    client
}

/// The next message at each listener is this one.
async fn all_hear(speaker: &mut Client, listeners: &mut [&mut Client], content: &str) -> Duration {
    speaker.send_text("team", content).await;
    let said = Instant::now();
    for listener in listeners {
        assert_eq!(listener.until("message").await["content"], content, "in order, once");
    }
    said.elapsed()
}

async fn health(node: &Node) -> Value {
    node.admin_get("/api/health").await.json
}

async fn check(redis: &RedisServer, database: &str, prefix: &str) -> (String, i32) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_switchboard"));
    command.arg("check").env_clear().env("JWT_SECRET", SECRET).env("REDIS_PREFIX", prefix);
    command.env("REDIS_URL", redis.url()).env("DATABASE_URL", database);
    let done = within("the check", command.output()).await.unwrap();
    (String::from_utf8(done.stdout).unwrap(), done.status.code().unwrap())
}

#[tokio::test]
async fn nodes_with_another_redis_are_told_and_chat_stays_whole() {
    let (redis, other) = tokio::join!(RedisServer::start(), RedisServer::start());
    let database = Postgres::shared().await.database().await;
    let (one, two) = tokio::join!(node(&redis, &database, "one").start(), node(&redis, &database, "two").start());
    let (mut alice, mut bob) = (joined(&one, "alice").await, joined(&two, "bob").await);
    all_hear(&mut alice, &mut [&mut bob], "before").await;
    let (printed, code) = check(&other, &database, "").await;
    assert_eq!(code, 1, "{printed}");
    assert!(printed.contains("FAIL  Redis: redis-split: nodes one, two: alive"), "{printed}");
    assert!(printed.contains(&format!("({}), which no node uses", other.address())), "{printed}");

    let three = node(&other, &database, "three").start().await;
    let mut carol = joined(&three, "carol").await;
    // Before anybody knows of it: it is late, and not lost.
    all_hear(&mut alice, &mut [&mut bob, &mut carol], "early").await;
    for (node, missing) in [(&one, "node three: "), (&two, "node three: "), (&three, "nodes one, two: ")] {
        let warned = node.logged("\"fault\":\"redis-split\"").await;
        assert!(warned.contains(": alive by the signs in PostgreSQL"), "{warned}");
        // One of the missing nodes may be found before the other.
        let names_them = async || health(node).await["faults"].to_string().contains(missing).then_some(());
        eventually("health to name all of them", names_them).await;
        node.metric(FAULT, |stands| stands == 1.0).await;
        let health = health(node).await;
        assert_eq!(health["status"], "degraded", "{health}");
        assert!(health["reasons"].as_array().unwrap().contains(&"redis_split".into()), "{health}");
        for feature in ["fanout", "limits", "presence"] {
            assert_eq!(health["works"][feature], "partial", "{health}");
        }
        assert_eq!(health["components"]["redis"]["status"], "up", "{health}");
    }
    for at in 0..5 {
        let took = all_hear(&mut alice, &mut [&mut bob, &mut carol], &format!("from alice {at}")).await;
        assert!(took < allowed(RELAYED_WITHIN), "{took:?}");
        all_hear(&mut carol, &mut [&mut alice, &mut bob], &format!("from carol {at}")).await;
    }
    let (printed, code) = check(&redis, &database, "").await;
    assert!(code == 1 && printed.contains("redis-split: node three: alive"), "{printed}");
    assert!(printed.contains("others use another Redis: "), "{printed}");

    assert_eq!(three.terminate().await, 0);
    let three = node(&redis, &database, "three").start().await;
    for node in [&one, &two, &three] {
        node.metric(FAULT, |stands| stands == 0.0).await;
        node.metric("switchboard_relaying", |relaying| relaying == 0.0).await;
        let healthy = async || (health(node).await["status"] == "healthy").then_some(());
        eventually("the node to be healthy", healthy).await;
    }
    let mut carol = joined(&three, "carol").await;
    all_hear(&mut alice, &mut [&mut bob, &mut carol], "after").await;
    for client in [&mut alice, &mut bob, &mut carol] {
        let again = client.drain().await;
        assert!(again.iter().all(|frame| frame["type"] != "message"), "nothing twice: {again:?}");
    }
    let (printed, code) = check(&redis, &database, "").await;
    assert!(code == 0 && !printed.contains("redis-split"), "{printed}");
}

/// A node that starts, ends, is killed, or freezes for longer than its lease gives no alarm.
#[tokio::test]
async fn nodes_that_come_and_go_are_not_taken_for_users_of_another_redis() {
    let redis = RedisServer::start().await;
    let database = Postgres::shared().await.database().await;
    let (one, two) = tokio::join!(node(&redis, &database, "one").start(), node(&redis, &database, "two").start());
    let three = node(&redis, &database, "three").start().await;
    let mut alice = joined(&two, "alice").await;
    alice.send_text("team", "undone").await;
    two.kill().await;
    three.signal(Signal::Stop);
    tokio::time::sleep(Duration::from_secs(5)).await;
    three.signal(Signal::Continue);
    assert_eq!(three.terminate().await, 0);
    let two = node(&redis, &database, "two").start().await;
    // Longer than the sign of a node that was killed counts, and than it takes to confirm a fault.
    tokio::time::sleep(Duration::from_secs(13)).await;
    for node in [&one, &two] {
        assert!(node.log().iter().all(|line| !line.contains("redis-split")), "{:?}", node.log());
    }
}
