//! A node on servers of its own, and users who ask it.

use reqwest::Method;
use serde_json::Value;

use crate::support::{Answer, Node, NodeBuilder, Postgres, RedisServer, token};

/// Where conversations are.
pub const CONVERSATIONS: &str = "/api/chat/conversations";

/// Nodes on one Redis and one database.
pub struct Cluster {
    pub redis: RedisServer,
    pub database: String,
}

impl Cluster {
    /// Servers without a node yet.
    pub async fn new() -> Self {
        Self { redis: RedisServer::start().await, database: Postgres::shared().await.database().await }
    }

    /// A node to be started on them; conversations are closed unless they say otherwise.
    pub fn node(&self) -> NodeBuilder {
        Node::serve(&self.redis.url(), &self.database).set("OPEN_CONVERSATIONS", false)
    }
}

/// A user who asks a node.
pub struct User<'a> {
    pub node: &'a Node,
    pub token: String,
}

impl<'a> User<'a> {
    /// One with a plain token.
    pub fn of(node: &'a Node, name: &str) -> Self {
        Self { node, token: token(name) }
    }

    pub async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Answer {
        self.node.request(method, path, Some(&self.token), body).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path, None).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.ask(Method::POST, path, Some(&body)).await
    }

    pub async fn patch(&self, path: &str, body: Value) -> Answer {
        self.ask(Method::PATCH, path, Some(&body)).await
    }

    pub async fn put(&self, path: &str) -> Answer {
        self.ask(Method::PUT, path, None).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.ask(Method::DELETE, path, None).await
    }

    /// Makes a group with these members and returns the path of its messages.
    pub async fn group(&self, members: &[&str]) -> String {
        let id = self.node.conversation(&self.token, members).await;
        format!("{CONVERSATIONS}/{id}/messages")
    }

    /// Sends a message and returns what the node answered.
    pub async fn send_text(&self, messages: &str, content: &str) -> Value {
        let sent = self.post(messages, serde_json::json!({ "content": content })).await;
        assert_eq!(sent.status, 201, "{}", sent.text);
        sent.json
    }
}

/// The id of the conversation whose messages are under a path.
pub fn conversation_of(messages: &str) -> &str {
    messages.strip_prefix(CONVERSATIONS).unwrap().trim_matches('/').trim_end_matches("/messages")
}

/// Checks that an answer is a problem of this status and code.
#[track_caller]
pub fn assert_problem(answer: &Answer, status: u16, code: &str) {
    assert_eq!((answer.status.as_u16(), answer.json["code"].as_str()), (status, Some(code)), "{}", answer.text);
    assert_eq!(answer.headers["content-type"], "application/problem+json");
    assert_eq!(answer.json["status"].as_u64(), Some(u64::from(status)));
}

/// Checks that an answer says that it was done, and nothing more.
#[track_caller]
pub fn assert_done(answer: &Answer) {
    assert_eq!((answer.status.as_u16(), answer.text.as_str()), (204, ""));
}
