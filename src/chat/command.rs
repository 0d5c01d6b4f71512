//! The sender of a command, and its result.

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;

use super::{connection::Connection, replay::Replay};
use crate::{
    degrade::{Degrade, Feature, Mode},
    model::{Entry, Identity, PendingAck, Reject, Reply},
    store::StoreError,
};

/// Retry delay for a command that the store is too busy for.
const BUSY_RETRY: Duration = Duration::from_secs(2);

/// The sender of a command.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The verified identity.
    pub identity: Arc<Identity>,
    /// The socket of the command; none over REST.
    pub connection: Option<Arc<Connection>>,
    /// The ack that the socket awaits; none over REST.
    pub ack: Option<Arc<PendingAck>>,
}

/// The result of a command: the reply, and the replays that follow it.
#[derive(Debug)]
pub struct CommandReply {
    /// The reply to the client.
    pub reply: Reply,
    /// The replays to send to the connection after the reply.
    pub replays: Vec<Replay>,
    /// The entry of a repeated command, for a connection that has no other way to learn that it is stored.
    pub echo: Option<Arc<Entry>>,
    /// The ack among the entries that the socket gets.
    pub ack: AckPlace,
}

/// The place of an ack among the entries that its socket gets.
#[derive(Debug)]
pub enum AckPlace {
    /// The answer is no ack, or its place does not matter.
    Anywhere,
    /// Delivery sent the ack in its place, or nobody sends one.
    Taken,
    /// The socket did not listen when the ack was ready. It must be sent before the answer of a later join, or wait for its place
    /// if there was one: [`super::Chat::send_alone`].
    Alone(Arc<PendingAck>),
}

impl From<Reply> for CommandReply {
    fn from(reply: Reply) -> Self {
        Self { reply, replays: Vec::new(), echo: None, ack: AckPlace::Anywhere }
    }
}

/// A command that has its place in the order of its sender's commands.
pub enum Begun {
    /// The command is complete.
    Done(Result<CommandReply, Reject>),
    /// The command waits for the store; the sender's next command may begin.
    Pending(BoxFuture<'static, Result<CommandReply, Reject>>),
    /// The command is dropped for this reason. The sender gets no answer unless it waits for one.
    Dropped(Reject),
}

/// The refusal to add or reach a user. It does not tell the reasons apart: the user blocked the sender, or left, or was
/// removed.
pub(super) const BARRED: Reject = Reject::Forbidden("This user can't be added or reached");

/// The refusal of a command whose `client_id` the user gave another command.
pub(super) const ID_REUSED: Reject = Reject::Conflict("This client_id was used for another command");

/// Rejects the command if `feature` is unavailable in the current degraded mode.
pub(super) fn require_feature(degrade: &Degrade, feature: Feature) -> Result<(), Reject> {
    match degrade.mode(feature) {
        Mode::Refused => Err(Reject::Unavailable),
        Mode::Shared | Mode::Partial | Mode::Relayed | Mode::Local | Mode::Limited => Ok(()),
    }
}

/// Logs the error of a command's own write and returns the reject for the client.
pub(super) fn unwritten(error: &StoreError) -> Reject {
    match error {
        StoreError::Unknown(_) => {
            tracing::warn!(%error, "a write may or may not be stored");
            Reject::Unknown
        }
        error => unavailable(error),
    }
}

/// Logs the error of a read, or of a write without which nothing of the command is done, and returns the reject for the
/// client.
pub(super) fn unavailable(error: &StoreError) -> Reject {
    match error {
        // These are frequent under load, and counted.
        StoreError::Busy { .. } => {
            tracing::debug!(%error, "the store is busy");
            Reject::Overloaded { retry_after: BUSY_RETRY }
        }
        StoreError::TooSlow => {
            tracing::debug!(%error, "a read was cancelled");
            Reject::ReadTooSlow { retry_after: BUSY_RETRY }
        }
        // The fault that stands is logged once, with its name.
        error if error.refused_call().is_some() => {
            tracing::debug!(%error, "the store refuses a call");
            Reject::Unavailable
        }
        // The part's state and the fault are logged when they change.
        StoreError::Unavailable(_) | StoreError::Unknown(_) | StoreError::Failed(_) => {
            tracing::debug!(%error, "the store is unavailable");
            Reject::Unavailable
        }
    }
}
