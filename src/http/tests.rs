//! HTTP over real sockets: routes, tokens, limits, and the upgrade to a WebSocket.

use std::time::Duration;

use futures_util::StreamExt;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::{Message, client::IntoClientRequest};

use super::fixture::{Node, Raw, SOON};

const HOUR: Duration = Duration::from_secs(3_600);

fn get(path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: chat.localhost\r\n{headers}\r\n")
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

fn post(path: &str, token: &str, body: &str) -> String {
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nHost: localhost\r\n{}Content-Length: {length}\r\n\r\n{body}", bearer(token))
}

/// Number of refusals that the metric counts for a reason.
fn refusals(node: &Node, reason: &str) -> u64 {
    node.broker.metrics.refusals.with_label_values(&[reason]).get()
}

/// Waits until another task makes the condition true.
async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let wait = async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, wait).await.unwrap_or_else(|_| panic!("{what}"));
}

#[tokio::test]
async fn each_listener_has_its_routes() {
    let node = Node::start(&[]).await;
    for (path, clients, admin) in [
        ("/livez", 200, 200),
        ("/readyz", 200, 200),
        ("/api/health", 200, 200),
        ("/metrics", 404, 200),
        ("/v1/ws", 426, 404),
    ] {
        assert_eq!(node.request(&get(path, "")).await.status, clients, "{path}");
        let mut socket = Raw::connect(node.admin).await;
        socket.send(get(path, "")).await;
        assert_eq!(socket.answer().await.status, admin, "{path}");
    }
    let mut socket = Raw::connect(node.admin).await;
    socket.send(get("/metrics", "")).await;
    assert!(socket.answer().await.body.contains("switchboard_connections_limit"));
}

#[tokio::test]
async fn errors_are_problem_details_of_rfc_9457() {
    let node = Node::start(&[]).await;
    let answer = node.request(&get("/nowhere", "")).await;
    assert_eq!((answer.status, answer.header("content-type")), (404, "application/problem+json"));
    assert_eq!((answer.json()["status"].as_i64(), answer.json()["code"].as_str()), (Some(404), Some("not_found")));
    let answer = node.request("PATCH /api/chat/conversations HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!((answer.status, answer.header("allow")), (405, "GET, HEAD, POST"));
}

#[tokio::test]
async fn health_is_uncached_json_and_answers_head_requests() {
    let node = Node::start(&[]).await;
    let answer = node.request(&get("/api/health", "Accept: application/health+json\r\n")).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/health+json"));
    assert_eq!(answer.header("cache-control"), "no-store");
    let health = answer.json();
    assert_eq!(
        (health["status"].as_str(), health["components"]["redis"]["status"].as_str()),
        (Some("healthy"), Some("off"))
    );
    assert_eq!(health["components"]["store"]["status"], "up");
    assert!(health["components"]["store"]["since"].as_str().unwrap().ends_with('Z'));

    let mut socket = Raw::connect(node.clients).await;
    socket
        .send("HEAD /api/health HTTP/1.1\r\nHost: localhost\r\n\r\nGET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await;
    while !String::from_utf8_lossy(&socket.read).contains("\r\n\r\nok\n") {
        assert!(socket.read_more().await);
    }
    let both = String::from_utf8_lossy(&socket.read);
    let (head, rest) = both.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("content-length") && rest.starts_with("HTTP/1.1 200"), "a head has no body: {both}");

    node.broker.degrade.drain();
    assert_eq!(node.request(&get("/readyz", "")).await.status, 503);
    assert_eq!(node.request(&get("/livez", "")).await.status, 200);
    let answer = node.request(&get("/api/health", "")).await;
    assert_eq!((answer.status, answer.json()["status"].as_str()), (503, Some("unhealthy")));
}

#[tokio::test]
async fn rest_requires_a_valid_token() {
    let node = Node::start(&[]).await;
    let path = "/api/chat/conversations";
    let answer = node.request(&get(path, "")).await;
    assert_eq!((answer.status, answer.header("www-authenticate")), (401, "Bearer"));
    for headers in [bearer("junk"), "Authorization: Basic abc\r\n".to_owned()] {
        assert_eq!(node.request(&get(path, &headers)).await.status, 401);
    }
    let token = node.token("alice", HOUR);
    assert_eq!(node.request(&get(&format!("{path}?token={token}"), "")).await.status, 401, "not in the URL");
    let answer = node.request(&get(path, &bearer(&token))).await;
    assert_eq!(
        (answer.status, answer.header("retry-after")),
        (503, "1"),
        "the store is down, and the response has a retry delay"
    );
}

#[tokio::test]
async fn queries_and_bodies_are_checked() {
    let node = Node::start(&[]).await;
    let token = node.token("alice", HOUR);
    let path = "/api/chat/conversations";
    for query in ["limit=0", "limit=101", "limit=-1", "limit=x", "offset=-1", "offset=100001"] {
        assert_eq!(node.request(&get(&format!("{path}?{query}"), &bearer(&token))).await.status, 400, "{query}");
    }
    assert_eq!(node.request(&get(&format!("{path}/a/messages?before_seq=0"), &bearer(&token))).await.status, 400);
    assert_eq!(node.request(&get(&format!("{path}/a%20b"), &bearer(&token))).await.status, 404);
    for body in ["", "{", "[]", "{} {}", r#"{"participant_ids":"bob"}"#] {
        assert_eq!(node.request(&post(path, &token, body)).await.status, 400, "{body}");
    }
    let message = format!("{path}/a/messages");
    assert_eq!(node.request(&post(&message, &token, r#"{"content":" "}"#)).await.status, 400);
    assert_eq!(node.request(&post(&format!("{path}/a/members"), &token, r#"{"user_ids":[]}"#)).await.status, 400);
}

#[tokio::test]
async fn large_bodies_are_refused_without_being_read() {
    let node = Node::start(&[]).await;
    let token = node.token("alice", HOUR);
    let head = format!("POST /api/chat/conversations HTTP/1.1\r\nHost: localhost\r\n{}", bearer(&token));
    assert_eq!(node.request(&format!("{head}Content-Length: 1000000000\r\n\r\n")).await.status, 413);
    let mut socket = Raw::connect(node.clients).await;
    socket.send(format!("{head}Transfer-Encoding: chunked\r\n\r\n40001\r\n{}", "x".repeat(0x40001))).await;
    assert_eq!(socket.answer().await.status, 413);
}

#[tokio::test]
async fn too_many_headers_or_too_large_ones_are_refused() {
    let node = Node::start(&[]).await;
    let many: String = (0..100).map(|n| format!("X-{n}: 1\r\n")).collect();
    assert_eq!(node.request(&get("/livez", &many)).await.status, 431);
    assert_eq!(node.request(&get("/livez", &format!("X: {}\r\n", "x".repeat(40_000)))).await.status, 431);
}

#[tokio::test]
async fn a_socket_token_never_outlives_the_request_token() {
    let node = Node::start(&[("TOKEN_TTL", "30m")]).await;
    for (ttl, most) in [(HOUR, 1_800), (Duration::from_secs(20), 20)] {
        let answer = node.request(&post("/api/websocket/token", &node.token("alice", ttl), "")).await;
        assert_eq!(answer.status, 200);
        let json = answer.json();
        let expires_in = json["expires_in"].as_u64().unwrap();
        assert!(expires_in <= most && expires_in + 5 > most, "{expires_in}");
        assert_eq!(json["websocket_url"], "ws://localhost/ws");
        let identity = node.broker.auth.verify(json["token"].as_str().unwrap()).unwrap();
        assert_eq!(identity.user.as_str(), "alice");
    }
    let node = Node::start(&[("PUBLIC_URL", "https://chat.example.com/")]).await;
    let answer = node.request(&post("/api/websocket/token", &node.token("alice", HOUR), "")).await;
    assert_eq!(answer.json()["websocket_url"], "wss://chat.example.com/ws");
}

#[tokio::test]
async fn a_bad_token_is_upgraded_and_closed_with_a_code() {
    let node = Node::start(&[]).await;
    let url = |path: &str| format!("ws://{}{path}", node.clients);
    let by_query = url("/v1/ws?token=junk").into_client_request().unwrap();
    let mut by_header = url("/v1/ws").into_client_request().unwrap();
    by_header.headers_mut().insert("Authorization", "Bearer junk".parse().unwrap());
    let mut by_protocol = url("/v1/ws").into_client_request().unwrap();
    by_protocol.headers_mut().insert("Sec-WebSocket-Protocol", "switchboard, bearer.junk".parse().unwrap());
    let rooms = url("/ws/lobby?token=junk").into_client_request().unwrap();
    for (request, code) in [(by_query, 4401), (by_header, 4401), (by_protocol, 4401), (rooms, 1008)] {
        let offered = request.headers().contains_key("Sec-WebSocket-Protocol");
        let (mut socket, answer) = tokio_tungstenite::connect_async(request).await.unwrap();
        assert_eq!(
            answer.headers().get("Sec-WebSocket-Protocol").map(|p| p.to_str().unwrap()),
            offered.then_some("switchboard")
        );
        let closed = loop {
            match tokio::time::timeout(SOON, socket.next()).await.unwrap().unwrap().unwrap() {
                Message::Close(frame) => break frame.unwrap(),
                _ => continue,
            }
        };
        assert_eq!(u16::from(closed.code), code);
    }
    eventually("all permits are free again", || node.broker.admission.websockets() == 0).await;
}

/// A client's text frame, masked with a zero key.
fn frame(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len()).unwrap();
    assert!(length < 126);
    [&[0x81, 0x80 | length, 0, 0, 0, 0], text.as_bytes()].concat()
}

#[tokio::test]
async fn frames_that_come_with_the_handshake_are_not_lost() {
    let node = Node::start(&[]).await;
    let mut socket = Raw::connect(node.clients).await;
    let first = frame(r#"{"type":"authenticate","token":"junk"}"#);
    socket.send([Node::handshake("/v1/ws", "").into_bytes(), first].concat()).await;
    let answer = socket.answer().await;
    assert_eq!((answer.status, answer.header("sec-websocket-accept")), (101, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    // If the frame were lost, AUTH_TIMEOUT would close the socket later and with another reason.
    while !socket.read.windows(2).any(|code| code == 4401_u16.to_be_bytes()) {
        assert!(socket.read_more().await, "closed without a code");
    }
    assert!(String::from_utf8_lossy(&socket.read).contains("Invalid token"));
}

#[tokio::test]
async fn handshakes_are_checked() {
    let node = Node::start(&[("ALLOWED_ORIGINS", "https://app.example.com")]).await;
    let status = async |request: String| node.request(&request).await.status;
    assert_eq!(status(Node::handshake("/v1/ws", "Origin: https://evil.example\r\n")).await, 403);
    assert_eq!(status(Node::handshake("/v1/ws", "Origin: https://app.example.com\r\n")).await, 101);
    assert_eq!(status(Node::handshake("/v1/ws", "")).await, 101);
    assert_eq!(status(Node::handshake("/ws/a%20b", "")).await, 404);
    assert_eq!(status(Node::handshake("/ws/a%3Ab", "")).await, 101);
    assert_eq!(status(Node::handshake("/ws/a?since_seq=x", "")).await, 400);
    assert_eq!(status(Node::handshake("/v1/ws", "").replace("GET", "POST")).await, 405);
    assert_eq!(status(Node::handshake("/v1/ws", "").replace("HTTP/1.1", "HTTP/1.0")).await, 400);
    let answer = node.request(&Node::handshake("/v1/ws", "").replace("Version: 13", "Version: 8")).await;
    assert_eq!((answer.status, answer.header("sec-websocket-version")), (426, "13"));
    assert_eq!((refusals(&node, "origin"), refusals(&node, "bad_handshake")), (1, 3));
}

#[tokio::test]
async fn a_full_node_refuses_sockets_and_still_answers_probes() {
    let node = Node::start(&[("MAX_CONNECTIONS", "1")]).await;
    let authorized = bearer(&node.token("alice", HOUR));
    let mut stranger = Raw::connect(node.clients).await;
    stranger.send(Node::handshake("/v1/ws", "")).await;
    assert_eq!(stranger.answer().await.status, 101);
    assert!(node.broker.admission.has_room(), "a socket without a token has no place among the known");
    let mut first = Raw::connect(node.clients).await;
    first.send(Node::handshake("/v1/ws", &authorized)).await;
    assert_eq!(first.answer().await.status, 101);

    let answer = node.request(&Node::handshake("/v1/ws", &authorized)).await;
    assert_eq!(
        (answer.status, answer.header("retry-after"), answer.json()["code"].as_str()),
        (503, "5", Some("node_full"))
    );
    assert_eq!(answer.header("connection"), "close");
    assert_eq!(refusals(&node, "node_full"), 1);
    assert_eq!(node.request(&get("/api/health", "")).await.status, 200);
    assert_eq!(node.request(&get("/readyz", "")).await.status, 503);

    drop(first);
    eventually("the permit is free again", || node.broker.admission.has_room()).await;
    assert_eq!(node.request(&Node::handshake("/v1/ws", &authorized)).await.status, 101);
}

#[tokio::test]
async fn a_request_with_a_token_takes_a_place_of_the_known() {
    let node = Node::start(&[("MAX_CONNECTIONS", "1")]).await;
    let status = get("/api/connections/info", &bearer(&node.token("alice", HOUR)));
    let mut socket = Raw::connect(node.clients).await;
    for _ in 0..2 {
        socket.send(&status).await;
        assert_eq!(socket.answer().await.status, 200);
        assert_eq!((node.broker.admission.sockets(), node.broker.admission.strangers()), (1, 0));
    }
    let answer = node.request(&status).await;
    assert_eq!((answer.status, answer.json()["code"].as_str()), (503, Some("node_full")));
}

#[tokio::test]
async fn sockets_without_a_token_are_counted_by_the_address_that_a_proxy_names() {
    let node = Node::start(&[("MAX_UNAUTHENTICATED_PER_IP", "1"), ("TRUSTED_PROXIES", "127.0.0.0/8")]).await;
    let handshake =
        |client: &str, token: &str| Node::handshake("/v1/ws", &format!("X-Forwarded-For: {client}\r\n{token}"));
    let mut first = Raw::connect(node.clients).await;
    first.send(handshake("203.0.113.1", "")).await;
    assert_eq!(first.answer().await.status, 101);
    assert_eq!(node.request(&handshake("203.0.113.1", "")).await.status, 429);
    assert_eq!(node.request(&handshake("203.0.113.2", "")).await.status, 101);
    let authorized = bearer(&node.token("alice", HOUR));
    assert_eq!(node.request(&handshake("203.0.113.1", &authorized)).await.status, 101, "one with a token is admitted");
}

#[tokio::test]
async fn idle_admin_sockets_do_not_keep_a_probe_out() {
    let node = Node::start(&[]).await;
    let mut idle = Vec::new();
    for at in 0..200 {
        let mut socket = Raw::connect(node.admin).await;
        if at % 2 == 0 {
            socket.send("GET /livez HTTP/1.1\r\nHos").await;
        }
        idle.push(socket);
        let mut probe = Raw::connect(node.admin).await;
        probe.send(get("/livez", "")).await;
        assert_eq!(probe.answer().await.status, 200, "{at}");
    }
    assert!(!idle[0].read_more().await, "the oldest was closed");
}

#[tokio::test]
async fn connections_per_address_are_limited() {
    let node = Node::start(&[("MAX_CONNECTIONS_PER_IP", "1")]).await;
    let _first = TcpStream::connect(node.clients).await.unwrap();
    let answer = node.request(&get("/nowhere", "")).await;
    assert_eq!((answer.status, answer.json()["code"].as_str()), (429, Some("address_full")));
}

#[tokio::test]
async fn behind_a_proxy_the_limit_counts_the_clients_address() {
    let node = Node::start(&[("MAX_CONNECTIONS_PER_IP", "1"), ("TRUSTED_PROXIES", "127.0.0.0/8")]).await;
    let handshake = |client: &str| Node::handshake("/v1/ws", &format!("X-Forwarded-For: 1.1.1.1, {client}\r\n"));
    let mut first = Raw::connect(node.clients).await;
    first.send(handshake("203.0.113.1")).await;
    assert_eq!(first.answer().await.status, 101);
    assert_eq!(node.request(&handshake("203.0.113.1")).await.status, 429);
    assert_eq!(node.request(&handshake("203.0.113.2")).await.status, 101);
    assert_eq!(refusals(&node, "address_full"), 1);
}

/// A PROXY header of version 1 that names this client.
fn proxy_header(client: &str) -> String {
    format!("PROXY TCP4 {client} 192.0.2.1 4711 443\r\n")
}

#[tokio::test]
async fn with_a_proxy_header_the_limits_count_the_clients_address() {
    let proxied = [("PROXY_PROTOCOL", "true"), ("TRUSTED_PROXIES", "127.0.0.0/8,10.0.0.0/8")];
    let node = Node::start(&[&proxied[..], &[("MAX_CONNECTIONS_PER_IP", "1")]].concat()).await;
    let connect = async |header: &str, request: &str| {
        let mut socket = Raw::connect(node.clients).await;
        socket.send(format!("{header}{request}")).await;
        let answer = socket.answer().await;
        (socket, answer)
    };
    // The client's own X-Forwarded-For does not count, as on a direct connection.
    let handshake = Node::handshake("/v1/ws", "X-Forwarded-For: 198.51.100.9\r\n");
    let (first, answer) = connect(&proxy_header("203.0.113.1"), &handshake).await;
    assert_eq!(answer.status, 101);
    let (_, answer) = connect(&proxy_header("203.0.113.1"), &handshake).await;
    assert_eq!((answer.status, answer.json()["code"].as_str()), (429, Some("address_full")));
    assert_eq!(connect(&proxy_header("203.0.113.2"), &handshake).await.1.status, 101);
    // A proxy in front of the balancer: its header names the client.
    for (client, status) in [("198.51.100.1", 101), ("198.51.100.2", 101)] {
        let handshake = Node::handshake("/v1/ws", &format!("X-Forwarded-For: {client}\r\n"));
        assert_eq!(connect(&proxy_header("10.0.0.7"), &handshake).await.1.status, status);
    }
    // Checks of the balancer name nobody.
    for _ in 0..3 {
        assert_eq!(connect("PROXY UNKNOWN\r\n", &get("/api/health", "")).await.1.status, 200);
    }
    drop(first);
    let free = async || (connect(&proxy_header("203.0.113.1"), &handshake).await.1.status == 101).then_some(());
    let freed = async {
        while free().await.is_none() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, freed).await.expect("the place of a closed socket is free");
}

#[tokio::test]
async fn a_socket_of_a_proxy_without_its_header_is_refused_and_counted() {
    let node = Node::start(&[("PROXY_PROTOCOL", "true"), ("TRUSTED_PROXIES", "127.0.0.0/8")]).await;
    let answer = node.request(&get("/livez", "")).await;
    assert_eq!(answer.status, 400);
    assert!(answer.body.contains("PROXY_PROTOCOL"), "{}", answer.body);
    assert_eq!(refusals(&node, "proxy_header"), 1);
    // A balancer that only looks whether the port is open.
    drop(TcpStream::connect(node.clients).await.unwrap());
    let mut admin = Raw::connect(node.admin).await;
    admin.send(get("/livez", "")).await;
    assert_eq!(admin.answer().await.status, 200, "probes on the admin address have no header");
    assert_eq!(refusals(&node, "proxy_header"), 1);
}

#[tokio::test]
async fn a_proxy_header_from_an_address_that_is_no_proxy_is_no_request() {
    let node = Node::start(&[("PROXY_PROTOCOL", "true"), ("TRUSTED_PROXIES", "10.0.0.0/8")]).await;
    assert_eq!(node.request(&get("/livez", "")).await.status, 200);
    let forged = format!("{}{}", proxy_header("203.0.113.1"), get("/livez", ""));
    assert_eq!(node.request(&forged).await.status, 400);
}

#[tokio::test]
async fn the_rate_of_handshakes_is_limited() {
    let node = Node::start(&[("HANDSHAKES_PER_SECOND", "1")]).await;
    assert_eq!(node.request(&Node::handshake("/v1/ws", "")).await.status, 101);
    let answer = node.request(&Node::handshake("/v1/ws", "")).await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, "1"));
    assert_eq!(node.request(&get("/livez", "")).await.status, 200, "other requests have no rate limit");
}

/// Tests with paused time: tokio advances the clock while all tasks wait.
mod slow {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_socket_without_a_request_is_closed() {
        let node = Node::start(&[]).await;
        for sent in ["", "GET /livez HTTP/1.1\r\nHos"] {
            let mut socket = Raw::connect(node.clients).await;
            socket.send(sent).await;
            let began = Instant::now();
            while socket.read_more().await {}
            assert!((9..=12).contains(&began.elapsed().as_secs()), "{:?} after {sent:?}", began.elapsed());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_socket_of_a_proxy_without_a_whole_header_is_closed() {
        let node = Node::start(&[("PROXY_PROTOCOL", "true"), ("TRUSTED_PROXIES", "127.0.0.0/8")]).await;
        for sent in ["", "PROXY TCP4 203.0.113.1 127"] {
            let mut socket = Raw::connect(node.clients).await;
            socket.send(sent).await;
            let began = Instant::now();
            while socket.read_more().await {}
            assert!((9..=12).contains(&began.elapsed().as_secs()), "{:?} after {sent:?}", began.elapsed());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn idle_sockets_without_a_token_and_idle_admin_sockets_are_closed_early() {
        let node = Node::start(&[]).await;
        for (address, seconds) in [(node.clients, 9..=12), (node.admin, 14..=17)] {
            let mut socket = Raw::connect(address).await;
            socket.send(get("/livez", "")).await;
            assert_eq!(socket.answer().await.status, 200);
            let began = Instant::now();
            while socket.read_more().await {}
            assert!(seconds.contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn idle_sockets_outlive_the_keep_alive_of_proxies() {
        let node = Node::start(&[("TRUSTED_PROXIES", "127.0.0.0/8")]).await;
        let mut socket = Raw::connect(node.clients).await;
        for pause in [0, 60, 60] {
            tokio::time::sleep(Duration::from_secs(pause)).await;
            socket.send(get("/livez", "")).await;
            assert_eq!(socket.answer().await.status, 200);
        }
        let began = Instant::now();
        tokio::time::sleep(Duration::from_secs(70)).await;
        while tokio::time::timeout(Duration::from_secs(60), socket.read_more()).await.expect("closed in time") {}
        assert!((74..=80).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    }
}

#[tokio::test]
async fn a_node_that_stops_accepting_closes_idle_sockets() {
    let node = Node::start(&[]).await;
    let mut socket = Raw::connect(node.clients).await;
    socket.send(get("/livez", "")).await;
    assert_eq!(socket.answer().await.status, 200);
    node.broker.stop_accepting.cancel();
    assert!(!socket.read_more().await, "closed");
    let wait = async { while TcpStream::connect(node.clients).await.is_ok() {} };
    tokio::time::timeout(SOON, wait).await.expect("the address is released");
    let mut admin = Raw::connect(node.admin).await;
    admin.send(get("/metrics", "")).await;
    assert_eq!(admin.answer().await.status, 200, "the admin listener still answers");
}
