//! The order of acks: a socket that listens to a conversation gets the ack of its entry after every entry before it. The
//! highest seq that it received is then always a right `since_seq`.
//!
//! The hub puts acks into their places: most while it delivers, the others when their sockets have every earlier entry.
//! This part asks for the latter, and sends the acks of sockets that don't listen at once.

use std::{sync::Arc, time::Duration};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::time::{sleep, timeout};

use super::{
    command::{AckPlace, Begun, Caller, CommandReply},
    connection::Connection,
    hints::hint,
};
use crate::{
    dialect::AutoJoin,
    hub::Hub,
    metrics::Metrics,
    model::{ConversationId, PendingAck, Reject, Reply, Sent, TakenAck},
    outbox::Frame,
};

/// Maximum time that an ack waits while its socket receives nothing of the conversation. After it the outcome counts as
/// unknown: the client repeats the command.
const STALLED_AFTER: Duration = Duration::from_secs(20);
/// Pause before a socket whose join is under way is looked at again.
const RECHECK: Duration = Duration::from_millis(20);

/// Sends acks in the order of their logs.
pub(super) struct Acks {
    pub(super) hub: Arc<Hub>,
    pub(super) metrics: Arc<Metrics>,
}

impl Acks {
    /// Lets the answer of a stored command wait for its place in the order, if its socket awaits an ack.
    pub(super) fn order(self: &Arc<Self>, caller: &Caller, begun: Begun) -> Begun {
        let (Some(connection), Some(ack)) = (&caller.connection, &caller.ack) else { return begun };
        let Begun::Pending(answer) = begun else { return begun };
        if !connection.dialect.acks() {
            return Begun::Pending(answer);
        }
        #[cfg(feature = "faults")]
        if crate::faults::has(crate::faults::Fault::AcksAtOnce) {
            return Begun::Pending(answer);
        }
        let (acks, connection, ack) = (self.clone(), connection.clone(), ack.clone());
        Begun::Pending(async move { acks.settle(&connection, &ack, answer.await?).await }.boxed())
    }

    /// Waits for the place of an ack, and takes the ack unless delivery took it.
    async fn settle(
        &self,
        connection: &Connection,
        ack: &Arc<PendingAck>,
        mut answer: CommandReply,
    ) -> Result<CommandReply, Reject> {
        let Reply::Sent(sent) = &answer.reply else { return Ok(answer) };
        if !self.wait(connection, ack, sent).await && ack.give_up() {
            self.metrics.acks_given_up.inc();
            return Err(Reject::Unknown);
        }
        answer.ack = if ack.is_settled() { AckPlace::Taken } else { AckPlace::Alone(ack.clone()) };
        Ok(answer)
    }

    /// Sends the ack of a socket that does not listen to the conversation of its command. If the socket has joined it since, the
    /// client has the answer of that join, and takes the ack for one in the order of the log: then it waits for its place, in
    /// the returned answer.
    pub(super) fn send_alone(
        self: &Arc<Self>,
        connection: &Arc<Connection>,
        ack: Arc<PendingAck>,
        answer: CommandReply,
        frame: impl FnOnce(&Reply) -> Option<Frame>,
    ) -> Option<BoxFuture<'static, Result<CommandReply, Reject>>> {
        let Reply::Sent(sent) = &answer.reply else { return None };
        let send = || if ack.take() == TakenAck::Now { frame(&answer.reply) } else { None };
        let sent = match sent.log.conversation() {
            Some(conversation) => connection.send_unless_joined(&conversation, send),
            None => {
                connection.outbox.send(send());
                true
            }
        };
        let (acks, connection) = (self.clone(), connection.clone());
        (!sent).then(|| async move { acks.settle(&connection, &ack, answer).await }.boxed())
    }

    /// Waits until the ack may be sent. Returns false if the socket received nothing of the conversation for too long.
    async fn wait(&self, connection: &Connection, ack: &Arc<PendingAck>, sent: &Sent) -> bool {
        let Some(conversation) = sent.log.conversation() else { return true };
        let mut reached = connection.received(&conversation);
        while timeout(STALLED_AFTER, self.ready(connection, &conversation, ack, sent)).await.is_err() {
            let now = connection.received(&conversation);
            if now == reached {
                return false;
            }
            reached = now;
        }
        true
    }

    /// Waits until the socket has every entry before the ack, or does not listen.
    async fn ready(&self, connection: &Connection, conversation: &ConversationId, ack: &Arc<PendingAck>, sent: &Sent) {
        while !ack.is_settled() {
            if connection.listens_to(conversation) {
                if self.hub.place_ack(ack, sent).await {
                    return;
                }
            } else if connection.dialect.joins() == AutoJoin::Added && connection.lacks(conversation) {
                // The client doesn't know that its socket gave this join up. It joins again as after any message there.
                hint(connection, conversation);
            } else {
                return;
            }
            sleep(RECHECK).await;
        }
    }
}
