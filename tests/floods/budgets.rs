//! One user floods with commands of every kind. Budgets refuse most of them before any work, and others notice nothing.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use serde_json::json;

use crate::support::{Client, Node, Postgres, RedisServer, token};

/// Number of frames of each kind in the flood.
const FRAMES: usize = 900;

/// Median and longest time from a send to its ack, while `during` runs.
async fn ack_times(client: &mut Client, during: impl Future<Output = ()>) -> (Duration, Duration) {
    let (mut times, over) = (Vec::new(), AtomicBool::new(false));
    let acks = async {
        while times.is_empty() || !over.load(Ordering::Acquire) {
            let begun = Instant::now();
            client.send_text("work", "hello").await;
            times.push(begun.elapsed());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let during = async {
        during.await;
        over.store(true, Ordering::Release);
    };
    tokio::join!(during, acks);
    times.sort();
    (times[times.len() / 2], times[times.len() - 1])
}

async fn commands_in_redis(redis: &RedisServer) -> u64 {
    let info: String = redis.command(&["INFO", "stats"]).await;
    let line = info.lines().find_map(|line| line.strip_prefix("total_commands_processed:")).unwrap();
    line.trim().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_user_who_floods_does_not_hurt_another() {
    let redis = RedisServer::start().await;
    let database = Postgres::shared().await.database().await;
    let node = Node::serve(&redis.url(), &database).unset("WRITE_RATE_LIMIT").unset("READ_RATE_LIMIT").start().await;
    let mut bob = Client::native(&node, "bob").await;
    bob.join("work").await;
    let mut mallory = Client::native(&node, "mallory").await;
    mallory.join("team").await;
    mallory.send_text("team", "text").await;
    let quiet = ack_times(&mut bob, tokio::time::sleep(Duration::from_secs(1))).await;

    let (before, begun) = (commands_in_redis(&redis).await, Instant::now());
    let users: Vec<String> = (0..1_000).map(|n| format!("user-{n}")).collect();
    let flood = async {
        for at in 0..FRAMES {
            for frame in [
                json!({"type": "edit", "conversation_id": "team", "seq": 1, "content": at.to_string()}),
                json!({"type": "react", "conversation_id": "team", "seq": 1, "emoji": "x", "active": at % 2 == 0}),
                json!({"type": "typing", "conversation_id": "team", "active": at % 2 == 0}),
                json!({"type": "presence", "user_ids": users}),
            ] {
                mallory.send(&frame).await;
            }
            // Stay below MAX_FRAMES_PER_SECOND.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // Refusals don't close the socket.
        mallory.send(&json!({"type": "ping", "ref": "last"})).await;
        mallory.until_where(|frame| frame["ref"] == "last").await;
        for at in 0..47 {
            let members: Vec<String> = (0..1_000).map(|n| format!("invented-{at}-{n}")).collect();
            let path = "/api/chat/conversations/team/members";
            node.post(path, &token("mallory"), &json!({ "user_ids": members })).await;
        }
    };
    let flooded = ack_times(&mut bob, flood).await;
    let commands = commands_in_redis(&redis).await - before;
    println!("acks of another user: {quiet:?} before, {flooded:?} during; {commands} commands in Redis");

    let metrics = node.metrics().await;
    let ok = |command: &str| {
        metrics.get(&format!(r#"switchboard_commands_total{{command="{command}",result="ok"}}"#)).unwrap_or(0.0)
    };
    let changes = ok("edit") + ok("react") + ok("add_members");
    println!("changes {changes}, typing {}, presence {}, members {}", ok("typing"), ok("presence"), ok("add_members"));
    // A flood of some seconds gets the budget of one minute. On a busy machine it may take longer.
    let minutes = (begun.elapsed().as_secs() / 60 + 1) as f64;
    let most = [("changes", changes, 330.0), ("typing", ok("typing"), 600.0), ("presence", ok("presence"), 7.0)];
    for (what, count, limit) in most.into_iter().chain([("additions", ok("add_members"), 1.0)]) {
        assert!(count <= limit * minutes, "{what}: {count} in {minutes} minutes");
    }
    assert!((commands as f64) < 60_000.0 * minutes, "{commands} commands in Redis");
}
