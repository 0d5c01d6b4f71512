//! CORS (Fetch standard): pages of the origins in ALLOWED_ORIGINS may use REST from a browser, as they may open
//! WebSockets. Without a list no CORS headers are sent, and browsers allow pages of this origin only.

use hyper::{
    HeaderMap, Method, Response, StatusCode,
    header::{self, HeaderValue},
};

use super::problem::Payload;

/// Headers that a request may carry beside the CORS-safelisted ones.
const ALLOWED_HEADERS: HeaderValue = HeaderValue::from_static("authorization, content-type");
/// Time that a browser may cache the response to a preflight, in seconds.
const MAX_AGE: HeaderValue = HeaderValue::from_static("3600");
const ORIGIN: HeaderValue = HeaderValue::from_static("Origin");

/// The request's origin, if it is listed.
fn listed(headers: &HeaderMap, allowed: &[String]) -> Option<HeaderValue> {
    let origin = headers.get(header::ORIGIN)?;
    let text = origin.to_str().ok()?;
    allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(text)).then(|| origin.clone())
}

/// CORS headers of one response.
#[derive(Debug)]
pub(super) struct CorsHeaders {
    /// True if responses differ by origin; caches must then keep them apart (`Vary`).
    varies: bool,
    origin: Option<HeaderValue>,
}

impl CorsHeaders {
    /// Chooses the headers by the request's origin and the configured origins.
    pub(super) fn to(headers: &HeaderMap, allowed: &[String]) -> Self {
        Self { varies: !allowed.is_empty(), origin: listed(headers, allowed) }
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

/// The response to a preflight for a path with these methods; `None` if the request is no preflight or its origin is
/// not listed.
pub(super) fn preflight(
    method: &Method,
    headers: &HeaderMap,
    allowed: &[String],
    methods: &str,
) -> Option<Response<Payload>> {
    let is_preflight = method == Method::OPTIONS && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    if !is_preflight || listed(headers, allowed).is_none() {
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
