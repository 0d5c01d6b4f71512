//! One user of a run: connects, joins its room, sends when it is told to, and counts what it receives.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use futures_util::{SinkExt, StreamExt};
use tokio::{
    net::TcpStream,
    sync::mpsc,
    time::{Instant, timeout},
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async_with_config,
    tungstenite::{
        Error, Message,
        client::IntoClientRequest,
        http::{HeaderValue, header},
    },
};

use super::{plan::Plan, speech::Heard, tally::Tally, tokens::UserToken};
use crate::model::{ConversationId, Seq};

/// Maximum time until a connection is open and has joined its room.
const OPENING: Duration = Duration::from_secs(30);
/// Maximum time to close a connection.
const CLOSING: Duration = Duration::from_secs(2);

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// The state that all users of a run share.
pub(super) struct Run {
    pub(super) plan: Arc<Plan>,
    /// Tells the messages of this run from those of others.
    pub(super) tag: String,
    pub(super) rooms: Vec<ConversationId>,
    pub(super) tally: Tally,
    /// The time from which messages are due.
    pub(super) began: OnceLock<Instant>,
}

/// The messages that a user has received and stored by the end of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Listener {
    pub(super) room: u32,
    /// False if the connection ended before the run.
    pub(super) lasted: bool,
    /// Messages, each counted once.
    pub(super) received: u64,
    /// The user's own stored messages.
    pub(super) own: u64,
}

impl Run {
    /// The text of a message.
    fn text(&self, message: u64) -> String {
        let mut text = format!("load {} {message} ", self.tag);
        text.extend(std::iter::repeat_n('x', (self.plan.bytes as usize).saturating_sub(text.len())));
        text
    }

    /// The message of this text; none if it is not of this run.
    fn message_of(&self, text: &str) -> Option<u64> {
        text.strip_prefix("load ")?.strip_prefix(&self.tag)?.split_whitespace().next()?.parse().ok()
    }

    fn client_id(&self, message: u64) -> String {
        format!("load-{}-{message}", self.tag)
    }

    /// The message with this `client_id`; none if it is not of this run.
    fn message_with(&self, client_id: &str) -> Option<u64> {
        client_id.strip_prefix("load-")?.strip_prefix(&self.tag)?.strip_prefix('-')?.parse().ok()
    }

    /// The time since a message was due; none if it is not measured.
    fn late(&self, message: u64) -> Option<Duration> {
        let began = self.began.get().filter(|_| self.plan.is_measured(message))?;
        Some(began.elapsed().saturating_sub(self.plan.due(message)))
    }
}

/// A user while the run lasts.
struct User<'a> {
    run: &'a Run,
    at: u32,
    room: &'a ConversationId,
    socket: Socket,
    last: Seq,
    listener: Listener,
}

/// Serves a user until `orders` ends. Each order is a message to send. `opened` gets true once the user listens, or false.
pub(super) async fn serve(
    run: Arc<Run>,
    at: u32,
    user: UserToken,
    mut orders: mpsc::Receiver<u64>,
    opened: mpsc::UnboundedSender<bool>,
) -> Option<Listener> {
    let room = run.plan.room_of(at);
    let id = run.rooms.get(room as usize)?;
    let began = Instant::now();
    let opening = timeout(OPENING, open(&run, id, &user.token)).await;
    let socket = opening.unwrap_or_else(|_| Err(format!("not open after {} s", OPENING.as_secs())));
    let socket = match socket {
        Ok(socket) => socket,
        Err(why) => {
            run.tally.counts().add_not_opened(&why);
            let _ended = opened.send(false);
            return None;
        }
    };
    run.tally.counts().add_opened(began.elapsed());
    let _ended = opened.send(true);
    let listener = Listener { room, lasted: true, received: 0, own: 0 };
    let mut user = User { run: &run, at, room: id, socket, last: 0, listener };
    if let Err(why) = user.talk(&mut orders).await {
        run.tally.counts().add_lost(&why);
        user.listener.lasted = false;
    }
    let _late = timeout(CLOSING, user.socket.close(None)).await;
    Some(user.listener)
}

/// Connects, and waits until the room is joined.
async fn open(run: &Run, room: &ConversationId, token: &str) -> Result<Socket, String> {
    let speech = run.plan.speech;
    let url = run.plan.target.socket(&speech.path(room));
    let mut request = url.as_str().into_client_request().map_err(|error| format!("{url} is no URL: {error}"))?;
    let bearer = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| "the token can't stand in a header")?;
    request.headers_mut().insert(header::AUTHORIZATION, bearer);
    let (mut socket, _) = connect_async_with_config(request, None, true).await.map_err(|error| reason(&error))?;
    loop {
        let Some(text) = next(&mut socket).await? else { continue };
        match speech.hear(&text) {
            Heard::Joined | Heard::Resync => return Ok(socket),
            Heard::Greeting => {
                if let Some(join) = speech.join(room) {
                    socket.send(Message::text(join)).await.map_err(|error| reason(&error))?;
                }
            }
            Heard::Refused { code, .. } => return Err(format!("the room was refused: {code}")),
            Heard::Message { .. } | Heard::Stored(_) | Heard::Other => {}
        }
    }
}

/// The next text; none for another frame.
async fn next(socket: &mut Socket) -> Result<Option<tokio_tungstenite::tungstenite::Utf8Bytes>, String> {
    match socket.next().await {
        Some(Ok(Message::Text(text))) => Ok(Some(text)),
        Some(Ok(Message::Close(Some(close)))) => Err(format!("closed with {} {}", close.code, close.reason)),
        Some(Ok(Message::Close(None))) | None => Err("closed without a reason".to_owned()),
        Some(Ok(_)) => Ok(None),
        Some(Err(error)) => Err(reason(&error)),
    }
}

fn reason(error: &Error) -> String {
    match error {
        Error::Http(response) => format!("the handshake was answered with {}", response.status()),
        error => super::super::outcome::with_causes(error),
    }
}

impl User<'_> {
    /// Sends what is ordered and counts what comes, until `orders` ends.
    ///
    /// # Errors
    /// The reason for which the connection ended before.
    async fn talk(&mut self, orders: &mut mpsc::Receiver<u64>) -> Result<(), String> {
        loop {
            tokio::select! {
                text = next(&mut self.socket) => {
                    if let Some(text) = text? {
                        self.hear(&text);
                    }
                }
                order = orders.recv() => match order {
                    Some(message) => self.send(message).await?,
                    None => return Ok(()),
                },
            }
        }
    }

    async fn send(&mut self, message: u64) -> Result<(), String> {
        let Run { plan, tally, .. } = self.run;
        let frame = plan.speech.send(self.room, &self.run.text(message), &self.run.client_id(message));
        tally.counts().sent += 1;
        self.socket.send(Message::text(frame)).await.map_err(|error| reason(&error))
    }

    fn hear(&mut self, text: &str) {
        let Run { plan, tally, .. } = self.run;
        match plan.speech.hear(text) {
            Heard::Message { seq, text } => {
                let Some(message) = self.run.message_of(&text) else { return };
                if seq <= self.last {
                    tally.counts().repeated += 1;
                    return;
                }
                self.last = seq;
                self.listener.received += 1;
                let late = self.run.late(message);
                tally.counts().add_received(late);
                if plan.speech.echo_is_ack() && plan.sender_of(message) == self.at {
                    self.stored(message);
                }
            }
            Heard::Stored(client_id) => {
                if let Some(message) = self.run.message_with(&client_id) {
                    self.stored(message);
                }
            }
            Heard::Refused { code, .. } => tally.counts().add_refused(&code),
            Heard::Resync => tally.counts().resyncs += 1,
            Heard::Greeting | Heard::Joined | Heard::Other => {}
        }
    }

    fn stored(&mut self, message: u64) {
        self.listener.own += 1;
        let late = self.run.late(message);
        self.run.tally.counts().add_stored(self.listener.room, late);
    }
}
