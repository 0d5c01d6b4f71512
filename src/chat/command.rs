//! Who asks, and what a command comes to.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::{connection::Connection, replay::Replay};
use crate::{
    degrade::{Degrade, Feature, Mode},
    model::{Identity, Reject, Reply},
    store::StoreError,
};

/// Who asks.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Who they are.
    pub identity: Arc<Identity>,
    /// The socket they ask over; none over REST.
    pub connection: Option<Arc<Connection>>,
}

/// What a command came to: the reply, and what is to be replayed after it.
#[derive(Debug)]
pub struct CommandReply {
    /// What to say.
    pub reply: Reply,
    /// What to replay to the connection once that was said.
    pub replays: Vec<Replay>,
}

impl From<Reply> for CommandReply {
    fn from(reply: Reply) -> Self {
        Self { reply, replays: Vec::new() }
    }
}

/// A command that was begun: its place in the order of its sender's commands is taken.
pub enum Begun {
    /// It is done.
    Done(Result<CommandReply, Reject>),
    /// It waits for the store; the sender's next command may begin.
    Pending(BoxFuture<'static, Result<CommandReply, Reject>>),
}

/// Refuses what needs the store while it is down.
pub(super) fn needs(degrade: &Degrade, feature: Feature) -> Result<(), Reject> {
    match degrade.mode(feature) {
        Mode::Refused => Err(Reject::Unavailable),
        Mode::Shared | Mode::Relayed | Mode::Local => Ok(()),
    }
}

/// What a client hears when the store could not be asked.
pub(super) fn unavailable(error: &StoreError) -> Reject {
    tracing::warn!(%error, "the store did not answer");
    Reject::Unavailable
}
