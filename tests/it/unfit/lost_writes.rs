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
