//! `switchboard serve` for operators: TLS to its servers, migrations, `check`, a lost answer, and the shutdown.

#[expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on must panic")]
mod tests {
    use std::{
        os::unix::fs::{MetadataExt, PermissionsExt, chown},
        path::Path,
        process::Command,
        time::{Duration, Instant},
    };

    use serde_json::json;

    use crate::support::{Client, Link, Node, Postgres, Proxy, RedisServer, SECRET, Signal, eventually};

    fn switchboard(arguments: &[&str], environment: &[(&str, &str)]) -> (Option<i32>, String) {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_switchboard"));
        command.args(arguments).env_clear().envs(environment.iter().copied()).current_dir(folder.path());
        let output = command.output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&text).into_owned())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn migrate_and_check_report_what_they_did() {
        let redis = RedisServer::start().await;
        let database = Postgres::shared().await.database().await;
        let environment = [("REDIS_URL", &*redis.url()), ("DATABASE_URL", &*database), ("JWT_SECRET", SECRET)];
        let (code, output) = switchboard(&["migrate"], &environment);
        assert_eq!(code, Some(0), "{output}");
        let (code, output) = switchboard(&["check"], &environment);
        assert_eq!(code, Some(0), "{output}");
        assert!(!output.contains(SECRET), "{output}");
        let dead = [("REDIS_URL", "redis://127.0.0.1:1"), ("DATABASE_URL", &*database), ("JWT_SECRET", SECRET)];
        let (code, output) = switchboard(&["check"], &dead);
        assert_eq!(code, Some(1), "{output}");
    }

    #[tokio::test]
    async fn with_migrate_off_the_schema_is_unchanged() {
        let redis = RedisServer::start().await;
        let database = Postgres::shared().await.database().await;
        let node = Node::serve(&redis.url(), &database).set("MIGRATE", false).start_without_store().await;
        let why = eventually("the reason", || async {
            let readiness = node.admin_get("/readyz").await;
            (readiness.status == 503 && readiness.text.contains("lacks column")).then_some(readiness.text)
        });
        assert!(why.await.contains("run switchboard migrate"));
        let url = format!("{}/ws/room?token={}", node.ws(), crate::support::token("alice"));
        let (code, _) = Client::connect(&url).await.expect_close().await;
        assert_eq!(code, 1013, "without tables a room can't be joined: try again later");
    }

    /// Writes a key and a certificate for `localhost`, signed by a new CA; the user that PostgreSQL runs as can read
    /// them.
    fn certificates(folder: &Path) {
        let openssl = |words: &str| {
            let run = Command::new("openssl").args(words.split_whitespace()).current_dir(folder).output().unwrap();
            assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        };
        openssl("req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=ca -keyout ca.key -out ca.pem");
        openssl(
            "req -newkey rsa:2048 -nodes -subj /CN=localhost -addext subjectAltName=DNS:localhost -keyout key.pem -out csr.pem",
        );
        openssl("x509 -req -in csr.pem -CA ca.pem -CAkey ca.key -days 2 -copy_extensions copy -out cert.pem");
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::set_permissions(folder.join("key.pem"), std::fs::Permissions::from_mode(0o600)).unwrap();
        if std::fs::metadata(folder).unwrap().uid() == 0 {
            let users = std::fs::read_to_string("/etc/passwd").unwrap();
            let line = users.lines().find_map(|line| line.strip_prefix("postgres:x:")).expect("a user postgres");
            let uid = line.split(':').next().unwrap().parse().unwrap();
            chown(folder.join("key.pem"), Some(uid), None).unwrap();
        }
    }

    #[tokio::test]
    async fn postgresql_is_reached_over_tls_and_its_certificate_is_verified() {
        let folder = tempfile::tempdir().unwrap();
        certificates(folder.path());
        let file = |name: &str| folder.path().join(name).display().to_string();
        let postgres =
            Postgres::start(&[("ssl", "on"), ("ssl_cert_file", &file("cert.pem")), ("ssl_key_file", &file("key.pem"))])
                .await;
        let redis = RedisServer::start().await;
        let url = postgres.database().await.replace("127.0.0.1", "localhost") + "?sslmode=verify-full";
        let node = Node::serve(&redis.url(), &url).set("DATABASE_CA_FILE", file("ca.pem")).start().await;
        let mut alice = Client::native(&node, "alice").await;
        alice.join("team").await;
        alice.send_text("team", "over TLS").await;
        let client = postgres.connect("postgres").await;
        let row = client
            .query_one(
                "SELECT count(*) FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid) \
                 WHERE s.ssl AND a.application_name = 'switchboard'",
                &[],
            )
            .await
            .unwrap();
        assert!(row.get::<_, i64>(0) >= 1, "the node's connections are encrypted");
        let (status, log) =
            Node::serve(&redis.url(), &url).try_start().await.expect_err("a CA that the node does not trust");
        assert_eq!(status.code(), Some(1), "{log}");
    }

    #[tokio::test]
    async fn a_commit_whose_answer_was_lost_is_acked_with_its_seq() {
        let redis = RedisServer::start().await;
        let database = Postgres::shared().await.database().await;
        let proxy = Proxy::to(database.split(['@', '/']).find(|part| part.contains("127.0.0.1:")).unwrap()).await;
        // Use few connections, so that all of them have the statement prepared when the answers stop.
        let node = Node::serve(&redis.url(), &proxy.url(&database))
            .set("DATABASE_POOL_SIZE", 7)
            .set("WRITER_LANES", 1)
            .start()
            .await;
        let mut alice = Client::native(&node, "alice").await;
        let mut bob = Client::native(&node, "bob").await;
        alice.join("team").await;
        bob.join("team").await;
        for at in 0..20 {
            alice.send_text("team", &format!("before {at}")).await;
        }
        proxy.set(Link::Mute);
        let send = json!({"type": "send", "conversation_id": "team", "content": "lost?", "client_id": "c", "ref": 1});
        alice.send(&send).await;
        // The message is stored, and the node has no answer.
        let client = crate::support::Postgres::shared().await.connect(database.rsplit('/').next().unwrap()).await;
        let stored = || async {
            let rows = client.query("SELECT seq FROM log WHERE dedupe = 'c'", &[]).await.unwrap();
            rows.first().map(|row| row.get::<_, i64>(0))
        };
        let seq = eventually("the row", stored).await;
        proxy.set(Link::Cut);
        node.logged("a connection to PostgreSQL ended").await;
        proxy.set(Link::Open);
        let ack = alice.until("ack").await;
        assert_eq!((ack["seq"].as_i64(), &ack["client_id"]), (Some(seq), &json!("c")));
        assert_eq!(bob.until_where(|frame| frame["content"] == "lost?").await["seq"], seq);
        let healthy = || async {
            let health = node.request(reqwest::Method::GET, "/api/health", None, None).await;
            (health.json["status"] == "healthy").then_some(())
        };
        eventually("the store to be healthy", healthy).await;
        alice.send(&send).await;
        assert_eq!(alice.until("ack").await["seq"], seq);
        let rows = client.query_one("SELECT count(*) FROM log WHERE dedupe = 'c'", &[]).await.unwrap();
        assert_eq!(rows.get::<_, i64>(0), 1);
    }

    #[tokio::test]
    async fn on_sigterm_connections_close_evenly_with_advice_and_no_message_is_lost() {
        let redis = RedisServer::start().await;
        let database = Postgres::shared().await.database().await;
        let node = Node::serve(&redis.url(), &database)
            .set("SHUTDOWN_DELAY", "1s")
            .set("DRAIN_WINDOW", "2s")
            .set("MAX_CONNECTIONS_PER_USER", 100)
            .start()
            .await;
        let mut native = Client::native(&node, "alice").await;
        native.join("team").await;
        let mut rooms = Client::rooms(&node, "team", "bob").await;
        let mut others = Vec::new();
        for _ in 0..20 {
            others.push(Client::native(&node, "carol").await);
        }
        node.signal(Signal::Terminate);
        let unready = || async { (node.admin_get("/readyz").await.status == 503).then_some(()) };
        eventually("/readyz to answer 503", unready).await;
        let asked = Instant::now();
        let health = node.request(reqwest::Method::GET, "/api/health", None, None).await;
        assert_eq!((health.status.as_u16(), &health.json["status"]), (503, &json!("unhealthy")));
        let late = Client::native(&node, "dave").await;
        native.send_text("team", "still acked while draining").await;
        rooms.until("new_message").await;
        let mut left = Vec::new();
        let watching: Vec<_> = others
            .into_iter()
            .chain([late])
            .map(|mut client| {
                tokio::spawn(async move {
                    let (code, _) = client.expect_close().await;
                    (code, asked.elapsed())
                })
            })
            .collect();
        let advice = native.until("restart").await;
        assert!((1_000..=2_000).contains(&advice["retry_after_ms"].as_u64().unwrap()), "{advice}");
        assert_eq!(native.expect_close().await.0, 1012);
        let (code, reason) = rooms.expect_close().await;
        assert!(code == 1012 && reason.contains("retry after"), "{code} {reason}");
        for watched in watching {
            let (code, after) = watched.await.unwrap();
            assert_eq!(code, 1012);
            left.push(after);
        }
        left.sort();
        assert!(left[20] - left[0] > Duration::from_secs(1), "spread over the window: {left:?}");
        assert_eq!(node.exit_code().await, 0);
        let lives: Vec<String> = redis.command(&["ZRANGE", "ws:nodes", "0", "-1"]).await;
        assert!(lives.iter().all(|life| life.starts_with('/')), "it removed its lease: {lives:?}");
    }
}
