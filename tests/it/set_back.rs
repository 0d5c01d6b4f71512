//! The store is set back to an earlier state, while Redis and the nodes are ahead: a backup was restored, or a standby that
//! lacked the newest commits was promoted. Clients are never given what the store does not have, are told to resync, and get
//! what is stored then once and in order.

pub mod scene;
mod servers;

use serde_json::{Value, json};

use crate::support::{Client, eventually, token, within};
use scene::{Ear, GROUPS, Scene, Speech, appended};

const LISTENERS: [&str; 4] = ["bob", "carol", "dave", "erin"];

/// A conversation with listeners of every dialect of groups, who heard the messages 1 to 10, of which a backup has the first 6.
struct Heard {
    scene: Scene,
    team: String,
    ears: Vec<Ear>,
    backup: String,
}

impl Heard {
    async fn ten_messages(nodes: usize) -> Self {
        let mut scene = Scene::new(nodes).await;
        let team = scene.at(0).conversation(&token("alice"), &LISTENERS).await;
        let mut ears = Vec::new();
        for (at, (speech, user)) in GROUPS.into_iter().zip(LISTENERS).enumerate() {
            ears.push(Ear::open(scene.at(at), speech, user, &team, None).await);
        }
        for number in 1..=6 {
            scene.say(number, &team, &format!("kept {number}")).await;
        }
        let backup = scene.back_up().await;
        for number in 7..=10 {
            scene.say(number, &team, &format!("lost {number}")).await;
        }
        for ear in &mut ears {
            ear.until("lost 10").await;
            assert_eq!((ear.heard.len(), ear.resyncs.len()), (10, 0), "{:?}", ear.heard);
        }
        Self { scene, team, ears, backup }
    }

    /// Every listener resyncs once, hears the new messages once and in order, and then has what the store has.
    async fn expect_new(&mut self, new: &[&str]) {
        let stored = self.scene.stored(&self.team).await;
        for (at, ear) in self.ears.iter_mut().enumerate() {
            ear.until(new.last().unwrap()).await;
            ear.drain().await;
            assert_eq!(ear.resyncs.len(), 1, "{:?} {:?}", ear.speech, ear.resyncs);
            ear.expect_heard(new);
            ear.read_anew(self.scene.at(at)).await;
            assert_eq!(ear.has, stored, "{:?}", ear.speech);
        }
    }
}

#[tokio::test]
async fn a_lower_store_makes_every_listener_resync_and_new_messages_come_once() {
    for nodes in [1, 2] {
        let mut heard = Heard::ten_messages(nodes).await;
        heard.scene.restore(&heard.backup.clone(), "").await;
        let new: Vec<String> = (7..=12).map(|number| format!("new {number}")).collect();
        for (at, content) in new.iter().enumerate() {
            heard.scene.say(at, &heard.team, content).await;
        }
        heard.expect_new(&new.iter().map(String::as_str).collect::<Vec<_>>()).await;
    }
}

#[tokio::test]
async fn a_store_that_continued_otherwise_makes_every_listener_resync() {
    for branch in [&["other 7", "other 8", "other 9", "other 10"][..], &["other 7"; 1], &["other 7"; 6]] {
        let mut heard = Heard::ten_messages(2).await;
        let statements = appended(&heard.team, branch);
        heard.scene.restore(&heard.backup.clone(), &statements).await;
        // Also without a new message.
        for ear in &mut heard.ears {
            ear.until_resync().await;
        }
        heard.scene.say(0, &heard.team, "new").await;
        let expected: Vec<&str> = branch.iter().copied().chain(["new"]).collect();
        heard.expect_new(&expected).await;
    }
}

/// The node that stores the first message has no listener of the conversation, so it can't notice anything.
#[tokio::test]
async fn a_node_learns_of_a_set_back_from_the_entries_of_others() {
    let mut heard = Heard::ten_messages(1).await;
    let other = heard.scene.node().start().await;
    heard.scene.restore(&heard.backup.clone(), "").await;
    let body = json!({"content": "new 7"});
    let path = format!("/api/chat/conversations/{}/messages", heard.team);
    eventually("an accepted message", async || {
        other.post(&path, &token("alice"), &body).await.status.is_success().then_some(())
    })
    .await;
    heard.expect_new(&["new 7"]).await;
}

#[tokio::test]
async fn a_resume_is_served_from_the_store_alone() {
    let mut heard = Heard::ten_messages(2).await;
    heard.scene.restore(&heard.backup.clone(), "").await;
    for (at, (speech, user)) in GROUPS.into_iter().zip(LISTENERS).enumerate() {
        if speech == Speech::Personas {
            // It can resume as the native one does.
            continue;
        }
        let mut ahead = None;
        let mut behind = None;
        eventually("an accepted join", async || {
            let ready = heard.scene.at(at).get("/api/health", &token(user)).await.json["status"] == "healthy";
            ready.then_some(())
        })
        .await;
        ahead.replace(Ear::open(heard.scene.at(at), speech, user, &heard.team, Some(9)).await);
        behind.replace(Ear::open(heard.scene.at(at), speech, user, &heard.team, Some(4)).await);
        let (mut ahead, mut behind) = (ahead.unwrap(), behind.unwrap());
        heard.scene.say(at, &heard.team, &format!("new {at}")).await;
        behind.until(&format!("new {at}")).await;
        ahead.until(&format!("new {at}")).await;
        assert!(behind.heard.iter().all(|(_, content)| !content.starts_with("lost")), "{:?}", behind.heard);
        assert!(ahead.heard.iter().all(|(_, content)| !content.starts_with("lost")), "{:?}", ahead.heard);
        assert_eq!(ahead.resyncs.len(), 1, "its seq is ahead of the log");
        let stored = heard.scene.stored(&heard.team).await;
        for mut ear in [ahead, behind] {
            ear.read_anew(heard.scene.at(at)).await;
            assert_eq!(ear.has, stored, "{speech:?}");
        }
    }
}

/// No node remembers anything, but Redis has the lost messages in its cache.
#[tokio::test]
async fn nodes_that_start_after_a_set_back_give_nothing_lost_from_the_cache() {
    let mut heard = Heard::ten_messages(2).await;
    drop(std::mem::take(&mut heard.ears));
    for node in heard.scene.nodes.drain(..) {
        assert_eq!(node.terminate().await, 0);
    }
    // Two of the new entries are no messages, so that the cache never has entries of their own under these seqs.
    let statements = appended(&heard.team, &["other 7"]);
    heard.scene.restore(&heard.backup.clone(), &statements).await;
    heard.scene.nodes.push(heard.scene.node().start().await);
    let node = heard.scene.at(0);
    for since in [3, 5, 6, 7] {
        let mut ear = Ear::open(node, Speech::Rooms, "carol", &heard.team, Some(since)).await;
        let content = format!("new since {since}");
        heard.scene.say(0, &heard.team, &content).await;
        ear.until(&content).await;
        let stored = heard.scene.stored(&heard.team).await;
        let expected: Vec<&str> = stored.range(since + 1..).map(|(_, content)| content.as_str()).collect();
        ear.expect_heard(&expected);
    }
}

/// Sends a frame until it is acked, and returns the ack.
async fn acked(client: &mut Client, frame: &Value) -> Value {
    let mut pace = tokio::time::interval(std::time::Duration::from_millis(20));
    within("an ack", async {
        loop {
            pace.tick().await;
            client.send(frame).await;
            let answer = client.until_where(|frame| frame["type"] == "ack" || frame["type"] == "error").await;
            if answer["type"] == "ack" {
                return answer;
            }
        }
    })
    .await
}

/// Both users of a direct conversation get what comes after the set-back, also without reading anew.
#[tokio::test]
async fn direct_messages_continue_after_a_set_back() {
    let mut scene = Scene::new(2).await;
    let (mut alice, mut bob) =
        (Client::native(scene.at(0), "alice").await, Ear::open(scene.at(1), Speech::Direct, "bob", "", None).await);
    let say = async |alice: &mut Client, content: &str| {
        let frame = json!({"type": "send", "recipient_id": "bob", "content": content, "client_id": content});
        acked(alice, &frame).await["conversation_id"].as_str().unwrap().to_owned()
    };
    let direct = say(&mut alice, "kept-1").await;
    bob.until("kept-1").await;
    let backup = scene.back_up().await;
    for content in ["lost-2", "lost-3"] {
        say(&mut alice, content).await;
        bob.until(content).await;
    }
    scene.restore(&backup, "").await;
    scene.settled().await;
    for content in ["new-2", "new-3", "new-4"] {
        assert_eq!(say(&mut alice, content).await, direct);
    }
    bob.until("new-4").await;
    bob.expect_heard(&["new-2", "new-3", "new-4"]);
    assert_eq!(bob.resyncs, [1]);
    // What was delivered counts as such, and nothing else. The client answers pings while it reads.
    let client = scene.sql().await;
    let sql = "SELECT delivered_seq FROM members WHERE conversation = $1 AND user_id = 'bob'";
    let mut pace = tokio::time::interval(std::time::Duration::from_millis(20));
    within("the delivered mark of what was heard", async {
        while client.query_one(sql, &[&direct]).await.unwrap().get::<_, i64>(0) != 4 {
            bob.drain().await;
            pace.tick().await;
        }
    })
    .await;
}

/// The conversation of a pair was created after the backup: the nodes must not remember it.
#[tokio::test]
async fn a_lost_direct_conversation_is_created_again() {
    let mut scene = Scene::new(1).await;
    let mut alice = Client::native(scene.at(0), "alice").await;
    let mut bob = Client::native(scene.at(0), "bob").await;
    let backup = scene.back_up().await;
    let send = json!({"type": "send", "recipient_id": "bob", "content": "hi", "client_id": "c-1"});
    alice.send(&send).await;
    alice.until("ack").await;
    bob.until("message").await;
    scene.restore(&backup, "").await;
    scene.settled().await;
    acked(&mut alice, &send).await;
    assert_eq!(bob.until("message").await["content"], "hi");
}

/// Who became a member after the backup is none any more, and stops listening.
#[tokio::test]
async fn a_lost_membership_ends_the_listening() {
    let mut scene = Scene::new(1).await;
    let team = scene.at(0).conversation(&token("alice"), &["bob"]).await;
    let mut bob = Ear::open(scene.at(0), Speech::Native, "bob", &team, None).await;
    let backup = scene.back_up().await;
    let path = format!("/api/chat/conversations/{team}/members");
    let added = scene.at(0).post(&path, &token("alice"), &json!({"user_ids": ["carol"]})).await;
    assert!(added.status.is_success(), "{}", added.text);
    let mut native = Client::native(scene.at(0), "carol").await;
    native.join(&team).await;
    let mut bound = Client::rooms(scene.at(0), &team, "carol").await;
    let admin = crate::support::token_with("root", json!({"role": "admin"}));
    let mut admin_socket = Client::connect(&format!("{}/ws/{team}?token={admin}", scene.at(0).ws())).await;
    admin_socket.expect("connected").await;
    scene.restore(&backup, "").await;
    assert_eq!(native.until("left").await["conversation_id"], *team);
    assert_eq!(bound.expect_close().await, (1008, "Not a member of this conversation".into()));
    scene.say(0, &team, "secret").await;
    bob.until("secret").await;
    let frames = native.drain().await;
    assert!(frames.iter().all(|frame| frame["content"] != "secret"), "{frames:?}");
    assert_eq!(admin_socket.until("new_message").await["data"]["content"], "secret", "admins need no membership");
}

/// A repeated join continues after the last entry that the socket received, lost ones excepted.
#[tokio::test]
async fn a_repeated_join_after_a_set_back_continues_with_what_the_store_has() {
    let mut scene = Scene::new(1).await;
    let team = scene.at(0).conversation(&token("alice"), &["bob"]).await;
    let backup = scene.back_up().await;
    for number in 1..=3 {
        scene.say(0, &team, &format!("lost {number}")).await;
    }
    let mut bob = Client::native(scene.at(0), "bob").await;
    assert_eq!(bob.join(&team).await["head"], 3);
    scene.restore(&backup, "").await;
    assert_eq!(bob.until("resync").await["head"], 0);
    let again = loop {
        bob.send(&json!({"type": "join", "conversation_id": team, "ref": "again"})).await;
        let again = bob.until_where(|frame| frame["ref"] == "again").await;
        if again["code"] != "unavailable" {
            break again;
        }
    };
    assert_eq!((&again["type"], &again["head"]), (&json!("joined"), &json!(0)));
    scene.say(0, &team, "new").await;
    assert_eq!(bob.until("message").await["seq"], 1);
}

/// All nodes agree on one new epoch for each set-back.
#[tokio::test]
async fn each_set_back_begins_one_epoch() {
    let mut heard = Heard::ten_messages(2).await;
    let epoch = async |scene: &Scene| {
        scene.sql().await.query_one("SELECT epoch FROM deployment", &[]).await.unwrap().get::<_, i64>(0)
    };
    assert_eq!(epoch(&heard.scene).await, 1, "the backup was no set-back");
    heard.scene.restore(&heard.backup.clone(), "").await;
    for ear in &mut heard.ears {
        ear.until_resync().await;
    }
    let first = epoch(&heard.scene).await;
    assert!(first > 1_700_000_000, "{first}");
    // A second comparison on each node, by another epoch.
    heard.scene.sql().await.execute("UPDATE deployment SET epoch = epoch + 1000", &[]).await.unwrap();
    for node in &heard.scene.nodes {
        node.logged(&format!("\"epoch\":{}", first + 1_000)).await;
    }
    heard.scene.say(0, &heard.team, "new").await;
    for ear in &mut heard.ears {
        ear.until("new").await;
        assert_eq!(ear.resyncs.len(), 1);
    }
    assert_eq!(epoch(&heard.scene).await, first + 1_000);
}

/// Lost connections cause comparisons, which find nothing, whatever kinds of entries went out.
#[tokio::test]
async fn lost_connections_to_a_store_that_was_not_set_back_change_nothing() {
    let scene = Scene::new(2).await;
    let team = scene.at(0).conversation(&token("alice"), &["bob", "dave"]).await;
    let mut bob = Client::native(scene.at(1), "bob").await;
    bob.join(&team).await;
    let mut carol = Client::native(scene.at(0), "carol").await;
    let (alice, path) = (token("alice"), format!("/api/chat/conversations/{team}"));
    for round in 0..5 {
        let seq = scene.say(round, &team, &format!("m {round}")).await;
        let node = scene.at(round);
        let messages = format!("{path}/messages/{seq}");
        for (method, path, body) in [
            (reqwest::Method::PUT, format!("{messages}/reactions/%2B1"), None),
            (reqwest::Method::PATCH, messages.clone(), Some(json!({"content": "edited"}))),
            (reqwest::Method::DELETE, messages.clone(), None),
            (reqwest::Method::POST, format!("{path}/members"), Some(json!({"user_ids": ["carol"]}))),
            (reqwest::Method::DELETE, format!("{path}/members/carol"), None),
        ] {
            let answer = eventually("an answer of the store", async || {
                let answer = node.request(method.clone(), &path, Some(&alice), body.as_ref()).await;
                (answer.status != 503).then_some(answer)
            });
            let answer = answer.await;
            assert!(answer.status.is_success(), "{method} {path}: {}", answer.text);
        }
        carol.until("conversation_removed").await;
        scene.proxy.drop_connections();
        scene.settled().await;
        let path = format!("/api/chat/conversations/{team}/messages");
        eventually("an accepted message", async || {
            let answer = node.post(&path, &alice, &json!({"content": format!("after {round}")})).await;
            answer.status.is_success().then_some(())
        })
        .await;
        let after = format!("after {round}");
        bob.until_where(|frame| frame["content"] == *after).await;
    }
    for node in &scene.nodes {
        assert_eq!(node.metrics().await.get("switchboard_store_set_backs_total"), Some(0.0));
    }
    assert_eq!(scene.resyncs().await, 0.0);
}
