//! `docs/protocol/openapi.yaml` against the route table, against itself, and against a node's responses.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};
use switchboard::http::{Access, Route, endpoints};

use super::{
    document::{Document, Operation},
    node::Cluster,
};
use crate::support::{Answer, Client, Node, Signal, eventually, token, token_with};

#[test]
fn the_document_has_the_endpoints_of_the_route_table() {
    let document = Document::read();
    // The AsyncAPI document describes sockets, the document of the console its API.
    let is_rest = |route: &Route| matches!(route.access, Access::Open | Access::Token);
    let routes = endpoints().filter(is_rest);
    let routes: BTreeSet<_> = routes.map(|route| (route.method.to_string(), route.path.to_owned())).collect();
    let operations = document.operations();
    let documented = operations.iter().map(|operation| (operation.method.clone(), operation.path.clone()));
    assert_eq!(documented.collect::<BTreeSet<_>>(), routes);
    for route in endpoints().filter(is_rest) {
        let operation = document.operation(route.method.as_str(), route.path).unwrap();
        let open = operation.body.get("security") == Some(&json!([]));
        assert_eq!(
            open,
            route.access == Access::Open,
            "{}: the document and the route table differ on the need for a token",
            operation.name()
        );
    }
}

#[test]
fn the_document_of_the_console_has_its_endpoints() {
    let routes = endpoints().filter(|route| route.access == Access::Console);
    let routes: BTreeSet<_> = routes.map(|route| (route.method.to_string(), route.path.to_owned())).collect();
    let operations = Document::admin().operations();
    let documented = operations.into_iter().map(|operation| (operation.method, operation.path));
    assert_eq!(documented.collect::<BTreeSet<_>>(), routes);
}

#[test]
fn the_documents_are_consistent() {
    for document in [Document::read(), Document::admin()] {
        assert_consistent(&document);
    }
}

fn assert_consistent(document: &Document) {
    let mut faults = Vec::new();
    for (place, schema, example) in document.examples() {
        faults.extend(document.faults(&schema, &example).into_iter().map(|fault| format!("{place}: {fault}")));
    }
    for operation in document.operations() {
        let body = &operation.body["requestBody"]["content"]["application/json"]["schema"];
        let open = if body.is_null() { Vec::new() } else { document.open_objects(body, &operation.name()) };
        faults.extend(open.into_iter().map(|place| format!("the body of {place} lets unknown fields through")));
        for (status, answer) in operation.body["responses"].as_object().unwrap() {
            for (kind, media) in document.resolve(answer)["content"].as_object().into_iter().flatten() {
                // Newer servers may add to the records of a stream, which programs keep.
                if kind == "application/x-ndjson" {
                    continue;
                }
                let place = format!("{} {status}", operation.name());
                let open = document.open_objects(&media["schema"], &place);
                faults.extend(open.into_iter().map(|place| format!("{place} lets unknown fields through")));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_problem_code_is_documented() {
    let page = include_str!("../../../docs/protocol/rest.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
    let explained: BTreeSet<&str> =
        rows.filter(|(_, rest)| rest.starts_with(['4', '5'])).map(|(code, _)| code).collect();
    let document = Document::read();
    let codes = document.resolve(&json!({"$ref": "#/components/schemas/ProblemCode"}))["enum"].clone();
    let documented: BTreeSet<&str> = codes.as_array().unwrap().iter().map(|code| code.as_str().unwrap()).collect();
    assert_eq!(explained, documented);
}

/// A walk through the endpoints that checks each response against the document.
struct Walk {
    document: Document,
    /// Statuses seen, by operation.
    seen: BTreeSet<(String, String)>,
    /// Query parameters used, by operation.
    used: BTreeSet<(String, String)>,
    faults: Vec<String>,
}

impl Walk {
    /// Sends one request and checks the response.
    async fn step(
        &mut self,
        node: &Node,
        token: Option<&str>,
        method: &str,
        path: &str,
        body: Option<Value>,
    ) -> Answer {
        let answer = match path {
            "/metrics" => node.admin_get(path).await,
            _ => node.request(Method::from_bytes(method.as_bytes()).unwrap(), path, token, body.as_ref()).await,
        };
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let Some(operation) = self.document.operation(method, path) else {
            panic!("{method} {path} is not in docs/protocol/openapi.yaml");
        };
        let mut faults = self.answer_faults(&operation, &answer);
        if let (Some(body), true) = (body, answer.status.is_success()) {
            let schema = &operation.body["requestBody"]["content"]["application/json"]["schema"];
            faults.extend(self.document.faults(schema, &body));
        }
        for (name, _) in form_urlencoded::parse(query.as_bytes()) {
            if !parameters(&operation).any(|known| known == name) {
                faults.push(format!("there is no parameter {name}"));
            }
            self.used.insert((operation.name(), name.into_owned()));
        }
        let place = format!("{} → {}", operation.name(), answer.status.as_u16());
        self.faults.extend(faults.into_iter().map(|fault| format!("{place}: {fault}\n    {}", answer.text)));
        self.seen.insert((operation.name(), answer.status.as_str().to_owned()));
        answer
    }

    fn answer_faults(&self, operation: &Operation, answer: &Answer) -> Vec<String> {
        let Some(documented) = operation.body["responses"].get(answer.status.as_str()) else {
            return vec!["undocumented status".into()];
        };
        let documented = self.document.resolve(documented);
        let mut faults = Vec::new();
        for (name, header) in documented["headers"].as_object().into_iter().flatten() {
            let value = answer.headers.get(name).map(|value| json!(value.to_str().unwrap())).unwrap_or_default();
            let wrong = self.document.faults(&header["schema"], &value);
            faults.extend(wrong.into_iter().map(|fault| format!("header {name}: {fault}")));
        }
        let Some(content) = documented["content"].as_object() else {
            faults.extend((!answer.text.is_empty()).then(|| "a body where none is documented".to_owned()));
            return faults;
        };
        let kind = answer.headers["content-type"].to_str().unwrap().split(';').next().unwrap();
        match content.get(kind) {
            None => faults.push(format!("{kind} is not documented")),
            Some(media) if kind.ends_with("json") => {
                faults.extend(self.document.faults(&media["schema"], &answer.json));
            }
            Some(_) => {}
        }
        faults
    }

    /// Returns what the document has and the walk did not see.
    fn missed(&self) -> Vec<String> {
        let mut missed = Vec::new();
        for operation in self.document.operations() {
            let statuses =
                operation.body["responses"].as_object().unwrap().keys().filter(|status| *status != "default");
            let unseen = statuses.filter(|status| !self.seen.contains(&(operation.name(), (*status).clone())));
            missed.extend(unseen.map(|status| format!("{} was never answered with {status}", operation.name())));
            let unused = parameters(&operation).filter(|name| !self.used.contains(&(operation.name(), name.clone())));
            missed.extend(unused.map(|name| format!("{}?{name} was never used", operation.name())));
        }
        missed
    }
}

/// Names of the query parameters.
fn parameters(operation: &Operation) -> impl Iterator<Item = String> {
    let parameters = operation.body["parameters"].as_array().unwrap().iter();
    let of_query = parameters.filter(|parameter| parameter["in"] == "query");
    of_query.map(|parameter| parameter["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>().into_iter()
}

/// One successful request to each endpoint, in an order that works. `{m}` stands for the path of the messages.
fn successful_steps() -> Vec<(&'static str, &'static str, Option<Value>)> {
    let none = None::<Value>;
    vec![
        (
            "POST",
            "/api/chat/conversations",
            Some(json!({"name": "Team", "is_group": true, "participant_ids": ["bob", 7]})),
        ),
        ("GET", "/api/chat/conversations?limit=10&offset=0&archived=false", none.clone()),
        ("GET", "{c}", none.clone()),
        ("POST", "{c}/members", Some(json!({"user_ids": ["carol"]}))),
        ("GET", "{c}/members", none.clone()),
        ("DELETE", "{c}/members/carol", none.clone()),
        ("POST", "{m}", Some(json!({"content": "a message", "client_id": "c-1", "reply_to": null}))),
        ("POST", "{m}", Some(json!({"content": "a message", "client_id": "c-1", "reply_to": null}))),
        ("PATCH", "{m}/{id}", Some(json!({"content": "an edited message", "client_id": 2}))),
        ("PATCH", "{m}/{id}", Some(json!({"data": {"attachments": [{"id": "f-1"}]}}))),
        ("POST", "{m}", Some(json!({"content": "a reply", "reply_to": "{id}"}))),
        ("PUT", "{m}/{id}/reactions/%F0%9F%91%8D", none.clone()),
        ("GET", "{m}/{id}", none.clone()),
        ("GET", "{m}?limit=10&offset=0&before_seq=1000", none.clone()),
        ("GET", "{m}?limit=1&after_seq=0", none.clone()),
        ("GET", "{m}?limit=1&around_seq=1", none.clone()),
        ("GET", "{m}/{id}/replies?limit=10&offset=0&before_seq=1000", none.clone()),
        ("GET", "{m}/{id}/replies?after_seq=0", none.clone()),
        ("GET", "{m}/{id}/replies?around_seq=1", none.clone()),
        ("GET", "/api/chat/search?q=edited&conversation_id={conversation}&limit=10&offset=0", none.clone()),
        ("DELETE", "{m}/{id}/reactions/%F0%9F%91%8D", none.clone()),
        ("POST", "/api/messages/read", Some(json!({"conversation_id": "{conversation}", "message_ids": ["{id}", 1]}))),
        (
            "POST",
            "/api/messages/read",
            Some(json!({"conversation_id": "{conversation}", "up_to_seq": 2, "delivered_seq": 3})),
        ),
        ("DELETE", "{m}/{id}", none.clone()),
        ("GET", "{m}", none.clone()),
        ("POST", "{c}/archive", none.clone()),
        ("GET", "/api/chat/conversations?archived=true", none.clone()),
        ("DELETE", "{c}/archive", none.clone()),
        ("POST", "/api/blocks/eve", none.clone()),
        ("GET", "/api/blocks", none.clone()),
        ("DELETE", "/api/blocks/eve", none.clone()),
        ("POST", "/api/conversations/{conversation}/typing", Some(json!({"is_typing": true}))),
        ("POST", "/api/conversations/{conversation}/typing", none.clone()),
        (
            "POST",
            "/api/conversations/{conversation}/events",
            Some(json!({"name": "recording", "data": {"active": true}})),
        ),
        ("POST", "/api/users/bob/events", Some(json!({"name": "call.offer"}))),
        ("POST", "/api/user/status", Some(json!({"status": "do_not_disturb"}))),
        ("GET", "/api/websocket/users/online?cursor=0&limit=10", none.clone()),
        ("GET", "/api/websocket/users/bob/online", none.clone()),
        ("GET", "/api/websocket/users/nobody/online", none.clone()),
        ("GET", "/api/notifications?limit=10&offset=0", none.clone()),
        ("POST", "/api/notifications/read", Some(json!({"ids": [1]}))),
        ("POST", "/api/notifications/read", Some(json!({}))),
        ("POST", "/api/websocket/token", none.clone()),
        ("GET", "/api/websocket/status", none.clone()),
        ("GET", "/api/connections/info", none.clone()),
        ("GET", "/api/websocket/check", none.clone()),
        ("GET", "/api/health", none.clone()),
        ("GET", "/livez", none.clone()),
        ("GET", "/readyz", none.clone()),
        ("GET", "/metrics", none),
    ]
}

impl Walk {
    /// Sends the successful requests; returns the conversation and a message in it.
    async fn walk_successes(&mut self, node: &Node) -> (String, String) {
        let alice = token("alice");
        let (mut conversation, mut id) = (String::new(), String::new());
        for (method, path, body) in successful_steps() {
            let fill = |text: &str| {
                let of_conversation = format!("/api/chat/conversations/{conversation}");
                let text = text.replace("{c}", &of_conversation).replace("{m}", &format!("{of_conversation}/messages"));
                text.replace("{conversation}", &conversation).replace("{id}", &id)
            };
            let body = body.map(|body| serde_json::from_str(&fill(&body.to_string())).unwrap());
            let answer = self.step(node, Some(&alice), method, &fill(path), body).await;
            if !answer.status.is_success() {
                self.faults.push(format!("{method} {path} failed: {}", answer.text));
            }
            match path {
                "/api/chat/conversations" => conversation = answer.json["id"].as_str().unwrap().to_owned(),
                "{m}" if id.is_empty() => id = answer.json["id"].as_str().unwrap().to_owned(),
                _ => {}
            }
        }
        let bob = token("bob");
        let path = "/api/notifications";
        let noted = async || (node.get(path, &bob).await.json["notifications"] != json!([])).then_some(());
        eventually("a notification for bob, who has no socket", noted).await;
        self.step(node, Some(&bob), "GET", path, None).await;
        let admin = token_with("root", json!({"role": "admin"}));
        self.step(node, Some(&admin), "GET", "/api/connections/stats", None).await;
        for (method, path, body) in [
            ("GET", "/api/admin/users/zed/block", None),
            ("PUT", "/api/admin/users/zed/block", None),
            ("GET", "/api/admin/users/zed/block", None),
            ("GET", "/api/admin/blocks?limit=10&offset=0", None),
            ("DELETE", "/api/admin/users/zed/block", None),
            ("POST", "/api/admin/users/zed/disconnect", None),
            ("POST", "/api/admin/users/zed/revoke", None),
            ("POST", "/api/admin/users/zed/revoke", Some(json!({"issued_until": "2020-01-01T00:00:00Z"}))),
            ("POST", "/api/admin/users/zed/revoke", Some(json!({"jti": "t-1"}))),
        ] {
            let answer = self.step(node, Some(&admin), method, path, body).await;
            assert!(answer.status.is_success(), "{method} {path}: {}", answer.text);
        }
        (conversation, id)
    }

    /// Provokes each documented refusal of every operation: no token, a bad request, a stranger, a missing resource.
    async fn walk_refusals(&mut self, node: &Node, conversation: &str, id: &str) {
        let (alice, mallory) = (token("alice"), token("mallory"));
        let admin = token_with("root", json!({"role": "admin"}));
        for operation in self.document.operations() {
            let documents = |status: &str| operation.body["responses"].get(status).is_some();
            let (method, example) = (&*operation.method, example_body(&operation, conversation));
            let path = |room: &str, user: &str, emoji: &str| {
                let filled = operation.path.replace("{conversation}", room).replace("{user}", user);
                filled.replace("{message}", id).replace("{emoji}", emoji)
            };
            let here = path(conversation, "bob", "x");
            if documents("401") {
                self.step(node, None, method, &here, example.clone()).await;
            }
            if documents("400") {
                let (query, bad) = if example.is_some() { ("", Some(json!([]))) } else { ("?limit=0", None) };
                let query = if operation.path.contains("{emoji}") { "" } else { query };
                let query = format!("{}{query}", path(conversation, "bob", "%20"));
                self.step(node, Some(&alice), method, &query, bad).await;
            }
            if documents("403") {
                let here =
                    if here.ends_with("/search") { format!("{here}?q=a&conversation_id={conversation}") } else { here };
                self.step(node, Some(&mallory), method, &here, example).await;
            }
            if documents("404") {
                let nowhere = path("nowhere", "a%20b", "x");
                let query = if nowhere.ends_with("/search") { "?q=a&conversation_id=nowhere" } else { "" };
                let body = example_body(&operation, "nowhere");
                // For others than admins a missing conversation is like one that they are no member of.
                self.step(node, Some(&admin), method, &format!("{nowhere}{query}"), body).await;
            }
        }
        for method in ["POST", "DELETE"] {
            self.step(node, Some(&alice), method, "/api/blocks/alice", None).await;
        }
        // The ids of the edit and of the message.
        let messages = format!("/api/chat/conversations/{conversation}/messages");
        let reused = |id: &str| Some(json!({"content": "another command", "client_id": id}));
        self.step(node, Some(&alice), "POST", &messages, reused("2")).await;
        self.step(node, Some(&alice), "PATCH", &format!("{messages}/{id}"), reused("c-1")).await;
        self.step(node, Some(&alice), "POST", "/api/blocks/mallory", None).await;
        let with_alice = json!({"participant_ids": ["alice"]});
        self.step(node, Some(&mallory), "POST", "/api/chat/conversations", Some(with_alice)).await;
        let taken = json!({"id": conversation});
        self.step(node, Some(&alice), "POST", "/api/chat/conversations", Some(taken)).await;
    }
}

/// The document's example of a request, for this conversation.
fn example_body(operation: &Operation, conversation: &str) -> Option<Value> {
    let mut body = operation.body["requestBody"]["content"]["application/json"].get("example")?.clone();
    if body.get("conversation_id").is_some() {
        body["conversation_id"] = json!(conversation);
        body["message_ids"] = json!([1]);
    }
    Some(body)
}

#[tokio::test]
async fn every_response_matches_the_document() {
    let cluster = Cluster::new().await;
    let node = cluster.node().start().await;
    let mut walk =
        Walk { document: Document::read(), seen: BTreeSet::new(), used: BTreeSet::new(), faults: Vec::new() };
    let _alice = Client::native(&node, "alice").await;
    let (conversation, id) = walk.walk_successes(&node).await;
    walk.walk_refusals(&node, &conversation, &id).await;

    let strict = cluster.node().set("MESSAGE_RATE_LIMIT", 1).set("SHUTDOWN_DELAY", "60s").start().await;
    let messages = format!("/api/chat/conversations/{conversation}/messages");
    for _ in 0..2 {
        walk.step(&strict, Some(&token("bob")), "POST", &messages, Some(json!({"content": "quick"}))).await;
    }
    strict.signal(Signal::Terminate);
    let unready = || async { (strict.request(Method::GET, "/readyz", None, None).await.status == 503).then_some(()) };
    eventually("the node goes away", unready).await;
    for path in ["/readyz", "/api/health"] {
        walk.step(&strict, None, "GET", path, None).await;
    }
    let faults = [walk.faults.clone(), walk.missed()].concat();
    assert!(faults.is_empty(), "responses that differ from docs/protocol/openapi.yaml:\n{}", faults.join("\n"));
}
