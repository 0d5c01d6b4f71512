//! The list of conversations says all that a list of chats shows, over sockets as over REST.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Client, Node, Postgres, RedisServer, token};

const CONVERSATIONS: &str = "/api/chat/conversations";

async fn native_list(client: &mut Client) -> Value {
    client.send(&json!({"type": "conversations", "ref": "list"})).await;
    client.until_where(|frame| frame["ref"] == "list").await
}

/// The presence of a member.
fn member<'a>(conversation: &'a Value, list: &str, id: &str, user: &str) -> &'a Value {
    conversation[list].as_array().unwrap().iter().find(|member| member[id] == user).unwrap()
}

async fn one_question_is_enough(one: &Node, two: &Node) {
    let alice = token("alice");
    let group = json!({"name": "Team", "description": "Plans", "is_group": true, "participant_ids": ["bob", "carol"]});
    let group = one.post(CONVERSATIONS, &alice, &group).await.json["id"].as_str().unwrap().to_owned();
    let direct = one.post(CONVERSATIONS, &alice, &json!({"participant_ids": ["bob"]})).await.json["id"].clone();
    let empty = one.conversation(&alice, &["dora"]).await;
    let path = format!("{CONVERSATIONS}/{group}/messages");
    let first = one.post(&path, &token("bob"), &json!({"content": "first"})).await.json;
    let last = one.post(&path, &token("bob"), &json!({"content": "newest"})).await.json;
    // Reactions follow the message: the last entry is no message.
    for at in 0..5 {
        let emoji = ["a", "b", "c", "d", "e"][at];
        let reaction = format!("{path}/{}/reactions/{emoji}", first["seq"]);
        assert!(one.request(Method::PUT, &reaction, Some(&token("carol")), None).await.status.is_success());
    }
    let mut socket = Client::native(two, "alice").await;
    let mut bob = Client::native(one, "bob").await;
    bob.send(&json!({"type": "status", "status": "dnd", "ref": 1})).await;
    bob.until("ok").await;
    let mut carol = Client::native(two, "carol").await;
    carol.send(&json!({"type": "status", "status": "invisible", "ref": 1})).await;
    carol.until("ok").await;
    socket.send(&json!({"type": "status", "status": "away", "ref": 1})).await;
    socket.until("ok").await;

    let native = native_list(&mut socket).await;
    let rest = two.get(CONVERSATIONS, &alice).await.json;
    assert_eq!((&native["status"], &rest["status"]), (&json!("away"), &json!("away")));
    assert_eq!((&native["total"], &rest["total"]), (&json!(3), &json!(3)));
    let (listed, over_rest) = (&native["conversations"][0], &rest["conversations"][0]);
    assert_eq!((&listed["conversation_id"], &over_rest["id"]), (&json!(group), &json!(group)));
    for field in ["name", "description", "is_group", "open", "created_by", "created_at", "updated_at", "archived"] {
        assert_eq!(listed[field], over_rest[field], "{field}");
    }
    assert_eq!((&listed["is_group"], &listed["description"]), (&json!(true), &json!("Plans")));
    assert_eq!((&listed["head"], &listed["unread"]), (&over_rest["seq"], &over_rest["unread_count"]));
    let (message, same) = (&listed["last_message"], &over_rest["last_message"]);
    assert_eq!((&message["content"], &message["seq"], &message["id"]), (&json!("newest"), &last["seq"], &last["id"]));
    assert_eq!((&same["content"], &same["seq"], &same["id"]), (&json!("newest"), &last["seq"], &last["id"]));
    for (of, list, id) in [(listed, "members", "user_id"), (over_rest, "users", "id")] {
        let (bob, carol) = (member(of, list, id, "bob"), member(of, list, id, "carol"));
        assert_eq!((&bob["online"], &bob["status"]), (&json!(true), &json!("dnd")), "{bob}");
        assert_eq!((&carol["online"], &carol["status"]), (&json!(false), &json!("online")), "{carol}");
    }
    let of = |id: &Value| {
        let all = native["conversations"].as_array().unwrap().iter();
        all.clone().find(|one| one["conversation_id"] == *id).unwrap().clone()
    };
    assert_eq!((&of(&direct)["is_group"], &of(&direct)["last_message"]), (&json!(false), &Value::Null));
    assert_eq!(of(&json!(empty))["last_message"], Value::Null);

    // A deleted message shows no text.
    let delete = format!("{path}/{}", last["seq"]);
    assert!(one.request(Method::DELETE, &delete, Some(&token("bob")), None).await.status.is_success());
    let native = native_list(&mut socket).await;
    let message = &native["conversations"][0]["last_message"];
    assert_eq!((&message["content"], &message["deleted"], &message["seq"]), (&json!(""), &json!(true), &last["seq"]));
}

#[tokio::test]
async fn the_list_is_one_question_on_two_nodes() {
    let redis = RedisServer::start().await;
    let database = Postgres::shared().await.database().await;
    let node = || Node::serve(&redis.url(), &database).set("OPEN_CONVERSATIONS", false).set("MESSAGE_RATE_LIMIT", 0);
    let (one, two) = (node().start().await, node().start().await);
    one_question_is_enough(&one, &two).await;
}

#[tokio::test]
async fn the_list_is_one_question_on_sqlite() {
    let node = Node::dev().set("OPEN_CONVERSATIONS", false).set("MESSAGE_RATE_LIMIT", 0).start().await;
    one_question_is_enough(&node, &node).await;
}
