//! Clients of every dialect that were away while entries were removed or erased.

use serde_json::Map;

use super::*;

/// A way to enter a conversation, with the last seq that the client has.
#[derive(Debug, Clone, Copy)]
enum Way {
    Native,
    Rooms,
    Conversation,
    Personas,
}

const WAYS: [Way; 4] = [Way::Native, Way::Rooms, Way::Conversation, Way::Personas];

impl Way {
    /// Enters as bob, up to the first frame that tells of the conversation.
    async fn enter(self, node: &Node, room: &str, since: i64) -> (Client, Value) {
        let token = token("bob");
        let path = match self {
            Self::Native => format!("/v1/ws?token={token}"),
            Self::Rooms => format!("/ws/{room}?token={token}&since_seq={since}"),
            Self::Conversation => format!("/api/chat/ws/{room}?token={token}&since_seq={since}"),
            Self::Personas => format!("/ws/auth?token={token}"),
        };
        let mut client = Client::connect(&format!("{}{path}", node.ws())).await;
        let (join, first) = match self {
            Self::Native => ("join", client.expect("authenticated").await),
            Self::Personas => ("join_conversation", client.expect("online_users").await),
            Self::Rooms => {
                return {
                    let first = client.expect("connected").await;
                    (client, first)
                };
            }
            Self::Conversation => {
                return {
                    let first = client.expect("system").await;
                    (client, first)
                };
            }
        };
        drop(first);
        client.send(&json!({"type": join, "conversation_id": room, "since_seq": since})).await;
        let joined = client.recv().await;
        (client, joined)
    }
}

/// The fields of a frame, which some dialects wrap in `data` or `message`.
fn fields(frame: &Value) -> &Map<String, Value> {
    let inner = [&frame["data"], &frame["message"]].into_iter().find(|inner| inner.is_object());
    inner.unwrap_or(frame).as_object().unwrap()
}

/// Reads up to a `resync`, which some dialects send after their greeting.
async fn resync(client: &mut Client, first: Value) -> (i64, i64) {
    let frame = if first["type"] == "resync" { first } else { client.expect("resync").await };
    let number = |name: &str| fields(&frame)[name].as_i64().unwrap();
    (number("first_seq"), number("head"))
}

/// Reads this many messages, and nothing else but frames without a seq. Returns their seqs and texts.
async fn messages(client: &mut Client, count: usize) -> Vec<(i64, String)> {
    let mut found = Vec::new();
    while found.len() < count {
        let frame = client.recv().await;
        let fields = fields(&frame);
        if let (Some(seq), Some(content)) = (fields.get("seq").and_then(Value::as_i64), fields.get("content")) {
            found.push((seq, content.as_str().unwrap().to_owned()));
        } else {
            assert!(frame["type"] != "error" && frame["type"] != "resync", "{frame}");
        }
    }
    found
}

fn all(texts: &[(i64, &str)]) -> Vec<(i64, String)> {
    texts.iter().map(|(seq, text)| (*seq, (*text).to_owned())).collect()
}

async fn direct(node: &Node) -> Client {
    let mut client = Client::connect(&format!("{}/ws", node.ws())).await;
    client.send(&json!({"type": "authenticate", "token": token("bob")})).await;
    client.expect("authenticated").await;
    client
}

async fn pair_of(node: &Node) -> String {
    let pair = json!({"is_group": false, "participant_ids": ["bob"]});
    let made = node.post("/api/chat/conversations", &token("alice"), &pair).await;
    made.json["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn clients_of_every_dialect_go_on_after_a_removal() {
    let stage = Stage::new(|node| node.set("RETENTION_DAYS", 7)).await;
    let (one, two) = (&stage.one, &stage.two);
    let room = one.conversation(&token("alice"), &["bob"]).await;
    let pair = pair_of(one).await;
    for log in [&room, &pair] {
        say(one, log, &["1", "2", "3", "4", "5"]).await;
        stage.age(log, 3, 8).await;
        stage.removed(log, 3).await;
    }
    for way in WAYS {
        let (mut client, first) = way.enter(two, &room, 1).await;
        assert_eq!(resync(&mut client, first).await, (4, 5), "{way:?}");
        let (mut client, _) = way.enter(two, &room, 3).await;
        assert_eq!(messages(&mut client, 2).await, all(&[(4, "4"), (5, "5")]), "{way:?}");
    }
    let mut client = direct(two).await;
    let told = client.expect("resync").await;
    // Such a client names no seq, so the head says after which one it goes on.
    assert_eq!((&told["data"]["first_seq"], &told["data"]["head"]), (&json!(4), &json!(3)));
    assert_eq!(messages(&mut client, 2).await, all(&[(4, "4"), (5, "5")]));
    client.close().await;

    // Nothing is left: who lacks something resyncs, who has all goes on, and both get what follows.
    for log in [&room, &pair] {
        stage.age(log, 5, 8).await;
        stage.removed(log, 5).await;
    }
    let mut entered = Vec::new();
    for way in WAYS {
        let (mut client, first) = way.enter(two, &room, 4).await;
        assert_eq!(resync(&mut client, first).await, (6, 5), "{way:?}");
        entered.push(client);
        entered.push(way.enter(two, &room, 5).await.0);
    }
    let mut client = direct(two).await;
    assert_eq!(client.expect("resync").await["data"]["first_seq"], 6);
    entered.push(client);
    for log in [&room, &pair] {
        assert_eq!(say(one, log, &["6"]).await, 6);
    }
    for client in &mut entered {
        assert_eq!(messages(client, 1).await, all(&[(6, "6")]));
    }

    let bob = token("bob");
    let history = one.get(&format!("/api/chat/conversations/{room}/messages"), &bob).await.json;
    assert_eq!((seqs(&history["messages"]), &history["total"]), (vec![6], &json!(1)));
    let list = one.get("/api/chat/conversations", &bob).await.json;
    for shown in list["conversations"].as_array().unwrap_or_else(|| panic!("{list}")) {
        assert_eq!(shown["last_message"]["content"], "6", "{shown}");
        assert!(shown["unread_count"].as_i64().unwrap() <= 1, "{shown}");
    }
    for (words, count) in [("4", 0), ("6", 2)] {
        let found = one.get(&format!("/api/chat/search?q={words}"), &bob).await.json;
        assert_eq!(found["messages"].as_array().unwrap().len(), count, "{words}: {found}");
    }
}

#[tokio::test]
async fn clients_of_every_dialect_go_on_after_an_erasure() {
    let stage = Stage::new(|node| node.with_console()).await;
    let (one, two) = (&stage.one, &stage.two);
    let room = one.conversation(&token("alice"), &["bob", "carol"]).await;
    let pair = pair_of(one).await;
    for log in [&room, &pair] {
        say(one, log, &["private 1", "private 2"]).await;
    }
    let of = async |user: &str, content: &str| {
        let path = format!("/api/chat/conversations/{room}/messages");
        one.post(&path, &token(user), &json!({"content": content})).await.json["seq"].as_i64().unwrap()
    };
    assert_eq!(of("carol", "of carol").await, 3);
    let mut client = direct(two).await;
    assert_eq!(messages(&mut client, 2).await, all(&[(1, "private 1"), (2, "private 2")]));
    client.close().await;
    say(one, &pair, &["private 3"]).await;
    one.console(Method::POST, "/users/alice/erasure", None).await;
    eventually("the erasure", async || {
        let shown = one.console(Method::GET, "/users/alice/erasure", None).await.json;
        (shown["is_done"] == true).then_some(())
    })
    .await;

    let mut entered = Vec::new();
    for way in WAYS {
        let (mut client, _) = way.enter(two, &room, 1).await;
        let of_carol = client.until_where(|frame| {
            assert!(!frame.to_string().contains("private"), "{way:?}: {frame}");
            fields(frame).get("seq") == Some(&json!(3))
        });
        assert_eq!(fields(&of_carol.await)["content"], "of carol", "{way:?}");
        entered.push(client);
    }
    let mut client = direct(two).await;
    let next = of("carol", "later").await;
    for client in &mut entered {
        let found = client.until_where(|frame| fields(frame).get("seq") == Some(&json!(next))).await;
        assert_eq!(fields(&found)["content"], "later");
    }
    // A direct conversation goes on with whoever has the id later.
    let seq = say(one, &pair, &["anew"]).await;
    assert_eq!(messages(&mut client, 1).await, all(&[(seq, "anew")]));
}
