//! A connection of a test, and its client.

use std::{sync::Arc, time::Duration};

use tokio::net::{TcpListener, TcpStream};

use super::Connection;
use crate::{
    dialect::Dialect,
    metrics::Metrics,
    model::{ConnectionId, UserId},
    outbox::{Frame, Outbox, OutboxBudget, OutboxLimits},
};

/// A native connection of Alice, who was greeted, and her end of the socket.
pub(in crate::chat) async fn connected(metrics: &Arc<Metrics>) -> (Arc<Connection>, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (client, server) =
        tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), async { listener.accept().await });
    let (_reader, writer) = server.unwrap().0.into_split();
    writer.writable().await.unwrap();
    let too_slow = Frame::close(1008, "");
    let limits = Arc::new(OutboxLimits { bytes: 1 << 20, stalled_after: Duration::from_secs(30), too_slow });
    let outbox = Outbox::new(ConnectionId::fresh(), writer, limits, OutboxBudget::new(1 << 30, metrics.clone()));
    outbox.greet([]);
    let alice = UserId::parse("alice").unwrap();
    (Arc::new(Connection::new(outbox, alice, Dialect::Native, None)), client.unwrap())
}
