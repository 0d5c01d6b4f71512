//! The URL of a server, as users give it.

use std::net::IpAddr;

/// Path of the native dialect.
pub(super) const NATIVE_PATH: &str = "/v1/ws";

/// A server: the scheme of its WebSockets, its authority, and a path before the server's own paths, if a proxy adds one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ServerUrl {
    tls: bool,
    rest: String,
}

impl ServerUrl {
    /// Reads a URL. `http` means `ws`; a path of the server's native dialect at its end is left out.
    ///
    /// # Errors
    /// The message for the user.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let bad = || format!("--url must be ws://HOST:PORT or wss://HOST, not {text:?}");
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) => (Some(scheme.to_ascii_lowercase()), rest),
            None => (None, text.trim_start_matches('/')),
        };
        let rest = rest.trim_end_matches('/');
        if rest.is_empty() || rest.starts_with('/') || rest.contains(['?', '#', ' ']) {
            return Err(bad());
        }
        let tls = match scheme.as_deref() {
            Some("ws" | "http") => false,
            Some("wss" | "https") => true,
            Some(other) => {
                return Err(format!(
                    "--url has the scheme {other}://: use --url ws://{rest}, or wss://{rest} with TLS"
                ));
            }
            None => {
                return Err(format!(
                    "--url {text} lacks the scheme ws:// (or wss:// if the server speaks TLS): --url ws://{rest}"
                ));
            }
        };
        Ok(Self { tls, rest: rest.strip_suffix(NATIVE_PATH).unwrap_or(rest).to_owned() })
    }

    /// The URL of a WebSocket at this path.
    pub(super) fn socket(&self, path: &str) -> String {
        format!("{}://{}{path}", if self.tls { "wss" } else { "ws" }, self.rest)
    }

    /// The URL of a request at this path.
    pub(super) fn request(&self, path: &str) -> String {
        format!("{}://{}{path}", if self.tls { "https" } else { "http" }, self.rest)
    }

    /// True if the server is surely on this machine.
    pub(super) fn is_on_this_machine(&self) -> bool {
        let authority = self.rest.split('/').next().unwrap_or_default();
        let host = authority.strip_prefix('[').and_then(|rest| rest.split(']').next());
        let host = host.or_else(|| authority.split(':').next()).unwrap_or_default();
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_normalized() {
        for (given, socket, request) in [
            ("ws://localhost:8000", "ws://localhost:8000/v1/ws", "http://localhost:8000/api"),
            ("https://chat.example.com/", "wss://chat.example.com/v1/ws", "https://chat.example.com/api"),
            ("wss://example.com/chat", "wss://example.com/chat/v1/ws", "https://example.com/chat/api"),
            ("ws://[::1]:8000/v1/ws", "ws://[::1]:8000/v1/ws", "http://[::1]:8000/api"),
        ] {
            let url = ServerUrl::parse(given).unwrap();
            assert_eq!((url.socket("/v1/ws").as_str(), url.request("/api").as_str()), (socket, request));
        }
        for (bad, remedy) in [
            (
                "localhost:8000",
                "lacks the scheme ws:// (or wss:// if the server speaks TLS): --url ws://localhost:8000",
            ),
            ("//chat.example.com/", "--url ws://chat.example.com"),
            ("ftp://x", "--url has the scheme ftp://: use --url ws://x, or wss://x with TLS"),
            ("ws://", "must be ws://HOST:PORT"),
            ("ws:///v1/ws", "must be ws://HOST:PORT"),
            ("ws://x?token=y", "must be ws://HOST:PORT"),
        ] {
            assert!(ServerUrl::parse(bad).is_err_and(|why| why.contains(remedy)), "{bad}");
        }
    }

    #[test]
    fn only_loopback_urls_are_on_this_machine() {
        let is_here = |url: &str| ServerUrl::parse(url).unwrap().is_on_this_machine();
        for here in ["ws://localhost:1", "ws://127.0.0.1:8000/v1/ws", "ws://[::1]:8000"] {
            assert!(is_here(here), "{here}");
        }
        for there in ["ws://10.0.0.1:1", "wss://localhost.example.com", "ws://127.0.0.1.nip.io"] {
            assert!(!is_here(there), "{there}");
        }
    }
}
