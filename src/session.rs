//! The life of one WebSocket: Opening, then Open, then gone.
//!
//! Opening finds out who the client is and whether it may come in; Open is one loop that reads frames, begins commands
//! in the order they came, and hands what they answer to the outbox. Handlers never write to a socket. Whatever ends a
//! connection, it ends here, in [`serve`], with one line in the log and one count in the metrics.

use std::{net::IpAddr, sync::Arc, time::Duration};

use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::tungstenite::Utf8Bytes;

use crate::{
    chat::Connection,
    config::Secret,
    dialect::{Dialect, Intent, Request},
    model::{CloseReason, ConnectionId, ConversationId, Identity, Reject, Seq, TokenFlaw, UserId},
    outbox::{Frame, Outbox},
};

mod context;
mod heartbeat;
mod meter;
mod open;
mod socket;

pub use context::Context;
pub use meter::FrameLimits;
pub use socket::{Incoming, Socket, SocketLimits};

use context::CLOSE_TIMEOUT;
use open::Open;

/// How long somebody without a token may stay, under `dev`.
const UNPROVEN_STAY: Duration = Duration::from_secs(24 * 3_600);

/// What a route leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SocketRoute {
    /// One dialect, whoever comes.
    To(Dialect),
    /// `/ws/{id}`: one's own id leads to one's own conversations, any other to a room.
    RoomOrSelf,
}

impl SocketRoute {
    /// What is spoken until it is known who comes.
    fn dialect(self) -> Dialect {
        match self {
            Self::To(dialect) => dialect,
            Self::RoomOrSelf => Dialect::Rooms,
        }
    }
}

/// What is known of a connection when its upgrade was answered.
#[derive(Debug)]
pub struct Opening {
    /// What its route leads to.
    pub route: SocketRoute,
    /// The conversation its route names, if it is bound to one.
    pub conversation: Option<ConversationId>,
    /// The last seq the client has of that conversation, where it said one.
    pub since: Option<Seq>,
    /// The token, where header, query or subprotocol brought one; else the first frame must.
    pub token: Option<Secret>,
    /// The client's address, as trusted proxies tell it.
    pub address: IpAddr,
}

/// Serves a WebSocket until it is closed. `read_ahead` is what came behind the upgrade request.
pub async fn serve(stream: TcpStream, read_ahead: Vec<u8>, opening: Opening, context: Arc<Context>) {
    let limits = &context.config.limits;
    let (reader, writer) = stream.into_split();
    // The first write needs a socket that was once seen writable.
    if writer.writable().await.is_err() {
        return;
    }
    let connection = ConnectionId::fresh();
    let too_slow = opening.route.dialect().too_slow();
    let outbox = Arc::new(Outbox::new(connection, writer, limits.outbox_bytes, too_slow, context.metrics.clone()));
    let socket_limits = SocketLimits {
        message_bytes: limits.frame_bytes,
        frames: FrameLimits { per_second: limits.frames_per_second, fragments: limits.fragments },
    };
    let (mut dialect, address) = (opening.route.dialect(), opening.address);
    let socket = Socket::new(reader, read_ahead, outbox.clone(), socket_limits).await;
    // Boxed: an open connection does not keep the room that opening it took.
    let (socket, reason, user) = match Box::pin(opening.open(socket, outbox.clone(), &context)).await {
        Ok(open) => {
            dialect = open.dialect();
            let (socket, reason, user) = open.run().await;
            (socket, reason, Some(user))
        }
        Err((socket, reason)) => {
            context.metrics.refusals.with_label_values(&[reason.label()]).inc();
            (socket, reason, None)
        }
    };
    context.metrics.closes.with_label_values(&[reason.label()]).inc();
    tracing::info!(
        %connection,
        user = user.as_ref().map(UserId::as_str),
        dialect = dialect.label(),
        %address,
        reason = reason.label(),
        detail = reason.token_flaw().map(tracing::field::display),
        "disconnected"
    );
    let last_words = dialect.end(&reason, context.clock.now());
    Box::pin(say_goodbye(socket, &outbox, last_words, &reason)).await;
}

/// Says why, writes what is queued, and gives the client a while to close its side.
async fn say_goodbye(
    mut socket: Socket,
    outbox: &Arc<Outbox>,
    (farewell, close): (Option<Frame>, Option<Frame>),
    reason: &CloseReason,
) {
    outbox.close(farewell.into_iter().chain(close));
    let orderly = timeout(CLOSE_TIMEOUT, async {
        let drained = outbox.drained().await;
        if drained && *reason != CloseReason::ClientLeft {
            outbox.shut();
            socket.read_out(reason).await;
        }
        drained
    });
    match orderly.await {
        Ok(true) => {}
        Ok(false) | Err(_) => outbox.reset(),
    }
}

/// Why there is no open connection, and the socket, over which that must be said.
type Refused = (Socket, CloseReason);

impl Opening {
    /// Finds out who it is, and lets them in if they may.
    async fn open(self, mut socket: Socket, outbox: Arc<Outbox>, context: &Arc<Context>) -> Result<Box<Open>, Refused> {
        let identity = match self.authenticate(&mut socket, context).await {
            Ok(identity) => identity,
            Err(reason) => return Err((socket, reason)),
        };
        let (dialect, bound) = self.resolve(&identity);
        let connection = Arc::new(Connection::new(outbox, identity.user.clone(), dialect, bound));
        if let Err(reject) = context.chat.connect(&identity, &connection).await {
            return Err((socket, CloseReason::Refused(reject)));
        }
        let mut open = Box::new(Open::new(socket, Arc::new(identity), connection, context.clone()));
        match open.begin(self.since).await {
            Ok(()) => Ok(open),
            Err(reject) => Err((open.abandon().await, CloseReason::Refused(reject))),
        }
    }

    async fn authenticate(&self, socket: &mut Socket, context: &Arc<Context>) -> Result<Identity, CloseReason> {
        let refused = |reject| CloseReason::Refused(reject);
        if let Some(token) = &self.token {
            return context.auth.verify(token.reveal()).map_err(refused);
        }
        let dialect = self.route.dialect();
        if !dialect.takes_token_in_frame() {
            return self.unproven(context).ok_or_else(|| refused(context.auth.refusal(TokenFlaw::Missing)));
        }
        let first = timeout(context.config.timing.auth_timeout, first_text(socket));
        let text = tokio::select! {
            text = first => text.map_err(|_| refused(Reject::AuthTimeout))??,
            retry_after = context.drain.begun() => return Err(CloseReason::Restart(retry_after)),
        };
        match dialect.decode(&text, self.conversation.as_ref()) {
            Ok(Request { intent: Intent::Authenticate(token), .. }) => {
                context.auth.verify(token.reveal()).map_err(refused)
            }
            Ok(_) | Err(_) => Err(refused(context.auth.refusal(TokenFlaw::NotInFirstFrame))),
        }
    }

    /// Whom a route itself names: under `dev`, `/ws/{user_id}` needs no token (seed 004).
    fn unproven(&self, context: &Context) -> Option<Identity> {
        let id = self.conversation.as_ref().filter(|_| context.config.dev && self.route == SocketRoute::RoomOrSelf)?;
        let user = UserId::parse(id.as_str()).ok()?;
        let expires_at = context.clock.now().plus(UNPROVEN_STAY);
        Some(Identity { name: user.as_str().into(), user, admin: false, tier: None, expires_at })
    }

    /// What is spoken with this user, and about which conversation alone, if one.
    fn resolve(&self, identity: &Identity) -> (Dialect, Option<ConversationId>) {
        let own = self.conversation.as_ref().is_some_and(|id| id.as_str() == identity.user.as_str());
        match self.route {
            SocketRoute::RoomOrSelf if own => (Dialect::Personas, None),
            route => (route.dialect(), self.conversation.clone()),
        }
    }
}

/// The first text frame; pings may come before it.
async fn first_text(socket: &mut Socket) -> Result<Utf8Bytes, CloseReason> {
    loop {
        match socket.next().await? {
            Incoming::Text(text) => return Ok(text),
            Incoming::Binary(_) => return Err(CloseReason::Binary),
            Incoming::Ping | Incoming::Pong(_) => {}
        }
    }
}
