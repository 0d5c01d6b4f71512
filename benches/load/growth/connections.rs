//! Connections: memory, the CPU of a connect, and of keeping an idle connection.

use std::{net::SocketAddr, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::{
    net::TcpSocket,
    task::{JoinSet, spawn_local},
};

use super::{
    curve::{Cost, Curve, Work},
    deployment::Deployment,
};
use crate::{
    BenchResult,
    args::Args,
    idle::file_limit,
    support::{Process, Signal, token},
    tasks::{Task, command},
    wire::Socket,
};

/// Open files that a process needs beside its connections.
const SPARE_FILES: u64 = 700;
/// Maximum number of connections of one client process: the ports of one source address.
const PER_CLIENT: u64 = 15_000;
/// Connects of one process at a time.
const CONCURRENT: u64 = 32;
/// A client process reports each time that it has opened this many.
const REPORT: u64 = 500;
/// The error that `switchboard load` reports for a connection that ends.
const LOST: &str = "a connection was lost";
/// Time for work that follows the greetings.
const SETTLE: Duration = Duration::from_secs(3);

/// The part of the connections that one process opens and holds.
#[derive(Debug, Serialize, Deserialize)]
pub struct Share {
    /// The nodes, in turn.
    addresses: Vec<SocketAddr>,
    /// The source address.
    from: std::net::IpAddr,
    /// The users `idle-{first}` to `idle-{first + count - 1}`.
    first: u64,
    count: u64,
}

/// Measures these numbers of connections.
pub async fn run(args: &Args, sizes: &[u64], idle: Duration) -> BenchResult<Curve> {
    let mut curve = Curve::new("connections", "idle connections, each of another user");
    for (point, &connections) in sizes.iter().enumerate() {
        eprintln!("  measuring: {connections} connections");
        let mut deployment = Deployment::start(args, &[]).await;
        let per_node = (file_limit() as u64).saturating_sub(SPARE_FILES).max(1);
        while (deployment.nodes.len() as u64) < connections.div_ceil(per_node) {
            deployment.add_node().await;
        }
        let nodes = deployment.nodes.len() as f64;
        if nodes > 1.0 {
            curve.notes.push(format!(
                "{connections} connections are on {nodes} nodes, because a process may open {} files here",
                file_limit()
            ));
        }
        tokio::time::sleep(SETTLE).await;
        let (memory, before) = (deployment.resident_bytes(), deployment.cpu());
        let clients = connections.div_ceil(PER_CLIENT.min(per_node));
        let share = connections.div_ceil(clients);
        let mut holders = Vec::new();
        for client in 0..clients {
            let first = client * share;
            let task = Task::Hold(Share {
                addresses: deployment.addresses(),
                // Addresses of its own, whose ports no earlier size has used.
                from: [127, 0, 1 + u8::try_from(point)?, 1 + u8::try_from(client)?].into(),
                first,
                count: share.min(connections - first),
            });
            holders.push(Process::spawn(format!("client {client}"), &mut command(&task)?, Signal::Kill));
        }
        for holder in &holders {
            opened(holder).await?;
        }
        // Work that follows the greetings is part of a connect.
        tokio::time::sleep(SETTLE).await;
        let connect = deployment.cpu().since(before).micros_per(connections);
        let bytes = deployment.resident_bytes().saturating_sub(memory) as f64 / connections as f64;
        let before = deployment.cpu();
        tokio::time::sleep(idle).await;
        let minute = deployment.cpu().since(before).times(60.0 / idle.as_secs_f64());
        let lost = holders.iter().flat_map(Process::log).filter(|line| line == LOST).count();
        if lost > 0 {
            curve.notes.push(format!("{lost} of {connections} connections were lost"));
        }
        curve.add(
            connections,
            vec![
                Cost::bytes("node, memory of each", Work::Constant, bytes),
                Cost::cpu("node, a connect", Work::Constant, connect.node),
                Cost::cpu("Redis, a connect", Work::Constant, connect.redis),
                Cost::cpu("PostgreSQL, a connect", Work::Constant, connect.postgres),
                Cost::cpu("node, an idle minute of each", Work::Constant, minute.micros_per(connections).node),
                Cost::cpu("all nodes, an idle minute", Work::Linear, minute.node * 1e6).not_drawn(),
                Cost::cpu("Redis, an idle minute", Work::Linear, minute.redis * 1e6).not_drawn(),
                Cost::cpu("PostgreSQL, an idle minute", Work::Linear, minute.postgres * 1e6).not_drawn(),
            ],
        );
    }
    Ok(curve)
}

/// Waits until a client process has opened its connections, however long that takes while it goes on.
async fn opened(holder: &Process) -> BenchResult<()> {
    for reports in 1.. {
        let reached = |line: &str| match line {
            "all open" => Some(true),
            line => (line == format!("{} open", reports * REPORT)).then_some(false),
        };
        if holder.line("its progress", reached).await? {
            break;
        }
    }
    Ok(())
}

/// Opens the connections of a share, reports that, and holds them until the process is killed.
pub async fn hold(share: &Share) -> BenchResult<()> {
    let users = (share.first..share.first + share.count).map(|index| format!("idle-{index}"));
    let mut places = share.addresses.iter().copied().cycle().zip(users);
    let (from, mut opening, mut open) = (share.from, JoinSet::new(), 0);
    loop {
        while opening.len() < CONCURRENT as usize
            && let Some((address, user)) = places.next()
        {
            opening.spawn_local(async move {
                let socket = TcpSocket::new_v4()?;
                socket.bind((from, 0).into())?;
                let path = format!("/v1/ws?token={}", token(&user));
                let socket = Socket::upgrade(socket.connect(address).await?, &path).await?;
                socket.expect(r#""authenticated""#).await?;
                Ok::<_, std::io::Error>(socket)
            });
        }
        let Some(opened) = opening.join_next().await else { break };
        let socket = opened??;
        spawn_local(async move {
            while socket.read(|_| {}).await.is_ok() {}
            println!("{LOST}");
        });
        open += 1;
        if open % REPORT == 0 {
            println!("{open} open");
        }
    }
    println!("all open");
    std::future::pending().await
}
