//! The life of one WebSocket: first [`Opening`], then `Open`, then the close.
//!
//! [`Opening`] authenticates the client and registers the connection. `Open` is one loop that reads frames, begins
//! commands in order of arrival, and puts their replies into the outbox; its handlers never write to the socket. Every
//! connection ends in [`serve`], with one log line and one count in the metrics.

use std::{net::IpAddr, sync::Arc, time::Duration};

use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::tungstenite::Utf8Bytes;

use crate::{
    admission::Permit,
    chat::Connection,
    dialect::{Dialect, Intent, Request},
    model::{CloseReason, ConnectionId, ConversationId, Identity, Reject, Seq, TokenFlaw, UserId},
    outbox::{Frame, Outbox},
    supervise::TaskName,
    tail::{self, ClientInfo},
};

mod answers;
mod arrivals;
mod beat;
mod context;
mod heartbeat;
mod life;
mod meter;
mod open;
mod pending;
mod replies;
mod roster;
mod signal_handler;
mod signalled;
mod socket;

pub use context::{Context, Shared};
pub use meter::FrameLimits;
pub use socket::{Incoming, Socket, SocketLimits};

use context::{CLOSE_TIMEOUT, PEER_CLOSE_TIMEOUT};
use life::Ended;
use open::Open;

/// Maximum duration of a connection without a token, under `dev`.
const DEV_IDENTITY_TTL: Duration = Duration::from_secs(24 * 3_600);

/// The destination of a WebSocket route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SocketRoute {
    /// One dialect for every user.
    To(Dialect),
    /// `/ws/{id}`: the user's own id leads to the personas dialect, any other id to a room.
    RoomOrSelf,
}

impl SocketRoute {
    /// The dialect until the user is known.
    fn dialect(self) -> Dialect {
        match self {
            Self::To(dialect) => dialect,
            Self::RoomOrSelf => Dialect::Rooms,
        }
    }
}

/// The facts about a connection when its upgrade was answered.
#[derive(Debug)]
pub struct Opening {
    /// The destination of the route.
    pub route: SocketRoute,
    /// The conversation in the route, if the route has one.
    pub conversation: Option<ConversationId>,
    /// The last seq that the client has of that conversation, if it sent one.
    pub since: Option<Seq>,
    /// The result of verifying the token from header, query or subprotocol; without one, the first frame must contain it.
    pub verified: Option<Result<Identity, Reject>>,
    /// The client's address, as trusted proxies report it.
    pub address: IpAddr,
    /// The client's origin and user agent, for the console.
    pub client: ClientInfo,
    /// The socket's place. A valid token moves it to the places of the known.
    pub permit: Arc<Permit>,
}

/// A socket whose upgrade was answered.
#[derive(Debug)]
pub struct Upgraded {
    /// The socket.
    pub stream: TcpStream,
    /// The bytes after the upgrade request.
    pub read_ahead: Vec<u8>,
    /// The facts about the connection.
    pub opening: Box<Opening>,
}

/// Serves a WebSocket until it closes. The socket is boxed, because the task keeps room for it.
pub async fn serve(upgraded: Box<Upgraded>, context: Arc<Context>) {
    let (mut dialect, address) = (upgraded.opening.route.dialect(), upgraded.opening.address);
    let mut client = upgraded.opening.client.clone();
    // Boxed, and dropped before the connection is served, so that an open connection does not keep the memory of the opening.
    let Some((outbox, opened)) = Box::pin(upgraded.open(&context)).await else { return };
    let connection = outbox.connection();
    let (socket, reason, ended) = match opened {
        Ok(open) => {
            dialect = open.dialect();
            let user = Some(open.user().clone());
            let told = ClientInfo { agent: client.agent.take(), ..client.clone() };
            record(&context, tail::Kind::Connect, "open", None, (told, address, dialect, user, connection));
            let (socket, reason, ended) = open.run().await;
            (socket, reason, Some(ended))
        }
        Err((socket, reason)) => {
            context.metrics.refusals.with_label_values(&[reason.label()]).inc();
            (socket, reason, None)
        }
    };
    context.advice.tell_close(&reason);
    context.metrics.closes.with_label_values(&[reason.label()]).inc();
    let kind = if ended.is_some() { tail::Kind::Close } else { tail::Kind::Refusal };
    let user = ended.as_ref().map(|ended| ended.user.clone());
    record(&context, kind, reason.label(), reason.token_flaw(), (client, address, dialect, user, connection));
    tracing::info!(
        %connection,
        user = ended.as_ref().map(|ended| ended.user.as_str()),
        dialect = dialect.label(),
        %address,
        reason = reason.label(),
        detail = reason.token_flaw().map(tracing::field::display),
        "disconnected"
    );
    let closing_frames = dialect.end(&reason, context.clock.now());
    let closed = Box::pin(close_socket(socket, &outbox, closing_frames, &reason));
    let closed = context.supervisor.guard(TaskName::Session, closed).await;
    if closed.is_none() {
        outbox.reset();
    }
    // A client that answered the close frame has all that left before it.
    let confirmed = closed == Some(true) && !matches!(reason, CloseReason::ClientLeft | CloseReason::TooSlow);
    if let (Some(Ended { user, confirmed_at }), false) = (ended, confirmed) {
        context.chat.record_unconfirmed(user, confirmed_at);
    }
}

/// Keeps an event for the console.
fn record(
    context: &Context,
    kind: tail::Kind,
    reason: &'static str,
    flaw: Option<TokenFlaw>,
    (client, address, dialect, user, connection): (ClientInfo, IpAddr, Dialect, Option<UserId>, ConnectionId),
) {
    context.tail.record(|| tail::Event {
        kind,
        reason,
        flaw,
        client,
        address: Some(address),
        dialect: Some(dialect.label()),
        user,
        connection: Some(connection),
        at: context.clock.now(),
    });
}

/// Sends the closing frames, writes the queued frames, and waits for the client's own close up to a timeout. Returns true if
/// the client sent its close.
async fn close_socket(
    mut socket: Box<Socket>,
    outbox: &Arc<Outbox>,
    (farewell, close): (Option<Frame>, Option<Frame>),
    reason: &CloseReason,
) -> bool {
    outbox.close(farewell.into_iter().chain(close));
    let orderly = timeout(CLOSE_TIMEOUT, async {
        let drained = outbox.drained().await;
        if drained && *reason != CloseReason::ClientLeft {
            // Some libraries report 1006 instead of the code if the connection ends before they have answered the close
            // frame (RFC 6455, 7.1.1).
            let _answered = timeout(PEER_CLOSE_TIMEOUT, socket.read_out(reason)).await;
            outbox.shut();
            socket.read_out(reason).await;
        }
        drained
    });
    match orderly.await {
        Ok(true) => {}
        Ok(false) | Err(_) => outbox.reset(),
    }
    socket.closed_by_peer()
}

/// A socket without an open connection, and the reason to send over it.
type Refused = (Box<Socket>, CloseReason);

impl Upgraded {
    /// Opens the connection; `None` if the socket is gone.
    async fn open(self: Box<Self>, context: &Arc<Context>) -> Option<(Arc<Outbox>, Result<Box<Open>, Refused>)> {
        let Self { stream, read_ahead, opening } = *self;
        let limits = &context.config.limits;
        let (reader, writer) = stream.into_split();
        // The first write requires a socket that was reported writable.
        writer.writable().await.ok()?;
        let outbox_limits = context.shared.outbox_limits(opening.route.dialect());
        let outbox = Outbox::new(ConnectionId::fresh(), writer, outbox_limits, context.outboxes.clone());
        let socket_limits = SocketLimits {
            message_bytes: limits.frame_bytes,
            frames: FrameLimits { per_second: limits.frames_per_second, fragments: limits.fragments },
        };
        // Boxed, because the phases of the session pass it on, and the task would keep room for it in each.
        let socket = Box::new(Socket::new(reader, read_ahead, outbox.clone(), socket_limits));
        let opened = opening.open(socket, outbox.clone(), context).await;
        Some((outbox, opened))
    }
}

impl Opening {
    /// Authenticates the client and registers the connection.
    async fn open(
        self: Box<Self>,
        mut socket: Box<Socket>,
        outbox: Arc<Outbox>,
        context: &Arc<Context>,
    ) -> Result<Box<Open>, Refused> {
        // A panic ends this socket only, in each step with the cleanup that the step requires.
        let supervisor = &context.supervisor;
        let authenticated = supervisor.guard(TaskName::Session, self.authenticate(&mut socket, context)).await;
        let identity = match authenticated.unwrap_or(Err(CloseReason::Internal)) {
            Ok(identity) => identity,
            Err(reason) => return Err((socket, reason)),
        };
        if self.permit.promote().is_err() {
            return Err((socket, CloseReason::Refused(Reject::Unavailable)));
        }
        // The token may have been revoked since its verification: the client chose when to take the upgrade's response.
        let ticket = match context.auth.admit(&identity) {
            Ok(ticket) => ticket,
            Err(reject) => return Err((socket, CloseReason::Refused(reject))),
        };
        let (dialect, bound) = self.resolve(&identity);
        let connection = Arc::new(Connection::new(outbox, identity.user.clone(), dialect, bound));
        match supervisor.guard(TaskName::Session, context.chat.connect(&identity, &connection)).await {
            Some(Ok(())) => {}
            Some(Err(reject)) => return Err((socket, CloseReason::Refused(reject))),
            None => {
                context.chat.forget(&connection).await;
                return Err((socket, CloseReason::Internal));
            }
        }
        let mut open = Box::new(Open::new(socket, (Arc::new(identity), ticket), connection, context.clone()));
        let started = supervisor.guard(TaskName::Session, open.start(self.since)).await;
        match started {
            Some(Ok(())) => Ok(open),
            Some(Err(reason)) => Err((open.abandon().await, reason)),
            None => Err((open.abandon().await, CloseReason::Internal)),
        }
    }

    async fn authenticate(&self, socket: &mut Socket, context: &Arc<Context>) -> Result<Identity, CloseReason> {
        let refused = |reject| CloseReason::Refused(reject);
        if let Some(verified) = &self.verified {
            return verified.clone().map_err(refused);
        }
        let dialect = self.route.dialect();
        if !dialect.takes_token_in_frame() {
            let identity = self.dev_identity(context).ok_or_else(|| context.auth.refusal(TokenFlaw::Missing));
            let allowed = |identity: Identity| context.auth.check_user(&identity.user).map(|()| identity);
            return identity.and_then(allowed).map_err(refused);
        }
        let first = timeout(context.config.timing.auth_timeout, first_text(socket));
        let text = tokio::select! {
            text = first => text.map_err(|_| refused(Reject::AuthTimeout))??,
            // A newcomer got the place of this socket, which ends as if its time was over.
            () = self.permit.displaced() => return Err(refused(Reject::AuthTimeout)),
            retry_after = context.drain.begun() => return Err(CloseReason::Restart(retry_after)),
        };
        match dialect.decode(&text, self.conversation.as_ref()) {
            Ok(Request { intent: Intent::Authenticate(token), .. }) => {
                context.auth.verify(token.reveal()).map_err(refused)
            }
            Ok(_) | Err(_) => Err(refused(context.auth.refusal(TokenFlaw::NotInFirstFrame))),
        }
    }

    /// The identity in the route: under `dev`, `/ws/{user_id}` of the personas dialect needs no token.
    fn dev_identity(&self, context: &Context) -> Option<Identity> {
        let id = self.conversation.as_ref().filter(|_| context.config.dev && self.route == SocketRoute::RoomOrSelf)?;
        let user = UserId::parse(id.as_str()).ok()?;
        let now = context.clock.now();
        Some(Identity {
            name: user.as_str().into(),
            user,
            admin: false,
            tier: None,
            expires_at: now.plus(DEV_IDENTITY_TTL),
            issued_at: Some(now),
            token_id: None,
        })
    }

    /// The dialect for this user, and the conversation that the connection is bound to, if any.
    fn resolve(&self, identity: &Identity) -> (Dialect, Option<ConversationId>) {
        let own = self.conversation.as_ref().is_some_and(|id| id.as_str() == identity.user.as_str());
        match self.route {
            SocketRoute::RoomOrSelf if own => (Dialect::Personas, None),
            route => (route.dialect(), self.conversation.clone()),
        }
    }
}

/// The first text frame; pings and pongs may precede it.
async fn first_text(socket: &mut Socket) -> Result<Utf8Bytes, CloseReason> {
    loop {
        match socket.next().await? {
            Incoming::Text(text) => return Ok(text),
            Incoming::Binary(_) => return Err(CloseReason::Binary),
            Incoming::Ping | Incoming::Pong(_) => {}
        }
    }
}
