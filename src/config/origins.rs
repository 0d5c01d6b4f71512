//! ALLOWED_ORIGINS: the origins whose pages may use a node, and what counts as this machine under `switchboard dev`.

use std::net::IpAddr;

use super::parse::items;

/// Schemes of WebSockets. An `Origin` header never has one of them: it names the page, not the socket.
const SOCKET_SCHEMES: [&str; 2] = ["ws", "wss"];

/// The origins whose pages may use a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowedOrigins {
    /// No list: pages of any origin may open WebSockets, and only pages of the server's own origin may use REST.
    Unset,
    /// Pages of any origin may open WebSockets and use REST.
    Any,
    /// Pages of the listed origins.
    Listed(Vec<OriginPattern>),
}

/// One item of ALLOWED_ORIGINS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OriginPattern {
    /// The origin `null`: sandboxed frames, local files, and apps without an origin.
    Null,
    /// Origins with a scheme, a host and a port.
    Tuple {
        /// The scheme in lower case.
        scheme: String,
        /// The host.
        host: HostPattern,
        /// The port.
        port: PortPattern,
    },
}

/// The host of an [`OriginPattern`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostPattern {
    /// This host, in lower case.
    Exact(String),
    /// All subdomains; the text begins with a dot.
    Subdomains(String),
}

/// The port of an [`OriginPattern`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortPattern {
    /// Any port, and no port.
    Any,
    /// This port; `None` for a scheme without a default port.
    Exact(Option<u16>),
}

/// An origin, or a `Host` header, as a request has it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Authority {
    /// The host in lower case, without a trailing dot.
    host: String,
    port: Option<u16>,
}

impl AllowedOrigins {
    /// Parses a list of origins, separated by commas.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let list = items(text).filter(|item| *item != "*").map(OriginPattern::parse).collect::<Result<Vec<_>, _>>()?;
        if items(text).any(|item| item == "*") {
            return Ok(Self::Any);
        }
        if list.is_empty() { Err("must list origins, or be left out".to_owned()) } else { Ok(Self::Listed(list)) }
    }

    /// True if the list names this origin, or all origins.
    pub fn names(&self, origin: &str) -> bool {
        match self {
            Self::Unset => false,
            Self::Any => true,
            Self::Listed(list) => list.iter().any(|pattern| pattern.matches(origin)),
        }
    }

    /// True if the list names an origin with this host, whatever its scheme and port.
    fn names_host(&self, host: &str) -> bool {
        match self {
            Self::Unset => false,
            Self::Any => true,
            Self::Listed(list) => list
                .iter()
                .any(|pattern| matches!(pattern, OriginPattern::Tuple { host: pattern, .. } if pattern.matches(host))),
        }
    }

    /// True if a `Host` header may reach `switchboard dev`: it names this machine, a host of the list, or that of
    /// `public_url`. A page can make a name of its own point to this machine (DNS rebinding), but not one of these.
    pub fn dev_accepts_host(&self, host: &str, public_url: Option<&str>) -> bool {
        let Some(authority) = Authority::parse(host, None) else { return false };
        let is_public = || {
            let public = public_url.and_then(|url| url.split_once("://")).map(|(_, rest)| rest);
            let public = public.and_then(|rest| Authority::parse(rest.split('/').next()?, None));
            public.is_some_and(|public| public.host == authority.host)
        };
        authority.is_this_machine() || self.names_host(&authority.host) || is_public()
    }
}

impl OriginPattern {
    fn parse(item: &str) -> Result<Self, String> {
        let bad = |message: &str| Err(format!("has an origin that no page can have: {message}"));
        let text = item.to_ascii_lowercase();
        if text == "null" {
            return Ok(Self::Null);
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            return bad("an origin begins with a scheme, as in https://app.example.com");
        };
        let mut letters = scheme.chars();
        if !letters.next().is_some_and(|first| first.is_ascii_lowercase())
            || !letters.all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
        {
            return bad("a scheme has letters, digits and + - . only");
        }
        if SOCKET_SCHEMES.contains(&scheme) {
            return bad("it names the page (https://…), not the WebSocket");
        }
        // An origin has no path; a lone slash is a common slip and means the same origin.
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains(['/', '?', '#', '\\']) {
            return bad("an origin ends after the host and the port, it has no path");
        }
        if rest.contains('@') {
            return bad("an origin has no user and no password");
        }
        if rest.is_empty() && scheme != "file" {
            return bad("the host is missing");
        }
        let Some((host, port)) = split_port(rest) else { return bad("its port is not a number from 1 to 65535") };
        let host = HostPattern::parse(host, scheme)?;
        let port = match port {
            Some("*") => PortPattern::Any,
            Some(port) => match port.parse::<u16>().ok().filter(|port| *port > 0) {
                Some(port) => PortPattern::Exact(Some(port)),
                None => return bad("its port is not a number from 1 to 65535"),
            },
            None => PortPattern::Exact(default_port(scheme)),
        };
        Ok(Self::Tuple { scheme: scheme.to_owned(), host, port })
    }

    fn matches(&self, origin: &str) -> bool {
        match self {
            Self::Null => origin.eq_ignore_ascii_case("null"),
            Self::Tuple { scheme, host, port } => {
                let Some((given, rest)) = origin.split_once("://") else { return false };
                if !given.eq_ignore_ascii_case(scheme) {
                    return false;
                }
                let Some(authority) = Authority::parse(rest, default_port(scheme)) else { return false };
                let fits = match port {
                    PortPattern::Any => true,
                    PortPattern::Exact(port) => authority.port == *port,
                };
                fits && host.matches(&authority.host)
            }
        }
    }
}

impl HostPattern {
    fn parse(host: &str, scheme: &str) -> Result<Self, String> {
        let bad = |message: &str| Err(format!("has an origin that no page can have: {message}"));
        if !host.is_ascii() {
            return bad("browsers send a host in ASCII; write it as xn--…");
        }
        if host.is_empty() && scheme == "file" {
            return Ok(Self::Exact(String::new()));
        }
        let (wild, name) = match host.strip_prefix("*.") {
            Some(name) => (true, name),
            None => (false, host),
        };
        if name.contains('*') {
            return bad("* stands for subdomains (https://*.example.com), for a port (http://localhost:*), or alone");
        }
        let is_ipv6 = |text: &str| {
            let inside = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
            inside.is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok())
        };
        let is_name = |text: &str| {
            let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
            !text.is_empty() && !text.starts_with('.') && !text.contains("..") && text.bytes().all(allowed)
        };
        let name = name.strip_suffix('.').unwrap_or(name);
        match (wild, is_name(name), is_ipv6(name)) {
            (true, true, _) => Ok(Self::Subdomains(format!(".{name}"))),
            (false, true, _) => Ok(Self::Exact(name.to_owned())),
            (false, _, true) => Ok(Self::Exact(canonical(name))),
            _ => bad("its host is neither a name nor an address"),
        }
    }

    fn matches(&self, host: &str) -> bool {
        match self {
            Self::Exact(exact) => host == exact,
            Self::Subdomains(suffix) => host.len() > suffix.len() && host.ends_with(suffix.as_str()),
        }
    }
}

impl Authority {
    /// Parses `host` or `host:port`.
    fn parse(text: &str, default: Option<u16>) -> Option<Self> {
        let (host, port) = split_port(text)?;
        let port = match port {
            Some(port) => Some(port.parse().ok()?),
            None => default,
        };
        let host = host.to_ascii_lowercase();
        Some(Self { host: canonical(host.strip_suffix('.').unwrap_or(&host)), port })
    }

    /// True for localhost, its subdomains, and loopback addresses. Browsers resolve these names without asking the DNS.
    fn is_this_machine(&self) -> bool {
        let bare = self.host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(&self.host);
        match bare.parse::<IpAddr>() {
            Ok(address) => address.to_canonical().is_loopback(),
            Err(_) => self.host == "localhost" || self.host.ends_with(".localhost"),
        }
    }
}

/// True if the page of this origin was loaded from this machine: over HTTP, or from a file. Pages of other sites can send
/// `null`, but not `file://`.
pub fn is_this_machine(origin: &str) -> bool {
    if origin == "file://" {
        return true;
    }
    let Some((scheme, rest)) = origin.split_once("://") else { return false };
    let scheme = scheme.to_ascii_lowercase();
    matches!(&*scheme, "http" | "https") && Authority::parse(rest, None).is_some_and(|origin| origin.is_this_machine())
}

/// True if the origin names the host and port that the request itself was sent to. Native apps send it.
pub fn is_same_host(origin: &str, host: &str) -> bool {
    let Some((scheme, rest)) = origin.split_once("://") else { return false };
    let default = default_port(&scheme.to_ascii_lowercase());
    // A proxy that ends TLS passes the host on without a port, so the default is that of the origin's scheme.
    default.is_some() && Authority::parse(rest, default).is_some_and(|it| Some(it) == Authority::parse(host, default))
}

/// Splits `host:port`; an IPv6 address is in brackets. `None` if what follows the host is no port.
fn split_port(text: &str) -> Option<(&str, Option<&str>)> {
    let after_brackets = text.rfind(']').map_or(0, |at| at + 1);
    let (brackets, rest) = text.split_at(after_brackets);
    match rest.split_once(':') {
        Some((_, "")) => None,
        Some((host, port)) if brackets.is_empty() || host.is_empty() => {
            Some((if brackets.is_empty() { host } else { brackets }, Some(port)))
        }
        None if brackets.is_empty() || rest.is_empty() => Some((text, None)),
        _ => None,
    }
}

/// An IPv6 address in its canonical form; any other host unchanged.
fn canonical(host: &str) -> String {
    let inside = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    match inside.and_then(|text| text.parse::<std::net::Ipv6Addr>().ok()) {
        Some(address) => format!("[{address}]"),
        None => host.to_owned(),
    }
}

/// The port that browsers leave out of an origin.
fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(list: &str, origin: &str) -> bool {
        AllowedOrigins::parse(list).unwrap().names(origin)
    }

    #[test]
    fn origins_match_by_scheme_host_and_port() {
        for (list, origin) in [
            ("*", "https://anything.example"),
            ("https://a.example, *", "null"),
            ("https://a.example", "https://A.example"),
            ("HTTPS://A.Example/", "https://a.example"),
            ("https://a.example:443", "https://a.example"),
            ("https://a.example", "https://a.example:443"),
            ("http://a.example:80", "http://a.example"),
            ("https://*.example.com", "https://app.example.com"),
            ("https://*.example.com", "https://a.b.example.com:443"),
            ("http://localhost:*", "http://localhost:5173"),
            ("http://localhost:*", "http://localhost"),
            ("https://*.example.com:*", "https://a.example.com:8443"),
            ("http://[::1]:8000", "http://[0:0::1]:8000"),
            ("capacitor://localhost", "capacitor://localhost"),
            ("ionic://localhost, app://obsidian.md", "ionic://localhost"),
            ("file://", "file://"),
            ("null", "null"),
            ("chrome-extension://abcdef", "chrome-extension://abcdef"),
        ] {
            assert!(allows(list, origin), "{list} {origin}");
        }
        for (list, origin) in [
            ("https://a.example", "http://a.example"),
            ("https://a.example", "https://a.example:8443"),
            ("https://a.example", "https://a.example.evil.example"),
            ("https://a.example", "null"),
            ("https://a.example", ""),
            ("https://*.example.com", "https://example.com"),
            ("https://*.example.com", "https://evilexample.com"),
            ("https://*.example.com", "https://.example.com"),
            ("https://*.example.com", "http://app.example.com"),
            ("http://localhost:*", "http://localhost.evil.example:80"),
            ("http://localhost:*", "http://localhost:x"),
            ("file://", "null"),
        ] {
            assert!(!allows(list, origin), "{list} {origin}");
        }
    }

    #[test]
    fn origins_that_no_page_has_are_refused_with_their_reason() {
        for (bad, reason) in [
            ("app.example.com", "scheme"),
            ("https://a.example/app", "no path"),
            ("https://a.example?x", "no path"),
            ("https://", "host is missing"),
            ("wss://a.example", "not the WebSocket"),
            ("https://user@a.example", "no user"),
            ("https://a.example:0", "port"),
            ("https://a.example:99999", "port"),
            ("https://a.example:", "port"),
            ("https://*", "stands for"),
            ("https://a.*.example", "stands for"),
            ("https://bücher.example", "xn--"),
            ("https://a b", "neither"),
            ("https://.example", "neither"),
            ("1http://a", "a scheme has"),
            (" , ", "must list"),
            ("*, https://a.example/app", "no path"),
        ] {
            let message = AllowedOrigins::parse(bad).unwrap_err();
            assert!(message.contains(reason), "{bad}: {message}");
        }
    }

    #[test]
    fn this_machine_is_recognised() {
        for host in
            ["localhost", "LOCALHOST:8000", "app.localhost:1", "localhost.", "127.0.0.1", "127.9.9.9:80", "[::1]:8000"]
        {
            assert!(AllowedOrigins::Unset.dev_accepts_host(host, None), "{host}");
            assert!(is_this_machine(&format!("http://{host}")), "{host}");
        }
        for host in
            ["evil.example", "localhost.evil.example", "evillocalhost", "128.0.0.1", "[::2]", "", "127.0.0.1.nip.io"]
        {
            assert!(!AllowedOrigins::Unset.dev_accepts_host(host, None), "{host}");
            assert!(!is_this_machine(&format!("http://{host}")), "{host}");
        }
        assert!(is_this_machine("file://") && !is_this_machine("null") && !is_this_machine("capacitor://localhost"));
        let listed = AllowedOrigins::parse("http://10.0.2.2:8000").unwrap();
        assert!(listed.dev_accepts_host("10.0.2.2:8000", None));
        assert!(AllowedOrigins::Unset.dev_accepts_host("x.example", Some("wss://x.example/chat")));
    }

    #[test]
    fn the_same_host_is_recognised_behind_tls() {
        assert!(is_same_host("https://chat.example.com", "chat.example.com"));
        assert!(is_same_host("https://chat.example.com", "Chat.example.com:443"));
        assert!(is_same_host("http://10.0.2.2:8000", "10.0.2.2:8000"));
        for (origin, host) in [
            ("https://evil.example", "chat.example.com"),
            ("https://chat.example.com:8443", "chat.example.com"),
            ("null", "null"),
            ("file://", ""),
            ("capacitor://localhost", "localhost"),
        ] {
            assert!(!is_same_host(origin, host), "{origin} {host}");
        }
    }
}
