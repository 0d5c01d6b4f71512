//! Requests that schemathesis generates from `docs/protocol/openapi.yaml`: valid ones are accepted, invalid ones are refused
//! with a documented status, and no request causes a fault of the server.

use std::time::Duration;

use serde_json::json;
use switchboard::http::{Access, endpoints};
use tokio::{process::Command, time::timeout};

use crate::support::{Node, token_with};

/// A program that `scripts/setup.sh` installs.
const SCHEMATHESIS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/clients/python/bin/schemathesis");
const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/protocol/openapi.yaml");
/// The folder of `schemathesis_hooks.py`.
const HOOKS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients");
/// Maximum time of the run. It takes about 10 s on an idle machine, and minutes on a very busy one.
const MAX_RUN: Duration = Duration::from_secs(600);
/// The checks; others need several users, or generated data that persists.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,\
    response_schema_conformance,negative_data_rejection,positive_data_acceptance,unsupported_method,allow_header_conformance";

#[tokio::test(flavor = "multi_thread")]
async fn generated_requests_are_answered_as_documented() {
    let node = Node::dev().start().await;
    let admin = token_with("alice", json!({"role": "admin"}));
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(SCHEMATHESIS);
    // The same seed generates the same requests.
    command.args([
        "--no-color",
        "run",
        DOCUMENT,
        "--seed",
        "1",
        "--max-examples",
        "5",
        "--phases",
        "examples,coverage,fuzzing",
    ]);
    command.args(["--url", &node.http(), "--header", &format!("Authorization: Bearer {admin}")]);
    // The clients' address doesn't have the metrics.
    command.args(["--exclude-path", "/metrics", "--checks", CHECKS, "--warnings", "off"]);
    command
        .env("PYTHONPATH", HOOKS)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("SCHEMATHESIS_HOOKS", "schemathesis_hooks");
    command.current_dir(folder.path()).kill_on_drop(true);
    let ran = timeout(MAX_RUN, command.output()).await.expect("the run ends in time");
    let ran = ran.unwrap_or_else(|error| panic!("{SCHEMATHESIS}: {error}; scripts/setup.sh installs it"));
    let printed = [ran.stdout, ran.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(ran.status.success(), "{printed}");
    let operations = endpoints().filter(|route| matches!(route.access, Access::Open | Access::Token)).count() - 1;
    assert!(printed.contains(&format!("Tested: {operations}")), "{operations} operations are tried: {printed}");
}
