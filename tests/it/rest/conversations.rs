//! Listings with members, archiving, receipts and read marks.

use serde_json::json;

use super::node::{CONVERSATIONS, Cluster, User, assert_done, assert_problem, conversation_of};
use crate::support::{Client, eventually};

#[tokio::test]
async fn listings_show_members_and_omit_archived_conversations() {
    let cluster = Cluster::new().await;
    let node = cluster.node().start().await;
    let (alice, bob) = (User::of(&node, "alice"), User::of(&node, "bob"));
    let messages = alice.group(&["bob"]).await;
    let id = conversation_of(&messages);
    let listed = bob.get(CONVERSATIONS).await.json;
    assert_eq!(listed["conversations"][0]["archived"], false);
    let users = listed["conversations"][0]["users"].as_array().unwrap();
    assert_eq!(users.iter().map(|user| user["id"].as_str().unwrap()).collect::<Vec<_>>(), ["alice", "bob"]);

    let archive = format!("{CONVERSATIONS}/{id}/archive");
    for _ in 0..2 {
        assert_done(&bob.request(reqwest::Method::POST, &archive, None).await);
    }
    assert_eq!(bob.get(CONVERSATIONS).await.json["total"], 0);
    let archived = bob.get(&format!("{CONVERSATIONS}?archived=true")).await.json;
    assert_eq!((&archived["total"], &archived["conversations"][0]["archived"]), (&json!(1), &json!(true)));
    assert_eq!(bob.get(&format!("{CONVERSATIONS}/{id}")).await.json["archived"], true);
    assert_eq!(alice.get(CONVERSATIONS).await.json["total"], 1, "archived for bob only");
    assert_done(&bob.delete(&archive).await);
    assert_eq!(bob.get(CONVERSATIONS).await.json["total"], 1);
    assert_problem(&bob.get(&format!("{CONVERSATIONS}?archived=yes")).await, 400, "invalid");
}

#[tokio::test]
async fn read_marks_move_forward_and_show_as_receipts() {
    let cluster = Cluster::new().await;
    let node = cluster.node().start().await;
    let (alice, bob) = (User::of(&node, "alice"), User::of(&node, "bob"));
    let messages = alice.group(&["bob"]).await;
    let room = conversation_of(&messages);
    let mut listener = Client::native(&node, "alice").await;
    listener.join(room).await;
    let mut sent = Vec::new();
    for content in ["one", "two", "three"] {
        sent.push(alice.send_text(&messages, content).await);
    }
    let mark = async |body: serde_json::Value| bob.post("/api/messages/read", body).await;
    let ids = json!({"conversation_id": room, "message_ids": [sent[0]["seq"], sent[1]["id"]]});
    let marked = mark(ids).await;
    let expected = json!({"conversation_id": room, "delivered_seq": sent[1]["seq"], "read_seq": sent[1]["seq"]});
    assert_eq!((marked.status.as_u16(), &marked.json), (200, &expected), "{}", marked.text);
    let receipt = listener.until("receipt").await;
    assert_eq!((&receipt["user_id"], &receipt["read_seq"]), (&json!("bob"), &sent[1]["seq"]));

    let back = mark(json!({"conversation_id": room, "up_to_seq": sent[0]["seq"]})).await;
    assert_eq!(back.json, expected, "marks never move back");
    let far = mark(json!({"conversation_id": room, "up_to_seq": sent[0]["seq"], "delivered_seq": 1_000})).await;
    assert_eq!(far.json["read_seq"], sent[1]["seq"]);
    assert_eq!(far.json["delivered_seq"], sent[2]["seq"], "marks never pass the newest entry");

    let members = alice.get(&format!("{CONVERSATIONS}/{room}/members")).await.json;
    let of_bob = &members["members"][1];
    assert_eq!(
        (&of_bob["user_id"], &of_bob["read_seq"], &of_bob["delivered_seq"]),
        (&json!("bob"), &sent[1]["seq"], &sent[2]["seq"])
    );
    assert_eq!(bob.get(&format!("{CONVERSATIONS}/{room}")).await.json["unread_count"], 1);
}

#[tokio::test]
async fn a_message_id_of_another_conversation_marks_nothing() {
    let cluster = Cluster::new().await;
    let node = cluster.node().start().await;
    let (alice, bob) = (User::of(&node, "alice"), User::of(&node, "bob"));
    let (one, other) = (alice.group(&["bob"]).await, alice.group(&["bob"]).await);
    let (here, there) = (alice.send_text(&one, "here").await, alice.send_text(&other, "there").await);
    let room = conversation_of(&one);
    for ids in [json!([there["id"]]), json!([here["id"], there["id"]]), json!(["x"]), json!([0]), json!([])] {
        let body = json!({"conversation_id": room, "message_ids": ids});
        assert_problem(&bob.post("/api/messages/read", body).await, 400, "invalid");
    }
    assert_eq!(bob.get(&format!("{CONVERSATIONS}/{room}")).await.json["unread_count"], 1);
    let body = json!({"conversation_id": room, "up_to_seq": 1});
    assert_problem(&User::of(&node, "mallory").post("/api/messages/read", body.clone()).await, 403, "not_member");
    let nowhere = json!({"conversation_id": "nowhere", "up_to_seq": 1});
    assert_problem(&bob.post("/api/messages/read", nowhere).await, 403, "not_member");
}

#[tokio::test]
async fn notifications_are_listed_and_marked_read() {
    let cluster = Cluster::new().await;
    let node = cluster.node().start().await;
    let (alice, bob) = (User::of(&node, "alice"), User::of(&node, "bob"));
    let messages = alice.group(&["bob"]).await;
    let room = json!(conversation_of(&messages));
    let sent = alice.send_text(&messages, "where are you?").await;
    let one = eventually("a notification for bob, who has no socket", async || {
        let list = bob.get("/api/notifications?limit=10&offset=0").await;
        assert_eq!(list.status, 200, "{}", list.text);
        list.json["notifications"].get(0).cloned()
    })
    .await;
    assert_eq!((&one["conversation_id"], &one["from_seq"], &one["count"]), (&room, &sent["seq"], &json!(1)));
    assert!(one["created_at"].is_string() && one["read_at"].is_null(), "{one}");
    assert_eq!(alice.get("/api/notifications").await.json["notifications"], json!([]));
    for ids in [json!([]), json!([one["id"].as_i64().unwrap() + 1])] {
        assert_done(&bob.post("/api/notifications/read", json!({"ids": ids})).await);
    }
    assert_done(&alice.post("/api/notifications/read", json!({"ids": [one["id"]]})).await);
    assert_eq!(bob.get("/api/notifications").await.json["notifications"][0]["read_at"], json!(null));
    assert_done(&bob.post("/api/notifications/read", json!({})).await);
    assert!(bob.get("/api/notifications").await.json["notifications"][0]["read_at"].is_string());
}
