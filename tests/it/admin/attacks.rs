//! Attempts to get at the console without its token, through a browser, with odd paths and with slow sockets.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::*;

/// Sends a raw request to the admin listener and returns the response.
async fn raw(node: &Node, request: &str) -> String {
    let mut socket = TcpStream::connect(node.admin().strip_prefix("http://").unwrap()).await.unwrap();
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut text = Vec::new();
    within("the response", socket.read_to_end(&mut text)).await.unwrap();
    String::from_utf8_lossy(&text).into_owned()
}

fn request(line: &str, headers: &str) -> String {
    format!("{line} HTTP/1.1\r\nConnection: close\r\nAuthorization: Bearer {ADMIN_TOKEN}\r\n{headers}\r\n")
}

fn status(response: &str) -> u16 {
    response.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("{response}"))
}

#[tokio::test]
async fn browsers_come_under_its_own_name_and_from_its_own_pages_only() {
    let redis = RedisServer::start().await;
    let database = Postgres::shared().await.database().await;
    // Not under dev, which refuses other hosts and origins everywhere.
    let node =
        Node::serve(&redis.url(), &database).with_console().set("ADMIN_HOSTS", "console.example.com").start().await;
    let own = "Host: localhost:8001\r\n";
    for headers in
        [own.to_owned(), "Host: console.example.com\r\n".into(), format!("{own}Origin: http://localhost:8001\r\n")]
    {
        assert_eq!(status(&raw(&node, &request("GET /admin/api/settings", &headers)).await), 200, "{headers}");
    }
    for (headers, code) in [
        ("Host: evil.example\r\n".to_owned(), "host"),
        ("Host: 127.0.0.1.nip.io:8001\r\n".into(), "host"),
        (format!("{own}Origin: https://evil.example\r\n"), "origin"),
        (format!("{own}Origin: null\r\n"), "origin"),
        (format!("{own}Origin: http://localhost:8000\r\n"), "origin"),
        (format!("{own}Sec-Fetch-Site: cross-site\r\n"), "origin"),
    ] {
        for line in ["GET /admin/api/settings", "POST /admin/api/users/bob/disconnect"] {
            let response = raw(&node, &request(line, &headers)).await;
            assert_eq!(status(&response), 403, "{headers}: {response}");
            assert!(response.contains(&format!("\"code\":\"{code}\"")), "{response}");
            assert!(!response.to_lowercase().contains("access-control-allow"), "{response}");
        }
    }
    let page = raw(&node, &request("GET /admin/", "Host: evil.example\r\n")).await;
    assert_eq!(status(&page), 403, "not even the page");
    let preflight = request(
        "OPTIONS /admin/api/settings",
        &format!("{own}Origin: https://evil.example\r\nAccess-Control-Request-Method: GET\r\n"),
    );
    let response = raw(&node, &preflight).await;
    assert!(status(&response) == 405 && !response.to_lowercase().contains("access-control"), "{response}");
    let socket = raw(&node, &request("GET /v1/ws", own)).await;
    assert_eq!(status(&socket), 404, "no socket opens there");
}

#[tokio::test]
async fn the_page_is_locked_down() {
    let node = Node::dev().with_console().start().await;
    for path in ["/admin/", "/admin/console.js", "/admin/console.css"] {
        let answer = node.admin_get(path).await;
        let header = |name: &str| answer.headers.get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
        let policy = header("content-security-policy");
        for part in [
            "default-src 'none'",
            "script-src 'self'",
            "frame-ancestors 'none'",
            "base-uri 'none'",
            "form-action 'none'",
        ] {
            assert!(policy.contains(part), "{path}: {policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!((header("x-content-type-options"), header("x-frame-options")), ("nosniff".into(), "DENY".into()));
        assert_eq!((header("referrer-policy"), header("cache-control")), ("no-referrer".into(), "no-store".into()));
        assert!(header("set-cookie").is_empty());
    }
    let moved = raw(&node, "GET /admin HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
    assert!(status(&moved) == 308 && moved.to_lowercase().contains("location: admin/\r\n"), "{moved}");
}

#[tokio::test]
async fn odd_paths_methods_and_bodies_change_nothing() {
    let node = Node::dev().with_console().start().await;
    let own = "Host: localhost\r\n";
    for line in [
        "GET /admin/../metrics",
        "GET /admin/%2e%2e/metrics",
        "GET /admin/api/../api/settings",
        "GET /admin/api/settings/",
        "GET //admin/api/settings",
        "GET /admin//api/settings",
        "GET /ADMIN/api/settings",
        "GET /admin/api/users/%2e%2e%2fsettings",
        "GET /admin/api/users/a%00b",
        "GET /admin/api/conversations/~alice/entries",
        "GET /admin/api/conversations/%7Ealice/entries",
        "GET /admin/api/deliveries/-1",
        "GET /admin/api/deliveries/99999999999999999999999",
    ] {
        let response = raw(&node, &request(line, own)).await;
        assert_eq!(status(&response), 404, "{line}: {response}");
    }
    assert_eq!(status(&raw(&node, &request("GET /admin/api/users/bob/disconnect", own)).await), 405);
    assert_eq!(
        status(&raw(&node, &request("POST /admin/api/settings", &format!("{own}Content-Length: 0\r\n"))).await),
        405
    );
    let long = raw(&node, &request(&format!("GET /admin/api/users/{}", "x".repeat(20_000)), own)).await;
    assert!(status(&long) == 431 || status(&long) == 414, "{long}");
    let body = format!("{own}Content-Length: 9\r\nContent-Encoding: gzip\r\n\r\n123456789");
    assert_eq!(status(&raw(&node, &request("POST /admin/api/token", body.trim_end_matches("\r\n"))).await), 415);
    let seen = get(&node, "/users/bob").await;
    assert_eq!(seen["blocked"], false);
}

#[tokio::test]
async fn guesses_are_bounded_for_each_address() {
    let node =
        Node::dev().with_console().set("ADMIN_TOKEN_GUESSES", 3).set("TRUSTED_PROXIES", "127.0.0.0/8").start().await;
    let http = reqwest::Client::new();
    let try_as = async |token: &str, address: &str| {
        let request = http.get(format!("{}/admin/api/settings", node.admin())).bearer_auth(token);
        request.header("x-forwarded-for", address).send().await.unwrap()
    };
    for _ in 0..3 {
        assert_eq!(try_as("wrong", "203.0.113.7").await.status(), 401);
    }
    let locked = try_as(ADMIN_TOKEN, "203.0.113.7").await;
    assert_eq!(locked.status(), StatusCode::TOO_MANY_REQUESTS);
    let wait: u64 = locked.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    assert_eq!(try_as(ADMIN_TOKEN, "203.0.113.8").await.status(), 200, "another address is free");
    let metrics = node.metrics().await;
    let series = "switchboard_console_requests_total{action=\"settings\",result=\"rate_limited\"}";
    assert_eq!(metrics.get(series), Some(1.0));
    node.logged("\"locked\":true").await;
}

#[tokio::test]
async fn slow_sockets_hold_up_nobody() {
    let node = Node::dev().with_console().start().await;
    let mut held = Vec::new();
    for _ in 0..100 {
        let Ok(mut socket) = TcpStream::connect(node.admin().strip_prefix("http://").unwrap()).await else { continue };
        // Half a request, and an answer that nobody reads.
        let _ = socket.write_all(b"GET /admin/api/settings HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bea").await;
        held.push(socket);
    }
    eventually("an answer beside them", async || {
        let request =
            reqwest::Client::new().get(format!("{}/admin/api/settings", node.admin())).bearer_auth(ADMIN_TOKEN);
        request.send().await.ok().filter(|answer| answer.status() == 200).map(drop)
    })
    .await;
    drop(held);
}
