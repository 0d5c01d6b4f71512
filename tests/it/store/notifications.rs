//! Notifications of unread messages.

use super::*;

fn waiting(first: Seq, last: Seq) -> Waiting {
    Waiting { first, last }
}

/// The newest run of a user: first seq, count, and true if it is open.
async fn newest(store: &Arc<dyn Store>, user: &UserId) -> Option<(Seq, i64, bool)> {
    let run = store.notifications(user, part(1, 0)).await.unwrap().pop()?;
    Some((run.from_seq, run.count, run.read_at.is_none()))
}

/// A room with nine messages of alice; the fifth entry is a reaction among them.
async fn busy_room(store: &Arc<dyn Store>, members: &[&str]) -> ConversationId {
    let (room, _) = group(store, "room", "alice", members).await;
    for at in 1..=10 {
        let reaction = Body::Reacted { target: 1, emoji: "👍".into(), active: true };
        let body = if at == 5 { reaction } else { text("x") };
        assert_eq!(append(store, new(&room, "alice", &at.to_string(), body)).await.unwrap().seq, at);
    }
    room
}

pub(super) async fn a_run_counts_the_unread_messages(store: Arc<dyn Store>) {
    let room = busy_room(&store, &["bob"]).await;
    let bob = [user("bob")];
    let told = store.notify(&room, waiting(2, 4), &bob).await.unwrap();
    assert_eq!(told[0].body, Body::Notified { conversation: room.clone(), from_seq: 2 });
    assert_eq!(store.entries(&LogId::inbox(&bob[0]), told[0].seq - 1, 10).await.unwrap(), told);
    assert_eq!(newest(&store, &bob[0]).await, Some((2, 3, true)));
    assert_eq!(store.notify(&room, waiting(6, 8), &bob).await.unwrap(), [], "the inbox has the run already");
    assert_eq!(newest(&store, &bob[0]).await, Some((2, 6, true)), "a reaction is no message");
    store.mark(&room, &bob[0], 8, 8).await.unwrap();
    assert_eq!(newest(&store, &bob[0]).await, Some((2, 6, false)), "reading ends the run");
    assert_eq!(store.notify(&room, waiting(7, 10), &bob).await.unwrap().len(), 1);
    assert_eq!(newest(&store, &bob[0]).await, Some((9, 2, true)), "the next run begins after the read mark");
}

/// Each node reports the messages that it stored: their seqs interleave, and a node repeats a report after a failure.
pub(super) async fn a_run_accepts_reports_in_any_order(store: Arc<dyn Store>) {
    let room = busy_room(&store, &["bob", "carol"]).await;
    let users = ["carol", "bob"].map(user);
    for notice in [waiting(2, 4), waiting(1, 3), waiting(3, 4), waiting(6, 9), waiting(7, 8), waiting(2, 4)] {
        store.notify(&room, notice, &users).await.unwrap();
    }
    for user in &users {
        assert_eq!(newest(&store, user).await, Some((1, 8, true)));
    }
    let bob = &users[1..];
    store.read_notifications(&bob[0], None).await.unwrap();
    assert_eq!(store.notify(&room, waiting(2, 9), bob).await.unwrap(), [], "a late repeat opens no run");
    assert_eq!(store.notify(&room, waiting(6, 10), bob).await.unwrap().len(), 1);
    assert_eq!(newest(&store, &bob[0]).await, Some((10, 1, true)), "messages of a read run don't count again");

    let late = (1..=10).rev().filter(|seq| *seq != 5).map(|seq| store.notify(&room, waiting(seq, seq), &users[..1]));
    assert_eq!(join_all(late).await.into_iter().map(|told| told.unwrap().len()).sum::<usize>(), 0);
    assert_eq!(newest(&store, &users[0]).await, Some((1, 9, true)));
}

pub(super) async fn users_without_unread_messages_get_no_notification(store: Arc<dyn Store>) {
    let room = busy_room(&store, &["bob", "carol", "dave"]).await;
    store.mark(&room, &user("bob"), 4, 4).await.unwrap();
    let remove = Body::MemberRemoved { user: user("carol") };
    append(&store, new(&room, "alice", "remove", remove)).await.unwrap();
    let users = ["dave", "carol", "mallory", "bob", "dave"].map(user);
    let told = store.notify(&room, waiting(3, 4), &users).await.unwrap();
    assert_eq!(told.iter().map(|entry| entry.log.clone()).collect::<Vec<_>>(), [LogId::inbox(&user("dave"))]);
    for who in &users[1..4] {
        assert_eq!(newest(&store, who).await, None, "{who}");
    }
    assert_eq!(store.notify(&room, waiting(3, 6), &users[3..4]).await.unwrap().len(), 1, "a run that bob has not read");
    assert_eq!(newest(&store, &user("bob")).await, Some((6, 1, true)));
}

pub(super) async fn only_their_user_marks_notifications_read(store: Arc<dyn Store>) {
    let users = ["bob", "carol"].map(user);
    let [bob, carol] = &users;
    for id in ["one", "two", "three"] {
        let (room, _) = group(&store, id, "alice", &["bob", "carol"]).await;
        append(&store, new(&room, "alice", "1", text("x"))).await.unwrap();
        store.notify(&room, waiting(1, 1), &users).await.unwrap();
    }
    let ids: Vec<i64> = store.notifications(bob, part(10, 0)).await.unwrap().iter().map(|run| run.id).collect();
    assert_eq!(store.read_notifications(carol, Some(&ids)).await.unwrap(), 0, "those are bob's");
    assert_eq!(store.read_notifications(bob, Some(&[])).await.unwrap(), 0);
    assert_eq!(store.read_notifications(bob, Some(&[ids[1], ids[1], i64::MAX])).await.unwrap(), 1);
    assert_eq!(store.read_notifications(bob, Some(&ids[1..2])).await.unwrap(), 0, "it was read before");
    let open = store.notifications(bob, part(10, 0)).await.unwrap().iter().filter(|run| run.read_at.is_none()).count();
    assert_eq!(open, 2);
    assert_eq!(store.read_notifications(bob, None).await.unwrap(), 2);
    assert_eq!(store.read_notifications(carol, None).await.unwrap(), 3);
}

/// Reading and notifying at the same time, in either order, leave no run open for a user who has read all.
pub(super) async fn concurrent_marks_and_notifications_leave_no_run_open(store: Arc<dyn Store>) {
    let names: Vec<String> = (0..40).map(|at| format!("user{at:02}")).collect();
    let room = busy_room(&store, &names.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let users: Vec<UserId> = names.iter().map(|name| user(name)).collect();
    let notices = async {
        for seq in [1, 2, 3, 4, 6, 7, 8, 9, 10] {
            store.notify(&room, waiting(seq, 10), &users).await.unwrap();
        }
    };
    let marks = join_all(users.iter().map(|user| store.mark(&room, user, 10, 10)));
    tokio::join!(notices, marks);
    for who in &users {
        assert!(newest(&store, who).await.is_none_or(|(.., open)| !open), "{who}");
    }
}
