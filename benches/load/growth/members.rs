//! Members of a room, all of whom listen on one node.

use std::time::Duration;

use super::{
    clients::{Clients, Send},
    curve::{Cost, Curve, Work},
    deployment::Deployment,
};
use crate::{BenchResult, args::Args};

/// Members who send, in turn.
const SENDERS: u64 = 10;

/// Measures rooms of these sizes.
pub async fn run(args: &Args, sizes: &[u64], window: Duration) -> BenchResult<Curve> {
    let mut curve = Curve::new("members", "members of a room, all of whom listen");
    for &members in sizes {
        eprintln!("  measuring: {members} members");
        let deployment = Deployment::start(args, &[]).await;
        // Invisible users: each arrival would be told to all who came before, and the joins would take longer than the rest.
        deployment.add_users("member-", members, super::INVISIBLE).await?;
        deployment.add_groups("room-", 1).await?;
        deployment.add_members("'room-0'", "'member-' || i", members).await?;
        let users = (0..members).map(|index| format!("member-{index}"));
        let mut clients = Clients::connect(&deployment.addresses(), users).await?;
        clients.join_all("room-0").await?;
        let next = |number: u64| {
            let socket = (number % SENDERS.min(members)) as usize;
            Send { socket, conversation: "room-0".into(), receivers: members - 1 }
        };
        let idle = deployment.idle(window / 2).await;
        let sends = clients.send(&deployment, idle, window, 20, next).await?;
        let cpu = sends.cpu;
        curve.add(
            members,
            vec![
                Cost::cpu("node, a message with all its deliveries", Work::Linear, cpu.node),
                Cost::cpu("node, a delivery", Work::Constant, cpu.node / members as f64),
                // Twice a second at most, the node reads who the members are, to notify those who are away.
                Cost::cpu("Redis, a message", Work::Linear, cpu.redis),
                Cost::cpu("PostgreSQL, a message", Work::Linear, cpu.postgres),
                Cost::latency("send until its ack, p50", Work::Constant, sends.latency.p50).not_drawn(),
            ],
        );
    }
    Ok(curve)
}
