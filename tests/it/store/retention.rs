//! Retention: what is older than it is kept goes, and what remains stays right.

use switchboard::{
    model::{EntrySeq, HistoryRange, RetentionDays},
    store::{AgedLog, Ends, Job},
};

use super::*;

const DAY: Duration = Duration::from_secs(86_400);
const WEEK: Option<RetentionDays> = RetentionDays::new(7);

/// Removes everything that was stored before this time, a few entries at a time. Returns the number of entries.
async fn remove(store: &Arc<dyn Store>, log: &LogId, before: Timestamp) -> u64 {
    let aged = [AgedLog { log: log.clone(), before, oldest: before }];
    let mut removed = 0;
    loop {
        let step = store.remove_aged(&aged, 3).await.unwrap();
        let Some(one) = step.first() else { return removed };
        assert!(one.log == *log && (1..=3).contains(&one.removed), "{one:?}");
        removed += one.removed;
        if !one.more {
            assert_eq!(store.remove_aged(&aged, 3).await.unwrap(), [], "nothing is left");
            return removed;
        }
    }
}

async fn ends(store: &Arc<dyn Store>, log: &LogId) -> Ends {
    store.ends(std::slice::from_ref(log)).await.unwrap()[0].1
}

/// Waits until the store's clock is past this time, so that what is stored next is younger.
async fn past(store: &Arc<dyn Store>, at: Timestamp) {
    loop {
        if store.ping().await.unwrap().at > at {
            return;
        }
    }
}

async fn say(store: &Arc<dyn Store>, room: &ConversationId, sender: &str, id: &str) -> Appended {
    append(store, new(room, sender, id, text(&format!("word{id} by {sender}")))).await.unwrap()
}

/// The time between what is stored before this call and what is stored after it.
async fn cut(store: &Arc<dyn Store>) -> Timestamp {
    let at = store.ping().await.unwrap().at.plus(Duration::from_millis(2));
    past(store, at).await;
    at
}

pub(super) async fn old_entries_go_and_what_remains_has_no_gap(store: Arc<dyn Store>) {
    let (room, _) = group(&store, "room", "alice", &["bob", "carol"]).await;
    let log = LogId::from(&room);
    for id in ["1", "2", "3", "4", "5"] {
        say(&store, &room, "alice", id).await;
    }
    let react = |id: &str, target| {
        let body = Body::Reacted { target, emoji: "x".into(), active: true };
        append(&store, new(&room, "bob", id, body))
    };
    react("r", 2).await.unwrap();
    append(&store, new(&room, "alice", "d", Body::Deleted { target: 3 })).await.unwrap();
    store.mark(&room, &user("bob"), 1, 1).await.unwrap();
    let before = cut(&store).await;
    let mut reply = text("a reply to what goes");
    if let Body::Message { reply_to, .. } = &mut reply {
        *reply_to = Some(2);
    }
    for (id, body) in [("6", text("word6")), ("7", reply), ("8", text("word8"))] {
        append(&store, new(&room, "alice", id, body)).await.unwrap();
    }
    append(&store, new(&room, "alice", "d2", Body::Deleted { target: 10 })).await.unwrap();
    assert_eq!(remove(&store, &log, before).await, 7);

    let now = ends(&store, &log).await;
    assert_eq!((now.first, now.head), (8, 11));
    let kept = store.entries(&log, 0, 100).await.unwrap();
    assert_eq!(kept.iter().map(|entry| entry.seq).collect::<Vec<_>>(), [8, 9, 10, 11]);
    let page = store.messages(&room, &user("bob"), MessagesPage::default()).await.unwrap();
    assert_eq!((page.messages.len(), page.total, page.head, page.more_older), (3, 3, 11, false));
    // Two messages wait that are not deleted; those that are gone count for nobody, whatever was read.
    let unread = async |reader: &str| store.conversation(&room, &user(reader)).await.unwrap().unwrap().unread;
    assert_eq!((unread("bob").await, unread("carol").await, unread("alice").await), (2, 2, 0));
    assert_eq!(store.mark(&room, &user("bob"), 4, 4).await.unwrap(), Some((4, 4)), "a mark may stand in what is gone");
    assert_eq!(unread("bob").await, 2);
    store.mark(&room, &user("bob"), 8, 8).await.unwrap();
    assert_eq!(unread("bob").await, 1);
    let (listed, _) = store.conversations(&user("carol"), false, part(10, 0)).await.unwrap();
    assert_eq!(listed[0].last_message.as_ref().map(|last| last.seq), Some(10));
    let access = store.access(&room, &user("bob")).await.unwrap().unwrap();
    assert_eq!(access.ends.first, 8);

    // A removed message is not found, shown, changed or replied to; its id may be used again.
    assert_eq!(store.message(&room, 2, &user("bob")).await.unwrap(), None);
    let own = SearchScope::Own(user("bob"));
    assert_eq!(store.search(&own, &terms("word2"), part(10, 0)).await.unwrap(), []);
    assert_eq!(store.search(&own, &terms("word6"), part(10, 0)).await.unwrap().len(), 1);
    assert_eq!(react("r2", 2).await, Err(AppendRefused::NoSuchTarget));
    let thread = MessagesPage { thread: Some(2), ..MessagesPage::default() };
    assert_eq!(store.messages(&room, &user("bob"), thread).await.unwrap().messages.len(), 1, "replies outlive it");
    let range = HistoryRange::Around(EntrySeq::new(2).unwrap());
    let around = store.messages(&room, &user("bob"), MessagesPage { range, ..MessagesPage::default() }).await.unwrap();
    assert_eq!(around.messages.len(), 3, "a page around what is gone begins with what is kept");
    let again = say(&store, &room, "alice", "1").await;
    assert_eq!((again.duplicate, again.seq), (false, 12));
    let kept = append(&store, new(&room, "alice", "6", text("word6"))).await.unwrap();
    assert!(kept.duplicate && kept.seq == 8, "{kept:?}");
}

pub(super) async fn a_log_may_lose_everything_but_its_head(store: Arc<dyn Store>) {
    let (room, _) = group(&store, "room", "alice", &["bob"]).await;
    let log = LogId::from(&room);
    for id in ["1", "2", "3", "4"] {
        say(&store, &room, "alice", id).await;
    }
    let newest = ends(&store, &log).await.newest();
    let before = cut(&store).await;
    assert_eq!(remove(&store, &log, before).await, 4);
    let now = ends(&store, &log).await;
    assert_eq!((now.first, now.head, now.newest()), (5, 4, newest), "the identity of the newest entry stays");
    let (listed, _) = store.conversations(&user("bob"), false, part(10, 0)).await.unwrap();
    assert_eq!((listed[0].unread, listed[0].head, listed[0].last_message.is_none()), (0, 4, true));
    let page = store.messages(&room, &user("bob"), MessagesPage::default()).await.unwrap();
    assert_eq!((page.messages.len(), page.total, page.head), (0, 0, 4));
    assert_eq!(store.newest(std::slice::from_ref(&log)).await.unwrap(), []);
    assert_eq!(store.ends_at(&[(log.clone(), before)]).await.unwrap(), [(log.clone(), 4)]);
    let next = say(&store, &room, "bob", "1").await;
    assert_eq!((next.seq, next.message_no), (5, 5), "no seq is given out twice");
    assert_eq!(store.conversation(&room, &user("alice")).await.unwrap().unwrap().unread, 1);
    let (listed, _) = store.conversations(&user("alice"), false, part(10, 0)).await.unwrap();
    assert_eq!(listed[0].last_message.as_ref().map(|last| last.seq), Some(5));
}

pub(super) async fn notifications_about_removed_messages_go_with_them(store: Arc<dyn Store>) {
    let (room, _) = group(&store, "room", "alice", &["bob", "carol"]).await;
    let log = LogId::from(&room);
    let notify = async |first, last, user: &str| {
        let options = NotifyOptions { undelivered_only: false, post_queue: 10 };
        store.notify(&room, Waiting { first, last }, &[self::user(user)], options).await.unwrap();
    };
    for id in ["1", "2", "3"] {
        say(&store, &room, "alice", id).await;
    }
    notify(1, 3, "bob").await;
    notify(1, 3, "carol").await;
    let before = cut(&store).await;
    say(&store, &room, "alice", "4").await;
    notify(4, 4, "carol").await;
    assert_eq!(store.waiting_posts().await.unwrap().count, 2);
    assert_eq!(remove(&store, &log, before).await, 3);
    assert_eq!(store.notifications(&user("bob"), part(10, 0)).await.unwrap(), []);
    let carols = store.notifications(&user("carol"), part(10, 0)).await.unwrap();
    assert_eq!(carols.iter().map(|one| (one.from_seq, one.count)).collect::<Vec<_>>(), [(4, 1)]);
    let posts = store.claim_posts(10, Duration::from_secs(60), DAY).await.unwrap();
    let posts: Vec<_> = posts.iter().map(|post| (post.user.as_str(), post.message.as_ref().map(|m| m.seq))).collect();
    assert_eq!(posts, [("carol", Some(4))], "no request waits for what is gone");
    assert_eq!(store.waiting_posts().await.unwrap().count, 1);
}

pub(super) async fn aged_logs_are_found_by_the_rule_of_each(store: Arc<dyn Store>) {
    for id in ["a", "b", "c", "d"] {
        let (room, _) = group(&store, id, "alice", &[]).await;
        say(&store, &room, "alice", "1").await;
    }
    let now = store.ping().await.unwrap().at;
    let in_days = |days| now.plus(days * DAY).plus(Duration::from_secs(60));
    let aged = async |default, at, after: Option<&str>, limit| {
        let (default, after) = (RetentionDays::new(default).unwrap(), after.map(|id| LogId::parse(id).unwrap()));
        let page = store.aged(default, at, after.as_ref(), limit).await.unwrap();
        let names: Vec<String> = page.logs.iter().map(|aged| aged.log.to_string()).collect();
        (names, page.last.map(|log| log.to_string()))
    };
    let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(aged(0, in_days(9_999), None, 10).await, (vec![], None), "without a rule nothing ages");
    assert_eq!(aged(7, in_days(6), None, 10).await, (vec![], None));
    assert_eq!(aged(7, in_days(7), None, 10).await, (names(&["a", "b", "c", "d", "~alice"]), None), "and inboxes");
    assert_eq!(aged(7, in_days(7), None, 2).await, (names(&["a", "b"]), Some("b".to_owned())), "pages");
    assert_eq!(aged(7, in_days(7), Some("b"), 2).await, (names(&["c", "d"]), Some("d".to_owned())));

    assert_eq!(store.retention(&room("a")).await.unwrap(), Some(None));
    assert_eq!(store.retention(&room("nowhere")).await.unwrap(), None);
    assert!(!store.set_retention(&room("nowhere"), WEEK).await.unwrap());
    assert!(store.set_retention(&room("a"), WEEK).await.unwrap());
    assert!(store.set_retention(&room("b"), Some(RetentionDays::FOR_EVER)).await.unwrap());
    assert_eq!(store.retention(&room("a")).await.unwrap(), Some(WEEK));
    assert_eq!(aged(0, in_days(8), None, 10).await, (names(&["a"]), None), "a rule of its own, without one for all");
    assert_eq!(aged(30, in_days(8), None, 10).await, (names(&["a"]), None), "a shorter one");
    assert_eq!(aged(3, in_days(4), None, 10).await, (names(&["c", "d", "~alice"]), None), "longer ones");
    assert!(store.set_retention(&room("a"), None).await.unwrap());
    assert_eq!(aged(0, in_days(8), None, 10).await, (vec![], None));

    // The limit of a batch counts over its logs.
    let page = store.aged(RetentionDays::new(7).unwrap(), in_days(7), None, 10).await.unwrap();
    let removed = store.remove_aged(&page.logs[..3], 2).await.unwrap();
    let removed: Vec<_> = removed.iter().map(|one| (one.log.as_str(), one.removed)).collect();
    assert_eq!(removed, [("a", 1), ("c", 1)]);
}

pub(super) async fn one_process_has_a_job_at_a_time(store: Arc<dyn Store>) {
    let (hold, often) = (Duration::from_secs(60), Duration::ZERO);
    let take = async |who: &str, hold, every| store.take_job(Job::Retention, who, hold, every).await.unwrap();
    let first = take("one", hold, often).await;
    assert!(first.held && first.done_at.is_none());
    assert!(!take("two", hold, often).await.held, "another process has it");
    assert!(take("one", Duration::ZERO, often).await.held, "it may renew it");
    let second = take("two", hold, often).await;
    assert!(second.held, "a hold that is over is taken, as that of a dead node");
    assert!(!store.finish_job(Job::Retention, "one").await.unwrap(), "who lost it did not do it to its end");
    assert!(store.finish_job(Job::Retention, "two").await.unwrap());
    let done = take("one", hold, hold).await;
    assert!(!done.held && done.done_at.is_some(), "not due again: {done:?}");
    assert!(take("one", hold, often).await.held, "due");
}
