//! Servers that demand a certificate of their clients, and certificates that are replaced while nodes run.

use std::path::Path;

use super::*;
use crate::support::{Authority, free_port, replace};

/// Files that a node reads, with the content of others.
struct Shown {
    _folder: tempfile::TempDir,
    certificate: PathBuf,
    key: PathBuf,
}

impl Shown {
    fn new(of: &(PathBuf, PathBuf)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let shown =
            Self { certificate: folder.path().join("tls.crt"), key: folder.path().join("tls.key"), _folder: folder };
        shown.become_those(of);
        shown
    }

    fn become_those(&self, (certificate, key): &(PathBuf, PathBuf)) {
        replace(&self.certificate, certificate);
        replace(&self.key, key);
    }

    /// The settings of a node that shows them to a kind of server.
    fn to(&self, server: &str, node: NodeBuilder, ca: &Path) -> NodeBuilder {
        node.set(&format!("{server}_CLIENT_CERT_FILE"), self.certificate.display())
            .set(&format!("{server}_CLIENT_KEY_FILE"), self.key.display())
            .set(&format!("{server}_CA_FILE"), ca.display())
    }
}

#[tokio::test]
async fn postgresql_is_shown_a_certificate_and_a_replaced_one_is_used() {
    let (servers, clients, later) = (Authority::new(), Authority::new(), Authority::new());
    let (certificate, key) = servers.issue("localhost");
    let trusted = servers.ca().with_file_name("clients.pem");
    replace(&trusted, &clients.ca());
    let file = |path: &Path| path.display().to_string();
    let settings = [
        ("ssl", "on".to_owned()),
        ("ssl_cert_file", file(&certificate)),
        ("ssl_key_file", file(&key)),
        ("ssl_ca_file", file(&trusted)),
    ];
    let settings: Vec<_> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let rules = "hostssl all node 127.0.0.1/32 trust clientcert=verify-full";
    let (postgres, _rules) = postgres_with(rules, &settings).await;
    let database = database_of_a_role(&postgres, "unused").await;
    let redis = RedisServer::start().await;
    let url = format!("postgres://node@localhost:{}/{database}?sslmode=verify-full", postgres.port());
    let shown = Shown::new(&clients.issue("node"));
    let node = || shown.to("DATABASE", serve(&redis.url(), &url), &servers.ca());
    let (one, two) = (node().start().await, node().start().await);
    let mut talk = Talk::between(&one, &two).await;
    talk.say(3).await;
    // Without a certificate, and with one of another name.
    let (status, log) = serve(&redis.url(), &url)
        .set("DATABASE_CA_FILE", servers.ca().display())
        .try_start()
        .await
        .map(|_| ())
        .expect_err("a certificate is needed");
    assert_eq!(status.code(), Some(1), "{log}");
    let stranger = Shown::new(&clients.issue("stranger"));
    let ca = file(&servers.ca());
    let (certificate, key) = (file(&stranger.certificate), file(&stranger.key));
    let settings = [
        ("REDIS_URL", &*redis.url()),
        ("DATABASE_URL", &*url),
        ("DATABASE_CA_FILE", &*ca),
        ("DATABASE_CLIENT_CERT_FILE", &*certificate),
        ("DATABASE_CLIENT_KEY_FILE", &*key),
    ];
    let (code, printed) = run("check", &settings).await;
    assert!(code == Some(1) && printed.contains("store-denies-access"), "{printed}");

    // One that has expired is named, and so is one of an authority that is not trusted.
    for (wrong, why) in
        [(clients.issue_for("expired", 0), "it has expired"), (later.issue("node"), "does not trust the authority")]
    {
        stranger.become_those(&wrong);
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        let (code, printed) = run("check", &settings).await;
        let says = ["store-denies-access", "own certificate", &*certificate, "(DATABASE_CLIENT_CERT_FILE)", why];
        assert!(code == Some(1) && says.iter().all(|words| printed.contains(words)), "{printed}");
    }

    // From now on the server trusts another authority alone.
    shown.become_those(&later.issue("node"));
    replace(&trusted, &later.ca());
    let admin = postgres.connect("postgres").await;
    admin.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    end_sessions(&postgres).await;
    talk.say(5).await;
    one.logged("certificates were replaced").await;
    for node in [&one, &two] {
        is_healthy(node).await;
    }
    talk.all_is_heard().await;
}

#[tokio::test]
async fn redis_is_shown_a_certificate_and_a_replaced_one_is_used() {
    let (servers, clients, later) = (Authority::new(), Authority::new(), Authority::new());
    let (certificate, key) = servers.issue("localhost");
    let port = free_port().to_string();
    let redis =
        RedisServer::with(&tls(&port, &certificate, &key, &clients.ca()).iter().map(|a| &**a).collect::<Vec<_>>())
            .await;
    let database = Postgres::shared().await.database().await;
    let url = format!("rediss://localhost:{port}");
    let shown = Shown::new(&clients.issue("node"));
    let node = || shown.to("REDIS", serve(&url, &database).set("NODE_LEASE", "3s"), &servers.ca());
    let (one, two) = (node().start().await, node().start().await);
    for node in [&one, &two] {
        is_healthy(node).await;
    }
    let mut talk = Talk::between(&one, &two).await;
    talk.say(3).await;
    let without = serve(&url, &database).set("REDIS_CA_FILE", servers.ca().display()).start().await;
    faulty_with(&without, "redis-denies-access", &["demands a certificate", "set REDIS_CLIENT_CERT_FILE"]).await;

    let trusted: String = later.ca().display().to_string();
    let () = redis.command(&["CONFIG", "SET", "tls-ca-cert-file", &trusted]).await;
    let _: redis::Value = redis.command(&["CLIENT", "KILL", "TYPE", "normal"]).await;
    let _: redis::Value = redis.command(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
    let file = shown.certificate.display().to_string();
    let words = ["this node's own certificate", &*file, "(REDIS_CLIENT_CERT_FILE)", "does not trust the authority"];
    tokio::join!(talk.say(3), faulty_with(&one, "redis-denies-access", &words));
    shown.become_those(&later.issue("node"));
    for node in [&one, &two] {
        is_healthy(node).await;
    }
    talk.say(3).await;
    talk.all_is_heard().await;
}

/// The arguments of a Redis that speaks TLS on a port with clients that show a certificate of an authority.
fn tls(port: &str, certificate: &Path, key: &Path, clients: &Path) -> Vec<String> {
    let file = |path: &Path| path.display().to_string();
    let pairs = [
        ("--tls-port", port.to_owned()),
        ("--tls-cert-file", file(certificate)),
        ("--tls-key-file", file(key)),
        ("--tls-ca-cert-file", file(clients)),
        ("--tls-auth-clients", "yes".to_owned()),
    ];
    pairs.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect()
}

#[tokio::test]
async fn a_cluster_and_sentinels_are_shown_certificates() {
    let authority = Authority::new();
    let (certificate, key) = authority.issue("localhost");
    let database = Postgres::shared().await.database().await;
    let shown = Shown::new(&authority.issue("node"));
    let arguments = |port: &str, more: &[&str]| {
        let tls = tls(port, &certificate, &key, &authority.ca());
        tls.into_iter().chain(more.iter().map(|&word| word.to_owned())).collect::<Vec<_>>()
    };
    fn words(all: &[String]) -> Vec<&str> {
        all.iter().map(String::as_str).collect()
    }
    let port = free_port().to_string();
    let announced =
        ["--cluster-announce-ip", "127.0.0.1", "--cluster-announce-hostname", "localhost", "--tls-cluster", "yes"];
    let cluster = RedisServer::cluster_node(&words(&arguments(&port, &announced))).await;
    let () = cluster.command(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]).await;
    is_whole(&cluster).await;
    let url = format!("rediss+cluster://localhost:{port}");
    let node = |url: &str| shown.to("REDIS", serve(url, &database), &authority.ca());
    is_healthy(&node(&url).start().await).await;

    // The sentinels have an authority of their own.
    let sentinels = Authority::new();
    let (port, sentinel_port) = (free_port().to_string(), free_port().to_string());
    let redis = RedisServer::with(&words(&arguments(&port, &["--tls-replication", "yes"]))).await;
    let of_sentinels = sentinels.issue("localhost");
    // As a client of the server, a sentinel shows what it shows to its own clients.
    let both = sentinels.ca().with_file_name("both.pem");
    let text = |path: &Path| std::fs::read_to_string(path).unwrap();
    std::fs::write(&both, text(&sentinels.ca()) + &text(&authority.ca())).unwrap();
    let () = redis.command(&["CONFIG", "SET", "tls-ca-cert-file", &both.display().to_string()]).await;
    let lines = tls(&sentinel_port, &of_sentinels.0, &of_sentinels.1, &both);
    let lines: Vec<String> = lines.chunks(2).map(|pair| format!("{} {}", &pair[0][2..], pair[1])).collect();
    let more = ["tls-replication yes", "sentinel resolve-hostnames yes", "sentinel announce-hostnames yes"];
    let lines: Vec<&str> = lines.iter().map(String::as_str).chain(more).collect();
    let sentinel = RedisServer::sentinel_with(&lines).await;
    let _: String = sentinel.command(&["SENTINEL", "MONITOR", "chat", "localhost", &port, "1"]).await;
    let url = format!("rediss+sentinel://localhost:{sentinel_port}?sentinel_master_name=chat");
    let own = Shown::new(&sentinels.issue("node"));
    let one = own.to("REDIS_SENTINEL", node(&url), &sentinels.ca()).start().await;
    let two = own.to("REDIS_SENTINEL", node(&url), &sentinels.ca()).start().await;
    for node in [&one, &two] {
        is_healthy(node).await;
    }
    let mut talk = Talk::between(&one, &two).await;
    talk.say(3).await;
    talk.all_is_heard().await;
    // The primary is used as before.
    let file = own.certificate.display().to_string();
    own.become_those(&sentinels.issue_for("node", 0));
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let _: redis::Value = sentinel.command(&["CLIENT", "KILL", "TYPE", "normal"]).await;
    let _: redis::Value = sentinel.command(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
    let words = ["own certificate", &*file, "(REDIS_SENTINEL_CLIENT_CERT_FILE)", "it has expired"];
    faulty_with(&one, "redis-sentinels-away", &words).await;
    // Each kind trusts other certificates: with one pair for both, one of them refuses it.
    let (status, log) = own
        .to("REDIS_SENTINEL", serve(&url, &database), &sentinels.ca())
        .set("REDIS_CLIENT_CERT_FILE", own.certificate.display())
        .try_start()
        .await
        .map(|_| ())
        .expect_err("a certificate without its key");
    assert!(
        status.code() == Some(78) && log.contains("REDIS_CLIENT_CERT_FILE is given without REDIS_CLIENT_KEY_FILE"),
        "{log}"
    );
}
