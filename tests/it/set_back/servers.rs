//! Other servers in the place of the first one: they have the same identity as it, so that only the entries tell.

use super::{
    LISTENERS,
    scene::{Ear, GROUPS, Scene, Speech},
};
use std::time::Duration;

use serde_json::json;

use crate::support::{Client, Link, Postgres, Proxy, eventually, token};

/// Starts listeners of every dialect of groups.
async fn listeners(scene: &Scene) -> (String, Vec<Ear>) {
    let team = scene.at(0).conversation(&token("alice"), &LISTENERS).await;
    let mut ears = Vec::new();
    for (at, (speech, user)) in GROUPS.into_iter().zip(LISTENERS).enumerate() {
        ears.push(Ear::open(scene.at(at), speech, user, &team, None).await);
    }
    (team, ears)
}

async fn say_all(scene: &Scene, team: &str, texts: &[&str]) {
    for (at, text) in texts.iter().enumerate() {
        scene.say(at, team, text).await;
    }
}

/// Every listener resyncs once, and hears the new messages once and in order.
async fn expect(scene: &Scene, team: &str, ears: &mut [Ear], new: &[&str]) {
    let stored = scene.stored(team).await;
    for (at, ear) in ears.iter_mut().enumerate() {
        ear.until(new.last().unwrap()).await;
        ear.drain().await;
        assert_eq!(ear.resyncs.len(), 1, "{:?} {:?}", ear.speech, ear.resyncs);
        ear.expect_heard(new);
        ear.read_anew(scene.at(at)).await;
        assert_eq!(ear.has, stored, "{:?}", ear.speech);
    }
}

/// The connections break, and the next ones reach the restored server: no node ever counts the store as away.
#[tokio::test]
async fn a_snapshot_behind_the_same_address_is_noticed_without_an_outage() {
    for nodes in [1, 2] {
        let mut scene = Scene::alone(nodes).await;
        let (team, mut ears) = listeners(&scene).await;
        say_all(&scene, &team, &["kept 1", "kept 2", "kept 3"]).await;
        let snapshot = scene.server.as_ref().unwrap().snapshot().await;
        say_all(&scene, &team, &["lost 4", "lost 5", "lost 6"]).await;
        for ear in &mut ears {
            ear.until("lost 6").await;
        }
        scene.replace(snapshot);
        let new = ["new 4", "new 5", "new 6", "new 7", "new 8"];
        say_all(&scene, &team, &new).await;
        expect(&scene, &team, &mut ears, &new).await;
    }
}

/// No connection breaks, but new ones reach the restored server: those of the former one must not be used beside them.
#[tokio::test]
async fn a_connection_to_another_server_ends_the_use_of_the_former_one() {
    let mut scene = Scene::alone(1).await;
    let (team, mut ears) = listeners(&scene).await;
    say_all(&scene, &team, &["kept 1"]).await;
    let snapshot = scene.server.as_ref().unwrap().snapshot().await;
    say_all(&scene, &team, &["lost 2", "lost 3"]).await;
    for ear in &mut ears {
        ear.until("lost 3").await;
    }
    let former = scene.server.take().unwrap();
    scene.proxy.lead_to(snapshot.address());
    scene.server = Some(snapshot);
    // One of the node's connections breaks after the other, until a pool needs a new one.
    let sql = former.connect(&scene.name).await;
    let end = "SELECT count(pg_terminate_backend(pid)) FROM (SELECT pid FROM pg_stat_activity \
         WHERE datname = current_database() AND pid <> pg_backend_pid() ORDER BY backend_start LIMIT 1) one";
    let mut noticed = false;
    while !noticed {
        assert_eq!(sql.query_one(end, &[]).await.unwrap().get::<_, i64>(0), 1, "one more connection");
        let new = scene.at(0).logged("new connections to PostgreSQL lead to");
        noticed = tokio::time::timeout(Duration::from_secs(1), new).await.is_ok();
    }
    let new = ["new 2", "new 3", "new 4"];
    say_all(&scene, &team, &new).await;
    expect(&scene, &team, &mut ears, &new).await;
    let sql_left = "SELECT count(*) FROM log WHERE content LIKE 'new %'";
    assert_eq!(sql.query_one(sql_left, &[]).await.unwrap().get::<_, i64>(0), 0, "nothing was stored on the former one");
}

/// While all nodes are stopped, the server is replaced. Nothing but the entries differs, and Redis has the lost ones.
#[tokio::test]
async fn after_a_snapshot_was_restored_with_all_nodes_stopped_nothing_lost_comes_from_the_cache() {
    let mut scene = Scene::alone(1).await;
    let team = scene.at(0).conversation(&token("alice"), &LISTENERS).await;
    say_all(&scene, &team, &["kept 1", "kept 2", "kept 3", "kept 4"]).await;
    let snapshot = scene.server.as_ref().unwrap().snapshot().await;
    say_all(&scene, &team, &["lost 5", "lost 6", "lost 7"]).await;
    let cached = async || {
        let key = format!("room_messages:{team}");
        scene.redis.command::<Vec<String>>(&["LRANGE", &key, "0", "-1"]).await
    };
    eventually("the lost messages in the cache", async || {
        cached().await.iter().any(|entry| entry.contains("lost 7")).then_some(())
    })
    .await;
    for node in scene.nodes.drain(..) {
        assert_eq!(node.terminate().await, 0);
    }
    scene.replace(snapshot);
    scene.nodes.push(scene.node().start().await);
    for (at, since) in [2, 3, 4, 4].into_iter().enumerate() {
        let mut ear = Ear::open(scene.at(0), Speech::Native, "bob", &team, Some(since)).await;
        let content = format!("new {at}");
        scene.say(0, &team, &content).await;
        ear.until(&content).await;
        let stored = scene.stored(&team).await;
        let expected: Vec<&str> = stored.range(since + 1..).map(|(_, content)| content.as_str()).collect();
        ear.expect_heard(&expected);
    }
}

/// A standby that follows asynchronously, and lacks `lost`, takes the place of the primary.
async fn fail_over(scene: &mut Scene, team: &str, ears: &mut [Ear], lost: &[&str]) {
    let primary = scene.server.take().unwrap();
    let link = Proxy::to(primary.address()).await;
    let standby = primary.standby(&link.address().to_string()).await;
    say_all(scene, team, &["kept 1", "kept 2"]).await;
    eventually("a standby that has the messages", async || {
        let count = standby
            .connect(&scene.name)
            .await
            .query_one("SELECT count(*) FROM log WHERE content LIKE 'kept %'", &[])
            .await;
        count.ok().filter(|row| row.get::<_, i64>(0) == 2)
    })
    .await;
    link.set(Link::Cut);
    say_all(scene, team, lost).await;
    for ear in ears {
        ear.until(lost.last().unwrap()).await;
    }
    let mut primary: Postgres = primary;
    primary.kill().await;
    standby.promote().await;
    scene.replace(standby);
}

#[tokio::test]
async fn a_promoted_standby_that_lacked_acked_messages_makes_listeners_resync() {
    let mut scene = Scene::alone(2).await;
    let (team, mut ears) = listeners(&scene).await;
    fail_over(&mut scene, &team, &mut ears, &["lost 3", "lost 4"]).await;
    let new = ["new 3", "new 4", "new 5"];
    say_all(&scene, &team, &new).await;
    expect(&scene, &team, &mut ears, &new).await;
}

/// Nobody listens, so no node has anything to compare: the client that comes back finds another epoch.
#[tokio::test]
async fn a_promoted_standby_begins_an_epoch_also_if_nobody_listens() {
    for stopped in [false, true] {
        let mut scene = Scene::alone(1).await;
        let team = scene.at(0).conversation(&token("alice"), &LISTENERS).await;
        let epoch = async |scene: &Scene| {
            let url = format!("{}/v1/ws?token={}", scene.at(0).ws(), token("bob"));
            Client::connect(&url).await.until("authenticated").await["epoch"].as_i64().unwrap()
        };
        let before = epoch(&scene).await;
        fail_over(&mut scene, &team, &mut [], &["lost 3", "lost 4"]).await;
        if stopped {
            for node in scene.nodes.drain(..) {
                node.kill().await;
            }
            scene.nodes.push(scene.node().start().await);
        }
        say_all(&scene, &team, &["new 3", "new 4", "new 5"]).await;
        eventually("another epoch", async || (epoch(&scene).await > before).then_some(())).await;
    }
}

/// A client that listened before, and left, names the seq of a lost entry on the same socket: the log has reached it again.
#[tokio::test]
async fn a_seq_that_a_socket_has_from_before_a_set_back_is_not_taken_for_a_new_one() {
    let mut scene = Scene::alone(1).await;
    let (team, mut ears) = listeners(&scene).await;
    let mut bob = Client::native(scene.at(0), "bob").await;
    fail_over(&mut scene, &team, &mut ears, &["lost 3", "lost 4"]).await;
    let new = ["new 3", "new 4", "new 5"];
    say_all(&scene, &team, &new).await;
    expect(&scene, &team, &mut ears, &new).await;
    let mut join = json!({"type": "join", "conversation_id": team, "since_seq": 4, "ref": "old"});
    bob.send(&join).await;
    let answer = bob.until_where(|frame| frame["ref"] == "old").await;
    assert_eq!((&answer["type"], &answer["head"]), (&json!("resync"), &json!(5)), "{answer}");
    // It knows where it stands now, so the next join continues there.
    join["ref"] = "new".into();
    bob.send(&join).await;
    let answer = bob.until_where(|frame| frame["ref"] == "new").await;
    assert_eq!((&answer["type"], &answer["head"]), (&json!("joined"), &json!(5)), "{answer}");
    bob.until_where(|frame| frame["type"] == "message" && frame["content"] == "new 5").await;
    bob.send(&json!({"type": "leave", "conversation_id": team})).await;
    bob.until("left").await;
    (join["ref"], join["since_seq"]) = ("again".into(), 5.into());
    bob.send(&join).await;
    let answer = bob.until_where(|frame| frame["ref"] == "again").await;
    assert_eq!(answer["type"], "joined", "{answer}");
}
