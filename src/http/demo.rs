//! The demo of `switchboard dev`: `GET /` is a page on which two users chat. `serve` has none of it.
//!
//! The page mints tokens for any user, so it answers more strictly than the rest of dev: only under a name of this machine,
//! whatever ALLOWED_ORIGINS says, since a page can make a name of its own point here (DNS rebinding); and tokens only for a
//! request that this page itself sent. The page's source is in `clients/js/demo`; `npm run build` there writes the files in
//! `src/http/demo`, and the build compresses them.

use std::{io::Read, sync::Arc, time::Duration};

use flate2::read::GzDecoder;
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    header::{self, HeaderName, HeaderValue},
};
use serde::{Deserialize, Serialize};

use super::{
    body::RequestBody,
    compression::{Encoding, HoldsSecret},
    problem::{HttpResult, Payload, Problem},
    rest::read_json,
    service::{HttpService, Kind, Peer},
};
use crate::{
    advice::Told,
    auth::Grant,
    config::{is_same_host, is_this_machine},
    model::{Reject, UserId},
};

/// Longest lifetime of a token of this page, and the lifetime without a wish.
const MAX_TTL: Duration = Duration::from_secs(24 * 3_600);
const DEFAULT_TTL: Duration = Duration::from_secs(600);

/// A file of the page, compressed by the build script.
struct Asset {
    path: &'static str,
    kind: &'static str,
    gzip: &'static [u8],
}

const ASSETS: [Asset; 4] = [
    Asset {
        path: "/",
        kind: "text/html; charset=utf-8",
        gzip: include_bytes!(concat!(env!("OUT_DIR"), "/index.html.gz")),
    },
    Asset {
        path: "/demo.js",
        kind: "text/javascript; charset=utf-8",
        gzip: include_bytes!(concat!(env!("OUT_DIR"), "/demo.js.gz")),
    },
    // The client, for pages of this machine that have no build.
    Asset {
        path: "/client.js",
        kind: "text/javascript; charset=utf-8",
        gzip: include_bytes!(concat!(env!("OUT_DIR"), "/client.js.gz")),
    },
    Asset {
        path: "/demo.css",
        kind: "text/css; charset=utf-8",
        gzip: include_bytes!(concat!(env!("OUT_DIR"), "/demo.css.gz")),
    },
];

/// The answer to the page's polls.
#[derive(Serialize)]
struct State<'a> {
    /// A persona that answers, if there is one.
    persona: Option<&'a UserId>,
    /// Sentences about refusals since the last poll.
    told: Vec<Sentence>,
}

#[derive(Serialize)]
struct Sentence {
    number: u64,
    sentence: String,
    seconds_ago: u64,
}

/// A wish for a token.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    user: String,
    #[serde(default)]
    ttl_seconds: Option<u64>,
}

#[derive(Serialize)]
struct Token {
    token: String,
    expires_in: u64,
}

/// Answers a request for a path that has no other endpoint.
pub(super) async fn answer(service: &HttpService, peer: &Arc<Peer>, request: Request<RequestBody>) -> HttpResult {
    if !service.broker().config.dev || service.kind() != Kind::Clients {
        return Err(Problem::not_found());
    }
    let (path, headers) = (request.uri().path(), request.headers());
    let asset = ASSETS.iter().find(|asset| asset.path == path);
    let allow = match path {
        "/demo/token" => Method::POST,
        "/demo/state" => Method::GET,
        _ if asset.is_some() => Method::GET,
        _ => return Err(Problem::not_found()),
    };
    if *request.method() != allow && !(*request.method() == Method::HEAD && allow == Method::GET) {
        return Err(Problem::other_methods(if allow == Method::GET { "GET, HEAD" } else { allow.as_str() }));
    }
    let host = own_host(headers)?.to_owned();
    match asset {
        Some(asset) => file(asset, &host, headers),
        None if allow == Method::GET => state(service, request.uri().query(), headers),
        None => {
            is_from_this_page(&host, headers)?;
            mint(service, peer, read_json(request.into_body()).await?)
        }
    }
}

fn forbidden(detail: &str) -> Problem {
    Problem::new(StatusCode::FORBIDDEN, "forbidden", detail)
}

/// The `Host` header, which must be a name of this machine.
fn own_host(headers: &HeaderMap) -> Result<&str, Problem> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.to_str().ok(),
        _ => None,
    };
    host.filter(|host| is_this_machine(&format!("http://{host}")))
        .ok_or_else(|| forbidden("The demo serves this machine only: call it localhost or 127.0.0.1"))
}

/// Checks that this page sent the request: no other page and, since browsers send an origin with every POST, no link.
fn is_from_this_page(host: &str, headers: &HeaderMap) -> Result<(), Problem> {
    let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let same_origin = text(&header::ORIGIN).is_some_and(|origin| is_same_host(origin, host));
    let same_site = text(&HeaderName::from_static("sec-fetch-site")).is_none_or(|site| site == "same-origin");
    // A form can't send this type.
    let json = text(&header::CONTENT_TYPE).is_some_and(|kind| kind.starts_with("application/json"));
    if same_origin && same_site && json {
        return Ok(());
    }
    Err(forbidden(
        "Only the demo page itself may ask for tokens here; others use: switchboard token --dev --user alice",
    ))
}

fn file(asset: &Asset, host: &str, headers: &HeaderMap) -> HttpResult {
    let compressed = Encoding::wanted(headers) == Encoding::Gzip;
    let mut response = if compressed {
        Response::new(Payload::from(asset.gzip))
    } else {
        let mut plain = Vec::new();
        GzDecoder::new(asset.gzip).read_to_end(&mut plain).map_err(|_| Problem::internal())?;
        Response::new(Payload::from(plain))
    };
    // The host was found to be a name of this machine. Some browsers don't count WebSockets as 'self'.
    let policy = format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self' ws://{host}; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let headers = response.headers_mut();
    if compressed {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    }
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(asset.kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
    headers.insert("cross-origin-opener-policy", HeaderValue::from_static("same-origin"));
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_str(&policy).map_err(|_| Problem::invalid("Host is not valid"))?,
    );
    Ok(response)
}

fn json(value: &impl Serialize) -> HttpResult {
    let body = serde_json::to_vec(value).map_err(|_| Problem::internal())?;
    let mut response = Response::new(Payload::from(body));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

fn state(service: &HttpService, query: Option<&str>, headers: &HeaderMap) -> HttpResult {
    let site = headers.get("sec-fetch-site").and_then(|value| value.to_str().ok());
    if site.is_some_and(|site| !matches!(site, "same-origin" | "none")) {
        return Err(forbidden("Only the demo page itself may ask for its state"));
    }
    let after = super::client::parameter(query, "after").and_then(|after| after.parse().ok()).unwrap_or_default();
    let broker = service.broker();
    let persona = broker.config.personas.as_ref().and_then(|personas| personas.ids.first());
    let told = broker.advice.since(after).into_iter();
    let told =
        told.map(|Told { number, sentence, at }| Sentence { number, sentence, seconds_ago: at.elapsed().as_secs() });
    let told = told.collect();
    json(&State { persona, told })
}

/// Mints a token. It is in no log: only the page gets it.
fn mint(service: &HttpService, peer: &Peer, wish: Wish) -> HttpResult {
    let user = UserId::parse(&wish.user).map_err(|error| Problem::invalid(error.to_string()))?;
    let ttl = wish.ttl_seconds.map_or(DEFAULT_TTL, Duration::from_secs);
    if ttl.is_zero() || ttl > MAX_TTL {
        return Err(Problem::invalid(format!("ttl_seconds must be from 1 to {}", MAX_TTL.as_secs())));
    }
    let name = display_name(&user);
    let grant = Grant { user: &user, name: Some(&name), role: None, tier: None };
    let minted = service.broker().auth.mint(grant, ttl, None).inspect_err(|reject| {
        tracing::info!(address = %peer.address, reason = reject.code(), "the demo gets no token");
        service.broker().advice.tell_reject(reject);
        if let Reject::Unsupported(text) = reject {
            service.broker().advice.tell(text);
        }
    })?;
    let mut response = json(&Token { token: minted.token, expires_in: minted.expires_in.as_secs() })?;
    response.extensions_mut().insert(HoldsSecret);
    Ok(response)
}

/// The id with a capital letter.
fn display_name(user: &UserId) -> String {
    let mut letters = user.as_str().chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use crate::http::fixture::{Node, TestResponse};

    async fn post(node: &Node, host: &str, headers: &str, body: &str) -> TestResponse {
        let length = body.len();
        let request =
            format!("POST /demo/token HTTP/1.1\r\nHost: {host}\r\n{headers}Content-Length: {length}\r\n\r\n{body}");
        node.request(&request).await
    }

    const ALICE: &str = r#"{"user": "alice"}"#;
    const JSON: &str = "Content-Type: application/json\r\n";

    #[tokio::test]
    async fn only_the_page_itself_gets_tokens() {
        // The list allows every origin and every host elsewhere; the demo still serves this machine only.
        let node = Node::start(&[("ALLOWED_ORIGINS", "*")]).await;
        let own = format!("{JSON}Origin: http://localhost:8000\r\n");
        let answer = post(&node, "localhost:8000", &own, ALICE).await;
        assert_eq!((answer.status, answer.header("cache-control")), (200, "no-store"));
        let token = answer.json()["token"].as_str().unwrap().to_owned();
        assert_eq!(node.broker.auth.verify(&token).unwrap().user.as_str(), "alice");
        assert!(!node.broker.auth.verify(&token).unwrap().admin);
        for (host, headers) in [
            ("evil.example:8000", format!("{JSON}Origin: http://evil.example:8000\r\n")),
            ("localhost:8000", JSON.to_owned()),
            ("localhost:8000", format!("{JSON}Origin: http://localhost:5173\r\n")),
            ("localhost:8000", format!("{JSON}Origin: https://evil.example\r\n")),
            ("localhost:8000", format!("{JSON}Origin: null\r\n")),
            ("localhost:8000", format!("{own}Sec-Fetch-Site: same-site\r\n")),
            ("localhost:8000", "Origin: http://localhost:8000\r\nContent-Type: text/plain\r\n".to_owned()),
        ] {
            let answer = post(&node, host, &headers, ALICE).await;
            assert_eq!(answer.status, 403, "{host} {headers}");
            assert!(!answer.body.contains("eyJ"));
        }
        for body in
            [r#"{"user": ""}"#, r#"{"user": "alice", "ttl_seconds": 0}"#, r#"{"user": "alice", "role": "admin"}"#]
        {
            assert_eq!(post(&node, "localhost:8000", &own, body).await.status, 400, "{body}");
        }
    }

    #[tokio::test]
    async fn the_page_is_compressed_and_runs_its_own_scripts_only() {
        let node = Node::start(&[]).await;
        let get = async |path: &str, host: &str, headers: &str| {
            node.request(&format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n")).await
        };
        let answer = get("/", "127.0.0.1:8000", "").await;
        assert_eq!((answer.status, answer.header("content-type")), (200, "text/html; charset=utf-8"));
        assert!(answer.body.starts_with("<!doctype html>"), "{}", answer.body);
        let policy = answer.header("content-security-policy").to_owned();
        assert!(policy.contains("default-src 'none'") && policy.contains("ws://127.0.0.1:8000"), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
        let sizes = super::ASSETS.iter().map(|asset| asset.gzip.len());
        assert!(
            sizes.clone().sum::<usize>() <= 60 * 1_024,
            "the page has at most 60 KB: {:?}",
            sizes.collect::<Vec<_>>()
        );
        assert_eq!(get("/", "evil.example", "").await.status, 403);
        assert_eq!(get("/demo/other", "localhost", "").await.status, 404);
        let other = node.request("DELETE / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        assert_eq!((other.status, other.header("allow")), (405, "GET, HEAD"));
        let state = get("/demo/state?after=0", "localhost", "").await;
        assert_eq!((state.status, state.json()["persona"].as_str()), (200, Some("echo")));
        assert_eq!(get("/demo/state", "localhost", "Sec-Fetch-Site: same-site\r\n").await.status, 403);
    }

    #[tokio::test]
    async fn a_refused_page_learns_the_sentence_of_the_log() {
        let node = Node::start(&[]).await;
        let check = async |headers: &str| {
            node.request(&format!("GET /api/websocket/check HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n")).await
        };
        let answer = check("").await;
        assert_eq!((answer.status, answer.json()["ok"].as_bool()), (200, Some(true)));
        let answer = check("Origin: https://app.example\r\n").await;
        assert_eq!(answer.header("access-control-allow-origin"), "*");
        let found = answer.json();
        assert_eq!((found["ok"].as_bool(), found["code"].as_str()), (Some(false), Some("origin")));
        let sentence = "Pages of https://app.example may not connect: add https://app.example to ALLOWED_ORIGINS";
        assert_eq!(found["message"], sentence);
        assert!(node.broker.advice.since(0).is_empty(), "a check is no refusal");
        let refused =
            node.request("GET /v1/ws HTTP/1.1\r\nHost: localhost\r\nOrigin: https://app.example\r\n\r\n").await;
        assert_eq!((refused.status, &refused.json()["detail"]), (403, &found["message"]));
        assert_eq!(node.broker.advice.since(0)[0].sentence, sentence);
    }
}
