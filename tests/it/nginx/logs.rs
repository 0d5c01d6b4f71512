//! Logs of nginx: what they contain, and that no token ever reaches them.

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use super::Pair;
use crate::support::{Client, Nginx, RawClient, eventually, token};

/// Sends a token in every possible place, each on its own socket; ignores the answers.
async fn send_token_everywhere(nginx: &Nginx, token: &str) {
    let base = format!("ws://{}", nginx.address());
    let _ = Client::try_connect(format!("{base}/ws/lobby?token={token}")).await;
    for (name, value) in [
        ("authorization", format!("Bearer {token}")),
        ("sec-websocket-protocol", format!("switchboard, bearer.{token}")),
    ] {
        let mut request = format!("{base}/v1/ws").into_client_request().unwrap();
        request.headers_mut().insert(name, value.parse().unwrap());
        request.headers_mut().insert("referer", format!("https://app.example/?token={token}").parse().unwrap());
        request.headers_mut().insert("cookie", format!("token={token}").parse().unwrap());
        let _ = Client::try_connect(request).await;
    }
    if let Ok(mut client) = Client::try_connect(format!("{base}/v1/ws")).await {
        client.send(&json!({"type": "authenticate", "token": token})).await;
        client.until("authenticated").await;
    }
    // REST doesn't accept a token in the query; some clients send it anyway.
    let asked = reqwest::Client::new().get(format!("{}/api/chat/conversations?token={token}", nginx.http()));
    let _ = asked.bearer_auth(token).send().await.unwrap();
    for broken in [
        format!("GET /nowhere?token={token} HTTP/1.1\r\nHost: x\r\n\r\n"),
        format!("GET /v1/ws?token={token} HTTP/9\r\n\r\n"),
        format!("GET /v1/ws?token={token} HTTP/1.1\r\nHost: x\r\nbad header {token}\r\n\r\n"),
        format!("GET /v1/ws?token={token}{} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(20_000)),
        format!("POST /api/chat/conversations?token={token} HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999\r\n\r\n"),
    ] {
        let mut raw = RawClient::tcp(nginx.address()).await;
        // nginx may answer before it has read the whole request.
        if raw.try_write(broken.as_bytes()).await {
            raw.read_head().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_token_is_ever_logged() {
    let pair = Pair::with(|node| node.set("LOG", "debug")).await;
    let open = Nginx::plain(&pair.nodes()).start().await;
    let strict = Nginx::plain(&pair.nodes())
        .change("sockets.conf", "burst=200", "burst=1")
        .change("limits.conf", "rate=20r/s", "rate=1r/m")
        .start()
        .await;
    let token = token("alice");
    send_token_everywhere(&open, &token).await;
    send_token_everywhere(&strict, &token).await;
    // Then without any node behind nginx: every socket breaks, every handshake fails.
    let _broken = Client::try_connect(format!("ws://{}/v1/ws?token={token}", open.address())).await;
    pair.one.kill().await;
    pair.two.kill().await;
    send_token_everywhere(&open, &token).await;
    let mut seen = String::new();
    for nginx in [open, strict] {
        let (own, access) = nginx.end().await;
        for line in own.iter().chain(&access) {
            assert!(!line.contains(&token) && !line.contains("eyJ"), "a token was logged: {line}");
        }
        seen += &access.join("\n");
    }
    for node in pair.nodes() {
        node.assert_never_logged(&[&token, "eyJ"]);
    }
    // Check that each case happened: upgrades, limits, bad requests, missing nodes.
    for status in [101, 400, 404, 413, 414, 429, 502] {
        assert!(seen.contains(&format!("\"status\":{status},")), "no {status} in\n{seen}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_access_log_shows_how_a_socket_ended() {
    let pair = Pair::start().await;
    let nginx = Nginx::plain(&pair.nodes()).start().await;
    let way = nginx.from("127.0.0.9").await;
    let mut client = Client::connect(&way.url("/ws/lobby", "alice")).await;
    client.until("connected").await;
    client.close().await;
    let gone = || async { (pair.one.metrics().await.sum("switchboard_connections") == 0.0).then_some(()) };
    eventually("the socket's end", gone).await;
    let (_, access) = nginx.end().await;
    let line: Value = serde_json::from_str(&access[0]).unwrap();
    assert_eq!(line["path"], "/ws/lobby");
    assert_eq!((&line["status"], &line["client"], &line["method"]), (&json!(101), &json!("127.0.0.9"), &json!("GET")));
    let nodes: Vec<String> = pair.nodes().iter().map(|node| node.address().to_string()).collect();
    assert!(nodes.contains(&line["node"].as_str().unwrap().to_owned()), "{line}");
}
