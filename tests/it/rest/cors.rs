//! CORS headers for pages of other origins.

use reqwest::{
    Method, RequestBuilder, Response,
    header::{HeaderMap, VARY},
};

use crate::support::{Node, token, within};

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
    let node = Node::dev().set("ALLOWED_ORIGINS", APP).start().await;
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
async fn without_a_list_of_origins_no_header_is_sent() {
    let node = Node::dev().start().await;
    let asked = answer(preflight(&node, "/api/chat/conversations", APP)).await;
    assert_eq!(
        (asked.status().as_u16(), allowed_origin(asked.headers()), asked.headers().get(VARY)),
        (405, None, None)
    );
    let health = answer(request(&node, Method::GET, "/api/health", APP)).await;
    assert_eq!((allowed_origin(health.headers()), health.headers().get(VARY)), (None, None));
}
