//! Nodes on their own servers, and users that send requests.

use reqwest::Method;
use serde_json::Value;

use crate::support::{Answer, Node, NodeBuilder, Postgres, RedisServer, token};

/// Path of conversations.
pub const CONVERSATIONS: &str = "/api/chat/conversations";

/// Servers that nodes share.
pub struct Cluster {
    pub redis: RedisServer,
    pub database: String,
}

impl Cluster {
    /// Starts the servers, without a node.
    pub async fn new() -> Self {
        Self { redis: RedisServer::start().await, database: Postgres::shared().await.database().await }
    }

    /// Builds a node on them; conversations are closed unless a request says otherwise.
    pub fn node(&self) -> NodeBuilder {
        Node::serve(&self.redis.url(), &self.database).set("OPEN_CONVERSATIONS", false)
    }
}

/// A user of a node.
pub struct User<'a> {
    pub node: &'a Node,
    pub token: String,
}

impl<'a> User<'a> {
    /// A user with an ordinary token.
    pub fn of(node: &'a Node, name: &str) -> Self {
        Self { node, token: token(name) }
    }

    pub async fn request(&self, method: Method, path: &str, body: Option<&Value>) -> Answer {
        self.node.request(method, path, Some(&self.token), body).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.request(Method::GET, path, None).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.request(Method::POST, path, Some(&body)).await
    }

    pub async fn patch(&self, path: &str, body: Value) -> Answer {
        self.request(Method::PATCH, path, Some(&body)).await
    }

    pub async fn put(&self, path: &str) -> Answer {
        self.request(Method::PUT, path, None).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.request(Method::DELETE, path, None).await
    }

    /// Makes a group with these members and returns the path of its messages.
    pub async fn group(&self, members: &[&str]) -> String {
        let id = self.node.conversation(&self.token, members).await;
        format!("{CONVERSATIONS}/{id}/messages")
    }

    /// Sends a message and returns the response.
    pub async fn send_text(&self, messages: &str, content: &str) -> Value {
        let sent = self.post(messages, serde_json::json!({ "content": content })).await;
        assert_eq!(sent.status, 201, "{}", sent.text);
        sent.json
    }
}

/// Id of the conversation in a path of messages.
pub fn conversation_of(messages: &str) -> &str {
    messages.strip_prefix(CONVERSATIONS).unwrap().trim_matches('/').trim_end_matches("/messages")
}

/// Checks that a response is a problem of this status and code.
#[track_caller]
pub fn assert_problem(answer: &Answer, status: u16, code: &str) {
    assert_eq!((answer.status.as_u16(), answer.json["code"].as_str()), (status, Some(code)), "{}", answer.text);
    assert_eq!(answer.headers["content-type"], "application/problem+json");
    assert_eq!(answer.json["status"].as_u64(), Some(u64::from(status)));
}

/// Checks that a response confirms the request and contains nothing else.
#[track_caller]
pub fn assert_done(answer: &Answer) {
    assert_eq!((answer.status.as_u16(), answer.text.as_str()), (204, ""));
}
