//! The admin console on ADMIN_LISTEN: its API and its pages. It is off unless ADMIN_TOKEN is set.
//!
//! `gate` decides who may call, `audit` records it; each of the other files has the actions on one subject. Commands take
//! the path of every other caller, as an admin's.

use std::{sync::Arc, time::Duration};

use hyper::{Method, Request, header};
use matchit::Params;
use tokio::time::timeout;

use super::{
    body::RequestBody,
    client,
    problem::{HttpResult, Problem},
    rest::{Call, read_nothing},
    service::{HttpService, Peer},
};
use crate::model::{Identity, Timestamp, UserId};

mod assets;
mod audit;
mod conversations;
mod deliveries;
mod gate;
mod overview;
mod personal;
mod rates;
mod settings;
mod state;
mod tail;
mod token;
mod users;

pub(super) use assets::{Asset, answer as asset};
pub(super) use state::Console;

use audit::Record;
use gate::off;

/// Maximum duration of an action that doesn't say otherwise: shorter than that of any request, so that the page learns why.
const ACTION_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum duration of the actions that wait for others: the tail's next event, a webhook's answer.
const WAITING_TIMEOUT: Duration = Duration::from_secs(28);
/// The header with the name that an operator gives, for the records.
const NAME: &str = "x-admin-name";
/// The name if there is none.
const NO_NAME: &str = "admin";
/// The prefix of an operator's name in the records and in logs of conversations.
const PREFIX: &str = "console:";

/// An action of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// Show the nodes, their load, and what is degraded.
    Overview,
    /// Show the section on a fault in failure-modes.md.
    Fault,
    /// List the users who are online.
    Users,
    /// Show a user's sockets, presence and block.
    User,
    /// List a user's conversations with the user's marks.
    UserConversations,
    /// Show a page of the export of a user's data.
    Export,
    /// Show how far the erasure of a user's data is.
    Erasure,
    /// Erase a user's data.
    Erase,
    /// End a user's sockets.
    Disconnect,
    /// Revoke a user's tokens.
    Revoke,
    /// Show whether a user is blocked.
    BlockState,
    /// Block a user.
    Block,
    /// End the block of a user.
    Unblock,
    /// List the blocked users.
    Blocks,
    /// Show a conversation.
    Conversation,
    /// List members with their marks.
    Members,
    /// List the entries of a conversation.
    Entries,
    /// Delete a message.
    DeleteMessage,
    /// Show how long a conversation's entries are kept.
    Retention,
    /// Set it.
    SetRetention,
    /// Search a conversation.
    Search,
    /// Show connects, refusals and closes, or wait for the next.
    Tail,
    /// Explain a token.
    Token,
    /// List finished webhook requests.
    Deliveries,
    /// Show one of them with its body.
    Delivery,
    /// Repeat one.
    Replay,
    /// List the settings in force.
    Settings,
}

impl Action {
    /// The name in metrics and records.
    fn label(self) -> &'static str {
        match self {
            Self::Overview => "overview",
            Self::Fault => "fault",
            Self::Users => "users",
            Self::User => "user",
            Self::UserConversations => "user_conversations",
            Self::Export => "export",
            Self::Erasure => "erasure",
            Self::Erase => "erase",
            Self::Disconnect => "disconnect",
            Self::Revoke => "revoke",
            Self::BlockState => "block_state",
            Self::Block => "block",
            Self::Unblock => "unblock",
            Self::Blocks => "blocks",
            Self::Conversation => "conversation",
            Self::Members => "members",
            Self::Entries => "entries",
            Self::DeleteMessage => "delete_message",
            Self::Retention => "retention",
            Self::SetRetention => "set_retention",
            Self::Search => "search",
            Self::Tail => "tail",
            Self::Token => "token",
            Self::Deliveries => "deliveries",
            Self::Delivery => "delivery",
            Self::Replay => "replay",
            Self::Settings => "settings",
        }
    }

    /// The query parameters that the action takes.
    fn parameters(self) -> &'static [&'static str] {
        match self {
            Self::Users => &["cursor", "limit"],
            Self::UserConversations => &["archived", "limit", "offset"],
            Self::Blocks | Self::Members => &["limit", "offset"],
            Self::Entries => &["before_seq", "after_seq", "limit"],
            Self::Search => &["q", "limit", "offset"],
            Self::Export => &["cursor"],
            Self::Tail => &["after", "limit", "wait"],
            Self::Deliveries => &["before", "failed", "limit"],
            _ => &[],
        }
    }

    fn takes_body(self) -> bool {
        matches!(self, Self::Revoke | Self::Token | Self::SetRetention)
    }

    fn most(self) -> Duration {
        match self {
            Self::Tail | Self::Replay => WAITING_TIMEOUT,
            _ => ACTION_TIMEOUT,
        }
    }
}

/// Answers a request to the API.
pub(super) async fn answer(
    action: Action,
    service: &HttpService,
    peer: &Peer,
    params: &Params<'_, '_>,
    request: Request<RequestBody>,
) -> HttpResult {
    let Some(Console { gate, .. }) = service.console() else { return Err(off()) };
    let (head, body) = request.into_parts();
    let address = client::address(peer.address, &head.headers, &service.broker().config.trusted_proxies);
    let requests = &service.broker().metrics.console_requests;
    let refused = |problem: &Problem| requests.with_label_values(&[action.label(), problem.code()]).inc();
    gate.check_browser(&head.headers).inspect_err(refused)?;
    gate.check_token(&head.headers, address).inspect_err(refused)?;
    let user = operator(&head.headers).inspect_err(refused)?;
    let identity = Arc::new(Identity {
        name: user.as_str().into(),
        user,
        admin: true,
        tier: None,
        expires_at: Timestamp::from_micros(i64::MAX),
        issued_at: None,
        token_id: None,
    });
    let (method, headers, query) = (&head.method, &head.headers, head.uri.query());
    let call = Call { service, peer, identity: &identity, params, method, query, headers, revocable: false };
    let record = Record::begin(action.label(), &call, head.uri.path(), address, is_quiet(action, &call));
    let result = match timeout(action.most(), Box::pin(perform(action, &call, body))).await {
        Ok(result) => result,
        Err(_) => Err(Problem::took_too_long()),
    };
    record.end(&result);
    result
}

/// True for the requests that a page makes again and again while it is open: a line for each would hide the others.
fn is_quiet(action: Action, call: &Call<'_>) -> bool {
    action == Action::Overview || action == Action::Tail && call.parameter("after").is_some()
}

/// The operator whom the request names, as a user.
fn operator(headers: &hyper::HeaderMap) -> Result<UserId, Problem> {
    let invalid = || Problem::invalid(format!("{NAME} must have 1 to 64 characters of A–Z a–z 0–9 . _ : @ + = | -"));
    let name = match headers.get(NAME) {
        None => NO_NAME,
        Some(name) => name.to_str().ok().filter(|name| (1..=64).contains(&name.len())).ok_or_else(invalid)?,
    };
    UserId::parse(&format!("{PREFIX}{name}")).map_err(|_| invalid())
}

async fn perform(action: Action, call: &Call<'_>, body: RequestBody) -> HttpResult {
    if call.headers.get(header::CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
        return Err(Problem::compressed());
    }
    call.check_parameters(action.parameters())?;
    let body = match action.takes_body() || call.method == Method::GET || call.method == Method::HEAD {
        true => body,
        false => read_nothing(body).await?,
    };
    match action {
        Action::Overview => overview::show(call).await,
        Action::Fault => overview::explain(call),
        Action::Users => users::online(call).await,
        Action::User => users::show(call).await,
        Action::UserConversations => users::conversations(call).await,
        Action::Export => personal::export(call).await,
        Action::Erasure => personal::erasure(call).await,
        Action::Erase => personal::erase(call).await,
        Action::Disconnect => call.disconnect().await,
        Action::Revoke => call.revoke(body).await,
        Action::BlockState => call.block_state().await,
        Action::Block => call.block_access().await,
        Action::Unblock => call.unblock_access().await,
        Action::Blocks => call.blocked_users().await,
        Action::Conversation => call.conversation().await,
        Action::Members => conversations::members(call).await,
        Action::Entries => conversations::entries(call).await,
        Action::DeleteMessage => call.delete().await,
        Action::Retention => conversations::retention(call).await,
        Action::SetRetention => conversations::set_retention(call, body).await,
        Action::Search => call.search_in(Some(call.conversation_of_path()?)).await,
        Action::Tail => tail::show(call).await,
        Action::Token => token::explain(call, body).await,
        Action::Deliveries => deliveries::list(call),
        Action::Delivery => deliveries::show(call),
        Action::Replay => deliveries::replay(call).await,
        Action::Settings => settings::list(call),
    }
}
