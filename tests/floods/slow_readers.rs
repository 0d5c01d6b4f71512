//! Clients that read slowly, or not at all.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::{io::AsyncReadExt, sync::mpsc};

use crate::{
    count, narrow_listener, raw_listener,
    support::{Client, Node, RawClient, eventually, opcode, within},
};

const TOO_SLOW: &str = r#"switchboard_closes_total{reason="too_slow"}"#;
const WAITING: &str = "switchboard_outbox_bytes";

fn dropped(class: &str) -> String {
    format!(r#"switchboard_outbox_drops_total{{class="{class}"}}"#)
}

/// Reads a socket up to its close; returns the seqs of messages, and code and reason of the close.
async fn read_to_the_end(mut client: RawClient) -> (Vec<i64>, Option<(u16, String)>) {
    let mut seqs = Vec::new();
    while let Some(frame) = client.read_frame().await {
        if frame.opcode == opcode::CLOSE {
            return (seqs, frame.close());
        }
        let told: Value = serde_json::from_slice(&frame.payload).unwrap_or_default();
        if told["type"] == "message" {
            seqs.push(told["seq"].as_i64().unwrap());
        }
    }
    (seqs, None)
}

/// Readers of one conversation, and the delay of each message that they read.
struct Readers {
    sender: Client,
    delays: mpsc::Receiver<Duration>,
    readers: usize,
    begun: Instant,
}

impl Readers {
    async fn of(node: &Node, conversation: &str, readers: usize) -> Self {
        let mut sender = Client::native(node, "alice").await;
        sender.join(conversation).await;
        let (told, delays) = mpsc::channel(10_000);
        let begun = Instant::now();
        for at in 0..readers {
            let mut reader = Client::native(node, &format!("reader-{at}")).await;
            reader.join(conversation).await;
            let told = told.clone();
            tokio::spawn(async move {
                loop {
                    let Ok(frame) = reader.recv_or_close().await else { return };
                    let Some((sent, _)) = frame["content"].as_str().and_then(|text| text.split_once(' ')) else {
                        continue;
                    };
                    let sent = Duration::from_nanos(sent.parse().unwrap());
                    if told.send(begun.elapsed().saturating_sub(sent)).await.is_err() {
                        return;
                    }
                }
            });
        }
        Self { sender, delays, readers, begun }
    }

    /// Sends `messages` messages and returns the 99th percentile of their delays at all readers.
    async fn p99(&mut self, conversation: &str, messages: usize) -> Duration {
        let padding = "x".repeat(4_000);
        for _ in 0..messages {
            let sent = self.begun.elapsed().as_nanos();
            self.sender.send_text(conversation, &format!("{sent} {padding}")).await;
        }
        let mut delays = Vec::new();
        while delays.len() < messages * self.readers {
            delays.push(within("a message to every reader", self.delays.recv()).await.unwrap());
        }
        delays.sort();
        delays[delays.len() * 99 / 100]
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_reader_does_not_slow_the_others() {
    const MESSAGES: usize = 150;
    let node = Node::dev().set("OUTBOX_BYTES", "64KiB").start().await;
    let mut readers = Readers::of(&node, "team", 50).await;
    readers.p99("team", 20).await;
    let alone = readers.p99("team", MESSAGES).await;
    let stalled = raw_listener(&node, "carol", "team").await;
    let beside = readers.p99("team", MESSAGES).await;
    println!("p99 of 50 readers: {alone:?} alone, {beside:?} beside a stalled reader");
    assert_eq!(count(&node, TOO_SLOW).await, 1.0, "the stalled reader was closed meanwhile");
    // A delivery that waits for the stalled reader would take until that reader is reset, which is seconds.
    assert!(beside < alone * 10 + Duration::from_millis(500), "{alone:?} alone, {beside:?} beside a stalled reader");
    drop(stalled);
    node.metric(WAITING, |bytes| bytes == 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ephemeral_frames_are_dropped_first_then_the_reader_is_closed_and_resumes_exactly() {
    let node = Node::dev().set("OUTBOX_BYTES", "64KiB").start().await;
    let mut alice = Client::native(&node, "alice").await;
    alice.join("team").await;
    let slow = raw_listener(&node, "carol", "team").await;
    let mut last = alice.send_text("team", "the first").await["seq"].as_i64().unwrap();
    let first = last;
    // Until the kernel accepts no more bytes for the reader.
    while count(&node, WAITING).await < 8_192.0 {
        last = alice.send_text("team", &"x".repeat(4_000)).await["seq"].as_i64().unwrap();
    }
    for at in 0..100 {
        let typing = json!({"type": "typing", "conversation_id": "team", "active": at % 2 == 0, "ref": at});
        let status = json!({"type": "status", "status": if at % 2 == 0 { "away" } else { "online" }, "ref": at});
        for frame in [typing, status] {
            alice.send(&frame).await;
            alice.until("ok").await;
        }
    }
    let waiting = count(&node, WAITING).await;
    assert!((20_000.0..=65_536.0).contains(&waiting), "queued bytes are counted as they grow: {waiting}");
    let mut order = Vec::new();
    while order.last() != Some(&"too slow") {
        last = alice.send_text("team", &"x".repeat(1_000)).await["seq"].as_i64().unwrap();
        let now = node.metrics().await;
        assert!(now.get(WAITING).unwrap() <= 65_536.0, "never more than the bound");
        for (series, what) in [(&*dropped("typing"), "typing"), (&dropped("state"), "state"), (TOO_SLOW, "too slow")] {
            if now.get(series).is_some_and(|count| count > 0.0) && !order.contains(&what) {
                order.push(what);
            }
        }
    }
    assert_eq!(order, ["typing", "state", "too slow"]);
    assert!(count(&node, &dropped("durable")).await > 0.0);
    let (seqs, close) = read_to_the_end(slow).await;
    assert_eq!(close, Some((4408, "Too slow: reconnect and resume".into())));
    assert!(seqs.iter().copied().eq(first..first + seqs.len() as i64), "a prefix, without gaps: {seqs:?}");
    let has = *seqs.last().unwrap();
    assert!(has < last);
    let mut back = Client::native(&node, "carol").await;
    back.send(&json!({"type": "join", "conversation_id": "team", "since_seq": has, "ref": 1})).await;
    for expected in has + 1..=last {
        assert_eq!(back.until("message").await["seq"], expected);
    }
    assert!(back.drain().await.iter().all(|frame| frame["type"] != "message"), "and nothing twice");
    node.metric(WAITING, |bytes| bytes == 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_sends_commands_and_never_reads_is_closed() {
    let node = Node::dev().set("OUTBOX_BYTES", "64KiB").set("SLOW_READER_TIMEOUT", "5s").start().await;
    let mut bob = Client::native(&node, "bob").await;
    bob.join("team").await;
    for _ in 0..20 {
        bob.send_text("team", &"x".repeat(4_000)).await;
    }
    let mut greedy = narrow_listener(&node, "bob", "team").await;
    let ask = RawClient::encode(true, opcode::TEXT, br#"{"type":"history","conversation_id":"team","limit":20}"#);
    // An answer has 16 KB: some fill the kernel's buffers, the next ones the outbox, and one waits for room.
    greedy.write(&ask.repeat(300)).await;
    node.metric("switchboard_answers_waiting", |sockets| sockets == 1.0).await;
    assert!(count(&node, WAITING).await <= 65_536.0);
    let cut = || async { (count(&node, TOO_SLOW).await == 1.0).then_some(()) };
    eventually("the greedy client to be closed", cut).await;
    crate::assert_served(&mut bob).await;
    let (_, close) = read_to_the_end(greedy).await;
    assert_eq!(close.map(|(code, _)| code), Some(4408));
    node.metric(WAITING, |bytes| bytes == 0.0).await;
}

/// Number of sockets that were closed for `reason`.
async fn closes(node: &Node, reason: &str) -> f64 {
    count(node, &format!(r#"switchboard_closes_total{{reason="{reason}"}}"#)).await
}

/// A reader that has more waiting than the kernel's buffers hold. On a busy machine that may take so long that the node
/// closes the reader before; then another one is made.
async fn reader_with_waiting_bytes(node: &Node, sender: &mut Client, user: &str, waiting: f64) -> RawClient {
    for _ in 0..10 {
        let reader = narrow_listener(node, user, "team").await;
        let closed = closes(node, "too_slow").await + closes(node, "silent").await;
        while closes(node, "too_slow").await + closes(node, "silent").await == closed {
            if count(node, WAITING).await >= waiting {
                return reader;
            }
            for at in 0..10 {
                let frame = json!({"type": "send", "conversation_id": "team", "content": "x".repeat(5_000), "ref": at});
                sender.send(&frame).await;
            }
            sender.until_where(|frame| frame["type"] == "ack" && frame["ref"] == 9).await;
        }
    }
    panic!("every reader was closed before {waiting} bytes waited for it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_reader_is_closed_although_it_sends_pongs() {
    let node = Node::dev().set("PING_INTERVAL", "1s").set("SLOW_READER_TIMEOUT", "3s");
    let node = node.start().await;
    let mut alice = Client::native(&node, "alice").await;
    alice.join("team").await;
    let mut stalled = reader_with_waiting_bytes(&node, &mut alice, "carol", 100_000.0).await;
    let (began, before) = (Instant::now(), count(&node, TOO_SLOW).await);
    let pongs = async {
        while stalled.try_write(&RawClient::encode(true, opcode::PONG, b"")).await {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let cut = async {
        node.metric(TOO_SLOW, |count| count == before + 1.0).await;
        began.elapsed()
    };
    // Alice's client answers pings only while it reads.
    let reading = async {
        loop {
            alice.recv().await;
        }
    };
    let after = tokio::select! {
        after = cut => after,
        () = pongs => panic!("the socket ended before it was counted"),
        () = reading => unreachable!(),
    };
    println!("a stalled reader with pongs was closed after {after:?}");
    node.metric(WAITING, |bytes| bytes == 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_link_that_takes_bytes_lives_on() {
    let node = Node::dev().set("PING_INTERVAL", "1s").set("PONG_TIMEOUT", "5s").set("SLOW_READER_TIMEOUT", "8s");
    let node = node.start().await;
    let mut alice = Client::native(&node, "alice").await;
    alice.join("team").await;
    let slow = reader_with_waiting_bytes(&node, &mut alice, "carol", 850_000.0).await;
    let closed = [closes(&node, "too_slow").await, closes(&node, "silent").await];
    let reading = tokio::spawn(async move {
        loop {
            alice.recv().await;
        }
    });
    // 60 kB/s, and no pong: the pings wait behind the messages, and this client never answers them.
    let mut socket = slow.into_inner();
    let (began, mut taken, mut buffer) = (Instant::now(), 0, vec![0; 6_000]);
    while began.elapsed() < Duration::from_secs(12) {
        let due = Duration::from_secs_f64(taken as f64 / 60_000.0);
        tokio::time::sleep(due.saturating_sub(began.elapsed())).await;
        let read = within("bytes", socket.read(&mut buffer)).await.unwrap();
        assert!(read > 0, "closed after {:?} and {taken} bytes", began.elapsed());
        taken += read;
    }
    assert!(count(&node, WAITING).await > 0.0, "some still wait");
    assert_eq!([closes(&node, "too_slow").await, closes(&node, "silent").await], closed);
    reading.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sum_of_all_outboxes_is_bounded_and_the_worst_readers_are_closed_first() {
    const TOTAL: f64 = 1_048_576.0;
    let node = Node::dev().set("OUTBOX_TOTAL_BYTES", "1MiB").set("MAX_CONNECTIONS_PER_USER", 50).start().await;
    let mut alice = Client::native(&node, "alice").await;
    let mut bob = Client::native(&node, "bob").await;
    alice.join("team").await;
    bob.join("team").await;
    let reading = tokio::spawn(async move {
        let mut seqs = Vec::new();
        loop {
            match bob.recv_or_close().await {
                Ok(frame) if frame["content"] == "last" => return seqs,
                Ok(frame) if frame["type"] == "message" => seqs.push(frame["seq"].as_i64().unwrap()),
                Ok(_) => {}
                Err(close) => panic!("the reader was closed: {close:?}"),
            }
        }
    });
    let mut stalled = Vec::new();
    for _ in 0..10 {
        stalled.push(raw_listener(&node, "carol", "team").await);
    }
    let mut most = 0.0_f64;
    for _ in 0..150 {
        alice.send_text("team", &"x".repeat(5_000)).await;
        most = most.max(count(&node, WAITING).await);
    }
    println!("at most {most} bytes waited in all outboxes");
    assert!(most <= TOTAL * 1.25, "{most}");
    assert!(count(&node, "switchboard_outbox_shed_total").await >= 1.0);
    assert!(count(&node, TOO_SLOW).await >= 1.0);
    alice.send_text("team", "last").await;
    let seqs = reading.await.unwrap();
    assert!(seqs.windows(2).all(|pair| pair[1] == pair[0] + 1), "the reader that reads lost nothing");
    drop(stalled);
    node.metric(WAITING, |bytes| bytes == 0.0).await;
}
