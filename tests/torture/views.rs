//! Conversations read anew in the end, in every way that shows them from their first entry.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use reqwest::Method;
use tokio::time::{sleep, timeout};

use crate::{
    cluster::Cluster,
    evidence::{Log, View},
    history::{Dialect, Name, hash_of},
    rest::{Outcome, Rest},
    socket::{Opened, Socket},
    wire::{self, Heard},
};

/// Maximum time to read one conversation in one way.
const READING: Duration = Duration::from_secs(20);
/// Pause before a refused read is repeated.
const AGAIN: Duration = Duration::from_millis(300);
/// Conversations that are read: the longest ones and the newest ones.
const LONGEST: usize = 8;
const NEWEST: usize = 8;
/// The dialects that can name the seq from which they resume.
const RESUMING: [Dialect; 4] = [Dialect::Native, Dialect::Rooms, Dialect::Conversation, Dialect::Personas];

/// Reads conversations on every node.
pub async fn read_all(cluster: &Cluster, store: &BTreeMap<Name, Log>) -> Vec<View> {
    let mut longest: Vec<_> = store.iter().filter(|(_, log)| log.head > 0 && !log.members.is_empty()).collect();
    longest.sort_by_key(|(_, log)| -log.head);
    let newest = longest.iter().skip(LONGEST).rev().take(NEWEST).copied().collect::<Vec<_>>();
    let mut views = Vec::new();
    for node in 0..cluster.addresses.len() {
        let chosen = longest.iter().take(LONGEST).copied().chain(newest.iter().copied());
        let reads = chosen.enumerate().map(|(nth, (id, log))| {
            let reader = log.members.iter().nth((nth + node) % log.members.len()).expect("it has members");
            // Each node shows each conversation over REST and natively, and in one of the other dialects.
            let other = RESUMING[1 + (nth + node) % (RESUMING.len() - 1)];
            async move {
                let (whole, over_rest) = tokio::join!(
                    resume(cluster, node, Dialect::Native, (id, log), reader),
                    history(cluster, node, id, reader)
                );
                [whole, resume(cluster, node, other, (id, log), reader).await, over_rest]
            }
        });
        views.extend(futures_util::future::join_all(reads).await.into_iter().flatten());
    }
    views
}

/// Resumes from the start, up to the last entry of which the dialect has a frame.
async fn resume(cluster: &Cluster, node: usize, dialect: Dialect, (id, log): (&Name, &Log), reader: &Name) -> View {
    let whole = dialect.shows_changes();
    let texts = log.rows.iter().filter(|(_, row)| whole || row.kind as i16 == 0 && row.text != 0);
    let last = texts.map(|(seq, _)| *seq).next_back().unwrap_or(0);
    let mut view = View {
        place: format!("node {node}, {dialect:?} from 0 for {reader}"),
        conversation: id.clone(),
        whole,
        texts: BTreeMap::new(),
    };
    let address = cluster.addresses[node];
    // A busy node may refuse, or answer late.
    let reading = async {
        while !read_once(address, dialect, (id, last), reader, &mut view.texts).await {
            sleep(AGAIN).await;
        }
    };
    let _late = timeout(READING, reading).await;
    view
}

/// Resumes once, and reads up to the seq `last`. False if it was refused before.
async fn read_once(
    address: SocketAddr,
    dialect: Dialect,
    (id, last): (&Name, i64),
    reader: &Name,
    texts: &mut BTreeMap<i64, u64>,
) -> bool {
    let url = wire::url(dialect, address, reader, Some(&(id.clone(), Some(0))));
    let opened = Socket::open(address, &url, |frame| wire::is_greeting(dialect, frame)).await;
    let Opened::Greeted { mut socket, .. } = opened else { return false };
    if !dialect.is_bound() && socket.send(&wire::join(dialect, id, Some(0))).await.is_err() {
        return false;
    }
    while last > 0 && texts.last_key_value().is_none_or(|(seq, _)| *seq < last) {
        let Ok(frame) = socket.next().await else { return false };
        for heard in frame.iter().flat_map(|frame| wire::read(dialect, Some(id), frame)) {
            match heard {
                Heard::Entry { conversation, entry } if conversation == *id => {
                    texts.insert(entry.seq, entry.text);
                }
                Heard::JoinRefused { .. } => return false,
                _ => {}
            }
        }
    }
    socket.close(true).await;
    true
}

/// Reads all pages over REST.
async fn history(cluster: &Cluster, node: usize, id: &Name, reader: &Name) -> View {
    let mut texts = BTreeMap::new();
    let rest = Rest::new(cluster.addresses.clone());
    let (mut before, begun) = (String::new(), Instant::now());
    loop {
        let path = format!("/api/chat/conversations/{id}/messages?limit=100{before}");
        let body = match rest.call(node, reader, Method::GET, &path, None).await {
            Outcome::Done { body, .. } => body,
            // A busy node may refuse, or answer late.
            _ if begun.elapsed() < READING => {
                sleep(AGAIN).await;
                continue;
            }
            _ => break,
        };
        let page = body["messages"].as_array().cloned().unwrap_or_default();
        for message in &page {
            let (seq, text) = (message["seq"].as_i64(), message["content"].as_str());
            texts.extend(seq.zip(text).filter(|(_, text)| !text.is_empty()).map(|(seq, text)| (seq, hash_of(text))));
        }
        match page.last().and_then(|oldest| oldest["seq"].as_i64()) {
            Some(oldest) => before = format!("&before_seq={oldest}"),
            None => break,
        }
    }
    View { place: format!("node {node}, REST for {reader}"), conversation: id.clone(), whole: false, texts }
}
