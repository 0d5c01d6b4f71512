//! A Redis that lost its latest writes: a replica that lagged takes the place of the primary, behind the same address.

use super::*;
use crate::support::{Client, Postgres, Proxy, RedisServer, eventually};

/// The users that the registry of a Redis shows as online.
async fn online(redis: &RedisServer) -> Vec<String> {
    let mut users: Vec<String> = redis.command(&["SMEMBERS", "ws:online_users"]).await;
    users.sort();
    users
}

#[tokio::test]
async fn users_are_registered_anew_when_another_redis_answers_behind_the_same_address() {
    let (primary, replica) = (RedisServer::start().await, RedisServer::start().await);
    let proxy = Proxy::to(format!("127.0.0.1:{}", primary.port())).await;
    let database = Postgres::shared().await.database().await;
    let serve =
        || Node::serve(&proxy.url(&primary.url()), &database).set("NODE_LEASE", "3s").set("PRESENCE_GRACE", "0s");
    let (one, two) = (serve().start().await, serve().start().await);
    let _stays = Client::native(&one, "stays").await;
    let gone = Client::native(&two, "gone").await;
    eventually("both to be online", async || (online(&primary).await == ["gone", "stays"]).then_some(())).await;
    let _: String = replica.command(&["REPLICAOF", "127.0.0.1", &primary.port().to_string()]).await;
    eventually("the replica to follow", async || (online(&replica).await == ["gone", "stays"]).then_some(())).await;
    // From here on the replica takes nothing any more.
    let _: String = replica.command(&["REPLICAOF", "NO", "ONE"]).await;
    gone.close().await;
    let mut comes = Client::native(&one, "comes").await;
    comes.join("team").await;
    eventually("the primary to know", async || (online(&primary).await == ["comes", "stays"]).then_some(())).await;

    proxy.lead_to(format!("127.0.0.1:{}", replica.port()));
    proxy.drop_connections();
    let right = async || (online(&replica).await == ["comes", "stays"]).then_some(());
    eventually("the registry to be right again", right).await;
    let mut listener = Client::native(&two, "listener").await;
    listener.join_with_roster("team").await;
    comes.send_text("team", "hello").await;
    listener.until_where(|frame| frame["content"] == "hello").await;
    for node in [&one, &two] {
        assert_eq!(node.admin_get("/api/health").await.json["status"], "healthy");
    }
}

/// The replica still has the entries of users who left while it lagged, under leases that have not ended.
#[tokio::test]
async fn who_had_left_is_not_shown_again_by_a_redis_that_knows_nothing_of_it() {
    let (primary, replica) = (RedisServer::start().await, RedisServer::start().await);
    let proxy = Proxy::to(format!("127.0.0.1:{}", primary.port())).await;
    let database = Postgres::shared().await.database().await;
    let serve =
        || Node::serve(&proxy.url(&primary.url()), &database).set("NODE_LEASE", "6s").set("PRESENCE_GRACE", "0s");
    let (one, two) = (serve().start().await, serve().start().await);
    let mut watchers = [Client::native(&one, "anna").await, Client::native(&two, "ben").await];
    for watcher in &mut watchers {
        watcher.join_with_roster("team").await;
    }
    let mut goes = [Client::native(&one, "gone1").await, Client::native(&two, "gone2").await];
    for client in &mut goes {
        client.join("team").await;
    }
    let all = ["anna", "ben", "gone1", "gone2"];
    eventually("all to be online", async || (online(&primary).await == all).then_some(())).await;
    let _: String = replica.command(&["REPLICAOF", "127.0.0.1", &primary.port().to_string()]).await;
    eventually("the replica to follow", async || (online(&replica).await == all).then_some(())).await;
    let _: String = replica.command(&["REPLICAOF", "NO", "ONE"]).await;
    drop(goes);
    for watcher in &mut watchers {
        let mut left = std::collections::HashSet::new();
        while left.len() < 2 {
            let gone = watcher.until_where(|frame| frame["online"] == false).await;
            left.insert(gone["user_id"].to_string());
        }
    }

    proxy.lead_to(format!("127.0.0.1:{}", replica.port()));
    proxy.drop_connections();
    let right = async || (online(&replica).await == ["anna", "ben"]).then_some(());
    eventually("the registry to be right again", right).await;
    let leases = async || {
        let nodes: Vec<String> = replica.command(&["ZRANGE", "ws:nodes", "0", "-1"]).await;
        (nodes.iter().filter(|node| node.contains('#')).count() == 2).then_some(())
    };
    eventually("the former leases to be over", leases).await;
    for (watcher, node) in watchers.iter_mut().zip([&two, &one]) {
        let mut speaker = Client::native(node, "carla").await;
        speaker.join("team").await;
        speaker.send_text("team", "a mark").await;
        let mut told = Vec::new();
        watcher
            .until_where(|frame| {
                if frame["user_id"].as_str().is_some_and(|user| user.starts_with("gone")) {
                    told.push(frame.clone());
                }
                frame["content"] == "a mark"
            })
            .await;
        assert!(told.is_empty(), "{told:?}");
    }
}

/// The end of one socket is the user's departure if Redis knows no other one. The node with the other one corrects that.
#[tokio::test]
async fn a_user_whose_entry_was_deleted_is_shown_again_by_the_node_that_has_the_socket() {
    let redis = RedisServer::start().await;
    let database = Postgres::shared().await.database().await;
    let serve = || Node::serve(&redis.url(), &database).set("PRESENCE_GRACE", "0s");
    let (one, two) = (serve().start().await, serve().start().await);
    let mut anna = Client::native(&one, "anna").await;
    anna.join_with_roster("team").await;
    let mut bob = Client::native(&two, "bob").await;
    bob.join("team").await;
    anna.until_where(|frame| frame["user_id"] == "bob" && frame["online"] == true).await;
    assert_eq!(redis.command::<i64>(&["DEL", "ws:conns:bob"]).await, 1);
    let mut other = Client::native(&one, "bob").await;
    other.join("team").await;
    other.close().await;
    anna.until_where(|frame| frame["user_id"] == "bob" && frame["online"] == false).await;
    anna.until_where(|frame| frame["user_id"] == "bob" && frame["online"] == true).await;
    assert_eq!(online(&redis).await, ["anna", "bob"]);
}
