//! The checks of a caller of the console: browsers under a name that is its own, and who has the token.
//!
//! There are no cookies. A page of another origin can't send the token, because it does not know it; the checks of names
//! and origins keep such a page from the console altogether.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use aws_lc_rs::{constant_time::verify_slices_are_equal, hmac};
use hyper::{
    HeaderMap, StatusCode,
    header::{self, HeaderValue},
    http::uri::Authority,
};
use rand::Rng;

use crate::{
    config::{ConsoleConfig, is_same_host},
    http::{client, problem::Problem},
};

/// Time over which wrong tokens are counted.
const WINDOW: Duration = Duration::from_secs(60);
/// Maximum number of addresses whose wrong tokens are counted; those beyond share one count.
const ADDRESSES_MAX: usize = 1_024;
/// Minimum time between two log lines about wrong tokens.
const LOG_EVERY: Duration = Duration::from_secs(10);
/// Ends of names that only a cluster's own name server answers.
const CLUSTER_NAMES: [&str; 2] = [".svc", ".svc.cluster.local"];

/// The checks of a request.
pub(in crate::http) struct Gate {
    /// Makes digests of one length, so that a comparison tells nothing of the token, not even its length.
    key: hmac::Key,
    token: hmac::Tag,
    hosts: Vec<String>,
    guesses: u32,
    wrong: Mutex<Wrong>,
}

/// The wrong tokens of the last minute.
#[derive(Default)]
struct Wrong {
    /// By address, with the begin of the minute; `None` for the addresses beyond [`ADDRESSES_MAX`].
    counts: HashMap<Option<IpAddr>, (Instant, u32)>,
    logged: Option<Instant>,
}

impl Gate {
    pub(in crate::http) fn new(config: &ConsoleConfig) -> Self {
        let mut bytes = [0; 32];
        rand::rng().fill_bytes(&mut bytes);
        let key = hmac::Key::new(hmac::HMAC_SHA256, &bytes);
        let token = hmac::sign(&key, config.token.reveal().as_bytes());
        Self { key, token, hosts: config.hosts.clone(), guesses: config.guesses, wrong: Mutex::default() }
    }

    /// Refuses a browser that reached this under a name of somebody else, or that asks for a page of another origin.
    pub(super) fn check_browser(&self, headers: &HeaderMap) -> Result<(), Problem> {
        self.check_host(headers)?;
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        let own = |origin: &HeaderValue| origin.to_str().is_ok_and(|origin| is_same_host(origin, host));
        let is_foreign = headers.get_all(header::ORIGIN).iter().any(|origin| !own(origin));
        let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
        if is_foreign || site.is_some_and(|site| !matches!(site, b"same-origin" | b"none")) {
            return Err(forbidden("origin", "Pages of other origins can't use the console"));
        }
        Ok(())
    }

    /// Refuses a request under a name that a stranger may have made to point here.
    pub(super) fn check_host(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let is_own = |host: &HeaderValue| host.to_str().is_ok_and(|host| self.is_own(host));
        match headers.get_all(header::HOST).iter().all(is_own) {
            true => Ok(()),
            false => Err(forbidden(
                "host",
                "The console is not reached under this name: use an IP address or localhost, or list the name in ADMIN_HOSTS",
            )),
        }
    }

    fn is_own(&self, host: &str) -> bool {
        let Ok(authority) = host.parse::<Authority>() else { return false };
        let name = authority.host().trim_end_matches('.').to_ascii_lowercase();
        let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(&name);
        bare.parse::<IpAddr>().is_ok()
            || !name.is_empty() && !name.contains('.')
            || name.ends_with(".localhost")
            || CLUSTER_NAMES.iter().any(|end| name.ends_with(end))
            || self.hosts.contains(&name)
    }

    /// Refuses a request without the token; wrong tokens are counted, and after too many of one address all its requests
    /// are refused for the rest of the minute.
    pub(super) fn check_token(&self, headers: &HeaderMap, address: IpAddr) -> Result<(), Problem> {
        let Some(token) = client::bearer(headers) else {
            let detail = "The console needs its token: Authorization: Bearer … (ADMIN_TOKEN)";
            return Err(unauthorized(detail));
        };
        let now = Instant::now();
        if let Some(wait) = self.wait(address, now) {
            let detail = format!(
                "Too many wrong tokens came from this address (ADMIN_TOKEN_GUESSES): wait {} s",
                wait.as_secs()
            );
            return Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", detail).after(wait));
        }
        let given = hmac::sign(&self.key, token.as_bytes());
        if verify_slices_are_equal(given.as_ref(), self.token.as_ref()).is_ok() {
            return Ok(());
        }
        self.count_wrong(address, now);
        Err(unauthorized("This is not the console's token (ADMIN_TOKEN); the tokens of users don't count here"))
    }

    /// The time for which the address may try no more.
    fn wait(&self, address: IpAddr, now: Instant) -> Option<Duration> {
        let wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        let address = network(address);
        let counted = wrong
            .counts
            .get(&Some(address))
            .or_else(|| (wrong.counts.len() > ADDRESSES_MAX).then(|| wrong.counts.get(&None)).flatten());
        let (began, count) = counted?;
        let left = WINDOW.checked_sub(now.saturating_duration_since(*began)).filter(|left| !left.is_zero())?;
        (*count >= self.guesses).then_some(left)
    }

    fn count_wrong(&self, address: IpAddr, now: Instant) {
        let wrong = &mut *self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        let key = Some(network(address));
        if !wrong.counts.contains_key(&key) && wrong.counts.len() >= ADDRESSES_MAX {
            wrong.counts.retain(|_, (began, _)| now.saturating_duration_since(*began) < WINDOW);
        }
        let fits = wrong.counts.contains_key(&key) || wrong.counts.len() < ADDRESSES_MAX;
        let (began, count) = wrong.counts.entry(key.filter(|_| fits)).or_insert((now, 0));
        if now.saturating_duration_since(*began) >= WINDOW {
            (*began, *count) = (now, 0);
        }
        *count += 1;
        let reached = *count == self.guesses;
        if reached || wrong.logged.is_none_or(|at| now.saturating_duration_since(at) >= LOG_EVERY) {
            wrong.logged = Some(now);
            tracing::warn!(target: "audit", via = "console", %address, locked = reached, "wrong admin token");
        }
    }
}

/// The network that counts as one client: of IPv6 a /64.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => std::net::Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

/// The problem of a request while the console is off.
pub(super) fn off() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "not_found",
        "The admin console is off: set ADMIN_TOKEN (docs/operations/console.md)",
    )
}

fn forbidden(code: &'static str, detail: &str) -> Problem {
    Problem::new(StatusCode::FORBIDDEN, code, detail)
}

fn unauthorized(detail: &str) -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", detail)
        .with(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    const TOKEN: &str = "abcdefghijklmnopqrstuvwxyzabcdef";

    fn gate(guesses: u32) -> Gate {
        let hosts = vec!["console.example.com".to_owned()];
        let (tail_events, watchers, deliveries) = (1, 1, 1);
        Gate::new(&ConsoleConfig { token: Secret::new(TOKEN), hosts, guesses, tail_events, watchers, deliveries })
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (header::HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn only_names_of_its_own_lead_to_the_console() {
        let gate = gate(1);
        for host in [
            "127.0.0.1:8001",
            "[::1]:8001",
            "10.1.2.3",
            "localhost:8001",
            "x.localhost",
            "node-1:8001",
            "console.EXAMPLE.com",
            "admin.chat.svc:8001",
            "admin.chat.svc.cluster.local.",
        ] {
            assert!(gate.check_browser(&headers(&[("host", host)])).is_ok(), "{host}");
        }
        for host in [
            "evil.example",
            "127.0.0.1.nip.io",
            "localhost.evil.example",
            "",
            "a b",
            "user@evil.example:x",
            "evil.svc.example",
        ] {
            assert!(gate.check_browser(&headers(&[("host", host)])).is_err(), "{host}");
        }
    }

    #[test]
    fn pages_of_other_origins_are_refused() {
        let gate = gate(1);
        let check = |more: &[(&'static str, &str)]| {
            gate.check_browser(&headers(&[&[("host", "localhost:8001")], more].concat())).is_ok()
        };
        assert!(check(&[]) && check(&[("origin", "http://localhost:8001")]));
        assert!(check(&[("sec-fetch-site", "same-origin")]) && check(&[("sec-fetch-site", "none")]));
        for origin in ["http://localhost:8000", "https://evil.example", "null", "file://"] {
            assert!(!check(&[("origin", origin)]), "{origin}");
        }
        assert!(!check(&[("sec-fetch-site", "cross-site")]) && !check(&[("sec-fetch-site", "same-site")]));
    }

    #[test]
    fn wrong_tokens_are_bounded_per_address_and_the_table_is_too() {
        let gate = gate(2);
        let with = |token: &str| headers(&[("authorization", &format!("Bearer {token}"))]);
        let code = |token: &str, address: &str| {
            gate.check_token(&with(token), address.parse().unwrap()).map_err(|problem| problem.status.as_u16())
        };
        assert_eq!(code(TOKEN, "10.0.0.1"), Ok(()));
        assert_eq!(gate.check_token(&HeaderMap::new(), "10.0.0.1".parse().unwrap()).unwrap_err().status, 401);
        for token in ["wrong", &TOKEN[1..]] {
            assert_eq!(code(token, "10.0.0.1"), Err(401), "{token}");
        }
        assert_eq!((code("wrong", "10.0.0.1"), code(TOKEN, "10.0.0.1")), (Err(429), Err(429)));
        assert_eq!(code(TOKEN, "10.0.0.2"), Ok(()));
        assert_eq!((code("x", "2001:db8::1"), code("x", "2001:db8::2")), (Err(401), Err(401)));
        assert_eq!((code(TOKEN, "2001:db8::3"), code(TOKEN, "2001:db8:0:1::1")), (Err(429), Ok(())));
        for number in 0..ADDRESSES_MAX as u32 + 100 {
            let _ = code("x", &std::net::Ipv4Addr::from(number + 0x0B00_0000).to_string());
        }
        assert!(gate.wrong.lock().unwrap().counts.len() <= ADDRESSES_MAX + 1);
        assert_eq!(code("x", "12.0.0.1"), Err(429), "the addresses beyond the table share one count");
    }
}
