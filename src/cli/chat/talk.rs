//! [`Talk`]: the main loop. It connects, handles frames and typed lines, and reconnects.

use std::{
    io,
    time::{Duration, Instant},
};

use futures_util::{SinkExt, StreamExt};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    time::{sleep_until, timeout},
};
use tokio_tungstenite::tungstenite::{Message, protocol::CloseFrame};

use super::{
    access::Access,
    frames::Frame,
    lines::{self, Typed},
    link::{self, End, Socket},
    liveness::Liveness,
    room::{Effect, Room},
    screen::{OutputError, Screen},
};

/// Maximum time to write a frame.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum time of the close handshake.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Maximum number of tries before the first join.
const TRIES_BEFORE_JOIN: u32 = 6;
/// Maximum time without a connection once the input has ended.
const OFFLINE_MAX: Duration = Duration::from_secs(60);
/// Maximum time for the last entries to arrive once all lines are stored.
const LAST_ENTRIES_TIMEOUT: Duration = Duration::from_secs(3);
/// Maximum number of tries with a new token after a refused one.
const TOKEN_TRIES: u32 = 2;
/// The answer to a request that needs the server.
const NOT_CONNECTED: &str = "not connected now: try again later";

/// Reason why the client ended.
pub(super) enum Ended {
    /// The user left.
    Left,
    /// An error, with its message.
    Failed(String),
    /// Standard output can't be written.
    Unread(io::Error),
}

impl From<OutputError> for Ended {
    fn from(OutputError(error): OutputError) -> Self {
        Self::Unread(error)
    }
}

/// Reason why one connection ended.
enum Over {
    /// The connection ended; the client may reconnect.
    End(End),
    /// The client ends.
    Ended(Ended),
}

impl From<End> for Over {
    fn from(end: End) -> Self {
        Self::End(end)
    }
}

impl From<OutputError> for Over {
    fn from(error: OutputError) -> Self {
        Self::Ended(error.into())
    }
}

/// A running chat client.
pub(super) struct Talk {
    access: Access,
    pub(super) room: Room,
    screen: Screen,
    input: mpsc::Receiver<Typed>,
    /// A request for the history, which waits until the lines typed before it are stored.
    held: Option<Typed>,
    /// Time at which the input ended.
    ended_at: Option<Instant>,
    /// Time at which all lines were stored and only entries could still arrive.
    stored_at: Option<Instant>,
    /// True after the first join.
    ever_joined: bool,
    /// Tries since the last join.
    tries: u32,
    token_tries: u32,
    /// The reason for the lost connection that the user was shown.
    shown_reason: Option<String>,
}

impl Talk {
    pub(super) fn new(access: Access, room: Room, screen: Screen, input: mpsc::Receiver<Typed>) -> Self {
        let (ended_at, stored_at) = (None, None);
        Self {
            access,
            room,
            screen,
            input,
            held: None,
            ended_at,
            stored_at,
            ever_joined: false,
            tries: 0,
            token_tries: 0,
            shown_reason: None,
        }
    }

    /// Runs until the user leaves or an error ends the client.
    pub(super) async fn run(&mut self) -> Ended {
        // One listener for the whole run: a new one would miss a signal that came before it.
        let mut interrupt = match signal(SignalKind::interrupt()) {
            Ok(interrupt) => interrupt,
            Err(error) => return Ended::Failed(format!("Ctrl-C can't be listened for: {error}")),
        };
        loop {
            let over = match self.connect().await {
                Ok(socket) => self.serve(socket, &mut interrupt).await,
                Err(end) => Over::End(end),
            };
            self.room.connection_lost();
            let end = match over {
                Over::Ended(ended) => return ended,
                Over::End(end) => end,
            };
            let (why, after) = match self.retry_decision(end) {
                Ok(again) => again,
                Err(why) => return Ended::Failed(why),
            };
            let pause = link::pause(self.tries, after);
            self.tries += 1;
            // Further tries that fail for the same reason are not reported again.
            if self.shown_reason.as_ref() != Some(&why) {
                let note = format!("{why}; reconnecting in {:.1} s, then repeatedly", pause.as_secs_f32());
                if let Err(error) = self.screen.note(&note) {
                    return error.into();
                }
                self.shown_reason = Some(why);
            }
            if let Err(ended) = self.wait(pause, &mut interrupt).await {
                return ended;
            }
        }
    }

    async fn connect(&self) -> Result<Socket, End> {
        let url = self.access.url().map_err(End::unreachable)?;
        link::connect(&url, &self.access.token().map_err(End::Fatal)?).await
    }

    /// Decides on a retry after this end: the reason and the advised pause, or the error that ends the client.
    fn retry_decision(&mut self, end: End) -> Result<(String, Option<Duration>), String> {
        match end {
            End::Again { why, after } if self.ever_joined || self.tries < TRIES_BEFORE_JOIN => Ok((why, after)),
            End::Again { why, .. } => Err(why),
            End::Unreachable { why, .. } if self.ever_joined => Ok((why, None)),
            End::Unreachable { why, remedy } => {
                Err(format!("{why}: {}", remedy.unwrap_or_else(|| self.access.reach_remedy().to_owned())))
            }
            End::Token(why) if self.ever_joined && self.access.mints_tokens() && self.token_tries < TOKEN_TRIES => {
                self.token_tries += 1;
                Ok((why, None))
            }
            End::Token(why) => {
                Err(format!("the server does not take the token ({why}): {}", self.access.token_remedy()))
            }
            End::LineTooLarge => {
                let line = self.room.outgoing.drop_sent().unwrap_or_default();
                self.room.failed += 1;
                Ok((format!("NOT SENT (too large for this server): {}", lines::clean(&line)), None))
            }
            End::Fatal(why) => Err(why),
        }
    }

    /// Waits for the next try. Typed lines are queued meanwhile.
    async fn wait(&mut self, pause: Duration, interrupt: &mut Signal) -> Result<(), Ended> {
        let until = Instant::now() + pause;
        if self.held.take().is_some() {
            self.screen.note(NOT_CONNECTED)?;
        }
        loop {
            let give_up_at = self.ended_at.map(|at| at + OFFLINE_MAX);
            if give_up_at.is_some_and(|end| end <= Instant::now()) {
                return Err(Ended::Failed("the server did not come back".to_owned()));
            }
            let deadline = give_up_at.map_or(until, |end| end.min(until));
            tokio::select! {
                () = sleep_until(deadline.into()) => if deadline == until { return Ok(()) },
                line = self.input.recv(), if self.accepts_input() => {
                    let Some(line) = line else {
                        self.ended_at = Some(Instant::now());
                        if self.room.outgoing.is_empty() { return Err(Ended::Left) }
                        continue;
                    };
                    match line {
                        Typed::Message(text) => self.room.outgoing.push(text),
                        Typed::Quit => return Err(Ended::Left),
                        Typed::Help => self.screen.show(lines::HELP)?,
                        Typed::Invalid(why) => self.reject_line(&why)?,
                        Typed::Who | Typed::History(_) => self.screen.note(NOT_CONNECTED)?,
                        Typed::Nothing => {}
                    }
                    self.screen.prompt()?;
                }
                _ = interrupt.recv() => return Err(Ended::Left),
            }
        }
    }

    /// True if typed lines are read: the input has not ended, the queue has room, and no line is held.
    fn accepts_input(&self) -> bool {
        self.ended_at.is_none() && self.room.outgoing.has_room() && self.held.is_none()
    }

    /// Reports an invalid line and counts it, so that the exit code tells a script.
    fn reject_line(&mut self, why: &str) -> Result<(), OutputError> {
        self.room.failed += 1;
        self.screen.note(why)
    }

    /// Serves one connection until it ends.
    async fn serve(&mut self, mut socket: Socket, interrupt: &mut Signal) -> Over {
        let mut liveness = Liveness::new();
        let mut advised = None;
        loop {
            let now = Instant::now();
            if self.is_done(now) {
                // All lines are stored, so the close handshake may fail.
                let _ = timeout(CLOSE_TIMEOUT, socket.close(None)).await;
                return Over::Ended(Ended::Left);
            }
            let (due, reads_input) = (self.due(&liveness, now), self.accepts_input() && self.room.is_joined());
            let step = tokio::select! {
                message = socket.next() => match message {
                    Some(Ok(message)) => {
                        liveness.frame_received();
                        self.handle_message(message, &mut advised)
                    }
                    Some(Err(error)) => Err(link::end_of_error(&error, advised).into()),
                    None => Err(link::end_of_close(None, advised).into()),
                },
                line = self.input.recv(), if reads_input => self.handle_line(line),
                () = sleep_until(due.into()) => self.tick(&mut liveness),
                _ = interrupt.recv() => Err(Over::Ended(Ended::Left)),
            };
            let step = step.and_then(|mut effects| {
                if self.held.is_some() && self.room.outgoing.is_empty() && self.room.is_joined() {
                    let held = self.held.take();
                    effects.extend(self.handle_line(held)?);
                }
                Ok(effects)
            });
            let step = match step {
                Ok(effects) => self.apply_effects(&mut socket, effects, &mut advised).await,
                Err(over) => Err(over),
            };
            if let Err(over) = step {
                if matches!(over, Over::Ended(_)) {
                    let _ = timeout(CLOSE_TIMEOUT, socket.close(None)).await;
                }
                return over;
            }
        }
    }

    /// True if the input has ended, all lines are stored, and the last entries have arrived or timed out.
    fn is_done(&mut self, now: Instant) -> bool {
        if self.ended_at.is_none() || self.held.is_some() || !self.room.outgoing.is_empty() || !self.room.is_joined() {
            return false;
        }
        let stored_at = *self.stored_at.get_or_insert(now);
        self.room.is_settled() || stored_at + LAST_ENTRIES_TIMEOUT <= now
    }

    fn handle_message(&mut self, message: Message, advised: &mut Option<Duration>) -> Result<Vec<Effect>, Over> {
        match message {
            Message::Text(text) => {
                // An unreadable frame is from a newer server; ignore it.
                let Ok(frame) = serde_json::from_str::<Frame>(&text) else { return Ok(Vec::new()) };
                let effects = self.room.handle_frame(frame, Instant::now());
                if self.room.is_joined() {
                    (self.ever_joined, self.tries, self.token_tries, self.shown_reason) = (true, 0, 0, None);
                }
                Ok(effects)
            }
            Message::Close(frame) => {
                let frame: Option<CloseFrame> = frame;
                Err(link::end_of_close(frame.as_ref(), *advised).into())
            }
            _ => Ok(Vec::new()),
        }
    }

    fn handle_line(&mut self, line: Option<Typed>) -> Result<Vec<Effect>, Over> {
        let Some(line) = line else {
            self.ended_at = Some(Instant::now());
            return Ok(Vec::new());
        };
        let effects = match line {
            Typed::Message(text) => {
                self.room.outgoing.push(text);
                self.room.send_next(Instant::now())
            }
            Typed::Who => vec![self.room.request_members()],
            // The lines typed before it must be in it.
            Typed::History(_) if !self.room.outgoing.is_empty() => {
                self.held = Some(line);
                return Ok(Vec::new());
            }
            Typed::History(count) => vec![self.room.request_history(count)],
            Typed::Help => vec![Effect::Show(lines::HELP.to_owned())],
            // Earlier lines must still be stored, so `/quit` only ends the input.
            Typed::Quit => {
                self.ended_at = Some(Instant::now());
                if !self.room.outgoing.is_empty() {
                    self.screen.note("your last lines are not stored yet; Ctrl-C leaves without them")?;
                }
                Vec::new()
            }
            Typed::Invalid(why) => {
                self.reject_line(&why)?;
                Vec::new()
            }
            Typed::Nothing => Vec::new(),
        };
        self.screen.prompt()?;
        Ok(effects)
    }

    /// Time of the next action if nothing arrives before.
    fn due(&self, liveness: &Liveness, now: Instant) -> Instant {
        let last_entries = self.stored_at.map(|at| at + LAST_ENTRIES_TIMEOUT);
        let others = [self.room.outgoing.due(), last_entries].into_iter().flatten();
        others.fold(liveness.due(self.room.is_joined()), Instant::min).max(now)
    }

    fn tick(&mut self, liveness: &mut Liveness) -> Result<Vec<Effect>, Over> {
        let now = Instant::now();
        let pings = liveness.check(self.room.is_joined(), now)?;
        let mut effects = self.room.send_next(now);
        if pings {
            // The server answers every text frame.
            effects.push(Effect::Send(r#"{"type":"ping"}"#.to_owned()));
        }
        Ok(effects)
    }

    async fn apply_effects(
        &mut self,
        socket: &mut Socket,
        effects: Vec<Effect>,
        advised: &mut Option<Duration>,
    ) -> Result<(), Over> {
        for effect in effects {
            match effect {
                Effect::Show(line) => self.screen.show(&line)?,
                Effect::Note(line) => self.screen.note(&line)?,
                Effect::Send(text) => match timeout(WRITE_TIMEOUT, socket.send(Message::text(text))).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) => self.read_remaining(socket, advised).await?,
                    Err(_) => return Err(End::again("the connection accepts no more data").into()),
                },
                Effect::Restarting(after) => *advised = Some(after),
                Effect::Reconnect(after) => {
                    let why = "the client closed this connection".to_owned();
                    return Err(End::Again { why, after }.into());
                }
                Effect::Stop(why) => return Err(Over::Ended(Ended::Failed(why))),
            }
        }
        Ok(())
    }

    /// Reads the remaining frames after a failed write, because they may hold the server's reason for closing.
    async fn read_remaining(&mut self, socket: &mut Socket, advised: &mut Option<Duration>) -> Result<(), Over> {
        while let Ok(Some(Ok(message))) = timeout(CLOSE_TIMEOUT, socket.next()).await {
            for effect in self.handle_message(message, advised)? {
                match effect {
                    Effect::Show(line) => self.screen.show(&line)?,
                    Effect::Restarting(after) => *advised = Some(after),
                    Effect::Stop(why) => return Err(Over::Ended(Ended::Failed(why))),
                    // The socket can't send any more.
                    Effect::Note(_) | Effect::Send(_) | Effect::Reconnect(_) => {}
                }
            }
        }
        Err(link::end_of_close(None, *advised).into())
    }
}
