//! A database filled by an older version, the first one or the one before unread became exact, keeps its content and gets the
//! new columns and tables.

use refinery_core::{Runner, Target, load_sql_migrations};

use super::*;

/// Content as the first version's own functions write it: 250 messages, the last ten of them replies to the first, an
/// edit, a deletion, and a run of notifications for bob.
const FILL_POSTGRES: &str = "
    SELECT create_conversation('room', 0::smallint, 'Old', NULL, false, NULL, 'alice', ARRAY['alice', 'bob']);
    SELECT append_messages(array_agg('room'::text), array_agg('alice'::text), array_agg('Alice'::text),
        array_agg('old' || i), array_agg(true), array_agg(true), array_agg('Message no' || i),
        array_agg(CASE WHEN i > 240 THEN 1::bigint END), array_agg(false))
    FROM (SELECT generate_series(1, 240) i) batch;
    SELECT append_messages(array_agg('room'::text), array_agg('alice'::text), array_agg('Alice'::text),
        array_agg('old' || i), array_agg(true), array_agg(true), array_agg('Message no' || i),
        array_agg(1::bigint), array_agg(false))
    FROM (SELECT generate_series(241, 250) i) batch;
    SELECT append_change('room', 1::smallint, 'alice', 'Alice', 'e', true, 0::smallint, 'edited', 7, NULL, false);
    SELECT append_change('room', 2::smallint, 'alice', 'Alice', 'd', true, 0::smallint, NULL, 8, NULL, false);
    SELECT notify_users('room', 250, ARRAY['bob']);
    INSERT INTO reactions (log, seq, user_id, emoji)
    VALUES ('room', 9, 'alice', '❤'), ('room', 9, 'alice', '❤\u{FE0F}'), ('room', 9, 'bob', '❤\u{FE0F}');
";
/// The same by the functions of version 9, and a segment of the search index.
const FILL_POSTGRES_9: &str = "
    SELECT create_conversation('room', 0::smallint, 'Old', NULL, false, NULL, 'alice', ARRAY['alice', 'bob']);
    SELECT append_messages(array_agg('room'::text), array_agg('alice'::text), array_agg('Alice'::text),
        array_agg('old' || i), array_agg(true), array_agg(true), array_agg('Message no' || i),
        array_fill(CASE WHEN part = 2 THEN 1::bigint END, ARRAY[count(*)::int]), array_agg(false), NULL, false, NULL)
    FROM (SELECT i, 1 + (i > 240)::int AS part FROM generate_series(1, 250) i) batch GROUP BY part ORDER BY part;
    SELECT append_change('room', 1::smallint, 'alice', 'Alice', 'e', true, 0::smallint, 'edited', 7, NULL, false, false, 1);
    SELECT append_change('room', 2::smallint, 'alice', 'Alice', 'd', true, 0::smallint, NULL, 8, NULL, false, false, 1);
    SELECT notify_users('room', 250, 250, ARRAY['bob']);
    INSERT INTO reactions (log, seq, user_id, emoji)
    VALUES ('room', 9, 'alice', '❤'), ('room', 9, 'alice', '❤\u{FE0F}'), ('room', 9, 'bob', '❤\u{FE0F}');
    -- A segment whose words are those of that version's parser.
    INSERT INTO segments (log, first, last, newest, words) VALUES ('room', 1, 250, now(), array_to_tsvector(ARRAY['old']));
";
const FILL_SQLITE: &str = "
    INSERT INTO conversations VALUES ('room', 0, 'Old', NULL, 0, NULL, 'alice', 1);
    INSERT INTO members (conversation, user_id, joined_at) VALUES ('room', 'alice', 1), ('room', 'bob', 1);
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 250)
    INSERT INTO log (log, seq, message_no, kind, sender, sender_name, dedupe, client_gave_id, content, target, created_at)
    SELECT 'room', i, i, 0, 'alice', 'Alice', 'old' || i, 1, 'Message no' || i, CASE WHEN i > 240 THEN 1 END, i FROM n;
    INSERT INTO log (log, seq, message_no, kind, sender, sender_name, dedupe, client_gave_id, content, target, created_at)
    VALUES ('room', 251, 250, 1, 'alice', 'Alice', 'e', 1, 'edited', 7, 251),
        ('room', 252, 250, 2, 'alice', 'Alice', 'd', 1, NULL, 8, 252);
    UPDATE log SET content = 'edited', edited_at = 251 WHERE seq = 7;
    UPDATE log SET content = '', deleted = 1 WHERE seq = 8;
    INSERT INTO heads VALUES ('room', 252, 250, 252);
    INSERT INTO notifications (user_id, conversation, from_seq, last_seq, created_at) VALUES ('bob', 'room', 250, 250, 1);
    INSERT INTO reactions (log, seq, user_id, emoji)
    VALUES ('room', 9, 'alice', '❤'), ('room', 9, 'alice', '❤\u{FE0F}'), ('room', 9, 'bob', '❤\u{FE0F}');
";

#[tokio::test]
async fn older_versions_migrate_on_postgres() {
    for (version, fill) in [(1, FILL_POSTGRES), (9, FILL_POSTGRES_9)] {
        let url = Server::shared().await.database().await;
        let mut client = Server::shared().await.connect(url.rsplit('/').next().unwrap()).await;
        up_to(version, "migrations/postgres").run_async(&mut client).await.unwrap();
        client.batch_execute(fill).await.unwrap();
        assert_migrated(Arc::new(unmigrated(&url).await)).await;
    }
}

#[tokio::test]
async fn older_versions_migrate_on_sqlite() {
    for version in [1, 9] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("test.db");
        let mut database = rusqlite::Connection::open(&path).unwrap();
        up_to(version, "migrations/sqlite").run(&mut database).unwrap();
        database.execute_batch(FILL_SQLITE).unwrap();
        drop(database);
        assert_migrated(Arc::new(sqlite(&path))).await;
    }
}

/// Applies the migrations in a folder up to a version.
pub(crate) fn up_to(version: i32, folder: &str) -> Runner {
    Runner::new(&load_sql_migrations(folder).unwrap()).set_target(Target::Version(version))
}

async fn assert_migrated(store: Arc<dyn Store>) {
    assert!(store.migrate().await.unwrap() >= 1);
    let (room, alice, bob) = (room("room"), user("alice"), user("bob"));
    let unread = async |reader: &UserId| store.conversation(&room, reader).await.unwrap().unwrap().unread;
    assert_eq!((unread(&alice).await, unread(&bob).await), (0, 249), "own messages are read, and one is deleted");
    let find = async |words: &str| -> Vec<Seq> {
        let (scope, terms, mut found) = (SearchScope::Own(bob.clone()), terms(words), Vec::new());
        loop {
            let page = store.search(&scope, &terms, part(100, u32::try_from(found.len()).unwrap())).await.unwrap();
            found.extend(page.iter().map(|entry| entry.seq));
            if page.len() < 100 {
                return found;
            }
        }
    };
    assert_eq!(find("message").await.len(), 248);
    assert_eq!((find("no33").await, find("edited").await), (vec![33], vec![7]));
    assert_eq!((find("no7 message").await, find("no8 message").await), (vec![], vec![]));
    append(&store, new(&room, "alice", "e33", Body::edited(33, "anew"))).await.unwrap();
    assert_eq!((find("no33").await, find("anew").await), (vec![], vec![33]));

    // The first content of an old message is not known: only another kind of command is told from a repeat.
    assert!(append(&store, new(&room, "alice", "old1", text("other words"))).await.unwrap().duplicate);
    let edit = Body::edited(1, "other words");
    assert_eq!(append(&store, new(&room, "alice", "old1", edit)).await, Err(AppendRefused::IdReused));

    let reply = Body::Message {
        content: "late".into(),
        data: None,
        reply_to: Some(1),
        is_ai: false,
        persona: None,
        edited_at: None,
        deleted: false,
    };
    let reply = append(&store, new(&room, "alice", "reply", reply)).await.unwrap().seq;
    assert_eq!((unread(&alice).await, unread(&bob).await), (0, 250));
    let page = MessagesPage { thread: Some(1), page: part(1, 0), ..MessagesPage::default() };
    let ReadMessages { messages: thread, total, .. } = store.messages(&room, &alice, page).await.unwrap();
    assert_eq!((thread[0].entry.seq, total), (reply, 11));

    let reacted = store.message(&room, 9, &alice).await.unwrap().unwrap().reactions;
    let reacted: Vec<_> = reacted.iter().map(|one| (&*one.emoji, one.count, one.own)).collect();
    assert_eq!(reacted, [("❤", 2, true)], "variation selectors are removed");

    let (listed, total) = store.conversations(&alice, false, part(10, 0)).await.unwrap();
    assert_eq!((listed.len(), total, listed[0].archived), (1, 1, false));
    assert!(store.archive(&room, &alice, true).await.unwrap());

    let last = append(&store, new(&room, "alice", "last", text("the last"))).await.unwrap().seq;
    let (notice, options) = (Waiting { first: reply, last }, NotifyOptions { undelivered_only: false, post_queue: 9 });
    let notified = store.notify(&room, notice, std::slice::from_ref(&bob), options).await.unwrap();
    assert_eq!((notified.entries, notified.queued), (vec![], 0), "the old run goes on");
    let runs = store.notifications(&bob, part(10, 0)).await.unwrap();
    assert_eq!((runs.len(), runs[0].from_seq, runs[0].count), (1, 250, 3));
    append(&store, new(&room, "bob", "answer", text("an answer"))).await.unwrap();
    assert_eq!((unread(&alice).await, unread(&bob).await), (1, 0));
    assert_eq!(store.read_notifications(&bob, None).await.unwrap(), 0, "reading ended it");
}
