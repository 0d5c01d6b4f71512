//! Edits, deletions, reactions, threads and search over REST, and their events on sockets.

use serde_json::{Value, json};

use super::node::{Cluster, User, assert_done, assert_problem, conversation_of};
use crate::support::{Client, token_with};

fn contents(page: &Value) -> Vec<&str> {
    page["messages"].as_array().unwrap().iter().map(|message| message["content"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_message_is_shown_edited_and_deleted_by_seq_or_id() {
    let cluster = Cluster::new().await;
    let node = cluster.node().start().await;
    let (alice, bob) = (User::of(&node, "alice"), User::of(&node, "bob"));
    let messages = alice.group(&["bob"]).await;
    let room = conversation_of(&messages);
    let mut listener = Client::native(&node, "bob").await;
    listener.join(room).await;
    let sent = alice.send_text(&messages, "helo").await;
    let by_seq = format!("{messages}/{}", sent["seq"]);
    let by_id = format!("{messages}/{}", sent["id"].as_str().unwrap());

    for path in [&by_seq, &by_id] {
        let shown = bob.get(path).await;
        assert_eq!((shown.status.as_u16(), &shown.json["content"]), (200, &json!("helo")), "{}", shown.text);
        assert_eq!((&shown.json["reactions"], &shown.json["reply_count"]), (&json!([]), &json!(0)));
    }
    let edit = json!({"content": "hello", "client_id": "e-1"});
    let edited = alice.patch(&by_id, edit.clone()).await;
    assert_eq!(edited.status, 200, "{}", edited.text);
    assert_eq!(edited.json["seq"].as_i64(), sent["seq"].as_i64().map(|seq| seq + 1), "an entry of its own");
    assert_eq!(alice.patch(&by_seq, edit).await.json, edited.json, "a repeat changes nothing");
    let heard = listener.until("message_edited").await;
    assert_eq!(
        (&heard["target_seq"], &heard["content"], &heard["seq"]),
        (&sent["seq"], &json!("hello"), &edited.json["seq"])
    );
    let shown = bob.get(&by_seq).await.json;
    assert_eq!((&shown["content"], &shown["is_edited"]), (&json!("hello"), &json!(true)));

    assert_problem(&bob.patch(&by_seq, json!({"content": "mine"})).await, 403, "forbidden");
    assert_problem(&bob.delete(&by_seq).await, 403, "forbidden");
    assert_done(&alice.delete(&by_seq).await);
    assert_eq!(listener.until("message_deleted").await["target_seq"], sent["seq"]);
    let shown = bob.get(&by_id).await.json;
    assert_eq!((&shown["content"], &shown["is_deleted"]), (&json!(""), &json!(true)));
    assert_problem(&alice.patch(&by_seq, json!({"content": "again"})).await, 404, "not_found");
}

#[tokio::test]
async fn missing_messages_are_not_found() {
    let cluster = Cluster::new().await;
    let node = cluster.node().start().await;
    let alice = User::of(&node, "alice");
    let (one, other) = (alice.group(&[]).await, alice.group(&[]).await);
    let here = alice.send_text(&one, "here").await;
    for name in ["0", "-1", "99", "seven", "%20", here["id"].as_str().unwrap()] {
        let path = format!("{other}/{name}");
        assert_problem(&alice.get(&path).await, 404, "not_found");
        assert_problem(&alice.patch(&path, json!({"content": "x"})).await, 404, "not_found");
        assert_problem(&alice.delete(&path).await, 404, "not_found");
        assert_problem(&alice.put(&format!("{path}/reactions/x")).await, 404, "not_found");
    }
    assert_eq!(alice.get(&other).await.json["total"], 0);
}

#[tokio::test]
async fn reactions_stay_until_they_are_removed() {
    let cluster = Cluster::new().await;
    let node = cluster.node().start().await;
    let (alice, bob) = (User::of(&node, "alice"), User::of(&node, "bob"));
    let messages = alice.group(&["bob"]).await;
    let sent = alice.send_text(&messages, "lunch?").await;
    let mut listener = Client::native(&node, "alice").await;
    listener.join(conversation_of(&messages)).await;
    let message = format!("{messages}/{}", sent["seq"]);
    let thumb = format!("{message}/reactions/%F0%9F%91%8D");
    for _ in 0..2 {
        assert_done(&bob.put(&thumb).await);
    }
    assert_done(&alice.put(&thumb).await);
    assert_done(&bob.put(&format!("{message}/reactions/a%2Fb")).await);
    let heard = listener.until("reaction").await;
    assert_eq!((&heard["emoji"], &heard["sender_id"], &heard["active"]), (&json!("👍"), &json!("bob"), &json!(true)));
    let expected = json!([{"emoji": "👍", "count": 2, "own": true}, {"emoji": "a/b", "count": 1, "own": false}]);
    assert_eq!(alice.get(&message).await.json["reactions"], expected);
    assert_eq!(alice.get(&messages).await.json["messages"][0]["reactions"], expected);
    for _ in 0..2 {
        assert_done(&alice.delete(&thumb).await);
    }
    let left = alice.get(&message).await.json["reactions"].clone();
    assert!(left.as_array().unwrap().contains(&json!({"emoji": "👍", "count": 1, "own": false})), "{left}");
    for bad in ["%20", "a%00", "%ff", &"x".repeat(65)] {
        assert_problem(&bob.put(&format!("{message}/reactions/{bad}")).await, 400, "invalid");
    }
}

#[tokio::test]
async fn replies_are_a_thread() {
    let cluster = Cluster::new().await;
    let node = cluster.node().start().await;
    let alice = User::of(&node, "alice");
    let messages = alice.group(&[]).await;
    let root = alice.send_text(&messages, "root").await;
    alice.send_text(&messages, "aside").await;
    for content in ["first", "second"] {
        let reply = json!({"content": content, "reply_to": root["id"]});
        assert_eq!(alice.post(&messages, reply).await.status, 201);
    }
    let thread = format!("{messages}/{}/replies", root["id"].as_str().unwrap());
    let page = alice.get(&thread).await;
    assert_eq!((contents(&page.json), &page.json["total"]), (vec!["second", "first"], &json!(2)), "{}", page.text);
    assert_eq!(contents(&alice.get(&format!("{thread}?limit=1&offset=1")).await.json), ["first"]);
    let root = alice.get(&format!("{messages}/{}", root["seq"])).await.json;
    assert_eq!(root["reply_count"], 2);
    assert_problem(&alice.get(&format!("{messages}/nothing/replies")).await, 404, "not_found");
}

#[tokio::test]
async fn search_finds_only_in_the_users_own_conversations() {
    let cluster = Cluster::new().await;
    let node = cluster.node().start().await;
    let (alice, bob) = (User::of(&node, "alice"), User::of(&node, "bob"));
    let (shared, private) = (alice.group(&["bob"]).await, alice.group(&[]).await);
    alice.send_text(&shared, "the blue bicycle").await;
    alice.send_text(&private, "my blue secret").await;
    alice.send_text(&shared, "something else").await;
    let found = async |user: &User<'_>, query: &str| {
        let answer = user.get(&format!("/api/chat/search?{query}")).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        contents(&answer.json).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(found(&alice, "q=blue").await, ["my blue secret", "the blue bicycle"]);
    assert_eq!(found(&alice, "q=blue&limit=1&offset=1").await, ["the blue bicycle"]);
    assert_eq!(found(&bob, "q=blue").await, ["the blue bicycle"]);
    assert_eq!(found(&bob, "q=blue+bicy").await, ["the blue bicycle"], "the last word may be a prefix");
    let here = format!("q=blue&conversation_id={}", conversation_of(&shared));
    assert_eq!(found(&alice, &here).await, ["the blue bicycle"]);
    let elsewhere = format!("/api/chat/search?q=blue&conversation_id={}", conversation_of(&private));
    assert_problem(&bob.get(&elsewhere).await, 403, "not_member");
    let admin = User { node: &node, token: token_with("root", json!({"role": "admin"})) };
    assert_eq!(found(&admin, &here).await, ["the blue bicycle"], "an admin may search any conversation");
    assert_eq!(found(&admin, "q=blue").await, Vec::<String>::new(), "but is a member of none");
    for bad in ["", "?q=", "?q=%20", "?q=a%00", "?q=a&limit=0", "?q=a&conversation_id=a%20b"] {
        assert_problem(&bob.get(&format!("/api/chat/search{bad}")).await, 400, "invalid");
    }
}
