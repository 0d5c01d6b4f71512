//! Runs the commands of `docs/operations/restore.md` as they stand: a database is backed up and restored while nodes run, and
//! while they are stopped. Clients of every dialect then have what the store has, and get new messages once and in order.

use std::{path::Path, process::Command};

use serde_json::json;
use tempfile::TempDir;

use crate::{
    set_back::scene::{Ear, GROUPS, Scene, Speech},
    support::{Client, Node, Postgres, Process, Signal, eventually, token},
};

const PAGE: &str = include_str!("../../docs/operations/restore.md");
const LISTENERS: [&str; 4] = ["bob", "carol", "dave", "erin"];

/// The shell blocks of the page, in their order.
fn blocks() -> [&'static str; 5] {
    let (_, rest) = PAGE.split_once("<!-- tests/it/restore.rs runs").expect("the page has the remark");
    let blocks = rest.split("```sh\n").skip(1).map(|block| block.split_once("```").expect("a block ends").0);
    blocks.collect::<Vec<_>>().try_into().expect("five blocks")
}

/// A deployment on a database with the name of the page, and an operator's folder.
struct Place {
    scene: Scene,
    folder: TempDir,
    team: String,
    direct: String,
}

impl Place {
    async fn new() -> Self {
        let server = Postgres::start(&[("fsync", "off")]).await;
        let client = server.connect("postgres").await;
        for statement in ["CREATE ROLE switchboard LOGIN", "CREATE DATABASE switchboard OWNER switchboard"] {
            client.batch_execute(statement).await.unwrap();
        }
        let scene = Scene::of(server, "switchboard", "switchboard", 2).await;
        let team = scene.at(0).conversation(&token("alice"), &LISTENERS).await;
        let mut alice = Client::native(scene.at(0), "alice").await;
        let frame = json!({"type": "send", "recipient_id": "frank", "content": "kept 1", "client_id": "first"});
        alice.send(&frame).await;
        let direct = alice.until("ack").await["conversation_id"].as_str().unwrap().to_owned();
        Self { scene, folder: tempfile::tempdir().unwrap(), team, direct }
    }

    /// Runs a block of the page in the operator's shell.
    async fn run(&self, block: &str) {
        let port = self.scene.server.as_ref().unwrap().address().rsplit(':').next().unwrap().to_owned();
        let mut command = Command::new("bash");
        command.args(["-euo", "pipefail", "-c", block]).current_dir(self.folder.path()).env_clear();
        command.env("PATH", "/usr/local/bin:/usr/bin:/bin");
        command.env("PGHOST", "127.0.0.1").env("PGPORT", port).env("PGUSER", "postgres");
        let process = Process::spawn("restore.md", &mut command, Signal::Kill);
        assert_eq!(process.exit_code().await, 0, "{block}\n{:?}", process.log());
    }

    /// Says the same in both conversations.
    async fn say(&self, texts: &[&str]) {
        for (at, text) in texts.iter().enumerate() {
            self.scene.say(at, &self.team, text).await;
            self.scene.say(at, &self.direct, text).await;
        }
    }

    /// A listener of each dialect, of the two conversations.
    async fn ears(&self) -> Vec<Ear> {
        let mut ears = Vec::new();
        for (at, (speech, user)) in GROUPS.into_iter().zip(LISTENERS).enumerate() {
            ears.push(Ear::open(self.scene.at(at), speech, user, &self.team, None).await);
        }
        ears.push(Ear::open(self.scene.at(1), Speech::Direct, "frank", &self.direct, None).await);
        ears
    }

    fn log_of(&self, ear: &Ear) -> &str {
        if ear.speech == Speech::Direct { &self.direct } else { &self.team }
    }
}

#[tokio::test]
async fn a_backup_is_restored_while_nodes_run() {
    let [dump, close, restore, epoch, swap] = blocks();
    let place = Place::new().await;
    let mut ears = place.ears().await;
    place.say(&["kept 2", "kept 3"]).await;
    place.run(dump).await;
    place.say(&["lost 4", "lost 5", "lost 6"]).await;
    for ear in &mut ears {
        ear.until("lost 6").await;
    }
    place.run(close).await;
    let refused = async || {
        let path = format!("/api/chat/conversations/{}/messages", place.team);
        let answer = place.scene.at(0).post(&path, &token("alice"), &json!({"content": "never"})).await;
        assert!(answer.status == 503 || answer.status.is_success(), "{}", answer.text);
        (answer.status == 503).then_some(())
    };
    eventually("a refused send", refused).await;
    for block in [restore, epoch, swap] {
        place.run(block).await;
    }
    for ear in &mut ears {
        ear.until_resync().await;
    }
    let new = ["new 1", "new 2", "new 3", "new 4"];
    place.say(&new).await;
    for (at, ear) in ears.iter_mut().enumerate() {
        ear.until("new 4").await;
        ear.drain().await;
        assert_eq!(ear.resyncs.len(), 1, "{:?}: {:?}", ear.speech, ear.resyncs);
        ear.expect_heard(&new);
        ear.read_anew(place.scene.at(at)).await;
        assert_eq!(ear.has, place.scene.stored(place.log_of(ear)).await, "{:?}", ear.speech);
    }
    place.scene.settled().await;
}

#[tokio::test]
async fn a_backup_is_restored_while_nodes_are_stopped() {
    let [dump, close, restore, epoch, swap] = blocks();
    let mut place = Place::new().await;
    let before = Client::native(place.scene.at(0), "bob").await.greeting["epoch"].clone();
    place.say(&["kept 2", "kept 3"]).await;
    place.run(dump).await;
    place.say(&["lost 4", "lost 5", "lost 6"]).await;
    for node in place.scene.nodes.drain(..) {
        assert_eq!(node.terminate().await, 0);
    }
    for block in [close, restore, epoch, swap] {
        place.run(block).await;
    }
    for _ in 0..2 {
        place.scene.nodes.push(place.scene.node().start().await);
    }
    let after = Client::native(place.scene.at(0), "bob").await.greeting["epoch"].clone();
    assert!(before == json!(1) && after.as_i64() > Some(1_700_000_000), "{before} {after}");
    // All clients come back: those who had everything, and those who lacked something that is kept. A direct client gets what
    // it has not confirmed.
    let (lost_head, mut ears) = (5, Vec::new());
    for (speech, user) in GROUPS.into_iter().zip(LISTENERS) {
        let mut ahead = Ear::open(place.scene.at(0), speech, user, &place.team, Some(lost_head)).await;
        ahead.until_resync_or_now().await;
        ears.push((0, ahead));
        ears.push((1, Ear::open(place.scene.at(1), speech, user, &place.team, Some(1)).await));
    }
    let new = ["new 1", "new 2", "new 3", "new 4"];
    place.say(&new).await;
    let stored = place.scene.stored(&place.team).await;
    for (node, ear) in &mut ears {
        ear.until("new 4").await;
        let missed = if *node == 0 { &[][..] } else { &["kept 3"] };
        ear.expect_heard(&[missed, &new].concat());
        ear.read_anew(place.scene.at(*node)).await;
        assert_eq!(ear.has, stored, "{:?}", ear.speech);
    }
    let mut direct = Ear::open(place.scene.at(0), Speech::Direct, "frank", &place.direct, None).await;
    direct.until("new 4").await;
    assert_eq!(direct.has, place.scene.stored(&place.direct).await);
}

/// The files of the embedded store, copied while the node is stopped.
fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        if entry.file_name().to_string_lossy().starts_with("switchboard.db") {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

#[tokio::test]
async fn a_copy_of_the_embedded_store_is_restored() {
    let (_, rest) = PAGE.split_once("```sql\n").unwrap();
    let statement = rest.split_once("```").unwrap().0;
    let (data, backup) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let node = || Node::dev().set("DATA_DIR", data.path().display()).start();
    let say = async |node: &Node, text: &str| {
        let answer =
            node.post("/api/chat/conversations/team/messages", &token("alice"), &json!({"content": text})).await;
        assert!(answer.status.is_success(), "{}", answer.text);
    };
    let one = node().await;
    Client::native(&one, "alice").await.join("team").await;
    say(&one, "kept").await;
    assert_eq!(one.terminate().await, 0);
    copy(data.path(), backup.path());
    let one = node().await;
    say(&one, "lost").await;
    let mut bob = Client::native(&one, "bob").await;
    let head = bob.join("team").await["head"].as_i64().unwrap();
    assert_eq!(one.terminate().await, 0);
    for entry in std::fs::read_dir(data.path()).unwrap().map(Result::unwrap) {
        if entry.file_name().to_string_lossy().starts_with("switchboard.db") {
            std::fs::remove_file(entry.path()).unwrap();
        }
    }
    copy(backup.path(), data.path());
    rusqlite::Connection::open(data.path().join("switchboard.db")).unwrap().execute_batch(statement).unwrap();
    let one = node().await;
    let mut again = Client::native(&one, "bob").await;
    assert_ne!(again.greeting["epoch"], bob.greeting["epoch"]);
    again.send(&json!({"type": "join", "conversation_id": "team", "since_seq": head, "ref": 1})).await;
    assert!(again.until("resync").await["head"].as_i64().unwrap() < head);
    say(&one, "new").await;
    assert_eq!(again.until("message").await["content"], "new");
}
