//! Errors over HTTP: `application/problem+json` (RFC 9457), and the HTTP status of each refusal.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    HeaderMap, Response, StatusCode,
    header::{self, HeaderName, HeaderValue},
};
use serde::Serialize;

use crate::{
    admission::Refusal,
    advice,
    model::{OutOfBounds, Reject},
};

/// The body of every response.
pub(super) type Payload = Full<Bytes>;
/// Outcome of a request: a response, or the problem to report.
pub(super) type HttpResult = Result<Response<Payload>, Problem>;

/// Retry delay for a request that can't be served now.
const RETRY_SOON: Duration = Duration::from_secs(1);
/// Retry delay for a socket that a connection limit refused.
const RETRY_LATER: Duration = Duration::from_secs(5);

/// An error as it is reported to a client.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    code: &'static str,
    detail: String,
    retry_after: Option<Duration>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into(), retry_after: None, headers: Vec::new() }
    }

    /// The request is malformed or has a value out of bounds.
    pub(super) fn invalid(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid", detail)
    }

    pub(super) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", "There is nothing under this path")
    }

    pub(super) fn other_methods(allow: &str) -> Self {
        let problem = Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", format!("Allowed here: {allow}"));
        match HeaderValue::from_str(allow) {
            Ok(allow) => problem.with(header::ALLOW, allow),
            Err(_) => problem,
        }
    }

    pub(super) fn too_large(most: usize) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", format!("A body has at most {most} bytes"))
    }

    /// The body is compressed, which this server does not read.
    pub(super) fn compressed() -> Self {
        let detail = "Send the body without Content-Encoding: this server reads no compressed bodies";
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_encoding", detail)
            .with(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"))
    }

    /// The request timed out, and its outcome is unknown.
    pub(super) fn took_too_long() -> Self {
        Self {
            retry_after: Some(RETRY_SOON),
            ..Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "timeout",
                "The request took too long and its outcome is unknown; a send may be repeated with the same client_id",
            )
        }
    }

    /// Answers of more than this number of bytes wait until the user reads them.
    pub(super) fn unread_answers(most: usize) -> Self {
        let detail = format!("Answers of about {most} bytes wait until you read them; read them, then try again");
        Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", detail).after(RETRY_SOON)
    }

    /// Too many answers wait until their users read them.
    pub(super) fn too_many_unread_answers() -> Self {
        let detail = "Too many answers of this node wait until clients read them; try again soon";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", detail).after(RETRY_SOON)
    }

    /// A defect of this program.
    pub(super) fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "Something went wrong here")
    }

    /// The code for programs.
    pub(super) fn code(&self) -> &'static str {
        self.code
    }

    /// The text for people.
    pub(super) fn detail(&self) -> &str {
        &self.detail
    }

    pub(super) fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    pub(super) fn after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    pub(super) fn into_response(self) -> Response<Payload> {
        #[derive(Serialize)]
        struct Body<'a> {
            r#type: &'static str,
            title: &'a str,
            status: u16,
            code: &'static str,
            detail: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            retry_after_ms: Option<u64>,
        }
        let body = Body {
            r#type: "about:blank",
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            code: self.code,
            detail: &self.detail,
            retry_after_ms: self.retry_after.map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)),
        };
        // Text and numbers can always be written as JSON.
        let body = serde_json::to_vec(&body).unwrap_or_default();
        let mut response = Response::new(Payload::from(body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(wait) = self.retry_after {
            // The header has whole seconds. Round up, so that the client never retries too early.
            let seconds = u64::try_from(wait.as_millis().div_ceil(1_000)).unwrap_or(u64::MAX).max(1);
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        for (name, value) in self.headers {
            headers.insert(name, value);
        }
        response
    }
}

/// Maps each [`Reject`] to its HTTP status.
impl From<Reject> for Problem {
    fn from(reject: Reject) -> Self {
        let status = match &reject {
            Reject::Invalid(_) | Reject::UnknownType(_) => StatusCode::BAD_REQUEST,
            Reject::InvalidToken(_)
            | Reject::InvalidTokenExplained(_)
            | Reject::TokenExpired
            | Reject::TokenRevoked
            | Reject::AuthTimeout => StatusCode::UNAUTHORIZED,
            Reject::NotMember | Reject::Forbidden(_) | Reject::Blocked => StatusCode::FORBIDDEN,
            Reject::NotFound(_) => StatusCode::NOT_FOUND,
            Reject::Conflict(_) | Reject::TooManyReactions => StatusCode::CONFLICT,
            Reject::RateLimited { .. }
            | Reject::TooManyReads { .. }
            | Reject::TooManyConnections
            | Reject::TooManyConversations => StatusCode::TOO_MANY_REQUESTS,
            Reject::TooManyConnectionsMaybe
            | Reject::Overloaded { .. }
            | Reject::ReadTooSlow { .. }
            | Reject::Unavailable
            | Reject::Unknown => StatusCode::SERVICE_UNAVAILABLE,
            Reject::Unsupported(_) | Reject::NoPersonas => StatusCode::NOT_IMPLEMENTED,
            Reject::PersonaFailed => StatusCode::BAD_GATEWAY,
        };
        let problem = Self::new(status, reject.code(), reject.to_string());
        match reject {
            Reject::RateLimited { retry_after, .. }
            | Reject::TooManyReads { retry_after }
            | Reject::Overloaded { retry_after }
            | Reject::ReadTooSlow { retry_after } => problem.after(retry_after),
            Reject::TooManyConnectionsMaybe => problem.after(RETRY_LATER),
            Reject::Unavailable | Reject::Unknown => problem.after(RETRY_SOON),
            Reject::InvalidToken(_) | Reject::InvalidTokenExplained(_) | Reject::TokenRevoked | Reject::AuthTimeout => {
                problem.with(header::WWW_AUTHENTICATE, BEARER_INVALID)
            }
            Reject::TokenExpired => problem.with(header::WWW_AUTHENTICATE, BEARER_EXPIRED),
            _ => problem,
        }
    }
}

const BEARER_INVALID: HeaderValue = HeaderValue::from_static("Bearer error=\"invalid_token\"");
const BEARER_EXPIRED: HeaderValue =
    HeaderValue::from_static("Bearer error=\"invalid_token\", error_description=\"expired\"");

impl From<OutOfBounds> for Problem {
    fn from(error: OutOfBounds) -> Self {
        Reject::from(error).into()
    }
}

impl Problem {
    /// The answer to a refused request: its HTTP status, and the sentence of [`advice`] if a setting decides the refusal.
    pub(super) fn refused(refusal: Refusal, headers: &HeaderMap) -> Self {
        let (status, wait) = match refusal {
            Refusal::Full | Refusal::Dropped => (StatusCode::SERVICE_UNAVAILABLE, Some(RETRY_LATER)),
            Refusal::AddressFull => (StatusCode::TOO_MANY_REQUESTS, Some(RETRY_LATER)),
            Refusal::Crowded | Refusal::Displaced | Refusal::HandshakeRate | Refusal::Draining => {
                (StatusCode::SERVICE_UNAVAILABLE, Some(RETRY_SOON))
            }
            Refusal::Origin | Refusal::Host => (StatusCode::FORBIDDEN, None),
            Refusal::Handshake | Refusal::ProxyHeader => (StatusCode::BAD_REQUEST, None),
            Refusal::HeadTooLarge => (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, None),
            Refusal::Slow | Refusal::Silent => (StatusCode::REQUEST_TIMEOUT, None),
        };
        let sentence = refusal_sentence(refusal, headers).unwrap_or_else(|| {
            let text = match refusal {
                Refusal::Draining => "This node is going away",
                Refusal::HeadTooLarge => "This request's head is too large",
                // Its socket was closed with an answer of its own.
                Refusal::ProxyHeader => "A PROXY header must come first",
                Refusal::Slow | Refusal::Silent => "The request did not come in time",
                _ => "This is not a WebSocket handshake",
            };
            text.to_owned()
        });
        Self { retry_after: wait, ..Self::new(status, refusal.label(), sentence) }
    }
}

/// The sentence about the refusal of a request with these headers, if a setting decides it.
pub(super) fn refusal_sentence(refusal: Refusal, headers: &HeaderMap) -> Option<String> {
    let name = if refusal == Refusal::Host { header::HOST } else { header::ORIGIN };
    advice::of_refusal(refusal, headers.get(name).and_then(|value| value.to_str().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TokenFlaw;

    fn answer(problem: impl Into<Problem>) -> (u16, Option<String>, Response<Payload>) {
        let response = problem.into().into_response();
        let wait = response.headers().get(header::RETRY_AFTER).map(|wait| wait.to_str().unwrap().to_owned());
        (response.status().as_u16(), wait, response)
    }

    #[test]
    fn refusals_have_their_status_and_retry_delay() {
        let limited = Reject::RateLimited {
            sent: 10,
            limit: 10,
            setting: "MESSAGE_RATE_LIMIT",
            retry_after: Duration::from_millis(1_200),
        };
        for (reject, status, wait) in [
            (Reject::Invalid("x".into()), 400, None),
            (Reject::InvalidToken(TokenFlaw::Missing), 401, None),
            (Reject::NotMember, 403, None),
            (Reject::NotFound("Conversation"), 404, None),
            (Reject::Conflict("taken"), 409, None),
            (limited, 429, Some("2")),
            (Reject::TooManyReads { retry_after: Duration::from_secs(1) }, 429, Some("1")),
            (Reject::Overloaded { retry_after: Duration::from_secs(2) }, 503, Some("2")),
            (Reject::Unavailable, 503, Some("1")),
            (Reject::Unknown, 503, Some("1")),
            (Reject::Unsupported("no"), 501, None),
        ] {
            let (found, retry, _) = answer(reject.clone());
            assert_eq!((found, retry.as_deref()), (status, wait), "{reject:?}");
        }
        for (refusal, status) in [(Refusal::Full, 503), (Refusal::AddressFull, 429), (Refusal::Origin, 403)] {
            assert_eq!(answer(Problem::refused(refusal, &HeaderMap::new())).0, status);
        }
    }

    #[test]
    fn a_401_names_the_authentication_scheme() {
        let (_, _, response) = answer(Reject::TokenExpired);
        assert!(response.headers()[header::WWW_AUTHENTICATE].to_str().unwrap().starts_with("Bearer"));
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
    }
}
