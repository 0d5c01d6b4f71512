//! The rights that an append judges: membership before repeats, former members, and blocks.

use super::*;

async fn repeat(store: &Arc<dyn Store>, entry: NewEntry) -> Result<Appended, AppendRefused> {
    store.append(&[entry], true).await.unwrap().remove(0)
}

fn added(id: &str) -> Body {
    Body::MemberAdded { user: user(id) }
}

fn removed(id: &str) -> Body {
    Body::MemberRemoved { user: user(id) }
}

pub(super) async fn a_removed_members_repeat_is_refused_unless_the_writer_retries(store: Arc<dyn Store>) {
    let (room, _) = group(&store, "room", "alice", &["bob"]).await;
    let sent = new(&room, "bob", "1", text("hi"));
    let edited = new(&room, "bob", "2", Body::edited(1, "hello"));
    let unsent = new(&room, "bob", "3", text("never stored"));
    let (first, second) = (append(&store, sent.clone()).await.unwrap(), append(&store, edited.clone()).await.unwrap());
    append(&store, new(&room, "alice", "1", removed("bob"))).await.unwrap();
    for entry in [&sent, &edited, &unsent] {
        assert_eq!(append(&store, entry.clone()).await, Err(AppendRefused::NotMember), "a client repeats it");
    }
    for (entry, stored) in [(&sent, &first), (&edited, &second)] {
        let again = repeat(&store, entry.clone()).await.unwrap();
        assert_eq!((again.seq, again.at, again.duplicate), (stored.seq, stored.at, true), "the writer retries it");
    }
    assert_eq!(repeat(&store, unsent).await, Err(AppendRefused::NotMember), "it was not stored before");
    let log = LogId::from(&room);
    assert_eq!(store.entries(&log, 0, 10).await.unwrap().len(), 3);

    append(&store, new(&room, "alice", "2", added("bob"))).await.unwrap();
    assert!(append(&store, sent).await.unwrap().duplicate, "a member again");
}

pub(super) async fn a_message_keeps_the_persona_that_it_asks(store: Arc<dyn Store>) {
    let (room, _) = group(&store, "room", "alice", &[]).await;
    let asking = |persona: &str| Body::Message {
        content: "well?".into(),
        data: None,
        reply_to: None,
        is_ai: false,
        persona: Some(user(persona)),
        edited_at: None,
        deleted: false,
    };
    append(&store, new(&room, "alice", "1", asking("ada"))).await.unwrap();
    assert!(append(&store, new(&room, "alice", "1", asking("ada"))).await.unwrap().duplicate);
    assert_eq!(append(&store, new(&room, "alice", "1", asking("bea"))).await, Err(AppendRefused::IdReused));
    append(&store, new(&room, "alice", "2", text("plain"))).await.unwrap();
    let entries = store.entries(&LogId::from(&room), 0, 10).await.unwrap();
    assert_eq!((&entries[0].body, &entries[1].body), (&asking("ada"), &text("plain")));
}

pub(super) async fn who_left_or_was_removed_is_not_added_by_everybody(store: Arc<dyn Store>) {
    let (room, _) = group(&store, "room", "alice", &["bob", "carol", "dave"]).await;
    let by = |sender: &'static str, dedupe: &'static str, body: Body| new(&room, sender, dedupe, body);
    let barred = Err(AppendRefused::Barred);
    append(&store, by("carol", "1", removed("carol"))).await.unwrap();
    append(&store, by("alice", "1", removed("dave"))).await.unwrap();
    for gone in ["carol", "dave"] {
        assert_eq!(append(&store, by("bob", gone, added(gone))).await.map(drop), barred, "{gone} by a member");
    }
    let joins = |id: &'static str| NewEntry { authority: Authority::System, ..new(&room, id, "join", added(id)) };
    assert_eq!(append(&store, joins("dave")).await.map(drop), barred, "removed: not even by a join");
    append(&store, joins("carol")).await.unwrap();
    append(&store, by("carol", "2", removed("carol"))).await.unwrap();
    append(&store, by("alice", "2", added("carol"))).await.unwrap();
    append(&store, by("alice", "3", added("dave"))).await.unwrap();
    append(&store, by("alice", "4", removed("dave"))).await.unwrap();
    let admin = NewEntry { authority: Authority::Admin, ..new(&room, "root", "1", added("dave")) };
    append(&store, admin).await.unwrap();
    assert_eq!(append(&store, by("bob", "5", added("dave"))).await, Err(AppendRefused::Unchanged), "a member");
    append(&store, by("bob", "6", added("eve"))).await.unwrap();
}

pub(super) async fn blocked_users_reach_nobody_who_blocks_them(store: Arc<dyn Store>) {
    let (bob, mallory) = (user("bob"), user("mallory"));
    let direct = store.direct(&mallory, &bob).await.unwrap().conversation;
    let (room, _) = group(&store, "room", "alice", &["mallory"]).await;
    append(&store, new(&direct, "mallory", "1", text("hi"))).await.unwrap();
    for _ in 0..2 {
        assert!(store.block(&bob, &mallory, 2).await.unwrap());
    }
    assert!(store.block(&bob, &user("other"), 2).await.unwrap());
    assert!(!store.block(&bob, &user("third"), 2).await.unwrap(), "the limit");
    assert!(store.block(&bob, &mallory, 2).await.unwrap(), "repeated at the limit");
    assert_eq!(store.blocked(&bob).await.unwrap(), [mallory.clone(), user("other")]);
    assert!(store.any_blocks(&[user("alice"), bob.clone()], &mallory).await.unwrap());
    assert!(!store.any_blocks(std::slice::from_ref(&mallory), &bob).await.unwrap(), "in one direction");

    let barred = Err(AppendRefused::Barred);
    let edit = Body::edited(1, "worse");
    let react = Body::Reacted { target: 1, emoji: "x".into(), active: true };
    for (id, body) in [("1", text("hi")), ("2", text("again")), ("3", edit), ("4", react)] {
        assert_eq!(append(&store, new(&direct, "mallory", id, body)).await.map(drop), barred, "{id}");
    }
    assert!(repeat(&store, new(&direct, "mallory", "1", text("hi"))).await.unwrap().duplicate);
    assert_eq!(append(&store, new(&room, "mallory", "1", added("bob"))).await.map(drop), barred);
    append(&store, new(&room, "mallory", "2", text("to the others"))).await.unwrap();
    append(&store, new(&room, "alice", "1", added("bob"))).await.unwrap();
    append(&store, new(&direct, "bob", "1", text("the blocker may write"))).await.unwrap();
    append(&store, new(&direct, "mallory", "5", Body::Deleted { target: 1 })).await.unwrap();

    store.unblock(&bob, &mallory).await.unwrap();
    assert_eq!(store.blocked(&bob).await.unwrap(), [user("other")]);
    append(&store, new(&direct, "mallory", "6", text("hello again"))).await.unwrap();
}

pub(super) async fn those_who_may_send_events_are_known(store: Arc<dyn Store>) {
    let (alice, bob, carol) = (user("alice"), user("bob"), user("carol"));
    let (room, _) = group(&store, "room", "alice", &["bob"]).await;
    append(&store, new(&room, "alice", "1", text("hi"))).await.unwrap();
    let direct = store.direct(&alice, &bob).await.unwrap().conversation;
    assert_eq!(store.speaks(&room, &bob).await.unwrap(), Some(1));
    assert_eq!(store.speaks(&room, &carol).await.unwrap(), None, "no member");
    assert_eq!(store.speaks(&self::room("nowhere"), &alice).await.unwrap(), None);
    assert!(store.acquainted(&alice, &bob).await.unwrap() && store.acquainted(&bob, &alice).await.unwrap());
    assert!(
        !store.acquainted(&alice, &carol).await.unwrap() && !store.acquainted(&carol, &user("dave")).await.unwrap()
    );
    assert!(store.speaks(&direct, &alice).await.unwrap().is_some());
    assert!(store.block(&bob, &alice, 10).await.unwrap());
    assert!(!store.acquainted(&alice, &bob).await.unwrap() && !store.acquainted(&bob, &alice).await.unwrap());
    assert_eq!(store.speaks(&direct, &alice).await.unwrap(), None, "blocked");
    assert!(
        store.speaks(&direct, &bob).await.unwrap().is_some() && store.speaks(&room, &alice).await.unwrap().is_some()
    );
    append(&store, new(&room, "alice", "2", removed("bob"))).await.unwrap();
    assert_eq!(store.speaks(&room, &bob).await.unwrap(), None, "removed");
}
