//! The loop: connects, takes what comes and what is typed, and connects again.

use std::time::{Duration, Instant};

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
    room::{Effect, Room},
    screen::{Gone, Screen},
};

/// How long the server may take to let a new connection in.
const JOIN_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection on which nothing came for so long is asked for a sign of life.
const SILENCE: Duration = Duration::from_secs(20);
/// How long that may take.
const PONG_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a frame may take to be written.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the goodbye may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a server that was never reached is tried.
const FIRST_TRIES: u32 = 6;
/// How long there may be no connection once the input has ended.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the last entries may take to come once all is stored.
const LAST_ENTRIES: Duration = Duration::from_secs(3);
/// How often a new token is tried where the last one was refused.
const TOKEN_TRIES: u32 = 2;

/// How it ended.
pub(super) enum Ended {
    /// The user left.
    Left,
    /// It can't go on: why.
    Failed(String),
    /// Nobody reads what is printed.
    Unread,
}

impl From<Gone> for Ended {
    fn from(_: Gone) -> Self {
        Self::Unread
    }
}

/// Why one connection is over.
enum Over {
    /// It ended so.
    End(End),
    /// All of it ends.
    Ended(Ended),
}

impl From<End> for Over {
    fn from(end: End) -> Self {
        Self::End(end)
    }
}

impl From<Gone> for Over {
    fn from(_: Gone) -> Self {
        Self::Ended(Ended::Unread)
    }
}

/// A user's chat.
pub(super) struct Talk {
    access: Access,
    pub(super) room: Room,
    screen: Screen,
    input: mpsc::Receiver<String>,
    /// When the input ended.
    ended_at: Option<Instant>,
    /// When everything was stored and only entries were to come.
    stored_at: Option<Instant>,
    /// Whether the server ever let us in.
    was_in: bool,
    /// Tries since it last did.
    tries: u32,
    token_tries: u32,
}

impl Talk {
    pub(super) fn new(access: Access, room: Room, screen: Screen, input: mpsc::Receiver<String>) -> Self {
        let (ended_at, stored_at) = (None, None);
        Self { access, room, screen, input, ended_at, stored_at, was_in: false, tries: 0, token_tries: 0 }
    }

    /// Chats until the user leaves, or it can't go on.
    pub(super) async fn run(&mut self) -> Ended {
        // One listener for all of it: a new one would not know of what came before it.
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
            let (why, after) = match self.judge(end) {
                Ok(again) => again,
                Err(why) => return Ended::Failed(why),
            };
            let pause = link::pause(self.tries, after);
            self.tries += 1;
            let note = format!("{why}; connecting again in {:.1} s", pause.as_secs_f32());
            if self.screen.note(&note).is_err() {
                return Ended::Unread;
            }
            if let Err(ended) = self.wait(pause, &mut interrupt).await {
                return ended;
            }
        }
    }

    async fn connect(&self) -> Result<Socket, End> {
        let url = self.access.url().map_err(End::Unreachable)?;
        link::connect(&url, &self.access.token().map_err(End::Useless)?).await
    }

    /// Whether to come again after this end; else why not.
    fn judge(&mut self, end: End) -> Result<(String, Option<Duration>), String> {
        match end {
            End::Again { why, after } if self.was_in || self.tries < FIRST_TRIES => Ok((why, after)),
            End::Again { why, .. } => Err(why),
            End::Unreachable(why) if self.was_in => Ok((why, None)),
            End::Unreachable(why) => Err(format!("{why}: {}", self.access.reach_remedy())),
            End::Token(why) if self.was_in && self.access.makes_tokens() && self.token_tries < TOKEN_TRIES => {
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
            End::Useless(why) => Err(why),
        }
    }

    /// Waits for the next try; what is typed meanwhile is kept.
    async fn wait(&mut self, pause: Duration, interrupt: &mut Signal) -> Result<(), Ended> {
        let until = Instant::now() + pause;
        loop {
            let patience = self.ended_at.map(|at| at + PATIENCE);
            if patience.is_some_and(|end| end <= Instant::now()) {
                return Err(Ended::Failed("the server did not come back".to_owned()));
            }
            let deadline = patience.map_or(until, |end| end.min(until));
            tokio::select! {
                () = sleep_until(deadline.into()) => if deadline == until { return Ok(()) },
                line = self.input.recv(), if self.reads() => {
                    let Some(line) = line else {
                        self.ended_at = Some(Instant::now());
                        if self.room.outgoing.is_empty() { return Err(Ended::Left) }
                        continue;
                    };
                    match Typed::read(&line) {
                        Typed::Say(text) => self.room.outgoing.push(text),
                        Typed::Quit => return Err(Ended::Left),
                        Typed::Help => self.screen.show(lines::HELP)?,
                        Typed::Bad(why) => self.bad(&why)?,
                        Typed::Who | Typed::History(_) => self.screen.note("not connected just now")?,
                        Typed::Nothing => {}
                    }
                    self.screen.prompt()?;
                }
                _ = interrupt.recv() => return Err(Ended::Left),
            }
        }
    }

    /// Whether typed lines are read: the input goes on, and not too much waits already.
    fn reads(&self) -> bool {
        self.ended_at.is_none() && self.room.outgoing.has_room()
    }

    /// A line that can't be done; a script is to know of it at the end.
    fn bad(&mut self, why: &str) -> Result<(), Gone> {
        self.room.failed += 1;
        self.screen.note(why)
    }

    /// Serves one connection until it ends.
    async fn serve(&mut self, mut socket: Socket, interrupt: &mut Signal) -> Over {
        let mut alive = Alive::new();
        let mut advised = None;
        loop {
            let now = Instant::now();
            if self.is_done(now) {
                // The server has everything: it need not have heard the goodbye.
                let _ = timeout(CLOSE_TIMEOUT, socket.close(None)).await;
                return Over::Ended(Ended::Left);
            }
            let (due, reads) = (self.due(&alive, now), self.reads() && self.room.is_joined());
            let step = tokio::select! {
                message = socket.next() => match message {
                    Some(Ok(message)) => {
                        alive.heard();
                        self.hear(message, &mut advised)
                    }
                    Some(Err(error)) => Err(End::Again { why: format!("the connection was lost ({error})"), after: advised }.into()),
                    None => Err(link::closed(None, advised).into()),
                },
                line = self.input.recv(), if reads => self.typed(line),
                () = sleep_until(due.into()) => self.tick(&mut alive),
                _ = interrupt.recv() => Err(Over::Ended(Ended::Left)),
            };
            let step = match step {
                Ok(effects) => self.carry_out(&mut socket, effects, &mut advised).await,
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

    /// Whether the input ended and everything that was typed is stored.
    fn is_done(&mut self, now: Instant) -> bool {
        if self.ended_at.is_none() || !self.room.outgoing.is_empty() || !self.room.is_joined() {
            return false;
        }
        let stored_at = *self.stored_at.get_or_insert(now);
        self.room.is_settled() || stored_at + LAST_ENTRIES <= now
    }

    fn hear(&mut self, message: Message, advised: &mut Option<Duration>) -> Result<Vec<Effect>, Over> {
        match message {
            Message::Text(text) => {
                // What can't be read is of a newer server, and nothing that this client knows.
                let Ok(frame) = serde_json::from_str::<Frame>(&text) else { return Ok(Vec::new()) };
                let effects = self.room.take(frame, Instant::now());
                if self.room.is_joined() {
                    (self.was_in, self.tries, self.token_tries) = (true, 0, 0);
                }
                Ok(effects)
            }
            Message::Close(frame) => {
                let frame: Option<CloseFrame> = frame;
                Err(link::closed(frame.as_ref(), *advised).into())
            }
            _ => Ok(Vec::new()),
        }
    }

    fn typed(&mut self, line: Option<String>) -> Result<Vec<Effect>, Over> {
        let Some(line) = line else {
            self.ended_at = Some(Instant::now());
            return Ok(Vec::new());
        };
        let effects = match Typed::read(&line) {
            Typed::Say(text) => {
                self.room.outgoing.push(text);
                self.room.push_on(Instant::now())
            }
            Typed::Who => vec![self.room.who()],
            Typed::History(count) => vec![self.room.last(count)],
            Typed::Help => vec![Effect::Show(lines::HELP.to_owned())],
            // What was typed before is still to be stored.
            Typed::Quit => {
                self.ended_at = Some(Instant::now());
                if !self.room.outgoing.is_empty() {
                    self.screen.note("your last lines are not stored yet; Ctrl-C leaves without them")?;
                }
                Vec::new()
            }
            Typed::Bad(why) => {
                self.bad(&why)?;
                Vec::new()
            }
            Typed::Nothing => Vec::new(),
        };
        self.screen.prompt()?;
        Ok(effects)
    }

    /// When something is to be done though nothing comes.
    fn due(&self, alive: &Alive, now: Instant) -> Instant {
        let last_entries = self.stored_at.map(|at| at + LAST_ENTRIES);
        let others = [self.room.outgoing.due(), last_entries].into_iter().flatten();
        others.fold(alive.due(self.room.is_joined()), Instant::min).max(now)
    }

    fn tick(&mut self, alive: &mut Alive) -> Result<Vec<Effect>, Over> {
        let now = Instant::now();
        if !self.room.is_joined() && alive.since + JOIN_TIMEOUT <= now {
            return Err(End::again("the server did not let us in").into());
        }
        let mut effects = self.room.push_on(now);
        match alive.pinged {
            Some(at) if at + PONG_TIMEOUT <= now => return Err(End::again("the server is silent").into()),
            None if alive.heard + SILENCE <= now => {
                alive.pinged = Some(now);
                // Any text frame makes a server answer.
                effects.push(Effect::Send(r#"{"type":"ping"}"#.to_owned()));
            }
            _ => {}
        }
        Ok(effects)
    }

    async fn carry_out(
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
                    Ok(Err(_)) => self.last_words(socket, advised).await?,
                    Err(_) => return Err(End::again("the connection takes nothing any more").into()),
                },
                Effect::Restarting(after) => *advised = Some(after),
                Effect::Reconnect(after) => {
                    let why = "this connection is given up".to_owned();
                    return Err(End::Again { why, after }.into());
                }
                Effect::Stop(why) => return Err(Over::Ended(Ended::Failed(why))),
            }
        }
        Ok(())
    }

    /// A write failed: what the server said before it closed is still to be read.
    async fn last_words(&mut self, socket: &mut Socket, advised: &mut Option<Duration>) -> Result<(), Over> {
        while let Ok(Some(Ok(message))) = timeout(CLOSE_TIMEOUT, socket.next()).await {
            for effect in self.hear(message, advised)? {
                match effect {
                    Effect::Show(line) => self.screen.show(&line)?,
                    Effect::Restarting(after) => *advised = Some(after),
                    Effect::Stop(why) => return Err(Over::Ended(Ended::Failed(why))),
                    // Nothing can be sent any more.
                    Effect::Note(_) | Effect::Send(_) | Effect::Reconnect(_) => {}
                }
            }
        }
        Err(link::closed(None, *advised).into())
    }
}

/// Whether the server still answers.
struct Alive {
    since: Instant,
    heard: Instant,
    pinged: Option<Instant>,
}

impl Alive {
    fn new() -> Self {
        let now = Instant::now();
        Self { since: now, heard: now, pinged: None }
    }

    fn heard(&mut self) {
        (self.heard, self.pinged) = (Instant::now(), None);
    }

    fn due(&self, joined: bool) -> Instant {
        let sign = self.pinged.map_or(self.heard + SILENCE, |at| at + PONG_TIMEOUT);
        if joined { sign } else { sign.min(self.since + JOIN_TIMEOUT) }
    }
}
