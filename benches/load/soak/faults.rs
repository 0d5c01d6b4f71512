//! The faults of a soak, in turn.

use std::time::Duration;

use tokio::{sync::watch, time::sleep};

use crate::support::{RedisServer, connect_to_postgres};

/// Time that Redis is stopped: longer than nodes need to notice it.
const STOPPED: Duration = Duration::from_secs(4);

/// A fault.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    RedisConnectionsKilled,
    StoreSessionsEnded,
    RedisStopped,
    ClientsMoved,
}

impl Fault {
    /// All, in the order in which they come.
    pub const ALL: [Self; 4] =
        [Self::RedisConnectionsKilled, Self::StoreSessionsEnded, Self::RedisStopped, Self::ClientsMoved];

    pub fn label(self) -> &'static str {
        match self {
            Self::RedisConnectionsKilled => "connections to Redis killed",
            Self::StoreSessionsEnded => "sessions of PostgreSQL ended",
            Self::RedisStopped => "Redis stopped for 4 s",
            Self::ClientsMoved => "clients moved to the other node",
        }
    }

    /// Does it, and undoes it if it lasts.
    pub async fn inject(self, redis: &RedisServer, database: &str, moves: &watch::Sender<u64>) {
        match self {
            Self::RedisConnectionsKilled => {
                for kind in ["normal", "pubsub"] {
                    let _killed: u64 = redis.command(&["CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes"]).await;
                }
            }
            Self::StoreSessionsEnded => {
                let all = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                     WHERE pid <> pg_backend_pid() AND datname = current_database()";
                // If the statement fails, the sessions end by themselves.
                let _failed = connect_to_postgres(database).await.batch_execute(all).await;
            }
            Self::RedisStopped => {
                redis.pause();
                sleep(STOPPED).await;
                redis.resume();
            }
            Self::ClientsMoved => moves.send_modify(|moves| *moves += 1),
        }
    }
}
