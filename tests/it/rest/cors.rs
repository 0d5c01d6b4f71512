//! CORS headers for pages of other origins.

use reqwest::{
    Method, RequestBuilder, Response,
    header::{HeaderMap, VARY},
};

use crate::support::{Node, Postgres, RedisServer, token, within};

const APP: &str = "https://app.example.com";

fn request(node: &Node, method: Method, path: &str, origin: &str) -> RequestBuilder {
    reqwest::Client::new().request(method, format!("{}{path}", node.http())).header("Origin", origin)
}

async fn answer(request: RequestBuilder) -> Response {
    within("an answer", request.send()).await.unwrap()
}

fn preflight(node: &Node, path: &str, origin: &str) -> RequestBuilder {
    request(node, Method::OPTIONS, path, origin)
        .header("Access-Control-Request-Method", "PATCH")
        .header("Access-Control-Request-Headers", "authorization,content-type")
}

/// Value of the header that lets a page read a response.
fn allowed_origin(headers: &HeaderMap) -> Option<&str> {
    headers.get("access-control-allow-origin").map(|origin| origin.to_str().unwrap())
}

#[tokio::test]
async fn pages_of_listed_origins_may_use_rest() {
    let node = Node::dev().set("ALLOWED_ORIGINS", format!("https://other.example, {APP}")).start().await;
    let asked = answer(preflight(&node, "/api/chat/conversations/a/messages/1", APP)).await;
    let headers = asked.headers();
    assert_eq!((asked.status().as_u16(), allowed_origin(headers)), (204, Some(APP)));
    assert_eq!(headers["access-control-allow-methods"], "DELETE, GET, HEAD, PATCH");
    assert_eq!(headers["access-control-allow-headers"], "authorization, content-type");
    assert_eq!(headers["access-control-max-age"], "3600");
    assert_eq!(headers[VARY], "Origin");
    assert_eq!(headers.get("access-control-allow-credentials"), None);

    let conversations = "/api/chat/conversations";
    for (token, status) in [(Some(token("alice")), 200), (None, 401)] {
        let mut get = request(&node, Method::GET, conversations, APP);
        if let Some(token) = token {
            get = get.bearer_auth(token);
        }
        let got = answer(get).await;
        assert_eq!(
            (got.status().as_u16(), allowed_origin(got.headers())),
            (status, Some(APP)),
            "problems can be read too"
        );
        assert_eq!(got.headers()[VARY], "Origin");
    }
    let nothing = answer(request(&node, Method::GET, "/nothing", APP)).await;
    assert_eq!((nothing.status().as_u16(), allowed_origin(nothing.headers())), (404, Some(APP)));
}

#[tokio::test]
async fn pages_of_other_origins_get_no_permission() {
    let redis = RedisServer::start().await;
    let database = Postgres::shared().await.database().await;
    let node = Node::serve(&redis.url(), &database).set("ALLOWED_ORIGINS", APP).start().await;
    for origin in ["https://app.example.com.evil.example", "http://app.example.com", "null", ""] {
        let asked = answer(preflight(&node, "/api/chat/conversations", origin)).await;
        assert_eq!((asked.status().as_u16(), allowed_origin(asked.headers())), (405, None), "{origin}");
        assert_eq!(asked.headers()[VARY], "Origin", "a cache must not serve this response to other origins");
        let health = answer(request(&node, Method::GET, "/api/health", origin)).await;
        assert_eq!((health.status().as_u16(), allowed_origin(health.headers())), (200, None), "{origin}");
    }
    let plain = answer(request(&node, Method::OPTIONS, "/api/health", APP)).await;
    assert_eq!(plain.status(), 405, "OPTIONS works only for preflights");
}

#[tokio::test]
async fn without_a_list_of_origins_serve_sends_no_header_and_with_a_star_every_page_may_read() {
    let redis = RedisServer::start().await;
    let database = Postgres::shared().await.database().await;
    let node = Node::serve(&redis.url(), &database).start().await;
    let asked = answer(preflight(&node, "/api/chat/conversations", APP)).await;
    assert_eq!(
        (asked.status().as_u16(), allowed_origin(asked.headers()), asked.headers().get(VARY)),
        (405, None, None)
    );
    let health = answer(request(&node, Method::GET, "/api/health", APP)).await;
    assert_eq!((allowed_origin(health.headers()), health.headers().get(VARY)), (None, None));

    let open = Node::serve(&redis.url(), &database).set("ALLOWED_ORIGINS", "*").start().await;
    let asked = answer(preflight(&open, "/api/chat/conversations", APP)).await;
    assert_eq!(
        (asked.status().as_u16(), allowed_origin(asked.headers()), asked.headers().get(VARY)),
        (204, Some("*"), None)
    );
}

#[tokio::test]
async fn pages_of_this_machine_may_use_dev_and_no_others() {
    let node = Node::dev().start().await;
    for origin in ["http://localhost:5173", "http://127.0.0.1:3000", "https://app.localhost", "http://[::1]:8080"] {
        let asked = answer(preflight(&node, "/api/chat/conversations", origin)).await;
        assert_eq!((asked.status().as_u16(), allowed_origin(asked.headers())), (204, Some(origin)), "{origin}");
        let got = request(&node, Method::GET, "/api/chat/conversations", origin).bearer_auth(token("alice"));
        let got = answer(got).await;
        assert_eq!((got.status().as_u16(), allowed_origin(got.headers())), (200, Some(origin)), "{origin}");
        assert_eq!(got.headers()[VARY], "Origin");
    }
    for origin in [APP, "null", "http://localhost.evil.example", "file://evil.example"] {
        for (method, path) in [(Method::GET, "/api/health"), (Method::GET, "/metrics"), (Method::POST, "/nothing")] {
            let got = answer(request(&node, method, path, origin)).await;
            assert_eq!((got.status().as_u16(), allowed_origin(got.headers())), (403, None), "{origin} {path}");
            assert_eq!(got.json::<serde_json::Value>().await.unwrap()["code"], "origin");
        }
        let asked = answer(preflight(&node, "/api/chat/conversations", origin)).await;
        assert_eq!((asked.status().as_u16(), allowed_origin(asked.headers())), (403, None), "{origin}");
    }
    // A page of a name that was made to point to this machine is of the same origin for the browser.
    for (base, host, status) in [
        (node.http(), "rebound.example", 403),
        (node.admin(), "rebound.example", 403),
        (node.http(), "localhost:1", 200),
        (node.admin(), "[::1]:9", 200),
    ] {
        let got = answer(reqwest::Client::new().get(format!("{base}/api/health")).header("Host", host)).await;
        assert_eq!(got.status().as_u16(), status, "{base} {host}");
    }
}

#[tokio::test]
async fn listed_origins_and_their_hosts_may_use_dev_too() {
    let node = Node::dev().set("ALLOWED_ORIGINS", "http://10.0.2.2:*, capacitor://localhost").start().await;
    for (origin, host, status) in [
        ("http://10.0.2.2:8000", "10.0.2.2:8000", 200),
        ("capacitor://localhost", "localhost", 200),
        ("http://localhost:3000", "localhost", 200),
        ("ionic://localhost", "localhost", 403),
        ("http://10.0.2.3", "10.0.2.3", 403),
    ] {
        let got = answer(request(&node, Method::GET, "/api/health", origin).header("Host", host)).await;
        assert_eq!(got.status().as_u16(), status, "{origin} {host}");
    }
}
