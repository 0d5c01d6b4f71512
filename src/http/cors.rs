//! Requests from pages in a browser: which origins may connect, and CORS (Fetch standard). Pages of the origins in
//! ALLOWED_ORIGINS may use REST, as they may open WebSockets. Without a list no CORS headers are sent, and browsers
//! allow pages of this origin only; under `dev` pages from this machine may use it, and no others.

use hyper::{
    HeaderMap, Method, Response, StatusCode,
    header::{self, HeaderValue},
};

use super::problem::Payload;
use crate::{
    admission::Refusal,
    config::{AllowedOrigins, Config, is_same_host, is_this_machine},
};

/// Headers that a request may carry beside the CORS-safelisted ones.
const ALLOWED_HEADERS: HeaderValue = HeaderValue::from_static("authorization, content-type");
/// Time that a browser may cache the response to a preflight, in seconds.
const MAX_AGE: HeaderValue = HeaderValue::from_static("3600");
const ORIGIN: HeaderValue = HeaderValue::from_static("Origin");
/// Every origin may read the response. Requests carry their token in a header, never in cookies.
pub(super) const ANY: HeaderValue = HeaderValue::from_static("*");

/// The rules of a listener for requests from pages in a browser.
#[derive(Clone, Copy)]
pub(super) struct PageRules<'a> {
    allowed: &'a AllowedOrigins,
    public_url: Option<&'a str>,
    /// True under `switchboard dev`, which serves this machine only.
    dev: bool,
    /// True if the listener is for clients.
    for_clients: bool,
}

impl<'a> PageRules<'a> {
    pub(super) fn new(config: &'a Config, for_clients: bool) -> Self {
        let Config { allowed_origins: allowed, public_url, dev, .. } = config;
        Self { allowed, public_url: public_url.as_deref(), dev: *dev, for_clients }
    }

    /// The refusal of a request that `switchboard dev` must not answer at all: dev accepts sockets without a token, so
    /// a page of another site, or of a name that was made to point to this machine, could act as any user.
    pub(super) fn refusal(self, headers: &HeaderMap) -> Option<Refusal> {
        if !self.dev {
            return None;
        }
        let is_other_host =
            |host: &HeaderValue| !host.to_str().is_ok_and(|host| self.allowed.dev_accepts_host(host, self.public_url));
        if headers.get_all(header::HOST).iter().any(is_other_host) {
            return Some(Refusal::Host);
        }
        (!self.may_open_socket(headers)).then_some(Refusal::Origin)
    }

    /// True if the request's origin may open a WebSocket. Only browsers and some native apps send an origin; requests
    /// without one are always allowed.
    pub(super) fn may_open_socket(self, headers: &HeaderMap) -> bool {
        let Some(origin) = headers.get(header::ORIGIN) else { return true };
        let Ok(origin) = origin.to_str() else { return false };
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        match self.allowed {
            AllowedOrigins::Any => true,
            AllowedOrigins::Unset if !self.dev => true,
            allowed => allowed.names(origin) || is_same_host(origin, host) || self.dev && is_this_machine(origin),
        }
    }

    /// The refusal of a WebSocket from this request's page, with the rules of [`PageRules::refusal`] and
    /// [`PageRules::may_open_socket`].
    pub(super) fn refusal_of_socket(self, headers: &HeaderMap) -> Option<Refusal> {
        self.refusal(headers).or_else(|| (!self.may_open_socket(headers)).then_some(Refusal::Origin))
    }

    /// The value of `Access-Control-Allow-Origin`; `None` if the origin may not use REST from another site.
    fn readable_by(self, headers: &HeaderMap) -> Option<HeaderValue> {
        let origin = headers.get(header::ORIGIN)?;
        let text = origin.to_str().ok()?;
        match self.allowed {
            _ if !self.for_clients => None,
            AllowedOrigins::Any => Some(ANY),
            allowed => (allowed.names(text) || self.dev && is_this_machine(text)).then(|| origin.clone()),
        }
    }

    /// True if responses differ by origin; caches must then keep them apart (`Vary`).
    fn varies(self) -> bool {
        let by_origin = match self.allowed {
            AllowedOrigins::Any => false,
            AllowedOrigins::Listed(_) => true,
            AllowedOrigins::Unset => self.dev,
        };
        by_origin && self.for_clients
    }
}

/// CORS headers of one response.
#[derive(Debug)]
pub(super) struct CorsHeaders {
    varies: bool,
    origin: Option<HeaderValue>,
}

impl CorsHeaders {
    /// Chooses the headers by the request's origin and the configured origins.
    pub(super) fn to(headers: &HeaderMap, pages: PageRules<'_>) -> Self {
        Self { varies: pages.varies(), origin: pages.readable_by(headers) }
    }

    /// Adds the headers to a response.
    pub(super) fn apply(self, response: &mut Response<Payload>) {
        let headers = response.headers_mut();
        if self.varies {
            headers.append(header::VARY, ORIGIN);
        }
        if let Some(origin) = self.origin {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        }
    }
}

/// True if a browser asks whether a page of another origin may send a request.
pub(super) fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    method == Method::OPTIONS && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// The response to a preflight for a path with these methods; `None` if the request is no preflight or its origin is
/// not listed.
pub(super) fn preflight(
    method: &Method,
    headers: &HeaderMap,
    pages: PageRules<'_>,
    methods: &str,
) -> Option<Response<Payload>> {
    if !is_preflight(method, headers) || pages.readable_by(headers).is_none() {
        return None;
    }
    let mut response = Response::new(Payload::default());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_str(methods).ok()?);
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, ALLOWED_HEADERS);
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE);
    Some(response)
}
