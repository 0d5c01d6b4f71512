//! The JSON beside texts: stored as it is, changed by edits, gone after a deletion, never searched.

use switchboard::model::{Data, DataEdit};

use super::*;

fn data(json: &str) -> Data {
    Data::stored(json.to_owned()).unwrap()
}

fn message(content: &str, json: Option<&str>) -> Body {
    let Body::Message { content, reply_to, is_ai, persona, edited_at, deleted, .. } = text(content) else { panic!() };
    Body::Message { content, data: json.map(data), reply_to, is_ai, persona, edited_at, deleted }
}

fn edit(target: Seq, content: &str, data: DataEdit) -> Body {
    Body::Edited { target, content: content.into(), data }
}

/// The data of a message as it stands now.
async fn data_of(store: &Arc<dyn Store>, room: &ConversationId, seq: Seq) -> Option<String> {
    let message = store.message(room, seq, &user("alice")).await.unwrap().unwrap();
    message.entry.body.payload().1.map(|data| data.as_str().to_owned())
}

pub(super) async fn data_is_stored_as_sent_and_not_searched(store: Arc<dyn Store>) {
    let (room, _) = group(&store, "room", "alice", &["bob"]).await;
    let exact = r#"{"z":1.0,"a":12345678901234567890123,"e":1e3,"t":"\u00e9 é needle"}"#;
    let bodies = [message("one", Some(exact)), message("", Some("[]")), message("needle", None)];
    let batch: Vec<NewEntry> =
        bodies.iter().zip(["1", "2", "3"]).map(|(body, id)| new(&room, "alice", id, body.clone())).collect();
    let seqs: Vec<Seq> = store.append(&batch, false).await.unwrap().into_iter().map(|one| one.unwrap().seq).collect();
    let log = LogId::from(&room);
    let stored: Vec<Body> = store.entries(&log, 0, 10).await.unwrap().into_iter().map(|entry| entry.body).collect();
    assert_eq!(stored, bodies);
    assert_eq!(store.read_back(&[(log, seqs[0])]).await.unwrap()[0].body, bodies[0]);
    let page = store.messages(&room, &user("bob"), MessagesPage::default()).await.unwrap().messages;
    assert_eq!(page[2].entry.body, bodies[0]);
    let found = store.search(&SearchScope::Own(user("bob")), &terms("needle"), part(10, 0)).await.unwrap();
    assert_eq!(found.iter().map(|entry| entry.seq).collect::<Vec<_>>(), seqs[2..], "data is not searched");
    let found = store.search(&SearchScope::Own(user("bob")), &terms("one"), part(10, 0)).await.unwrap();
    assert_eq!(found[0].body, bodies[0]);
}

pub(super) async fn an_edit_keeps_removes_or_replaces_data(store: Arc<dyn Store>) {
    let (room, _) = group(&store, "room", "alice", &[]).await;
    append(&store, new(&room, "alice", "m", message("one", Some("[1]")))).await.unwrap();
    let edits = [
        ("two", DataEdit::Keep, Some("[1]")),
        ("", DataEdit::Replace(data("[2]")), Some("[2]")),
        ("three", DataEdit::Remove, None),
        ("four", DataEdit::Replace(data("\"null\"")), Some("\"null\"")),
    ];
    for (content, change, now) in &edits {
        let entry = new(&room, "alice", &format!("e{content}"), edit(1, content, change.clone()));
        append(&store, entry).await.unwrap();
        assert_eq!(data_of(&store, &room, 1).await.as_deref(), *now, "{content}");
    }
    let entries = store.entries(&LogId::from(&room), 1, 10).await.unwrap();
    let bodies: Vec<Body> = entries.into_iter().map(|entry| entry.body).collect();
    assert_eq!(bodies, edits.map(|(content, change, _)| edit(1, content, change)), "each edit says what it did");
}

pub(super) async fn a_deletion_removes_all_data(store: Arc<dyn Store>) {
    let (room, _) = group(&store, "room", "alice", &[]).await;
    append(&store, new(&room, "alice", "m", message("one", Some("[\"secret\"]")))).await.unwrap();
    append(&store, new(&room, "alice", "n", message("two", Some("[2]")))).await.unwrap();
    let edited = edit(1, "one", DataEdit::Replace(data("[\"secret too\"]")));
    append(&store, new(&room, "alice", "e", edited)).await.unwrap();
    append(&store, new(&room, "alice", "f", edit(2, "two", DataEdit::Replace(data("[3]"))))).await.unwrap();
    append(&store, new(&room, "alice", "d", Body::Deleted { target: 1 })).await.unwrap();
    assert_eq!(data_of(&store, &room, 1).await, None);
    let entries = store.entries(&LogId::from(&room), 0, 10).await.unwrap();
    assert!(!format!("{entries:?}").contains("secret"), "{entries:?}");
    assert_eq!(entries[2].body, edit(1, "", DataEdit::Keep));
    assert_eq!(entries[3].body, edit(2, "two", DataEdit::Replace(data("[3]"))), "that of others stays");
    assert_eq!(data_of(&store, &room, 2).await.as_deref(), Some("[3]"));
}

/// A node of the version before may delete a message during an upgrade.
#[tokio::test]
async fn a_deletion_by_an_older_node_removes_data() {
    let url = Server::shared().await.database().await;
    let store: Arc<dyn Store> = Arc::new(postgres(&url).await);
    let (room, _) = group(&store, "room", "alice", &[]).await;
    append(&store, new(&room, "alice", "m", message("one", Some("[1]")))).await.unwrap();
    append(&store, new(&room, "alice", "e", edit(1, "one", DataEdit::Replace(data("[2]"))))).await.unwrap();
    let sql = Server::shared().await.connect(url.rsplit('/').next().unwrap()).await;
    let older = "SELECT append_change('room', 2::smallint, 'alice', 'Alice', 'd', true, 0::smallint, NULL, 1, NULL, \
         false, false)";
    sql.batch_execute(older).await.unwrap();
    let left = sql.query_one("SELECT count(data) FROM log", &[]).await.unwrap();
    assert_eq!(left.get::<_, i64>(0), 0);
}
