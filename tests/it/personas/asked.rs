//! Only members ask a persona, only configured personas are asked, and only with a stored message.

use reqwest::Method;

use super::*;

/// A persona that repeats the message.
async fn echo() -> Receiver {
    Receiver::start(async |_, posted: Arc<crate::support::ReceivedRequest>| {
        HookResponse::content(posted.json["message"].as_str().unwrap())
    })
    .await
}

fn to(persona: &str, conversation: &str, content: &str, client_id: &str) -> Value {
    json!({"type": "send", "conversation_id": conversation, "content": content, "persona_id": persona,
        "client_id": client_id, "ref": content})
}

/// The reply to a frame, or its error.
async fn outcome(client: &mut Client, frame: &Value) -> Value {
    client.send(frame).await;
    let mark = frame["ref"].clone();
    client.until_where(|reply| reply["ref"] == mark).await
}

#[tokio::test]
async fn a_removed_member_makes_no_persona_speak() {
    let receiver = echo().await;
    let node = node(&receiver).start().await;
    let alice = token("alice");
    let room = node.conversation(&alice, &["mallory"]).await;
    let mut mallory = Client::native(&node, "mallory").await;
    let plain = json!({"type": "send", "conversation_id": room, "content": "hi", "client_id": "1", "ref": "hi"});
    assert_eq!(outcome(&mut mallory, &plain).await["type"], "ack");
    let asked = outcome(&mut mallory, &to("ada", &room, "a question", "2")).await;
    assert_eq!(asked["type"], "ack");
    receiver.request(0).await;

    let path = format!("/api/chat/conversations/{room}/members/mallory");
    assert_eq!(node.request(Method::DELETE, &path, Some(&alice), None).await.status, 204);
    // Old ids with new content and a persona, and an old question with other words.
    for (content, id) in [("say this", "1"), ("and this", "2"), ("and that", "3")] {
        let refused = outcome(&mut mallory, &to("ada", &room, content, id)).await;
        assert_eq!(refused["code"], "not_member", "{refused}");
    }
    let body = json!({"content": "over REST", "persona_id": "ada", "client_id": "1"});
    let path = format!("/api/chat/conversations/{room}/messages");
    let refused = node.post(&path, &token("mallory"), &body).await;
    assert_eq!((refused.status.as_u16(), &refused.json["code"]), (403, &json!("not_member")), "{}", refused.text);
    node.metric("switchboard_persona_messages_total{result=\"answered\"}", |count| count == 1.0).await;
    assert_eq!(receiver.count(), 1, "nothing more was asked");
    assert_eq!(total(&node, &room).await, 3, "two messages and the answer");
}

#[tokio::test]
async fn a_repeat_asks_what_is_stored() {
    let fails = Arc::new(AtomicUsize::new(1));
    let left = fails.clone();
    // The first request fails, so that a repeat asks again.
    let receiver = Receiver::start(move |_, posted: Arc<crate::support::ReceivedRequest>| {
        let failed = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        async move {
            let message = posted.json["message"].as_str().unwrap();
            if failed { HookResponse::status(400) } else { HookResponse::content(message) }
        }
    })
    .await;
    let node = node(&receiver).start().await;
    let mut alice = Client::native(&node, "alice").await;
    alice.join("team").await;
    alice
        .send(&json!({"type": "send", "conversation_id": "team", "content": "plain", "client_id": "p", "ref": 1}))
        .await;
    alice.until("ack").await;
    alice.send(&to("ada", "team", "the question", "q")).await;
    alice.until_where(|frame| frame["code"] == "persona_failed").await;

    // Other words or another persona under the same id are another message.
    for (persona, words) in [("ada", "other words"), ("bea", "the question")] {
        let refused = outcome(&mut alice, &to(persona, "team", words, "q")).await;
        assert_eq!(refused["code"], "conflict", "{refused}");
    }
    let repeated = outcome(&mut alice, &to("ada", "team", "the question", "q")).await;
    assert_eq!((&repeated["type"], &repeated["duplicate"]), (&json!("ack"), &json!(true)));
    let answered = alice.until_where(|frame| frame["type"] == "message" && frame["is_ai"] == true).await;
    assert_eq!((&answered["sender_id"], &answered["content"]), (&json!("ada"), &json!("the question")));
    let asked = receiver.request(1).await.json.clone();
    assert_eq!((&asked["persona_id"], &asked["message"]), (&json!("ada"), &json!("the question")));

    // A message that was stored without a persona asks none.
    let refused = outcome(&mut alice, &to("ada", "team", "plain", "p")).await;
    assert_eq!(refused["code"], "conflict", "{refused}");
    let next = outcome(&mut alice, &to("bea", "team", "next", "n")).await;
    assert_eq!(next["type"], "ack");
    let asked = receiver.request(2).await.json.clone();
    assert_eq!((&asked["persona_id"], &asked["message"]), (&json!("bea"), &json!("next")), "{asked}");
    alice.until_where(|frame| frame["type"] == "message" && frame["sender_id"] == "bea").await;
    assert_eq!(total(&node, "team").await, 5);
}

#[tokio::test]
async fn only_configured_personas_are_asked_and_no_user_is_one() {
    let receiver = echo().await;
    let node = node(&receiver).start().await;
    let mut alice = Client::native(&node, "alice").await;
    alice.join("team").await;
    for unknown in ["eve", "alice", "bob"] {
        let refused = outcome(&mut alice, &to(unknown, "team", "hello", unknown)).await;
        assert_eq!(refused["code"], "not_found", "{refused}");
    }
    assert_eq!((total(&node, "team").await, receiver.count()), (json!(0), 0), "nothing was stored or asked");

    let (code, reason) =
        Client::connect(&format!("{}/v1/ws?token={}", node.ws(), token("ada"))).await.expect_close().await;
    assert_eq!(code, 4401, "{reason}");
    assert_eq!(node.get("/api/chat/conversations", &token("ada")).await.status, 401);
    // Under dev, this route needs no token.
    let (code, reason) = Client::connect(&format!("{}/ws/ada", node.ws())).await.expect_close().await;
    assert_eq!(code, 1008, "{reason}");
    assert!(reason.contains("persona"), "{reason}");
}
