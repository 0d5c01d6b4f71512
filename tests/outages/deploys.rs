//! Deploys: a node that gets SIGTERM closes its connections evenly, answers and delivers what it accepted, and leaves
//! nothing in Redis.

mod rolling;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::{
    Client, Node, NodeBuilder, Postgres, RawClient, RedisServer, Signal, allowed, eventually, opcode, token,
};

/// Maximum time that a node waits for a client to answer a close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

struct Stage {
    redis: RedisServer,
    database: String,
}

impl Stage {
    async fn set() -> Self {
        let redis = RedisServer::start().await;
        Self { redis, database: Postgres::shared().await.database().await }
    }

    fn node(&self) -> NodeBuilder {
        Node::serve(&self.redis.url(), &self.database)
    }

    /// Keys that match a pattern.
    async fn keys(&self, pattern: &str) -> Vec<String> {
        let mut keys: Vec<String> = self.redis.command(&["KEYS", pattern]).await;
        keys.sort();
        keys
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn closes_are_spread_evenly_and_each_advises_when_to_reconnect() {
    const SOCKETS: usize = 300;
    const WINDOW: Duration = Duration::from_secs(3);
    let stage = Stage::set().await;
    let node = stage.node().set("DRAIN_WINDOW", "3s").start().await;
    let mut leaving = JoinSet::new();
    let mut clients = Vec::new();
    for at in 0..SOCKETS {
        let user = format!("user-{at}");
        clients.push(match at % 2 {
            0 => (true, Client::native(&node, &user).await),
            _ => (false, Client::rooms(&node, &format!("room-{at}"), &user).await),
        });
    }
    let begun = Instant::now();
    for (native, mut client) in clients {
        leaving.spawn(async move {
            let mut advice = None;
            loop {
                match client.recv_or_close().await {
                    Ok(frame) if frame["type"] == "restart" => advice = frame["retry_after_ms"].as_u64(),
                    Ok(_) => {}
                    Err((code, reason)) => {
                        let at = begun.elapsed();
                        let in_words = reason.split_whitespace().find_map(|word| word.parse().ok());
                        return (at, code, if native { advice } else { in_words });
                    }
                }
            }
        });
    }
    node.signal(Signal::Terminate);
    let left = leaving.join_all().await;
    assert_eq!(node.exit_code().await, 0);
    for (_, code, advice) in &left {
        assert!(*code == 1012 && advice.is_some_and(|wait| (1_000..=2_000).contains(&wait)), "{code} {advice:?}");
    }
    let mut times: Vec<_> = left.iter().map(|(at, ..)| *at).collect();
    times.sort();
    let within_a_second = |from: &Duration| {
        let second = *from..*from + Duration::from_secs(1);
        times.iter().filter(|at| second.contains(*at)).count()
    };
    let (peak, even) = (times.iter().map(within_a_second).max().unwrap(), SOCKETS as f64 / WINDOW.as_secs_f64());
    println!(
        "{SOCKETS} closes over {:?}: at most {peak} in a second; {even} would be even",
        times[SOCKETS - 1] - times[0]
    );
    assert!(peak as f64 <= 1.3 * even, "{peak} in a second; {even} would be even");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_acked_message_arrives_before_the_close() {
    let stage = Stage::set().await;
    let node = stage.node().set("OUTBOX_BYTES", "2MiB").start().await;
    let mut reader = RawClient::open(node.address(), &format!("/v1/ws?token={}", token("bob"))).await;
    reader.read_frame().await.unwrap();
    let mut alice = Client::native(&node, "alice").await;
    alice.join("team").await;
    reader.frame(opcode::TEXT, br#"{"type":"join","conversation_id":"team","ref":1}"#).await;
    assert!(reader.read_frame().await.is_some());
    // More than the kernel buffers, so that most of it waits in the outbox when the node gets SIGTERM.
    let mut acked = Vec::new();
    for _ in 0..100 {
        acked.push(alice.send_text("team", &"x".repeat(5_000)).await["seq"].as_i64().unwrap());
    }
    assert!(node.metrics().await.get("switchboard_outbox_bytes").unwrap() > 100_000.0);
    // Then a burst of sends that are under way.
    for at in 0..50 {
        let send = json!({"type": "send", "conversation_id": "team", "content": format!("burst {at}"),
            "client_id": format!("burst-{at}"), "ref": at});
        alice.send(&send).await;
    }
    node.signal(Signal::Terminate);
    let mut answered = 0;
    loop {
        match alice.recv_or_close().await {
            Ok(frame) if frame["type"] == "ack" => answered += 1,
            Ok(_) => {}
            Err((code, _)) => break assert_eq!(code, 1012),
        }
    }
    let mut got = Vec::new();
    let mut advised = false;
    while let Some(frame) = reader.read_frame().await {
        if let Some((code, _)) = frame.close() {
            assert_eq!(code, 1012);
            break;
        }
        let value: Value = serde_json::from_slice(&frame.payload).unwrap_or_default();
        assert!(!advised, "no frame between the advice and the close: {value}");
        advised = value["type"] == "restart";
        got.extend(value["seq"].as_i64().filter(|_| value["type"] == "message"));
    }
    assert!(advised);
    assert!(got.starts_with(&acked), "{} of {} came", got.len(), acked.len());
    assert_eq!(node.exit_code().await, 0);
    let other = stage.node().start().await;
    let page = other.get("/api/chat/conversations/team/messages?limit=1", &token("alice")).await;
    println!("{answered} of a burst of 50 were accepted, and all of them answered");
    assert_eq!(page.json["total"], 100 + answered, "every stored message was acked");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_left_is_gone_from_redis_and_the_other_stays() {
    let stage = Stage::set().await;
    let leaving = stage.node().set("PRESENCE_GRACE", "1s").start().await;
    let staying = stage.node().set("PRESENCE_GRACE", "1s").start().await;
    let mut dave = Client::native(&staying, "dave").await;
    dave.join("team").await;
    let mut clients = vec![Client::rooms(&leaving, "team", "alice").await];
    for user in ["bob", "carol"] {
        let mut client = Client::native(&leaving, user).await;
        client.join("team").await;
        clients.push(client);
    }
    assert_eq!(leaving.terminate().await, 0);
    for client in &mut clients {
        assert_eq!(client.expect_close().await.0, 1012);
    }
    // No lease and no connection of this node is left.
    let leases: Vec<String> = stage.redis.command(&["ZRANGE", "ws:nodes", "0", "-1"]).await;
    assert_eq!(leases.iter().filter(|lease| !lease.starts_with('/')).count(), 1, "{leases:?}");
    assert_eq!(stage.keys("ws:node_users:*").await.len(), 1);
    for user in ["alice", "bob", "carol"] {
        let held: bool = stage.redis.command(&["HEXISTS", &format!("ws:conns:{user}"), "c"]).await;
        assert!(!held, "{user} has no connection");
    }
    // The grace outlives the node: the remaining node reports each departure once.
    let mut gone = Vec::new();
    while gone.len() < 3 {
        let frame = dave.until("presence").await;
        if frame["online"] == false {
            gone.push(frame["user_id"].as_str().unwrap().to_owned());
        }
    }
    gone.sort();
    assert_eq!(gone, ["alice", "bob", "carol"]);
    let clean = || async {
        let left = [stage.keys("ws:conns:*").await, stage.keys("ws:user:*").await].concat();
        let online: Vec<String> = stage.redis.command(&["SMEMBERS", "ws:online_users"]).await;
        let listening: Vec<String> = stage.redis.command(&["SMEMBERS", "ws:room_users:team"]).await;
        (left == ["ws:conns:dave", "ws:user:dave"] && online == ["dave"] && listening == ["dave"]).then_some(())
    };
    eventually("no key of theirs to be left", clean).await;
    assert_eq!(stage.redis.command::<i64>(&["ZCARD", "ws:leaving"]).await, 0);
    drop(staying);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_the_node_at_once() {
    let stage = Stage::set().await;
    for second in ["TERM", "INT"] {
        let node = stage.node().set("SHUTDOWN_DELAY", "60s").set("DRAIN_WINDOW", "60s").start().await;
        let _alice = Client::native(&node, "alice").await;
        node.signal(Signal::Terminate);
        node.logged("draining").await;
        let asked = Instant::now();
        let kill = std::process::Command::new("sh").args(["-c", &format!("kill -s {second} {}", node.pid())]).status();
        assert!(kill.unwrap().success());
        assert_eq!(node.exit_code().await, 0);
        println!("after a second SIG{second} it ended in {:?}", asked.elapsed());
        assert!(asked.elapsed() < allowed(Duration::from_secs(5)), "{:?}", asked.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_client_holds_up_a_drain() {
    let stage = Stage::set().await;
    let node = stage.node().set("DRAIN_WINDOW", "1s").set("AUTH_TIMEOUT", "60s").start().await;
    let mut alice = Client::native(&node, "alice").await;
    alice.join_with_roster("team").await;
    // A client that doesn't read, with more waiting than the kernel buffers.
    let mut deaf = RawClient::open(node.address(), &format!("/v1/ws?token={}", token("bob"))).await;
    deaf.frame(opcode::TEXT, br#"{"type":"join","conversation_id":"team","ref":1}"#).await;
    alice.until("user_joined").await;
    for _ in 0..100 {
        alice.send_text("team", &"x".repeat(5_000)).await;
    }
    // A socket that never authenticates, one with half a handshake, and an idle HTTP connection.
    let mut nameless = RawClient::open(node.address(), "/v1/ws").await;
    let mut half = RawClient::tcp(node.address()).await;
    half.write(b"GET /v1/ws HTTP/1.1\r\nHost: x\r\nConnec").await;
    let mut idle = RawClient::tcp(node.address()).await;
    idle.write(b"GET /api/health HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(idle.read_head().await.contains(" 200 "));
    let asked = Instant::now();
    node.signal(Signal::Terminate);
    let (code, reason) = nameless.expect_close().await;
    assert!(code == 1012 && reason.contains("retry after"), "{code} {reason}");
    assert_eq!(alice.expect_close().await.0, 1012);
    assert_eq!(node.exit_code().await, 0);
    let took = asked.elapsed();
    println!("with a client that doesn't read and one that doesn't finish its handshake, the drain took {took:?}");
    // The window plus the time for closes; the rest is for a busy machine.
    assert!(took < allowed(Duration::from_secs(1) + CLOSE_TIMEOUT + Duration::from_secs(3)), "{took:?}");
    assert_eq!(stage.keys("ws:node_users:*").await, Vec::<String>::new());
    drop((deaf, half, idle));
}
