//! The command line: output, exit codes and configuration.

use std::process::{Command, Output};

use tempfile::TempDir;

use crate::support::{Node, Postgres, RedisServer};

const SECRET: &str = "planted-secret-of-more-than-32-bytes";

/// Runs the program in its own folder, without the tests' environment.
fn run(folder: &TempDir, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_switchboard"));
    command.args(arguments).env_clear().envs(environment.iter().copied()).current_dir(folder.path());
    command.output().unwrap()
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn help_and_version_go_to_standard_output() {
    let folder = folder();
    let version = run(&folder, &["--version"], &[]);
    assert_eq!((code(&version), version.stderr.len()), (0, 0));
    assert!(stdout(&version).starts_with(concat!("switchboard ", env!("CARGO_PKG_VERSION"), " (")));
    let help = run(&folder, &["--help"], &[]);
    assert_eq!(code(&help), 0);
    for name in
        ["dev", "chat", "serve", "migrate", "token", "check", "healthcheck", "JWT_SECRET_FILE", "MAX_CONNECTIONS"]
    {
        assert!(stdout(&help).contains(name), "{name}");
    }
}

#[test]
fn wrong_usage_ends_with_2_and_bad_configuration_with_78() {
    let folder = folder();
    for arguments in [&["dance"][..], &["serve", "--dance"], &["token"], &["token", "--user", "a b"]] {
        assert_eq!(code(&run(&folder, arguments, &[])), 2, "{arguments:?}");
    }
    for command in ["serve", "check", "migrate"] {
        assert_eq!(code(&run(&folder, &[command], &[])), 78, "{command}");
    }
    let bad = run(&folder, &["serve"], &[("JWT_SECRET", "planted"), ("LISTEN", "here"), ("PING_INTERVAL", "often")]);
    let text = stderr(&bad);
    assert_eq!((code(&bad), bad.stdout.len()), (78, 0));
    for name in ["JWT_SECRET", "LISTEN", "PING_INTERVAL", "REDIS_URL", "DATABASE_URL"] {
        assert!(text.contains(name), "{name} in {text}");
    }
    assert!(!text.contains("planted"), "{text}");
}

#[test]
fn dev_refuses_an_address_that_is_not_loopback() {
    let refused = run(&folder(), &["dev", "--listen", "0.0.0.0:0"], &[]);
    assert_eq!(code(&refused), 78);
    assert!(stderr(&refused).contains("LISTEN must be a loopback address"));
}

#[test]
fn token_prints_only_the_token_on_standard_output() {
    let folder = folder();
    let made = run(&folder, &["token", "--user", "alice", "--role", "admin", "--ttl", "1h"], &[("JWT_SECRET", SECRET)]);
    assert_eq!((code(&made), made.stderr.len()), (0, 0));
    assert_eq!(stdout(&made).trim_end().split('.').count(), 3);
    assert_eq!(stdout(&made).lines().count(), 1);
    let none = run(&folder, &["token", "--user", "alice"], &[("JWT_JWKS_URL", "https://id.example.com/keys")]);
    assert_eq!((code(&none), none.stdout.len()), (1, 0));
}

#[test]
fn a_lifetime_out_of_the_bounds_is_refused_with_the_flag_and_the_bounds() {
    let folder = folder();
    let secret = [("JWT_SECRET", "a secret of tests, long enough for HS256")];
    for bad in ["0", "500ms", "366d", "99999999d", "3000000h"] {
        let output = run(&folder, &["token", "--user", "alice", "--ttl", bad], &secret);
        let text = stderr(&output);
        assert!(code(&output) == 2 && text.contains("--ttl") && text.contains("from 1s to 365d"), "{bad}: {output:?}");
    }
    assert_eq!(code(&run(&folder, &["token", "--user", "alice", "--ttl", "365d"], &secret)), 0);
}

#[test]
fn a_dotenv_file_is_read_and_never_overrides_the_environment() {
    let folder = folder();
    std::fs::write(folder.path().join(".env"), format!("SECRET_KEY={SECRET}\nTOKEN_TTL=soon\n")).unwrap();
    let bad = run(&folder, &["token", "--user", "alice"], &[]);
    assert!(code(&bad) == 78 && stderr(&bad).contains("TOKEN_TTL"), "{}", stderr(&bad));
    assert_eq!(code(&run(&folder, &["token", "--user", "alice"], &[("TOKEN_TTL", "1h")])), 0);
    assert_eq!(code(&run(&folder, &["token", "--user", "alice", "--token-ttl", "1h"], &[("TOKEN_TTL", "soon")])), 0);
}

#[test]
fn healthcheck_and_check_name_a_server_that_does_not_answer() {
    let folder = folder();
    let silent = run(&folder, &["healthcheck"], &[("ADMIN_LISTEN", "127.0.0.1:1")]);
    assert!(code(&silent) == 1 && stderr(&silent).contains("127.0.0.1:1"), "{}", stderr(&silent));
    let elsewhere = run(&folder, &["healthcheck", "--url", "http://localhost:1/"], &[("LISTEN", "not read")]);
    let said = stderr(&elsewhere);
    assert!(code(&elsewhere) == 1 && said.contains("http://localhost:1/livez: check the name"), "{said}");
    let nowhere = [
        ("JWT_SECRET", SECRET),
        ("REDIS_URL", "redis://:planted@127.0.0.1:1"),
        ("DATABASE_URL", "postgres://u:planted@127.0.0.1:1/x"),
    ];
    let check = run(&folder, &["check"], &nowhere);
    let text = stdout(&check);
    assert_eq!(code(&check), 1, "{text}{}", stderr(&check));
    assert!(text.contains("ok    configuration") && text.contains("ok    keys"), "{text}");
    assert!(text.contains("FAIL  Redis") && text.contains("FAIL  PostgreSQL"), "{text}");
    assert!(!text.contains("planted") && !stderr(&check).contains("planted"), "{text}");
}

#[tokio::test]
async fn healthcheck_speaks_to_nodes_that_expect_a_proxy_header_and_to_those_that_do_not() {
    let folder = folder();
    let redis = RedisServer::start().await;
    let database = Postgres::shared().await.database().await;
    let node = async |trusted| {
        let node = Node::serve(&redis.url(), &database).set("PROXY_PROTOCOL", "true").set("TRUSTED_PROXIES", trusted);
        node.start().await
    };
    let (inside, outside) = (node("127.0.0.0/8").await, node("192.0.2.0/24").await);
    let check = |node: &Node, flags: &[&str]| {
        let url = node.http();
        run(&folder, &[&["healthcheck", "--url", &url][..], flags].concat(), &[])
    };
    for node in [&inside, &outside] {
        let output = check(node, &["--proxy-protocol"]);
        assert_eq!(code(&output), 0, "{}", stderr(&output));
    }
    assert_eq!(code(&check(&outside, &[])), 0);
    let refused = check(&inside, &[]);
    assert!(code(&refused) == 1 && stderr(&refused).contains("add --proxy-protocol"), "{}", stderr(&refused));

    // It is for nodes, whose sockets are plain, and says so.
    for url in ["https://127.0.0.1:1", "nowhere"] {
        let output = run(&folder, &["healthcheck", "--proxy-protocol", "--url", url], &[]);
        assert!(stderr(&output).contains("http://host:port, which --proxy-protocol needs"), "{}", stderr(&output));
    }
    assert_eq!(code(&run(&folder, &["healthcheck", "--proxy-protocol"], &[])), 2);
}

#[test]
fn token_inspect_names_every_flaw_and_shows_no_signature_and_no_key() {
    let folder = folder();
    let environment = [("JWT_SECRET", SECRET), ("JWT_AUDIENCE", "chat")];
    let mint = |environment: &[(&str, &str)], user: &str| {
        let made = run(&folder, &["token", "--user", user, "--name", "Alice", "--ttl", "1h"], environment);
        stdout(&made).trim().to_owned()
    };
    let good = mint(&environment, "auth0|abc");
    let inspected = run(&folder, &["token", "--inspect", &good], &environment);
    let text = stdout(&inspected);
    assert_eq!(code(&inspected), 0, "{text}{}", stderr(&inspected));
    for part in ["HS256", "\"auth0|abc\"", "\"Alice\"", "from now", "signature: it matches", "ok "] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let other = mint(&[("JWT_SECRET", "another-secret-of-more-than-32-bytes")], "alice");
    let inspected = run(&folder, &["token", "--inspect", &other], &environment);
    let text = stdout(&inspected);
    assert_eq!(code(&inspected), 1, "{text}");
    for part in ["FAIL  signature: ", "FAIL  aud: ", "JWT_SECRET is the same text"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let signature = other.rsplit_once('.').unwrap().1;
    assert!(!text.contains(signature) && !text.contains(SECRET), "{text}");

    // Without a key the claims are explained all the same; unsigned tokens are refused.
    let unchecked = run(&folder, &["token", "--inspect", &good], &[]);
    assert!(code(&unchecked) == 0 && stdout(&unchecked).contains("not checked: no key is configured"));
    let unsigned = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbGljZSIsImV4cCI6MTgwMDAwMDAwMDAwMH0.";
    let inspected = run(&folder, &["token", "--inspect", unsigned], &environment);
    let text = stdout(&inspected);
    assert!(code(&inspected) == 1 && text.contains("FAIL  alg: ") && text.contains("Divide exp by 1,000"), "{text}");
    assert_eq!(code(&run(&folder, &["token", "--inspect", &good, "--user", "alice"], &environment)), 2);
}

#[test]
fn passwords_in_urls_of_keys_are_never_shown() {
    let folder = folder();
    for url in ["https://user:planted@127.0.0.1:1/keys", "ftp://user:planted@keys", "planted"] {
        let environment = [
            ("JWT_JWKS_URL", url),
            ("REDIS_URL", "redis://127.0.0.1:1"),
            ("DATABASE_URL", "postgres://u@127.0.0.1:1/x"),
            ("DATABASE_START_TIMEOUT", "1s"),
        ];
        for command in [&["check"][..], &["serve"], &["token", "--inspect", "a.b.c"], &["token", "--user", "alice"]] {
            let output = run(&folder, command, &environment);
            let text = stdout(&output) + &stderr(&output);
            assert!(code(&output) != 0 && !text.contains("planted"), "{command:?} {url}: {text}");
        }
    }
}
