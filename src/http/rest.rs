//! REST: the same commands that the WebSocket dialects carry, as HTTP requests.
//!
//! `call` reads requests. Each of the other files has the actions on one resource, with their JSON types.

use std::sync::Arc;

use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    header::{self, HeaderValue},
};
use matchit::Params;
use serde::Serialize;

use super::{
    body::RequestBody,
    client,
    problem::{HttpResult, Payload, Problem},
    service::{HttpService, Peer},
    unread::AnswerTo,
};
use crate::model::{Reject, Reply, TokenFlaw};

mod admin;
mod audit;
mod blocks;
mod call;
mod conversations;
mod events;
mod members;
mod messages;
mod notifications;
mod presence;
mod reading;
mod stats;
mod token;

use audit::AuditLine;
pub(super) use call::{Call, conversation_id, read_json, read_nothing};

/// An action over REST.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// Get a short-lived token for a socket.
    Token,
    /// Show this node's state.
    Status,
    /// List the users who are online.
    Online,
    /// Show a user's presence.
    UserOnline,
    /// Set the caller's own status.
    SetStatus,
    /// Set the caller's delivered and read marks.
    MarkRead,
    /// Start or stop the caller's typing indicator.
    Typing,
    /// Pass an event on to the listeners of a conversation.
    ConversationEvent,
    /// Pass an event on to a user's sockets.
    UserEvent,
    /// List the caller's own connections.
    Connections,
    /// Show the connections and users of all nodes.
    Stats,
    /// Create a conversation.
    CreateConversation,
    /// List the caller's conversations.
    Conversations,
    /// Show one conversation.
    Conversation,
    /// Archive a conversation for the caller.
    Archive,
    /// Undo the archiving.
    Unarchive,
    /// List members with their marks.
    Members,
    /// Add members.
    AddMembers,
    /// Remove a member.
    RemoveMember,
    /// List messages.
    Messages,
    /// Send a message.
    SendMessage,
    /// Show one message.
    Message,
    /// Replace a message's text.
    EditMessage,
    /// Delete a message.
    DeleteMessage,
    /// Add a reaction to a message.
    React,
    /// Remove a reaction.
    RemoveReaction,
    /// List the replies to a message.
    Replies,
    /// Search messages.
    Search,
    /// List the users whom the caller blocks.
    Blocks,
    /// Block a user for the caller.
    Block,
    /// End the block of a user.
    Unblock,
    /// List the caller's notifications.
    Notifications,
    /// Mark notifications read.
    ReadNotifications,
    /// End a user's sockets.
    Disconnect,
    /// Revoke a user's tokens.
    Revoke,
    /// Block a user as an admin.
    BlockAccess,
    /// End an admin's block of a user.
    UnblockAccess,
    /// Show whether an admin blocks a user.
    BlockState,
    /// List the users whom admins block.
    BlockedUsers,
}

impl Action {
    /// True if only admins may do this; a refused try is audited too.
    fn is_for_admins(self) -> bool {
        matches!(
            self,
            Self::Stats
                | Self::Disconnect
                | Self::Revoke
                | Self::BlockAccess
                | Self::UnblockAccess
                | Self::BlockState
                | Self::BlockedUsers
        )
    }

    /// True if admins may do this where other users may not: in conversations of which they are no members, or to messages
    /// of others.
    fn gives_admins_more(self) -> bool {
        matches!(
            self,
            Self::Conversation
                | Self::Members
                | Self::AddMembers
                | Self::RemoveMember
                | Self::Messages
                | Self::Message
                | Self::Replies
                | Self::Search
                | Self::DeleteMessage
        )
    }

    /// True if this action of a caller is audited.
    fn is_audited(self, admin: bool) -> bool {
        self.is_for_admins() || (admin && self.gives_admins_more())
    }
}

impl Action {
    /// True if the action reads the request's body. Of other actions that change something, a body must be empty: an admin
    /// who blocks a user until a time must not believe in the time.
    fn takes_body(self) -> bool {
        matches!(
            self,
            Self::SetStatus
                | Self::MarkRead
                | Self::Typing
                | Self::ConversationEvent
                | Self::UserEvent
                | Self::CreateConversation
                | Self::AddMembers
                | Self::SendMessage
                | Self::EditMessage
                | Self::ReadNotifications
                | Self::Revoke
        )
    }

    /// The query parameters that the action takes.
    fn parameters(self) -> &'static [&'static str] {
        match self {
            Self::Online => &["cursor", "limit"],
            Self::Conversations => &["archived", "limit", "offset"],
            Self::Messages | Self::Replies => &["before_seq", "after_seq", "around_seq", "limit", "offset"],
            Self::Search => &["q", "conversation_id", "limit", "offset"],
            Self::Notifications | Self::BlockedUsers => &["limit", "offset"],
            _ => &[],
        }
    }
}

/// Verifies the request's token and performs the action for its user.
pub(super) async fn answer(
    action: Action,
    service: &HttpService,
    peer: &Peer,
    params: &Params<'_, '_>,
    request: Request<RequestBody>,
) -> HttpResult {
    let (head, body) = request.into_parts();
    let Some(token) = client::bearer(&head.headers) else { return Err(unauthenticated(&head.headers)) };
    let verified = service.broker().auth.verify(token).inspect_err(|reject| {
        let address = client::address(peer.address, &head.headers, &service.broker().config.trusted_proxies);
        let detail = reject.token_flaw().map(tracing::field::display);
        service.broker().advice.tell_reject(reject);
        tracing::info!(%address, path = head.uri.path(), reason = reject.code(), detail, "refused");
    });
    let identity = Arc::new(verified?);
    peer.permit.promote().map_err(|refusal| service.refuse(refusal, peer, &head.headers))?;
    if head.headers.get(header::CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
        return Err(Problem::compressed());
    }
    let query = head.uri.query();
    let (method, headers) = (&head.method, &head.headers);
    let call = Call { service, peer, identity: &identity, params, method, query, headers, revocable: true };
    let audited = action.is_audited(identity.admin);
    let line = audited.then(|| AuditLine::begin(format!("{action:?}"), &call, head.uri.path()));
    let mut result = perform(action, &call, body).await;
    if let (Ok(response), true) = (&mut result, head.method.is_safe()) {
        response.extensions_mut().insert(AnswerTo(identity.user.clone()));
    }
    if let Some(line) = line {
        line.end(&result);
    }
    result
}

/// Performs the action.
async fn perform(action: Action, call: &Call<'_>, body: RequestBody) -> HttpResult {
    call.check_parameters(action.parameters())?;
    let body = match action.takes_body() || call.method == Method::GET || call.method == Method::HEAD {
        true => body,
        false => read_nothing(body).await?,
    };
    match action {
        Action::Token => call.token(),
        Action::Status => call.status().await,
        Action::Online => call.online().await,
        Action::UserOnline => call.user_online().await,
        Action::SetStatus => call.set_status(body).await,
        Action::MarkRead => call.mark_read(body).await,
        Action::Typing => call.typing(body).await,
        Action::ConversationEvent => call.conversation_event(body).await,
        Action::UserEvent => call.user_event(body).await,
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
        Action::RemoveReaction => call.react(false).await,
        Action::Replies => call.replies().await,
        Action::Search => call.search().await,
        Action::Blocks => call.blocks().await,
        Action::Block => call.block(true).await,
        Action::Unblock => call.block(false).await,
        Action::Notifications => call.notifications().await,
        Action::ReadNotifications => call.read_notifications(body).await,
        Action::Disconnect => call.disconnect().await,
        Action::Revoke => call.revoke(body).await,
        Action::BlockAccess => call.block_access().await,
        Action::UnblockAccess => call.unblock_access().await,
        Action::BlockState => call.block_state().await,
        Action::BlockedUsers => call.blocked_users().await,
    }
}

/// The response without a token. Its challenge has no error code (RFC 6750, 3.1).
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

pub(super) fn ok<T: Serialize>(value: &T) -> HttpResult {
    json(StatusCode::OK, value)
}

/// Success without a body.
pub(super) fn no_content() -> HttpResult {
    let mut response = Response::new(Payload::default());
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}

/// The response to a command whose only reply is `Reply::Done`.
pub(super) fn done(reply: &Reply) -> HttpResult {
    match reply {
        Reply::Done => no_content(),
        other => Err(unexpected(other)),
    }
}

/// A command's reply has a kind that the command never returns: a defect of this program.
pub(super) fn unexpected(reply: &Reply) -> Problem {
    tracing::error!(reply = ?std::mem::discriminant(reply), "a command returned a reply of the wrong kind");
    Problem::internal()
}
