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

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use tokio::{io::AsyncReadExt, net::TcpStream};

    use super::*;
    use crate::{
        chat::connection::{JoinedBy, fixture::connected},
        dialect::{Dialect, RequestMeta},
        hub::{Source, SourceFailed, Terms, Wanted},
        model::{Clock, Entry, LogId, Timestamp},
        supervise::Supervisor,
    };

    struct Nothing;

    #[async_trait]
    impl Source for Nothing {
        async fn after(&self, _: Wanted<'_>) -> Result<Vec<Entry>, SourceFailed> {
            Ok(Vec::new())
        }
    }

    async fn next_frame(client: &mut TcpStream) -> String {
        let mut frame = [0; 1_024];
        let read = timeout(Duration::from_secs(30), client.read(&mut frame)).await.unwrap().unwrap();
        String::from_utf8_lossy(&frame[..read]).into_owned()
    }

    #[tokio::test]
    async fn an_ack_comes_before_the_answer_of_a_later_join_or_in_its_place() {
        let metrics = Arc::new(Metrics::new().unwrap());
        let supervisor = Supervisor::new(metrics.clone());
        let hub = Hub::start(1, Arc::new(Nothing), metrics.clone(), Clock::system(), supervisor.clone());
        let acks = Arc::new(Acks { hub: hub.clone(), metrics: metrics.clone() });
        let (log, room) = (LogId::parse("room").unwrap(), ConversationId::parse("room").unwrap());
        let _opened = hub.follow(&log);
        hub.set_base(&log, 7, None);
        let (connection, mut client) = connected(&metrics).await;
        let at = Timestamp::from_seconds(1);
        let answer = || {
            let sent = Sent { log: log.clone(), recipient: None, seq: 7, at, client_id: None, duplicate: false };
            CommandReply::from(Reply::Sent(sent))
        };
        let frame = |reply: &Reply| Dialect::Native.reply(RequestMeta { reference: None, client_id: None, at }, reply);
        let ack = || Arc::new(PendingAck::new(connection.id(), None, None));
        assert!(acks.send_alone(&connection, ack(), answer(), frame).is_none());
        assert!(next_frame(&mut client).await.contains(r#""type":"ack""#), "the socket listens nowhere");

        connection.record_join(&room, None, JoinedBy::Client);
        hub.attach(&log, Dialect::Native, &connection.outbox, Terms::default());
        let mut placed = acks.send_alone(&connection, ack(), answer(), frame).expect("the socket has joined since");
        assert!(timeout(Duration::from_millis(50), &mut placed).await.is_err(), "it lacks the entries before");
        hub.splice(&log, connection.id(), 7, 0).unwrap();
        assert!(matches!(placed.await.unwrap().ack, AckPlace::Taken));
        assert!(next_frame(&mut client).await.contains(r#""seq":7"#));
        supervisor.stop().cancel();
    }
}
