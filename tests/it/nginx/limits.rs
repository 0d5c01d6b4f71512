//! Limits per address, and whose statement of the client's address is trusted.

use reqwest::StatusCode;
use serde_json::Value;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use super::Pair;
use crate::support::{Client, Nginx, RawClient, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn too_many_handshakes_of_one_address_are_refused_and_others_pass() {
    let pair = Pair::start().await;
    let nginx = Nginx::plain(&pair.nodes())
        .change("sockets.conf", "burst=200", "burst=2")
        .change("limits.conf", "rate=20r/s", "rate=1r/m")
        .start()
        .await;
    let (hasty, calm) = (nginx.from("127.0.0.9").await, nginx.from("127.0.0.8").await);
    let mut open = Client::connect(&hasty.url("/v1/ws", "alice")).await;
    open.expect("authenticated").await;
    for _ in 0..2 {
        Client::connect(&hasty.url("/ws/team", "alice")).await;
    }
    let refused = Client::try_connect(hasty.url("/v1/ws", "alice")).await.unwrap_err();
    assert_eq!(refused, 429);
    // The refusal names the wait and the problem, like the API's.
    let mut raw = RawClient::tcp(hasty.address()).await;
    raw.write(RawClient::upgrade(nginx.address(), "/v1/ws").as_bytes()).await;
    let head = raw.read_head().await.to_lowercase();
    for line in ["http/1.1 429 ", "\r\nretry-after: 5\r\n", "\r\ncontent-type: application/problem+json\r\n"] {
        assert!(head.contains(line), "{head}");
    }
    open.join("team").await;
    Client::connect(&calm.url("/v1/ws", "bob")).await.expect("authenticated").await;
    // Requests that are no handshakes don't count.
    for _ in 0..10 {
        let health = reqwest::get(format!("http://{}/api/health", hasty.address())).await.unwrap();
        assert_eq!(health.status(), StatusCode::OK);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_requests_of_one_address_are_refused_and_others_pass() {
    let pair = Pair::start().await;
    let nginx = Nginx::plain(&pair.nodes())
        .change("locations.conf", "burst=500", "burst=2")
        .change("limits.conf", "rate=100r/s", "rate=1r/m")
        .start()
        .await;
    let (hasty, calm) = (nginx.from("127.0.0.9").await, nginx.from("127.0.0.8").await);
    let get = async |address: std::net::SocketAddr, path: &str| {
        let request = reqwest::Client::new().get(format!("http://{address}{path}"));
        request.bearer_auth(crate::support::token("alice")).send().await.unwrap()
    };
    for _ in 0..3 {
        assert_eq!(get(hasty.address(), "/api/chat/conversations").await.status(), StatusCode::OK);
    }
    let refused = get(hasty.address(), "/api/chat/conversations").await;
    assert_eq!(
        (refused.status(), &refused.headers()["retry-after"]),
        (StatusCode::TOO_MANY_REQUESTS, &"5".parse().unwrap())
    );
    let problem: Value = refused.json().await.unwrap();
    assert_eq!((&problem["code"], &problem["status"]), (&Value::from("rate_limited"), &Value::from(429)));
    // Health and sockets are not counted here, and other addresses have limits of their own.
    for _ in 0..10 {
        assert_eq!(get(hasty.address(), "/api/health").await.status(), StatusCode::OK);
    }
    Client::connect(&hasty.url("/v1/ws", "alice")).await.expect("authenticated").await;
    assert_eq!(get(calm.address(), "/api/chat/conversations").await.status(), StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_sockets_of_one_address_are_refused_until_one_closes() {
    let pair = Pair::start().await;
    let nginx = Nginx::plain(&pair.nodes())
        .change("sockets.conf", "sockets_by_address 1000", "sockets_by_address 2")
        .start()
        .await;
    let (many, few) = (nginx.from("127.0.0.9").await, nginx.from("127.0.0.8").await);
    let first = Client::connect(&many.url("/v1/ws", "alice")).await;
    let _second = Client::connect(&many.url("/v1/ws", "alice")).await;
    assert_eq!(Client::try_connect(many.url("/v1/ws", "alice")).await.unwrap_err(), 429);
    Client::connect(&few.url("/v1/ws", "bob")).await.expect("authenticated").await;
    first.close().await;
    eventually("room for another", async || Client::try_connect(many.url("/v1/ws", "alice")).await.ok()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_are_too_large_are_refused_as_the_api_refuses_them() {
    let pair = Pair::start().await;
    let nginx = Nginx::plain(&pair.nodes()).start().await;
    let url = format!("{}/api/chat/conversations", nginx.http());
    let answer = reqwest::Client::new().post(url).body(vec![b' '; 300 * 1024]).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(answer.json::<Value>().await.unwrap()["code"], "too_large");
}

/// Opens a socket whose client claims another address in X-Forwarded-For.
async fn connect_with_forwarded_for(address: std::net::SocketAddr, path: &str, forwarded: &str) {
    let mut request = format!("ws://{address}{path}").into_client_request().unwrap();
    request.headers_mut().insert("x-forwarded-for", forwarded.parse().unwrap());
    request.headers_mut().insert("forwarded", format!("for={forwarded}").parse().unwrap());
    Client::try_connect(request).await.expect("it is upgraded").close().await;
}

/// Address of a user's socket as a node logs it once the socket is closed.
async fn logged_address_of(pair: &Pair, user: &str) -> String {
    let told = || async {
        let lines = pair.nodes().into_iter().flat_map(|node| node.log());
        let mut lines = lines.filter_map(|line| serde_json::from_str::<Value>(&line).ok());
        lines.find(|line| line["message"] == "disconnected" && line["user"] == user)
    };
    eventually("the log line of a closed socket", told).await["address"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_get_the_clients_own_address() {
    let pair = Pair::start().await;
    let nginx = Nginx::tls(&pair.nodes()).start().await;
    // openssl can't choose its source address.
    let way = nginx.from("127.0.0.1").await;
    connect_with_forwarded_for(
        way.address(),
        &format!("/v1/ws?token={}", crate::support::token("alice")),
        "203.0.113.66",
    )
    .await;
    assert_eq!(logged_address_of(&pair, "alice").await, "127.0.0.1");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_balancers_forwarded_address_is_trusted() {
    let pair = Pair::start().await;
    let nginx = Nginx::plain(&pair.nodes()).start().await;
    let path = |user| format!("/v1/ws?token={}", crate::support::token(user));
    // 127.0.0.1 is the balancer.
    connect_with_forwarded_for(nginx.address(), &path("alice"), "198.51.100.1, 203.0.113.7").await;
    assert_eq!(logged_address_of(&pair, "alice").await, "203.0.113.7");
    let stranger = nginx.from("127.0.0.9").await;
    connect_with_forwarded_for(stranger.address(), &path("bob"), "203.0.113.7").await;
    assert_eq!(logged_address_of(&pair, "bob").await, "127.0.0.9");
    for (from, expected) in [("127.0.0.1", "wss"), ("127.0.0.9", "ws")] {
        let way = nginx.from(from).await;
        let asked = reqwest::Client::new().post(format!("http://{}/api/websocket/token", way.address()));
        let asked = asked.bearer_auth(crate::support::token("alice")).header("x-forwarded-proto", "https");
        let answer: Value = asked.send().await.unwrap().json().await.unwrap();
        let url = answer["websocket_url"].as_str().unwrap();
        assert_eq!(url.split(':').next().unwrap(), expected, "{from}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_protocol_carries_the_address_too() {
    let pair = Pair::start().await;
    let nginx = Nginx::plain(&pair.nodes())
        .change("server-plain.conf", " reuseport", " proxy_protocol reuseport")
        .change("server-plain.conf", "real_ip_header X-Forwarded-For;", "real_ip_header proxy_protocol;")
        .start()
        .await;
    for (from, user, expected) in [("127.0.0.1", "alice", "203.0.113.9"), ("127.0.0.9", "bob", "127.0.0.9")] {
        let way = nginx.from(from).await;
        let path = format!("/v1/ws?token={}", crate::support::token(user));
        let mut raw = RawClient::tcp(way.address()).await;
        raw.write(b"PROXY TCP4 203.0.113.9 127.0.0.1 40000 80\r\n").await;
        raw.write(RawClient::upgrade(nginx.address(), &path).as_bytes()).await;
        assert!(raw.read_head().await.starts_with("HTTP/1.1 101 "));
        drop(raw);
        assert_eq!(logged_address_of(&pair, user).await, expected);
    }
}
