//! An open connection: one loop over what comes in, what is under way, what the hub says, and the clock.

use std::{collections::VecDeque, pin::pin, sync::Arc};

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesOrdered};
use tokio::time::{Instant, sleep_until};
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::{
    context::{CLOSE_TIMEOUT, Context},
    heartbeat::{Arrivals, Heartbeat},
    socket::{Incoming, Socket},
};
use crate::{
    chat::{Begun, Caller, CommandReply, Connection},
    config::Secret,
    dialect::{AutoJoin, Dialect, Greeting, Intent, Request, RequestMeta},
    model::{CloseReason, Command, Identity, Reject, Seq, SinceSeq, UserId},
    outbox::{Frame, OutboxEvent, Signal},
};

/// A command's answer, with what it answers.
type Answered = (RequestMeta, Result<CommandReply, Reject>);

/// An open connection.
pub(super) struct Open {
    socket: Socket,
    identity: Arc<Identity>,
    connection: Arc<Connection>,
    context: Arc<Context>,
    /// The command that is being begun; the next waits for it.
    beginning: Option<BoxFuture<'static, (RequestMeta, Begun)>>,
    /// Commands that wait for the store, in the order in which they came: so are their answers.
    pending: FuturesOrdered<BoxFuture<'static, Answered>>,
    /// AutoJoin the hub asked for, until their turn comes.
    waiting: VecDeque<Command>,
    heartbeat: Heartbeat,
    arrivals: Arrivals,
    /// Frames were put into the outbox and are to be written.
    unwritten: bool,
    opened_at: Instant,
    expires_at: Instant,
}

impl Open {
    pub(super) fn new(
        socket: Socket,
        identity: Arc<Identity>,
        connection: Arc<Connection>,
        context: Arc<Context>,
    ) -> Self {
        let dialect = connection.dialect.label();
        context.metrics.connections.with_label_values(&[dialect]).inc();
        context.metrics.opens.with_label_values(&[dialect]).inc();
        let timing = &context.config.timing;
        Self {
            socket,
            heartbeat: Heartbeat::new(timing.ping_interval, timing.pong_timeout),
            connection,
            beginning: None,
            pending: FuturesOrdered::new(),
            waiting: VecDeque::new(),
            arrivals: Arrivals::default(),
            unwritten: false,
            opened_at: Instant::now(),
            expires_at: context.expiry(&identity),
            identity,
            context,
        }
    }

    /// Listens to what route and dialect say, and greets.
    pub(super) async fn begin(&mut self, since: Option<Seq>) -> Result<(), Reject> {
        let connection = &self.connection;
        let beginning = self.context.chat.begin_listening(&self.identity, connection, since).await?;
        let bound = connection.bound.as_ref().zip(beginning.head);
        let anew = beginning.anew.iter().filter_map(|(log, first, head)| connection.dialect.resync(log, *first, *head));
        let (identity, at, present) = (&*self.identity, self.context.clock.now(), &beginning.present[..]);
        let greeting = Greeting { identity, connection: connection.id(), bound, present, at };
        connection.outbox.greet(connection.dialect.greet(&greeting).into_iter().chain(anew));
        self.context.tasks.spawn(self.context.chat.clone().replay(connection.clone(), beginning.replays));
        Ok(())
    }

    /// What is spoken.
    pub(super) fn dialect(&self) -> Dialect {
        self.connection.dialect
    }

    /// Gives up a connection that could not begin.
    pub(super) async fn abandon(self: Box<Self>) -> Socket {
        self.end().await
    }

    /// Serves until something ends the connection.
    pub(super) async fn run(mut self: Box<Self>) -> (Socket, CloseReason, UserId) {
        let reason = match self.serve().await {
            Ok(never) => match never {},
            Err(reason) => reason,
        };
        let user = self.identity.user.clone();
        if reason != CloseReason::ClientLeft {
            Box::pin(self.finish_pending()).await;
        }
        (Box::pin(self.end()).await, reason, user)
    }

    async fn end(self: Box<Self>) -> Socket {
        let Self { socket, identity, connection, context, beginning, opened_at, .. } = *self;
        context.metrics.connections.with_label_values(&[connection.dialect.label()]).dec();
        context.metrics.connection_duration.observe(opened_at.elapsed().as_secs_f64());
        match beginning {
            None => context.chat.disconnect(&identity, &connection).await,
            // What a join holds is known when it has ended: let go of before, it would be taken from others.
            Some(beginning) => drop(context.tasks.clone().spawn(async move {
                drop(beginning.await);
                context.chat.disconnect(&identity, &connection).await;
            })),
        }
        socket
    }

    /// What was taken is answered before the close, where the store answers soon.
    async fn finish_pending(&mut self) {
        let deadline = Instant::now() + CLOSE_TIMEOUT;
        if let Some(beginning) = &mut self.beginning
            && let Ok(begun) = tokio::time::timeout_at(deadline, beginning).await
        {
            self.beginning = None;
            self.begun(begun);
        }
        while let Ok(Some((asked, answer))) = tokio::time::timeout_at(deadline, self.pending.next()).await {
            self.answer(asked, answer);
        }
        self.connection.outbox.flush();
    }

    async fn serve(&mut self) -> Result<std::convert::Infallible, CloseReason> {
        let (outbox, context) = (self.connection.outbox.clone(), self.context.clone());
        let mut leave = pin!(context.drain.turn());
        let mut timer = pin!(sleep_until(self.due()));
        loop {
            if timer.deadline() != self.due() {
                timer.as_mut().reset(self.due());
            }
            let takes_frames = self.takes_frames();
            // In this order: what the hub said before the client saw it takes effect before what the client says of it.
            tokio::select! {
                biased;
                woken = outbox.next_event() => self.woken(woken)?,
                begun = current(&mut self.beginning) => {
                    self.beginning = None;
                    self.begun(begun);
                }
                Some((asked, answer)) = self.pending.next() => self.answer(asked, answer),
                retry_after = &mut leave => return Err(CloseReason::Restart(retry_after)),
                () = &mut timer => self.tick()?,
                incoming = self.socket.next(), if takes_frames => self.take(incoming?)?,
            }
            // What else is known already shares the write.
            while let Some(Some((asked, answer))) = self.pending.next().now_or_never() {
                self.answer(asked, answer);
            }
            if std::mem::take(&mut self.unwritten) {
                outbox.flush();
            }
            if self.takes_commands()
                && let Some(command) = self.next_waiting()
            {
                self.start(RequestMeta::at(self.context.clock.now()), command);
            }
        }
    }

    /// Puts frames into the outbox; they are written before the loop waits again.
    fn put(&mut self, frames: impl IntoIterator<Item = Frame>) {
        self.unwritten |= self.connection.outbox.push(frames);
    }

    /// What the hub asked for and is still to be done: what was joined meanwhile is not joined anew.
    fn next_waiting(&mut self) -> Option<Command> {
        let connection = &self.connection;
        let done = |command: &Command| matches!(command, Command::Join { conversation, .. } if connection.listens_to(conversation));
        while self.waiting.front().is_some_and(done) {
            self.waiting.pop_front();
        }
        self.waiting.pop_front()
    }

    /// Whether the next command may begin.
    fn takes_commands(&self) -> bool {
        self.beginning.is_none() && self.pending.len() < self.context.config.limits.commands_in_flight
    }

    /// Whether what the client sends is read now.
    fn takes_frames(&self) -> bool {
        self.takes_commands() && self.waiting.is_empty()
    }

    fn due(&self) -> Instant {
        self.heartbeat.due().min(self.expires_at)
    }

    fn tick(&mut self) -> Result<(), CloseReason> {
        let now = Instant::now();
        if self.expires_at <= now {
            return Err(CloseReason::TokenExpired);
        }
        if self.heartbeat.is_overdue(now) {
            if self.takes_frames() {
                return Err(CloseReason::Silent);
            }
            // Nothing was read meanwhile: the answer may well be there.
            self.heartbeat.wait_on(now);
        }
        if self.heartbeat.is_ping_due(now) {
            self.connection.outbox.send([Frame::ping(self.arrivals.ping())]);
        }
        Ok(())
    }

    fn woken(&mut self, woken: OutboxEvent) -> Result<(), CloseReason> {
        match woken {
            OutboxEvent::Overflowed => Err(CloseReason::TooSlow),
            OutboxEvent::Broken => Err(CloseReason::ClientLeft),
            OutboxEvent::Signal(Signal::Added { conversation, since }) => {
                // What a user is added to finds their sockets: some join by themselves.
                let room = self.waiting.len() < self.context.config.limits.conversations_per_connection;
                let joins = self.connection.dialect.joins() != AutoJoin::Nothing;
                if joins && room && !self.connection.listens_to(&conversation) {
                    self.waiting.push_back(Command::Join { conversation, since: Some(SinceSeq::known(since)) });
                }
                Ok(())
            }
            OutboxEvent::Signal(Signal::Removed(conversation)) => {
                if self.connection.bound.as_ref() == Some(&conversation) {
                    return Err(CloseReason::Refused(Reject::NotMember));
                }
                self.waiting.push_back(Command::Leave { conversation });
                Ok(())
            }
            OutboxEvent::Signal(Signal::Delivered(conversation, seq)) => {
                self.arrivals.hand(conversation, seq);
                self.heartbeat.soon();
                Ok(())
            }
            OutboxEvent::Signal(Signal::Failed { client_id, reject }) => {
                let asked = RequestMeta { client_id, ..RequestMeta::at(self.context.clock.now()) };
                self.say(asked, reject);
                Ok(())
            }
        }
    }

    fn take(&mut self, incoming: Incoming) -> Result<(), CloseReason> {
        self.heartbeat.alive();
        match incoming {
            Incoming::Ping => Ok(()),
            Incoming::Pong(number) => {
                if let Some(arrived) = number.and_then(|number| self.arrivals.pong(number)) {
                    self.context.tasks.spawn(self.context.chat.clone().note_delivered(self.caller(), arrived));
                }
                Ok(())
            }
            Incoming::Binary(_) => Err(CloseReason::Binary),
            Incoming::Text(text) => {
                self.read(&text);
                Ok(())
            }
        }
    }

    fn read(&mut self, text: &Utf8Bytes) {
        let asked = |reference, client_id| RequestMeta { reference, client_id, at: self.context.clock.now() };
        match self.connection.dialect.decode(text, self.connection.bound.as_ref()) {
            Ok(Request { reference, intent: Intent::Command(command) }) => {
                let asked = asked(reference, command.client_id().cloned());
                self.start(asked, command);
            }
            Ok(Request { reference, intent: Intent::Refresh(token) }) => {
                let asked = asked(reference, None);
                self.refresh(asked, &token);
            }
            Ok(Request { reference, intent: Intent::Authenticate(_) }) => {
                let asked = asked(reference, None);
                self.say(asked, Reject::Conflict("Already authenticated"));
            }
            Err(bad) => {
                let asked = asked(bad.reference, None);
                self.context.metrics.commands.with_label_values(&[Command::UNREADABLE, bad.reject.code()]).inc();
                self.say(asked, bad.reject);
            }
        }
    }

    /// A fresh token of the same user extends the stay.
    fn refresh(&mut self, asked: RequestMeta, token: &Secret) {
        match self.context.auth.verify(token.reveal()) {
            Ok(identity) if identity.user == self.identity.user => {
                let until = identity.expires_at;
                self.expires_at = self.context.expiry(&identity);
                self.identity = Arc::new(identity);
                self.put(self.connection.dialect.refreshed(asked, until));
            }
            Ok(_) => self.say(asked, Reject::Forbidden("The token is another user's")),
            Err(reject) => self.say(asked, reject),
        }
    }

    fn start(&mut self, asked: RequestMeta, command: Command) {
        let begun = self.context.chat.clone().begin(self.caller(), command);
        self.beginning = Some(begun.map(move |begun| (asked, begun)).boxed());
    }

    fn begun(&mut self, (asked, begun): (RequestMeta, Begun)) {
        match begun {
            Begun::Done(answer) => self.answer(asked, answer),
            Begun::Pending(answer) => self.pending.push_back(answer.map(move |answer| (asked, answer)).boxed()),
        }
    }

    fn answer(&mut self, asked: RequestMeta, answer: Result<CommandReply, Reject>) {
        match answer {
            Ok(CommandReply { reply, replays }) => {
                self.put(self.connection.dialect.reply(asked, &reply));
                if !replays.is_empty() {
                    self.context.tasks.spawn(self.context.chat.clone().replay(self.connection.clone(), replays));
                }
            }
            Err(reject) => self.say(asked, reject),
        }
    }

    fn say(&mut self, asked: RequestMeta, reject: Reject) {
        self.put([self.connection.dialect.reject(asked, &reject)]);
    }

    fn caller(&self) -> Caller {
        Caller { identity: self.identity.clone(), connection: Some(self.connection.clone()) }
    }
}

/// The command that is being begun; without one, nothing ever.
async fn current<T>(slot: &mut Option<BoxFuture<'static, T>>) -> T {
    match slot {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}
