//! The route table: every method and path, what answers it, and thereby whom it answers.

use hyper::Method;
use matchit::{Params, Router};

use super::{health::Probe, rest::Action, site::Kind};
use crate::{dialect::Dialect, session::SocketRoute};

/// What answers a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Endpoint {
    /// A WebSocket.
    Socket(SocketRoute),
    /// Health or metrics; no token is needed.
    Probe(Probe),
    /// REST; a token is needed.
    Rest(Action),
}

/// Whom an endpoint answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Anybody.
    Open,
    /// Whoever brings a valid token in the `Authorization` header. What they may then do is the commands' own matter.
    Token,
    /// A WebSocket: anybody is upgraded, and closed with a code where a valid token is missing then.
    Socket,
}

impl Endpoint {
    fn access(self) -> Access {
        match self {
            Self::Probe(_) => Access::Open,
            Self::Rest(_) => Access::Token,
            Self::Socket(_) => Access::Socket,
        }
    }
}

/// A row of the route table, for those who document or test it.
#[derive(Debug, Clone)]
pub struct Route {
    /// The method; what has GET has HEAD as well.
    pub method: Method,
    /// The path; parts in braces stand for ids.
    pub path: &'static str,
    /// Whom it answers.
    pub access: Access,
    /// Whether clients have it; else it is on the admin listener alone.
    pub for_clients: bool,
}

/// Every endpoint there is.
pub fn endpoints() -> impl Iterator<Item = Route> {
    ROUTES.iter().map(|(method, path, endpoint, on)| Route {
        method: method.clone(),
        path,
        access: endpoint.access(),
        for_clients: on.is(Kind::Clients),
    })
}

/// On which listeners a route is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum On {
    Clients,
    Admin,
    Both,
}

impl On {
    fn is(self, kind: Kind) -> bool {
        matches!((self, kind), (Self::Both, _) | (Self::Clients, Kind::Clients) | (Self::Admin, Kind::Admin))
    }
}

/// Where new clients are sent to by the token endpoint: they authenticate with their first frame.
pub(super) const TOKEN_SOCKET: &str = "/ws";

use Action::*;
use Endpoint::{Probe as Answers, Rest, Socket};
use Method as M;

const MESSAGE: &str = "/api/chat/conversations/{conversation}/messages/{message}";
const REACTION: &str = "/api/chat/conversations/{conversation}/messages/{message}/reactions/{emoji}";

const ROUTES: &[(Method, &str, Endpoint, On)] = &[
    (M::GET, "/v1/ws", Socket(SocketRoute::To(Dialect::Native)), On::Clients),
    (M::GET, TOKEN_SOCKET, Socket(SocketRoute::To(Dialect::Direct)), On::Clients),
    (M::GET, "/ws/auth", Socket(SocketRoute::To(Dialect::Personas)), On::Clients),
    (M::GET, "/ws/{conversation}", Socket(SocketRoute::RoomOrSelf), On::Clients),
    (M::GET, "/api/chat/ws/{conversation}", Socket(SocketRoute::To(Dialect::Conversation)), On::Clients),
    (M::POST, "/api/websocket/token", Rest(Token), On::Clients),
    (M::GET, "/api/websocket/status", Rest(Status), On::Clients),
    (M::GET, "/api/websocket/users/online", Rest(Online), On::Clients),
    (M::GET, "/api/websocket/users/{user}/online", Rest(UserOnline), On::Clients),
    (M::POST, "/api/user/status", Rest(SetStatus), On::Clients),
    (M::POST, "/api/messages/read", Rest(MarkRead), On::Clients),
    (M::POST, "/api/conversations/{conversation}/typing", Rest(Typing), On::Clients),
    (M::GET, "/api/connections/info", Rest(Connections), On::Clients),
    (M::GET, "/api/connections/stats", Rest(Stats), On::Clients),
    (M::GET, "/api/notifications", Rest(Notifications), On::Clients),
    (M::POST, "/api/notifications/read", Rest(ReadNotifications), On::Clients),
    (M::GET, "/api/chat/search", Rest(Search), On::Clients),
    (M::GET, "/api/chat/conversations", Rest(Conversations), On::Clients),
    (M::POST, "/api/chat/conversations", Rest(CreateConversation), On::Clients),
    (M::GET, "/api/chat/conversations/{conversation}", Rest(Conversation), On::Clients),
    (M::POST, "/api/chat/conversations/{conversation}/archive", Rest(Archive), On::Clients),
    (M::DELETE, "/api/chat/conversations/{conversation}/archive", Rest(Unarchive), On::Clients),
    (M::GET, "/api/chat/conversations/{conversation}/members", Rest(Members), On::Clients),
    (M::POST, "/api/chat/conversations/{conversation}/members", Rest(AddMembers), On::Clients),
    (M::DELETE, "/api/chat/conversations/{conversation}/members/{user}", Rest(RemoveMember), On::Clients),
    (M::GET, "/api/chat/conversations/{conversation}/messages", Rest(Messages), On::Clients),
    (M::POST, "/api/chat/conversations/{conversation}/messages", Rest(SendMessage), On::Clients),
    (M::GET, MESSAGE, Rest(Message), On::Clients),
    (M::PATCH, MESSAGE, Rest(EditMessage), On::Clients),
    (M::DELETE, MESSAGE, Rest(DeleteMessage), On::Clients),
    (M::GET, "/api/chat/conversations/{conversation}/messages/{message}/replies", Rest(Replies), On::Clients),
    (M::PUT, REACTION, Rest(React), On::Clients),
    (M::DELETE, REACTION, Rest(TakeBack), On::Clients),
    (M::GET, "/api/health", Answers(Probe::Health), On::Both),
    (M::GET, "/livez", Answers(Probe::Live), On::Both),
    (M::GET, "/readyz", Answers(Probe::Ready), On::Both),
    (M::GET, "/metrics", Answers(Probe::Metrics), On::Admin),
];

/// What a path was found to be.
#[derive(Debug)]
pub(super) enum Found<'r, 'p> {
    /// A route.
    Endpoint(Endpoint, Params<'r, 'p>),
    /// A path that has other methods: those of the `Allow` header.
    OtherMethods(String),
    /// Nothing.
    Nothing,
}

/// The routes of one listener.
#[derive(Debug)]
pub(super) struct Routes {
    paths: Router<Vec<(Method, Endpoint)>>,
}

impl Routes {
    /// Those of the table that a listener of this kind has.
    pub(super) fn of(kind: Kind) -> Self {
        let mut paths = Router::<Vec<(Method, Endpoint)>>::new();
        for (method, path, endpoint, _) in ROUTES.iter().filter(|(.., on)| on.is(kind)) {
            // One entry a path, with all its methods: the second time a path comes it is found under its own text.
            match paths.at_mut(path) {
                Ok(found) => found.value.push((method.clone(), *endpoint)),
                Err(_) => {
                    let inserted = paths.insert(*path, vec![(method.clone(), *endpoint)]);
                    debug_assert!(inserted.is_ok(), "{path} collides with another route");
                }
            }
        }
        Self { paths }
    }

    /// Finds what answers a request. HEAD is answered as GET is.
    pub(super) fn find<'r, 'p>(&'r self, method: &Method, path: &'p str) -> Found<'r, 'p> {
        let Ok(found) = self.paths.at(path) else { return Found::Nothing };
        let asked = if method == Method::HEAD { &Method::GET } else { method };
        match found.value.iter().find(|(method, _)| method == asked) {
            Some((_, endpoint)) => Found::Endpoint(*endpoint, found.params),
            None => Found::OtherMethods(allowed(found.value.iter().map(|(method, _)| method))),
        }
    }
}

fn allowed<'a>(methods: impl Iterator<Item = &'a Method>) -> String {
    let mut names: Vec<&str> = methods.map(Method::as_str).collect();
    if names.contains(&Method::GET.as_str()) {
        names.push(Method::HEAD.as_str());
    }
    names.sort_unstable();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_is_found_where_it_belongs() {
        for kind in [Kind::Clients, Kind::Admin] {
            let routes = Routes::of(kind);
            for (method, path, endpoint, on) in ROUTES {
                let path = path.replace(['{', '}'], "");
                match routes.find(method, &path) {
                    Found::Endpoint(found, _) => assert!(on.is(kind) && found == *endpoint, "{path}"),
                    _ => assert!(!on.is(kind), "{method} {path}"),
                }
            }
        }
    }

    #[test]
    fn parameters_heads_and_other_methods() {
        let routes = Routes::of(Kind::Clients);
        let Found::Endpoint(endpoint, params) = routes.find(&Method::HEAD, "/api/chat/conversations/a%3Ab/messages")
        else {
            panic!("not found");
        };
        assert_eq!(endpoint, Rest(Messages));
        assert_eq!(params.get("conversation"), Some("a%3Ab"));
        let Found::OtherMethods(allow) = routes.find(&Method::PUT, "/api/chat/conversations") else {
            panic!("found");
        };
        assert_eq!(allow, "GET, HEAD, POST");
        for path in ["/", "/ws/", "/ws/a/b", "/v1/ws/", "/metrics", "/api/chat/conversations/"] {
            assert!(matches!(routes.find(&Method::GET, path), Found::Nothing), "{path}");
        }
    }
}
