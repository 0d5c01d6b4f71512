//! Tests of the writer over a store that fails on request.

use std::sync::Mutex;

use async_trait::async_trait;

use tokio::sync::mpsc;

use super::{batch::entry, *};
use crate::{
    degrade::LinkState,
    model::{Body, ClientId, ConnectionId, ConversationId, Entry, EntryStamp, Seq, Timestamp, UserId},
    store::{AppendRefused, Appended, Authority, Ends, Outcome, StoreError, StoredCommand},
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

fn queued(log: &str, body: Body) -> Queued {
    let log = LogId::from(&ConversationId::parse(log).unwrap());
    let (answer, _) = oneshot::channel();
    Queued { entry: NewEntry { log, body, ..message("") }, origin: None, answer }
}

fn filled(batch: usize, entries: &[(&str, &str)]) -> Queue {
    let queue = Queue::new(entries.len(), batch);
    for (log, text) in entries {
        let body = if *text == "a change" { Body::Deleted { target: 1 } } else { Body::message(*text) };
        assert!(queue.push(queued(log, body)));
    }
    assert!(!queue.push(queued("one-too-many", Body::message(""))));
    queue
}

/// Takes the next batch as a lane does, and returns its texts; `None` if the lane would wait.
async fn next(queue: &Queue) -> Option<(queue::Taken<'_>, Vec<String>)> {
    let taken = tokio::select! {
        biased;
        taken = queue.take() => taken,
        () = std::future::ready(()) => None,
    };
    let mut taken = taken?;
    let text = |queued: &Queued| match &queued.entry.body {
        Body::Message { content, .. } => format!("{} {content}", queued.entry.log),
        _ => format!("{} changed", queued.entry.log),
    };
    let texts = taken.entries().iter().map(text).collect();
    Some((taken, texts))
}

/// Lets the time pass after which other lanes take messages too.
async fn pass_patience() {
    tokio::time::advance(queue::PATIENCE).await;
}

#[tokio::test(start_paused = true)]
async fn a_log_is_in_the_hands_of_one_lane_and_keeps_its_order() {
    let queue = filled(2, &[("a", "1"), ("b", "1"), ("a", "2"), ("c", "1"), ("a", "3")]);
    let (first, texts) = next(&queue).await.unwrap();
    assert_eq!(texts, ["a 1", "a 2"]);
    let (second, texts) = next(&queue).await.unwrap();
    assert_eq!(texts, ["b 1", "c 1"], "logs that no lane has, which fill a batch");
    pass_patience().await;
    assert!(next(&queue).await.is_none(), "the rest of a waits for the first lane");
    drop(second);
    assert!(next(&queue).await.is_none());
    drop(first);
    assert_eq!(next(&queue).await.unwrap().1, ["a 3"]);
}

#[tokio::test(start_paused = true)]
async fn messages_wait_for_the_commit_under_way_but_not_for_long() {
    let queue = Queue::new(9, 9);
    let push = |log: &str| assert!(queue.push(queued(log, Body::message("1"))));
    for n in 0..=queue::FEW {
        push(&format!("a{n}"));
    }
    let (first, _) = next(&queue).await.unwrap();
    push("b");
    push("c");
    assert!(next(&queue).await.is_none());
    drop(first);
    let (second, texts) = next(&queue).await.unwrap();
    assert_eq!(texts, ["b 1", "c 1"]);
    // A commit of few does not let others wait, but two of them do.
    push("d");
    let third = next(&queue).await.unwrap().0;
    let began = tokio::time::Instant::now();
    push("e");
    assert!(next(&queue).await.is_none());
    // The commits are slow: a lane that waits looks again by itself.
    drop(queue.take().await.unwrap());
    assert_eq!(began.elapsed(), queue::PATIENCE);
    drop((second, third));
}

#[tokio::test(start_paused = true)]
async fn a_change_is_alone_and_keeps_its_place_in_its_log() {
    let queue = filled(9, &[("a", "1"), ("b", "a change"), ("b", "1"), ("a", "a change"), ("a", "2"), ("c", "1")]);
    let (first, texts) = next(&queue).await.unwrap();
    assert_eq!(texts, ["a 1", "c 1"]);
    let (second, texts) = next(&queue).await.unwrap();
    assert_eq!(texts, ["b changed"], "a change waits for nobody");
    pass_patience().await;
    assert!(next(&queue).await.is_none());
    drop((first, second));
    let (_third, texts) = next(&queue).await.unwrap();
    assert_eq!(texts, ["b 1"]);
    assert_eq!(next(&queue).await.unwrap().1, ["a changed"]);
}

#[tokio::test(start_paused = true)]
async fn a_log_with_many_entries_delays_others_by_one_batch() {
    let mut entries = vec![("busy", "x"); 10];
    entries.push(("quiet", "1"));
    let queue = filled(4, &entries);
    assert_eq!(next(&queue).await.unwrap().1, ["busy x"; 4]);
    assert_eq!(next(&queue).await.unwrap().1, ["quiet 1", "busy x", "busy x", "busy x"]);
}

#[tokio::test(start_paused = true)]
async fn a_barrier_passes_after_the_entries_before_it_and_not_with_later_ones() {
    let queue = Queue::new(3, 9);
    assert!(queue.push(queued("a", Body::message("1"))));
    queue.settled(&LogId::from(&ConversationId::parse("idle").unwrap())).await;
    let log = LogId::from(&ConversationId::parse("a").unwrap());
    let mut settled = std::pin::pin!(queue.settled(&log));
    assert!(futures_util::poll!(&mut settled).is_pending());
    for text in ["2", "3"] {
        assert!(queue.push(queued("a", Body::message(text))), "a barrier takes no place");
    }
    let (first, texts) = next(&queue).await.unwrap();
    assert_eq!(texts, ["a 1"], "entries after a barrier wait for the next batch");
    assert!(futures_util::poll!(&mut settled).is_pending());
    drop(first);
    assert!(futures_util::poll!(&mut settled).is_ready());
    assert_eq!(next(&queue).await.unwrap().1, ["a 2", "a 3"]);
}

#[tokio::test(start_paused = true)]
async fn a_closed_queue_gives_what_waits_and_then_nothing() {
    let queue = filled(1, &[("a", "1"), ("a", "2")]);
    queue.close();
    assert!(!queue.push(queued("b", Body::message("1"))));
    let (taken, _) = next(&queue).await.unwrap();
    assert!(queue.take().await.is_none(), "what is left belongs to the lane that has its log");
    drop(taken);
    drop(queue.take().await.unwrap());
    assert!(queue.take().await.is_none());
}
