//! Tries to stay in or to come back: refreshes, requests that end late, odd ids, and users who are no admins.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::*;
use crate::support::within;

#[tokio::test]
async fn a_refresh_does_not_save_a_revoked_token() {
    let cluster = Cluster::new().await;
    let expiring = |iat: i64, seconds: i64| token_with(BOB, json!({"iat": now() + iat, "exp": now() + seconds}));
    let mut stays = open(&cluster.two, "/v1/ws", &expiring(-100, 600)).await;
    let mut shortened = open(&cluster.two, "/v1/ws", &expiring(-100, 600)).await;
    for (socket, newer) in [(&mut stays, expiring(4, 1_200)), (&mut shortened, expiring(4, 300))] {
        socket.expect("authenticated").await;
        socket.send(&json!({"type": "refresh", "token": newer, "ref": 1})).await;
        socket.until("refreshed").await;
    }
    let until = jiff::Timestamp::from_second(now() - 1).unwrap().to_string();
    revoke(&cluster.one, json!({"issued_until": until})).await;
    until_code(&cluster.two, &expiring(-100, 600), Some("token_revoked")).await;
    // A newer token counts, also if it expires sooner.
    shortened.drain().await;
    stays.send(&json!({"type": "refresh", "token": expiring(-50, 2_400), "ref": 2})).await;
    assert_eq!(stays.until("error").await["code"], "token_revoked");
    stays.drain().await;
    block(&cluster.one).await;
    assert_eq!(stays.expect_close().await, (4403, "Blocked by an administrator".to_owned()));
}

/// The token that was issued last counts: its id, its role, and its expiry.
#[tokio::test]
async fn a_refreshed_socket_has_the_token_that_was_issued_last() {
    let cluster = Cluster::new().await;
    let exp = now() + 600;
    let token = |iat: i64, jti: &str, exp: i64| token_with(BOB, json!({"iat": now() + iat, "jti": jti, "exp": exp}));
    for path in ["/v1/ws", "/ws/auth"] {
        for (at, later_exp) in [exp, exp - 60].into_iter().enumerate() {
            let [old, new, other] = ["old", "new", "other"].map(|name| format!("{name}-{at}{}", path.len()));
            let mut socket = open(&cluster.one, path, &token(-10, &old, exp)).await;
            socket.recv().await;
            socket.send(&json!({"type": "refresh", "token": token(-5, &new, later_exp)})).await;
            let until: jiff::Timestamp =
                socket.until("refreshed").await["expires_at"].as_str().unwrap().parse().unwrap();
            assert_eq!(until.as_second(), later_exp, "the stay is that of the token");
            socket.send(&json!({"type": "refresh", "token": token(-7, &other, exp + 60)})).await;
            assert_eq!(socket.until("error").await["code"], "conflict");
            for jti in [&old, &other] {
                revoke(&cluster.one, json!({"jti": jti})).await;
            }
            socket.drain().await;
            revoke(&cluster.one, json!({"jti": new})).await;
            let code = if path == "/v1/ws" { 4401 } else { 1008 };
            assert_eq!(socket.expect_close().await, (code, "Token revoked".to_owned()));
        }
    }
}

/// Refreshes race the revocation: whichever comes first, the socket ends, because no newer token was issued.
#[tokio::test]
async fn refreshes_at_the_moment_of_the_revocation_do_not_save_the_socket() {
    let cluster = Cluster::new().await;
    let until = now();
    let mut sockets = Vec::new();
    for _ in 0..10 {
        let mut socket = open(&cluster.one, "/v1/ws", &token_with(BOB, json!({"iat": until - 9}))).await;
        socket.expect("authenticated").await;
        sockets.push(socket);
    }
    let flood = async |socket: &mut Client| {
        for seconds in 0_i64.. {
            let newer = token_with(BOB, json!({"iat": until, "exp": until + 3_700 + seconds}));
            if socket.try_send(&json!({"type": "refresh", "token": newer})).await.is_err() {
                break;
            }
            match socket.recv_or_close().await {
                Ok(frame) if frame["type"] == "refreshed" => {}
                Ok(frame) => assert_eq!(frame["code"], "token_revoked", "{frame}"),
                Err(close) => return assert_eq!(close, (4401, "Token revoked".to_owned())),
            }
        }
    };
    let floods = futures_util::future::join_all(sockets.iter_mut().map(flood));
    let revoking = async {
        let issued_until = jiff::Timestamp::from_second(until).unwrap().to_string();
        revoke(&cluster.two, json!({"issued_until": issued_until})).await
    };
    within("every socket to end", async { tokio::join!(floods, revoking) }).await;
}

/// Sockets that open while the user is blocked: each is refused or ended, none stays.
#[tokio::test]
async fn no_socket_that_opens_at_the_moment_of_the_block_stays() {
    let cluster = Cluster::new().await;
    let token = issued(0);
    let opening = async |at: usize| {
        for _ in 0..200 {
            let path = ["/v1/ws", "/ws/lobby", "/ws/auth", "/ws", "/api/chat/ws/lobby"][at % 5];
            let mut socket = open(cluster.nodes()[at % 2], path, &token).await;
            if let Err((_, reason)) = socket.recv_or_close().await {
                assert_eq!(reason, "Blocked by an administrator");
                return;
            }
            if at >= 5 {
                socket.close().await;
            } else {
                assert_eq!(socket.expect_close().await.1, "Blocked by an administrator", "an open socket ends");
                return;
            }
        }
    };
    let opened = futures_util::future::join_all((0..10).map(opening));
    within("every socket to end", async { tokio::join!(opened, block(&cluster.one)) }).await;
}

/// The request's head is verified long before its body ends.
#[tokio::test]
async fn a_body_that_ends_after_the_block_changes_nothing() {
    let cluster = Cluster::new().await;
    let (alice, bob) = (token("alice"), issued(0));
    let conversation = cluster.one.conversation(&alice, &[BOB]).await;
    let messages = format!("/api/chat/conversations/{conversation}/messages");
    let mut socket = TcpStream::connect(cluster.one.address()).await.unwrap();
    let body = r#"{"content": "from the grave"}"#;
    let (first, last) = body.split_at(10);
    let head = format!(
        "POST {messages} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {bob}\r\nContent-Length: {}\r\n\r\n{first}",
        body.len()
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    // Another request of the same user shows that the node is past the verification of heads that came before.
    until_code(&cluster.one, &bob, None).await;
    block(&cluster.one).await;
    socket.write_all(last.as_bytes()).await.unwrap();
    let mut answer = vec![0; 4_096];
    let read = within("an answer", socket.read(&mut answer)).await.unwrap();
    let answer = String::from_utf8_lossy(&answer[..read]).into_owned();
    assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("\"blocked\""), "{answer}");
    assert_eq!(cluster.one.get(&messages, &alice).await.json["total"], 0);
}

#[tokio::test]
async fn odd_ids_name_only_their_own_users() {
    let node = Node::dev().start().await;
    let put =
        async |id: &str| node.request(Method::PUT, &format!("/api/admin/users/{id}/block"), Some(&admin()), None).await;
    // The path is decoded once; what is no user id names nobody.
    for bad in ["a%2Fb", "%00", "~bob", "%7Ebob", "a%20b", "auth0%257Cbob", "%ff", &"x".repeat(129)] {
        let answer = put(bad).await;
        assert_eq!(answer.status, 404, "{bad}: {}", answer.text);
    }
    for (id, user, other) in [("42", "42", "042"), ("auth0%7cbob", "auth0|bob", "auth0bob"), ("b%2Bb", "b+b", "bb")] {
        assert_eq!(put(id).await.json["user_id"], user);
        until_code(&node, &token(user), Some("blocked")).await;
        until_code(&node, &token(other), None).await;
    }
    // A numeric sub is the same user as its digits.
    until_code(&node, &token_with("x", json!({"sub": 42})), Some("blocked")).await;
    let list = node.get("/api/admin/blocks", &admin()).await.json;
    assert_eq!(list["total"], 3, "{list}");
}

#[tokio::test]
async fn only_admins_and_valid_bodies_restrict() {
    let cluster = Cluster::new().await;
    let bob = issued(0);
    for (method, path) in [
        (Method::POST, "/api/admin/users/alice/disconnect"),
        (Method::POST, "/api/admin/users/alice/revoke"),
        (Method::PUT, "/api/admin/users/alice/block"),
        (Method::DELETE, "/api/admin/users/alice/block"),
        (Method::GET, "/api/admin/users/alice/block"),
        (Method::GET, "/api/admin/blocks"),
    ] {
        for token in [&bob, &token("alice")] {
            let refused = cluster.one.request(method.clone(), path, Some(token), None).await;
            assert_eq!((refused.status.as_u16(), &refused.json["code"]), (403, &json!("forbidden")), "{path}");
        }
        assert_eq!(cluster.one.request(method.clone(), path, None, None).await.status, 401, "{path}");
        let on_admin_port = reqwest::Client::new().request(method, format!("{}{path}", cluster.one.admin()));
        let answer = on_admin_port.bearer_auth(admin()).send().await.unwrap();
        assert_eq!(answer.status(), 404, "only the clients' address has it: {path}");
    }
    let path = format!("/api/admin/users/{BOB_IN_PATH}/revoke");
    for body in [
        json!({"jti": ""}),
        json!({"jti": 7}),
        json!({"jti": "a\nb"}),
        json!({"jti": "x".repeat(257)}),
        json!({"jti": "t", "issued_until": "2020-01-01T00:00:00Z"}),
        json!({"issued_until": "yesterday"}),
        json!({"issued_until": 1_700_000_000}),
        json!([]),
        json!({"jti": bob}),
        json!({"issued_until": "9999-12-31T23:59:59Z"}),
    ] {
        let refused = cluster.one.post(&path, &admin(), &body).await;
        assert_eq!((refused.status.as_u16(), &refused.json["code"]), (400, &json!("invalid")), "{body}");
        let hint = match &body {
            body if body["jti"] == bob => "take the jti claim",
            body if body["issued_until"] == "9999-12-31T23:59:59Z" => "must not be in the future",
            _ => "",
        };
        assert!(refused.json["detail"].as_str().unwrap().contains(hint), "{}", refused.text);
        assert!(!refused.text.contains(&bob), "the token is not repeated");
    }
    until_code(&cluster.one, &bob, None).await;
    // An admin's own token can be revoked, and a blocked admin restricts nobody.
    let rogue = token_with("rogue", json!({"role": "admin"}));
    let blocked = cluster.two.request(Method::PUT, "/api/admin/users/rogue/block", Some(&admin()), None).await;
    assert_eq!(blocked.status, 200);
    until_code(&cluster.one, &rogue, Some("blocked")).await;
    let path = format!("/api/admin/users/{BOB_IN_PATH}/block");
    for node in cluster.nodes() {
        assert_eq!(node.request(Method::PUT, &path, Some(&rogue), None).await.json["code"], "blocked");
        let own = node.request(Method::DELETE, "/api/admin/users/rogue/block", Some(&rogue), None).await;
        assert_eq!(own.json["code"], "blocked");
    }
}
