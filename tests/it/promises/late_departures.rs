//! A user who comes back while a node is about to announce the departure stays shown as present.

use std::time::Duration;

use serde_json::Value;
use tokio::time::timeout;

use super::live_presence::{Nodes, member};
use crate::support::{Client, Link, allowed, eventually};

fn tells(frame: &Value, kind: &str, user: &str) -> bool {
    frame["type"] == kind && frame["user_id"] == user
}

/// Lets users leave, one after the other, until the second node handles a departure. Its link then breaks at the first
/// request with the pattern. Returns the user.
async fn departure_on_two(nodes: &Nodes, watcher: &mut Client, pattern: impl Fn(&str) -> String, then: Link) -> String {
    for attempt in 0..20 {
        let user = format!("user-{attempt}");
        member(&nodes.one, &user).await.close().await;
        let key = format!("ws:conns:{user}");
        let due = async || nodes.redis.command::<bool>(&["HEXISTS", &key, "d"]).await.then_some(());
        eventually("the departure is due later", due).await;
        nodes.link.set_at(&pattern(&user), 1, then);
        tokio::select! {
            () = nodes.link.reached(then) => return user,
            _ = watcher.until_where(|frame| tells(frame, "user_left", &user)) => {}
        }
    }
    panic!("the second node handled no departure")
}

#[tokio::test]
async fn who_is_back_before_the_departure_is_announced_never_left() {
    let nodes = Nodes::start().await;
    let mut watcher = member(&nodes.one, "watcher").await;
    // The claim of the departure reaches Redis, and its answer is held.
    let user = departure_on_two(&nodes, &mut watcher, |user| format!("ws:conns:{user}"), Link::Mute).await;
    let back = member(&nodes.one, &user).await;
    watcher.until_where(|frame| tells(frame, "user_joined", &user)).await;
    nodes.link.set(Link::Open);
    // Time for the announcement that must not come.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let told = watcher.drain().await;
    assert!(!told.iter().any(|frame| tells(frame, "user_left", &user)), "{told:?}");
    back.close().await;
    watcher.until_where(|frame| tells(frame, "user_left", &user)).await;
}

#[tokio::test]
async fn a_departure_that_comes_after_the_next_arrival_is_corrected() {
    let nodes = Nodes::with_grace("3s").await;
    let mut watcher = member(&nodes.one, "watcher").await;
    let leaves = |_: &str| "\"active\":false".to_owned();
    let user = departure_on_two(&nodes, &mut watcher, leaves, Link::Frozen).await;
    let _back = member(&nodes.one, &user).await;
    watcher.until_where(|frame| tells(frame, "user_joined", &user)).await;
    nodes.link.set(Link::Open);
    let left = timeout(allowed(Duration::from_secs(3)), watcher.until_where(|frame| tells(frame, "user_left", &user)));
    if left.await.is_err() {
        // The second node waited too long for Redis, and the announcement is lost.
        return;
    }
    let back = watcher.until_where(|frame| tells(frame, "user_joined", &user));
    // The comparison that is made once a minute would come later.
    timeout(allowed(Duration::from_secs(15)), back).await.expect("the watcher is told that the user is there");
}
