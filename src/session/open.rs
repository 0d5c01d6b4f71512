//! An open connection: one loop over incoming frames, pending commands, signals of the hub, and timers.

use std::{pin::pin, sync::Arc};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::time::{Instant, sleep_until};
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::{
    answers::Answers,
    arrivals::Arrivals,
    context::{CLOSE_TIMEOUT, Context},
    heartbeat::Heartbeat,
    life::{Ended, Life},
    pending::Pending,
    roster::Roster,
    signalled::Signalled,
    socket::{Incoming, Socket},
};
use crate::{
    chat::{Begun, Caller, CommandReply, Connection},
    config::Secret,
    dialect::{Dialect, Greeting, Intent, Request, RequestMeta, RosterPolicy},
    model::{CloseReason, Command, Identity, PendingAck, Reject, Seq, UserId},
    outbox::{Frame, OutboxEvent},
    restrictions::SessionTicket,
    supervise::{TaskName, checkpoint},
};

/// The result of a command, with the metadata of its request.
type Answered = (RequestMeta, Result<CommandReply, Reject>);

/// The next step of the loop after a wait.
enum Due {
    Nothing,
    Tick,
    Incoming(Incoming),
}

/// An open connection.
pub(super) struct Open {
    socket: Box<Socket>,
    pub(super) identity: Arc<Identity>,
    ticket: SessionTicket,
    pub(super) connection: Arc<Connection>,
    pub(super) context: Arc<Context>,
    /// The command that is beginning; the next one waits for it.
    beginning: Option<BoxFuture<'static, (RequestMeta, Begun)>>,
    /// Commands that wait for the store; their replies keep the order of arrival.
    pub(super) pending: Pending<Answered>,
    /// Answers that wait for room; the next command waits for them.
    pub(super) answers: Answers,
    /// Joins and leaves that the hub's signals require.
    pub(super) signalled: Signalled,
    /// The online users whom the client is shown, if its dialect shows any.
    pub(super) roster: Option<Box<Roster>>,
    pub(super) life: Life,
    /// True if frames in the outbox wait for a flush.
    pub(super) unwritten: bool,
    /// True if frames were read in the last round of the loop.
    read_before: bool,
    opened_at: Instant,
    expires_at: Instant,
}

impl Open {
    pub(super) fn new(
        socket: Box<Socket>,
        (identity, ticket): (Arc<Identity>, SessionTicket),
        connection: Arc<Connection>,
        context: Arc<Context>,
    ) -> Self {
        let dialect = connection.dialect.label();
        context.metrics.connections.with_label_values(&[dialect]).inc();
        context.metrics.opens.with_label_values(&[dialect]).inc();
        Self {
            socket,
            life: Life { heartbeat: Heartbeat::new(context.shared.pace.clone()), arrivals: Arrivals::new() },
            connection,
            beginning: None,
            pending: Pending::default(),
            answers: Answers::new(context.metrics.clone()),
            signalled: Signalled::default(),
            roster: None,
            unwritten: false,
            read_before: false,
            opened_at: Instant::now(),
            expires_at: context.expiry(&identity),
            identity,
            ticket,
            context,
        }
    }

    /// Starts the joins that route and dialect require, and sends the greeting.
    pub(super) async fn start(&mut self, since: Option<Seq>) -> Result<(), CloseReason> {
        let (connection, registry) = (&self.connection, self.context.chat.registry_version());
        let listening = self.context.chat.begin_listening(&self.identity, connection, since);
        let initial = listening.await.map_err(CloseReason::Refused)?;
        if let Some(reason) = self.ticket.ended_now() {
            return Err(reason);
        }
        let bound = connection.bound.as_ref().zip(initial.head);
        let resyncs =
            initial.resyncs.iter().filter_map(|(log, first, head)| connection.dialect.resync(log, *first, *head));
        let (identity, at, present) = (&*self.identity, self.context.clock.now(), &initial.present[..]);
        let epoch = self.context.chat.epoch();
        let greeting = Greeting { identity, connection: connection.id(), bound, present, at, epoch };
        if connection.dialect.greets_with() == RosterPolicy::Acquaintances {
            self.roster = Some(Box::new(Roster::new(initial.present.clone(), registry)));
        }
        let (mut resyncs, replays): (Vec<Frame>, _) = (resyncs.collect(), initial.replays);
        // The greeting is as long as an answer may be; what does not fit waits for room.
        let most = self.context.config.limits.answer_bytes();
        let mut bytes = 0;
        let fitting = resyncs.iter().take_while(|frame| {
            bytes += frame.len();
            bytes <= most
        });
        let rest = resyncs.split_off(fitting.count());
        connection.outbox.greet(connection.dialect.greet(&greeting).into_iter().chain(resyncs));
        self.send_all(rest);
        let replay = self.context.chat.clone().replay(self.connection.clone(), replays);
        self.context.spawn(TaskName::Replay, replay);
        Ok(())
    }

    /// The user.
    pub(super) fn user(&self) -> &UserId {
        &self.identity.user
    }

    /// The dialect of the connection.
    pub(super) fn dialect(&self) -> Dialect {
        self.connection.dialect
    }

    /// Ends a connection whose start was refused.
    pub(super) async fn abandon(self: Box<Self>) -> Box<Socket> {
        self.end().await
    }

    /// Serves until the connection ends.
    pub(super) async fn run(mut self: Box<Self>) -> (Box<Socket>, CloseReason, Ended) {
        let supervisor = self.context.supervisor.clone();
        let reason = match supervisor.guard(TaskName::Session, self.serve()).await {
            Some(Ok(never)) => match never {},
            Some(Err(reason)) => reason,
            None => CloseReason::Internal,
        };
        // Boxed, so that the task of an open connection has no room for its end.
        Box::pin(self.finish(reason)).await
    }

    /// Ends the connection: answers what can be answered, and unregisters it.
    async fn finish(mut self: Box<Self>, reason: CloseReason) -> (Box<Socket>, CloseReason, Ended) {
        if self.socket.closed_by_peer() {
            self.confirm_by_frame(Instant::now());
        }
        let ended = Ended { user: self.identity.user.clone(), confirmed_at: self.life.arrivals.confirmed_at() };
        if reason == CloseReason::Internal {
            // Futures that panicked must not be polled again.
            (self.beginning, self.pending, self.roster) = (None, Pending::default(), None);
        } else if reason != CloseReason::ClientLeft && !reason.is_exclusion() {
            self.finish_pending().await;
        }
        (self.end().await, reason, ended)
    }

    async fn end(self: Box<Self>) -> Box<Socket> {
        let Self { socket, identity, connection, context, beginning, opened_at, .. } = *self;
        context.metrics.connections.with_label_values(&[connection.dialect.label()]).dec();
        context.metrics.connection_duration.observe(opened_at.elapsed().as_secs_f64());
        match beginning {
            None => context.disconnect(&identity, &connection).await,
            // Disconnect only after the pending join finishes; otherwise it decrements another listener's count.
            Some(beginning) => drop(context.tasks.clone().spawn(async move {
                drop(context.supervisor.guard(TaskName::Session, beginning).await);
                context.disconnect(&identity, &connection).await;
            })),
        }
        socket
    }

    /// Answers the accepted commands before the close, if the store answers within [`CLOSE_TIMEOUT`].
    async fn finish_pending(&mut self) {
        let deadline = Instant::now() + CLOSE_TIMEOUT;
        if let Some(beginning) = &mut self.beginning
            && let Ok(begun) = tokio::time::timeout_at(deadline, beginning).await
        {
            self.beginning = None;
            self.handle_begun(begun);
        }
        while let Ok(Some((request, answer))) = tokio::time::timeout_at(deadline, self.pending.next()).await {
            self.reply(request, answer);
        }
        self.connection.outbox.flush();
        self.finish_answers(deadline).await;
        self.connection.outbox.flush();
    }

    async fn serve(&mut self) -> Result<std::convert::Infallible, CloseReason> {
        let (outbox, context) = (self.connection.outbox.clone(), self.context.clone());
        let mut leave = pin!(context.drain.turn());
        let mut timer = pin!(sleep_until(self.next_deadline()));
        loop {
            if timer.deadline() != self.next_deadline() {
                timer.as_mut().reset(self.next_deadline());
            }
            let reads_frames = self.reads_frames();
            if reads_frames && !self.read_before {
                // The pong may wait in the socket.
                self.life.heartbeat.allow_pong(Instant::now());
            }
            self.read_before = reads_frames;
            // The order matters: signals that the hub sent before a frame take effect before the client's reaction to
            // that frame. What awaits does so after the selection, so that a waiting task has no room for its results.
            let due = tokio::select! {
                biased;
                reason = self.ticket.ended() => return Err(reason),
                woken = outbox.next_event() => {
                    self.handle_wake(woken)?;
                    Due::Nothing
                }
                begun = current(&mut self.beginning) => {
                    self.beginning = None;
                    self.handle_begun(begun);
                    Due::Nothing
                }
                Some((request, answer)) = self.pending.next(), if self.may_answer() => {
                    self.reply(request, answer);
                    Due::Nothing
                }
                sent = self.answers.sent(&outbox) => {
                    self.record_sent(sent);
                    Due::Nothing
                }
                retry_after = &mut leave => return Err(CloseReason::Restart(retry_after)),
                () = &mut timer => Due::Tick,
                () = Roster::finish_read(&mut self.roster) => Due::Nothing,
                incoming = self.socket.next(), if reads_frames => Due::Incoming(incoming?),
            };
            match due {
                Due::Nothing => {}
                Due::Tick => self.tick().await?,
                Due::Incoming(incoming) => self.handle_incoming(incoming).await?,
            }
            // Replies that are ready already share the write.
            while self.may_answer()
                && let Some(Some((request, answer))) = self.pending.next().now_or_never()
            {
                self.reply(request, answer);
            }
            if std::mem::take(&mut self.unwritten) {
                outbox.flush();
            }
            // Signals don't wait for room among the commands under way, because some of these wait for a join.
            if self.beginning.is_none()
                && let Some(command) = self.signalled.next(|conversation| self.connection.listens_to(conversation))
            {
                let request = RequestMeta::at(self.context.clock.now());
                let begun = self.context.chat.clone().begin_unasked(self.caller(), command);
                self.beginning = Some(begun.map(move |begun| (request, begun)).boxed());
            }
        }
    }

    /// Puts frames into the outbox; the loop flushes it before it waits again.
    pub(super) fn push_frames(&mut self, frames: impl IntoIterator<Item = Frame>) {
        self.unwritten |= self.connection.outbox.push(frames);
    }

    /// True if answers of earlier commands may be sent. While a removal ends the listening they wait for its `left`: an ack
    /// before that would count as one in the order of the log.
    fn may_answer(&self) -> bool {
        self.beginning.is_none() || !self.signalled.is_leaving()
    }

    /// True if the next command may begin.
    fn accepts_commands(&self) -> bool {
        self.beginning.is_none()
            && self.answers.is_empty()
            && self.pending.len() < self.context.config.limits.commands_in_flight
    }

    /// True if frames of the client are read now.
    pub(super) fn reads_frames(&self) -> bool {
        self.accepts_commands() && self.signalled.is_idle()
    }

    fn next_deadline(&self) -> Instant {
        let check = self.life.heartbeat.next_check().min(self.expires_at);
        let roster = self.roster.as_deref().and_then(Roster::next_due);
        self.signalled.next_retry().into_iter().chain(roster).fold(check, Instant::min)
    }

    async fn tick(&mut self) -> Result<(), CloseReason> {
        let now = Instant::now();
        if self.expires_at <= now {
            return Err(CloseReason::TokenExpired);
        }
        self.signalled.queue_due(now);
        self.send_roster(now);
        self.beat(now).await
    }

    fn handle_wake(&mut self, woken: OutboxEvent) -> Result<(), CloseReason> {
        match woken {
            OutboxEvent::Overflowed => Err(CloseReason::TooSlow),
            OutboxEvent::Failed => Err(CloseReason::Internal),
            OutboxEvent::Broken => Err(CloseReason::ClientLeft),
            OutboxEvent::Signal(signal) => self.handle_signal(signal),
        }
    }

    async fn handle_incoming(&mut self, incoming: Incoming) -> Result<(), CloseReason> {
        self.record_activity().await?;
        match incoming {
            Incoming::Ping | Incoming::Pong(None) => Ok(()),
            Incoming::Pong(Some(number)) => {
                self.record_pong(number);
                Ok(())
            }
            Incoming::Binary(_) => Err(CloseReason::Binary),
            Incoming::Text(text) => {
                self.handle_text(&text);
                Ok(())
            }
        }
    }

    fn handle_text(&mut self, text: &Utf8Bytes) {
        checkpoint(TaskName::Session, || text);
        let request = |reference, client_id| RequestMeta { reference, client_id, at: self.context.clock.now() };
        match self.connection.dialect.decode(text, self.connection.bound.as_ref()) {
            Ok(Request { reference, intent: Intent::Command(command) }) => {
                let request = request(reference, command.client_id().cloned());
                self.begin_command(request, command);
            }
            Ok(Request { reference, intent: Intent::Refresh(token) }) => {
                let request = request(reference, None);
                self.refresh(request, &token);
            }
            Ok(Request { reference, intent: Intent::Authenticate(_) }) => {
                let request = request(reference, None);
                self.reject(request, Reject::Conflict("Already authenticated"));
            }
            Err(bad) => {
                let request = request(bad.reference, bad.client_id);
                self.context.metrics.commands.with_label_values(&[Command::UNREADABLE, bad.reject.code()]).inc();
                self.reject(request, bad.reject);
            }
        }
    }

    /// Replaces the token with a newer one of the same user, which extends the connection.
    fn refresh(&mut self, request: RequestMeta, token: &Secret) {
        match self.context.auth.verify(token.reveal()) {
            Ok(identity) if identity.user == self.identity.user => {
                // An older token never shortens the stay.
                if !identity.replaces(&self.identity) {
                    return self.reject(request, Reject::Conflict("The token in use was issued later, and counts on"));
                }
                // The new token may have been revoked since its verification.
                if let Err(reject) = self.ticket.renew(&identity) {
                    return self.reject(request, reject);
                }
                self.expires_at = self.context.expiry(&identity);
                let until = identity.expires_at;
                self.identity = Arc::new(identity);
                self.push_frames(self.connection.dialect.refreshed(request, until));
            }
            Ok(_) => self.reject(request, Reject::Forbidden("The token is another user's")),
            Err(reject) => {
                let detail = reject.token_flaw().map(tracing::field::display);
                tracing::info!(connection = %self.connection.id(), reason = reject.code(), detail, "refresh refused");
                self.reject(request, reject);
            }
        }
    }

    fn begin_command(&mut self, request: RequestMeta, command: Command) {
        let ack = PendingAck::new(self.connection.id(), request.reference.clone(), command.recipient().cloned());
        let caller = Caller { ack: Some(Arc::new(ack)), ..self.caller() };
        let begun = self.context.chat.clone().begin(caller, command);
        self.beginning = Some(begun.map(move |begun| (request, begun)).boxed());
    }

    fn handle_begun(&mut self, (request, begun): (RequestMeta, Begun)) {
        match begun {
            // The client did not ask for a join that a signal required, so it is repeated, not reported.
            Begun::Done(answer) if self.signalled.ended(answer.as_ref().is_err_and(Reject::retryable)) => drop(answer),
            Begun::Done(answer) => self.reply(request, answer),
            Begun::Pending(answer) => self.pending.push(answer.map(move |answer| (request, answer))),
            // A client that marked the frame waits for its answer.
            Begun::Dropped(reject) if request.reference.is_some() => self.reject(request, reject),
            Begun::Dropped(_) => {}
        }
    }

    pub(super) fn caller(&self) -> Caller {
        Caller { identity: self.identity.clone(), connection: Some(self.connection.clone()), ack: None }
    }
}

/// The result of the command in `slot`; without one, the future never resolves.
async fn current<T>(slot: &mut Option<BoxFuture<'static, T>>) -> T {
    match slot {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}
