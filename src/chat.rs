//! What commands do: the one place that combines store, backplane and hub.

use std::sync::Arc;

use crate::{
    model::{Command, Identity, Reject, Reply},
    session::Connection,
};

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub struct Caller<'a> {
    /// Who they are.
    pub identity: &'a Identity,
    /// The socket they ask over; none over REST.
    pub connection: Option<&'a Arc<Connection>>,
}

/// The chat: carries out commands.
#[derive(Debug)]
pub struct Chat {}

impl Chat {
    /// Carries out a command, over REST or a socket alike.
    pub async fn execute(&self, caller: Caller<'_>, command: Command) -> Result<Reply, Reject> {
        let _ = (caller, command);
        Ok(Reply::Done)
    }
}
