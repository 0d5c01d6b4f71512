//! Restrictions of users by admins.

use switchboard::{
    model::{Restriction, RestrictionChange, RestrictionMark, RestrictionRequest, TokenId},
    store::RestrictOutcome,
};

use super::*;

const MANY: u32 = 100;

async fn restrict(store: &Arc<dyn Store>, id: &str, request: RestrictionRequest) -> RestrictOutcome {
    store.restrict(&user(id), &request, "root", MANY).await.unwrap()
}

async fn changed(store: &Arc<dyn Store>, id: &str, request: RestrictionRequest) -> RestrictionChange {
    match restrict(store, id, request).await {
        RestrictOutcome::Changed(change) => change,
        other => panic!("{other:?}"),
    }
}

fn token(id: &str) -> RestrictionRequest {
    RestrictionRequest::RevokeToken(TokenId::parse(id).unwrap())
}

fn issued(seconds: i64) -> RestrictionRequest {
    RestrictionRequest::RevokeIssued(Some(Timestamp::from_seconds(seconds)))
}

async fn standing(store: &Arc<dyn Store>) -> Vec<(String, Restriction)> {
    let rows = store.standing_restrictions(0, MANY).await.unwrap();
    rows.into_iter().map(|row| row.change.unwrap()).map(|it| (it.user.as_str().to_owned(), it.restriction)).collect()
}

pub(super) async fn restrictions_stand_once_and_in_order(store: Arc<dyn Store>) {
    let pulse = store.ping().await.unwrap();
    assert_eq!(pulse.restrictions, RestrictionMark::default());
    let blocked = changed(&store, "bob", RestrictionRequest::Block).await;
    assert_eq!((&blocked.restriction, &*blocked.by), (&Restriction::Blocked, "root"));
    assert_eq!(store.ping().await.unwrap().restrictions, blocked.mark());
    let again = store.restrict(&user("bob"), &RestrictionRequest::Block, "other", MANY).await.unwrap();
    assert_eq!(again, RestrictOutcome::Unchanged(Some(blocked.clone())), "the first block stands");

    let revoked = changed(&store, "bob", issued(100)).await;
    assert_eq!(restrict(&store, "bob", issued(99)).await, RestrictOutcome::Unchanged(Some(revoked.clone())));
    let later = changed(&store, "bob", issued(200)).await;
    let now = changed(&store, "carol", RestrictionRequest::RevokeIssued(None)).await;
    let Restriction::Revoked { issued_until } = now.restriction else { panic!("{now:?}") };
    assert_eq!(issued_until.seconds(), now.at.seconds(), "without a time: the store's time");
    let one = changed(&store, "auth0|x", token("t-1")).await;
    assert_eq!(restrict(&store, "auth0|x", token("t-1")).await, RestrictOutcome::Unchanged(Some(one.clone())));
    let other = changed(&store, "auth0|x", token("t-2")).await;
    let ended = changed(&store, "bob", RestrictionRequest::Disconnect).await;
    assert_ne!(changed(&store, "bob", RestrictionRequest::Disconnect).await.id, ended.id, "each one is a change");

    let all = store.restriction_changes(blocked.id, MANY).await.unwrap();
    let ids: Vec<_> = all.iter().map(|row| row.mark.id).collect();
    assert!(ids.is_sorted() && ids.len() == 8, "{ids:?}");
    assert_eq!(all[0].change.as_ref(), Some(&blocked));
    assert_eq!(store.restriction_changes(revoked.id, 2).await.unwrap().len(), 2);
    let expected = [&blocked, &later, &now, &one, &other];
    let expected: Vec<_> =
        expected.iter().map(|change| (change.user.as_str().to_owned(), change.restriction.clone())).collect();
    assert_eq!(standing(&store).await, expected);
    let last = store.standing_restrictions(one.id, MANY).await.unwrap();
    assert_eq!(last.iter().map(|row| row.mark.id).collect::<Vec<_>>(), [other.id]);

    assert_eq!(changed(&store, "bob", RestrictionRequest::Unblock).await.restriction, Restriction::Unblocked);
    assert_eq!(restrict(&store, "bob", RestrictionRequest::Unblock).await, RestrictOutcome::Unchanged(None));
    assert_eq!(standing(&store).await, expected[1..]);
}

pub(super) async fn blocked_users_are_listed(store: Arc<dyn Store>) {
    for id in ["carol", "auth0|bob", "dave"] {
        changed(&store, id, RestrictionRequest::Block).await;
    }
    changed(&store, "erin", issued(1)).await;
    changed(&store, "dave", RestrictionRequest::Unblock).await;
    let (page, total) = store.blocked_users(part(1, 1)).await.unwrap();
    assert_eq!((page.len(), page[0].user.as_str(), total), (1, "carol", 2));
    assert_eq!(store.block_of(&user("auth0|bob")).await.unwrap().unwrap().by.as_ref(), "root");
    for id in ["dave", "erin", "nobody"] {
        assert_eq!(store.block_of(&user(id)).await.unwrap(), None, "{id}");
    }
}

pub(super) async fn restrictions_are_bounded(store: Arc<dyn Store>) {
    let restrict = async |id: &str, request| store.restrict(&user(id), &request, "root", 2).await.unwrap();
    assert!(matches!(restrict("bob", RestrictionRequest::Block).await, RestrictOutcome::Changed(_)));
    assert!(matches!(restrict("bob", issued(1)).await, RestrictOutcome::Changed(_)));
    for request in [RestrictionRequest::Block, issued(1), token("t")] {
        assert_eq!(restrict("carol", request).await, RestrictOutcome::TooMany);
    }
    assert!(matches!(restrict("bob", issued(2)).await, RestrictOutcome::Changed(_)), "it replaces the first one");
    assert!(matches!(restrict("bob", RestrictionRequest::Block).await, RestrictOutcome::Unchanged(Some(_))));
    assert!(matches!(restrict("carol", RestrictionRequest::Disconnect).await, RestrictOutcome::Changed(_)));
    assert!(matches!(restrict("bob", RestrictionRequest::Unblock).await, RestrictOutcome::Changed(_)));
    assert!(matches!(restrict("carol", RestrictionRequest::Block).await, RestrictOutcome::Changed(_)));
}

pub(super) async fn what_is_over_or_expired_is_pruned(store: Arc<dyn Store>) {
    changed(&store, "bob", RestrictionRequest::Block).await;
    changed(&store, "bob", RestrictionRequest::Unblock).await;
    changed(&store, "carol", RestrictionRequest::Block).await;
    changed(&store, "carol", issued(100)).await;
    changed(&store, "carol", token("t")).await;
    changed(&store, "carol", RestrictionRequest::Disconnect).await;
    let newest = changed(&store, "dave", RestrictionRequest::Disconnect).await;
    let (long_ago, soon) = (Timestamp::from_seconds(1), newest.at.plus(Duration::from_secs(60)));
    assert_eq!(store.prune_restrictions(long_ago, long_ago).await.unwrap(), 0);
    assert_eq!(store.prune_restrictions(soon, long_ago).await.unwrap(), 3, "bob's and the first disconnection");
    assert_eq!(
        store.prune_restrictions(soon, Timestamp::from_seconds(101)).await.unwrap(),
        0,
        "the time of the change counts"
    );
    assert_eq!(store.prune_restrictions(soon, soon).await.unwrap(), 2, "both revocations");
    assert_eq!(standing(&store).await, [("carol".to_owned(), Restriction::Blocked)], "a block has no end");
    assert_eq!(store.ping().await.unwrap().restrictions, newest.mark(), "the newest change stays");
}

/// Without the lock, a change with a lower id could commit after one with a higher id was read.
#[tokio::test]
async fn changes_of_several_programs_commit_in_the_order_of_their_ids() {
    let url = Server::shared().await.database().await;
    let stores: Vec<Arc<dyn Store>> =
        vec![Arc::new(postgres(&url).await), Arc::new(unmigrated(&url).await), Arc::new(unmigrated(&url).await)];
    for store in &stores {
        store.start(false).await.unwrap();
    }
    let writing = stores.iter().enumerate().map(async |(at, store)| {
        for _ in 0..40 {
            changed(store, &format!("user-{at}"), RestrictionRequest::Disconnect).await;
        }
    });
    let reading = async {
        let (mut seen, mut last) = (0, 0);
        while seen < 120 {
            for row in stores[0].restriction_changes(last + 1, MANY).await.unwrap() {
                (seen, last) = (seen + 1, row.mark.id);
            }
        }
        let all = stores[0].restriction_changes(0, 1_000).await.unwrap();
        assert_eq!(all.len(), 120, "none was skipped");
    };
    crate::support::within("every change", async { tokio::join!(join_all(writing), reading) }).await;
}
