//! A store that refuses the entries of one conversation, for reasons that may pass by themselves: the other conversations go on,
//! the store does not count as down, and health says what the senders meet.

use serde_json::json;

use super::*;
use crate::support::{Client, Postgres, RedisServer, token};

/// A node, its database, and two conversations of alice.
struct Scene {
    node: Node,
    database: String,
    bad: String,
    good: String,
    redis: RedisServer,
}

impl Scene {
    async fn new() -> Self {
        let redis = RedisServer::start().await;
        let database = Postgres::shared().await.database().await;
        let node = Node::serve(&redis.url(), &database).set("MESSAGE_RATE_LIMIT", 0).set("WRITE_RATE_LIMIT", 0);
        let node = node.start().await;
        let (bad, good) =
            (node.conversation(&token("alice"), &["bob"]).await, node.conversation(&token("alice"), &["carol"]).await);
        Self { node, database, bad, good, redis }
    }

    async fn sql(&self) -> tokio_postgres::Client {
        Postgres::shared().await.connect(self.database.rsplit('/').next().unwrap()).await
    }

    async fn send(&self, conversation: &str) -> u16 {
        let path = format!("/api/chat/conversations/{conversation}/messages");
        self.node.post(&path, &token("alice"), &json!({"content": "hello"})).await.status.as_u16()
    }

    /// Sends to both conversations until health names the fault, which must be of appends alone.
    async fn until_named(&self, fault: &str, words: &str) {
        let named = async || {
            assert_eq!((self.send(&self.bad).await, self.send(&self.good).await), (503, 201));
            let health = self.node.admin_get("/api/health").await.json;
            let reasons = health["reasons"].clone();
            assert!(reasons == json!([]) || reasons == json!(["appends_fail"]), "{health}");
            (reasons != json!([])).then_some(())
        };
        eventually("the fault", named).await;
        let found = faults(&self.node).await;
        assert!(found.len() == 1 && found[0].0 == fault && found[0].1.contains(words), "{found:?}");
        told_once(&self.node, fault, 0).await;
    }

    async fn until_healthy(&self) {
        let healthy = async || {
            assert_eq!((self.send(&self.bad).await, self.send(&self.good).await), (201, 201));
            (self.node.admin_get("/api/health").await.json["status"] == "healthy").then_some(())
        };
        eventually("the health to recover", healthy).await;
        let down = r#"switchboard_part_up{part="store"}"#;
        assert_ne!(self.node.metrics().await.get(down), Some(0.0));
    }
}

#[tokio::test]
async fn a_lock_on_one_conversation_shows_in_health_while_others_go_on() {
    let scene = Scene::new().await;
    let locker = scene.sql().await;
    locker.batch_execute(&format!("BEGIN; SELECT 1 FROM heads WHERE log = '{}' FOR UPDATE", scene.bad)).await.unwrap();
    scene.until_named("store-silent", "canceling statement due to lock timeout").await;
    locker.batch_execute("COMMIT").await.unwrap();
    scene.until_healthy().await;
}

#[tokio::test]
async fn a_conflict_in_one_conversation_shows_in_health_and_fails_nobody_elses_entry() {
    let scene = Scene::new().await;
    let admin = scene.sql().await;
    let trigger = "CREATE FUNCTION conflict() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                       RAISE EXCEPTION 'try again' USING ERRCODE = '40001'; END $$;
                   CREATE TRIGGER conflict BEFORE INSERT ON log FOR EACH ROW WHEN (NEW.log = 'BAD') EXECUTE FUNCTION conflict()";
    admin.batch_execute(&trigger.replace("BAD", &scene.bad)).await.unwrap();
    // Entries of both share batches.
    let sends =
        (0..60).map(async |at| (at % 3 == 0, scene.send(if at % 3 == 0 { &scene.bad } else { &scene.good }).await));
    for (bad, status) in futures_util::future::join_all(sends).await {
        assert_eq!(status, if bad { 503 } else { 201 });
    }
    scene.until_named("store-appends-fail", "40001: try again").await;
    admin.batch_execute("DROP TRIGGER conflict ON log").await.unwrap();
    scene.until_healthy().await;
}

#[tokio::test]
async fn entries_that_the_store_lacks_keep_nobody_from_later_ones() {
    let scene = Scene::new().await;
    let other = Node::serve(&scene.redis.url(), &scene.database).start().await;
    let mut listeners = [Client::native(&scene.node, "alice").await, Client::native(&other, "bob").await];
    for listener in &mut listeners {
        listener.join(&scene.bad).await;
    }
    for hole in [1, 5] {
        let change = format!("UPDATE heads SET seq = seq + {hole} WHERE log = '{}'", scene.bad);
        scene.sql().await.batch_execute(&change).await.unwrap();
        let path = format!("/api/chat/conversations/{}/messages", scene.bad);
        let content = format!("after {hole}");
        let sent = scene.node.post(&path, &token("alice"), &json!({"content": content})).await;
        assert_eq!(sent.status, 201, "acked as ever: {}", sent.text);
        for listener in &mut listeners {
            listener.until_where(|frame| frame["content"] == content.as_str()).await;
        }
    }
    for node in [&scene.node, &other] {
        node.metric("switchboard_log_holes_total", |holes| holes == 2.0).await;
        node.logged("the store lacks entries of a log").await;
        assert_eq!(node.metrics().await.get("switchboard_gaps_stuck"), Some(0.0));
    }
}

/// A trigger's error may have the code of a lost connection: that of a server to which it connects.
#[tokio::test]
async fn a_code_that_a_trigger_gives_says_nothing_of_this_server() {
    let scene = Scene::new().await;
    let admin = scene.sql().await;
    for code in ["3D000", "26000", "57P01", "53300", "57P03", "25006", "57P02", "28000", "57014", "55P03"] {
        let trigger = format!(
            "CREATE FUNCTION remote() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 RAISE EXCEPTION 'remote said no' USING ERRCODE = '{code}'; END $$;
             CREATE TRIGGER remote BEFORE INSERT ON log FOR EACH ROW WHEN (NEW.log = '{}') EXECUTE FUNCTION remote()",
            scene.bad
        );
        admin.batch_execute(&trigger).await.unwrap();
        for _ in 0..3 {
            assert_eq!((scene.send(&scene.bad).await, scene.send(&scene.good).await), (503, 201), "{code}");
            let health = scene.node.admin_get("/api/health").await.json;
            assert_eq!(health["reasons"], json!(["appends_fail"]), "{code}: {health}");
            let found = faults(&scene.node).await;
            assert!(found.len() == 1 && found[0].0 == "store-appends-fail", "{code}: {found:?}");
            assert!(found[0].1.contains(&format!("{code}: remote said no")), "{found:?}");
        }
        admin.batch_execute("DROP TRIGGER remote ON log; DROP FUNCTION remote").await.unwrap();
        scene.until_healthy().await;
    }
}
