use super::*;
use crate::model::{EphemeralEvent, Timestamp};

const GRACE: Duration = Duration::from_secs(5);

fn user(id: &str) -> UserId {
    UserId::parse(id).unwrap()
}

fn team() -> ConversationId {
    ConversationId::parse("team").unwrap()
}

fn shown() -> (Arc<Shown>, mpsc::Receiver<ConversationId>) {
    let (shown, added) = Shown::new(GRACE, Arc::new(Metrics::new().unwrap()));
    shown.follow(&LogId::from(&team()));
    (Arc::new(shown), added)
}

fn event(id: &str, active: bool) -> Event {
    event_at(id, active, Timestamp::from_seconds(1))
}

fn event_at(id: &str, active: bool, at: Timestamp) -> Event {
    let what = Ephemeral::Listening { user: user(id), name: id.into(), active };
    let ephemeral = EphemeralEvent { log: LogId::from(&team()), at, what };
    Event::Ephemeral { ephemeral: Arc::new(ephemeral), origin: None }
}

fn offline(id: &str) -> Event {
    let what = Ephemeral::Presence { user: user(id), online: false, status: Status::Online };
    let ephemeral = EphemeralEvent { log: LogId::from(&team()), at: Timestamp::from_seconds(1), what };
    Event::Ephemeral { ephemeral: Arc::new(ephemeral), origin: None }
}

fn present(shown: &Shown) -> Vec<String> {
    let mut users: Vec<_> = shown.present(&team()).users.iter().map(|user| user.as_str().to_owned()).collect();
    users.sort();
    users
}

#[test]
fn what_was_read_is_older_than_events_and_belongs_to_its_follow() {
    let (shown, _added) = shown();
    let first = shown.unread(&team()).unwrap();
    shown.observe(&[event("bob", true), event("carol", false)]);
    shown.add_present(&team(), first, vec![user("alice"), user("carol")]);
    assert_eq!(present(&shown), ["alice", "bob"]);
    shown.add_present(&team(), first, vec![user("carol")]);
    assert_eq!((present(&shown).len(), shown.unread(&team())), (2, None), "it was added before");

    shown.unfollow(&LogId::from(&team()));
    assert!(!shown.is_shown(&user("bob")) && shown.metrics.presence_shown.get() == 0);
    shown.follow(&LogId::from(&team()));
    shown.add_present(&team(), first, vec![user("alice")]);
    assert_eq!(present(&shown), [""; 0], "alice was there during the first follow");
    assert!(shown.unread(&team()).is_some());
}

#[test]
fn lists_name_a_user_whose_socket_is_about_to_listen() {
    let (shown, _added) = shown();
    let sockets = [shown.expect(&team(), &user("alice")), shown.expect(&team(), &user("alice"))];
    assert_eq!(present(&shown), ["alice"]);
    assert!(!shown.is_shown(&user("alice")), "nobody was told yet");
    shown.observe(&[event("alice", true)]);
    assert_eq!(present(&shown), ["alice"]);
    let [one, other] = sockets;
    drop(one);
    shown.observe(&[event("alice", false)]);
    assert_eq!(present(&shown), ["alice"]);
    drop(other);
    assert_eq!(present(&shown), [""; 0]);
}

#[test]
fn a_conversation_with_more_users_than_are_kept_says_so() {
    let (shown, _added) = shown();
    let mut all: Vec<_> = (0..=USERS_MAX).map(|at| user(&format!("u{at}"))).collect();
    let one_more = all.pop().unwrap();
    shown.add_present(&team(), shown.unread(&team()).unwrap(), all);
    assert!(!shown.present(&team()).partial);
    shown.observe(&[event(one_more.as_str(), true)]);
    let Present { users, partial } = shown.present(&team());
    assert!(partial && users.len() == USERS_MAX && !shown.is_shown(&one_more));
}

#[test]
fn a_user_is_shown_as_long_as_one_conversation_shows_it() {
    let (shown, _added) = shown();
    let den = LogId::parse("den").unwrap();
    shown.follow(&den);
    let follow = shown.unread(&ConversationId::parse("den").unwrap()).unwrap();
    shown.add_present(&ConversationId::parse("den").unwrap(), follow, vec![user("bob")]);
    shown.observe(&[event("bob", true), event("bob", true), event("bob", false), event("bob", false)]);
    assert!(shown.is_shown(&user("bob")));
    shown.unfollow(&den);
    assert!(!shown.is_shown(&user("bob")));
}

#[tokio::test(start_paused = true)]
async fn a_departure_that_must_be_older_than_the_arrival_is_doubted() {
    let short = GRACE - Duration::from_millis(1);
    // Time from the last arrival to the departure: on this node, and by the clocks of the nodes that told them.
    for (here, there, doubted) in
        [(GRACE, GRACE, false), (short, GRACE, true), (2 * GRACE, short, true), (GRACE, Duration::ZERO, true)]
    {
        let ((shown, _added), first) = (shown(), Timestamp::from_seconds(1_000));
        shown.observe(&[event_at("bob", true, first)]);
        tokio::time::advance(GRACE).await;
        // Bob left and is back, and only the latter was told.
        let again = first.plus(GRACE);
        shown.observe(&[event_at("bob", true, again)]);
        tokio::time::advance(here).await;
        shown.observe(&[event_at("bob", false, again.plus(there)), event_at("bob", false, again)]);
        let found = tokio::time::timeout(Duration::from_secs(1), shown.doubtful()).await;
        assert_eq!(found.ok(), doubted.then(|| vec![team()]), "{here:?} {there:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_departure_is_told_once_and_going_offline_after_it_too() {
    let (shown, _added) = shown();
    for id in ["alice", "bob"] {
        assert!(shown.tells(&event(id, false)) && !shown.tells(&event(id, false)), "{id}");
    }
    assert!(shown.tells(&offline("alice")) && !shown.tells(&offline("alice")) && !shown.tells(&event("alice", false)));
    assert!(shown.tells(&event("bob", true)) && shown.tells(&event("bob", true)), "an arrival is never withheld");
    assert!(shown.tells(&event("bob", false)) && shown.tells(&offline("bob")), "he was back meanwhile");
    tokio::time::advance(TOLD_FOR + Duration::from_secs(1)).await;
    assert!(shown.tells(&event("alice", false)));
}

#[tokio::test(start_paused = true)]
async fn the_departures_that_are_remembered_have_a_limit() {
    let (shown, _added) = shown();
    let told = |shown: &Shown| shown.state().rooms[&team()].told.len();
    (0..=TOLD_MAX).for_each(|at| assert!(shown.tells(&event(&format!("u{at}"), false))));
    assert!(
        told(&shown) == TOLD_MAX && shown.tells(&event(&format!("u{TOLD_MAX}"), false)),
        "told rather twice than never"
    );
    shown.end_read(&team());
    tokio::time::advance(TOLD_FOR + Duration::from_secs(1)).await;
    shown.begin_read(&team());
    assert_eq!(told(&shown), 0);
}

#[tokio::test(start_paused = true)]
async fn a_user_who_was_told_offline_and_stays_in_another_conversation_is_shown_online_again() {
    const SETTLE: Duration = Duration::from_secs(1);
    let (shown, _added) = shown();
    let den = ConversationId::parse("den").unwrap();
    shown.follow(&LogId::from(&den));
    let follow = shown.unread(&den).unwrap();
    shown.add_present(&den, follow, vec![user("alice"), user("bob")]);
    tokio::time::advance(GRACE).await;
    // Bob leaves the other conversation as well, a moment later.
    shown.observe(&[offline("alice"), offline("bob"), offline("carol")]);
    assert!(!shown.state().told_offline.is_empty());
    let looks = tokio::spawn({
        let shown = shown.clone();
        async move { shown.doubt_told_offline(SETTLE).await }
    });
    let gone = Ephemeral::Listening { user: user("bob"), name: "bob".into(), active: false };
    let gone = EphemeralEvent { log: LogId::from(&den), at: Timestamp::from_seconds(1), what: gone };
    shown.observe(&[Event::Ephemeral { ephemeral: Arc::new(gone), origin: None }]);

    let began = Instant::now();
    let doubtful = tokio::time::timeout(Duration::from_secs(60), shown.doubtful()).await;
    assert_eq!(doubtful, Ok(vec![den.clone()]));
    assert!(began.elapsed() >= SETTLE, "the other departures may be on their way");
    shown.end_read(&den);
    let read = shown.begin_read(&den).unwrap();
    assert_eq!(
        read,
        HashMap::from([(user("alice"), Some(Status::Invisible))]),
        "a comparison tells that she is online"
    );
    assert!(shown.state().told_offline.is_empty());
    looks.abort();
}
