//! Tests of the writer over a store that fails on request.

use std::sync::Mutex;

use async_trait::async_trait;

use super::*;
use crate::{
    degrade::LinkState,
    model::{Body, ClientId, ConnectionId, ConversationId, EntryStamp, Seq, Timestamp, UserId},
    store::{Authority, Ends, StoredCommand},
};

type Script = Box<dyn FnMut(&[NewEntry], bool) -> Result<Vec<Outcome>, StoreError> + Send>;

/// A fake of [`Logs`]: a script answers the appends, and one stored entry can be read back.
struct Scripted {
    script: Mutex<Script>,
    stored: Option<Entry>,
}

#[async_trait]
impl Logs for Scripted {
    async fn append(&self, batch: &[NewEntry], retried: bool) -> Result<Vec<Outcome>, StoreError> {
        (self.script.lock().unwrap())(batch, retried)
    }

    async fn ends(&self, _: &[LogId]) -> Result<Vec<(LogId, Ends)>, StoreError> {
        Ok(Vec::new())
    }

    async fn stamps(&self, _: &[(LogId, Seq)]) -> Result<Vec<(LogId, EntryStamp)>, StoreError> {
        Ok(Vec::new())
    }

    async fn ends_at(&self, _: &[(LogId, Timestamp)]) -> Result<Vec<(LogId, Seq)>, StoreError> {
        Ok(Vec::new())
    }

    async fn newest(&self, _: &[LogId]) -> Result<Vec<Entry>, StoreError> {
        Ok(Vec::new())
    }

    async fn stored(&self, _: &LogId, _: &UserId, _: &ClientId) -> Result<Option<StoredCommand>, StoreError> {
        Ok(None)
    }

    async fn entries(&self, _: &LogId, _: Seq, _: u32) -> Result<Vec<Entry>, StoreError> {
        Ok(Vec::new())
    }

    async fn read_back(&self, _: &[(LogId, Seq)]) -> Result<Vec<Entry>, StoreError> {
        Ok(self.stored.iter().cloned().collect())
    }
}

fn message(content: &str) -> NewEntry {
    NewEntry {
        log: LogId::from(&ConversationId::parse("room").unwrap()),
        sender: UserId::parse("alice").unwrap(),
        sender_name: "Alice".into(),
        dedupe: ClientId::fresh(),
        client_gave_id: false,
        authority: Authority::Member,
        body: Body::message(content),
    }
}

fn stored(seq: Seq, duplicate: bool) -> Appended {
    Appended { seq, message_no: seq, at: Timestamp::from_micros(0), duplicate, also: Vec::new() }
}

/// Starts a writer over the fake; returns it and what it passes to `committed`.
fn writer(script: Script, stored: Option<Entry>) -> (Writer, mpsc::UnboundedReceiver<Committed>) {
    let store = Arc::new(Scripted { script: Mutex::new(script), stored });
    let settings = WriterSettings { lanes: 1, ..WriterSettings::default() };
    let (metrics, degrade) = (Arc::new(Metrics::new().unwrap()), Arc::new(Degrade::new(LinkState::Off)));
    let (sender, committed) = mpsc::unbounded_channel();
    let forward = move |batch: Vec<Committed>| batch.into_iter().for_each(|one| sender.send(one).unwrap());
    let outcomes = Outcomes { committed: Box::new(forward), doubted: Box::new(drop) };
    (Writer::start(store, settings, metrics.clone(), degrade, outcomes, &Supervisor::new(metrics)), committed)
}

#[tokio::test]
async fn a_faulty_entry_fails_alone() {
    let mut last = 0;
    let script = move |batch: &[NewEntry], _: bool| {
        let faulty = |new: &NewEntry| matches!(&new.body, Body::Message { content, .. } if &**content == "faulty");
        if batch.iter().any(faulty) {
            return Err(StoreError::Failed("a fault".into()));
        }
        let mut next = || {
            last += 1;
            Ok(stored(last, false))
        };
        Ok(batch.iter().map(|_| next()).collect())
    };
    let (writer, _committed) = writer(Box::new(script), None);
    let answers = ["1", "2", "faulty", "3"].map(|content| writer.append(message(content), None));
    let answers = futures_util::future::join_all(answers).await;
    let seqs: Vec<_> = answers.into_iter().map(|answer| answer.map(|appended| appended.seq)).collect();
    assert_eq!(seqs, [Ok(1), Ok(2), Err(AppendError::Unavailable), Ok(3)]);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_outcome_is_retried_and_published() {
    let new = message("once");
    let found = entry(new.clone(), &stored(7, true));
    let (mut tries, dedupe) = (0, new.dedupe.clone());
    let script = move |batch: &[NewEntry], retried: bool| {
        assert_eq!(retried, tries > 0, "every try after the first says that it is one");
        assert_eq!(batch.iter().map(|new| &new.dedupe).collect::<Vec<_>>(), [&dedupe], "the same entry every time");
        tries += 1;
        if tries < 3 { Err(StoreError::Unknown("the link broke".into())) } else { Ok(vec![Ok(stored(7, true))]) }
    };
    let (writer, mut committed) = writer(Box::new(script), Some(found));
    let ack = Arc::new(PendingAck::new(ConnectionId::fresh(), None, None));
    let appended = writer.append(new, Some(ack.clone())).await.unwrap();
    assert_eq!((appended.seq, appended.duplicate), (7, true));
    let Committed { entry, origin } =
        committed.recv().await.expect("the node that stored it may not have published it");
    assert_eq!((entry.seq, origin), (7, Some(ack)), "its ack goes before those of later entries");
}

#[tokio::test]
async fn settled_waits_for_the_entries_queued_before() {
    let new = message("one");
    let log = new.log.clone();
    let script = |batch: &[NewEntry], _: bool| Ok(batch.iter().map(|_| Ok(stored(1, false))).collect());
    let (writer, mut committed) = writer(Box::new(script), None);
    let _answer = writer.append(new, None);
    writer.settled(&log).await;
    assert_eq!(committed.try_recv().map(|one| one.entry.seq), Ok(1));
}

/// A store that keeps one command for each id.
fn store_of_ids() -> (Script, Arc<Mutex<Vec<usize>>>) {
    let sizes = Arc::new(Mutex::new(Vec::new()));
    let (noted, mut known) = (sizes.clone(), Vec::<NewEntry>::new());
    let script = move |batch: &[NewEntry], _: bool| {
        noted.lock().unwrap().push(batch.len());
        let outcomes = batch.iter().map(|new| match known.iter().position(|old| old.dedupe == new.dedupe) {
            Some(at) if known[at].body == new.body => Ok(stored(at as Seq + 1, true)),
            Some(_) => Err(AppendRefused::IdReused),
            None if matches!(&new.body, Body::Message { reply_to: Some(_), .. }) => Err(AppendRefused::NoSuchTarget),
            None => {
                known.push(new.clone());
                Ok(stored(known.len() as Seq, false))
            }
        });
        Ok(outcomes.collect())
    };
    (Box::new(script), sizes)
}

#[tokio::test]
async fn commands_of_one_batch_that_share_an_id_are_told_apart() {
    let (script, sizes) = store_of_ids();
    let (writer, _committed) = writer(script, None);
    let named = |content: &str, id: &str| NewEntry { dedupe: ClientId::parse(id).unwrap(), ..message(content) };
    let mut stray = named("stray", "b");
    if let Body::Message { reply_to, .. } = &mut stray.body {
        *reply_to = Some(99);
    }
    // All are queued before the lane runs.
    let batch =
        [named("one", "a"), named("one", "a"), stray, named("two", "a"), named("three", "b"), named("one", "a")];
    let answers = futures_util::future::join_all(batch.map(|new| writer.append(new, None))).await;
    let answers: Vec<_> = answers.into_iter().map(|one| one.map(|one| (one.seq, one.duplicate))).collect();
    let refused = |refused| Err(AppendError::Refused(refused));
    let expected = [
        Ok((1, false)),
        Ok((1, true)),
        refused(AppendRefused::NoSuchTarget),
        refused(AppendRefused::IdReused),
        Ok((2, false)),
        Ok((1, true)),
    ];
    assert_eq!(answers, expected);
    assert_eq!(*sizes.lock().unwrap(), [2, 2, 1], "cut before the entry that reuses an id");
}
