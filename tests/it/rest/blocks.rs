//! Blocks, and memberships that ended: who can't reach or add whom any more.

use reqwest::Method;
use serde_json::json;

use super::node::{CONVERSATIONS, Cluster, User, assert_done, assert_problem, conversation_of};
use crate::support::Client;

const BLOCKS: &str = "/api/blocks";

async fn block(user: &User<'_>, other: &str) {
    assert_done(&user.request(Method::POST, &format!("{BLOCKS}/{other}"), None).await);
}

#[tokio::test]
async fn a_blocked_user_reaches_the_blocker_in_no_way() {
    let cluster = Cluster::new().await;
    let (one, two) = (cluster.node().start().await, cluster.node().start().await);
    let (bob, mallory, carol) = (User::of(&one, "bob"), User::of(&two, "mallory"), User::of(&two, "carol"));
    let group = mallory.group(&["carol"]).await;
    let direct = mallory.post(CONVERSATIONS, json!({"participant_ids": ["bob"]})).await.json["id"].clone();
    let direct = format!("{CONVERSATIONS}/{}/messages", direct.as_str().unwrap());
    mallory.send_text(&direct, "hi").await;
    assert_eq!(bob.get(BLOCKS).await.json, json!({"user_ids": []}));
    for _ in 0..2 {
        block(&bob, "mallory").await;
    }
    assert_eq!(bob.get(BLOCKS).await.json, json!({"user_ids": ["mallory"]}));

    let members = format!("{CONVERSATIONS}/{}/members", conversation_of(&group));
    let refusals = [
        mallory
            .post(CONVERSATIONS, json!({"name": "trap", "is_group": true, "participant_ids": ["carol", "bob"]}))
            .await,
        mallory.post(CONVERSATIONS, json!({"participant_ids": ["bob"]})).await,
        mallory.post(&direct, json!({"content": "again"})).await,
        mallory.post(&members, json!({"user_ids": ["bob", "dave"]})).await,
    ];
    for refusal in &refusals {
        assert_problem(refusal, 403, "forbidden");
        assert_eq!(refusal.json["detail"], refusals[0].json["detail"], "one refusal");
    }
    let users = carol.get(&members).await.json["members"].clone();
    assert!(users.to_string().contains("dave") && !users.to_string().contains("bob"), "{users}");
    let mut socket = Client::native(&two, "mallory").await;
    socket.send(&json!({"type": "send", "recipient_id": "bob", "content": "psst", "ref": 1})).await;
    assert_eq!(socket.until("error").await["code"], "forbidden");
    assert_eq!(bob.get(&direct).await.json["total"], 1);

    // Others may add bob, and bob may write.
    assert_eq!(carol.post(&members, json!({"user_ids": ["bob"]})).await.status.as_u16(), 200);
    bob.send_text(&direct, "no").await;
    assert_done(&bob.delete(&format!("{BLOCKS}/mallory")).await);
    mallory.send_text(&direct, "sorry").await;
}

#[tokio::test]
async fn who_left_or_was_removed_comes_back_only_as_the_page_says() {
    let cluster = Cluster::new().await;
    let node = cluster.node().set("OPEN_CONVERSATIONS", true).start().await;
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(|id| User::of(&node, id));
    let created = alice.post(
        CONVERSATIONS,
        json!({"name": "open", "is_group": true, "open": true, "participant_ids": ["bob", "carol"]}),
    );
    let id = created.await.json["id"].as_str().unwrap().to_owned();
    let members = format!("{CONVERSATIONS}/{id}/members");

    assert_done(&carol.delete(&format!("{members}/carol")).await);
    assert_problem(&bob.post(&members, json!({"user_ids": ["carol"]})).await, 403, "forbidden");
    let mut socket = Client::native(&node, "carol").await;
    socket.join(&id).await;
    assert_eq!(bob.post(&members, json!({"user_ids": ["carol"]})).await.status.as_u16(), 200, "a member again");

    assert_done(&alice.delete(&format!("{members}/carol")).await);
    assert_problem(&bob.post(&members, json!({"user_ids": ["carol"]})).await, 403, "forbidden");
    socket.send(&json!({"type": "join", "conversation_id": id, "ref": "back"})).await;
    let refused = socket.until_where(|frame| frame["ref"] == "back").await;
    assert_eq!(refused["code"], "not_member", "a removal holds in an open conversation too");
    assert_eq!(alice.post(&members, json!({"user_ids": ["carol"]})).await.status.as_u16(), 200);
    socket.join(&id).await;
}

#[tokio::test]
async fn blocks_are_bounded_and_nobody_blocks_themselves() {
    let cluster = Cluster::new().await;
    let node = cluster.node().set("MAX_BLOCKS_PER_USER", 1).start().await;
    let bob = User::of(&node, "bob");
    block(&bob, "mallory").await;
    for other in ["eve", "bob"] {
        let refused = bob.request(Method::POST, &format!("{BLOCKS}/{other}"), None).await;
        assert_problem(&refused, 409, "conflict");
    }
    assert_problem(&bob.request(Method::POST, &format!("{BLOCKS}/a%20b"), None).await, 404, "not_found");
}
