//! Routes through nginx: every dialect and all of REST pass, to either node, with and without TLS.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use switchboard::http::{Access, endpoints};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use super::Pair;
use crate::support::{Client, NAME, Nginx, token, within};

/// The nodes to which these users' sockets are connected, from `connections/info`.
async fn nodes_of(nginx: &Nginx, users: &[&str]) -> Vec<Value> {
    let mut nodes = Vec::new();
    for user in users {
        let asked =
            reqwest::Client::new().get(format!("{}/api/connections/info", nginx.http())).bearer_auth(token(user));
        let answer: Value = asked.send().await.unwrap().json().await.unwrap();
        nodes.extend(answer["connections"].as_array().unwrap().iter().map(|socket| socket["node"].clone()));
    }
    nodes
}

#[tokio::test(flavor = "multi_thread")]
async fn chat_crosses_nodes_with_and_without_tls() {
    let pair = Pair::start().await;
    let secure = Nginx::tls(&pair.nodes()).start().await;
    let plain = Nginx::plain(&pair.nodes()).start().await;
    let way = secure.from("127.0.0.1").await;
    // Two sockets through each listener: the second socket goes to the less busy node.
    let mut clients = Vec::new();
    for (at, user) in ["alice", "bob", "carol", "dave"].into_iter().enumerate() {
        let url = if at < 2 { way.url("/v1/ws", user) } else { plain.url("/v1/ws", user) };
        let mut client = Client::connect(&url).await;
        client.expect("authenticated").await;
        client.join("team").await;
        clients.push(client);
    }
    let mut nodes = nodes_of(&plain, &["alice", "bob", "carol", "dave"]).await;
    nodes.sort_by_key(ToString::to_string);
    assert_eq!(nodes, ["one", "one", "two", "two"], "nginx chooses the least busy node");
    for speaker in 0..clients.len() {
        let text = format!("from {speaker}");
        let ack = clients[speaker].send_text("team", &text).await;
        for (reader, client) in clients.iter_mut().enumerate().filter(|(reader, _)| *reader != speaker) {
            let heard = client.until_where(|frame| frame["content"] == text.as_str()).await;
            assert_eq!(heard["seq"], ack["seq"], "{speaker} to {reader}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_passes_except_those_for_operators() {
    let pair = Pair::start().await;
    let nginx = Nginx::plain(&pair.nodes()).start().await;
    let http = reqwest::Client::new();
    for route in endpoints() {
        let path = route.path.replace(['{', '}'], "");
        if route.access == Access::Socket {
            let client = Client::try_connect(nginx.url(&path, "alice")).await;
            assert!(client.is_ok(), "{path}: {client:?}");
            continue;
        }
        // Ask without a token: a node's answer differs from nginx's answer to an unknown path.
        let ask = |base: String| http.request(route.method.clone(), format!("{base}{path}")).send();
        let through = ask(nginx.http()).await.unwrap();
        if path.starts_with("/api/") {
            let straight = ask(pair.one.http()).await.unwrap();
            assert_eq!(through.status(), straight.status(), "{} {path}", route.method);
            assert_ne!(through.status(), StatusCode::NOT_FOUND, "{} {path}", route.method);
        } else {
            let problem: Value = through.json().await.unwrap();
            assert_eq!((&problem["status"], &problem["code"]), (&json!(404), &json!("not_found")), "{path}");
        }
    }
    for path in ["/", "/metrics", "/api/../metrics", "/api/%2e%2e/metrics", "/ws/../metrics", "//metrics"] {
        let mut raw = crate::support::RawClient::tcp(nginx.address()).await;
        raw.write(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).await;
        let head = raw.read_head().await;
        assert!(head.starts_with("HTTP/1.1 404 "), "{path}: {head}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_pass_in_headers_and_subprotocols_and_first_frames() {
    let pair = Pair::start().await;
    let nginx = Nginx::tls(&pair.nodes()).start().await;
    let way = nginx.from("127.0.0.1").await;
    let url = format!("ws://{}/v1/ws", way.address());
    for (name, value) in [
        ("authorization", format!("Bearer {}", token("alice"))),
        ("sec-websocket-protocol", format!("switchboard, bearer.{}", token("alice"))),
    ] {
        let mut request = url.as_str().into_client_request().unwrap();
        request.headers_mut().insert(name, value.parse().unwrap());
        let mut client = Client::try_connect(request).await.expect("it is upgraded");
        client.expect("authenticated").await;
    }
    let mut client = Client::connect(&url).await;
    client.send(&json!({"type": "authenticate", "token": token("alice")})).await;
    client.expect("authenticated").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rest_and_health_answer_over_tls_with_headers_for_browsers() {
    let pair = Pair::start().await;
    let nginx = Nginx::tls(&pair.nodes()).start().await;
    let trusted = reqwest::Certificate::from_pem(&nginx.authority()).unwrap();
    let client = reqwest::Client::builder().tls_certs_only([trusted]).resolve(NAME, nginx.address()).build().unwrap();
    let base = format!("https://{NAME}:{}", nginx.address().port());
    let health = within("health", client.get(format!("{base}/api/health")).send()).await.unwrap();
    for (name, value) in [
        ("strict-transport-security", "max-age=31536000"),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
    ] {
        assert_eq!(health.headers()[name], value);
    }
    assert!(!health.headers()["server"].to_str().unwrap().contains('/'), "no version is shown");
    assert_eq!(health.json::<Value>().await.unwrap()["status"], "healthy");
    // The node knows that its client used TLS.
    let token = client.request(Method::POST, format!("{base}/api/websocket/token")).bearer_auth(token("alice"));
    let answer: Value = within("a token", token.send()).await.unwrap().json().await.unwrap();
    assert_eq!(answer["websocket_url"], format!("wss://{NAME}/ws"), "{answer}");
}
