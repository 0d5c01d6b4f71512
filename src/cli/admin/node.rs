//! [`NodeClient`]: the same tasks through the REST of a node, or through its console.

use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{
    shown::clean,
    task::{Answer, PAGE, Task},
};
use crate::{
    cli::outcome::{Failure, with_causes},
    model::{RestrictionRequest, UserId},
};

/// Maximum time for one request.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A node, and a token for it.
pub(super) struct NodeClient {
    http: reqwest::Client,
    base: String,
    /// The prefix of the paths of tasks.
    api: &'static str,
    token: String,
    /// The operator's name, for a console.
    by: Option<String>,
}

impl NodeClient {
    /// A node's REST, with an admin's token.
    pub(super) fn new(url: &str, token: String) -> Result<Self, Failure> {
        if !url.starts_with("http://") && !url.starts_with("https://") {
            return Err(Failure::Runtime(format!("--url must be http://HOST:PORT or https://HOST, not {url:?}")));
        }
        // A redirect could lead the token elsewhere.
        let http = reqwest::Client::builder().timeout(TIMEOUT).redirect(reqwest::redirect::Policy::none());
        let base = url.trim_end_matches('/').to_owned();
        Ok(Self { http: http.build().map_err(Failure::runtime)?, base, api: "/api/admin", token, by: None })
    }

    /// A node's console, with its token.
    pub(super) fn console(http: reqwest::Client, base: String, token: String, by: Option<String>) -> Self {
        Self { http, base, api: CONSOLE_API, token, by }
    }

    /// Performs a task.
    pub(super) async fn answer(&self, task: &Task) -> Result<Answer, Failure> {
        match task {
            Task::Change(user, request) => self.change(user, request).await,
            Task::Show(user) => {
                let json = self.get(&of_user(user, "block")).await?;
                let text = if json["blocked"] == true { line(&json) } else { format!("{user} is not blocked\n") };
                Ok(Answer { text, json })
            }
            Task::List => {
                let mut all = Vec::new();
                loop {
                    let offset = all.len();
                    let page = self.get(&format!("/blocks?limit={PAGE}&offset={offset}")).await?;
                    let blocks = page["blocks"].as_array().cloned().unwrap_or_default();
                    let last = blocks.is_empty();
                    all.extend(blocks);
                    let shown = i64::try_from(all.len()).unwrap_or(i64::MAX);
                    if last || page["total"].as_i64().is_none_or(|total| shown >= total) {
                        let text = all.iter().map(line).collect();
                        return Ok(Answer { text, json: json!({"blocks": all}) });
                    }
                }
            }
        }
    }

    async fn change(&self, user: &UserId, request: &RestrictionRequest) -> Result<Answer, Failure> {
        let (method, action, body) = match request {
            RestrictionRequest::Disconnect => (Method::POST, "disconnect", None),
            RestrictionRequest::RevokeIssued(until) => (Method::POST, "revoke", Some(json!({"issued_until": until}))),
            RestrictionRequest::RevokeToken(token) => (Method::POST, "revoke", Some(json!({"jti": token}))),
            RestrictionRequest::Block => (Method::PUT, "block", None),
            RestrictionRequest::Unblock => (Method::DELETE, "block", None),
        };
        let change = self.send(method, &of_user(user, action), body.as_ref()).await?;
        if change.is_null() {
            return Ok(Answer { text: format!("{user} is not blocked\n"), json: change });
        }
        let what = match (&change["issued_until"], &change["jti"]) {
            (Value::String(until), _) => format!("the tokens issued until {until} are revoked"),
            (_, Value::String(jti)) => format!("the token {jti} is revoked"),
            _ if action == "block" => "blocked".to_owned(),
            _ => "the sockets end".to_owned(),
        };
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (at, by) = (text(&change["at"]), text(&change["by"]));
        let text = format!("{user}: {what} (at {at} by {by}). Nodes apply it within about a second.\n");
        Ok(Answer { text, json: change })
    }

    pub(super) async fn get(&self, path: &str) -> Result<Value, Failure> {
        self.send(Method::GET, path, None).await
    }

    /// Sends a request. The answer without a body is null.
    pub(super) async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Failure> {
        Ok(serde_json::from_str(&self.fetch(method, path, body).await?).unwrap_or_default())
    }

    /// Sends a request. Returns the body of the answer.
    pub(super) async fn fetch(&self, method: Method, path: &str, body: Option<&Value>) -> Result<String, Failure> {
        let (url, is_console) = (&self.base, self.api == CONSOLE_API);
        let request = self.http.request(method, format!("{url}{}{path}", self.api)).bearer_auth(&self.token);
        let request = self.by.iter().fold(request, |request, by| request.header("x-admin-name", by));
        let request = body.iter().fold(request, |request, body| request.json(body));
        let elsewhere = match is_console {
            true => "Name a node's admin address: --console http://HOST:8001",
            false => "Check --url, or leave it out to write to the database (DATABASE_URL)",
        };
        let unreached = |error: reqwest::Error| {
            let why = with_causes(&error.without_url());
            Failure::Runtime(format!("no answer from {url}: {why}. {elsewhere}"))
        };
        let response = request.send().await.map_err(unreached)?;
        let status = response.status();
        let body = response.text().await.map_err(unreached)?;
        if status.is_success() {
            return Ok(body);
        }
        let json: Value = serde_json::from_str(&body).unwrap_or_default();
        let detail = json["detail"].as_str().map_or_else(|| "not an answer of Switchboard".to_owned(), clean);
        let remedy = match status {
            StatusCode::UNAUTHORIZED if is_console => ". Give the token of these nodes: ADMIN_TOKEN",
            _ if is_console && json["detail"].is_null() => ". Name a node's admin address: --console http://HOST:8001",
            _ if is_console => "",
            StatusCode::UNAUTHORIZED => ". Give a valid token of an admin: --token",
            StatusCode::FORBIDDEN => ". The token must be that of an admin (role admin)",
            StatusCode::NOT_FOUND => ". Check --url: it is the nodes' address for clients",
            _ if status.is_server_error() => ". Try again, or leave --url out to write to the database (DATABASE_URL)",
            _ => "",
        };
        Err(Failure::Runtime(format!("{url} answers {status}: {detail}{remedy}")))
    }
}

/// The prefix of the paths of a console.
const CONSOLE_API: &str = "/admin/api";

fn of_user(user: &UserId, action: &str) -> String {
    format!("/users/{}/{action}", utf8_percent_encode(user.as_str(), NON_ALPHANUMERIC))
}

fn line(block: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    format!("{} blocked at {} by {}\n", text(&block["user_id"]), text(&block["at"]), text(&block["by"]))
}
