//! REST: the other face of the commands that WebSockets carry.

use std::sync::Arc;

use http_body_util::{BodyExt, Limited};
use hyper::{
    HeaderMap, Request, Response, StatusCode,
    body::{Body, Incoming},
    header::{self, HeaderValue},
};
use matchit::Params;
use percent_encoding::percent_decode_str;
use serde::{Serialize, de::DeserializeOwned};

use super::{Answer, Payload, Peer, Site, client, problem::Problem, routes::SOCKET_PATH};
use crate::{
    auth::Grant,
    chat::Caller,
    model::{Command, ConversationId, Identity, Reject, Reply, UserId},
};

mod wire;

/// The largest body that is read, in bytes.
const MAX_BODY: usize = 256 * 1_024;
/// How many of a list are given where the request doesn't say.
const DEFAULT_LIMIT: u32 = 50;
/// How many of a list are given at most.
const MAX_LIMIT: u32 = 100;
/// How many of a list may be passed over; `before_seq` goes further, and at no cost.
const MAX_OFFSET: u32 = 100_000;

/// What can be done over REST.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// Get a short-lived token for a socket.
    Token,
    /// Make a conversation.
    CreateConversation,
    /// List one's conversations.
    Conversations,
    /// Show one.
    Conversation,
    /// Read messages.
    Messages,
    /// Send a message.
    SendMessage,
    /// Make users members.
    AddMembers,
    /// End a membership.
    RemoveMember,
}

/// A request from somebody known.
struct Call<'a> {
    site: &'a Site,
    peer: &'a Peer,
    identity: &'a Arc<Identity>,
    params: &'a Params<'a, 'a>,
    query: Option<&'a str>,
    headers: &'a HeaderMap,
}

/// Answers a request, once its token says whose it is.
pub(super) async fn answer(
    action: Action,
    site: &Site,
    peer: &Peer,
    params: &Params<'_, '_>,
    request: Request<Incoming>,
) -> Answer {
    let (head, body) = request.into_parts();
    let Some(token) = client::bearer(&head.headers) else { return Err(unauthenticated()) };
    let identity = Arc::new(site.broker().auth.verify(token)?);
    let query = head.uri.query();
    let call = Call { site, peer, identity: &identity, params, query, headers: &head.headers };
    match action {
        Action::Token => call.token(),
        Action::CreateConversation => call.create(body).await,
        Action::Conversations => call.conversations().await,
        Action::Conversation => call.conversation().await,
        Action::Messages => call.messages().await,
        Action::SendMessage => call.send(body).await,
        Action::AddMembers => call.add_members(body).await,
        Action::RemoveMember => call.remove_member().await,
    }
}

/// No token at all: the challenge then has no error (RFC 6750, 3.1).
fn unauthenticated() -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, Reject::InvalidToken.code(), "A token is needed: Authorization: Bearer …")
        .with(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
}

/// A conversation's id as it stands in a path.
pub(super) fn conversation_id(segment: &str) -> Result<ConversationId, Problem> {
    let text = percent_decode_str(segment).decode_utf8().map_err(|_| Problem::not_found())?;
    ConversationId::parse(&text).map_err(|_| Reject::NotFound("Conversation").into())
}

impl Call<'_> {
    /// A token for a socket, that never outlives the one shown.
    fn token(&self) -> Answer {
        let broker = self.site.broker();
        let auth = &broker.auth;
        let ttl = broker.config.auth.token_ttl;
        let minted = auth.mint(Grant::from(&**self.identity), ttl, Some(self.identity.expires_at))?;
        let websocket_url = match &broker.config.public_url {
            Some(url) => public_socket_url(url),
            None => socket_url(self.headers, self.peer.trusted).ok_or_else(|| Problem::invalid("Host is missing"))?,
        };
        json(
            StatusCode::OK,
            &wire::Token { token: &minted.token, websocket_url, expires_in: minted.expires_in.as_secs() },
        )
    }

    async fn create(&self, body: Incoming) -> Answer {
        let new: wire::NewConversation = read(body).await?;
        match self.execute(Command::Create(new.checked()?)).await? {
            Reply::Created(made) => json(StatusCode::CREATED, &wire::Conversation::of(&made)),
            other => Err(unexpected(&other)),
        }
    }

    async fn conversations(&self) -> Answer {
        let (limit, offset) = self.page()?;
        match self.execute(Command::Conversations { archived: false, limit, offset }).await? {
            Reply::Conversations(list, total) => {
                let conversations = list.iter().map(wire::Conversation::of).collect();
                json(StatusCode::OK, &wire::Conversations { conversations, total, limit, offset })
            }
            other => Err(unexpected(&other)),
        }
    }

    async fn conversation(&self) -> Answer {
        match self.execute(Command::Describe { conversation: self.conversation_of_path()? }).await? {
            Reply::Conversation(found) => json(StatusCode::OK, &wire::Conversation::of(&found)),
            other => Err(unexpected(&other)),
        }
    }

    async fn messages(&self) -> Answer {
        let (limit, offset) = self.page()?;
        let before = self.number("before_seq", 1, i64::MAX)?;
        let conversation = self.conversation_of_path()?;
        match self.execute(Command::History { conversation, before, thread: None, limit, offset }).await? {
            Reply::History(page) => json(StatusCode::OK, &wire::Messages::of(&page)),
            other => Err(unexpected(&other)),
        }
    }

    async fn send(&self, body: Incoming) -> Answer {
        let conversation = self.conversation_of_path()?;
        let new: wire::NewMessage = read(body).await?;
        match self.execute(Command::Send(new.checked(conversation)?)).await? {
            Reply::Sent(sent) => {
                let status = if sent.duplicate { StatusCode::OK } else { StatusCode::CREATED };
                json(status, &wire::Sent::of(&sent))
            }
            other => Err(unexpected(&other)),
        }
    }

    async fn add_members(&self, body: Incoming) -> Answer {
        let conversation = self.conversation_of_path()?;
        let users = read::<wire::NewMembers>(body).await?.checked()?;
        match self.execute(Command::AddMembers { conversation, users }).await? {
            Reply::Conversation(grown) => json(StatusCode::OK, &wire::Conversation::of(&grown)),
            other => Err(unexpected(&other)),
        }
    }

    async fn remove_member(&self) -> Answer {
        let conversation = self.conversation_of_path()?;
        let text = percent_decode_str(self.params.get("user").unwrap_or_default()).decode_utf8();
        let user = text.ok().and_then(|text| UserId::parse(&text).ok()).ok_or(Reject::NotFound("Member"))?;
        match self.execute(Command::RemoveMember { conversation, user }).await? {
            Reply::Done => {
                let mut response = Response::new(Payload::default());
                *response.status_mut() = StatusCode::NO_CONTENT;
                Ok(response)
            }
            other => Err(unexpected(&other)),
        }
    }

    async fn execute(&self, command: Command) -> Result<Reply, Problem> {
        let caller = Caller { identity: Arc::clone(self.identity), connection: None };
        Ok(self.site.broker().chat.execute(caller, command).await?)
    }

    fn conversation_of_path(&self) -> Result<ConversationId, Problem> {
        conversation_id(self.params.get("conversation").unwrap_or_default())
    }

    /// `limit` and `offset`.
    fn page(&self) -> Result<(u32, u32), Problem> {
        let limit = self.number("limit", 1, i64::from(MAX_LIMIT))?.map_or(DEFAULT_LIMIT, to_u32);
        let offset = self.number("offset", 0, i64::from(MAX_OFFSET))?.map_or(0, to_u32);
        Ok((limit, offset))
    }

    /// A whole number of the query, from `least` to `most`.
    fn number(&self, name: &str, least: i64, most: i64) -> Result<Option<i64>, Problem> {
        let Some(text) = client::parameter(self.query, name) else { return Ok(None) };
        match text.parse() {
            Ok(number) if (least..=most).contains(&number) => Ok(Some(number)),
            _ => Err(Problem::invalid(format!("{name} must be a whole number from {least} to {most}"))),
        }
    }
}

fn to_u32(number: i64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// The WebSocket URL under a public URL: `https` is `wss` there.
fn public_socket_url(public: &str) -> String {
    let base = match public.split_once("://") {
        Some(("https", rest)) => format!("wss://{rest}"),
        Some(("http", rest)) => format!("ws://{rest}"),
        _ => public.to_owned(),
    };
    base.trim_end_matches('/').to_owned() + SOCKET_PATH
}

/// The WebSocket URL under the address that the request itself was sent to.
fn socket_url(headers: &HeaderMap, trusted: bool) -> Option<String> {
    let host = headers.get(header::HOST)?.to_str().ok()?;
    let host: hyper::http::uri::Authority = host.parse().ok()?;
    let scheme = if client::is_secure(trusted, headers) { "wss" } else { "ws" };
    Some(format!("{scheme}://{host}{SOCKET_PATH}"))
}

/// Reads a JSON body. Its content type is not looked at.
async fn read<T: DeserializeOwned>(body: Incoming) -> Result<T, Problem> {
    if body.size_hint().lower() > MAX_BODY as u64 {
        return Err(Problem::too_large(MAX_BODY));
    }
    let bytes = match Limited::new(body, MAX_BODY).collect().await {
        Ok(collected) => collected.to_bytes(),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => return Err(Problem::too_large(MAX_BODY)),
        Err(_) => return Err(Problem::invalid("The body broke off")),
    };
    serde_json::from_slice(&bytes)
        .map_err(|error| Problem::invalid(format!("The body is not what it must be: {error}")))
}

fn json<T: Serialize>(status: StatusCode, value: &T) -> Answer {
    let body = serde_json::to_vec(value).map_err(|_| Problem::internal())?;
    let mut response = Response::new(Payload::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// A command answered what it never answers: a fault of the program's own.
fn unexpected(reply: &Reply) -> Problem {
    tracing::error!(reply = ?std::mem::discriminant(reply), "a command gave an answer of the wrong kind");
    Problem::internal()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_url_follows_the_public_one() {
        assert_eq!(public_socket_url("https://chat.example.com"), "wss://chat.example.com/ws");
        assert_eq!(public_socket_url("http://localhost:80/chat"), "ws://localhost:80/chat/ws");
        assert_eq!(public_socket_url("wss://chat.example.com"), "wss://chat.example.com/ws");
    }

    #[test]
    fn else_it_follows_the_request() {
        let mut headers = HeaderMap::new();
        assert_eq!(socket_url(&headers, false), None);
        headers.insert(header::HOST, "chat.example.com:8000".parse().unwrap());
        headers.insert("x-forwarded-proto", "https".parse().unwrap());
        assert_eq!(socket_url(&headers, false).unwrap(), "ws://chat.example.com:8000/ws");
        assert_eq!(socket_url(&headers, true).unwrap(), "wss://chat.example.com:8000/ws");
        headers.insert(header::HOST, "a b/c".parse().unwrap());
        assert_eq!(socket_url(&headers, false), None);
    }

    #[test]
    fn ids_in_paths_are_decoded_and_checked() {
        assert_eq!(conversation_id("a%3Ab%40c").unwrap().as_str(), "a:b@c");
        for bad in ["", "%00", "a%2Fb", "%7Ealice", "%ff", &"x".repeat(200)] {
            assert!(conversation_id(bad).is_err(), "{bad}");
        }
    }
}
