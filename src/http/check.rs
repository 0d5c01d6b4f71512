//! `GET /api/websocket/check`: tells a page whether it may open a WebSocket here, and if not, why. A browser hides the answer
//! to a refused handshake from the page, so every page may read this one, without a preflight. It needs no token, and says
//! no more than the handshake's answer would.

use hyper::{
    HeaderMap, Response,
    header::{self, HeaderValue},
};
use serde::Serialize;

use super::{
    cors::ANY,
    problem::{Payload, Problem},
    service::{HttpService, Peer},
};
use crate::admission::Refusal;

#[derive(Serialize)]
struct Check<'a> {
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
}

/// The refusal that a handshake of this page would meet now. A cap on handshakes per second is not tried.
fn refusal(service: &HttpService, peer: &Peer, headers: &HeaderMap) -> Option<Refusal> {
    let draining = || service.broker().stop_accepting.is_cancelled().then_some(Refusal::Draining);
    service.refusal(peer).or_else(|| service.pages().refusal_of_socket(headers)).or_else(draining)
}

pub(super) fn answer(service: &HttpService, peer: &Peer, headers: &HeaderMap) -> Response<Payload> {
    let problem = refusal(service, peer, headers).map(|refusal| Problem::refused(refusal, headers));
    let (code, message) = (problem.as_ref().map(Problem::code), problem.as_ref().map(Problem::detail));
    // Text can always be written as JSON.
    let body = serde_json::to_vec(&Check { ok: problem.is_none(), code, message }).unwrap_or_default();
    let mut response = Response::new(Payload::from(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, ANY);
    response
}
