//! Mints a short-lived token for a WebSocket, and returns the WebSocket's URL.

use hyper::{HeaderMap, header};
use serde::Serialize;

use super::{Call, ok};
use crate::{
    auth::Grant,
    http::{HttpResult, client, compression::HoldsSecret, problem::Problem, routes::TOKEN_SOCKET},
};

#[derive(Serialize)]
struct Token<'a> {
    token: &'a str,
    websocket_url: String,
    expires_in: u64,
}

impl Call<'_> {
    /// Mints a token for a WebSocket. It never outlives the token of the request.
    pub(super) fn token(&self) -> HttpResult {
        let broker = self.service.broker();
        let auth = &broker.auth;
        // The token may have been revoked while the body came.
        auth.check_again(self.identity)?;
        let ttl = broker.config.auth.token_ttl;
        let minted = auth.mint(Grant::from(&**self.identity), ttl, Some(self.identity))?;
        let websocket_url = match &broker.config.public_url {
            Some(url) => public_socket_url(url),
            None => socket_url(self.headers, self.peer.trusted).ok_or_else(|| Problem::invalid("Host is missing"))?,
        };
        let mut response = ok(&Token { token: &minted.token, websocket_url, expires_in: minted.expires_in.as_secs() })?;
        response.extensions_mut().insert(HoldsSecret);
        Ok(response)
    }
}

/// The WebSocket URL below a public URL, with `wss` for `https` and `ws` for `http`.
fn public_socket_url(public: &str) -> String {
    let base = match public.split_once("://") {
        Some(("https", rest)) => format!("wss://{rest}"),
        Some(("http", rest)) => format!("ws://{rest}"),
        _ => public.to_owned(),
    };
    base.trim_end_matches('/').to_owned() + TOKEN_SOCKET
}

/// The WebSocket URL below the address in the request's `Host` header.
fn socket_url(headers: &HeaderMap, trusted: bool) -> Option<String> {
    let host = headers.get(header::HOST)?.to_str().ok()?;
    let host: hyper::http::uri::Authority = host.parse().ok()?;
    // A user in front of the host would be sent along with the token.
    if host.as_str().contains('@') {
        return None;
    }
    let scheme = if client::is_secure(trusted, headers) { "wss" } else { "ws" };
    Some(format!("{scheme}://{host}{TOKEN_SOCKET}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_url_is_below_the_public_url() {
        assert_eq!(public_socket_url("https://chat.example.com"), "wss://chat.example.com/ws");
        assert_eq!(public_socket_url("http://localhost:80/chat"), "ws://localhost:80/chat/ws");
        assert_eq!(public_socket_url("wss://chat.example.com"), "wss://chat.example.com/ws");
    }

    #[test]
    fn without_a_public_url_the_socket_url_is_below_the_host() {
        let mut headers = HeaderMap::new();
        assert_eq!(socket_url(&headers, false), None);
        headers.insert(header::HOST, "chat.example.com:8000".parse().unwrap());
        headers.insert("x-forwarded-proto", "https".parse().unwrap());
        assert_eq!(socket_url(&headers, false).unwrap(), "ws://chat.example.com:8000/ws");
        assert_eq!(socket_url(&headers, true).unwrap(), "wss://chat.example.com:8000/ws");
        for bad in ["a b/c", "chat.example.com@evil.example", ""] {
            headers.insert(header::HOST, bad.parse().unwrap());
            assert_eq!(socket_url(&headers, false), None, "{bad}");
        }
    }
}
