//! The plans that PostgreSQL makes of the store's statements: once for each session, and right for tables of any size.

use super::*;
use crate::support::{connect_to_postgres, eventually};

/// The messages of one batch, in which each is judged differently, and those of several batches have the same outcomes.
pub(super) async fn few_and_many_messages_are_judged_alike(store: Arc<dyn Store>) {
    let (few, _) = group(&store, "few", "alice", &["bob", "carol"]).await;
    let (many, _) = group(&store, "many", "alice", &["bob", "carol"]).await;
    let direct = store.direct(&user("dave"), &user("erin")).await.unwrap().conversation;
    store.block(&user("erin"), &user("dave"), 10).await.unwrap();
    let reply = |target| Body::Message {
        content: "re".into(),
        data: None,
        reply_to: Some(target),
        is_ai: true,
        persona: Some(user("ada")),
        edited_at: None,
        deleted: false,
    };
    let batch = |to: &ConversationId| {
        [
            new(to, "alice", "1", text("first")),
            new(&direct, "dave", "1", text("blocked")),
            new(to, "mallory", "1", text("no member")),
            new(&room("nowhere"), "alice", "1", text("no log")),
            new(to, "bob", "1", reply(1)),
            new(to, "bob", "2", reply(99)),
            new(to, "carol", "1", text("last")),
            NewEntry { authority: Authority::System, ..new(to, "system", "1", text("by the system")) },
        ]
    };
    // The first message comes before, so that a reply to it is one in both ways.
    for to in [&few, &many] {
        append(&store, new(to, "carol", "0", text("before"))).await.unwrap();
    }
    for (round, retried) in [("new", false), ("repeated", false), ("retried", true)] {
        let mut one_by_one = Vec::new();
        for entry in batch(&few) {
            one_by_one.extend(store.append(&[entry], retried).await.unwrap());
        }
        let together = store.append(&batch(&many), retried).await.unwrap();
        let shown = |outcomes: &[Result<Appended, AppendRefused>]| -> Vec<_> {
            let outcomes = outcomes.iter().cloned();
            outcomes.map(|one| one.map(|stored| (stored.seq, stored.message_no, stored.duplicate))).collect()
        };
        assert_eq!(shown(&one_by_one), shown(&together), "{round}");
        assert_eq!(one_by_one[0].as_ref().map(|stored| stored.seq), Ok(2), "{round}");
        assert_eq!(one_by_one[1], Err(AppendRefused::Barred), "{round}");
        assert_eq!(one_by_one[5], Err(AppendRefused::NoSuchTarget), "{round}");
    }
    let mut other = batch(&many);
    other[0].body = text("another one");
    let outcomes = store.append(&other, false).await.unwrap();
    assert_eq!(outcomes[0], Err(AppendRefused::IdReused));
    assert_eq!(store.append(&other[..1], false).await.unwrap()[0], Err(AppendRefused::IdReused));
    // What was stored is the same, and so is what its sender has read.
    let entries = async |of| {
        let entries = store.entries(&LogId::from(of), 0, 100).await.unwrap();
        entries
            .into_iter()
            .map(|one| (one.seq, one.message_no, one.sender, one.client_id, one.body))
            .collect::<Vec<_>>()
    };
    assert_eq!(entries(&few).await, entries(&many).await);
    for of in [&few, &many] {
        let read = store.conversation(of, &user("bob")).await.unwrap().unwrap().members;
        let marks: Vec<_> = read.iter().map(|member| (member.user.as_str(), member.read_seq)).collect();
        assert_eq!(marks, [("alice", 2), ("bob", 3), ("carol", 4)]);
    }
}

/// A server that counts plans and never analyses a table by itself.
async fn counting_server() -> Server {
    let settings = [
        ("fsync", "off"),
        ("autovacuum", "off"),
        ("shared_preload_libraries", "pg_stat_statements"),
        ("pg_stat_statements.track", "all"),
        ("pg_stat_statements.track_planning", "on"),
    ];
    Server::start(&settings).await
}

/// The calls that commands, joins and lists make, and those that nodes make all the time.
async fn usual_calls(store: &Arc<dyn Store>, round: usize) {
    let (room, log, alice, bob) = (room("room-7"), LogId::parse("room-7").unwrap(), user("user-7"), user("user-8"));
    let page = Page::default();
    for turn in 0..8 {
        let name = |nth: usize| format!("{round}-{turn}-{nth}");
        let many = (0..8).map(|nth| new(&self::room(&format!("room-{nth}")), "user-7", &name(nth), text("hello")));
        let stored = store.append(&many.collect::<Vec<_>>(), false).await.unwrap();
        let seq = append(store, new(&room, "user-7", &name(9), text("hello"))).await.unwrap().seq;
        append(store, new(&room, "user-7", &name(10), Body::edited(seq, name(11)))).await.unwrap();
        assert!(stored.iter().all(Result::is_ok));
        let logs: Vec<LogId> = (0..5).map(|nth| LogId::parse(&format!("room-{nth}")).unwrap()).collect();
        let pairs: Vec<_> = (0..5).map(|nth| (self::room(&format!("room-{nth}")), alice.clone())).collect();
        let users: Vec<UserId> = (0..5).map(|nth| user(&format!("user-{nth}"))).collect();
        let seqs = [(log.clone(), seq)];
        assert_eq!(store.ends(&logs).await.unwrap().len(), 5);
        assert_eq!(store.stamps(&seqs).await.unwrap().len(), 1);
        assert_eq!(store.newest(&logs).await.unwrap().len(), 5);
        assert_eq!(store.read_back(&seqs).await.unwrap().len(), 1);
        store.ends_at(&[(log.clone(), store.ping().await.unwrap().at)]).await.unwrap();
        store.stored(&log, &alice, &ClientId::parse(&name(9)).unwrap()).await.unwrap().unwrap();
        assert_eq!(store.entries(&log, seq - 1, 50).await.unwrap().len(), 2);
        assert!(!store.messages(&room, &alice, MessagesPage::default()).await.unwrap().messages.is_empty());
        let thread = MessagesPage { thread: Some(1), ..MessagesPage::default() };
        store.messages(&room, &alice, thread).await.unwrap();
        store.message(&room, seq, &alice).await.unwrap().unwrap();
        store.conversation(&room, &alice).await.unwrap().unwrap();
        assert!(!store.conversations(&alice, false, page).await.unwrap().0.is_empty());
        store.direct(&alice, &bob).await.unwrap();
        assert!(!store.directs(&alice, 100).await.unwrap().is_empty());
        assert!(store.access(&room, &alice).await.unwrap().unwrap().member);
        assert!(store.speaks(&room, &alice).await.unwrap().is_some());
        assert!(store.acquainted(&alice, &bob).await.unwrap());
        assert!(!store.members(&room, None, 100).await.unwrap().is_empty());
        let from_start: Vec<_> = pairs.iter().map(|(id, _)| (id.clone(), None)).collect();
        assert!(!store.members_of(&from_start, 100).await.unwrap().is_empty());
        assert_eq!(store.members_among(&pairs).await.unwrap().len(), 5);
        assert_eq!(store.unread(&pairs).await.unwrap().len(), 5);
        store.acquaintances(&alice, 100).await.unwrap();
        store.mark(&room, &bob, seq, seq).await.unwrap();
        assert_eq!(store.names(&users).await.unwrap().len(), 5);
        assert_eq!(store.statuses(&users).await.unwrap().len(), 5);
        store.seen(&users, store.ping().await.unwrap().at).await.unwrap();
        store.any_blocks(&users, &alice).await.unwrap();
        let waiting = Waiting { first: seq, last: seq };
        let options = NotifyOptions { undelivered_only: false, post_queue: 100 };
        store.notify(&room, waiting, &users, options).await.unwrap();
        store.undelivered(&user("user-9"), Duration::from_secs(60)).await.unwrap();
        store.notifications(&alice, page).await.unwrap();
        store.read_notifications(&alice, None).await.unwrap();
        rarer_calls(store, &name(12)).await;
    }
}

/// Calls of administration, and those that nodes make for each other. `name` is new in each call.
async fn rarer_calls(store: &Arc<dyn Store>, name: &str) {
    let (of, alice, bob) = (room("room-7"), user("user-7"), user("user-8"));
    let (made, _) = group(store, name, "user-7", &["user-8"]).await;
    let change = |id: &str, body| new(&made, "user-7", id, body);
    append(store, change("1", text("hello"))).await.unwrap();
    append(store, change("2", Body::Reacted { target: 1, emoji: "👍".into(), active: true })).await.unwrap();
    append(store, change("3", Body::MemberAdded { user: user("user-9") })).await.unwrap();
    append(store, change("4", Body::MemberRemoved { user: user("user-9") })).await.unwrap();
    append(store, change("5", Body::Deleted { target: 1 })).await.unwrap();
    assert!(store.archive(&made, &alice, true).await.unwrap());
    store.known_direct(&alice, &bob).await.unwrap().unwrap();
    store.pair(&of).await.unwrap();
    store.know(&[(alice.clone(), name.into())]).await.unwrap();
    store.set_status(&alice, Status::Away).await.unwrap();
    store.block(&user("user-1"), &user("user-2"), 10).await.unwrap();
    store.blocked(&user("user-1")).await.unwrap();
    store.unblock(&user("user-1"), &user("user-2")).await.unwrap();
    store.block_of(&alice).await.unwrap();
    store.restriction_changes(0, 10).await.unwrap();
    store.standing_restrictions(0, 10).await.unwrap();
    store.blocked_users(Page::default()).await.unwrap();
    let (second, minute) = (Duration::from_secs(1), Duration::from_secs(60));
    let posts = store.claim_posts(10, second, minute).await.unwrap();
    store.finish_posts(&posts.iter().map(|post| post.id).collect::<Vec<_>>(), &[]).await.unwrap();
    store.waiting_posts().await.unwrap();
    store.sign_watch("process", second).await.unwrap();
    store.take_watch("process", minute, minute).await.unwrap();
    store.give_notice(&RelaySign::alone(NodeId::fresh()), second, &[(LogId::from(&made), 1)]).await.unwrap();
    store.notices(minute).await.unwrap();
    store.ping().await.unwrap();
}

/// The statements that were planned nearly as often as called. Plans: one for each of the two sessions of a pool, and of
/// the stores.
async fn planned_again(database: &tokio_postgres::Client) -> Vec<String> {
    let sql = "SELECT calls || ' calls, ' || plans || ' plans: ' || query FROM pg_stat_statements s \
         JOIN pg_database d ON d.oid = s.dbid WHERE d.datname = current_database() AND calls >= 24 AND plans * 3 > calls \
         AND query NOT LIKE '%refinery_schema_history%' AND query NOT LIKE '%pg_backend_pid()%'";
    database.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

/// The statements that read most.
async fn greatest_readers(database: &tokio_postgres::Client) -> String {
    let sql = "SELECT shared_blks_hit + shared_blks_read || ' blocks in ' || calls || ' calls: ' || left(query, 200) \
         FROM pg_stat_statements ORDER BY (shared_blks_hit + shared_blks_read) DESC LIMIT 8";
    let rows = database.query(sql, &[]).await.unwrap();
    rows.iter().map(|row| row.get::<_, String>(0)).collect::<Vec<_>>().join("\n")
}

/// Maximum number of rows that all calls of a round read of one table without an index, and through one index. The call that
/// reads most takes up to 500 entries of each of 20 conversations, 8 times.
const WHOLE_TABLES: i64 = 500;
const BY_INDEX: i64 = 150_000;

/// Number of conversations, of users, and of entries in each conversation.
const LARGE: (i32, i32, i32) = (600, 20_000, 500);

/// Users 0 to 9 are in the conversations 0 to 19, and every other user is in one conversation.
async fn fill(
    database: &tokio_postgres::Client,
    rooms: std::ops::Range<i32>,
    users: std::ops::Range<i32>,
    entries: i32,
) {
    let fill = format!(
        "INSERT INTO users (id, name) SELECT 'user-' || u, 'U' FROM generate_series({0}, {1} - 1) u ON CONFLICT DO NOTHING;
         INSERT INTO conversations (id, kind, open, created_by, created_at)
             SELECT 'room-' || r, 0, true, 'user-0', now() FROM generate_series({2}, {3} - 1) r;
         INSERT INTO heads (log, seq, message_no)
             SELECT 'room-' || r, {4}, {4} FROM generate_series({2}, {3} - 1) r;
         INSERT INTO members (conversation, user_id)
             SELECT 'room-' || r, 'user-' || u FROM generate_series({2}, {3} - 1) r, generate_series(0, 9) u WHERE r < 20
             UNION ALL SELECT 'room-' || (20 + u % 500), 'user-' || u FROM generate_series(greatest(10, {0}), {1} - 1) u;
         INSERT INTO log (log, seq, message_no, kind, sender, sender_name, dedupe, client_gave_id, content, created_at)
             SELECT 'room-' || r, s, s, 0, 'user-' || s % 9, 'U', s, true, 'text', now() - interval '1 hour'
             FROM generate_series({2}, {3} - 1) r, generate_series(1, {4}) s;",
        users.start, users.end, rooms.start, rooms.end, entries
    );
    database.batch_execute(&fill).await.unwrap();
}

/// Rows read by scans of whole tables that may be large, and entries read by scans of each index.
async fn rows_read(database: &tokio_postgres::Client) -> HashMap<String, i64> {
    let sql =
        "SELECT 'table ' || relname, seq_tup_read FROM pg_stat_user_tables WHERE relname NOT IN ('alone', 'watches')
         UNION ALL SELECT 'index ' || indexrelname, idx_tup_read FROM pg_stat_user_indexes";
    let rows = database.query(sql, &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// Waits until all other sessions have ended, because they report only then all that they have read.
async fn alone(database: &tokio_postgres::Client) {
    let sql = "SELECT count(*) FROM pg_stat_activity \
         WHERE backend_type = 'client backend' AND datname = current_database() AND pid <> pg_backend_pid()";
    eventually("the end of other sessions", async || {
        (database.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) == 0).then_some(())
    })
    .await;
}

/// Plans that are made while the tables are nearly empty stay right once they are large, and so do those that are made
/// later, with and without what ANALYZE learns.
#[tokio::test]
async fn a_plan_is_made_once_and_right_for_tables_of_any_size() {
    let server = counting_server().await;
    let url = server.database().await;
    let mut first: Option<Arc<dyn Store>> = Some(Arc::new(super::postgres(&url).await));
    let database = connect_to_postgres(&url).await;
    let (rooms, users, entries) = LARGE;
    database.batch_execute("CREATE EXTENSION pg_stat_statements").await.unwrap();
    fill(&database, 0..20, 0..10, 3).await;
    usual_calls(first.as_ref().unwrap(), 0).await;
    fill(&database, 20..rooms, 10..users, entries).await;
    let mut before = rows_read(&database).await;
    for (round, when) in ["made on small tables", "made on large tables", "made after ANALYZE"].into_iter().enumerate()
    {
        let store = match first.take() {
            Some(store) => store,
            None => Arc::new(super::postgres(&url).await),
        };
        if round == 2 {
            database.batch_execute("ANALYZE").await.unwrap();
        }
        usual_calls(&store, round + 1).await;
        drop(store);
        alone(&database).await;
        let after = rows_read(&database).await;
        for (what, count) in &after {
            let read = count - before.get(what).copied().unwrap_or(0);
            let bound = if what.starts_with("table") { WHOLE_TABLES } else { BY_INDEX };
            assert!(read <= bound, "plans {when} read {read} rows: {what}\n{}", greatest_readers(&database).await);
        }
        before = after;
    }
    let again = planned_again(&database).await;
    assert!(again.is_empty(), "planned again and again:\n{}", again.join("\n"));
}

/// A deletion finds the edits of its message, however long the log is.
#[tokio::test]
async fn a_deletion_reads_little_of_a_long_log() {
    const LONG: i32 = 20_000;
    const DELETED: i64 = 40;
    let url = Server::shared().await.database().await;
    let store: Arc<dyn Store> = Arc::new(super::postgres(&url).await);
    let database = connect_to_postgres(&url).await;
    fill(&database, 0..2, 0..10, LONG).await;
    database.batch_execute("ANALYZE").await.unwrap();
    let by =
        |sender: &str, name: &str, authority, body| NewEntry { authority, ..new(&room("room-1"), sender, name, body) };
    for seq in 1..9 {
        let edit = Body::edited(seq, "edited");
        append(&store, by(&format!("user-{seq}"), "edit", Authority::System, edit)).await.unwrap();
    }
    let before = rows_read(&database).await;
    for seq in 1..=DELETED {
        let deletion = Body::Deleted { target: seq };
        append(&store, by("admin", &format!("d{seq}"), Authority::Admin, deletion)).await.unwrap();
    }
    let edits = store.entries(&LogId::parse("room-1").unwrap(), i64::from(LONG), 8).await.unwrap();
    assert!(!format!("{edits:?}").contains("edited\""), "the texts of edits are gone: {edits:?}");
    drop(store);
    alone(&database).await;
    for (what, count) in rows_read(&database).await {
        let read = count - before.get(&what).copied().unwrap_or(0);
        assert!(read < i64::from(LONG), "{DELETED} deletions read {read} rows: {what}");
    }
}
