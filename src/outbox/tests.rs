use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
};

use super::*;
use crate::metrics::Metrics;

const LIMIT: usize = 1 << 10;

/// An outbox before its greeting, and the client's end of its socket.
async fn outbox() -> (Arc<Outbox>, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (client, server) =
        tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), async { listener.accept().await });
    let (_, writer) = server.unwrap().0.into_split();
    writer.writable().await.unwrap();
    let metrics = Arc::new(Metrics::new().unwrap());
    let too_slow = Frame::close(1008, "slow");
    let limits = Arc::new(OutboxLimits { bytes: LIMIT, stalled_after: Duration::from_secs(30), too_slow });
    let budget = OutboxBudget::new(1 << 30, metrics);
    let outbox = Outbox::new(ConnectionId::fresh(), writer, limits, budget);
    (outbox, client.unwrap())
}

/// All bytes that the client receives until the outbox is dropped.
async fn received(outbox: Arc<Outbox>, mut client: TcpStream) -> Vec<u8> {
    assert!(outbox.drained().await);
    drop(outbox);
    let mut bytes = Vec::new();
    client.read_to_end(&mut bytes).await.unwrap();
    bytes
}

fn text(text: &str) -> Frame {
    Frame::text(text)
}

fn pong() -> Frame {
    Frame { class: Class::Pong, ..text("p") }
}

#[tokio::test]
async fn the_greeting_precedes_frames_pushed_before_it() {
    let (outbox, client) = outbox().await;
    outbox.send([text("a"), pong()]);
    outbox.send([text("b")]);
    outbox.greet([text("g"), text("h")]);
    outbox.send([text("c")]);
    assert_eq!(received(outbox, client).await, b"\x81\x01p\x81\x01g\x81\x01h\x81\x01a\x81\x01b\x81\x01c");
}

#[tokio::test]
async fn a_refused_client_receives_only_the_last_frames() {
    let (outbox, client) = outbox().await;
    outbox.send([text("a")]);
    outbox.close([text("w"), Frame::close(1008, "no")]);
    outbox.greet([text("g")]);
    assert_eq!(received(outbox, client).await, b"\x81\x01w\x88\x04\x03\xf0no");
}

#[tokio::test]
async fn frames_that_wait_for_the_greeting_are_bounded() {
    let (outbox, client) = outbox().await;
    let long = "x".repeat(100);
    outbox.send((0..=LIMIT / 100).map(|_| text(&long)));
    assert_eq!(outbox.next_event().await, OutboxEvent::Overflowed);
    assert!(!outbox.has_room().await);
    outbox.greet([text("g")]);
    assert_eq!(received(outbox, client).await, b"\x88\x06\x03\xf0slow");
}

#[tokio::test]
async fn one_hint_of_each_conversation_waits_and_hints_close_nobody() {
    let (outbox, client) = outbox().await;
    let hint = |id: &str, content: &str| Frame { class: Class::hint(&conversation(id)), ..text(content) };
    outbox.send([hint("a", "1"), hint("b", "2"), hint("a", "3"), hint("c", "4")]);
    outbox.drop_hint(&conversation("c"));
    outbox.send([text("d"), hint("b", "5")]);
    let filler = "x".repeat(LIMIT - 30);
    outbox.send([text(&filler), hint("e", "6"), hint("f", &"y".repeat(30)), text("g")]);
    outbox.greet([]);
    let bytes = received(outbox, client).await;
    let wanted = [&b"\x81\x01d\x81\x7e"[..], &[3, 226], filler.as_bytes(), b"\x81\x01g"].concat();
    assert_eq!(bytes, wanted);
}

#[tokio::test]
async fn events_take_their_share_of_the_outbox_and_are_dropped_first() {
    let (outbox, client) = outbox().await;
    let event = |content: &str| Frame { class: Class::Event, ..text(content) };
    let typing = || Frame { class: Class::Typing, ..text("t") };
    let long = "x".repeat(LIMIT / EVENT_SHARE / 2);
    outbox.send([event(&long), typing(), event(&long), event(&long), event("1"), text("d")]);
    let dropped = |class: &str| outbox.budget.metrics().outbox_drops.with_label_values(&[class]).get();
    assert_eq!((dropped("event"), dropped("typing")), (2, 0), "one long event and the typing fit beside a short one");
    outbox.send([text(&"y".repeat(LIMIT - 30))]);
    assert_eq!((dropped("event"), dropped("typing")), (4, 1), "they make room for a message");
    outbox.greet([]);
    let bytes = received(outbox, client).await;
    assert!(bytes.starts_with(b"\x81\x01d\x81\x7e") && bytes.len() == 3 + 4 + LIMIT - 30, "{}", bytes.len());
}

fn conversation(id: &str) -> ConversationId {
    ConversationId::parse(id).unwrap()
}
