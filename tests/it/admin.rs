//! The admin console: its API against its document, on several nodes and while servers are away; its command line and its
//! page.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use switchboard::http::{Access, endpoints};

use crate::{
    rest::document::Document,
    support::{
        ADMIN_TOKEN, Answer, Client, HookResponse, Link, Node, Postgres, Proxy, Receiver, RedisServer, eventually,
        token, token_with, within,
    },
};

mod attacks;
mod browser;
mod cli;
mod outages;
mod page;

const GET: Method = Method::GET;
const POST: Method = Method::POST;
const PUT: Method = Method::PUT;
const DELETE: Method = Method::DELETE;

/// Two nodes with consoles, and their servers.
struct Stage {
    one: Node,
    two: Node,
    _redis: RedisServer,
}

impl Stage {
    async fn new() -> Self {
        let redis = RedisServer::start().await;
        let database = Postgres::shared().await.database().await;
        let node = |id| Node::serve(&redis.url(), &database).set("NODE_ID", id).set("OPEN_CONVERSATIONS", false);
        let one = node("one").with_console().start().await;
        let two = node("two").with_console().start().await;
        Self { one, two, _redis: redis }
    }
}

/// Sends a request to the console; the answer must be as documented, with this status.
async fn ask(node: &Node, method: Method, path: &str, body: Option<Value>, status: u16) -> Value {
    let answer = node.console(method.clone(), path, body.as_ref()).await;
    assert_eq!(answer.status.as_u16(), status, "{method} {path}: {}", answer.text);
    assert_documented(&method, path, &answer);
    answer.json
}

async fn get(node: &Node, path: &str) -> Value {
    ask(node, GET, path, None, 200).await
}

fn assert_documented(method: &Method, path: &str, answer: &Answer) {
    thread_local! { static DOCUMENT: Document = Document::admin(); }
    DOCUMENT.with(|document| {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let operation = document.operation(method.as_str(), &format!("/admin/api{path}"));
        let operation = operation.unwrap_or_else(|| panic!("{method} {path} is not documented"));
        let responses = &operation.body["responses"];
        let status = answer.status.as_str();
        let response =
            responses.get(status).filter(|_| !answer.status.is_server_error()).unwrap_or(&responses["default"]);
        let content = document.resolve(response)["content"].clone();
        let schema = content.as_object().and_then(|content| content.values().next()).map(|media| &media["schema"]);
        match schema {
            Some(schema) => {
                let faults = document.faults(schema, &answer.json);
                assert!(faults.is_empty(), "{method} {path} {status}: {faults:?} in {}", answer.text);
            }
            None => assert_eq!(answer.text, "", "{method} {path}"),
        }
        let known = |name: &str| {
            operation.body["parameters"].as_array().unwrap().iter().any(|parameter| parameter["name"] == name)
        };
        for (name, _) in form_urlencoded::parse(query.as_bytes()) {
            assert!(!answer.status.is_success() || known(&name), "{method} {path}: {name} is not documented");
        }
    });
}

#[tokio::test]
async fn the_console_is_off_without_a_token_and_never_on_the_address_for_clients() {
    let redis = RedisServer::start().await;
    let database = Postgres::shared().await.database().await;
    let off = Node::serve(&redis.url(), &database).start().await;
    let on = Node::serve(&redis.url(), &database).with_console().start().await;
    for path in ["/admin", "/admin/", "/admin/console.js", "/admin/api/overview"] {
        let answer = off.admin_get(path).await;
        assert_eq!(answer.status, 404, "{path}: {}", answer.text);
        assert!(answer.json["detail"].as_str().unwrap().contains("ADMIN_TOKEN"), "{}", answer.text);
        for node in [&on, &off] {
            let answer = node.request(GET, path, Some(ADMIN_TOKEN), None).await;
            assert_eq!((answer.status.as_u16(), &answer.json["code"]), (404, &json!("not_found")), "{path}");
            assert!(!answer.text.contains("ADMIN_TOKEN"), "{}", answer.text);
        }
    }
    assert_eq!(off.admin_get("/readyz").await.status, 200);
    assert_eq!(on.admin_get("/admin/").await.status, 200);
}

/// Paths of all operations, with what stands in the braces.
fn operations() -> Vec<(Method, String)> {
    let routes = endpoints().filter(|route| route.access == Access::Console);
    let fill = |path: &str| {
        let path = path.strip_prefix("/admin/api").unwrap().replace("{user}", "bob").replace("{conversation}", "none");
        path.replace("{message}", "1").replace("{delivery}", "1").replace("{fault}", "redis-silent")
    };
    routes.map(|route| (route.method.clone(), fill(route.path))).collect()
}

#[tokio::test]
async fn every_operation_needs_the_consoles_own_token() {
    let node = Node::dev().with_console().start().await;
    let http = reqwest::Client::new();
    let admin = token_with("root", json!({"role": "admin"}));
    assert!(operations().len() > 20);
    for (method, path) in operations() {
        let send = |request: reqwest::RequestBuilder| async {
            let answer = request.send().await.unwrap();
            (answer.status().as_u16(), answer.json::<Value>().await.unwrap_or_default())
        };
        let request = || http.request(method.clone(), format!("{}/admin/api{path}", node.admin()));
        for refused in [request(), request().header("authorization", format!("Basic {ADMIN_TOKEN}"))] {
            let (status, problem) = send(refused).await;
            assert_eq!((status, &problem["code"]), (401, &json!("unauthorized")), "{method} {path}");
        }
    }
    let refused = http.get(format!("{}/admin/api/overview", node.admin())).bearer_auth(admin).send().await.unwrap();
    assert_eq!(refused.status(), 401, "an admin among the users is none here");
    let query = http.get(format!("{}/admin/api/overview?token={ADMIN_TOKEN}", node.admin())).send().await.unwrap();
    assert_eq!(query.status(), 401, "a token in a URL does not count");
}

#[tokio::test]
async fn the_overview_covers_all_nodes() {
    let stage = Stage::new().await;
    let mut alice = Client::native(&stage.one, "alice").await;
    let _bob = Client::native(&stage.two, "bob").await;
    let room = stage.one.conversation(&token("alice"), &["bob"]).await;
    alice.join(&room).await;
    alice.send_text(&room, "hello").await;
    let seen = async || {
        let seen = get(&stage.one, "/overview").await;
        let sockets = |node: &Value| (node["node"].clone(), node["connections"].as_u64());
        let nodes: Vec<_> = seen["nodes"].as_array().unwrap().iter().map(sockets).collect();
        (nodes.contains(&(json!("one"), Some(1))) && nodes.contains(&(json!("two"), Some(1)))).then_some(seen)
    };
    let seen = eventually("both nodes", seen).await;
    assert_eq!(
        (&seen["nodes_complete"], &seen["users_online"], &seen["unknown"]),
        (&json!(true), &json!(2), &json!([]))
    );
    assert_eq!((&seen["node"], &seen["status"], &seen["degraded"]), (&json!("one"), &json!("healthy"), &json!([])));
    assert!(seen["latency"]["send_ack_ms"]["p99"].as_f64().unwrap() > 0.0, "{seen}");
    assert!(seen["per_second"]["deliveries"].as_f64().is_some());
    let section = get(&stage.one, "/faults/redis-silent").await;
    assert!(section["text"].as_str().unwrap().contains("Redis accepts connections and does not answer"));
    ask(&stage.one, GET, "/faults/..%2f..%2fetc", None, 404).await;
}

#[tokio::test]
async fn a_users_sockets_are_shown_and_ended_on_all_nodes() {
    let stage = Stage::new().await;
    let mut on_one = Client::native(&stage.one, "bob").await;
    let mut on_two = Client::connect(&format!("{}/ws/auth?token={}", stage.two.ws(), token("bob"))).await;
    let seen = eventually("both sockets", async || {
        let seen = get(&stage.one, "/users/bob").await;
        (seen["connections"].as_array().unwrap().len() == 2).then_some(seen)
    })
    .await;
    let mut held: Vec<_> =
        seen["connections"].as_array().unwrap().iter().map(|one| (&one["node"], &one["dialect"])).collect();
    held.sort_by_key(|(node, _)| node.as_str());
    assert_eq!(held, [(&json!("one"), &json!("native")), (&json!("two"), &json!("personas"))]);
    assert_eq!((&seen["presence"]["online"], &seen["blocked"]), (&json!(true), &json!(false)), "{seen}");
    assert_eq!(seen["connections_complete"], true);
    let online = get(&stage.two, "/users?limit=10").await;
    assert_eq!((&online["users"], &online["count"]), (&json!(["bob"]), &json!(1)));

    let change = ask(&stage.one, POST, "/users/bob/disconnect", None, 200).await;
    assert_eq!((&change["user_id"], &change["by"]), (&json!("bob"), &json!("console:admin")));
    assert_eq!(on_one.expect_close().await.0, 4410);
    assert_eq!(on_two.expect_close().await.0, 1008);

    ask(&stage.one, PUT, "/users/bob/block", None, 200).await;
    eventually("the block on the other node", async || {
        (stage.two.get("/api/connections/info", &token("bob")).await.json["code"] == "blocked").then_some(())
    })
    .await;
    assert_eq!(get(&stage.two, "/users/bob").await["block"]["by"], "console:admin");
    assert_eq!(get(&stage.two, "/blocks").await["total"], 1);
    assert_eq!(get(&stage.two, "/users/bob/block").await["blocked"], true);
    let explained = ask(&stage.one, POST, "/token", Some(json!({"token": token("bob")})), 200).await;
    assert_eq!((&explained["accepted"], &explained["kept_out"]), (&json!(false), &json!("blocked")));
    ask(&stage.one, DELETE, "/users/bob/block", None, 204).await;
    let revoked = ask(&stage.one, POST, "/users/bob/revoke", Some(json!({"jti": "t-1"})), 200).await;
    assert_eq!(revoked["jti"], "t-1");
    ask(&stage.one, POST, "/users/bob/revoke", None, 200).await;
    ask(&stage.one, POST, "/users/bob/revoke", Some(json!({"until": 1})), 400).await;
    ask(&stage.one, POST, "/users/bob/disconnect", Some(json!({"until": 1})), 400).await;
    ask(&stage.one, GET, "/users/no%20user", None, 404).await;
}

#[tokio::test]
async fn a_conversation_is_read_searched_and_moderated() {
    let stage = Stage::new().await;
    let (alice, room) = (token("alice"), stage.one.conversation(&token("alice"), &["bob"]).await);
    let path = format!("/conversations/{room}");
    let mut bob = Client::native(&stage.two, "bob").await;
    bob.join(&room).await;
    for number in 1..=5 {
        let body = json!({"content": format!("message {number}"), "data": {"n": number}});
        let sent = stage.one.post(&format!("/api/chat{path}/messages"), &alice, &body).await;
        assert_eq!(sent.status, 201, "{}", sent.text);
    }
    let read = json!({"conversation_id": room, "up_to_seq": 3});
    assert_eq!(stage.one.post("/api/messages/read", &token("bob"), &read).await.status, 200);
    assert_eq!(get(&stage.one, &path).await["id"], *room);
    let members = get(&stage.one, &format!("{path}/members?limit=1&offset=1")).await;
    assert_eq!((&members["members"][0]["user_id"], &members["members"][0]["read_seq"]), (&json!("bob"), &json!(3)));
    assert_eq!((&members["listed"], &members["next_offset"]), (&json!(2), &Value::Null));
    assert_eq!(get(&stage.one, &format!("{path}/members?limit=1")).await["next_offset"], 1);
    let marks = get(&stage.two, "/users/bob/conversations").await;
    let marks = &marks["conversations"][0];
    assert_eq!((&marks["read_seq"], &marks["unread_count"], &marks["seq"]), (&json!(3), &json!(2), &json!(5)));

    let found = get(&stage.two, &format!("{path}/search?q=message+4")).await;
    assert_eq!((&found["messages"][0]["seq"], found["messages"].as_array().unwrap().len()), (&json!(4), 1));
    ask(&stage.one, DELETE, &format!("{path}/messages/4"), None, 204).await;
    let deleted = bob.until_where(|frame| frame["target_seq"] == 4 || frame["seq"] == 6).await;
    assert!(deleted.to_string().contains("console:admin"), "{deleted}");
    let page = get(&stage.two, &format!("{path}/entries?limit=2")).await;
    let kinds: Vec<_> = page["entries"].as_array().unwrap().iter().map(|one| (&one["seq"], &one["kind"])).collect();
    assert_eq!(kinds, [(&json!(5), &json!("message")), (&json!(6), &json!("deleted"))]);
    assert_eq!(
        (&page["head_seq"], &page["next_before_seq"], &page["next_after_seq"]),
        (&json!(6), &json!(5), &Value::Null)
    );
    let page = get(&stage.two, &format!("{path}/entries?limit=2&before_seq=5")).await;
    let messages: Vec<_> =
        page["entries"].as_array().unwrap().iter().map(|one| (&one["seq"], &one["content"])).collect();
    assert_eq!(messages, [(&json!(3), &json!("message 3")), (&json!(4), &json!(""))]);
    assert_eq!(page["entries"][1]["is_deleted"], true);
    let page = get(&stage.two, &format!("{path}/entries?limit=2&after_seq=0")).await;
    assert_eq!((&page["entries"][0]["seq"], &page["next_before_seq"]), (&json!(1), &Value::Null));
    assert_eq!((&page["entries"][0]["data"], &page["next_after_seq"]), (&json!({"n": 1}), &json!(2)));
    ask(&stage.one, GET, &format!("{path}/entries?before_seq=1&after_seq=1"), None, 400).await;
    ask(&stage.one, GET, &format!("{path}/entries?limit=101"), None, 400).await;
    for path in [
        "/conversations/none",
        "/conversations/none/entries",
        "/conversations/none/members",
        "/conversations/none/search?q=x",
    ] {
        ask(&stage.one, GET, path, None, 404).await;
    }
    ask(&stage.one, DELETE, &format!("{path}/messages/99"), None, 404).await;
    let empty = stage.one.conversation(&alice, &[]).await;
    assert_eq!(get(&stage.one, &format!("/conversations/{empty}/entries")).await["entries"], json!([]));
}

#[tokio::test]
async fn every_action_is_recorded_and_counted_without_a_secret() {
    let node = Node::dev().with_console().start().await;
    let http = reqwest::Client::new();
    let request = http.post(format!("{}/admin/api/users/auth0%7Cbob/disconnect", node.admin()));
    let answer = request.bearer_auth(ADMIN_TOKEN).header("x-admin-name", "eve@ops").send().await.unwrap();
    assert_eq!(answer.json::<Value>().await.unwrap()["by"], "console:eve@ops");
    let line: Value = serde_json::from_str(&node.logged("\"action\":\"disconnect\"").await).unwrap();
    assert_eq!(
        (&line["target"], &line["via"], &line["by"]),
        (&json!("audit"), &json!("console"), &json!("console:eve@ops"))
    );
    assert_eq!((&line["user"], &line["outcome"], &line["level"]), (&json!("auth0|bob"), &json!("ok"), &json!("INFO")));
    assert_eq!((&line["address"], &line["status"]), (&json!("127.0.0.1"), &json!(200)));
    let inspected = token("carol");
    ask(&node, POST, "/token", Some(json!({"token": inspected})), 200).await;
    ask(&node, GET, "/conversations/none", None, 404).await;
    let line: Value = serde_json::from_str(&node.logged("\"action\":\"conversation\"").await).unwrap();
    assert_eq!((&line["conversation"], &line["outcome"]), (&json!("none"), &json!("not_found")));
    get(&node, "/overview").await;
    let wrong = "a-wrong-token-that-must-not-be-in-the-log-either";
    let refused = http.get(format!("{}/admin/api/settings", node.admin())).bearer_auth(wrong).send().await.unwrap();
    assert_eq!(refused.status(), 401);
    node.logged("wrong admin token").await;
    let metrics = node.metrics().await;
    let count = |action: &str, result: &str| {
        metrics.get(&format!("switchboard_console_requests_total{{action=\"{action}\",result=\"{result}\"}}"))
    };
    assert_eq!((count("disconnect", "ok"), count("conversation", "not_found")), (Some(1.0), Some(1.0)));
    assert_eq!((count("overview", "ok"), count("settings", "unauthorized")), (Some(1.0), Some(1.0)));
    for name in ["two words", "", "a/b", "ä", &"x".repeat(65)] {
        let request = http.get(format!("{}/admin/api/settings", node.admin())).bearer_auth(ADMIN_TOKEN);
        let value = reqwest::header::HeaderValue::from_bytes(name.as_bytes()).unwrap();
        assert_eq!(request.header("x-admin-name", value).send().await.unwrap().status(), 400, "{name}");
    }
    node.terminate().await;
    node.assert_never_logged(&[ADMIN_TOKEN, wrong, inspected.rsplit('.').next().unwrap()]);
    assert!(!node.log().iter().any(|line| line.contains("\"action\":\"overview\"")), "it is asked again and again");
}

#[tokio::test]
async fn the_tail_tells_of_connects_refusals_and_closes() {
    let node = Node::dev().with_console().set("ADMIN_WATCHERS", 1).set("ADMIN_TAIL_EVENTS", 4).start().await;
    let before = get(&node, "/tail").await;
    assert_eq!((&before["events"], &before["next"]), (&json!([]), &json!(0)));
    let waiting = node.console(GET, "/tail?after=0&wait=20", None);
    let act = async {
        node.metric("switchboard_console_watchers", |watchers| watchers == 1.0).await;
        Client::native(&node, "alice").await
    };
    let (first, alice) = tokio::join!(waiting, act);
    assert_documented(&GET, "/tail", &first);
    let event = &first.json["events"][0];
    assert_eq!(
        (&event["kind"], &event["user_id"], &event["dialect"]),
        (&json!("connect"), &json!("alice"), &json!("native"))
    );
    alice.close().await;
    let mut bad = Client::connect(&format!("{}/v1/ws?token=nonsense", node.ws())).await;
    bad.expect_close().await;
    let mut request = tungstenite_request(&format!("{}/v1/ws", node.ws()));
    request.headers_mut().insert("origin", "https://<b>evil</b>.example".parse().unwrap());
    request.headers_mut().insert("user-agent", "<script>alert(1)</script>".parse().unwrap());
    assert_eq!(Client::try_connect(request).await.err().map(|status| status.as_u16()), Some(403));
    let seen = eventually("all events", async || {
        let seen = get(&node, "/tail?after=1").await;
        (seen["next"] == 4).then_some(seen)
    })
    .await;
    let events = seen["events"].as_array().unwrap();
    let mut told: Vec<_> =
        events.iter().map(|event| (event["kind"].as_str().unwrap(), event["reason"].as_str().unwrap())).collect();
    told.sort_unstable();
    assert_eq!(told, [("close", "client_left"), ("refusal", "invalid_token"), ("refusal", "origin")]);
    let flawed = events.iter().find(|event| event["reason"] == "invalid_token").unwrap();
    assert!(flawed["detail"].as_str().unwrap().contains("not a JWT"), "{flawed}");
    let groups = seen["groups"].as_array().unwrap();
    let refused = groups.iter().find(|group| group["reason"] == "origin").unwrap();
    assert_eq!((&refused["origin"], &refused["count"]), (&json!("https://<b>evil</b>.example"), &json!(1)));
    // The ring has room for four.
    for _ in 0..2 {
        Client::connect(&format!("{}/v1/ws?token=nonsense", node.ws())).await.expect_close().await;
    }
    let later = eventually("the loss", async || {
        let later = get(&node, "/tail?after=1&limit=1").await;
        (later["lost"] == 1).then_some(later)
    })
    .await;
    assert_eq!((&later["events"][0]["number"], &later["next"]), (&json!(3), &json!(3)));
    assert_eq!(node.metrics().await.get("switchboard_console_events"), Some(4.0));
    for bad in ["/tail?after=-1", "/tail?after=x", "/tail?wait=21&after=0", "/tail?limit=0", "/tail?since=0"] {
        ask(&node, GET, bad, None, 400).await;
    }
}

fn tungstenite_request(url: &str) -> tokio_tungstenite::tungstenite::http::Request<()> {
    tokio_tungstenite::tungstenite::client::IntoClientRequest::into_client_request(url).unwrap()
}

#[tokio::test]
async fn webhook_requests_are_listed_and_repeated() {
    let receiver = Receiver::start(|before, _| async move {
        if before == 0 { HookResponse::status(400) } else { HookResponse::content("hello") }
    })
    .await;
    let node = Node::dev().with_console().set("PERSONA_WEBHOOK_URL", receiver.url()).set("PERSONA_IDS", "ada");
    let node = node.set("PERSONA_WEBHOOK_SECRET", "a-secret").start().await;
    assert_eq!(get(&node, "/deliveries").await["deliveries"], json!([]));
    let room = node.conversation(&token("alice"), &[]).await;
    let body = json!({"content": "how are you?", "persona_id": "ada"});
    node.post(&format!("/api/chat/conversations/{room}/messages"), &token("alice"), &body).await;
    let failed = eventually("the failed request", async || {
        let listed = get(&node, "/deliveries?failed=true").await;
        listed["deliveries"].as_array().unwrap().first().cloned()
    })
    .await;
    assert_eq!(
        (&failed["delivery"], &failed["hook"], &failed["result"]),
        (&json!(1), &json!("persona"), &json!("refused"))
    );
    assert!(failed["error"].as_str().unwrap().contains("400") && failed["replayable"] == true, "{failed}");
    let shown = get(&node, "/deliveries/1").await;
    assert!(shown["body"].as_str().unwrap().contains("how are you?"));
    let replayed = ask(&node, POST, "/deliveries/1/replay", None, 200).await;
    assert_eq!(
        (&replayed["delivery"], &replayed["repeats"], &replayed["result"]),
        (&json!(2), &json!(1), &json!("ok"))
    );
    let request = receiver.request(1).await;
    assert_eq!(request.body, receiver.request(0).await.body);
    request.assert_signed_with("a-secret");
    let listed = get(&node, "/deliveries?limit=1").await;
    assert_eq!((&listed["deliveries"][0]["repeats"], &listed["next_before"]), (&json!(1), &json!(2)));
    assert_eq!(get(&node, "/deliveries?before=2").await["deliveries"][0]["delivery"], 1);
    assert_eq!(get(&node, "/deliveries?failed=true").await["deliveries"].as_array().unwrap().len(), 1);
    for missing in ["/deliveries/9", "/deliveries/x"] {
        ask(&node, GET, missing, None, 404).await;
    }
    ask(&node, POST, "/deliveries/9/replay", None, 404).await;
    let line = node.logged("\"action\":\"replay\"").await;
    assert!(line.contains("\"delivery\":\"1\""), "{line}");
    node.terminate().await;
    node.assert_never_logged(&["how are you?", &receiver.url()]);
}

#[tokio::test]
async fn a_token_is_explained_and_settings_hide_secrets() {
    let node = Node::dev().with_console().set("JWT_AUDIENCE", "chat").start().await;
    let explained =
        ask(&node, POST, "/token", Some(json!({"token": token_with("bob", json!({"exp": 1, "email": "b@x"}))})), 200)
            .await;
    let places: Vec<_> =
        explained["flaws"].as_array().unwrap().iter().map(|flaw| flaw["place"].as_str().unwrap()).collect();
    assert!(places.contains(&"exp") && places.contains(&"aud"), "{explained}");
    assert_eq!((&explained["accepted"], &explained["other_claims"]), (&json!(false), &json!(["email"])));
    assert!(!explained.to_string().contains("b@x"));
    let good = token_with("bob", json!({"aud": "chat"}));
    let explained = ask(&node, POST, "/token", Some(json!({"token": format!("Bearer {good}")})), 200).await;
    assert_eq!((&explained["accepted"], &explained["signature"]), (&json!(true), &json!("matches")));
    assert!(!explained.to_string().contains(good.rsplit('.').next().unwrap()));
    ask(&node, POST, "/token", Some(json!({"token": "x".repeat(300_000)})), 413).await;
    ask(&node, POST, "/token", Some(json!({})), 400).await;
    let found = get(&node, "/settings").await;
    let setting = |name: &str| found["settings"].as_array().unwrap().iter().find(|one| one["name"] == name).unwrap();
    assert_eq!(
        (&setting("JWT_AUDIENCE")["value"], &setting("JWT_AUDIENCE")["source"]),
        (&json!("chat"), &json!("environment"))
    );
    assert_eq!(
        (&setting("PING_INTERVAL")["value"], &setting("PING_INTERVAL")["source"]),
        (&json!("25s"), &json!("default"))
    );
    for secret in ["JWT_SECRET", "ADMIN_TOKEN"] {
        assert_eq!((&setting(secret)["value"], &setting(secret)["secret"]), (&Value::Null, &json!(true)));
    }
    let text = found.to_string();
    assert!(!text.contains(crate::support::SECRET) && !text.contains(ADMIN_TOKEN), "{text}");
}
