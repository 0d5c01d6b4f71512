//! Unread messages: those of others, after the read mark, that nobody deleted.

use super::*;

const OPTIONS: NotifyOptions = NotifyOptions { undelivered_only: false, post_queue: 0 };

/// The reader's unread messages and read mark, as the reader and the others see them.
async fn unread(store: &Arc<dyn Store>, room: &ConversationId, reader: &str) -> (i64, Seq) {
    let reader = user(reader);
    let shown = store.conversation(room, &reader).await.unwrap().unwrap();
    let (listed, _) = store.conversations(&reader, false, part(100, 0)).await.unwrap();
    let listed = listed.iter().find(|one| one.id == *room).unwrap();
    assert_eq!(listed.unread, shown.unread, "{reader}");
    let member = shown.members.iter().find(|member| member.user == reader).unwrap();
    assert!(member.delivered_seq >= member.read_seq, "what is read is delivered: {member:?}");
    (shown.unread, member.read_seq)
}

fn deletion(sender: &str, id: &str, room: &ConversationId, target: Seq) -> NewEntry {
    new(room, sender, id, Body::Deleted { target })
}

pub(super) async fn own_messages_are_read(store: Arc<dyn Store>) {
    let (room, _) = group(&store, "room", "alice", &["bob"]).await;
    let (other, _) = group(&store, "other", "alice", &["bob"]).await;
    let say = async |sender: &str, id: &str| append(&store, new(&room, sender, id, text("x"))).await.unwrap();
    for id in ["1", "2", "3"] {
        say("alice", id).await;
    }
    assert_eq!((unread(&store, &room, "alice").await, unread(&store, &room, "bob").await), ((0, 3), (3, 0)));
    let answer = say("bob", "1").await;
    assert_eq!((unread(&store, &room, "alice").await, unread(&store, &room, "bob").await), ((1, 3), (0, 4)));
    // The device that receives for bob has confirmed nothing: it still gets what it missed.
    assert_eq!(store.access(&room, &user("bob")).await.unwrap().unwrap().delivered, 0);
    assert_eq!(store.mark(&room, &user("bob"), 0, 2).await.unwrap(), Some((4, 4)), "delivered, and never back");
    assert_eq!(store.mark(&room, &user("bob"), 0, 4).await.unwrap(), Some((4, 4)));
    assert_eq!(store.mark(&room, &user("bob"), 3, 3).await.unwrap(), None);

    // A repeat reads nothing, nor does a refused message, an edit or a reaction.
    say("alice", "4").await;
    assert_eq!(say("bob", "1").await.seq, answer.seq);
    let stray = || {
        let mut body = text("x");
        if let Body::Message { reply_to, .. } = &mut body {
            *reply_to = Some(99);
        }
        body
    };
    assert_eq!(append(&store, new(&room, "bob", "2", stray())).await, Err(AppendRefused::NoSuchTarget));
    append(&store, new(&room, "bob", "3", Body::edited(answer.seq, "y"))).await.unwrap();
    append(&store, new(&room, "bob", "4", Body::Reacted { target: 5, emoji: "x".into(), active: true })).await.unwrap();
    assert_eq!(unread(&store, &room, "bob").await, (1, 4));

    // One batch of several senders and conversations.
    let batch = [
        new(&room, "bob", "5", text("8")),
        new(&other, "bob", "1", text("1")),
        new(&room, "alice", "6", text("9")),
        new(&room, "bob", "7", stray()),
        new(&other, "alice", "1", text("2")),
        new(&other, "bob", "2", text("3")),
    ];
    store.append(&batch, false).await.unwrap();
    assert_eq!((unread(&store, &room, "alice").await, unread(&store, &room, "bob").await), ((0, 9), (1, 8)));
    assert_eq!((unread(&store, &other, "alice").await, unread(&store, &other, "bob").await), ((1, 2), (0, 3)));
    let persona = NewEntry { authority: Authority::System, ..new(&room, "ada", "1", text("an answer")) };
    append(&store, persona).await.unwrap();
    assert_eq!((unread(&store, &room, "alice").await.0, unread(&store, &room, "bob").await.0), (1, 2));
    let admin = store.conversation(&room, &user("root")).await.unwrap().unwrap();
    assert_eq!(admin.unread, 0, "who is no member has nothing to read");
}

pub(super) async fn deleted_messages_are_not_unread(store: Arc<dyn Store>) {
    let (room, _) = group(&store, "room", "alice", &["bob", "carol"]).await;
    for id in ["1", "2", "3", "4"] {
        append(&store, new(&room, "alice", id, text("x"))).await.unwrap();
    }
    store.mark(&room, &user("bob"), 2, 2).await.unwrap();
    append(&store, deletion("alice", "d1", &room, 1)).await.unwrap();
    assert_eq!(unread(&store, &room, "bob").await.0, 2, "a message that bob has read was deleted");
    assert_eq!(unread(&store, &room, "carol").await.0, 3);
    append(&store, deletion("alice", "d4", &room, 4)).await.unwrap();
    assert_eq!((unread(&store, &room, "bob").await.0, unread(&store, &room, "carol").await.0), (1, 2));
    // dave knows none of them.
    append(&store, new(&room, "alice", "add", Body::MemberAdded { user: user("dave") })).await.unwrap();
    append(&store, deletion("alice", "d3", &room, 3)).await.unwrap();
    for (reader, count) in [("bob", 0), ("carol", 1), ("dave", 0), ("alice", 0)] {
        assert_eq!(unread(&store, &room, reader).await.0, count, "{reader}");
    }
    let seq = append(&store, new(&room, "carol", "1", text("x"))).await.unwrap().seq;
    for (reader, count) in [("bob", 1), ("carol", 0), ("dave", 1), ("alice", 1)] {
        assert_eq!(unread(&store, &room, reader).await.0, count, "{reader}");
    }
    append(&store, NewEntry { authority: Authority::Admin, ..deletion("root", "d", &room, seq) }).await.unwrap();
    for reader in ["bob", "carol", "dave", "alice"] {
        assert_eq!(unread(&store, &room, reader).await.0, 0, "{reader}");
    }
}

pub(super) async fn notifications_count_what_is_unread(store: Arc<dyn Store>) {
    let (room, _) = group(&store, "room", "alice", &["bob"]).await;
    let bob = [user("bob")];
    let runs = async || {
        let runs = store.notifications(&bob[0], part(10, 0)).await.unwrap();
        runs.iter().map(|run| (run.from_seq, run.count, run.read_at.is_none())).collect::<Vec<_>>()
    };
    let notify =
        async |first, last| store.notify(&room, Waiting { first, last }, &bob, OPTIONS).await.unwrap().entries.len();
    let say = async |sender: &str, id: &str| append(&store, new(&room, sender, id, text("x"))).await.unwrap().seq;
    for id in ["1", "2", "3", "4"] {
        say("alice", id).await;
    }
    append(&store, deletion("alice", "d1", &room, 1)).await.unwrap();
    assert_eq!(notify(1, 1).await, 0, "a deleted message waits for nobody");
    assert_eq!(notify(1, 4).await, 1);
    assert_eq!(runs().await, [(2, 3, true)]);
    append(&store, deletion("alice", "d3", &room, 3)).await.unwrap();
    assert_eq!(runs().await, [(2, 2, true)], "deleted while it waits");
    store.mark(&room, &bob[0], 2, 2).await.unwrap();
    assert_eq!(runs().await, [(2, 1, true)], "read in part");
    say("alice", "5").await;
    assert_eq!(notify(7, 7).await, 0);
    assert_eq!(runs().await, [(7, 1, true)], "what is read doesn't come back");
    // An answer reads all before it, from wherever it is sent.
    let answer = say("bob", "1").await;
    assert_eq!(runs().await, [(7, 1, false)]);
    assert_eq!(notify(answer, answer).await, 0, "nobody is notified of an own message");
    let next = say("alice", "6").await;
    assert_eq!(notify(answer, next).await, 1);
    assert_eq!(runs().await, [(next, 1, true), (7, 1, false)]);
}

/// Messages of many senders, their read marks and their notifications at the same time: no statement fails, and each
/// member has read up to the last own message.
pub(super) async fn concurrent_messages_marks_and_notifications_agree(store: Arc<dyn Store>) {
    let names: Vec<String> = (0..20).map(|at| format!("user{at:02}")).collect();
    let members: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut rooms = Vec::new();
    for id in ["a", "b", "c"] {
        rooms.push(group(&store, id, "alice", &members).await.0);
    }
    let users: Vec<UserId> = names.iter().map(|name| user(name)).collect();
    let sends = async |lane: usize| {
        for round in 0..15_usize {
            // Each lane names the rooms and members in an order of its own.
            let batch: Vec<NewEntry> = (0..20)
                .map(|at| {
                    let at = if lane.is_multiple_of(2) { at } else { 19 - at };
                    new(
                        &rooms[(at + lane) % 3],
                        members[(at * 7 + round) % 20],
                        &format!("{lane}-{round}-{at}"),
                        text("x"),
                    )
                })
                .collect();
            let outcomes = store.append(&batch, false).await.unwrap();
            assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
        }
    };
    let notices = async {
        for _ in 0..40 {
            for room in &rooms {
                let last = store.ends(&[LogId::from(room)]).await.unwrap()[0].1.head;
                if last > 0 {
                    // The marks may have all connections for longer than a call waits for one.
                    while let Err(error) = store.notify(room, Waiting { first: 1, last }, &users, OPTIONS).await {
                        assert!(matches!(error, StoreError::Busy { .. }), "{error}");
                    }
                }
            }
        }
    };
    let marks = async {
        for round in 0..15 {
            let marked = users.iter().flat_map(|user| rooms.iter().map(move |room| (room, user)));
            join_all(marked.map(|(room, user)| store.mark(room, user, round * 4, round * 4))).await;
            join_all(users.iter().map(|user| store.read_notifications(user, None))).await;
        }
    };
    tokio::join!(sends(0), sends(1), sends(2), notices, marks);
    for room in &rooms {
        let entries = store.entries(&LogId::from(room), 0, 10_000).await.unwrap();
        for name in &members {
            let (unread, read) = unread(&store, room, name).await;
            let own = entries.iter().filter(|entry| entry.sender == user(name)).map(|entry| entry.seq).max();
            assert!(read >= own.unwrap_or(0), "{name}");
            assert_eq!(unread, entries.iter().filter(|entry| entry.seq > read).count() as i64, "{name}");
            let runs = store.notifications(&user(name), part(100, 0)).await.unwrap();
            for run in runs.iter().filter(|run| run.conversation == *room && run.read_at.is_none()) {
                assert!(run.count > 0, "an open run has unread messages: {run:?}");
            }
        }
    }
}
