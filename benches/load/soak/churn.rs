//! The clients that come and go: each connects in one dialect after another, joins and leaves rooms, reads over REST.

use std::{net::SocketAddr, time::Duration};

use rand::RngExt;
use tokio::time::sleep;

use super::{
    clients::{Phase, Shared, pause},
    connection::Connection,
    frames::{Client, Dialect},
};
use crate::support::token;

/// Time that a connection lasts, in milliseconds.
const STAYING: std::ops::Range<u64> = 500..1_500;
/// Rooms that a native connection joins.
const JOINS: usize = 3;
/// Maximum time of a request.
const ANSWERING: Duration = Duration::from_secs(10);

/// A client that comes and goes.
pub struct Visitor {
    pub index: usize,
    pub user: String,
    pub rooms: Vec<String>,
}

impl Visitor {
    /// Comes and goes until the load ends.
    pub async fn run(self, shared: &Shared, http: &reqwest::Client) {
        for round in self.index.. {
            if *shared.phase.borrow() != Phase::Load {
                return;
            }
            let address = shared.address(round);
            match self.visit(address, round).await {
                Ok(()) => shared.ledger.borrow_mut().connects += 1,
                Err(why) => shared.ledger.borrow_mut().end(&format!("a visitor: {why}")),
            }
            let status = self.read(http, address, round).await;
            *shared.ledger.borrow_mut().reads.entry(status).or_default() += 1;
            pause().await;
        }
    }

    async fn visit(&self, address: SocketAddr, round: usize) -> Result<(), String> {
        let dialect = Dialect::ALL[round % Dialect::ALL.len()];
        let room = |at: usize| &self.rooms[(round + at) % self.rooms.len()];
        let connection = Connection::open(address, dialect, &self.user, room(0)).await?;
        let joins = if dialect == Dialect::Native { JOINS } else { 1 };
        for at in 0..joins {
            if let Some(join) = dialect.join(room(at), None) {
                connection.send(&join).await?;
            }
        }
        sleep(Duration::from_millis(rand::rng().random_range(STAYING))).await;
        if dialect == Dialect::Native {
            let leave = serde_json::json!({"type": "leave", "conversation_id": room(0)});
            connection.send(&leave.to_string()).await?;
        }
        // Every other connection ends without a close frame.
        if round.is_multiple_of(2) {
            connection.close().await;
        }
        Ok(())
    }

    /// One read over REST; returns its status, or 0 without an answer.
    async fn read(&self, http: &reqwest::Client, address: SocketAddr, round: usize) -> u16 {
        let room = &self.rooms[round % self.rooms.len()];
        let path = match round % 5 {
            0 => "/api/chat/conversations".to_owned(),
            1 => format!("/api/chat/conversations/{room}/messages?limit=50"),
            2 => format!("/api/chat/conversations/{room}/members"),
            3 => "/api/chat/search?q=usual".to_owned(),
            _ => "/api/websocket/users/online".to_owned(),
        };
        let request = http.get(format!("http://{address}{path}")).bearer_auth(token(&self.user)).timeout(ANSWERING);
        let Ok(answer) = request.send().await else { return 0 };
        let status = answer.status().as_u16();
        if answer.bytes().await.is_ok() { status } else { 0 }
    }
}
