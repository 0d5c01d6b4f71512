//! Users who speak, listen, come and leave over two nodes while the servers of Redis change, and what they must have seen.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use serde_json::Value;

use super::scene::{Sent, TEAM, assert_read, listener, presence, send_messages};
use crate::support::{Client, Node, allowed};

/// The users who are there in the end, in order.
pub(crate) const HERE: [&str; 10] = ["alice", "bob", "carol", "dave", "gina", "henry", "ivan", "judy", "wade", "xena"];
/// The users who leave meanwhile.
const LEAVERS: [&str; 2] = ["erin", "frank"];
/// Maximum time of a send.
const SLOWEST: Duration = Duration::from_secs(2);

/// Two users who listen, one on each node.
pub(crate) async fn listeners(nodes: &[Node; 2], users: [&str; 2]) -> [Client; 2] {
    tokio::join!(listener(&nodes[0], users[0]), listener(&nodes[1], users[1])).into()
}

/// The users who are there all the time.
pub(crate) struct Crowd {
    speakers: [Client; 2],
    readers: [Client; 2],
    watchers: [Client; 2],
}

/// The users who leave or come meanwhile.
pub(crate) struct Passers {
    leavers: Option<[Client; 2]>,
    latecomers: Vec<Client>,
}

/// Opens the sockets of all but the latecomers.
pub(crate) async fn gather(nodes: &[Node; 2]) -> (Crowd, Passers) {
    let crowd = Crowd {
        speakers: listeners(nodes, ["alice", "dave"]).await,
        readers: listeners(nodes, ["bob", "carol"]).await,
        watchers: listeners(nodes, ["wade", "xena"]).await,
    };
    (crowd, Passers { leavers: Some(listeners(nodes, LEAVERS).await), latecomers: Vec::new() })
}

impl Passers {
    /// The first ones come: before the change, so that a replica that lags does not know them.
    pub(crate) async fn grow(&mut self, nodes: &[Node; 2]) {
        self.latecomers.extend(listeners(nodes, ["ivan", "judy"]).await);
    }

    /// Some leave, and the last ones come.
    pub(crate) async fn change_places(&mut self, nodes: &[Node; 2]) {
        self.leavers = None;
        self.latecomers.extend(listeners(nodes, ["gina", "henry"]).await);
    }
}

impl Crowd {
    /// Speaks during a change, and checks that sends were quick and that readers got exactly what was acked.
    pub(crate) async fn speak_during<T>(&mut self, change: impl Debug, outage: impl Future<Output = T>) -> T {
        let stop = AtomicBool::new(false);
        let [alice, dave] = &mut self.speakers;
        let speaking = async { tokio::join!(send_messages(alice, 30, &stop), send_messages(dave, 30, &stop)) };
        let outage = async {
            let result = outage.await;
            stop.store(true, Ordering::Release);
            result
        };
        let (said, result) = tokio::join!(Box::pin(speaking), Box::pin(outage));
        let said = <[Sent; 2]>::from(said);
        let slowest = said.iter().map(Sent::slowest).max().unwrap();
        eprintln!("{change:?}: slowest ack {slowest:?}");
        assert!(slowest < allowed(SLOWEST), "{change:?}: {slowest:?}");
        let acked = said.into_iter().flat_map(|said| said.acked).collect();
        for reader in &mut self.readers {
            assert_read(reader, &acked).await;
        }
        result
    }

    /// Checks that those who left were shown as offline, and nobody else who is there.
    pub(crate) async fn assert_shown(&mut self, change: impl Debug) {
        for watcher in &mut self.watchers {
            let mut frames = Vec::new();
            let gone = |frames: &[Value]| {
                let last = last_words(frames);
                LEAVERS.iter().all(|leaver| last.get(*leaver) == Some(&false))
            };
            while !gone(&frames) {
                frames.push(watcher.recv().await);
            }
            frames.extend(watcher.drain().await);
            let offline = last_words(&frames).into_iter().filter(|(user, online)| !online && HERE.contains(&&**user));
            assert_eq!(offline.count(), 0, "{change:?}: {:?}", presence(&frames));
        }
    }

    /// Checks that readers get a message.
    pub(crate) async fn assert_heard(&mut self, content: &str) {
        let said = self.speakers[0].send_text(TEAM, content).await["seq"].clone();
        for reader in &mut self.readers {
            assert_eq!(reader.until_where(|frame| frame["content"] == content).await["seq"], said);
        }
    }
}

/// The last word of a watcher's frames on each user.
fn last_words(frames: &[Value]) -> BTreeMap<String, bool> {
    presence(frames).into_iter().collect()
}
