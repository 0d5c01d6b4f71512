//! REST: the other face of the commands that WebSockets carry.
//!
//! `call` reads requests. Each of the other files has what is asked about one thing, and the JSON of it.

use std::sync::Arc;

use hyper::{
    HeaderMap, Request, Response, StatusCode,
    body::Incoming,
    header::{self, HeaderValue},
};
use matchit::Params;
use serde::Serialize;

use super::{
    client,
    problem::{HttpResult, Payload, Problem},
    site::{HttpService, Peer},
};
use crate::model::{Reject, Reply, TokenFlaw};

mod call;
mod conversations;
mod members;
mod messages;
mod notifications;
mod presence;
mod reading;
mod stats;
mod token;

use call::Call;
pub(super) use call::conversation_id;

/// What can be done over REST.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// Get a short-lived token for a socket.
    Token,
    /// Say how this node is.
    Status,
    /// List who is online.
    Online,
    /// Show whether a user is.
    UserOnline,
    /// Say how one wishes to be seen.
    SetStatus,
    /// Say how far one has read.
    MarkRead,
    /// Say that one types, or stopped.
    Typing,
    /// List one's own connections.
    Connections,
    /// Show what all nodes hold.
    Stats,
    /// Make a conversation.
    CreateConversation,
    /// List one's conversations.
    Conversations,
    /// Show one.
    Conversation,
    /// Put one out of one's sight.
    Archive,
    /// Put it back.
    Unarchive,
    /// List members, with how far they are.
    Members,
    /// Make users members.
    AddMembers,
    /// End a membership.
    RemoveMember,
    /// Read messages.
    Messages,
    /// Send a message.
    SendMessage,
    /// Read one message.
    Message,
    /// Give a message a new text.
    EditMessage,
    /// Delete a message.
    DeleteMessage,
    /// React to a message.
    React,
    /// Take a reaction back.
    TakeBack,
    /// Read what replies to a message.
    Replies,
    /// Find messages.
    Search,
    /// List one's notifications.
    Notifications,
    /// Mark them read.
    ReadNotifications,
}

/// Answers a request, once its token says whose it is.
pub(super) async fn answer(
    action: Action,
    site: &HttpService,
    peer: &Peer,
    params: &Params<'_, '_>,
    request: Request<Incoming>,
) -> HttpResult {
    let (head, body) = request.into_parts();
    let Some(token) = client::bearer(&head.headers) else { return Err(unauthenticated(&head.headers)) };
    let verified = site.broker().auth.verify(token).inspect_err(|reject| {
        let address = client::address(peer.address, &head.headers, &site.broker().config.trusted_proxies);
        let detail = reject.token_flaw().map(tracing::field::display);
        tracing::info!(%address, path = head.uri.path(), reason = reject.code(), detail, "refused");
    });
    let identity = Arc::new(verified?);
    let query = head.uri.query();
    let call = Call { site, peer, identity: &identity, params, query, headers: &head.headers };
    match action {
        Action::Token => call.token(),
        Action::Status => call.status().await,
        Action::Online => call.online().await,
        Action::UserOnline => call.user_online().await,
        Action::SetStatus => call.set_status(body).await,
        Action::MarkRead => call.mark_read(body).await,
        Action::Typing => call.typing(body).await,
        Action::Connections => call.connections().await,
        Action::Stats => call.stats().await,
        Action::CreateConversation => call.create(body).await,
        Action::Conversations => call.conversations().await,
        Action::Conversation => call.conversation().await,
        Action::Archive => call.archive(true).await,
        Action::Unarchive => call.archive(false).await,
        Action::Members => call.members().await,
        Action::AddMembers => call.add_members(body).await,
        Action::RemoveMember => call.remove_member().await,
        Action::Messages => call.messages().await,
        Action::SendMessage => call.send(body).await,
        Action::Message => call.message().await,
        Action::EditMessage => call.edit(body).await,
        Action::DeleteMessage => call.delete().await,
        Action::React => call.react(true).await,
        Action::TakeBack => call.react(false).await,
        Action::Replies => call.replies().await,
        Action::Search => call.search().await,
        Action::Notifications => call.notifications().await,
        Action::ReadNotifications => call.read_notifications(body).await,
    }
}

/// No token at all: the challenge then has no error (RFC 6750, 3.1).
fn unauthenticated(headers: &HeaderMap) -> Problem {
    let detail = match headers.contains_key(header::AUTHORIZATION) {
        true => "The Authorization header has no token this server takes: it must be Bearer, a blank, and a JWT",
        false => "A token is needed: Authorization: Bearer …",
    };
    Problem::new(StatusCode::UNAUTHORIZED, Reject::InvalidToken(TokenFlaw::Missing).code(), detail)
        .with(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
}

fn json<T: Serialize>(status: StatusCode, value: &T) -> HttpResult {
    let body = serde_json::to_vec(value).map_err(|_| Problem::internal())?;
    let mut response = Response::new(Payload::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

fn ok<T: Serialize>(value: &T) -> HttpResult {
    json(StatusCode::OK, value)
}

/// Done, and nothing more to say.
fn no_content() -> HttpResult {
    let mut response = Response::new(Payload::default());
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}

/// The answer to a command that says no more than that it is done.
fn done(reply: &Reply) -> HttpResult {
    match reply {
        Reply::Done => no_content(),
        other => Err(unexpected(other)),
    }
}

/// A command answered what it never answers: a fault of the program's own.
fn unexpected(reply: &Reply) -> Problem {
    tracing::error!(reply = ?std::mem::discriminant(reply), "a command gave an answer of the wrong kind");
    Problem::internal()
}
