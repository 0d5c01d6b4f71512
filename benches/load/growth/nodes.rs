//! Nodes that share the listeners of one room.

use std::time::Duration;

use super::{
    clients::{Clients, Send},
    curve::{Cost, Curve, Work},
    deployment::Deployment,
};
use crate::{BenchResult, args::Args};

/// Members of the room, spread evenly over the nodes; a multiple of each number of nodes.
const MEMBERS: u64 = 240;

/// Measures deployments of these numbers of nodes, which must increase.
pub async fn run(args: &Args, sizes: &[u64], window: Duration) -> BenchResult<Curve> {
    let mut curve = Curve::new("nodes", &format!("nodes that share the {MEMBERS} listeners of a room"));
    let mut deployment = Deployment::start(args, &[]).await;
    deployment.add_users("member-", MEMBERS, super::INVISIBLE).await?;
    deployment.add_groups("room-", 1).await?;
    deployment.add_members("'room-0'", "'member-' || i", MEMBERS).await?;
    for &nodes in sizes {
        eprintln!("  measuring: {nodes} nodes");
        while (deployment.nodes.len() as u64) < nodes {
            deployment.add_node().await;
        }
        let users = (0..MEMBERS).map(|index| format!("member-{index}"));
        let mut clients = Clients::connect(&deployment.addresses(), users).await?;
        clients.join_all("room-0").await?;
        // Members send in turn, and so do the nodes.
        let next = |number: u64| Send {
            socket: (number % MEMBERS) as usize,
            conversation: "room-0".into(),
            receivers: MEMBERS - 1,
        };
        let idle = deployment.idle(window / 2).await;
        let sends = clients.send(&deployment, idle, window, 20, next).await?;
        curve.add(
            nodes,
            vec![
                Cost::cpu("all nodes, a message with all its deliveries", Work::Constant, sends.cpu.node),
                Cost::cpu("Redis, a message with a push to each node", Work::Linear, sends.cpu.redis),
                Cost::cpu("PostgreSQL, a message", Work::Constant, sends.cpu.postgres),
                Cost::latency("send until its ack, p50", Work::Constant, sends.latency.p50).not_drawn(),
            ],
        );
    }
    Ok(curve)
}
