//! Erasures: what comes late tells nothing of the user.

use super::*;

pub(super) async fn a_departure_from_before_an_erasure_tells_nothing(store: Arc<dyn Store>) {
    let users = [user("alice"), user("bob")];
    store.know(&users.each_ref().map(|user| (user.clone(), "Name".into()))).await.unwrap();
    let at = store.ping().await.unwrap().at;
    let last_seen = async || {
        let statuses = store.statuses(&users).await.unwrap();
        users.each_ref().map(|user| statuses.iter().find(|(id, ..)| id == user).unwrap().2)
    };
    store.seen(&users, at).await.unwrap();
    assert_eq!(last_seen().await, [Some(at); 2]);
    let erasure = store.request_erasure(&users[0], &users[1]).await.unwrap();
    assert!(store.finish_erasure(&erasure).await.unwrap());
    let later = at.plus(Duration::from_secs(5));
    store.seen(&users, later).await.unwrap();
    assert_eq!(last_seen().await, [None, Some(later)]);
}
