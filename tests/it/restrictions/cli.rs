//! `switchboard admin`.

use std::path::Path;

use tokio::process::Command;

use super::*;
use crate::support::{SECRET, within};

/// Runs `switchboard admin`; returns exit code, standard output and standard error.
async fn run(folder: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_switchboard"));
    command.arg("admin").args(arguments).env_clear().envs(environment.iter().copied()).current_dir(folder);
    let output = within("the command", command.output()).await.unwrap();
    let [out, err] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    (output.status.code().unwrap(), out, err)
}

async fn done(folder: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> String {
    let (code, out, err) = run(folder, arguments, environment).await;
    assert_eq!((code, &*err), (0, ""), "{arguments:?}");
    out
}

async fn fails(folder: &Path, arguments: &[&str], environment: &[(&str, &str)], words: &[&str]) {
    let (code, out, err) = run(folder, arguments, environment).await;
    assert_eq!((code, &*out), (1, ""), "{arguments:?}: {err}");
    for word in words {
        assert!(err.contains(word), "{word} in: {err}");
    }
}

#[tokio::test]
async fn the_command_line_writes_to_postgres_while_nodes_run() {
    let cluster = Cluster::new().await;
    let folder = tempfile::tempdir().unwrap();
    let (folder, database) = (folder.path(), [("DATABASE_URL", &*cluster.database)]);
    let token = issued(0);
    let mut open: Vec<Client> = Vec::new();
    for node in cluster.nodes() {
        open.extend(sockets(node, &token).await);
    }
    let text = done(folder, &["disconnect", BOB, "--by", "ops-bob"], &database).await;
    assert!(text.contains("auth0|bob: the sockets end") && text.contains("~cli:ops-bob"), "{text}");
    expect_closes(&mut open, DISCONNECTED).await;

    let text = done(folder, &["block", BOB, "--database-url", &cluster.database], &[]).await;
    assert!(text.contains("auth0|bob: blocked"), "{text}");
    assert!(done(folder, &["block", BOB], &database).await.contains("already blocked"), "a repetition");
    assert_eq!(done(folder, &["blocked"], &database).await, done(folder, &["blocked", BOB], &database).await);
    for node in cluster.nodes() {
        until_code(node, &token, Some("blocked")).await;
    }
    let shown = cluster.one.get(&format!("/api/admin/users/{BOB_IN_PATH}/block"), &admin()).await.json;
    assert_eq!(shown["by"], "~cli");
    assert!(done(folder, &["unblock", BOB], &database).await.contains("not blocked any more"));
    assert_eq!(done(folder, &["unblock", BOB], &database).await, "auth0|bob is not blocked\n");
    assert_eq!(done(folder, &["blocked"], &database).await, "");

    let jti = token_with(BOB, json!({"jti": "t-1"}));
    assert!(done(folder, &["revoke", BOB, "--jti", "t-1"], &database).await.contains("the token t-1 is revoked"));
    assert!(done(folder, &["revoke", BOB], &database).await.contains("the tokens issued until"));
    for node in cluster.nodes() {
        until_code(node, &jti, Some("token_revoked")).await;
        until_code(node, &token, Some("token_revoked")).await;
        until_code(node, &token_with(BOB, json!({"iat": now() + 4})), None).await;
    }
    let bounded = [database[0], ("MAX_REVOCATIONS", "2")];
    fails(folder, &["block", "carol"], &bounded, &["MAX_REVOCATIONS"]).await;
}

#[tokio::test]
async fn the_command_line_asks_a_node() {
    let cluster = Cluster::new().await;
    let folder = tempfile::tempdir().unwrap();
    let (folder, admin, token) = (folder.path(), admin(), issued(0));
    let url = cluster.one.http();
    let through = |arguments: &[&str]| [arguments, &["--url", &url, "--token", &admin]].concat().join("\n");
    let ask = async |arguments: &[&str]| {
        let all = through(arguments);
        done(folder, &all.lines().collect::<Vec<_>>(), &[]).await
    };
    assert!(ask(&["block", BOB]).await.contains("auth0|bob: blocked"));
    until_code(&cluster.two, &token, Some("blocked")).await;
    assert!(ask(&["blocked"]).await.starts_with("auth0|bob blocked at "));
    assert!(ask(&["blocked", BOB]).await.contains(" by root"));
    assert_eq!(ask(&["unblock", BOB]).await, "auth0|bob is not blocked\n");
    assert_eq!(ask(&["blocked", BOB]).await, "auth0|bob is not blocked\n");
    assert!(ask(&["revoke", BOB, "--issued-until", "2020-01-01T00:00:00Z"]).await.contains("2020-01-01T00:00:00"));
    assert!(ask(&["revoke", BOB, "--jti", "t-1"]).await.contains("the token t-1"));
    assert!(ask(&["disconnect", BOB]).await.contains("the sockets end"));
    until_code(&cluster.two, &token, None).await;

    let with = |variable: &'static str| [("SWITCHBOARD_TOKEN", variable)];
    fails(folder, &["block", BOB, "--url", &url], &[], &["--token", "SWITCHBOARD_TOKEN"]).await;
    fails(folder, &["block", BOB, "--url", &url, "--token", &token], &[], &["403", "Admins only", "role admin"]).await;
    fails(folder, &["block", BOB, "--url", &url], &with("nonsense"), &["401", "--token"]).await;
    fails(folder, &["block", BOB, "--url", "http://127.0.0.1:1"], &with("x"), &["127.0.0.1:1", "DATABASE_URL"]).await;
    fails(folder, &["block", BOB, "--url", "localhost"], &with("x"), &["http://HOST:PORT"]).await;
}

#[tokio::test]
async fn the_command_line_writes_to_the_database_of_dev() {
    let node = Node::dev();
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let node = node.set("DATA_DIR", data.display()).start().await;
    let data = data.to_str().unwrap().to_owned();
    let environment = [("DATA_DIR", &*data)];
    let mut bob = Client::native(&node, "bob").await;
    let folder = folder.path();
    assert!(done(folder, &["block", "bob", "--dev"], &environment).await.contains("bob: blocked"));
    assert_eq!(bob.expect_close().await, (4403, "Blocked by an administrator".to_owned()));
    until_code(&node, &token("bob"), Some("blocked")).await;
    // It holds while no node runs, and counts from the start of the next one.
    node.kill().await;
    assert!(done(folder, &["blocked", "--dev"], &environment).await.starts_with("bob blocked at "));
    done(folder, &["revoke", "carol", "--dev"], &environment).await;
    let again = Node::dev().set("DATA_DIR", &data).start().await;
    assert_eq!(again.get("/api/connections/info", &token("bob")).await.json["code"], "blocked");
    let old = token_with("carol", json!({"iat": now() - 60}));
    assert_eq!(again.get("/api/connections/info", &old).await.json["code"], "token_revoked");
}

#[tokio::test]
async fn errors_name_their_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fails(folder, &["block", "bob"], &[], &["DATABASE_URL", "--dev", "--url"]).await;
    fails(folder, &["block", "bob", "--dev"], &[], &["does not exist", "--data-dir"]).await;
    let away = [("DATABASE_URL", "postgres://u:planted@127.0.0.1:1/x")];
    fails(folder, &["block", "bob"], &away, &["Check DATABASE_URL", "nothing was changed"]).await;
    let (_, _, err) = run(folder, &["block", "bob"], &away).await;
    assert!(!err.contains("planted"), "{err}");
    let empty = Postgres::shared().await.database().await;
    fails(folder, &["block", "bob"], &[("DATABASE_URL", &empty)], &["switchboard migrate"]).await;
    fails(folder, &["revoke", "bob", "--issued-until", "2999-01-01T00:00:00Z"], &away, &["future", "block"]).await;
    let token = issued(0);
    let whole = ["revoke", "bob", "--jti", &token];
    fails(folder, &whole, &away, &["take the jti claim"]).await;
    assert!(!run(folder, &whole, &away).await.2.contains(&token), "a token is a secret");
    fails(folder, &["revoke", "bob", "--jti", ""], &away, &["1 to 256 characters"]).await;
    for wrong in [
        &["block"][..],
        &["block", "a b"],
        &["revoke", "bob", "--issued-until", "soon"],
        &["revoke", "bob", "--jti", "x", "--issued-until", "2020-01-01T00:00:00Z"],
        &["block", "bob", "--token", SECRET],
        &["dance", "bob"],
        &[],
    ] {
        assert_eq!(run(folder, wrong, &[]).await.0, 2, "{wrong:?}");
    }
}
