//! Servers that answer and are unfit: `check`, the log, health and the metrics give the fault its name, nothing is promised
//! that can't be kept, and a node recovers by itself where the fault passes.

use serde_json::Value;
use tokio::process::Command;

use crate::support::{Node, NodeBuilder, SECRET, eventually, within};

mod appends;
mod databases;
mod deaf;
mod forms;
mod lost_rights;
mod lost_rows;
mod lost_writes;
mod modes;
mod one_conversation;
mod poolers;
mod read_only;
mod sentinels;
mod trial;
mod urls;

/// Runs `switchboard check` and returns its output.
async fn check(redis: Option<&str>, database: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_switchboard"));
    command.arg("check").env_clear().env("JWT_SECRET", SECRET).env("DATABASE_URL", database);
    redis.map(|url| command.env("REDIS_URL", url));
    let done = within("the check", command.output()).await.unwrap();
    String::from_utf8(done.stdout).unwrap()
}

/// The log of a node that exits with 1 instead of serving.
async fn refused_at_start(builder: NodeBuilder) -> String {
    match builder.try_start().await {
        Ok(node) => {
            assert_eq!(node.exit_code().await, 1, "{:?}", node.log());
            node.log().join("\n")
        }
        Err((status, log)) => {
            assert_eq!(status.code(), Some(1), "{log}");
            log
        }
    }
}

/// The faults in the health report for admins, by name, with the reason.
async fn faults(node: &Node) -> Vec<(String, String)> {
    let health = node.admin_get("/api/health").await.json;
    let text = |fault: &Value, field: &str| fault[field].as_str().unwrap().to_owned();
    health["faults"].as_array().unwrap().iter().map(|fault| (text(fault, "name"), text(fault, "reason"))).collect()
}

/// The warnings about a fault that the node has logged.
fn warnings(node: &Node, fault: &str) -> Vec<Value> {
    let lines = node.log().into_iter().filter_map(|line| serde_json::from_str::<Value>(&line).ok());
    lines.filter(|line| line["level"] == "WARN" && line["fault"] == fault).collect()
}

/// Waits until the node has warned of a fault again after `before` warnings, and returns the warning. The log follows the
/// health report after a moment.
async fn told_once(node: &Node, fault: &str, before: usize) -> Value {
    let told = async || Some(warnings(node, fault).split_off(before)).filter(|told| !told.is_empty());
    let mut told = eventually("a warning", told).await;
    assert_eq!(told.len(), 1, "{fault}: told once: {told:?}");
    told.remove(0)
}
