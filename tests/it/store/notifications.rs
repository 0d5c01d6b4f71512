//! Notifications of unread messages.

use super::*;
use crate::support::eventually;

/// Notifications without a webhook.
const NO_POSTS: NotifyOptions = NotifyOptions { undelivered_only: false, post_queue: 0 };
const HOUR: Duration = Duration::from_secs(3_600);

fn waiting(first: Seq, last: Seq) -> Waiting {
    Waiting { first, last }
}

/// Notifies users, and returns the inbox entries.
async fn tell(
    store: &Arc<dyn Store>,
    room: &ConversationId,
    waiting: Waiting,
    users: &[UserId],
) -> Result<Vec<Entry>, StoreError> {
    let notified = store.notify(room, waiting, users, NO_POSTS).await?;
    assert_eq!(notified.queued, 0);
    Ok(notified.entries)
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
    let told = tell(&store, &room, waiting(2, 4), &bob).await.unwrap();
    assert_eq!(told[0].body, Body::Notified { conversation: room.clone(), from_seq: 2 });
    assert_eq!(store.entries(&LogId::inbox(&bob[0]), told[0].seq - 1, 10).await.unwrap(), told);
    assert_eq!(newest(&store, &bob[0]).await, Some((2, 3, true)));
    assert_eq!(tell(&store, &room, waiting(6, 8), &bob).await.unwrap(), [], "the inbox has the run already");
    assert_eq!(newest(&store, &bob[0]).await, Some((2, 6, true)), "a reaction is no message");
    store.mark(&room, &bob[0], 8, 8).await.unwrap();
    assert_eq!(newest(&store, &bob[0]).await, Some((2, 6, false)), "reading ends the run");
    assert_eq!(tell(&store, &room, waiting(7, 10), &bob).await.unwrap().len(), 1);
    assert_eq!(newest(&store, &bob[0]).await, Some((9, 2, true)), "the next run begins after the read mark");
}

/// A node reports messages that are lost since, because the store was set back.
pub(super) async fn lost_messages_do_not_count_as_notified(store: Arc<dyn Store>) {
    let room = busy_room(&store, &["bob"]).await;
    let bob = [user("bob")];
    assert_eq!(tell(&store, &room, waiting(9, 15), &bob).await.unwrap().len(), 1);
    assert_eq!(newest(&store, &bob[0]).await, Some((9, 2, true)));
    store.read_notifications(&bob[0], None).await.unwrap();
    append(&store, new(&room, "alice", "11", text("x"))).await.unwrap();
    assert_eq!(tell(&store, &room, waiting(11, 11), &bob).await.unwrap().len(), 1);
    assert_eq!(newest(&store, &bob[0]).await, Some((11, 1, true)));
}

/// Each node reports the messages that it stored: their seqs interleave, and a node repeats a report after a failure.
pub(super) async fn a_run_accepts_reports_in_any_order(store: Arc<dyn Store>) {
    let room = busy_room(&store, &["bob", "carol"]).await;
    let users = ["carol", "bob"].map(user);
    for notice in [waiting(2, 4), waiting(1, 3), waiting(3, 4), waiting(6, 9), waiting(7, 8), waiting(2, 4)] {
        tell(&store, &room, notice, &users).await.unwrap();
    }
    for user in &users {
        assert_eq!(newest(&store, user).await, Some((1, 8, true)));
    }
    let bob = &users[1..];
    store.read_notifications(&bob[0], None).await.unwrap();
    assert_eq!(tell(&store, &room, waiting(2, 9), bob).await.unwrap(), [], "a late repeat opens no run");
    assert_eq!(tell(&store, &room, waiting(6, 10), bob).await.unwrap().len(), 1);
    assert_eq!(newest(&store, &bob[0]).await, Some((10, 1, true)), "messages of a read run don't count again");

    let late = (1..=10).rev().filter(|seq| *seq != 5).map(|seq| tell(&store, &room, waiting(seq, seq), &users[..1]));
    assert_eq!(join_all(late).await.into_iter().map(|told| told.unwrap().len()).sum::<usize>(), 0);
    assert_eq!(newest(&store, &users[0]).await, Some((1, 9, true)));
}

pub(super) async fn users_without_unread_messages_get_no_notification(store: Arc<dyn Store>) {
    let room = busy_room(&store, &["bob", "carol", "dave"]).await;
    store.mark(&room, &user("bob"), 4, 4).await.unwrap();
    let remove = Body::MemberRemoved { user: user("carol") };
    append(&store, new(&room, "alice", "remove", remove)).await.unwrap();
    let users = ["dave", "carol", "mallory", "bob", "dave"].map(user);
    let told = tell(&store, &room, waiting(3, 4), &users).await.unwrap();
    assert_eq!(told.iter().map(|entry| entry.log.clone()).collect::<Vec<_>>(), [LogId::inbox(&user("dave"))]);
    for who in &users[1..4] {
        assert_eq!(newest(&store, who).await, None, "{who}");
    }
    assert_eq!(tell(&store, &room, waiting(3, 6), &users[3..4]).await.unwrap().len(), 1, "a run that bob has not read");
    assert_eq!(newest(&store, &user("bob")).await, Some((6, 1, true)));
}

pub(super) async fn only_their_user_marks_notifications_read(store: Arc<dyn Store>) {
    let users = ["bob", "carol"].map(user);
    let [bob, carol] = &users;
    for id in ["one", "two", "three"] {
        let (room, _) = group(&store, id, "alice", &["bob", "carol"]).await;
        append(&store, new(&room, "alice", "1", text("x"))).await.unwrap();
        tell(&store, &room, waiting(1, 1), &users).await.unwrap();
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
            tell(&store, &room, waiting(seq, 10), &users).await.unwrap();
        }
    };
    // On a busy machine a mark may wait for the others longer than a call may take.
    let mark = async |user| {
        eventually("a mark", async || store.mark(&room, user, 10, 10).await.ok()).await;
    };
    let marks = join_all(users.iter().map(mark));
    tokio::join!(notices, marks);
    for who in &users {
        assert!(newest(&store, who).await.is_none_or(|(.., open)| !open), "{who}");
    }
}

pub(super) async fn own_deleted_and_delivered_messages_open_nothing(store: Arc<dyn Store>) {
    let room = busy_room(&store, &["bob", "carol", "dave"]).await;
    append(&store, new(&room, "bob", "own", text("mine"))).await.unwrap();
    append(&store, new(&room, "alice", "delete", Body::Deleted { target: 10 })).await.unwrap();
    let [bob, carol] = [[user("bob")], [user("carol")]];
    assert_eq!(tell(&store, &room, waiting(10, 12), &bob).await.unwrap(), [], "a deleted one, an own one, a deletion");
    let told = tell(&store, &room, waiting(10, 12), &carol).await.unwrap();
    assert_eq!(told[0].body, Body::Notified { conversation: room.clone(), from_seq: 11 });
    assert_eq!(tell(&store, &room, waiting(9, 12), &bob).await.unwrap(), [], "bob has answered to it");

    let dave = [user("dave")];
    store.mark(&room, &dave[0], 8, 0).await.unwrap();
    let undelivered = NotifyOptions { undelivered_only: true, ..NO_POSTS };
    assert_eq!(store.notify(&room, waiting(1, 8), &dave, undelivered).await.unwrap().entries, []);
    let told = store.notify(&room, waiting(1, 11), &dave, undelivered).await.unwrap().entries;
    assert_eq!(told[0].body, Body::Notified { conversation: room.clone(), from_seq: 9 });
}

pub(super) async fn posts_are_taken_once_and_again_after_their_claim(store: Arc<dyn Store>) {
    let room = busy_room(&store, &["bob", "carol", "dave"]).await;
    let users = ["bob", "carol", "dave"].map(user);
    let options = NotifyOptions { undelivered_only: false, post_queue: 10 };
    let notified = store.notify(&room, waiting(6, 8), &users, options).await.unwrap();
    assert_eq!((notified.entries.len(), notified.queued), (3, 3));
    assert_eq!(store.notify(&room, waiting(9, 9), &users, options).await.unwrap().queued, 0, "the runs are open");
    assert_eq!(store.waiting_posts().await.unwrap().count, 3);

    let mut taken = store.claim_posts(2, HOUR, HOUR).await.unwrap();
    taken.extend(store.claim_posts(2, Duration::ZERO, HOUR).await.unwrap());
    taken.sort_by(|one, other| one.user.cmp(&other.user));
    let of: Vec<_> = taken.iter().map(|post| (post.user.clone(), post.from_seq, post.tries)).collect();
    assert_eq!(of, users.clone().map(|user| (user, 6, 1)));
    for post in &taken {
        let message = post.message.as_ref().unwrap();
        assert_eq!((message.seq, message.sender.as_str(), post.expired), (6, "alice", false));
        assert_eq!(post.conversation, room);
        let runs = store.notifications(&post.user, part(1, 0)).await.unwrap();
        assert_eq!((runs[0].id, runs[0].created_at), (post.id, post.created_at));
    }
    // The claim of the last one was over at once.
    let again = store.claim_posts(9, HOUR, Duration::ZERO).await.unwrap();
    assert_eq!(again.iter().map(|post| (post.tries, post.expired)).collect::<Vec<_>>(), [(2, true)]);
    assert_eq!(store.claim_posts(9, HOUR, HOUR).await.unwrap(), []);

    store.mark(&room, &users[1], 10, 10).await.unwrap();
    append(&store, new(&room, "alice", "delete", Body::Deleted { target: 6 })).await.unwrap();
    let ids: Vec<i64> = taken.iter().map(|post| post.id).collect();
    let later = [(ids[0], HOUR), (ids[1], Duration::ZERO), (ids[2], Duration::ZERO)];
    store.finish_posts(&[], &later).await.unwrap();
    let mut again = store.claim_posts(9, HOUR, HOUR).await.unwrap();
    again.sort_by(|one, other| one.user.cmp(&other.user));
    let first = |post: &NotificationPost| post.message.as_ref().map(|message| message.seq);
    assert_eq!(again.iter().map(first).collect::<Vec<_>>(), [None, Some(7)], "carol has read, dave lost the first");
    store.finish_posts(&ids[..2], &[(ids[2], Duration::ZERO), (i64::MAX, HOUR)]).await.unwrap();
    assert_eq!(store.waiting_posts().await.unwrap().count, 1);
    assert_eq!(store.claim_posts(9, HOUR, HOUR).await.unwrap().len(), 1);
}

pub(super) async fn posts_are_bounded_and_tell_what_waits(store: Arc<dyn Store>) {
    assert_eq!(store.waiting_posts().await.unwrap(), WaitingPosts::default());
    let names: Vec<String> = (0..9).map(|at| format!("user{at}")).collect();
    let room = busy_room(&store, &names.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let users: Vec<UserId> = names.iter().map(|name| user(name)).collect();
    let options = NotifyOptions { undelivered_only: false, post_queue: 5 };
    let mut queued = Vec::new();
    for some in users.chunks(3) {
        let notified = store.notify(&room, waiting(1, 10), some, options).await.unwrap();
        assert_eq!(notified.entries.len(), 3, "the notifications are opened");
        queued.push(notified.queued);
    }
    assert_eq!(queued, [3, 2, 0]);
    let first = store.waiting_posts().await.unwrap();
    let second = store.waiting_posts().await.unwrap();
    assert!(first.count == 5 && second.oldest > first.oldest, "{first:?} {second:?}");
    let taken = store.claim_posts(2, HOUR, HOUR).await.unwrap();
    store.finish_posts(&taken.iter().map(|post| post.id).collect::<Vec<_>>(), &[]).await.unwrap();
    store.read_notifications(&users[0], None).await.unwrap();
    append(&store, new(&room, "alice", "more", text("more"))).await.unwrap();
    assert_eq!(store.notify(&room, waiting(11, 11), &users[..1], options).await.unwrap().queued, 1, "there is room");
}
