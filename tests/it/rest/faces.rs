//! Native frames and REST requests carry the same commands. Both accept the same values, and refuse others with the
//! same code and the same text.

use reqwest::Method;
use serde_json::{Value, json};
use switchboard::http::{Access, endpoints};

use super::node::{CONVERSATIONS, Cluster, User, conversation_of};
use crate::support::{Client, within};

/// Accepted, or refused with this code and this text.
type Outcome = Result<(), (String, String)>;

/// One value of one field, as a native frame and as a REST request.
struct Case {
    frame: Value,
    request: (Method, String, Option<Value>),
    expected: Result<(), (&'static str, String)>,
}

fn case(frame: Value, request: (Method, String, Option<Value>), expected: Result<(), (&'static str, &str)>) -> Case {
    Case { frame, request, expected: expected.map_err(|(code, text)| (code, text.to_owned())) }
}

async fn send_native(client: &mut Client, frame: &Value) -> Outcome {
    let mut frame = frame.clone();
    frame["ref"] = json!("case");
    client.send(&frame).await;
    let answer = within("the answer", async {
        loop {
            let answer = client.recv().await;
            if answer["ref"] == "case" {
                return answer;
            }
        }
    });
    let answer = answer.await;
    if answer["type"] != "error" {
        return Ok(());
    }
    Err((answer["code"].as_str().unwrap().to_owned(), answer["message"].as_str().unwrap().to_owned()))
}

async fn send_rest(user: &User<'_>, (method, path, body): &(Method, String, Option<Value>)) -> Outcome {
    let answer = user.request(method.clone(), path, body.as_ref()).await;
    if answer.status.is_success() {
        return Ok(());
    }
    Err((answer.json["code"].as_str().unwrap().to_owned(), answer.json["detail"].as_str().unwrap().to_owned()))
}

async fn check(cases: Vec<Case>, user: &User<'_>, client: &mut Client) {
    for Case { frame, request, expected } in cases {
        let native = send_native(client, &frame).await;
        let rest = send_rest(user, &request).await;
        let expected = expected.map_err(|(code, text)| (code.to_owned(), text));
        assert_eq!(native, expected, "{frame}");
        // Rename the fields that have another name in frames.
        let renamed = |text: String| match text.split_once(' ') {
            Some(("q", rest)) => format!("words {rest}"),
            Some(("up_to_seq", rest)) => format!("seq {rest}"),
            _ => text,
        };
        assert_eq!(rest.map_err(|(code, text)| (code, renamed(text))), expected, "{request:?}");
    }
}

const LIMIT: Result<(), (&str, &str)> = Err(("invalid", "limit must be a whole number from 1 to 100"));
const OFFSET: Result<(), (&str, &str)> = Err(("invalid", "offset must be a whole number from 0 to 100000"));
const BEFORE: Result<(), (&str, &str)> =
    Err(("invalid", "before_seq must be a whole number from 1 to 9223372036854775807"));
const AROUND: Result<(), (&str, &str)> =
    Err(("invalid", "around_seq must be a whole number from 1 to 9223372036854775807"));
const TWO: Result<(), (&str, &str)> = Err(("invalid", "only one of before_seq, after_seq and around_seq can be given"));
const AROUND_OFFSET: Result<(), (&str, &str)> = Err(("invalid", "around_seq and offset do not go together"));
const NO_MESSAGE: Result<(), (&str, &str)> = Err(("not_found", "Message not found"));

#[tokio::test]
async fn page_bounds_are_the_same_over_native_and_rest() {
    let cluster = Cluster::new().await;
    let node = cluster.node().start().await;
    let alice = User::of(&node, "alice");
    let messages = alice.group(&[]).await;
    let room = conversation_of(&messages);
    let mut client = Client::native(&node, "alice").await;
    let mut cases = Vec::new();
    for (field, number, expected) in [
        ("limit", json!(0), LIMIT),
        ("limit", json!(101), LIMIT),
        ("limit", json!(-1), LIMIT),
        ("limit", json!(1.5), LIMIT),
        ("limit", json!(u64::MAX), LIMIT),
        ("limit", json!(1), Ok(())),
        ("limit", json!(100), Ok(())),
        ("offset", json!(-1), OFFSET),
        ("offset", json!(100_001), OFFSET),
        ("offset", json!(u64::MAX), OFFSET),
        ("offset", json!(100_000), Ok(())),
    ] {
        for (frame, path) in [
            (json!({"type": "history", "conversation_id": room}), format!("{messages}?{field}={number}")),
            (json!({"type": "search", "words": "x"}), format!("/api/chat/search?q=x&{field}={number}")),
            (json!({"type": "conversations"}), format!("{CONVERSATIONS}?{field}={number}")),
        ] {
            let mut frame = frame;
            frame[field] = number.clone();
            cases.push(case(frame, (Method::GET, path, None), expected));
        }
    }
    check(cases, &alice, &mut client).await;
}

#[tokio::test]
async fn seq_bounds_are_the_same_over_native_and_rest() {
    let cluster = Cluster::new().await;
    let node = cluster.node().start().await;
    let alice = User::of(&node, "alice");
    let messages = alice.group(&[]).await;
    let room = conversation_of(&messages);
    alice.send_text(&messages, "hello").await;
    let mut client = Client::native(&node, "alice").await;
    let mut cases = Vec::new();
    let body = |content: &str| Some(json!({ "content": content }));
    for seq in [json!(0), json!(-1), json!(u64::MAX)] {
        let get = |path: String| (Method::GET, path, None);
        let history = |field: &str| json!({"type": "history", "conversation_id": room, field: seq});
        let of = |kind: &str| json!({"type": kind, "conversation_id": room, "seq": seq});
        let with = |kind: &str, field: &str| {
            let mut frame = of(kind);
            frame[field] = json!("x");
            frame
        };
        let message = format!("{messages}/{seq}");
        let read = |field: &str| {
            (Method::POST, "/api/messages/read".to_owned(), Some(json!({"conversation_id": room, field: seq})))
        };
        let mark = |text: &'static str| Err(("invalid", text));
        cases.extend([
            case(history("before_seq"), get(format!("{messages}?before_seq={seq}")), BEFORE),
            case(history("around_seq"), get(format!("{messages}?around_seq={seq}")), AROUND),
            case(history("thread_seq"), get(format!("{message}/replies")), NO_MESSAGE),
            case(with("edit", "content"), (Method::PATCH, message.clone(), body("x")), NO_MESSAGE),
            case(of("delete"), (Method::DELETE, message.clone(), None), NO_MESSAGE),
            case(with("react", "emoji"), (Method::PUT, format!("{message}/reactions/x"), None), NO_MESSAGE),
            case(of("read"), read("up_to_seq"), mark("seq must be a whole number from 1 to 9223372036854775807")),
            case(
                json!({"type": "read", "conversation_id": room, "delivered_seq": seq}),
                read("delivered_seq"),
                mark("delivered_seq must be a whole number from 1 to 9223372036854775807"),
            ),
        ]);
    }
    cases.push(case(
        json!({"type": "history", "conversation_id": room, "before_seq": 1}),
        (Method::GET, format!("{messages}?before_seq=1"), None),
        Ok(()),
    ));
    for (first, second, expected) in [
        ("before_seq", "after_seq", TWO),
        ("after_seq", "around_seq", TWO),
        ("around_seq", "before_seq", TWO),
        ("around_seq", "offset", AROUND_OFFSET),
        ("after_seq", "offset", Ok(())),
        ("around_seq", "limit", Ok(())),
    ] {
        let mut frame = json!({"type": "history", "conversation_id": room});
        (frame[first], frame[second]) = (json!(1), json!(1));
        let path = format!("{messages}?{first}=1&{second}=1");
        cases.push(case(frame, (Method::GET, path, None), expected));
    }
    check(cases, &alice, &mut client).await;

    // REST also accepts a message's id, so its text differs; the code is the same.
    for reply_to in [0, -1] {
        let frame = json!({"type": "send", "conversation_id": room, "content": "x", "reply_to": reply_to});
        let (code, text) = send_native(&mut client, &frame).await.unwrap_err();
        assert_eq!((code.as_str(), text.starts_with("reply_to must be")), ("invalid", true), "{text}");
        let body = json!({"content": "x", "reply_to": reply_to});
        let request = (Method::POST, messages.clone(), Some(body));
        let (code, text) = send_rest(&alice, &request).await.unwrap_err();
        assert_eq!((code.as_str(), text.starts_with("reply_to is neither")), ("invalid", true), "{text}");
    }
    // since_seq is the seq before the first wanted entry, so 0 is valid and -1 is not.
    let join = |since: i64| json!({"type": "join", "conversation_id": room, "since_seq": since});
    assert_eq!(send_native(&mut client, &join(0)).await, Ok(()));
    let (code, text) = send_native(&mut client, &join(-1)).await.unwrap_err();
    assert_eq!((code.as_str(), text.starts_with("since_seq must be")), ("invalid", true), "{text}");
    let sync = json!({"type": "sync", "conversations": {room: -1}});
    assert_eq!(send_native(&mut client, &sync).await.unwrap_err().0, "invalid");
    let url = |since: i64| format!("{}/ws/{room}?token={}&since_seq={since}", node.ws(), alice.token);
    assert_eq!(Client::try_connect(url(-1).as_str()).await.unwrap_err().as_u16(), 400);
    assert!(Client::try_connect(url(0).as_str()).await.is_ok());
}

#[tokio::test]
async fn unknown_fields_and_parameters_are_refused_by_name() {
    let cluster = Cluster::new().await;
    let node = cluster.node().start().await;
    let alice = User::of(&node, "alice");
    let messages = alice.group(&[]).await;
    let room = conversation_of(&messages);
    let mut client = Client::native(&node, "alice").await;
    for frame in [
        json!({"type": "send", "conversation_id": room, "content": "hello", "since": 5}),
        json!({"type": "history", "conversation_id": room, "since": 5}),
        json!({"type": "conversations", "since": 5}),
        json!({"type": "ping", "since": 5}),
    ] {
        let (code, text) = send_native(&mut client, &frame).await.unwrap_err();
        assert_eq!(
            (code.as_str(), text.as_str()),
            ("invalid", "Invalid message format: since: unknown field"),
            "{frame}"
        );
    }
    for endpoint in endpoints().filter(|endpoint| endpoint.access == Access::Token) {
        let path = endpoint.path.replace("{conversation}", room).replace("{message}", "1");
        let path = path.replace("{user}", "alice").replace("{emoji}", "x");
        let refused = alice.request(endpoint.method.clone(), &format!("{path}?since=5"), None).await;
        let expected = (400, &json!("invalid"), &json!("since: unknown parameter"));
        let answer = (refused.status.as_u16(), &refused.json["code"], &refused.json["detail"]);
        assert_eq!(answer, expected, "{} {path}", endpoint.method);
    }
    for (method, path, mut body) in [
        (Method::POST, messages.clone(), json!({"content": "hello"})),
        (Method::PATCH, format!("{messages}/1"), json!({"content": "hello"})),
        (Method::POST, CONVERSATIONS.to_owned(), json!({"name": "team"})),
        (Method::POST, format!("{CONVERSATIONS}/{room}/members"), json!({"user_ids": ["bob"]})),
        (Method::POST, "/api/messages/read".to_owned(), json!({"conversation_id": room, "up_to_seq": 1})),
        (Method::POST, format!("/api/conversations/{room}/typing"), json!({})),
        (Method::POST, "/api/user/status".to_owned(), json!({"status": "away"})),
        (Method::POST, "/api/notifications/read".to_owned(), json!({})),
    ] {
        body["since"] = json!(5);
        let refused = alice.request(method, &path, Some(&body)).await;
        let text = "The body is not what it must be: since: unknown field";
        assert_eq!((refused.status.as_u16(), &refused.json["detail"]), (400, &json!(text)), "{path}");
    }
    // Nothing was stored.
    let (read, made) = (alice.get(&messages).await, alice.get(CONVERSATIONS).await);
    assert_eq!((&read.json["total"], &made.json["total"]), (&json!(0), &json!(1)));
}

#[tokio::test]
async fn text_bounds_are_the_same_over_native_and_rest() {
    let cluster = Cluster::new().await;
    let node = cluster.node().start().await;
    let alice = User::of(&node, "alice");
    let messages = alice.group(&[]).await;
    let room = conversation_of(&messages);
    let sent = alice.send_text(&messages, "hello").await;
    let mut client = Client::native(&node, "alice").await;
    const BLANK: Result<(), (&str, &str)> = Err(("invalid", "words is needed: the words to be found"));
    const UNFIT: Result<(), (&str, &str)> =
        Err(("invalid", "words has at most 200 characters, and no control characters"));
    let mut cases = Vec::new();
    for (words, query, expected) in [
        (String::new(), String::new(), BLANK),
        (" \t".into(), "%20%09".into(), BLANK),
        ("a\0b".into(), "a%00b".into(), UNFIT),
        ("x".repeat(201), "x".repeat(201), UNFIT),
        (format!(" {} ", "x".repeat(200)), format!("%20{}%20", "x".repeat(200)), Ok(())),
        ("\"* &|!".into(), "%22*%20%26%7C!".into(), Ok(())),
    ] {
        let request = (Method::GET, format!("/api/chat/search?q={query}"), None);
        cases.push(case(json!({"type": "search", "words": words}), request, expected));
    }
    for (emoji, segment) in [("a b", "a%20b".to_owned()), ("a\n", "a%0A".into()), (&"x".repeat(65), "x".repeat(65))] {
        let frame = json!({"type": "react", "conversation_id": room, "seq": sent["seq"], "emoji": emoji});
        let request = (Method::PUT, format!("{messages}/{}/reactions/{segment}", sent["seq"]), None);
        let text = "A reaction has 1 to 64 bytes of UTF-8, without blanks or control characters";
        cases.push(case(frame, request, Err(("invalid", text))));
    }
    for (content, expected) in [
        (" ".to_owned(), "Message content cannot be empty"),
        ("x".repeat(5_001), "Message too long: at most 5000 characters"),
    ] {
        let frame = json!({"type": "send", "conversation_id": room, "content": content});
        let request = (Method::POST, messages.clone(), Some(json!({ "content": content })));
        cases.push(case(frame, request, Err(("invalid", expected))));
    }
    check(cases, &alice, &mut client).await;
    let many: Vec<String> = (0..1_001).map(|user| format!("u{user}")).collect();
    let presence = json!({"type": "presence", "user_ids": many});
    let (code, text) = send_native(&mut client, &presence).await.unwrap_err();
    assert_eq!((code.as_str(), text.as_str()), ("invalid", "user_ids has at most 1000 ids"));
    let members = (Method::POST, format!("{CONVERSATIONS}/{room}/members"), Some(json!({ "user_ids": many })));
    assert_eq!(send_rest(&alice, &members).await, Err((code, text)));
}
