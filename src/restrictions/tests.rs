use super::*;
use crate::model::TokenId;

const HOUR: Duration = Duration::from_secs(3_600);

fn restrictions() -> Arc<Restrictions> {
    let restrictions = Restrictions::unread(HOUR, &Metrics::new().unwrap());
    restrictions.replace(&[], &[], RestrictionMark::default(), &[]);
    restrictions
}

fn identity(user: &str, issued_at: Option<i64>, token: Option<&str>) -> Identity {
    Identity {
        user: UserId::parse(user).unwrap(),
        name: user.into(),
        admin: false,
        tier: None,
        expires_at: Timestamp::from_seconds(1_000),
        issued_at: issued_at.map(Timestamp::from_seconds),
        token_id: token.map(|token| TokenId::parse(token).unwrap()),
    }
}

fn bob(issued_at: i64) -> Identity {
    identity("bob", Some(issued_at), None)
}

fn change(id: i64, restriction: Restriction) -> RestrictionChange {
    let (user, at) = (UserId::parse("bob").unwrap(), Timestamp::from_seconds(100 + id));
    RestrictionChange { id, user, restriction, at, by: "root".into() }
}

fn revoked(seconds: i64) -> Restriction {
    Restriction::Revoked { issued_until: Timestamp::from_seconds(seconds) }
}

fn apply(restrictions: &Restrictions, changes: &[RestrictionChange]) {
    assert!(restrictions.apply(changes, changes.last().unwrap().mark()));
}

#[test]
fn no_token_is_accepted_before_the_restrictions_were_read() {
    let restrictions = Restrictions::unread(HOUR, &Metrics::new().unwrap());
    assert_eq!(restrictions.check(&bob(1)), Err(Reject::Unavailable));
    assert_eq!(restrictions.admit(&bob(1)).err(), Some(Reject::Unavailable));
    restrictions.apply_own(change(1, Restriction::Blocked));
    assert_eq!(restrictions.check(&bob(1)), Err(Reject::Unavailable), "its own change does not replace the reading");
    restrictions.replace(&[change(1, Restriction::Blocked)], &[], RestrictionMark::default(), &[]);
    assert_eq!(restrictions.check(&bob(1)), Err(Reject::Blocked));
    assert_eq!(restrictions.check(&identity("alice", None, None)), Ok(()));
}

#[test]
fn a_revocation_concerns_tokens_up_to_its_second_and_those_without_a_time() {
    let restrictions = restrictions();
    apply(&restrictions, &[change(1, revoked(50)), change(2, revoked(40))]);
    for (identity, expected) in [
        (bob(49), Err(Reject::TokenRevoked)),
        (bob(50), Err(Reject::TokenRevoked)),
        (bob(51), Ok(())),
        (identity("bob", None, None), Err(Reject::TokenRevoked)),
        (identity("bobby", Some(1), None), Ok(())),
    ] {
        assert_eq!(restrictions.check(&identity), expected, "{identity:?}");
    }
    let fraction = Identity { issued_at: Some(Timestamp::from_micros(50_999_999)), ..bob(0) };
    assert_eq!(restrictions.check(&fraction), Err(Reject::TokenRevoked), "the second counts");
}

#[test]
fn a_token_without_a_time_is_revoked_by_the_time_of_the_change_until_it_expires() {
    let restrictions = restrictions();
    // It names a second that is long past, and was made at 101.
    apply(&restrictions, &[change(1, revoked(5))]);
    let without_time = |expires_at: Timestamp| Identity { expires_at, ..identity("bob", None, None) };
    let last = Timestamp::from_seconds(101).plus(HOUR);
    let concerned = [Timestamp::from_seconds(200), last].map(without_time);
    for now in [Timestamp::from_seconds(101), last.plus(CLOCKS)] {
        restrictions.forget_expired(now);
        for identity in &concerned {
            assert_eq!(restrictions.check(identity), Err(Reject::TokenRevoked), "{identity:?} at {now}");
        }
        // No node accepted this one when the change was made.
        assert_eq!(restrictions.check(&without_time(last.plus(Duration::from_secs(1)))), Ok(()));
    }
    apply(&restrictions, &[change(2, revoked(5))]);
    let repeated = restrictions.check(&without_time(last.plus(Duration::from_secs(1))));
    assert_eq!(repeated, Err(Reject::TokenRevoked), "a change that was recorded anew counts from its own time");
}

#[test]
fn a_token_is_revoked_by_its_id_and_its_user() {
    let restrictions = restrictions();
    apply(&restrictions, &[change(1, Restriction::TokenRevoked(TokenId::parse("t-1").unwrap()))]);
    assert_eq!(restrictions.check(&identity("bob", Some(9), Some("t-1"))), Err(Reject::TokenRevoked));
    assert_eq!(restrictions.check(&identity("bob", Some(9), Some("t-2"))), Ok(()));
    assert_eq!(restrictions.check(&identity("bob", Some(9), None)), Ok(()));
    assert_eq!(restrictions.check(&identity("alice", Some(9), Some("t-1"))), Ok(()));
}

#[tokio::test]
async fn changes_end_the_sockets_that_they_forbid_and_no_others() {
    let restrictions = restrictions();
    let mut old = restrictions.admit(&bob(10)).unwrap();
    let mut new = restrictions.admit(&bob(60)).unwrap();
    let mut alice = restrictions.admit(&identity("alice", None, None)).unwrap();
    apply(&restrictions, &[change(1, revoked(50))]);
    assert_eq!(old.ended().await, CloseReason::Refused(Reject::TokenRevoked));
    assert_eq!(new.ended_now(), None);
    apply(&restrictions, &[change(2, Restriction::Disconnected)]);
    assert_eq!(new.ended().await, CloseReason::Disconnected);
    let mut again = restrictions.admit(&bob(60)).unwrap();
    apply(&restrictions, &[change(3, Restriction::Disconnected), change(4, Restriction::Blocked)]);
    assert_eq!(again.ended().await, CloseReason::Refused(Reject::Blocked), "the strongest reason");
    assert_eq!(restrictions.admit(&bob(60)).err(), Some(Reject::Blocked));
    assert_eq!(alice.ended_now(), None);
    drop((old, new, again, alice));
    assert!(restrictions.read().sessions.is_empty());
}

#[test]
fn a_renewed_token_counts_instead_of_the_first_one() {
    let restrictions = restrictions();
    let mut ticket = restrictions.admit(&bob(10)).unwrap();
    ticket.renew(&bob(60)).unwrap();
    apply(&restrictions, &[change(1, revoked(50))]);
    assert_eq!(ticket.ended_now(), None);
    assert_eq!(ticket.renew(&bob(20)), Err(Reject::TokenRevoked));
}

#[test]
fn own_changes_count_at_once_and_in_the_stores_order() {
    let restrictions = restrictions();
    // Another node stores change 1; this node stores change 2 before it has read change 1.
    restrictions.apply_own(change(2, Restriction::Unblocked));
    assert_eq!(restrictions.check(&bob(1)), Ok(()));
    let mut ticket = restrictions.admit(&bob(1)).unwrap();
    apply(&restrictions, &[change(1, Restriction::Blocked)]);
    assert_eq!(restrictions.check(&bob(1)), Ok(()), "the later change stands");
    assert_eq!(ticket.ended_now(), None);
    apply(&restrictions, &[change(2, Restriction::Unblocked), change(3, Restriction::Blocked)]);
    assert_eq!(restrictions.check(&bob(1)), Err(Reject::Blocked));
    // The answer to an own change that was read already comes late.
    restrictions.apply_own(change(2, Restriction::Unblocked));
    assert_eq!(restrictions.check(&bob(1)), Err(Reject::Blocked));
}

#[test]
fn an_own_disconnection_is_not_repeated_when_it_is_read() {
    let restrictions = restrictions();
    let mut before = restrictions.admit(&bob(1)).unwrap();
    restrictions.apply_own(change(1, Restriction::Disconnected));
    assert_eq!(before.ended_now(), Some(CloseReason::Disconnected));
    let mut after = restrictions.admit(&bob(1)).unwrap();
    apply(&restrictions, &[change(1, Restriction::Disconnected)]);
    assert_eq!(after.ended_now(), None);
}

#[test]
fn an_own_change_that_the_store_lost_is_not_kept() {
    let restrictions = restrictions();
    let lost = change(1, Restriction::Blocked);
    restrictions.apply_own(lost.clone());
    assert_eq!(restrictions.unread_own(), [lost.mark()]);
    let other = RestrictionChange { user: UserId::parse("carol").unwrap(), at: Timestamp::from_seconds(9), ..lost };
    assert!(!restrictions.apply(std::slice::from_ref(&other), other.mark()), "its number has another change");
    assert_eq!(restrictions.check(&bob(1)), Err(Reject::Blocked), "nothing is applied");
    let before = restrictions.unread_own();
    restrictions.apply_own(change(2, revoked(50)));
    restrictions.replace(&[], &[], RestrictionMark::default(), &before);
    assert_eq!(restrictions.check(&bob(1)), Err(Reject::TokenRevoked), "made during the reading, so not lost");
    assert_eq!(restrictions.check(&bob(51)), Ok(()));
}

#[test]
fn a_new_reading_replaces_everything() {
    let restrictions = restrictions();
    apply(&restrictions, &[change(1, Restriction::Blocked), change(2, revoked(50))]);
    let mut ticket = restrictions.admit(&identity("carol", Some(1), None)).unwrap();
    let carol =
        |id, restriction| RestrictionChange { user: UserId::parse("carol").unwrap(), ..change(id, restriction) };
    restrictions.replace(&[carol(1, Restriction::Blocked)], &[], carol(1, Restriction::Blocked).mark(), &[]);
    assert_eq!(restrictions.check(&bob(1)), Ok(()));
    assert_eq!(ticket.ended_now(), Some(CloseReason::Refused(Reject::Blocked)));
}

#[test]
fn revocations_are_forgotten_once_their_tokens_have_expired() {
    let metrics = Metrics::new().unwrap();
    let restrictions = Restrictions::unread(HOUR, &metrics);
    let token = Restriction::TokenRevoked(TokenId::parse("t").unwrap());
    let all = [change(1, revoked(101)), change(2, token), change(3, Restriction::Blocked)];
    restrictions.replace(&all, &[], all[2].mark(), &[]);
    assert_eq!(metrics.restrictions.get(), 3);
    restrictions.forget_expired(Timestamp::from_seconds(101).plus(HOUR + CLOCKS));
    assert_eq!(metrics.restrictions.get(), 3, "a token that it concerns may still be valid");
    restrictions.forget_expired(Timestamp::from_seconds(103).plus(HOUR + CLOCKS));
    assert_eq!(metrics.restrictions.get(), 1);
    assert_eq!(restrictions.check(&bob(1)), Err(Reject::Blocked), "a block has no end");
}
