//! [`NodeClient`]: the same tasks through the REST of a node.

use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};

use super::task::{PAGE, Task};
use crate::{
    cli::outcome::{Failure, with_causes},
    model::{RestrictionRequest, UserId},
};

/// Maximum time for one request.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A node, and an admin's token for it.
pub(super) struct NodeClient {
    http: reqwest::Client,
    base: String,
    token: String,
}

impl NodeClient {
    pub(super) fn new(url: &str, token: String) -> Result<Self, Failure> {
        if !url.starts_with("http://") && !url.starts_with("https://") {
            return Err(Failure::Runtime(format!("--url must be http://HOST:PORT or https://HOST, not {url:?}")));
        }
        // A redirect could lead the token elsewhere.
        let http = reqwest::Client::builder().timeout(TIMEOUT).redirect(reqwest::redirect::Policy::none());
        let base = url.trim_end_matches('/').to_owned();
        Ok(Self { http: http.build().map_err(Failure::runtime)?, base, token })
    }

    /// Performs a task and returns the text to print.
    pub(super) async fn run(&self, task: &Task) -> Result<String, Failure> {
        match task {
            Task::Change(user, request) => self.change(user, request).await,
            Task::Show(user) => {
                let state = self.send(self.request(Method::GET, &of_user(user, "block"))).await?;
                Ok(match state["blocked"] == true {
                    true => line(&state),
                    false => format!("{user} is not blocked\n"),
                })
            }
            Task::List => {
                let (mut text, mut offset) = (String::new(), 0);
                loop {
                    let path = format!("/api/admin/blocks?limit={PAGE}&offset={offset}");
                    let page = self.send(self.request(Method::GET, &path)).await?;
                    let blocks = page["blocks"].as_array().cloned().unwrap_or_default();
                    blocks.iter().for_each(|block| text.push_str(&line(block)));
                    offset += PAGE;
                    if blocks.is_empty() || page["total"].as_i64().is_none_or(|total| offset >= total) {
                        return Ok(text);
                    }
                }
            }
        }
    }

    async fn change(&self, user: &UserId, request: &RestrictionRequest) -> Result<String, Failure> {
        let (method, action, body) = match request {
            RestrictionRequest::Disconnect => (Method::POST, "disconnect", None),
            RestrictionRequest::RevokeIssued(until) => (Method::POST, "revoke", Some(json!({"issued_until": until}))),
            RestrictionRequest::RevokeToken(token) => (Method::POST, "revoke", Some(json!({"jti": token}))),
            RestrictionRequest::Block => (Method::PUT, "block", None),
            RestrictionRequest::Unblock => (Method::DELETE, "block", None),
        };
        let asked = self.request(method, &of_user(user, action));
        let change = self.send(body.iter().fold(asked, |asked, body| asked.json(body))).await?;
        if change.is_null() {
            return Ok(format!("{user} is not blocked\n"));
        }
        let what = match (&change["issued_until"], &change["jti"]) {
            (Value::String(until), _) => format!("the tokens issued until {until} are revoked"),
            (_, Value::String(jti)) => format!("the token {jti} is revoked"),
            _ if action == "block" => "blocked".to_owned(),
            _ => "the sockets end".to_owned(),
        };
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (at, by) = (text(&change["at"]), text(&change["by"]));
        Ok(format!("{user}: {what} (at {at} by {by}). Nodes apply it within about a second.\n"))
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base)).bearer_auth(&self.token)
    }

    /// Sends a request. The answer without a body is null.
    async fn send(&self, request: RequestBuilder) -> Result<Value, Failure> {
        let url = &self.base;
        let unreached = |error: reqwest::Error| {
            let why = with_causes(&error.without_url());
            Failure::Runtime(format!(
                "no answer from {url}: {why}. Check --url, or leave it out to write to the database (DATABASE_URL)"
            ))
        };
        let response = request.send().await.map_err(unreached)?;
        let status = response.status();
        let body = response.text().await.map_err(unreached)?;
        let json: Value = serde_json::from_str(&body).unwrap_or_default();
        if status.is_success() {
            return Ok(json);
        }
        let detail = json["detail"].as_str().unwrap_or("not an answer of Switchboard");
        let remedy = match status {
            StatusCode::UNAUTHORIZED => ". Give a valid token of an admin: --token",
            StatusCode::FORBIDDEN => ". The token must be that of an admin (role admin)",
            StatusCode::NOT_FOUND => ". Check --url: it is the nodes' address for clients",
            _ if status.is_server_error() => ". Try again, or leave --url out to write to the database (DATABASE_URL)",
            _ => "",
        };
        Err(Failure::Runtime(format!("{url} answers {status}: {detail}{remedy}")))
    }
}

fn of_user(user: &UserId, action: &str) -> String {
    format!("/api/admin/users/{}/{action}", utf8_percent_encode(user.as_str(), NON_ALPHANUMERIC))
}

fn line(block: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    format!("{} blocked at {} by {}\n", text(&block["user_id"]), text(&block["at"]), text(&block["by"]))
}
