//! The store's contract, tested on both stores, and writers of several nodes on one PostgreSQL.

mod data;
mod deployment;
mod erasures;
mod migrations;
mod notifications;
mod pages;
mod plans;
mod repeats;
mod restrictions;
mod retention;
mod rights;
mod search;
mod set_back;
mod unread;
mod watches;
mod writers;

use std::{
    collections::{HashMap, HashSet},
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use data::{
    a_deletion_removes_all_data, an_edit_keeps_removes_or_replaces_data, data_is_stored_as_sent_and_not_searched,
};
use deployment::the_deployment_keeps_its_id;
use erasures::a_departure_from_before_an_erasure_tells_nothing;
use futures_util::future::join_all;
pub(crate) use migrations::up_to;
use notifications::{
    a_run_accepts_reports_in_any_order, a_run_counts_the_unread_messages,
    concurrent_marks_and_notifications_leave_no_run_open, lost_messages_do_not_count_as_notified,
    only_their_user_marks_notifications_read, own_deleted_and_delivered_messages_open_nothing,
    posts_are_bounded_and_tell_what_waits, posts_are_taken_once_and_again_after_their_claim,
    users_without_unread_messages_get_no_notification,
};
use pages::{
    archived_conversations_are_listed_separately, direct_conversations_and_contacts_are_listed,
    messages_show_their_reactions_and_threads, pages_in_both_directions_have_each_message_once,
    reactions_to_one_message_are_bounded, search_finds_words_only_in_the_users_own_conversations,
};
use plans::few_and_many_messages_are_judged_alike;
use proptest::prelude::*;
use repeats::an_id_of_another_command_is_refused;
use restrictions::{
    blocked_users_are_listed, restrictions_are_bounded, restrictions_stand_once_and_in_order,
    what_is_over_or_expired_is_pruned,
};
use retention::{
    a_log_may_lose_everything_but_its_head, aged_logs_are_found_by_the_rule_of_each,
    notifications_about_removed_messages_go_with_them, old_entries_go_and_what_remains_has_no_gap,
    one_process_has_a_job_at_a_time,
};
use rights::{
    a_message_keeps_the_persona_that_it_asks, a_removed_members_repeat_is_refused_unless_the_writer_retries,
    blocked_users_reach_nobody_who_blocks_them, those_who_may_send_events_are_known,
    who_left_or_was_removed_is_not_added_by_everybody,
};
use search::{indexed_messages_are_found_like_others, texts_of_all_scripts_are_found};
use set_back::{
    an_epoch_ends_once, members_are_told_from_others, the_newest_entries_are_identified_by_seq_and_time,
    the_newest_entry_before_a_time_is_found,
};
use switchboard::{
    config::{PostgresConfig, StoreBackend, StoreConfig},
    degrade::{Degrade, LinkState},
    metrics::Metrics,
    model::{
        Body, ClientId, ConversationId, ConversationKind, Entry, GivenNumber, Listed, LogId, NewConversation, NodeId,
        Page, SearchTerms, Seq, Status, Timestamp, UserId,
    },
    store::{
        AppendError, AppendRefused, Appended, Authority, Lifecycle, MessagesPage, NewEntry, NotificationPost,
        NotifyOptions, Outcomes, Postgres, ReadMessages, RelaySign, SearchScope, Sqlite, Store, StoreError, Waiting,
        WaitingPosts, Writer, WriterSettings,
    },
    supervise::Supervisor,
};
use unread::{
    concurrent_messages_marks_and_notifications_agree, deleted_messages_are_not_unread,
    notifications_count_what_is_unread, own_messages_are_read,
};
use watches::{conversations_with_recent_messages_are_found_in_pages, the_row_of_a_silent_process_is_taken_once};

use crate::support::Postgres as Server;

fn supervisor() -> Supervisor {
    Supervisor::new(Arc::new(Metrics::new().unwrap()))
}

fn user(id: &str) -> UserId {
    UserId::parse(id).unwrap()
}

fn room(id: &str) -> ConversationId {
    ConversationId::parse(id).unwrap()
}

fn new(log: &ConversationId, sender: &str, dedupe: &str, body: Body) -> NewEntry {
    NewEntry {
        log: LogId::from(log),
        sender: user(sender),
        sender_name: sender.into(),
        dedupe: ClientId::parse(dedupe).unwrap(),
        client_gave_id: true,
        authority: Authority::Member,
        body,
    }
}

fn text(content: &str) -> Body {
    Body::message(content)
}

async fn postgres(url: &str) -> Postgres {
    let store = unmigrated(url).await;
    store.migrate().await.unwrap();
    store
}

async fn unmigrated(url: &str) -> Postgres {
    let backend = StoreBackend::Postgres(Box::new(PostgresConfig::at(url)));
    let metrics = Arc::new(Metrics::new().unwrap());
    Postgres::new(&StoreConfig::with_defaults(backend), metrics, Degrade::unwatched()).unwrap()
}

fn sqlite(path: &Path) -> Sqlite {
    let config = StoreConfig::with_defaults(StoreBackend::Sqlite { path: path.into() });
    Sqlite::open(path, &config, Arc::new(Metrics::new().unwrap())).unwrap()
}

async fn with_postgres<F: Future<Output = ()>>(test: impl FnOnce(Arc<dyn Store>) -> F) {
    let url = Server::shared().await.database().await;
    test(Arc::new(postgres(&url).await)).await;
}

async fn with_sqlite<F: Future<Output = ()>>(test: impl FnOnce(Arc<dyn Store>) -> F) {
    let folder = tempfile::tempdir().unwrap();
    let store = sqlite(&folder.path().join("test.db"));
    store.migrate().await.unwrap();
    test(Arc::new(store)).await;
}

/// Makes two tests of each function: one on PostgreSQL, one on SQLite.
macro_rules! contract {
    ($($name:ident)*) => {
        mod on_postgres { $(#[tokio::test] async fn $name() { super::with_postgres(super::$name).await; })* }
        mod on_sqlite { $(#[tokio::test] async fn $name() { super::with_sqlite(super::$name).await; })* }
    };
}

contract! {
    migrations_run_once
    the_deployment_keeps_its_id
    the_newest_entries_are_identified_by_seq_and_time
    the_newest_entry_before_a_time_is_found
    an_epoch_ends_once
    members_are_told_from_others
    appends_are_gapless_idempotent_and_only_for_members
    few_and_many_messages_are_judged_alike
    one_bad_entry_does_not_fail_its_neighbours
    edits_deletions_and_reactions_change_their_targets
    added_and_removed_members_get_an_inbox_entry
    a_direct_conversation_is_unique_by_its_pair
    marks_only_move_forward
    conversations_are_listed_in_pages
    users_and_their_statuses_are_stored
    messages_show_their_reactions_and_threads
    pages_in_both_directions_have_each_message_once
    reactions_to_one_message_are_bounded
    stored_entries_are_found_by_their_ids
    search_finds_words_only_in_the_users_own_conversations
    indexed_messages_are_found_like_others
    texts_of_all_scripts_are_found
    archived_conversations_are_listed_separately
    direct_conversations_and_contacts_are_listed
    a_run_counts_the_unread_messages
    a_run_accepts_reports_in_any_order
    lost_messages_do_not_count_as_notified
    users_without_unread_messages_get_no_notification
    only_their_user_marks_notifications_read
    own_deleted_and_delivered_messages_open_nothing
    posts_are_taken_once_and_again_after_their_claim
    posts_are_bounded_and_tell_what_waits
    concurrent_marks_and_notifications_leave_no_run_open
    a_removed_members_repeat_is_refused_unless_the_writer_retries
    a_message_keeps_the_persona_that_it_asks
    an_id_of_another_command_is_refused
    who_left_or_was_removed_is_not_added_by_everybody
    blocked_users_reach_nobody_who_blocks_them
    those_who_may_send_events_are_known
    the_row_of_a_silent_process_is_taken_once
    conversations_with_recent_messages_are_found_in_pages
    own_messages_are_read
    deleted_messages_are_not_unread
    notifications_count_what_is_unread
    concurrent_messages_marks_and_notifications_agree
    data_is_stored_as_sent_and_not_searched
    an_edit_keeps_removes_or_replaces_data
    a_deletion_removes_all_data
    restrictions_stand_once_and_in_order
    blocked_users_are_listed
    restrictions_are_bounded
    what_is_over_or_expired_is_pruned
    old_entries_go_and_what_remains_has_no_gap
    a_log_may_lose_everything_but_its_head
    notifications_about_removed_messages_go_with_them
    aged_logs_are_found_by_the_rule_of_each
    one_process_has_a_job_at_a_time
    a_departure_from_before_an_erasure_tells_nothing
}

/// Part of a list.
fn part(limit: u32, offset: u32) -> Page {
    let number = |number: u32| Some(GivenNumber::parse(&number.to_string()));
    Page::given(number(limit), number(offset)).unwrap()
}

fn terms(text: &str) -> SearchTerms {
    SearchTerms::given("words", text).unwrap()
}

async fn append(store: &Arc<dyn Store>, entry: NewEntry) -> Result<Appended, AppendRefused> {
    store.append(&[entry], false).await.unwrap().remove(0)
}

async fn group(store: &Arc<dyn Store>, id: &str, creator: &str, members: &[&str]) -> (ConversationId, Vec<Entry>) {
    let members = Listed::given("members", members.iter().map(|id| user(id)).collect()).unwrap();
    let new = NewConversation { is_group: true, members, name: Some("A group".into()), ..NewConversation::default() };
    let (made, told) = store.create(&new, &room(id), &user(creator)).await.unwrap().unwrap();
    (made.id, told)
}

async fn migrations_run_once(store: Arc<dyn Store>) {
    assert_eq!(store.migrate().await.unwrap(), 0, "they had already run");
    store.ping().await.unwrap();
}

async fn appends_are_gapless_idempotent_and_only_for_members(store: Arc<dyn Store>) {
    let (room, _) = group(&store, "room", "alice", &["bob"]).await;
    let batch = [
        new(&room, "alice", "1", text("a")),
        new(&room, "mallory", "1", text("x")),
        new(&room, "bob", "1", text("b")),
        new(&self::room("nowhere"), "alice", "1", text("x")),
        new(&room, "alice", "2", text("c")),
    ];
    let outcomes = store.append(&batch, false).await.unwrap();
    let seqs: Vec<_> = outcomes.iter().map(|outcome| outcome.as_ref().map(|stored| stored.seq)).collect();
    let refused = |refused| Err(refused);
    assert_eq!(
        seqs,
        [Ok(1), refused(&AppendRefused::NotMember), Ok(2), refused(&AppendRefused::NoSuchLog), Ok(3)],
        "one sender's entries in order, no gap for refused ones"
    );
    let again = store.append(&batch, false).await.unwrap();
    for (first, second) in outcomes.iter().zip(&again) {
        if let (Ok(first), Ok(second)) = (first, second) {
            assert_eq!((first.seq, first.at, first.message_no), (second.seq, second.at, second.message_no));
            assert!(second.duplicate && !first.duplicate);
        }
    }
    let entries = store.entries(&LogId::from(&room), 0, 10).await.unwrap();
    assert_eq!(entries.iter().map(|entry| (entry.seq, entry.message_no)).collect::<Vec<_>>(), [(1, 1), (2, 2), (3, 3)]);
    assert_eq!(entries[1].client_id, Some(ClientId::parse("1").unwrap()));
    assert_eq!(entries[1].body, text("b"));
    let ends = store.ends(&[LogId::from(&room), LogId::parse("nowhere").unwrap()]).await.unwrap();
    assert_eq!(ends.len(), 1);
    assert_eq!((ends[0].1.first, ends[0].1.head), (1, 3));
    assert_eq!(store.entries(&LogId::from(&room), 1, 1).await.unwrap()[0].seq, 2);
}

async fn stored_entries_are_found_by_their_ids(store: Arc<dyn Store>) {
    let (room, _) = group(&store, "room", "alice", &["bob"]).await;
    append(&store, new(&room, "alice", "1", text("a"))).await.unwrap();
    append(&store, new(&room, "bob", "1", text("b"))).await.unwrap();
    let found = async |log: &str, sender: &str, id: &str| {
        let (log, id) = (LogId::parse(log).unwrap(), ClientId::parse(id).unwrap());
        store.stored(&log, &user(sender), &id).await.unwrap().map(|stored| stored.entry.seq)
    };
    assert_eq!((found("room", "alice", "1").await, found("room", "bob", "1").await), (Some(1), Some(2)));
    assert_eq!((found("room", "alice", "2").await, found("other", "alice", "1").await), (None, None));
    let (alice, bob) = (user("alice"), user("bob"));
    assert_eq!(store.known_direct(&alice, &bob).await.unwrap(), None);
    let made = store.direct(&alice, &bob).await.unwrap().conversation;
    assert_eq!(store.known_direct(&bob, &alice).await.unwrap(), Some(made));
}

async fn one_bad_entry_does_not_fail_its_neighbours(store: Arc<dyn Store>) {
    let (room, _) = group(&store, "room", "alice", &[]).await;
    let supervisor = supervisor();
    let writer = writers::writer(&store, &supervisor, |_| {});
    let bodies = ["one", "two", "a\0b", "three"];
    let appends = bodies
        .iter()
        .enumerate()
        .map(|(at, body)| writer.append(new(&room, "alice", &at.to_string(), text(body)), None));
    let outcomes = join_all(appends).await;
    let stored = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    // SQLite stores U+0000; PostgreSQL refuses it, and that must not fail the other entries.
    match &outcomes[2] {
        Ok(_) => assert_eq!(stored, 4),
        Err(error) => assert_eq!((error, stored), (&AppendError::Unavailable, 3)),
    }
    supervisor.stop().cancel();
}

async fn edits_deletions_and_reactions_change_their_targets(store: Arc<dyn Store>) {
    let (room, _) = group(&store, "room", "alice", &["bob"]).await;
    let log = LogId::from(&room);
    append(&store, new(&room, "alice", "m", text("helo"))).await.unwrap();
    let edit = |sender: &str, id: &str| new(&room, sender, id, Body::edited(1, "hello"));
    assert_eq!(append(&store, edit("bob", "e")).await, Err(AppendRefused::NotYours));
    let edited = append(&store, edit("alice", "e")).await.unwrap();
    assert_eq!((edited.seq, edited.message_no), (2, 1), "an edit is an entry and no message");
    assert!(append(&store, edit("alice", "e")).await.unwrap().duplicate);
    let react = |id: &str, active| new(&room, "bob", id, Body::Reacted { target: 1, emoji: "👍".into(), active });
    append(&store, react("r1", true)).await.unwrap();
    assert_eq!(append(&store, react("r2", true)).await, Err(AppendRefused::Unchanged));
    append(&store, react("r3", false)).await.unwrap();
    let page = store.messages(&room, &user("alice"), MessagesPage::default()).await.unwrap();
    let (messages, total) = (page.messages, page.total);
    assert_eq!(total, 1);
    assert!(
        matches!(&messages[0].entry.body, Body::Message { content, edited_at: Some(_), .. } if &**content == "hello")
    );
    let reply = Body::Message {
        content: "re".into(),
        data: None,
        reply_to: Some(1),
        is_ai: false,
        persona: None,
        edited_at: None,
        deleted: false,
    };
    let seq = append(&store, new(&room, "bob", "reply", reply.clone())).await.unwrap().seq;
    assert_eq!(store.entries(&log, seq - 1, 1).await.unwrap()[0].body, reply);
    let stray = Body::Message {
        content: "re".into(),
        data: None,
        reply_to: Some(99),
        is_ai: false,
        persona: None,
        edited_at: None,
        deleted: false,
    };
    assert_eq!(append(&store, new(&room, "bob", "stray", stray)).await, Err(AppendRefused::NoSuchTarget));
    let delete = |sender: &str, id: &str| new(&room, sender, id, Body::Deleted { target: 1 });
    assert_eq!(append(&store, delete("bob", "d")).await, Err(AppendRefused::NotYours));
    append(&store, NewEntry { authority: Authority::Admin, ..delete("root", "d") }).await.unwrap();
    assert_eq!(append(&store, delete("alice", "d2")).await, Err(AppendRefused::NoSuchTarget));
    let entries = store.entries(&log, 0, 100).await.unwrap();
    let leaks = entries.iter().filter(|entry| {
        matches!(&entry.body,
        Body::Message { content, .. } | Body::Edited { content, .. } if content.contains("hel"))
    });
    assert_eq!(leaks.count(), 0, "no text of a deleted message remains");
    assert_eq!(
        entries.iter().map(|entry| entry.seq).collect::<Vec<_>>(),
        (1..=entries.len() as Seq).collect::<Vec<_>>()
    );
}

async fn added_and_removed_members_get_an_inbox_entry(store: Arc<dyn Store>) {
    let (room, told) = group(&store, "room", "alice", &["bob", "alice", "bob"]).await;
    assert_eq!(told.len(), 2, "each member once");
    let taken = NewConversation { is_group: true, ..NewConversation::default() };
    assert!(store.create(&taken, &room, &user("eve")).await.unwrap().is_none(), "the id is taken");
    append(&store, new(&room, "alice", "1", text("before"))).await.unwrap();
    let add = Body::MemberAdded { user: user("carol") };
    let added = append(&store, new(&room, "alice", "2", add.clone())).await.unwrap();
    let inbox = LogId::inbox(&user("carol"));
    assert_eq!(added.also, store.entries(&inbox, 0, 10).await.unwrap());
    assert_eq!(added.also[0].body, Body::ConversationAdded { conversation: room.clone(), since: 1 });
    assert_eq!(append(&store, new(&room, "alice", "3", add)).await, Err(AppendRefused::Unchanged));
    let access = store.access(&room, &user("carol")).await.unwrap().unwrap();
    assert_eq!((access.member, access.open, access.ends.head), (true, false, 2));
    assert_eq!(store.conversation(&room, &user("carol")).await.unwrap().unwrap().unread, 0);
    append(&store, new(&room, "carol", "1", text("hi"))).await.unwrap();
    let remove = new(&room, "alice", "4", Body::MemberRemoved { user: user("carol") });
    let removed = append(&store, remove).await.unwrap();
    assert_eq!(removed.also[0].body, Body::ConversationRemoved { conversation: room.clone() });
    assert_eq!(append(&store, new(&room, "carol", "2", text("still?"))).await, Err(AppendRefused::NotMember));
    let members = store.members(&room, None, 1).await.unwrap();
    assert_eq!(members, [user("alice")]);
    assert_eq!(store.members(&room, Some(&members[0]), 10).await.unwrap(), [user("bob")]);
    assert_eq!(store.access(&self::room("nowhere"), &user("bob")).await.unwrap(), None);
}

async fn a_direct_conversation_is_unique_by_its_pair(store: Arc<dyn Store>) {
    let (alice, bob) = (user("alice"), user("bob"));
    let tries = (0..8).map(|at| {
        let (store, one, other) = if at % 2 == 0 { (&store, &alice, &bob) } else { (&store, &bob, &alice) };
        store.direct(one, other)
    });
    let made: Vec<_> = join_all(tries).await.into_iter().map(Result::unwrap).collect();
    let ids: HashSet<_> = made.iter().map(|found| found.conversation.clone()).collect();
    assert_eq!(ids.len(), 1);
    let entries: usize = made.iter().map(|found| found.inbox_entries.len()).sum();
    assert_eq!(entries, 2, "each inbox gets one entry");
    let conversation = store.conversation(&made[0].conversation, &bob).await.unwrap().unwrap();
    assert_eq!(conversation.kind, ConversationKind::Direct);
    assert_eq!(conversation.members.len(), 2);
    let own = store.direct(&alice, &alice).await.unwrap().conversation;
    assert_eq!(store.conversation(&own, &alice).await.unwrap().unwrap().members.len(), 1);
}

async fn marks_only_move_forward(store: Arc<dyn Store>) {
    let (room, _) = group(&store, "room", "alice", &["bob"]).await;
    for at in 0..5 {
        append(&store, new(&room, "alice", &at.to_string(), text("x"))).await.unwrap();
    }
    append(&store, new(&room, "alice", "e", Body::edited(1, "y"))).await.unwrap();
    let unread = || async { store.conversation(&room, &user("bob")).await.unwrap().unwrap().unread };
    assert_eq!(unread().await, 5, "an edit is not unread");
    let bob = user("bob");
    assert_eq!(store.mark(&room, &bob, 3, 2).await.unwrap(), Some((3, 2)));
    assert_eq!(unread().await, 3);
    assert_eq!(store.mark(&room, &bob, 1, 1).await.unwrap(), None, "never back");
    assert_eq!(store.mark(&room, &bob, 0, 4).await.unwrap(), Some((4, 4)), "reading is delivery");
    assert_eq!(store.mark(&room, &bob, 99, 99).await.unwrap(), Some((6, 6)), "never past the head");
    assert_eq!(unread().await, 0);
    assert_eq!(store.mark(&room, &user("mallory"), 1, 1).await.unwrap(), None);
}

async fn conversations_are_listed_in_pages(store: Arc<dyn Store>) {
    for at in 0..5 {
        group(&store, &format!("room{at}"), "alice", &[]).await;
    }
    append(&store, new(&room("room1"), "alice", "1", text("x"))).await.unwrap();
    let alice = user("alice");
    let (first, total) = store.conversations(&alice, false, part(2, 0)).await.unwrap();
    assert_eq!((first.len(), total), (2, 5));
    assert_eq!((&first[0].id, first[0].unread, first[0].head), (&room("room1"), 0, 1), "the last active first");
    assert_eq!(store.conversations(&alice, false, part(10, 4)).await.unwrap().0.len(), 1);
    assert_eq!(store.conversations(&alice, false, part(10, 50)).await.unwrap(), (Vec::new(), 5));
    assert_eq!(store.conversations(&user("nobody"), false, part(10, 0)).await.unwrap(), (Vec::new(), 0));
}

async fn users_and_their_statuses_are_stored(store: Arc<dyn Store>) {
    let alice = user("alice");
    store.know(&[(alice.clone(), "Alice".into()), (user("bob"), "Bob".into())]).await.unwrap();
    store.know(&[(alice.clone(), "Alice B.".into())]).await.unwrap();
    store.set_status(&alice, Status::Dnd).await.unwrap();
    let at = Timestamp::from_micros(1_700_000_000_123_456);
    store.seen(std::slice::from_ref(&alice), at).await.unwrap();
    store.seen(std::slice::from_ref(&alice), Timestamp::from_micros(5)).await.unwrap();
    let known = store.statuses(&[alice.clone(), user("nobody")]).await.unwrap();
    assert_eq!(known, [(alice.clone(), Status::Dnd, Some(at))]);
    let (room, _) = group(&store, "room", "alice", &[]).await;
    let members = store.conversation(&room, &alice).await.unwrap().unwrap().members;
    assert_eq!(members[0].name.as_deref(), Some("Alice B."));
}

#[tokio::test]
async fn notices_are_valid_until_they_lapse_or_are_withdrawn() {
    with_postgres(async |store: Arc<dyn Store>| {
        let [one, two] = ["one", "two"].map(|node| RelaySign::alone(NodeId::parse(node).unwrap()));
        let [a, b] = ["a", "~b"].map(|log| LogId::parse(log).unwrap());
        let (long, short, span) = (Duration::from_secs(60), Duration::from_millis(20), Duration::from_secs(60));
        let read = async || store.notices(span).await.unwrap().heads.into_iter().collect::<HashMap<_, _>>();
        assert!(!store.ping().await.unwrap().relays);
        store.give_notice(&two, Duration::ZERO, &[(a.clone(), 7)]).await.unwrap();
        assert!(!store.ping().await.unwrap().relays, "its own node is not alone");
        store.give_notice(&one, long, &[(b.clone(), 2), (a.clone(), 5)]).await.unwrap();
        assert!(store.ping().await.unwrap().relays);
        assert_eq!(read().await, [(a.clone(), 7), (b, 2)].into(), "the highest head of each log");
        store.withdraw_notice(&two).await.unwrap();
        assert!(store.ping().await.unwrap().relays, "the other node still is");
        store.withdraw_notice(&one).await.unwrap();
        assert!(!store.ping().await.unwrap().relays);
        store.give_notice(&one, short, &[]).await.unwrap();
        let lapsed = || async { (!store.ping().await.unwrap().relays).then_some(()) };
        crate::support::eventually("the sign to lapse", lapsed).await;
        assert_eq!(store.notices(Duration::ZERO).await.unwrap().heads, []);
    })
    .await;
}

/// The crash falls between two reads: neither fails, and only the age of the session tells that notices may be lost.
#[tokio::test]
async fn a_read_of_notices_tells_that_a_crash_may_have_emptied_them() {
    let mut server = Server::start(&[("fsync", "off")]).await;
    let store: Arc<dyn Store> = Arc::new(postgres(&server.database().await).await);
    let (node, log, span) = (RelaySign::alone(NodeId::fresh()), LogId::parse("a").unwrap(), Duration::from_secs(60));
    let began = std::time::Instant::now();
    assert!(store.notices(span).await.unwrap().heads.is_empty());
    store.give_notice(&node, span, &[(log.clone(), 7)]).await.unwrap();
    let before = std::time::Instant::now();
    let read = store.notices(span).await.unwrap();
    assert_eq!((&read.heads[..], read.complete_since < before), (&[(log, 7)][..], true));
    assert!(read.complete_since > began, "the first session is younger than this");
    server.restart().await;
    let after = crate::support::eventually("a read", || async { store.notices(span).await.ok() }).await;
    assert!(after.heads.is_empty(), "the table is not logged: {after:?}");
    assert!(after.complete_since > before, "{after:?}");
}
