//! Personas answer over a webhook, or fail to: the message is kept, the sender is told, and no other client waits.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::Semaphore,
};

use crate::support::{Client, HookResponse, Node, NodeBuilder, Postgres, Receiver, RedisServer, token};

mod asked;

/// The operators' page; a test runs its code.
const PAGE: &str = include_str!("../../docs/protocol/webhooks.md");
const WEBHOOK_SECRET: &str = "planted-webhook-secret";

/// A node without Redis whose persona webhook is `receiver`.
fn node(receiver: &Receiver) -> NodeBuilder {
    with_personas(Node::dev(), receiver)
}

/// The node with the personas `ada` and `bea`.
fn with_personas(node: NodeBuilder, receiver: &Receiver) -> NodeBuilder {
    let node = node.set("PERSONA_WEBHOOK_URL", receiver.url()).set("PERSONA_WEBHOOK_SECRET", WEBHOOK_SECRET);
    node.set("PERSONA_IDS", "ada,bea")
}

/// Sends a message to the persona `ada` and returns the ack.
async fn send_to_persona(client: &mut Client, conversation: &str, content: &str) -> Value {
    client.send(&message_to_persona(conversation, content)).await;
    let ack = client.until("ack").await;
    assert_eq!(ack["ref"], content);
    ack
}

fn message_to_persona(conversation: &str, content: &str) -> Value {
    // Id by which the tests recognize the message.
    let id = content.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
    json!({"type": "send", "conversation_id": conversation, "content": content, "persona_id": "ada",
        "client_id": id, "ref": content})
}

async fn answer(client: &mut Client) -> Value {
    client.until_where(|frame| frame["type"] == "message" && frame["sender_id"] == "ada").await
}

/// Skips frames up to the error for a message without an answer, and returns that message's `client_id`.
async fn next_failure(client: &mut Client) -> Value {
    let error = client.until("error").await;
    assert_eq!(error["code"], "persona_failed", "{error}");
    error["client_id"].clone()
}

/// Sends a message to a persona that will not answer. The ack and the error may come in either order. Returns the
/// error's `client_id`.
async fn send_to_failing_persona(client: &mut Client, conversation: &str, content: &str) -> Value {
    client.send(&message_to_persona(conversation, content)).await;
    let (mut acked, mut regretted) = (false, None);
    while !acked || regretted.is_none() {
        let frame = client.until_where(|frame| frame["type"] == "ack" || frame["type"] == "error").await;
        if frame["type"] == "ack" {
            acked = true;
        } else {
            assert_eq!(frame["code"], "persona_failed", "{frame}");
            regretted = Some(frame["client_id"].clone());
        }
    }
    regretted.unwrap()
}

async fn total(node: &Node, conversation: &str) -> Value {
    let path = format!("/api/chat/conversations/{conversation}/messages");
    node.get(&path, &token("alice")).await.json["total"].clone()
}

#[tokio::test]
async fn a_persona_answers_on_every_node() {
    let redis = RedisServer::start().await;
    let database = Postgres::shared().await.database().await;
    let receiver = Receiver::start(|_, posted| async move {
        HookResponse::content(&format!("you said: {}", posted.json["message"].as_str().unwrap()))
    })
    .await;
    let serve = || with_personas(Node::serve(&redis.url(), &database).set("MESSAGE_RATE_LIMIT", 2), &receiver);
    let (one, two) = (serve().start().await, serve().start().await);
    let mut alice = Client::native(&one, "alice").await;
    let mut bob = Client::native(&two, "bob").await;
    alice.join("team").await;
    bob.join("team").await;
    for turn in 0..2 {
        // Answers are not rate limited and count for no user.
        let ack = send_to_persona(&mut alice, "team", &format!("hello {turn}")).await;
        for client in [&mut alice, &mut bob] {
            let typing = client.until("typing").await;
            assert_eq!((&typing["user_id"], &typing["active"]), (&json!("ada"), &json!(true)));
            let mut stopped = false;
            let got = loop {
                let frame = client.recv().await;
                stopped |= frame["type"] == "typing" && frame["active"] == false;
                if frame["type"] == "message" && frame["sender_id"] == "ada" {
                    break frame;
                }
            };
            assert!(stopped, "its typing ended with the answer");
            assert_eq!(got["content"], format!("you said: hello {turn}"));
            assert_eq!((&got["is_ai"], &got["reply_to"]), (&json!(true), &ack["seq"]));
            assert_eq!(got["seq"].as_i64(), ack["seq"].as_i64().map(|seq| seq + 1));
        }
    }
    let posted = receiver.request(1).await;
    assert_eq!(posted.line, "POST /hook");
    posted.assert_signed_with(WEBHOOK_SECRET);
    assert_eq!(posted.header("content-length"), posted.body.len().to_string());
    assert_eq!(posted.header("transfer-encoding"), "");
    assert_eq!(posted.header("content-type"), "application/json");
    assert_eq!(posted.header("user-agent"), concat!("switchboard/", env!("CARGO_PKG_VERSION")));
}

#[tokio::test]
async fn a_persona_gets_the_newest_twenty_messages_before() {
    let receiver = Receiver::start(async |_, _| HookResponse::content("noted")).await;
    let node = node(&receiver).start().await;
    let mut alice = Client::native(&node, "alice").await;
    alice.join("team").await;
    let mut acks = Vec::new();
    for at in 0..25 {
        acks.push(alice.send_text("team", &format!("message {at}")).await);
    }
    let deleted = json!({"type": "delete", "conversation_id": "team", "seq": acks[20]["seq"], "ref": "d"});
    alice.send(&deleted).await;
    alice.until_where(|frame| frame["ref"] == "d").await;
    let ack = send_to_persona(&mut alice, "team", "well?").await;
    let asked = receiver.request(0).await.json.clone();
    assert_eq!((&asked["persona_id"], &asked["conversation_id"]), (&json!("ada"), &json!("team")));
    assert_eq!((&asked["message"], &asked["message_id"]), (&json!("well?"), &ack["id"]));
    assert_eq!((&asked["seq"], &asked["created_at"]), (&ack["seq"], &ack["created_at"]));
    assert_eq!((&asked["sender_id"], &asked["sender_name"]), (&json!("alice"), &json!("Alice")));
    let history = asked["history"].as_array().unwrap();
    let said: Vec<&str> = history.iter().map(|one| one["content"].as_str().unwrap()).collect();
    let expected: Vec<String> = (5..25).filter(|at| *at != 20).map(|at| format!("message {at}")).collect();
    assert_eq!(said, expected, "oldest first, without deleted messages");
    assert_eq!((&history[0]["id"], &history[0]["seq"]), (&acks[5]["id"], &acks[5]["seq"]));
    assert_eq!((&history[0]["sender_id"], &history[0]["is_ai"]), (&json!("alice"), &json!(false)));

    answer(&mut alice).await;
    send_to_persona(&mut alice, "team", "and now?").await;
    let asked = receiver.request(1).await.json.clone();
    let last = asked["history"].as_array().unwrap().last().unwrap().clone();
    assert_eq!((&last["sender_id"], &last["content"], &last["is_ai"]), (&json!("ada"), &json!("noted"), &json!(true)));
}

#[tokio::test]
async fn temporary_errors_are_retried_and_others_are_not() {
    // Response to each message, by try.
    let receiver = Receiver::start(async |_, posted: Arc<crate::support::ReceivedRequest>| {
        static TRIES: AtomicUsize = AtomicUsize::new(0);
        let tries = |n: usize| TRIES.fetch_add(1, Ordering::Relaxed) % n;
        match posted.json["message"].as_str().unwrap() {
            "busy" if tries(2) == 0 => HookResponse::status(429).with("retry-after", "1"),
            "busy" => HookResponse::content("here I am"),
            "broken" => HookResponse::status(500),
            "unknown" => HookResponse::status(404),
            "elsewhere" => HookResponse::status(307).with("location", "/other"),
            "much later" => HookResponse::status(503).with("retry-after", "3600"),
            other => panic!("{other}"),
        }
    })
    .await;
    let node = node(&receiver).set("WEBHOOK_RETRIES", 2).start().await;
    let mut alice = Client::native(&node, "alice").await;
    alice.join("team").await;
    send_to_persona(&mut alice, "team", "busy").await;
    assert_eq!(answer(&mut alice).await["content"], "here I am");
    let (first, second) = (receiver.request(0).await, receiver.request(1).await);
    assert!(second.at - first.at >= Duration::from_secs(1), "the node waited as long as Retry-After says");
    assert_eq!(first.body, second.body);
    second.assert_signed_with(WEBHOOK_SECRET);

    for (content, tries) in [("broken", 3), ("unknown", 1), ("elsewhere", 1), ("much later", 1)] {
        let before = receiver.count();
        assert_eq!(send_to_failing_persona(&mut alice, "team", content).await, content.replace(' ', "-"));
        assert_eq!(receiver.count() - before, tries, "{content}");
    }
    assert_eq!(total(&node, "team").await, 6, "the messages are kept");
    let metrics = node.metrics().await;
    for (result, count) in [("ok", 1.0), ("unavailable", 5.0), ("refused", 2.0)] {
        let series = format!("switchboard_webhook_requests_total{{hook=\"persona\",result=\"{result}\"}}");
        assert_eq!(metrics.get(&series), Some(count), "{result}");
    }
    assert_eq!(metrics.get("switchboard_persona_messages_total{result=\"answered\"}"), Some(1.0));
    assert_eq!(metrics.get("switchboard_persona_messages_total{result=\"webhook_failed\"}"), Some(4.0));
}

/// Answers each request of `listener` with the bytes that `answers` has for its message, then closes. For a message that
/// it doesn't know it answers like a persona.
async fn answer_with_bytes(listener: TcpListener, answers: &'static [(&'static str, &'static str)]) {
    loop {
        let (mut socket, _) = listener.accept().await.unwrap();
        tokio::spawn(async move {
            let mut request = Vec::new();
            // The body is the last part of a request, and ends with the brace of its JSON.
            while !request.ends_with(b"}") {
                if socket.read_buf(&mut request).await.unwrap_or(0) == 0 {
                    return;
                }
            }
            let request = String::from_utf8_lossy(&request).into_owned();
            let known = answers.iter().find(|(message, _)| request.contains(&format!("\"message\":\"{message}\"")));
            let answer =
                known.map_or("HTTP/1.1 200 OK\r\nContent-Length: 18\r\n\r\n{\"content\": \"yes\"}", |known| known.1);
            let _gone = socket.write_all(answer.as_bytes()).await;
            if answer.ends_with("drip") {
                while socket.write_all(b" ").await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
            if answer.ends_with("flood") {
                while socket.write_all(&[b'x'; 65_536]).await.is_ok() {}
            }
            if answer.ends_with("hints\r\n\r\n") {
                while socket.write_all(answer.as_bytes()).await.is_ok() {}
            }
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_answer_of_a_webhook_ends_the_task_that_asked() {
    const HOSTILE: &[(&str, &str)] = &[
        ("pause", "HTTP/1.1 503 x\r\nRetry-After: 18446744073709551615\r\nContent-Length: 0\r\n\r\n"),
        ("longer pause", "HTTP/1.1 429 x\r\nRetry-After: 99999999999999999999\r\nContent-Length: 0\r\n\r\n"),
        ("date", "HTTP/1.1 503 x\r\nRetry-After: Fri, 31 Dec 9999 23:59:59 GMT\r\nContent-Length: 0\r\n\r\n"),
        ("past", "HTTP/1.1 503 x\r\nRetry-After: Mon, 01 Jan 0001 00:00:00 GMT\r\nContent-Length: 0\r\n\r\n"),
        ("status", "HTTP/1.1 999 x\r\nContent-Length: 0\r\n\r\n"),
        ("low status", "HTTP/1.1 099 x\r\nContent-Length: 0\r\n\r\n"),
        ("switch", "HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n"),
        ("hints", "HTTP/1.1 103 hints\r\n\r\n"),
        ("length", "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551615\r\n\r\n{}"),
        ("no length", "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n{}"),
        ("chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n"),
        ("drip", "HTTP/1.1 200 OK\r\n\r\ndrip"),
        ("flood", "HTTP/1.1 200 OK\r\n\r\nflood"),
    ];
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let answering = tokio::spawn(answer_with_bytes(listener, HOSTILE));
    let node = Node::dev().set("PERSONA_WEBHOOK_URL", url).set("PERSONA_TIMEOUT", "2s").set("WEBHOOK_RETRIES", 1);
    let node = node.set("PERSONA_CONCURRENCY", 1).set("PERSONA_IDS", "ada,bea").start().await;
    let mut alice = Client::native(&node, "alice").await;
    alice.join("team").await;
    for (message, _) in HOSTILE {
        assert_eq!(send_to_failing_persona(&mut alice, "team", message).await, message.replace(' ', "-"));
    }
    send_to_persona(&mut alice, "team", "hello").await;
    assert_eq!(answer(&mut alice).await["content"], "yes", "the next one is asked");
    answering.abort();
}

#[tokio::test]
async fn an_answer_that_is_no_valid_message_counts_as_a_failure() {
    let receiver = Receiver::start(async |_, posted: Arc<crate::support::ReceivedRequest>| {
        match posted.json["message"].as_str().unwrap() {
            "nonsense" => HookResponse::body("<html>"),
            "other json" => HookResponse::body(r#"{"text": "hello"}"#),
            "blank" => HookResponse::content("  \n"),
            "too long" => HookResponse::content(&"x".repeat(5_001)),
            "far too long" => HookResponse::content(&"x".repeat(1 << 20)),
            "control" => HookResponse::content("a\u{0}b"),
            // The longest answer, each character in its longest escape; the node must read all of it.
            "long" => HookResponse::body(format!(r#"{{"content": "{}"}}"#, r"\ud83d\ude00".repeat(5_000))),
            other => panic!("{other}"),
        }
    })
    .await;
    let node = node(&receiver).start().await;
    let mut alice = Client::native(&node, "alice").await;
    alice.join("team").await;
    for content in ["nonsense", "other json", "blank", "too long", "far too long", "control"] {
        assert_eq!(send_to_failing_persona(&mut alice, "team", content).await, content.replace(' ', "-"));
    }
    send_to_persona(&mut alice, "team", "long").await;
    assert_eq!(answer(&mut alice).await["content"], "😀".repeat(5_000));
    assert_eq!(receiver.count(), 7, "none was retried");
}

#[tokio::test]
async fn a_persona_that_hangs_delays_no_other_client_and_is_given_up() {
    let receiver = Receiver::start(async |_, posted: Arc<crate::support::ReceivedRequest>| {
        if posted.json["message"] == "hang" {
            std::future::pending::<()>().await;
        }
        HookResponse::content("quick")
    })
    .await;
    let node = node(&receiver).set("PERSONA_TIMEOUT", "1s").set("PERSONA_CONCURRENCY", 1).start().await;
    let mut alice = Client::native(&node, "alice").await;
    let mut bob = Client::native(&node, "bob").await;
    alice.join("team").await;
    bob.join("other").await;
    send_to_persona(&mut alice, "team", "hang").await;
    receiver.request(0).await;
    // While the persona hangs, other users' sends are acked; a further message to it waits for the only slot.
    alice.send_text("team", "meanwhile").await;
    send_to_persona(&mut bob, "other", "quick?").await;
    assert_eq!(receiver.count(), 1);
    assert_eq!(next_failure(&mut alice).await, "hang");
    assert_eq!(answer(&mut bob).await["content"], "quick");
    let timeouts = "switchboard_webhook_requests_total{hook=\"persona\",result=\"timeout\"}";
    assert_eq!(node.metrics().await.get(timeouts), Some(1.0));
}

#[tokio::test]
async fn requests_at_a_time_and_in_the_queue_are_bounded_and_the_rest_is_refused() {
    const AT_A_TIME: usize = 2;
    let (places, running, most) =
        (Arc::new(Semaphore::new(0)), Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
    let (held, now, peak) = (places.clone(), running.clone(), most.clone());
    let receiver = Receiver::start(move |_, _| {
        let (held, now, peak) = (held.clone(), now.clone(), peak.clone());
        async move {
            peak.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            held.acquire().await.unwrap().forget();
            now.fetch_sub(1, Ordering::SeqCst);
            HookResponse::content("done")
        }
    })
    .await;
    let node = node(&receiver).set("PERSONA_CONCURRENCY", AT_A_TIME).set("PERSONA_QUEUE", 3).start().await;
    let mut alice = Client::native(&node, "alice").await;
    alice.join("team").await;
    for at in 0..AT_A_TIME {
        send_to_persona(&mut alice, "team", &format!("running-{at}")).await;
        receiver.request(at).await;
    }
    for at in 0..3 {
        send_to_persona(&mut alice, "team", &format!("waiting-{at}")).await;
    }
    node.metric("switchboard_webhook_queue{hook=\"persona\"}", |queued| queued == 3.0).await;
    alice.send(&message_to_persona("team", "too-much")).await;
    // The ack and the error for too many requests may come in either order.
    let mut seen = BTreeSet::new();
    while seen.len() < 2 {
        let frame = alice.until_where(|frame| frame["client_id"] == "too-much").await;
        assert!(frame["type"] == "ack" || frame["code"] == "persona_failed", "{frame}");
        seen.insert(frame["type"].as_str().unwrap().to_owned());
    }
    places.add_permits(5);
    for _ in 0..5 {
        answer(&mut alice).await;
    }
    assert_eq!((receiver.count(), most.load(Ordering::SeqCst)), (5, AT_A_TIME));
    let metrics = node.metrics().await;
    assert_eq!(metrics.get("switchboard_webhook_dropped_total{hook=\"persona\"}"), Some(1.0));
    assert_eq!(metrics.get("switchboard_webhook_queue{hook=\"persona\"}"), Some(0.0));
}

#[tokio::test]
async fn without_a_webhook_messages_to_personas_are_refused() {
    let node = Node::dev().set("PERSONA_IDS", "ada").start().await;
    let mut alice = Client::native(&node, "alice").await;
    alice.join("team").await;
    alice.send(&message_to_persona("team", "anyone?")).await;
    let error = alice.until("error").await;
    assert_eq!((&error["code"], &error["ref"]), (&json!("unsupported"), &json!("anyone?")));
    assert!(error["message"].as_str().unwrap().contains("PERSONA_WEBHOOK_URL"), "the remedy is named: {error}");
    assert_eq!(total(&node, "team").await, 0, "nothing was stored");
}

#[tokio::test]
async fn under_dev_the_persona_echo_answers_without_a_setting() {
    let node = Node::dev().start().await;
    let mut alice = Client::native(&node, "alice").await;
    alice.join("team").await;
    let question =
        json!({"type": "send", "conversation_id": "team", "content": "hello", "persona_id": "echo", "client_id": "q"});
    alice.send(&question).await;
    let answer = alice.until("message").await;
    assert_eq!((&answer["sender_id"], &answer["content"]), (&json!("echo"), &json!("Alice said: hello")));
    assert_eq!((&answer["is_ai"], &answer["reply_to"]), (&json!(true), &json!(seq_of(&answer) - 1)));
    // No user speaks under its name.
    let mut echo = Client::connect(&format!("{}/v1/ws?token={}", node.ws(), token("echo"))).await;
    assert_eq!(echo.expect_close().await.0, 4401);
}

/// The seq of an entry.
fn seq_of(entry: &Value) -> i64 {
    entry["seq"].as_i64().unwrap()
}

#[tokio::test]
async fn a_repeated_message_has_one_answer() {
    let places = Arc::new(Semaphore::new(0));
    let held = places.clone();
    let receiver = Receiver::start(move |before, _| {
        let held = held.clone();
        async move {
            held.acquire().await.unwrap().forget();
            HookResponse::content(&format!("answer {before}"))
        }
    })
    .await;
    let node = node(&receiver).start().await;
    let mut alice = Client::native(&node, "alice").await;
    alice.join("team").await;
    let first = send_to_persona(&mut alice, "team", "once").await;
    receiver.request(0).await;
    // Repeated while the first request is under way: both are answered, one answer counts.
    let second = send_to_persona(&mut alice, "team", "once").await;
    assert_eq!((&second["seq"], &second["duplicate"]), (&first["seq"], &json!(true)));
    receiver.request(1).await;
    places.add_permits(2);
    let answered = answer(&mut alice).await;
    node.metric("switchboard_persona_messages_total{result=\"answered\"}", |count| count == 2.0).await;
    // Repeated once there is an answer: the webhook gets no further request.
    send_to_persona(&mut alice, "team", "once").await;
    node.metric("switchboard_persona_messages_total{result=\"answered\"}", |count| count == 3.0).await;
    assert_eq!((total(&node, "team").await, receiver.count()), (json!(2), 2));
    let next = alice.send_text("team", "next").await;
    assert_eq!(next["seq"].as_i64(), answered["seq"].as_i64().map(|seq| seq + 1));
}

#[tokio::test]
async fn a_persona_answers_although_the_sender_has_disconnected() {
    let receiver = Receiver::start(async |_, _| HookResponse::content("for whoever reads it")).await;
    let node = node(&receiver).start().await;
    let mut bob = Client::native(&node, "bob").await;
    bob.join("team").await;
    let mut alice = Client::native(&node, "alice").await;
    alice.send(&json!({"type": "join", "conversation_id": "team", "ref": "j"})).await;
    alice.until("joined").await;
    alice.send(&message_to_persona("team", "bye")).await;
    alice.close().await;
    assert_eq!(answer(&mut bob).await["content"], "for whoever reads it");
}

#[tokio::test]
async fn the_webhooks_url_and_secret_never_reach_a_log() {
    let receiver = Receiver::start(async |_, _| HookResponse::status(403)).await;
    let url = receiver.url().replace("http://", "http://planted-user:planted-password@") + "?key=planted-key";
    let node = node(&receiver).set("PERSONA_WEBHOOK_URL", url).set("LOG", "trace").start().await;
    let mut alice = Client::native(&node, "alice").await;
    alice.join("team").await;
    send_to_failing_persona(&mut alice, "team", "hush").await;
    let posted = receiver.request(0).await;
    assert_eq!(posted.line, "POST /hook?key=planted-key");
    assert!(posted.header("authorization").starts_with("Basic "));
    node.logged("a persona did not answer").await;
    alice.close().await;
    assert_eq!(node.terminate().await, 0);
    node.assert_never_logged(&["planted-", WEBHOOK_SECRET]);
}

#[tokio::test]
async fn the_documented_code_verifies_the_signature() {
    let receiver = Receiver::start(async |_, _| HookResponse::content("yes")).await;
    let node = node(&receiver).start().await;
    let mut alice = Client::native(&node, "alice").await;
    alice.join("team").await;
    send_to_persona(&mut alice, "team", "ça va 😀").await;
    let posted = receiver.request(0).await;
    let (signature, body) = (posted.header("x-switchboard-signature"), std::str::from_utf8(&posted.body).unwrap());
    let old = crate::support::sign(WEBHOOK_SECRET, "1700000000", &posted.body);
    let python = "import sys; print(is_genuine(sys.argv[1].encode(), sys.argv[2], sys.argv[3].encode()))";
    let javascript = "console.log(isGenuine(...process.argv.slice(1)))";
    for (program, flag, fence, call) in [("python3", "-c", "python", python), ("node", "-e", "javascript", javascript)]
    {
        let code = PAGE.split(&format!("```{fence}\n")).nth(1).unwrap().split("```").next().unwrap();
        let says = async |secret: &str, signature: &str, body: &str| {
            let mut command = tokio::process::Command::new(program);
            command.args([flag, &format!("{code}\n{call}"), secret, signature, body]);
            let output = command.kill_on_drop(true).output().await.unwrap();
            assert!(output.status.success(), "{output:?}");
            String::from_utf8(output.stdout).unwrap().trim().to_lowercase()
        };
        assert_eq!(says(WEBHOOK_SECRET, signature, body).await, "true", "{program}");
        assert_eq!(says("another", signature, body).await, "false", "{program}");
        assert_eq!(says(WEBHOOK_SECRET, signature, &body.replace("ada", "eve")).await, "false", "{program}");
        assert_eq!(says(WEBHOOK_SECRET, &old, body).await, "false", "{program}");
    }
}
