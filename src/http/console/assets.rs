//! The pages of the console: plain files inside the binary. They hold no data; a page asks the API for that, with the
//! token that a person types in.

use bytes::Bytes;
use hyper::{
    HeaderMap, Response, StatusCode,
    header::{self, HeaderName, HeaderValue},
};

use super::gate::{Gate, off};
use crate::http::{HttpResult, problem::Payload};

/// A file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::http) enum Asset {
    /// The address without a slash at its end, which leads to the page.
    Redirect,
    /// The page.
    Page,
    /// Its style.
    Style,
    /// Its script.
    Script,
}

/// The page's Content-Security-Policy: it may use its own files and its own API, and nothing else. No page may frame it.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; \
     form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
);

impl Asset {
    fn file(self) -> (&'static str, &'static str) {
        match self {
            Self::Redirect => ("text/plain; charset=utf-8", "admin/\n"),
            Self::Page => ("text/html; charset=utf-8", include_str!("../../../console/console.html")),
            Self::Style => ("text/css; charset=utf-8", include_str!("../../../console/console.css")),
            Self::Script => ("text/javascript; charset=utf-8", include_str!("../../../console/console.js")),
        }
    }
}

/// Answers with a file, if the console is on.
pub(in crate::http) fn answer(asset: Asset, gate: Option<&Gate>, headers: &HeaderMap) -> HttpResult {
    let Some(gate) = gate else { return Err(off()) };
    gate.check_host(headers)?;
    let (kind, text) = asset.file();
    let mut response = Response::new(Payload::from(Bytes::from_static(text.as_bytes())));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin")),
        (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin")),
    ] {
        headers.insert(name, value);
    }
    if asset == Asset::Redirect {
        // Relative, because a proxy may have put the console elsewhere.
        headers.insert(header::LOCATION, HeaderValue::from_static("admin/"));
        *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
    }
    Ok(response)
}
