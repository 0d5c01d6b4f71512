//! The life of one WebSocket: Opening, then Open, then gone.

use std::{net::IpAddr, sync::Arc};

use tokio::net::TcpStream;

use crate::{app::Broker, config::Secret, dialect::Dialect, model::ConversationId};

/// What is known of a connection when its upgrade was answered.
#[derive(Debug)]
pub struct Opening {
    /// The dialect of its route.
    pub dialect: Dialect,
    /// The conversation its route names, if it is bound to one.
    pub conversation: Option<ConversationId>,
    /// The token, where header, query or subprotocol brought one; else the first frame must.
    pub token: Option<Secret>,
    /// The client's address, as trusted proxies tell it.
    pub address: IpAddr,
}

/// Serves a WebSocket until it is closed. `read_ahead` is what came behind the upgrade request.
pub async fn serve(socket: TcpStream, read_ahead: Vec<u8>, opening: Opening, broker: Arc<Broker>) {
    let _ = (socket, read_ahead, opening, broker);
}

/// An open connection, as chat and hub see it.
#[derive(Debug)]
pub struct Connection {}
