//! A statement commits and its answer is lost: whoever it concerns is told, on every node.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::CLOSED;
use crate::support::{
    Client, Link, Node, Postgres, Proxy, RedisServer, connect_to_postgres, eventually, token, token_with,
};

/// Two nodes; the first one reaches PostgreSQL through the link.
struct Nodes {
    _redis: RedisServer,
    database: String,
    link: Proxy,
    one: Node,
    two: Node,
}

impl Nodes {
    async fn start() -> Self {
        let redis = RedisServer::start().await;
        let database = Postgres::shared().await.database().await;
        let link = Proxy::to(database.split('@').next_back().unwrap().split('/').next().unwrap()).await;
        let one = Node::serve(&redis.url(), &link.url(&database)).set(CLOSED.0, CLOSED.1).start().await;
        let two = Node::serve(&redis.url(), &database).set(CLOSED.0, CLOSED.1).start().await;
        Self { _redis: redis, database, link, one, two }
    }

    /// Runs `call`, loses the answer of its statement after PostgreSQL has committed it, and restores the link.
    /// The statement is the `nth` one whose parameters contain `pattern`; `query` shows that it is committed.
    async fn lose_answer<T>(&self, (pattern, nth): (&str, usize), query: &str, call: impl Future<Output = T>) -> T {
        self.link.set_at(pattern, nth, Link::Mute);
        let lose = async {
            self.link.reached(Link::Mute).await;
            let database = connect_to_postgres(&self.database).await;
            eventually("the commit", async || (!database.query(query, &[]).await.unwrap().is_empty()).then_some(()))
                .await;
            self.link.drop_connections();
            self.link.set(Link::Open);
        };
        tokio::join!(call, lose).0
    }
}

const CONVERSATIONS: &str = "/api/chat/conversations";

fn first_message(to: &str) -> Value {
    json!({"type": "send", "recipient_id": to, "content": "first", "client_id": "1", "ref": 1})
}

/// Sends a frame until its ack comes.
async fn send_until_acked(client: &mut Client, frame: &Value) -> Value {
    loop {
        client.send(frame).await;
        let answer = client.until_where(|frame| frame["ref"] == 1).await;
        if answer["type"] == "ack" {
            return answer;
        }
        assert_eq!(answer["retryable"], json!(true), "{answer}");
    }
}

#[tokio::test]
async fn an_added_member_is_told() {
    let nodes = Nodes::start().await;
    let alice = token("alice");
    let team = nodes.one.conversation(&alice, &[]).await;
    let mut bob = Client::native(&nodes.two, "bob-added").await;
    let (path, body) = (format!("{CONVERSATIONS}/{team}/members"), json!({"user_ids": ["bob-added"]}));
    let committed = format!("SELECT FROM members WHERE conversation = '{team}' AND user_id = 'bob-added'");
    let add = nodes.one.post(&path, &alice, &body);
    let answer = nodes.lose_answer(("bob-added", 1), &committed, add).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    assert_eq!(bob.until("conversation_added").await["conversation_id"], json!(team));
    let mut writer = Client::native(&nodes.one, "alice").await;
    let ack = writer.send_text(&team, "welcome").await;
    assert_eq!(bob.until("message").await["id"], ack["id"]);
}

#[tokio::test]
async fn a_removed_member_is_told() {
    let nodes = Nodes::start().await;
    let alice = token("alice");
    let team = nodes.one.conversation(&alice, &["bob-removed"]).await;
    let mut bob = Client::native(&nodes.two, "bob-removed").await;
    bob.join(&team).await;
    let path = format!("{CONVERSATIONS}/{team}/members/bob-removed");
    let committed = format!("SELECT FROM log WHERE log = '{team}' AND subject = 'bob-removed' AND kind = 5");
    let remove = nodes.one.request(Method::DELETE, &path, Some(&alice), None);
    let answer = nodes.lose_answer(("bob-removed", 1), &committed, remove).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT, "{answer:?}");
    bob.until("conversation_removed").await;
}

#[tokio::test]
async fn the_members_of_a_new_conversation_are_told_and_the_creation_can_be_repeated() {
    let nodes = Nodes::start().await;
    let alice = token("alice");
    let mut bob = Client::native(&nodes.two, "bob").await;
    let new = json!({"id": "launch", "name": "Launch of the year", "participant_ids": ["bob"]});
    let committed = "SELECT FROM conversations WHERE id = 'launch'";
    let create = || nodes.one.post(CONVERSATIONS, &alice, &new);
    let answer = nodes.lose_answer(("Launch of the year", 1), committed, create()).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{answer:?}");
    // Bob is told although nobody repeats the call.
    assert_eq!(bob.until("conversation_added").await["conversation_id"], json!("launch"));

    let repeated = eventually("the repeated creation", async || {
        let answer = create().await;
        (answer.status != StatusCode::SERVICE_UNAVAILABLE).then_some(answer)
    })
    .await;
    assert_eq!((repeated.status, &repeated.json["id"]), (StatusCode::CREATED, &json!("launch")), "{repeated:?}");
    for other in [
        json!({"id": "launch", "name": "Another name", "participant_ids": ["bob"]}),
        json!({"id": "launch", "name": "Launch of the year", "participant_ids": ["carol"]}),
        json!({"id": "launch", "name": "Launch of the year", "open": true, "participant_ids": ["bob"]}),
    ] {
        assert_eq!(nodes.two.post(CONVERSATIONS, &alice, &other).await.status, StatusCode::CONFLICT, "{other}");
    }
    let not_hers = nodes.two.post(CONVERSATIONS, &token("bob"), &new).await;
    assert_eq!(not_hers.status, StatusCode::CONFLICT);
}

#[tokio::test]
async fn a_first_contact_reaches_both_members() {
    let nodes = Nodes::start().await;
    let mut bob = Client::native(&nodes.two, "bob").await;
    let mut direct = Client::connect(&format!("{}/ws", nodes.two.ws())).await;
    direct.send(&json!({"type": "authenticate", "token": token("bob")})).await;
    direct.until("authenticated").await;
    let mut alice = Client::native(&nodes.one, "alice").await;
    let mut other_device = Client::native(&nodes.two, "alice").await;
    // The first read finds no conversation; the second parameter with both names is the one that creates it.
    let committed = "SELECT FROM conversations WHERE direct_key IS NOT NULL";
    let frame = first_message("bob");
    let ack = nodes.lose_answer(("alice bob", 2), committed, send_until_acked(&mut alice, &frame)).await;
    assert_eq!(bob.until("message").await["id"], ack["id"]);
    assert_eq!(direct.until("new_message").await["data"]["id"], ack["id"]);
    assert_eq!(other_device.until("message").await["id"], ack["id"]);
    let answer = json!({"type": "send", "recipient_id": "alice", "content": "second", "client_id": "2", "ref": 1});
    let ack = send_until_acked(&mut bob, &answer).await;
    alice.until_where(|frame| frame["type"] == "message" && frame["id"] == ack["id"]).await;
}

#[tokio::test]
async fn who_is_written_to_hears_the_creator_of_an_untold_conversation() {
    let nodes = Nodes::start().await;
    let mut bob = Client::native(&nodes.two, "bob").await;
    let mut alice = Client::native(&nodes.one, "alice").await;
    let committed = "SELECT FROM conversations WHERE direct_key IS NOT NULL";
    let create = async {
        alice.send(&first_message("bob")).await;
        alice.until_where(|frame| frame["ref"] == 1).await
    };
    assert_eq!(nodes.lose_answer(("alice bob", 2), committed, create).await["type"], json!("error"));
    let ack = send_until_acked(&mut bob, &first_message("alice")).await;
    alice.until_where(|frame| frame["type"] == "message" && frame["id"] == ack["id"]).await;
}

/// The change may be stored, so an answer that says the opposite would be wrong.
#[tokio::test]
async fn a_change_whose_outcome_is_unknown_is_answered_so() {
    let nodes = Nodes::start().await;
    let (alice, root) = (token("alice"), token_with("root", json!({"role": "admin"})));
    let restricted = |user: &str| format!("SELECT FROM restriction_changes WHERE user_id = '{user}'");
    let create = json!({"name": "the team of the year", "participant_ids": ["carol"]});
    let created = "SELECT FROM conversations WHERE name = 'the team of the year'".to_owned();
    let (put, post) = (Method::PUT, Method::POST);
    for (method, path, by, body, pattern, committed) in [
        (&put, "/api/admin/users/eve-1/block".to_owned(), &root, None, "eve-1", restricted("eve-1")),
        (&post, "/api/admin/users/eve-2/revoke".to_owned(), &root, None, "eve-2", restricted("eve-2")),
        (&post, "/api/admin/users/eve-3/disconnect".to_owned(), &root, None, "eve-3", restricted("eve-3")),
        (&post, "/api/blocks/eve-4".to_owned(), &alice, None, "eve-4", "SELECT FROM blocks".to_owned()),
        (&post, CONVERSATIONS.to_owned(), &alice, Some(&create), "the team of the year", created),
    ] {
        eventually("the store to be up", async || {
            let health = nodes.one.request(Method::GET, "/api/health", None, None).await;
            (health.json["components"]["store"]["status"] == "up").then_some(())
        })
        .await;
        let call = nodes.one.request(method.clone(), &path, Some(by), body);
        let answer = nodes.lose_answer((pattern, 1), &committed, call).await;
        assert_eq!((answer.status.as_u16(), &answer.json["code"]), (503, &json!("unknown")), "{path}: {answer:?}");
        assert!(answer.headers.contains_key("retry-after"));
    }
    nodes.one.logged(r#""outcome":"unknown""#).await;
}
