//! Chat through two nodes: a message sent on one reaches the members on both, in order, once.

use serde_json::{Value, json};

use crate::support::{Client, Node, Postgres, RedisServer, token, token_with};

/// Two nodes on one Redis and one database.
struct Pair {
    redis: RedisServer,
    one: Node,
    two: Node,
}

async fn pair_with(set: impl Fn(crate::support::NodeBuilder) -> crate::support::NodeBuilder) -> Pair {
    let redis = RedisServer::start().await;
    let database = Postgres::shared().await.database().await;
    let one = set(Node::serve(&redis.url(), &database)).start().await;
    let two = set(Node::serve(&redis.url(), &database)).start().await;
    Pair { redis, one, two }
}

async fn pair() -> Pair {
    pair_with(|node| node).await
}

#[tokio::test]
async fn native_and_rooms_meet_in_one_conversation_on_two_nodes() {
    let nodes = pair().await;
    let mut alice = Client::native(&nodes.one, "alice").await;
    alice.join_with_roster("team").await;
    let mut bob = Client::rooms(&nodes.two, "team", "bob").await;
    let joined = alice.until("user_joined").await;
    assert_eq!((&joined["user_id"], &joined["name"]), (&json!("bob"), &json!("Bob")));

    let ack = alice.send_text("team", "hello from native").await;
    let got = bob.until("new_message").await["data"].clone();
    assert_eq!(got["content"], "hello from native");
    assert_eq!((&got["id"], &got["seq"]), (&ack["id"], &ack["seq"]));
    assert_eq!((&got["sender_id"], &got["sender_username"]), (&json!("alice"), &json!("Alice")));

    bob.send(&json!({"type": "send_message", "data": {"content": "hello from rooms"}})).await;
    let (mut own, mut sent) = (Value::Null, Value::Null);
    while own.is_null() || sent.is_null() {
        let frame = bob.recv().await;
        match frame["type"].as_str() {
            Some("new_message") => own = frame["data"].clone(),
            Some("message_sent") => sent = frame["data"].clone(),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(own["id"], sent["message_id"]);
    let got = alice.until("message").await;
    assert_eq!((&got["content"], &got["id"]), (&json!("hello from rooms"), &own["id"]));
    assert_eq!(got["seq"].as_i64(), ack["seq"].as_i64().map(|seq| seq + 1));
}

#[tokio::test]
async fn the_sending_socket_gets_the_ack_and_the_users_others_the_message() {
    let nodes = pair().await;
    let mut phone = Client::native(&nodes.one, "alice").await;
    let mut laptop = Client::native(&nodes.one, "alice").await;
    let mut tablet = Client::native(&nodes.two, "alice").await;
    for client in [&mut phone, &mut laptop, &mut tablet] {
        client.join("notes").await;
    }
    let ack = phone.send_text("notes", "milk").await;
    for client in [&mut laptop, &mut tablet] {
        assert_eq!(client.until("message").await["seq"], ack["seq"]);
    }
    assert!(phone.drain().await.iter().all(|frame| frame["type"] != "message"));
}

#[tokio::test]
async fn a_first_direct_message_reaches_its_recipient() {
    let nodes = pair_with(|node| node.set("OPEN_CONVERSATIONS", false)).await;
    let mut bob = Client::native(&nodes.two, "bob").await;
    let mut alice = Client::native(&nodes.one, "alice").await;
    alice.send(&json!({"type": "send", "recipient_id": "bob", "content": "psst", "client_id": "1", "ref": 1})).await;
    let ack = alice.until("ack").await;
    let added = bob.until("conversation_added").await;
    assert_eq!(added["conversation_id"], ack["conversation_id"]);
    let message = bob.until("message").await;
    assert_eq!((&message["content"], &message["id"]), (&json!("psst"), &ack["id"]));

    bob.send(&json!({"type": "send", "recipient_id": "alice", "content": "what?", "client_id": "2", "ref": 2})).await;
    let answer = bob.until("ack").await;
    assert_eq!(answer["conversation_id"], ack["conversation_id"], "one conversation for the pair, in either order");
    assert_eq!(alice.until("message").await["content"], "what?");
}

#[tokio::test]
async fn a_send_repeated_on_another_node_is_one_message() {
    let nodes = pair().await;
    let mut alice = Client::native(&nodes.one, "alice").await;
    let mut again = Client::native(&nodes.two, "alice").await;
    alice.join("team").await;
    again.join("team").await;
    let send = json!({"type": "send", "conversation_id": "team", "content": "once", "client_id": "same", "ref": 1});
    alice.send(&send).await;
    let first = alice.until("ack").await;
    assert_eq!(first.get("duplicate"), None);
    again.send(&send).await;
    let second = again.until("ack").await;
    assert_eq!((&second["seq"], &second["id"], &second["duplicate"]), (&first["seq"], &first["id"], &json!(true)));
    let next = alice.send_text("team", "next").await;
    assert_eq!(next["seq"].as_i64(), first["seq"].as_i64().map(|seq| seq + 1));
}

#[tokio::test]
async fn resume_delivers_exactly_the_missed_entries() {
    let nodes = pair().await;
    let mut alice = Client::native(&nodes.one, "alice").await;
    alice.join("team").await;
    let head = alice.send_text("team", "0").await["seq"].as_i64().unwrap();
    let mut bob = Client::native(&nodes.two, "bob").await;
    let joined = bob.join("team").await["head"].as_i64().unwrap();
    bob.close().await;
    for at in 1..=120 {
        alice.send_text("team", &at.to_string()).await;
    }
    let mut first = 0;
    // More than the cache holds, from each node; also in the rooms dialect.
    for node in [&nodes.two, &nodes.one] {
        let mut bob = Client::native(node, "bob").await;
        bob.send(&json!({"type": "join", "conversation_id": "team", "since_seq": joined, "ref": 1})).await;
        let mut seqs = Vec::new();
        while seqs.len() < 120 {
            let frame = bob.recv().await;
            if frame["type"] == "message" {
                seqs.push((frame["seq"].as_i64().unwrap(), frame["content"].as_str().unwrap().to_owned()));
            }
        }
        first = seqs[0].0;
        assert!(first > head);
        let expected: Vec<_> = (1..=120).map(|at| (first + at - 1, at.to_string())).collect();
        assert_eq!(seqs, expected);
    }
    let url = format!("{}/ws/team?token={}&since_seq={}", nodes.two.ws(), token("bob"), first + 117);
    let mut bob = Client::connect(&url).await;
    bob.expect("connected").await;
    for content in ["119", "120"] {
        assert_eq!(bob.until("new_message").await["data"]["content"], content);
    }
}

#[tokio::test]
async fn resume_past_the_limit_and_ahead_of_the_head_is_a_resync() {
    let nodes = pair_with(|node| node.set("RESUME_MAX", 5)).await;
    let mut alice = Client::native(&nodes.one, "alice").await;
    alice.join("team").await;
    for at in 0..10 {
        alice.send_text("team", &at.to_string()).await;
    }
    let head = alice.send_text("team", "last").await["seq"].as_i64().unwrap();
    let mut bob = Client::native(&nodes.two, "bob").await;
    for since in [0, head + 100] {
        bob.send(&json!({"type": "join", "conversation_id": "team", "since_seq": since, "ref": since})).await;
        let resync = bob.until("resync").await;
        assert_eq!((&resync["ref"], &resync["first_seq"]), (&json!(since), &json!(1)));
        assert!(resync["head"].as_i64().unwrap() >= head);
    }
    bob.send(&json!({"type": "sync", "conversations": {"team": head - 2, "other": 0}, "ref": "s"})).await;
    let synced = bob.until("synced").await;
    assert_eq!(synced["conversations"].as_array().unwrap().len(), 2);
    let live = alice.send_text("team", "live").await;
    let got = bob.until_where(|frame| frame["content"] == "live").await;
    assert_eq!(got["seq"], live["seq"]);
}

#[tokio::test]
async fn edits_deletions_and_reactions_are_entries() {
    let nodes = pair().await;
    let mut alice = Client::native(&nodes.one, "alice").await;
    let mut bob = Client::native(&nodes.two, "bob").await;
    alice.join("team").await;
    bob.join("team").await;
    let ack = alice.send_text("team", "helo").await;
    let seq = ack["seq"].clone();
    alice.send(&json!({"type": "edit", "conversation_id": "team", "seq": seq, "content": "hello", "ref": 1})).await;
    alice.until("ack").await;
    let edited = bob.until("message_edited").await;
    assert_eq!((&edited["target_seq"], &edited["target_id"]), (&seq, &ack["id"]));
    bob.send(&json!({"type": "react", "conversation_id": "team", "seq": seq, "emoji": "👍", "ref": 2})).await;
    bob.until("ack").await;
    assert_eq!(alice.until("reaction").await["emoji"], "👍");
    // With and without variation selectors it is one reaction, natively and over REST.
    bob.send(&json!({"type": "react", "conversation_id": "team", "seq": seq, "emoji": "❤\u{FE0F}", "ref": "r1"})).await;
    bob.until("ack").await;
    assert_eq!(alice.until("reaction").await["emoji"], "❤");
    let again =
        json!({"type": "react", "conversation_id": "team", "seq": seq, "emoji": "❤", "client_id": "h", "ref": "r2"});
    bob.send(&again).await;
    assert_eq!(bob.until("ok").await, json!({"type": "ok", "ref": "r2", "client_id": "h"}));
    let path = format!("/api/chat/conversations/team/messages/{seq}/reactions/%E2%9D%A4%EF%B8%8F");
    for _ in 0..2 {
        let answer = nodes.one.request(reqwest::Method::DELETE, &path, Some(&crate::support::token("bob")), None).await;
        assert_eq!(answer.status, 204, "{}", answer.text);
    }
    assert_eq!(alice.until("reaction").await["active"], false);
    bob.send(
        &json!({"type": "react", "conversation_id": "team", "seq": seq, "emoji": "❤", "active": false, "ref": "r3"}),
    )
    .await;
    assert_eq!(bob.until("ok").await["ref"], "r3");
    bob.send(&json!({"type": "edit", "conversation_id": "team", "seq": seq, "content": "mine", "ref": 3})).await;
    assert_eq!(bob.until("error").await["code"], "forbidden");
    bob.send(&json!({"type": "history", "conversation_id": "team", "ref": 4})).await;
    let page = bob.until("history").await;
    assert_eq!((&page["messages"][0]["content"], &page["total"]), (&json!("hello"), &json!(1)));
    alice.send(&json!({"type": "delete", "conversation_id": "team", "seq": seq, "ref": 5})).await;
    alice.until("ack").await;
    bob.until("message_deleted").await;
    bob.send(&json!({"type": "history", "conversation_id": "team", "ref": 6})).await;
    let page = bob.until("history").await;
    assert_eq!((&page["messages"][0]["deleted"], &page["messages"][0]["content"]), (&json!(true), &json!("")));
}

#[tokio::test]
async fn a_removed_member_stops_reading_on_every_node() {
    let nodes = pair_with(|node| node.set("OPEN_CONVERSATIONS", false)).await;
    let owner = token("alice");
    let room = nodes.one.conversation(&owner, &["bob", "carol"]).await;
    let mut bob = Client::native(&nodes.two, "bob").await;
    let mut carol = Client::rooms(&nodes.two, &room, "carol").await;
    bob.join(&room).await;
    for member in ["bob", "carol"] {
        let path = format!("/api/chat/conversations/{room}/members/{member}");
        let answer = nodes.one.request(reqwest::Method::DELETE, &path, Some(&owner), None).await;
        assert_eq!(answer.status, 204, "{answer:?}");
    }
    assert_eq!(bob.until("member_removed").await["user_id"], "bob");
    bob.until("left").await;
    assert_eq!(carol.expect_close().await.0, 1008);
    let sent = json!({"content": "without you"});
    let answer = nodes.one.post(&format!("/api/chat/conversations/{room}/messages"), &owner, &sent).await;
    assert_eq!(answer.status, 201);
    bob.send(&json!({"type": "history", "conversation_id": room, "ref": 1})).await;
    assert_eq!(bob.until("error").await["code"], "not_member");
    bob.send(&json!({"type": "join", "conversation_id": room, "ref": 2})).await;
    assert_eq!(bob.until("error").await["code"], "not_member");
}

#[tokio::test]
async fn typing_reads_and_presence_reach_the_other_node() {
    let nodes = pair_with(|node| node.set("PRESENCE_GRACE", "200ms").set("TYPING_TIMEOUT", "1s")).await;
    let mut alice = Client::native(&nodes.one, "alice").await;
    alice.join_with_roster("team").await;
    let mut bob = Client::native(&nodes.two, "bob").await;
    bob.join("team").await;
    alice.until("user_joined").await;
    bob.send(&json!({"type": "typing", "conversation_id": "team"})).await;
    assert_eq!(alice.until("typing").await["active"], true);
    assert_eq!(alice.until("typing").await["active"], false, "typing stops by itself");
    let seq = alice.send_text("team", "read me").await["seq"].clone();
    bob.send(&json!({"type": "read", "conversation_id": "team", "seq": seq, "ref": 1})).await;
    bob.until("ok").await;
    let receipt = alice.until("receipt").await;
    assert_eq!((&receipt["user_id"], &receipt["read_seq"]), (&json!("bob"), &seq));
    alice.send(&json!({"type": "presence", "user_ids": ["bob", "nobody"], "ref": 2})).await;
    let list = alice.until("presence_list").await;
    assert_eq!((&list["users"][0]["online"], &list["users"][1]["online"]), (&json!(true), &json!(false)));
    bob.close().await;
    assert_eq!(alice.until("user_left").await["user_id"], "bob");
    let gone = alice.until_where(|frame| frame["type"] == "presence" && frame["online"] == false).await;
    assert_eq!(gone["user_id"], "bob");
    let members: Vec<String> = nodes.redis.command(&["SMEMBERS", "ws:online_users"]).await;
    assert_eq!(members, ["alice"]);
}

#[tokio::test]
async fn a_return_within_the_grace_sends_no_presence() {
    let nodes = pair_with(|node| node.set("PRESENCE_GRACE", "30s")).await;
    let mut alice = Client::rooms(&nodes.one, "team", "alice").await;
    let bob = Client::rooms(&nodes.two, "team", "bob").await;
    alice.until("user_joined").await;
    bob.close().await;
    let mut bob = Client::rooms(&nodes.one, "team", "bob").await;
    bob.send(&json!({"type": "send_message", "data": {"content": "back"}})).await;
    assert_eq!(alice.expect("new_message").await["data"]["content"], "back");
}

#[tokio::test]
async fn expiry_closes_and_refresh_extends() {
    let nodes = pair().await;
    let soon = || {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        json!({"exp": now + 2})
    };
    let url = format!("{}/v1/ws?token={}", nodes.one.ws(), token_with("alice", soon()));
    let mut leaves = Client::connect(&url).await;
    let mut stays = Client::connect(&url).await;
    stays.until("authenticated").await;
    stays.send(&json!({"type": "refresh", "token": token("bob"), "ref": 1})).await;
    assert_eq!(stays.until("error").await["code"], "forbidden");
    stays.send(&json!({"type": "refresh", "token": token("alice"), "ref": 2})).await;
    stays.until("refreshed").await;
    // An older token that is still valid shortens nothing.
    let older = json!({"exp": soon()["exp"], "iat": soon()["exp"].as_u64().unwrap() - 1_000});
    stays.send(&json!({"type": "refresh", "token": token_with("alice", older), "ref": 3})).await;
    assert_eq!(stays.until("error").await["code"], "conflict");
    let mut room = Client::connect(&format!("{}/ws/r?token={}", nodes.one.ws(), token_with("carol", soon()))).await;
    assert_eq!(leaves.expect_close().await, (4401, "Token expired".into()));
    assert_eq!(room.expect_close().await, (1008, "Token expired".into()));
    stays.send(&json!({"type": "ping", "ref": 3})).await;
    stays.until("pong").await;
}

#[tokio::test]
async fn a_second_join_with_a_seq_continues_there_and_repeats_nothing() {
    let nodes = pair().await;
    let mut alice = Client::native(&nodes.one, "alice").await;
    alice.join("team").await;
    let sending = tokio::spawn(async move {
        for at in 0..400 {
            alice.send_text("team", &at.to_string()).await;
        }
    });
    let mut bob = Client::native(&nodes.two, "bob").await;
    bob.join("team").await;
    let mut has = 0;
    for turn in 0..40 {
        // Back and forth, while replays of earlier joins are still under way.
        let since = has - has % 7;
        bob.send(&json!({"type": "join", "conversation_id": "team", "since_seq": since, "ref": turn})).await;
        bob.until_where(|frame| frame["type"] == "joined" && frame["ref"] == turn).await;
        for expected in since + 1..=since + 9 {
            let entry = bob.until_where(|frame| frame["seq"].is_i64()).await;
            assert_eq!(entry["seq"], expected, "in turn {turn}");
            has = expected;
        }
    }
    sending.await.unwrap();
}

#[tokio::test]
async fn a_second_join_without_a_seq_skips_and_repeats_nothing() {
    let nodes = pair().await;
    let mut alice = Client::native(&nodes.one, "alice").await;
    alice.join("team").await;
    let sending = tokio::spawn(async move {
        for at in 0..400 {
            alice.send_text("team", &at.to_string()).await;
        }
    });
    let mut bob = Client::native(&nodes.two, "bob").await;
    let mut has = bob.join("team").await["head"].as_i64().unwrap();
    let last = has + 200;
    bob.send(&json!({"type": "join", "conversation_id": "team", "ref": "again"})).await;
    while has < last {
        let frame = bob.recv().await;
        match frame["type"].as_str() {
            // Entries up to `head` come before the answer, later ones after it.
            Some("joined") => {
                assert_eq!(frame["head"], has, "{frame}");
                bob.send(&json!({"type": "join", "conversation_id": "team", "ref": "again"})).await;
            }
            _ if frame["seq"].is_i64() => {
                assert_eq!(frame["seq"], has + 1);
                has += 1;
            }
            _ => {}
        }
    }
    sending.await.unwrap();
}

#[tokio::test]
async fn an_automatic_and_an_explicit_join_are_one() {
    let nodes = pair_with(|node| node.set("OPEN_CONVERSATIONS", false)).await;
    let owner = token("alice");
    for turn in 0..30 {
        let mut bob = Client::native(&nodes.two, "bob").await;
        let room = nodes.one.conversation(&owner, &["bob"]).await;
        let path = format!("/api/chat/conversations/{room}/messages");
        let post = |content: &'static str| {
            let (node, path, owner) = (&nodes.one, &path, &owner);
            async move { node.post(path, owner, &json!({"content": content})).await }
        };
        let added = bob.until("conversation_added").await;
        let (join, first) = (json!({"type": "join", "conversation_id": room, "ref": turn}), post("first"));
        tokio::join!(bob.send(&join), first);
        post("second").await;
        let mut seqs = Vec::new();
        while seqs.len() < 2 {
            let frame = bob.recv().await;
            if frame["type"] == "message" {
                seqs.push(frame["seq"].as_i64().unwrap());
            }
        }
        let since = added["since_seq"].as_i64().unwrap();
        assert_eq!(seqs[1], seqs[0] + 1, "in turn {turn}");
        assert!(seqs[0] > since && bob.drain().await.iter().all(|frame| frame["type"] != "message"), "in turn {turn}");
        bob.close().await;
    }
}
