//! Clients that generators make of the protocol's documents, with the commands of `docs/protocol/clients.md`: they compile,
//! run against a node, and can express what its users do.
//!
//! `scripts/setup.sh` installs the generators. `rest/generators.rs` and `transcripts/generators.rs` check the documents
//! for the generators that don't run here.

use std::{collections::BTreeSet, os::unix::fs::symlink, path::Path};

use reqwest::Method;
use serde_json::json;
use tempfile::TempDir;
use tokio::process::Command;

use crate::support::{Node, token};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/generated");
const PAGE: &str = include_str!("../../docs/protocol/clients.md");
/// Packages that `scripts/setup.sh` installs.
const NODE_MODULES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/clients/generators/node_modules");
const PYTHON_PROGRAMS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/clients/python/bin");

/// The blocks of the page in a language.
fn blocks(language: &str) -> Vec<&'static str> {
    let start = format!("```{language}\n");
    let blocks = PAGE.split(start.as_str()).skip(1);
    blocks.map(|rest| rest.split_once("```").expect("a block ends").0).collect()
}

/// A folder in which a reader of the page generates a client.
struct Workplace {
    folder: TempDir,
}

impl Workplace {
    /// Makes the folder, with what the page's installations would add.
    fn new() -> Self {
        assert!(Path::new(NODE_MODULES).is_dir(), "{NODE_MODULES}: scripts/setup.sh installs it");
        let folder = tempfile::tempdir().unwrap();
        symlink(format!("{ROOT}/docs"), folder.path().join("docs")).unwrap();
        symlink(NODE_MODULES, folder.path().join("node_modules")).unwrap();
        std::fs::write(folder.path().join("package.json"), json!({"type": "module"}).to_string()).unwrap();
        Self { folder }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Copies a source.
    fn copy(&self, name: &str) {
        std::fs::copy(format!("{SOURCES}/{name}"), self.path().join(name)).unwrap();
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path().join(name), text).unwrap();
    }

    /// Runs the page's command that generates, whose first word is this.
    async fn generate(&self, program: &str) {
        let lines = blocks("sh").into_iter().flat_map(str::lines);
        let commands: Vec<_> = lines.filter(|line| line.starts_with(program)).collect();
        let [command] = commands.as_slice() else { panic!("one {program} of {commands:?}") };
        let mut words = command.split_whitespace();
        self.run(words.next().unwrap(), &words.collect::<Vec<_>>(), None).await;
    }

    /// Runs a program here, and returns what it prints. `node` is the node that clients call.
    async fn run(&self, program: &str, arguments: &[&str], node: Option<&Node>) -> String {
        let installed = Path::new(PYTHON_PROGRAMS).join(program);
        let mut command = if installed.exists() { Command::new(installed) } else { Command::new(program) };
        command.args(arguments).current_dir(self.path());
        // npx must not ask a registry for a program that is missing here.
        command.env("npm_config_offline", "true").env("PYTHONDONTWRITEBYTECODE", "1");
        command.env("PYTHONPATH", self.path().join("switchboard-client"));
        if let Some(node) = node {
            command.env("SWITCHBOARD_URL", node.http());
            for user in ["alice", "bob", "carol", "mallory"] {
                command.env(format!("TOKEN_{}", user.to_uppercase()), token(user));
            }
        }
        let ran = command.kill_on_drop(true).output().await.unwrap_or_else(|error| panic!("{program}: {error}"));
        let printed = [ran.stdout, ran.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
        assert!(ran.status.success(), "{program} {arguments:?}: {printed}");
        printed
    }
}

/// A node with the conversation of the page's examples.
async fn node_with_team() -> Node {
    let node = Node::dev().start().await;
    let team = json!({"id": "team", "is_group": true});
    let made = node.request(Method::POST, "/api/chat/conversations", Some(&token("alice")), Some(&team)).await;
    assert_eq!(made.status, 201, "{}", made.text);
    node
}

#[tokio::test]
async fn a_strict_typescript_client_talks_to_a_node() {
    let work = Workplace::new();
    work.generate("npx").await;
    work.copy("walk.ts");
    work.copy("tsconfig.json");
    let [example] = blocks("typescript")[..] else { panic!("one example") };
    let given = "declare const process: { env: Record<string, string> };\nconst url = process.env.SWITCHBOARD_URL!;\n\
                 const token = process.env.TOKEN_ALICE!;\n";
    work.write("page.ts", &format!("{given}{example}"));
    work.run("npx", &["tsc"], None).await;

    let node = node_with_team().await;
    assert_eq!(work.run("node", &["walk.js"], Some(&node)).await, "the walk holds\n");
    let printed = work.run("node", &["page.js"], Some(&node)).await;
    assert!(printed.starts_with("1 20"), "a seq and a time: {printed}");
}

#[tokio::test]
async fn a_python_client_talks_to_a_node() {
    let work = Workplace::new();
    work.generate("openapi-python-client").await;
    work.copy("walk.py");
    let [example] = blocks("python")[..] else { panic!("one example") };
    let given = "import os\nurl, token = os.environ['SWITCHBOARD_URL'], os.environ['TOKEN_ALICE']\n";
    work.write("page.py", &format!("{given}{example}"));

    let node = node_with_team().await;
    assert_eq!(work.run("python", &["walk.py"], Some(&node)).await, "the walk holds\n");
    let printed = work.run("python", &["page.py"], Some(&node)).await;
    assert!(printed.starts_with("1 20"), "a seq and a time: {printed}");
}

/// A type without a name is `AnonymousSchema_17`; the number changes with the document.
#[tokio::test]
async fn every_type_of_modelina_has_a_name() {
    let work = Workplace::new();
    work.copy("names.cjs");
    let languages = ["TypeScriptGenerator", "GoGenerator", "JavaGenerator"];
    let arguments = [&["names.cjs", "docs/protocol/asyncapi.yaml"][..], &languages].concat();
    let printed = work.run("node", &arguments, None).await;
    for language in languages {
        let names = printed.lines().filter_map(|line| line.strip_prefix(language)).map(str::trim);
        let names: BTreeSet<&str> = names.filter(|name| !name.is_empty()).collect();
        assert!(names.contains("NativeSendFromClient") && names.len() > 100, "{names:?}");
        let nameless: Vec<_> = names.iter().filter(|name| name.contains("Anonymous")).collect();
        assert!(nameless.is_empty(), "{language}: {nameless:?}");
    }
}
