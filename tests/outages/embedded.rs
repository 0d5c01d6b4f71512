//! The embedded store: a node that is killed under load has lost no acked message.

use std::collections::BTreeMap;

use serde_json::json;
use tokio::task::JoinSet;

use super::scene::{TEAM, listener};
use crate::support::{Client, Node, eventually};

const SPEAKERS: usize = 4;

/// Sends messages one after the other until the node is gone. Returns the acked ones and the number sent.
async fn send_until_the_node_ends(mut speaker: Client) -> (BTreeMap<i64, String>, usize) {
    let (mut acked, who) = (BTreeMap::new(), speaker.greeting["user_id"].as_str().unwrap().to_owned());
    for at in 0.. {
        let id = format!("{who}-{at}");
        let frame = json!({"type": "send", "conversation_id": TEAM, "content": id, "client_id": id});
        if speaker.try_send(&frame).await.is_err() {
            return (acked, at);
        }
        loop {
            match speaker.recv_or_close().await {
                Ok(answer) if answer["type"] == "ack" && answer["client_id"] == id => {
                    acked.insert(answer["seq"].as_i64().unwrap(), id);
                    break;
                }
                Ok(_) => {}
                Err(_) => return (acked, at + 1),
            }
        }
    }
    unreachable!("the node ends first")
}

#[tokio::test]
async fn a_killed_node_with_the_embedded_store_loses_no_acked_message() {
    let data = tempfile::tempdir().unwrap();
    let start = || Node::dev().set("DATA_DIR", data.path().display()).start();
    let node = start().await;
    let mut speakers = JoinSet::new();
    for at in 0..SPEAKERS {
        speakers.spawn(send_until_the_node_ends(listener(&node, &format!("speaker{at}")).await));
    }
    let accepted =
        || async { node.metrics().await.get("switchboard_messages_accepted_total").filter(|sent| *sent > 200.0) };
    eventually("the load to be under way", accepted).await;
    node.kill().await;
    let (mut acked, mut sent) = (BTreeMap::new(), 0);
    for (mine, count) in speakers.join_all().await {
        acked.extend(mine);
        sent += count;
    }
    assert!(acked.len() > 200 && sent - acked.len() <= SPEAKERS, "{} of {sent} were acked", acked.len());

    let node = start().await;
    let mut reader = Client::native(&node, "reader").await;
    reader.send(&json!({"type": "join", "conversation_id": TEAM, "since_seq": 0, "ref": 1})).await;
    let head = reader.until("joined").await["head"].as_i64().unwrap();
    let mut stored = BTreeMap::new();
    while !stored.contains_key(&head) {
        // Frames without a seq, such as presence, are no entries of the log.
        let entry = reader.until_where(|frame| frame["seq"].is_i64()).await;
        let content = entry["content"].as_str().map(str::to_owned);
        assert!(stored.insert(entry["seq"].as_i64().unwrap(), content).is_none(), "twice: {entry}");
    }
    assert!(stored.keys().copied().eq(1..=head), "no gap");
    for (seq, content) in &acked {
        assert_eq!(stored[seq].as_ref(), Some(content), "acked, so stored");
    }
    let messages: Vec<_> = stored.values().flatten().collect();
    assert!(messages.len() <= sent, "no message that was not sent");
    assert_eq!(messages.iter().collect::<std::collections::HashSet<_>>().len(), messages.len(), "once");
}
