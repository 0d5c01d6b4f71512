//! The signs of life of processes, and what was stored since a time.

use super::*;
use crate::support::eventually;

const MINUTE: Duration = Duration::from_secs(60);

pub(super) async fn the_row_of_a_silent_process_is_taken_once(store: Arc<dyn Store>) {
    store.sign_watch("one", MINUTE).await.unwrap();
    store.sign_watch("two", MINUTE).await.unwrap();
    assert_eq!(store.take_watch("two", MINUTE, MINUTE).await.unwrap(), None, "it gave a sign within the minute");
    let taken = store.take_watch("two", Duration::ZERO, MINUTE).await.unwrap().unwrap();
    assert_eq!(taken.process, "one", "not the taker's own");
    assert!((MINUTE..2 * MINUTE).contains(&taken.behind), "{taken:?}");
    assert_eq!(store.take_watch("two", Duration::ZERO, MINUTE).await.unwrap(), None, "taken");
    // The taker died, or the process gives a sign again.
    store.sign_watch("one", Duration::ZERO).await.unwrap();
    let again = store.take_watch("two", Duration::ZERO, Duration::ZERO).await.unwrap().unwrap();
    assert!(again.process == "one" && again.behind < MINUTE, "{again:?}");
    let again = eventually("the claim to lapse", async || {
        store.take_watch("two", Duration::ZERO, Duration::ZERO).await.unwrap()
    });
    assert_eq!(again.await.process, "one");
    store.end_watch("one").await.unwrap();
    assert_eq!(store.take_watch("two", Duration::ZERO, MINUTE).await.unwrap(), None);
}

pub(super) async fn conversations_with_recent_messages_are_found_in_pages(store: Arc<dyn Store>) {
    for name in ["a", "b", "c", "d"] {
        let (room, _) = group(&store, name, "alice", &["bob"]).await;
        if name != "c" {
            append(&store, new(&room, "alice", "1", text("x"))).await.unwrap();
            append(&store, new(&room, "bob", "2", text("y"))).await.unwrap();
        }
    }
    let both = Waiting { first: 1, last: 2 };
    let (page, last) = store.grown_within(MINUTE, None, 3).await.unwrap();
    assert_eq!(page, [(room("a"), both), (room("b"), both)], "inboxes are no conversations");
    assert_eq!(last, Some(LogId::from(&room("c"))));
    assert_eq!(store.grown_within(MINUTE, last.as_ref(), 3).await.unwrap(), (vec![(room("d"), both)], None));
    assert_eq!(store.grown_within(Duration::ZERO, None, 3).await.unwrap(), (vec![], None));
}
