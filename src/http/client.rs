//! Reads the client's address (also behind proxies), the bearer token and query parameters from a request.

use std::{borrow::Cow, net::IpAddr};

use hyper::{HeaderMap, header};
use ipnet::IpNet;

const FORWARDED_FOR: &str = "x-forwarded-for";
const FORWARDED_PROTO: &str = "x-forwarded-proto";

/// True if the peer is a trusted proxy, whose forwarding headers count.
pub(super) fn is_trusted(peer: IpAddr, proxies: &[IpNet]) -> bool {
    let peer = peer.to_canonical();
    proxies.iter().any(|network| network.contains(&peer))
}

/// The client's address: the peer's own, or, behind trusted proxies, the right-most address of `X-Forwarded-For` that
/// is not a trusted proxy. Addresses further left are not trusted, because any client can write them.
pub(super) fn address(peer: IpAddr, headers: &HeaderMap, proxies: &[IpNet]) -> IpAddr {
    let mut client = peer.to_canonical();
    let values = headers.get_all(FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok());
    let hops: Vec<&str> = values.flat_map(|value| value.split(',')).map(str::trim).collect();
    for hop in hops.into_iter().rev() {
        if !is_trusted(client, proxies) {
            break;
        }
        match parse(hop) {
            Some(address) => client = address,
            None => break,
        }
    }
    client
}

/// Parses an address as proxies write it: alone, with a port, or in brackets.
fn parse(hop: &str) -> Option<IpAddr> {
    let bare = hop.strip_prefix('[').and_then(|rest| rest.split_once(']')).map_or(hop, |(inside, _)| inside);
    let address: Option<IpAddr> = bare.parse().ok();
    address.or_else(|| hop.parse::<std::net::SocketAddr>().ok().map(|address| address.ip())).map(|a| a.to_canonical())
}

/// True if a trusted proxy reports that the client uses TLS.
pub(super) fn is_secure(trusted: bool, headers: &HeaderMap) -> bool {
    let protocol = headers.get(FORWARDED_PROTO).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let protocol = protocol.split(',').next_back().unwrap_or_default().trim();
    trusted && (protocol.eq_ignore_ascii_case("https") || protocol.eq_ignore_ascii_case("wss"))
}

/// The token of an `Authorization: Bearer` header.
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// The first query parameter of this name.
pub(super) fn parameter(query: Option<&str>, name: &str) -> Option<String> {
    let mut pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    pairs.find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

/// The names of all query parameters.
pub(super) fn parameter_names(query: Option<&str>) -> impl Iterator<Item = Cow<'_, str>> {
    form_urlencoded::parse(query.unwrap_or_default().as_bytes()).map(|(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(peer: &str, forwarded: &[&str], proxies: &str) -> String {
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append(FORWARDED_FOR, value.parse().unwrap());
        }
        let proxies: Vec<IpNet> = proxies.split(',').filter(|p| !p.is_empty()).map(|p| p.parse().unwrap()).collect();
        address(peer.parse().unwrap(), &headers, &proxies).to_string()
    }

    #[test]
    fn forwarded_for_counts_only_from_trusted_proxies() {
        assert_eq!(client("192.0.2.9", &["203.0.113.1"], ""), "192.0.2.9");
        assert_eq!(client("192.0.2.9", &["203.0.113.1"], "10.0.0.0/8"), "192.0.2.9");
        assert_eq!(client("10.0.0.1", &["203.0.113.1"], "10.0.0.0/8"), "203.0.113.1");
        assert_eq!(client("::ffff:10.0.0.1", &["203.0.113.1"], "10.0.0.0/8"), "203.0.113.1");
        assert_eq!(client("10.0.0.1", &[], "10.0.0.0/8"), "10.0.0.1");
    }

    #[test]
    fn addresses_left_of_the_client_are_ignored() {
        assert_eq!(client("10.0.0.1", &["1.1.1.1, 203.0.113.1, 10.0.0.2"], "10.0.0.0/8"), "203.0.113.1");
        assert_eq!(client("10.0.0.1", &["1.1.1.1", "203.0.113.1"], "10.0.0.0/8"), "203.0.113.1");
        assert_eq!(client("10.0.0.1", &["1.1.1.1, junk"], "10.0.0.0/8"), "10.0.0.1");
        assert_eq!(client("10.0.0.1", &["203.0.113.1:4711"], "10.0.0.0/8"), "203.0.113.1");
        assert_eq!(client("10.0.0.1", &["[2001:db8::1]:4711"], "10.0.0.0/8"), "2001:db8::1");
    }

    #[test]
    fn bearer_tokens_are_found() {
        let mut headers = HeaderMap::new();
        assert_eq!(bearer(&headers), None);
        headers.insert(header::AUTHORIZATION, "bearer  abc".parse().unwrap());
        assert_eq!(bearer(&headers), Some("abc"));
        headers.insert(header::AUTHORIZATION, "Basic abc".parse().unwrap());
        assert_eq!(bearer(&headers), None);
        assert_eq!(parameter(Some("a=1&token=x%2Dy"), "token").as_deref(), Some("x-y"));
        assert_eq!(parameter(None, "token"), None);
    }
}
