//! Requests over REST, with their outcomes.

use std::{net::SocketAddr, time::Duration};

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    history::{About, Kind, Name, Recorder, Session, What},
    operations::{Conversation, Operation, To},
    support::token,
};

/// Maximum time for an answer.
const ANSWERING: Duration = Duration::from_secs(5);
/// Maximum number of items in a list.
const PAGE: usize = 100;

/// Outcome of a request.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// It was executed; `again`: an earlier try had been.
    Done { body: Value, again: bool },
    /// It was refused and changed nothing.
    Refused { code: String, retryable: bool },
    /// It may have been executed.
    Unknown,
}

/// A client of the nodes' REST API.
#[derive(Debug, Clone)]
pub struct Rest {
    http: reqwest::Client,
    addresses: Vec<SocketAddr>,
}

impl Rest {
    /// Makes a client of the nodes at these addresses.
    pub fn new(addresses: Vec<SocketAddr>) -> Self {
        Self { http: reqwest::Client::new(), addresses }
    }

    /// Number of nodes.
    pub fn nodes(&self) -> usize {
        self.addresses.len()
    }

    /// Sends a request of `user` to a node.
    pub async fn call(&self, node: usize, user: &str, method: Method, path: &str, body: Option<Value>) -> Outcome {
        let url = format!("http://{}{path}", self.addresses[node]);
        let mut request = self.http.request(method, url).bearer_auth(token(user)).timeout(ANSWERING);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let Ok(answer) = request.send().await else { return Outcome::Unknown };
        let status = answer.status();
        let Ok(text) = answer.text().await else { return Outcome::Unknown };
        let body: Value = serde_json::from_str(&text).unwrap_or_default();
        match (status.as_u16(), body["code"].as_str().unwrap_or_default()) {
            (status @ 200..300, _) => Outcome::Done { body, again: status == 200 },
            (_, "unknown" | "timeout" | "internal") => Outcome::Unknown,
            (status, code) => Outcome::Refused { code: code.into(), retryable: status == 503 || status == 429 },
        }
    }

    /// Conversations of a user; none if the node can't read them now.
    pub async fn conversations(&self, node: usize, user: &str) -> Option<Vec<Conversation>> {
        let mut all = Vec::new();
        loop {
            let path = format!("/api/chat/conversations?limit={PAGE}&offset={}", all.len());
            let Outcome::Done { body, .. } = self.call(node, user, Method::GET, &path, None).await else { return None };
            let page = body["conversations"].as_array()?;
            all.extend(page.iter().map(|one| {
                let others = one["users"].as_array().into_iter().flatten().filter_map(|other| other["id"].as_str());
                let other = others.filter(|other| *other != user && one["is_group"] == false).map(Name::from).next();
                Conversation { id: one["id"].as_str().unwrap_or_default().into(), other }
            }));
            if page.len() < PAGE {
                return Some(all);
            }
        }
    }

    /// One try of an operation. The answer to a message or edit holds its seq, and `conversation_id`.
    pub async fn operation(&self, node: usize, user: &str, operation: &Operation) -> Outcome {
        let Operation { id, to, kind, about, text, .. } = operation;
        let conversation = match to {
            To::Conversation(conversation) => conversation.to_string(),
            To::User(other) => {
                let body = json!({ "participant_ids": [other], "is_group": false });
                match self.call(node, user, Method::POST, "/api/chat/conversations", Some(body)).await {
                    Outcome::Done { body, .. } => body["id"].as_str().unwrap_or_default().to_owned(),
                    // Nothing was sent yet.
                    Outcome::Unknown => return Outcome::Refused { code: "unavailable".into(), retryable: true },
                    refused @ Outcome::Refused { .. } => return refused,
                }
            }
        };
        let path = format!("/api/chat/conversations/{conversation}");
        let (method, path, body) = match (kind, about) {
            (Kind::Message, _) => {
                (Method::POST, format!("{path}/messages"), Some(json!({ "content": text, "client_id": id })))
            }
            (Kind::Edited, About::Message(seq)) => {
                (Method::PATCH, format!("{path}/messages/{seq}"), Some(json!({ "content": text, "client_id": id })))
            }
            (Kind::Deleted, About::Message(seq)) => (Method::DELETE, format!("{path}/messages/{seq}"), None),
            (Kind::MemberAdded, About::User(member)) => {
                (Method::POST, format!("{path}/members"), Some(json!({ "user_ids": [member] })))
            }
            (Kind::MemberRemoved, About::User(member)) => (Method::DELETE, format!("{path}/members/{member}"), None),
            (Kind::Reaction, About::Message(seq)) => {
                let method = if text == "on" { Method::PUT } else { Method::DELETE };
                (method, format!("{path}/messages/{seq}/reactions/%F0%9F%91%8D"), None)
            }
            other => panic!("no request for {other:?}"),
        };
        self.call(node, user, method, &path, body).await
    }

    /// Reads the newest messages of a conversation and records what a user sees.
    pub async fn read(&self, recorder: &Recorder, session: Session, node: usize, user: &Name, conversation: &Name) {
        let asked = recorder.now();
        let path = format!("/api/chat/conversations/{conversation}/messages?limit={PAGE}");
        let (allowed, shown) = match self.call(node, user, Method::GET, &path, None).await {
            Outcome::Done { body, .. } => {
                let messages = body["messages"].as_array().into_iter().flatten();
                let with_text = messages.filter(|one| one["content"].as_str().is_some_and(|text| !text.is_empty()));
                (true, with_text.filter_map(|one| one["seq"].as_i64()).collect())
            }
            Outcome::Refused { retryable: false, .. } => (false, Vec::new()),
            Outcome::Refused { .. } | Outcome::Unknown => return,
        };
        let (user, conversation) = (user.clone(), conversation.clone());
        recorder.record(Some(session), What::Read { user, conversation, node, asked, allowed, shown });
    }
}
