//! Pages of other origins (CORS, in the Fetch standard): those that are listed may use REST from a browser, as they may
//! open WebSockets. Where no list is configured, nothing is said, and browsers keep to pages of this origin.

use hyper::{
    HeaderMap, Method, Response, StatusCode,
    header::{self, HeaderValue},
};

use super::problem::Payload;

/// What a request may carry beside what any may.
const HEADERS: HeaderValue = HeaderValue::from_static("authorization, content-type");
/// How long a browser may remember the answer to a preflight, in seconds.
const MAX_AGE: HeaderValue = HeaderValue::from_static("3600");
const ORIGIN: HeaderValue = HeaderValue::from_static("Origin");

/// The origin of a request, where it is listed.
fn listed(headers: &HeaderMap, allowed: &[String]) -> Option<HeaderValue> {
    let origin = headers.get(header::ORIGIN)?;
    let text = origin.to_str().ok()?;
    allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(text)).then(|| origin.clone())
}

/// What is to be said to the page that a request comes from.
#[derive(Debug)]
pub(super) struct CorsHeaders {
    /// Whether answers differ by origin, so that caches must keep them apart.
    varies: bool,
    origin: Option<HeaderValue>,
}

impl CorsHeaders {
    /// By the request's headers, and the origins that are configured.
    pub(super) fn to(headers: &HeaderMap, allowed: &[String]) -> Self {
        Self { varies: !allowed.is_empty(), origin: listed(headers, allowed) }
    }

    /// Says it with an answer.
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

/// The answer to a browser that asks what it may do under a path with these methods; `None` where it isn't that, or the
/// page's origin is not listed.
pub(super) fn preflight(
    method: &Method,
    headers: &HeaderMap,
    allowed: &[String],
    methods: &str,
) -> Option<Response<Payload>> {
    let asks = method == Method::OPTIONS && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    if !asks || listed(headers, allowed).is_none() {
        return None;
    }
    let mut response = Response::new(Payload::default());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let told = response.headers_mut();
    told.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_str(methods).ok()?);
    told.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HEADERS);
    told.insert(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE);
    Some(response)
}
