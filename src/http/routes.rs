//! The route table: each method and path with its endpoint, the access that it needs, and the listeners that have it.

use hyper::Method;
use matchit::{Params, Router};

use super::{
    console::{self, Asset},
    health::Probe,
    rest::Action,
    service::Kind,
};
use crate::{dialect::Dialect, session::SocketRoute};

/// Endpoint that answers a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Endpoint {
    /// A WebSocket.
    Socket(SocketRoute),
    /// Health or metrics; no token is needed.
    Probe(Probe),
    /// REST; a token is needed.
    Rest(Action),
    /// The API of the admin console; its own token is needed.
    Console(console::Action),
    /// A file of the admin console; no token is needed.
    Page(Asset),
}

/// Access that an endpoint requires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// No token.
    Open,
    /// A valid token in the `Authorization` header. Each command then checks the user's permissions itself.
    Token,
    /// The token of the admin console.
    Console,
    /// A file of the admin console, which holds no data: no token.
    Page,
    /// A WebSocket: every client is upgraded; without a valid token the session closes it with a code.
    Socket,
}

impl Endpoint {
    fn access(self) -> Access {
        match self {
            Self::Probe(_) => Access::Open,
            Self::Rest(_) => Access::Token,
            Self::Socket(_) => Access::Socket,
            Self::Console(_) => Access::Console,
            Self::Page(_) => Access::Page,
        }
    }
}

/// A row of the route table, for documentation and tests.
#[derive(Debug, Clone)]
pub struct Route {
    /// The method. A path with GET has HEAD as well.
    pub method: Method,
    /// The path. Segments in braces are ids.
    pub path: &'static str,
    /// Access that it requires.
    pub access: Access,
    /// True if the clients' listener has it; false if only the admin listener has it.
    pub for_clients: bool,
}

/// All endpoints.
pub fn endpoints() -> impl Iterator<Item = Route> {
    ROUTES.iter().map(|(method, path, endpoint, on)| Route {
        method: method.clone(),
        path,
        access: endpoint.access(),
        for_clients: on.is(Kind::Clients),
    })
}

/// Listeners that have a route.
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

/// Path that the token endpoint returns to clients. They authenticate with their first frame there.
pub(super) const TOKEN_SOCKET: &str = "/ws";

use Action::*;
use Endpoint::{Console, Page, Probe as Answers, Rest, Socket};
use Method as M;
use console::Action as Admin;

const MESSAGE: &str = "/api/chat/conversations/{conversation}/messages/{message}";
const REACTION: &str = "/api/chat/conversations/{conversation}/messages/{message}/reactions/{emoji}";

const ADMIN_MESSAGE: &str = "/admin/api/conversations/{conversation}/messages/{message}";

const ROUTES: &[(Method, &str, Endpoint, On)] = &[
    (M::GET, "/v1/ws", Socket(SocketRoute::To(Dialect::Native)), On::Clients),
    (M::GET, TOKEN_SOCKET, Socket(SocketRoute::To(Dialect::Direct)), On::Clients),
    (M::GET, "/ws/auth", Socket(SocketRoute::To(Dialect::Personas)), On::Clients),
    (M::GET, "/ws/{conversation}", Socket(SocketRoute::RoomOrSelf), On::Clients),
    // Any room, also one with the caller's own id, or with the name of another route.
    (M::GET, "/ws/rooms/{conversation}", Socket(SocketRoute::To(Dialect::Rooms)), On::Clients),
    (M::GET, "/api/chat/ws/{conversation}", Socket(SocketRoute::To(Dialect::Conversation)), On::Clients),
    (M::POST, "/api/websocket/token", Rest(Token), On::Clients),
    (M::GET, "/api/websocket/status", Rest(Status), On::Clients),
    (M::GET, "/api/websocket/users/online", Rest(Online), On::Clients),
    (M::GET, "/api/websocket/users/{user}/online", Rest(UserOnline), On::Clients),
    (M::POST, "/api/user/status", Rest(SetStatus), On::Clients),
    (M::POST, "/api/messages/read", Rest(MarkRead), On::Clients),
    (M::POST, "/api/conversations/{conversation}/typing", Rest(Typing), On::Clients),
    (M::POST, "/api/conversations/{conversation}/events", Rest(ConversationEvent), On::Clients),
    (M::POST, "/api/users/{user}/events", Rest(UserEvent), On::Clients),
    (M::GET, "/api/connections/info", Rest(Connections), On::Clients),
    (M::GET, "/api/connections/stats", Rest(Stats), On::Clients),
    (M::GET, "/api/notifications", Rest(Notifications), On::Clients),
    (M::POST, "/api/notifications/read", Rest(ReadNotifications), On::Clients),
    (M::GET, "/api/blocks", Rest(Blocks), On::Clients),
    (M::POST, "/api/blocks/{user}", Rest(Block), On::Clients),
    (M::DELETE, "/api/blocks/{user}", Rest(Unblock), On::Clients),
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
    (M::DELETE, REACTION, Rest(RemoveReaction), On::Clients),
    (M::POST, "/api/admin/users/{user}/disconnect", Rest(Disconnect), On::Clients),
    (M::POST, "/api/admin/users/{user}/revoke", Rest(Revoke), On::Clients),
    (M::GET, "/api/admin/users/{user}/block", Rest(BlockState), On::Clients),
    (M::PUT, "/api/admin/users/{user}/block", Rest(BlockAccess), On::Clients),
    (M::DELETE, "/api/admin/users/{user}/block", Rest(UnblockAccess), On::Clients),
    (M::GET, "/api/admin/blocks", Rest(BlockedUsers), On::Clients),
    (M::GET, "/api/websocket/check", Answers(Probe::Check), On::Clients),
    (M::GET, "/api/health", Answers(Probe::Health), On::Both),
    (M::GET, "/livez", Answers(Probe::Live), On::Both),
    (M::GET, "/readyz", Answers(Probe::Ready), On::Both),
    (M::GET, "/metrics", Answers(Probe::Metrics), On::Admin),
    (M::GET, "/admin", Page(Asset::Redirect), On::Admin),
    (M::GET, "/admin/", Page(Asset::Page), On::Admin),
    (M::GET, "/admin/console.css", Page(Asset::Style), On::Admin),
    (M::GET, "/admin/console.js", Page(Asset::Script), On::Admin),
    (M::GET, "/admin/api/overview", Console(Admin::Overview), On::Admin),
    (M::GET, "/admin/api/faults/{fault}", Console(Admin::Fault), On::Admin),
    (M::GET, "/admin/api/users", Console(Admin::Users), On::Admin),
    (M::GET, "/admin/api/users/{user}", Console(Admin::User), On::Admin),
    (M::GET, "/admin/api/users/{user}/conversations", Console(Admin::UserConversations), On::Admin),
    (M::GET, "/admin/api/users/{user}/export", Console(Admin::Export), On::Admin),
    (M::GET, "/admin/api/users/{user}/erasure", Console(Admin::Erasure), On::Admin),
    (M::POST, "/admin/api/users/{user}/erasure", Console(Admin::Erase), On::Admin),
    (M::POST, "/admin/api/users/{user}/disconnect", Console(Admin::Disconnect), On::Admin),
    (M::POST, "/admin/api/users/{user}/revoke", Console(Admin::Revoke), On::Admin),
    (M::GET, "/admin/api/users/{user}/block", Console(Admin::BlockState), On::Admin),
    (M::PUT, "/admin/api/users/{user}/block", Console(Admin::Block), On::Admin),
    (M::DELETE, "/admin/api/users/{user}/block", Console(Admin::Unblock), On::Admin),
    (M::GET, "/admin/api/blocks", Console(Admin::Blocks), On::Admin),
    (M::GET, "/admin/api/conversations/{conversation}", Console(Admin::Conversation), On::Admin),
    (M::GET, "/admin/api/conversations/{conversation}/members", Console(Admin::Members), On::Admin),
    (M::GET, "/admin/api/conversations/{conversation}/entries", Console(Admin::Entries), On::Admin),
    (M::GET, "/admin/api/conversations/{conversation}/retention", Console(Admin::Retention), On::Admin),
    (M::PUT, "/admin/api/conversations/{conversation}/retention", Console(Admin::SetRetention), On::Admin),
    (M::GET, "/admin/api/conversations/{conversation}/search", Console(Admin::Search), On::Admin),
    (M::DELETE, ADMIN_MESSAGE, Console(Admin::DeleteMessage), On::Admin),
    (M::GET, "/admin/api/tail", Console(Admin::Tail), On::Admin),
    (M::POST, "/admin/api/token", Console(Admin::Token), On::Admin),
    (M::GET, "/admin/api/deliveries", Console(Admin::Deliveries), On::Admin),
    (M::GET, "/admin/api/deliveries/{delivery}", Console(Admin::Delivery), On::Admin),
    (M::POST, "/admin/api/deliveries/{delivery}/replay", Console(Admin::Replay), On::Admin),
    (M::GET, "/admin/api/settings", Console(Admin::Settings), On::Admin),
];

/// Result of a lookup.
#[derive(Debug)]
pub(super) enum Found<'r, 'p> {
    /// A route.
    Endpoint(Endpoint, Params<'r, 'p>),
    /// The path has other methods only; holds the value of the `Allow` header.
    OtherMethods(String),
    /// No such path.
    Nothing,
}

/// The routes of one listener.
#[derive(Debug)]
pub(super) struct Routes {
    paths: Router<Vec<(Method, Endpoint)>>,
}

impl Routes {
    /// The rows of the table for listeners of this kind.
    pub(super) fn of(kind: Kind) -> Self {
        let mut paths = Router::<Vec<(Method, Endpoint)>>::new();
        for (method, path, endpoint, _) in ROUTES.iter().filter(|(.., on)| on.is(kind)) {
            // The router holds one value per path: `at_mut` finds the earlier row of the same path.
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

    /// Finds the endpoint of a request. HEAD has the endpoint of GET.
    pub(super) fn find<'r, 'p>(&'r self, method: &Method, path: &'p str) -> Found<'r, 'p> {
        let Ok(found) = self.paths.at(path) else { return Found::Nothing };
        let wanted = if method == Method::HEAD { &Method::GET } else { method };
        match found.value.iter().find(|(method, _)| method == wanted) {
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
    fn each_listener_finds_its_own_routes_only() {
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
    fn lookups_cover_parameters_head_and_other_methods() {
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
