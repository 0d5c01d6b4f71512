//! Rights: every endpoint and every command, tried by every kind of user, against tables of the expected results.
//!
//! A route or a command without a row fails, and so does a row without a route or a command.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};
use switchboard::{
    http::{Access, endpoints},
    model::Command,
};

use crate::support::{Client, Node, Postgres, RedisServer, token, token_with};

const GET: Method = Method::GET;
const POST: Method = Method::POST;
const PUT: Method = Method::PUT;
const PATCH: Method = Method::PATCH;
const DELETE: Method = Method::DELETE;

/// Kinds of users: without a token; with an expired token; with a valid token but no member; a member; the creator of
/// the conversation, who wrote the message and is a member; an admin who is no member.
const USERS: [&str; 6] = ["nobody", "expired", "stranger", "member", "author", "admin"];

/// Statuses where no token is needed, where any token suffices, and where only members may.
const OPEN: [u16; 6] = [200; 6];
const ANYONE: [u16; 6] = [401, 401, 200, 200, 200, 200];
/// The member can't block themselves.
const BLOCKERS: [u16; 6] = [401, 401, 204, 409, 204, 204];
const ADMINS: [u16; 6] = [401, 401, 403, 403, 403, 200];
const MEMBERS: [u16; 6] = [401, 401, 403, 200, 200, 200];

/// Every endpoint except the sockets: method, path, body, and the status for each of [`USERS`]. Each request gets a new
/// conversation with one message; `{user}` is the member.
const ENDPOINTS: &[(Method, &str, &str, [u16; 6])] = &[
    (GET, "/api/websocket/check", "", OPEN),
    (GET, "/api/health", "", OPEN),
    (GET, "/livez", "", OPEN),
    (GET, "/readyz", "", OPEN),
    (GET, "/metrics", "", OPEN),
    (POST, "/api/websocket/token", "", ANYONE),
    (GET, "/api/websocket/status", "", ANYONE),
    (GET, "/api/websocket/users/online", "", ANYONE),
    (GET, "/api/websocket/users/{user}/online", "", ANYONE),
    (POST, "/api/user/status", r#"{"status": "away"}"#, ANYONE),
    (GET, "/api/connections/info", "", ANYONE),
    (GET, "/api/connections/stats", "", ADMINS),
    (POST, "/api/admin/users/{user}/disconnect", "", ADMINS),
    (POST, "/api/admin/users/{user}/revoke", r#"{"jti": "none"}"#, ADMINS),
    (GET, "/api/admin/users/{user}/block", "", ADMINS),
    // Only the admin's try blocks the member, after the others'; the next row ends it.
    (PUT, "/api/admin/users/{user}/block", "", ADMINS),
    (DELETE, "/api/admin/users/{user}/block", "", [401, 401, 403, 403, 403, 204]),
    (GET, "/api/admin/blocks", "", ADMINS),
    (GET, "/api/blocks", "", ANYONE),
    (POST, "/api/blocks/{user}", "", BLOCKERS),
    (DELETE, "/api/blocks/{user}", "", BLOCKERS),
    (GET, "/api/notifications", "", ANYONE),
    (POST, "/api/notifications/read", "{}", [401, 401, 204, 204, 204, 204]),
    (GET, "/api/chat/search?q=hello", "", ANYONE),
    (GET, "/api/chat/search?q=hello&conversation_id={conversation}", "", MEMBERS),
    (GET, "/api/chat/conversations", "", ANYONE),
    (POST, "/api/chat/conversations", "{}", [401, 401, 201, 201, 201, 201]),
    (GET, "/api/chat/conversations/{conversation}", "", MEMBERS),
    (GET, "/api/chat/conversations/{conversation}/members", "", MEMBERS),
    (POST, "/api/chat/conversations/{conversation}/members", r#"{"user_ids": ["carol"]}"#, MEMBERS),
    (DELETE, "/api/chat/conversations/{conversation}/members/{user}", "", [401, 401, 403, 204, 204, 204]),
    (DELETE, "/api/chat/conversations/{conversation}/members/author", "", [401, 401, 403, 403, 204, 204]),
    (GET, "/api/chat/conversations/{conversation}/messages", "", MEMBERS),
    (GET, "/api/chat/conversations/{conversation}/messages/{message}", "", MEMBERS),
    (GET, "/api/chat/conversations/{conversation}/messages/{message}/replies", "", MEMBERS),
    (POST, "/api/conversations/{conversation}/typing", "{}", [401, 401, 403, 200, 200, 200]),
    (POST, "/api/conversations/{conversation}/events", EVENT_BODY, [401, 401, 403, 204, 204, 403]),
    // Member and author share conversations; the member may reach themselves.
    (POST, "/api/users/{user}/events", EVENT_BODY, [401, 401, 403, 204, 204, 403]),
    // An admin may read, but has neither marks nor an archive in a conversation without membership, and can't send
    // there.
    (POST, "/api/messages/read", READ_BODY, [401, 401, 403, 200, 200, 403]),
    (POST, "/api/chat/conversations/{conversation}/archive", "", [401, 401, 403, 204, 204, 403]),
    (DELETE, "/api/chat/conversations/{conversation}/archive", "", [401, 401, 403, 204, 204, 403]),
    (POST, "/api/chat/conversations/{conversation}/messages", MESSAGE_BODY, [401, 401, 403, 201, 201, 403]),
    (PATCH, "/api/chat/conversations/{conversation}/messages/{message}", MESSAGE_BODY, [401, 401, 403, 403, 200, 403]),
    (DELETE, "/api/chat/conversations/{conversation}/messages/{message}", "", [401, 401, 403, 403, 204, 204]),
    (PUT, REACTION, "", [401, 401, 403, 204, 204, 403]),
    (DELETE, REACTION, "", [401, 401, 403, 204, 204, 403]),
];
const REACTION: &str = "/api/chat/conversations/{conversation}/messages/{message}/reactions/{emoji}";
const MESSAGE_BODY: &str = r#"{"content": "hello"}"#;
const EVENT_BODY: &str = r#"{"name": "x"}"#;
const READ_BODY: &str = r#"{"conversation_id": "{conversation}", "up_to_seq": 1}"#;

/// Ways to a command: its endpoints, and its native frame with the reply types or error codes for a stranger, a member,
/// the author and an admin.
type Ways = (&'static [(Method, &'static str)], Option<(&'static str, [&'static str; 4])>);

const NOT_MEMBER: &str = "not_member";

/// Every command, by its label.
const COMMANDS: &[(&str, Ways)] = &[
    (
        "join",
        (
            &[],
            Some((r#"{"type":"join","conversation_id":"{conversation}"}"#, [NOT_MEMBER, "joined", "joined", "joined"])),
        ),
    ),
    ("leave", (&[], Some((r#"{"type":"leave","conversation_id":"{conversation}"}"#, ["left"; 4])))),
    (
        "sync",
        (
            &[],
            Some((
                r#"{"type":"sync","conversations":{"{conversation}":0}}"#,
                [NOT_MEMBER, "synced", "synced", "synced"],
            )),
        ),
    ),
    (
        "send",
        (
            &[(POST, MESSAGES)],
            Some((
                r#"{"type":"send","conversation_id":"{conversation}","content":"x"}"#,
                [NOT_MEMBER, "ack", "ack", NOT_MEMBER],
            )),
        ),
    ),
    (
        "edit",
        (
            &[(PATCH, MESSAGE)],
            Some((
                r#"{"type":"edit","conversation_id":"{conversation}","seq":1,"content":"x"}"#,
                [NOT_MEMBER, "forbidden", "ack", NOT_MEMBER],
            )),
        ),
    ),
    (
        "delete",
        (
            &[(DELETE, MESSAGE)],
            Some((
                r#"{"type":"delete","conversation_id":"{conversation}","seq":1}"#,
                [NOT_MEMBER, "forbidden", "ack", "ack"],
            )),
        ),
    ),
    (
        "react",
        (
            &[(PUT, REACTION), (DELETE, REACTION)],
            Some((
                r#"{"type":"react","conversation_id":"{conversation}","seq":1,"emoji":"x"}"#,
                [NOT_MEMBER, "ack", "ack", NOT_MEMBER],
            )),
        ),
    ),
    (
        "typing",
        (
            &[(POST, "/api/conversations/{conversation}/typing")],
            Some((r#"{"type":"typing","conversation_id":"{conversation}"}"#, [NOT_MEMBER, "ok", "ok", "ok"])),
        ),
    ),
    (
        "event",
        (
            &[(POST, "/api/conversations/{conversation}/events"), (POST, "/api/users/{user}/events")],
            Some((
                r#"{"type":"event","conversation_id":"{conversation}","name":"x"}"#,
                [NOT_MEMBER, "ok", "ok", NOT_MEMBER],
            )),
        ),
    ),
    (
        "read",
        (
            &[(POST, "/api/messages/read")],
            Some((r#"{"type":"read","conversation_id":"{conversation}","seq":1}"#, [NOT_MEMBER, "ok", "ok", "ok"])),
        ),
    ),
    (
        "presence",
        (
            &[(GET, "/api/websocket/users/{user}/online")],
            Some((r#"{"type":"presence","user_ids":["member"]}"#, ["presence_list"; 4])),
        ),
    ),
    ("set_status", (&[(POST, "/api/user/status")], Some((r#"{"type":"status","status":"away"}"#, ["ok"; 4])))),
    (
        "history",
        (
            &[(GET, MESSAGES), (GET, REPLIES)],
            Some((
                r#"{"type":"history","conversation_id":"{conversation}"}"#,
                [NOT_MEMBER, "history", "history", "history"],
            )),
        ),
    ),
    ("ping", (&[], Some((r#"{"type":"ping"}"#, ["pong"; 4])))),
    ("show", (&[(GET, MESSAGE)], None)),
    ("search", (&[(GET, "/api/chat/search")], None)),
    ("create", (&[(POST, CONVERSATIONS)], None)),
    ("conversations", (&[(GET, CONVERSATIONS)], None)),
    (
        "describe",
        (
            &[(GET, "/api/chat/conversations/{conversation}"), (GET, ALL_MEMBERS)],
            Some((
                r#"{"type":"members","conversation_id":"{conversation}"}"#,
                [NOT_MEMBER, "members", "members", "members"],
            )),
        ),
    ),
    ("archive", (&[(POST, ARCHIVE), (DELETE, ARCHIVE)], None)),
    ("add_members", (&[(POST, ALL_MEMBERS)], None)),
    ("remove_member", (&[(DELETE, "/api/chat/conversations/{conversation}/members/{user}")], None)),
    ("block", (&[(POST, "/api/blocks/{user}"), (DELETE, "/api/blocks/{user}")], None)),
    ("blocks", (&[(GET, "/api/blocks")], None)),
    ("notifications", (&[(GET, "/api/notifications")], None)),
    ("read_notifications", (&[(POST, "/api/notifications/read")], None)),
    ("online", (&[(GET, "/api/websocket/users/online"), (GET, "/api/websocket/status")], None)),
    ("connections", (&[(GET, "/api/connections/info")], None)),
    ("stats", (&[(GET, "/api/connections/stats")], None)),
    // Only the admin console, whose token makes an admin of everyone, has these.
    ("connections_of", (&[], None)),
    ("conversations_of", (&[], None)),
    ("entries", (&[], None)),
    ("export", (&[], None)),
    ("erase", (&[], None)),
    ("show_erasure", (&[], None)),
    ("retention", (&[], None)),
    ("set_retention", (&[], None)),
    ("disconnect_user", (&[(POST, "/api/admin/users/{user}/disconnect")], None)),
    ("revoke_tokens", (&[(POST, "/api/admin/users/{user}/revoke")], None)),
    ("block_user", (&[(PUT, "/api/admin/users/{user}/block")], None)),
    ("unblock_user", (&[(DELETE, "/api/admin/users/{user}/block")], None)),
    ("show_block", (&[(GET, "/api/admin/users/{user}/block")], None)),
    ("blocked_users", (&[(GET, "/api/admin/blocks")], None)),
];
const CONVERSATIONS: &str = "/api/chat/conversations";
const ARCHIVE: &str = "/api/chat/conversations/{conversation}/archive";
const ALL_MEMBERS: &str = "/api/chat/conversations/{conversation}/members";
const MESSAGES: &str = "/api/chat/conversations/{conversation}/messages";
const MESSAGE: &str = "/api/chat/conversations/{conversation}/messages/{message}";
const REPLIES: &str = "/api/chat/conversations/{conversation}/messages/{message}/replies";

#[test]
fn every_endpoint_and_every_command_has_its_row() {
    let routes: BTreeSet<(String, &str)> = endpoints()
        .filter(|route| matches!(route.access, Access::Open | Access::Token))
        .map(|route| (route.method.to_string(), route.path))
        .collect();
    let plain = |path: &'static str| path.split_once('?').map_or(path, |(path, _)| path);
    let rows = ENDPOINTS.iter().map(|(method, path, ..)| (method.to_string(), plain(path)));
    // A row may name another user than the member.
    let rows: BTreeSet<_> = rows.filter(|(_, path)| !path.ends_with("/members/author")).collect();
    assert_eq!(rows, routes, "the table of endpoints");

    let labels: BTreeSet<&str> = Command::LABELS.iter().copied().collect();
    assert_eq!(COMMANDS.iter().map(|(label, _)| *label).collect::<BTreeSet<_>>(), labels, "the table of commands");
    let reached = COMMANDS.iter().flat_map(|(_, (endpoints, _))| *endpoints);
    let reached: BTreeSet<_> = reached.map(|(method, path)| (method.to_string(), *path)).collect();
    let with_token = endpoints().filter(|route| route.access == Access::Token);
    let with_token = with_token.map(|route| (route.method.to_string(), route.path));
    // Minting a token is the only operation without a command.
    let expected: BTreeSet<_> = with_token.filter(|(_, path)| *path != "/api/websocket/token").collect();
    assert_eq!(reached, expected, "endpoints of commands");
}

/// A node with closed conversations, and its servers.
struct Stage {
    node: Node,
    _redis: RedisServer,
}

impl Stage {
    async fn new() -> Self {
        let redis = RedisServer::start().await;
        let database = Postgres::shared().await.database().await;
        let node = Node::serve(&redis.url(), &database).set("OPEN_CONVERSATIONS", false).set("AUTH_TIMEOUT", "1s");
        Self { node: node.start().await, _redis: redis }
    }

    /// Makes a conversation of author and member with one message of the author.
    async fn conversation(&self) -> String {
        let author = token("author");
        let id = self.node.conversation(&author, &["member"]).await;
        let sent = self.node.post(&format!("{CONVERSATIONS}/{id}/messages"), &author, &json!({"content": "hi"})).await;
        assert_eq!(sent.json["seq"], 1, "{}", sent.text);
        id
    }
}

fn is_for_admins(path: &str) -> bool {
    path == "/api/connections/stats" || path.starts_with("/api/admin/")
}

fn token_of(who: &str) -> Option<String> {
    match who {
        "nobody" => None,
        "expired" => Some(token_with("author", json!({"exp": 1_000_000_000}))),
        "admin" => Some(token_with("admin", json!({"role": "admin"}))),
        user => Some(token(user)),
    }
}

#[tokio::test]
async fn every_endpoint_answers_each_kind_of_user_as_the_table_says() {
    let stage = Stage::new().await;
    let mut faults = String::new();
    for (method, path, body, expected) in ENDPOINTS {
        for (who, expected) in USERS.into_iter().zip(*expected) {
            let conversation = if path.contains("{conversation}") || body.contains("{conversation}") {
                stage.conversation().await
            } else {
                String::new()
            };
            let fill = |text: &str| text.replace("{conversation}", &conversation).replace("{user}", "member");
            let path = fill(path).replace("{message}", "1").replace("{emoji}", "x");
            let body = Some(fill(body)).filter(|body| !body.is_empty());
            let body: Option<Value> = body.map(|body| serde_json::from_str(&body).unwrap());
            let token = token_of(who);
            let answer = match &*path {
                "/metrics" => stage.node.admin_get(&path).await,
                _ => stage.node.request(method.clone(), &path, token.as_deref(), body.as_ref()).await,
            };
            let code = answer.json["code"].as_str().unwrap_or_default();
            let refusal = match (expected, who) {
                (401, "nobody") => "invalid_token",
                (401, _) => "token_expired",
                // The row before left the member blocked by the admin.
                (403, "member") if code == "blocked" => "blocked",
                (403, "stranger") if path.starts_with("/api/users/") => "forbidden",
                (403, "stranger") if !is_for_admins(&path) => "not_member",
                _ => code,
            };
            if answer.status != expected || code != refusal {
                faults += &format!("  {method} {path} by {who}: {} {code}, not {expected} {refusal}\n", answer.status);
            }
        }
    }
    assert!(faults.is_empty(), "responses that differ from the table:\n{faults}");
}

/// Result of a native frame: the type of its reply, or the code of its error.
async fn outcome(client: &mut Client, frame: &str, mark: &str) -> String {
    let mut frame: Value = serde_json::from_str(frame).unwrap();
    frame["ref"] = json!(mark);
    client.send(&frame).await;
    let reply = client.until_where(|reply| reply["ref"] == mark).await;
    let code = reply["code"].as_str().or(reply["conversations"][0]["error"]["code"].as_str());
    code.or(reply["type"].as_str()).unwrap().to_owned()
}

#[tokio::test]
async fn every_native_command_answers_each_kind_of_user_as_the_table_says() {
    let stage = Stage::new().await;
    let mut clients = Vec::new();
    for who in &USERS[2..] {
        let mut client = Client::connect(&format!("{}/v1/ws?token={}", stage.node.ws(), token_of(who).unwrap())).await;
        client.expect("authenticated").await;
        clients.push((*who, client));
    }
    let mut faults = String::new();
    let frames = COMMANDS.iter().filter_map(|(label, (_, native))| Some((label, (*native)?)));
    for (label, (frame, expected)) in frames {
        for ((who, client), expected) in clients.iter_mut().zip(expected) {
            let conversation = stage.conversation().await;
            let found = outcome(client, &frame.replace("{conversation}", &conversation), label).await;
            if found != expected {
                faults += &format!("  {label} by {who}: {found}, not {expected}\n");
            }
        }
    }
    assert!(faults.is_empty(), "replies that differ from the table:\n{faults}");
}

#[tokio::test]
async fn a_missing_conversation_is_answered_like_one_of_others() {
    let stage = Stage::new().await;
    let (node, stranger) = (&stage.node, token("stranger"));
    let (theirs, missing) = (stage.conversation().await, "01890a5d-0000-7000-8000-000000000000");
    let mut faults = String::new();
    for (method, path, body, _) in ENDPOINTS {
        if !path.contains("{conversation}") && !body.contains("{conversation}") {
            continue;
        }
        let mut answers = Vec::new();
        for conversation in [&*theirs, missing] {
            let fill = |text: &str| text.replace("{conversation}", conversation).replace("{user}", "member");
            let path = fill(path).replace("{message}", "1").replace("{emoji}", "x");
            let body: Option<Value> = serde_json::from_str(&fill(body)).ok();
            let answer = node.request(method.clone(), &path, Some(&stranger), body.as_ref()).await;
            answers.push((answer.status, answer.json));
        }
        if answers[0] != answers[1] {
            faults += &format!("  {method} {path}: {:?}\n    {:?}\n", answers[0], answers[1]);
        }
    }
    let mut native = Client::native(node, "stranger").await;
    for (label, (_, frame)) in COMMANDS {
        let Some((frame, _)) = frame.filter(|(frame, _)| frame.contains("{conversation}")) else { continue };
        let mut answers = Vec::new();
        for conversation in [&*theirs, missing] {
            let mut frame: Value = serde_json::from_str(&frame.replace("{conversation}", conversation)).unwrap();
            frame["ref"] = json!(label);
            native.send(&frame).await;
            let reply = native.until_where(|reply| reply["ref"] == *label).await;
            answers.push(reply.to_string().replace(conversation, "{conversation}"));
        }
        if answers[0] != answers[1] {
            faults += &format!("  native {label}: {}\n    {}\n", answers[0], answers[1]);
        }
    }
    for path in ["/ws/{conversation}", "/api/chat/ws/{conversation}"] {
        let mut closes = Vec::new();
        for conversation in [&*theirs, missing] {
            let url = format!("{}{}?token={stranger}", node.ws(), path.replace("{conversation}", conversation));
            closes.push(Client::connect(&url).await.expect_close().await);
        }
        if closes[0] != closes[1] {
            faults += &format!("  {path}: {:?}\n    {:?}\n", closes[0], closes[1]);
        }
    }
    let mut personas = Client::connect(&format!("{}/ws/auth?token={stranger}", node.ws())).await;
    for frame in [
        r#"{"type":"join_conversation","conversation_id":"{conversation}"}"#,
        r#"{"type":"send_message","conversation_id":"{conversation}","content":"x"}"#,
        r#"{"type":"typing_start","conversation_id":"{conversation}"}"#,
    ] {
        let mut answers = Vec::new();
        for conversation in [&*theirs, missing] {
            personas
                .send(&serde_json::from_str::<Value>(&frame.replace("{conversation}", conversation)).unwrap())
                .await;
            let mut reply = personas.until("error").await;
            reply["timestamp"] = Value::Null;
            answers.push(reply.to_string().replace(conversation, "{conversation}"));
        }
        if answers[0] != answers[1] {
            faults += &format!("  personas {frame}: {}\n    {}\n", answers[0], answers[1]);
        }
    }
    assert!(faults.is_empty(), "answers by which a stranger can tell that a conversation exists:\n{faults}");
}

#[tokio::test]
async fn every_socket_route_refuses_bad_tokens_and_strangers() {
    let stage = Stage::new().await;
    let node = &stage.node;
    for route in endpoints().filter(|route| route.access == Access::Socket) {
        let conversation = stage.conversation().await;
        let parts = route.path.split('/').map(|part| if part.starts_with('{') { &*conversation } else { part });
        let url = format!("{}{}", node.ws(), parts.collect::<Vec<_>>().join("/"));
        let with = |who: &str| token_of(who).map_or_else(|| url.clone(), |token| format!("{url}?token={token}"));
        for who in ["nobody", "expired"] {
            let (code, reason) = Client::connect(&with(who)).await.expect_close().await;
            assert!(matches!(code, 4401 | 1008), "{} by {who}: {code} {reason}", route.path);
        }
        if route.path.contains('{') {
            let (code, reason) = Client::connect(&with("stranger")).await.expect_close().await;
            assert!(matches!(code, 4403 | 1008), "{} by a stranger: {code} {reason}", route.path);
            for who in ["member", "author"] {
                let first = Client::connect(&with(who)).await.recv_or_close().await;
                assert!(first.is_ok(), "{} by {who}: {first:?}", route.path);
            }
        }
    }
}
