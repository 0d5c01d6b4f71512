//! Conversations that one node follows because its sockets listen to them.

use std::time::Duration;

use super::{
    clients::{Clients, Send},
    curve::{Cost, Curve, Work},
    deployment::Deployment,
};
use crate::{
    BenchResult,
    args::Args,
    measure::{Cpu, Kept},
};

/// Sockets that share the conversations; a socket may join 500 of them.
const SOCKETS: u64 = 200;
/// Conversations in a `sync` frame, and frames at a time: more calls may not wait for the store (STORE_QUEUE).
const SYNC: usize = 250;
const SYNCS: usize = 2;
/// Time for work that follows the answers.
const SETTLE: Duration = Duration::from_secs(3);
/// The step between two conversations that get a message: a prime number, so that each has its turn.
const STRIDE: u64 = 7_919;

/// Measures nodes that follow these numbers of conversations.
pub async fn run(args: &Args, sizes: &[u64], minute: Duration) -> BenchResult<Curve> {
    let mut curve = Curve::new("followed", "conversations that a node follows, with one listener each");
    for &followed in sizes {
        eprintln!("  measuring: {followed} conversations");
        let deployment = Deployment::start(args, &[]).await;
        deployment.add_users("user-", SOCKETS, 0).await?;
        deployment.add_groups("group-", followed).await?;
        deployment.add_members("'group-' || i", &format!("'user-' || (i % {SOCKETS})"), followed).await?;
        let users = (0..SOCKETS).map(|index| format!("user-{index}"));
        let mut clients = Clients::connect(&deployment.addresses(), users).await?;
        tokio::time::sleep(SETTLE).await;

        let (memory, kept) = (deployment.resident_bytes(), Kept::now(&deployment.world()).await?);
        let before = deployment.cpu();
        clients.join(SYNCS, frames(followed)).await?;
        tokio::time::sleep(SETTLE).await;
        let join = deployment.cpu().since(before).micros_per(followed);
        let bytes = deployment.resident_bytes().saturating_sub(memory) as f64 / followed as f64;
        let kept = Kept::now(&deployment.world()).await?.per(kept, followed);

        // Both for a whole interval of what the node does from time to time.
        let idle = deployment.idle(minute).await;
        let next = |number: u64| {
            let place = number * STRIDE % followed;
            Send { socket: (place % SOCKETS) as usize, conversation: format!("group-{place}"), receivers: 0 }
        };
        let sends = clients.send(&deployment, idle, minute, 20, next).await?;
        let Cpu { node, redis, postgres, .. } = sends.cpu;
        curve.add(
            followed,
            vec![
                Cost::bytes("node, memory of each", Work::Constant, bytes),
                Cost::bytes("Redis, memory of each", Work::Constant, kept.redis).not_drawn(),
                Cost::cpu("node, a join", Work::Constant, join.node),
                Cost::cpu("node, a send into one", Work::Constant, node),
                Cost::cpu("Redis, a send into one", Work::Constant, redis).not_drawn(),
                Cost::cpu("PostgreSQL, a send into one", Work::Constant, postgres).not_drawn(),
                Cost::cpu("node, an idle minute", Work::Constant, idle.node * 60e6),
                Cost::cpu("Redis, an idle minute", Work::Constant, idle.redis * 60e6).not_drawn(),
                Cost::cpu("PostgreSQL, an idle minute", Work::Constant, idle.postgres * 60e6).not_drawn(),
                Cost::latency("send until its ack, p50", Work::Constant, sends.latency.p50).not_drawn(),
            ],
        );
    }
    Ok(curve)
}

/// The `sync` frames with which the sockets join all conversations, each with its socket.
fn frames(followed: u64) -> impl Iterator<Item = (usize, String)> {
    (0..SOCKETS).flat_map(move |socket| {
        let own: Vec<u64> = (socket..followed).step_by(SOCKETS as usize).collect();
        let frame = |part: &[u64]| {
            let parts: Vec<String> = part.iter().map(|group| format!(r#""group-{group}":0"#)).collect();
            format!(r#"{{"type":"sync","conversations":{{{}}},"ref":0}}"#, parts.join(","))
        };
        let frames: Vec<String> = own.chunks(SYNC).map(frame).collect();
        frames.into_iter().map(move |frame| (socket as usize, frame))
    })
}
