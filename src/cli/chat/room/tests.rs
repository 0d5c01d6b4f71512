//! Effects of frames and typed lines on a [`Room`].

use serde_json::{Value, json};

use super::*;

/// A room driven by a script of frames.
struct Scene {
    room: Room,
    now: Instant,
}

impl Scene {
    fn new(shows_own: bool, backlog: u32) -> Self {
        let id = ConversationId::parse("lobby").unwrap();
        Self { room: Room::new(id, None, Style { shows_own, backlog }, TimeZone::UTC), now: Instant::now() }
    }

    /// A scene after the join; the newest entry is `head`.
    fn joined(shows_own: bool, head: Seq) -> Self {
        let mut scene = Self::new(shows_own, 0);
        scene.join(head);
        scene
    }

    fn join(&mut self, head: Seq) -> Vec<Effect> {
        self.receive(json!({"type": "authenticated", "user_id": "alice", "name": "Alice"}));
        self.receive(json!({"type": "joined", "ref": "join", "conversation_id": "lobby", "head": head}))
    }

    fn receive(&mut self, frame: Value) -> Vec<Effect> {
        self.room.handle_frame(serde_json::from_value(frame).unwrap(), self.now)
    }

    /// Receives bob's message and returns the lines shown.
    fn bob(&mut self, seq: Seq) -> Vec<String> {
        let content = format!("line {seq}");
        shown(&self.receive(json!({"type": "message", "conversation_id": "lobby", "seq": seq, "sender_id": "bob",
            "content": content, "client_id": format!("b{seq}")})))
    }

    /// Types a line and returns its `client_id`, or null if it was not sent.
    fn type_line(&mut self, text: &str) -> Value {
        self.room.outgoing.push(text.into());
        sent(&self.room.send_next(self.now))
    }

    fn ack(&mut self, client_id: &Value, seq: Seq) -> Vec<Effect> {
        self.receive(
            json!({"type": "ack", "ref": "send", "client_id": client_id, "conversation_id": "lobby", "seq": seq}),
        )
    }

    fn reconnect(&mut self, head: Seq) -> Vec<Effect> {
        self.room.connection_lost();
        self.join(head)
    }
}

fn shown(effects: &[Effect]) -> Vec<String> {
    let shown = |effect: &Effect| if let Show(line) = effect { Some(line.clone()) } else { None };
    effects.iter().filter_map(shown).collect()
}

fn frames(effects: &[Effect]) -> Vec<Value> {
    let frame = |effect: &Effect| if let Send(text) = effect { serde_json::from_str(text).ok() } else { None };
    effects.iter().filter_map(frame).collect()
}

/// The `client_id` of the first sent message, or null.
fn sent(effects: &[Effect]) -> Value {
    frames(effects).iter().find(|frame| frame["type"] == "send").map_or(Value::Null, |frame| frame["client_id"].clone())
}

#[test]
fn entries_are_shown_in_order_each_once() {
    let mut scene = Scene::joined(true, 7);
    assert_eq!(scene.bob(8), ["bob: line 8"]);
    assert!(scene.bob(8).is_empty() && scene.bob(3).is_empty(), "a duplicate, and an entry from before the join");
    assert_eq!(scene.bob(9), ["bob: line 9"]);
}

#[test]
fn own_lines_are_shown_in_the_order_of_the_log() {
    let mut scene = Scene::joined(true, 0);
    let id = scene.type_line("hello");
    assert!(scene.bob(2).is_empty(), "the first entry is not known yet: it is the line that was just sent");
    assert_eq!(shown(&scene.ack(&id, 1)), ["Alice: hello", "bob: line 2"]);
    assert!(scene.room.is_settled());
}

#[test]
fn at_a_terminal_own_lines_are_not_shown_again() {
    let mut scene = Scene::joined(false, 0);
    let id = scene.type_line("hello");
    assert!(shown(&scene.ack(&id, 1)).is_empty());
    assert_eq!(scene.bob(2), ["bob: line 2"]);
}

#[test]
fn it_resumes_after_the_last_entry_shown() {
    let mut scene = Scene::joined(true, 4);
    scene.bob(5);
    scene.room.connection_lost();
    let requests = frames(&scene.receive(json!({"type": "authenticated", "user_id": "alice", "name": "Alice"})));
    assert_eq!((&requests[0]["type"], &requests[0]["since_seq"]), (&json!("join"), &json!(5)));
    scene.receive(json!({"type": "joined", "ref": "join", "conversation_id": "lobby", "head": 7}));
    assert!(scene.bob(5).is_empty());
    assert_eq!([scene.bob(6), scene.bob(7)].concat(), ["bob: line 6", "bob: line 7"]);
}

#[test]
fn a_line_without_an_ack_is_sent_again_and_shown_once() {
    // The server stored the line, but its ack was lost. Both the replay and the second ack confirm it.
    let mut scene = Scene::joined(true, 0);
    let id = scene.type_line("hello");
    assert_eq!(sent(&scene.reconnect(1)), id, "the same id");
    let replayed = json!({"type": "message", "conversation_id": "lobby", "seq": 1, "sender_id": "alice",
        "sender_name": "Alice", "content": "hello", "client_id": id});
    assert_eq!(shown(&scene.receive(replayed)), ["Alice: hello"]);
    assert!(shown(&scene.ack(&id, 1)).is_empty());
    assert!(scene.room.is_settled());
}

#[test]
fn an_ack_that_waits_survives_a_lost_connection() {
    let mut scene = Scene::joined(false, 0);
    let id = scene.type_line("hello");
    assert!(scene.ack(&id, 2).is_empty(), "entry 1 is still to come");
    scene.reconnect(2);
    assert_eq!(scene.bob(1), ["bob: line 1"]);
    let replayed = json!({"type": "message", "conversation_id": "lobby", "seq": 2, "sender_id": "alice",
        "content": "hello", "client_id": id});
    assert!(scene.receive(replayed).is_empty(), "the typed line is visible already");
    assert_eq!(scene.bob(3), ["bob: line 3"]);
}

#[test]
fn lines_typed_while_disconnected_are_sent_in_order() {
    let mut scene = Scene::joined(true, 0);
    scene.room.connection_lost();
    assert_eq!((scene.type_line("one"), scene.type_line("two")), (Value::Null, Value::Null));
    let first = sent(&scene.join(0));
    let second = sent(&scene.ack(&first, 1));
    assert!(first != second && second.is_string());
    assert_eq!(shown(&scene.ack(&second, 2)), ["Alice: two"]);
}

#[test]
fn refused_lines_are_retried_or_reported() {
    let mut scene = Scene::joined(true, 0);
    let id = scene.type_line("hello");
    let limited = json!({"type": "error", "ref": "send", "code": "rate_limited", "message": "Rate limit exceeded",
        "retryable": true, "client_id": id, "retry_after_ms": 4_200});
    assert_eq!(scene.receive(limited), [Note("Rate limit exceeded: your line is sent again in 5 s".into())]);
    assert!(scene.room.send_next(scene.now).is_empty());
    assert_eq!(sent(&scene.room.send_next(scene.now + Duration::from_millis(4_200))), id);
    let refused = json!({"type": "error", "ref": "send", "code": "forbidden", "message": "No", "retryable": false, "client_id": id});
    assert_eq!(scene.receive(refused), [Note("NOT SENT (No): hello".into())]);
    assert!(scene.room.is_settled() && scene.room.failed == 1);
}

#[test]
fn an_overdue_ack_makes_it_reconnect() {
    let mut scene = Scene::joined(true, 0);
    scene.type_line("hello");
    let late = scene.now + Duration::from_secs(60);
    assert!(scene.room.send_next(late).contains(&Reconnect(None)));
}

#[test]
fn it_stops_if_the_user_is_not_a_member() {
    let mut scene = Scene::new(true, 0);
    scene.receive(json!({"type": "authenticated", "user_id": "alice", "name": "Alice"}));
    let refused = json!({"type": "error", "ref": "join", "code": "not_member", "message": "Not a member"});
    assert!(matches!(&scene.receive(refused)[..], [Stop(why)] if why.contains("not a member of lobby")));
    let mut scene = Scene::joined(true, 0);
    let removed =
        json!({"type": "member_removed", "conversation_id": "lobby", "seq": 1, "sender_id": "bob", "user_id": "alice"});
    assert!(matches!(&scene.receive(removed)[..], [Stop(_)]));
}

#[test]
fn it_stops_if_the_token_is_another_users() {
    let id = ConversationId::parse("lobby").unwrap();
    let bob = UserId::parse("bob").unwrap();
    let mut room = Room::new(id, Some(bob), Style { shows_own: true, backlog: 0 }, TimeZone::UTC);
    let frame = serde_json::from_value(json!({"type": "authenticated", "user_id": "alice"})).unwrap();
    assert!(matches!(&room.handle_frame(frame, Instant::now())[..], [Stop(why)] if why.contains("alice's, not bob's")));
}

/// Messages of a history, newest first.
fn page(tag: &str, seqs: impl DoubleEndedIterator<Item = Seq>) -> Value {
    let message = |seq| {
        json!({"conversation_id": "lobby", "seq": seq, "sender_id": "bob", "content": format!("line {seq}"),
        "created_at": "2026-11-21T09:31:07.120000Z"})
    };
    json!({"type": "history", "ref": tag, "conversation_id": "lobby", "messages": seqs.rev().map(message).collect::<Vec<_>>()})
}

#[test]
fn earlier_messages_are_shown_first() {
    let mut scene = Scene::new(true, 2);
    let requests = frames(&scene.join(5));
    assert_eq!(
        (&requests[0]["type"], &requests[0]["before_seq"], &requests[0]["limit"]),
        (&json!("history"), &json!(6), &json!(2))
    );
    assert!(scene.bob(6).is_empty(), "it waits for the earlier messages");
    let effects = scene.receive(page("reading", 4..=5));
    assert_eq!(shown(&effects), ["  2026-11-21 09:31  bob: line 4", "  2026-11-21 09:31  bob: line 5", "bob: line 6"]);
}

#[test]
fn after_a_resync_missed_messages_are_read_page_by_page() {
    let mut scene = Scene::joined(true, 0);
    scene.bob(1);
    scene.room.connection_lost();
    scene.receive(json!({"type": "authenticated", "user_id": "alice", "name": "Alice"}));
    let resync = json!({"type": "resync", "ref": "join", "conversation_id": "lobby", "first_seq": 1, "head": 251});
    assert_eq!(frames(&scene.receive(resync))[0]["before_seq"], 252);
    assert!(scene.bob(252).is_empty());
    assert_eq!(frames(&scene.receive(page("reading", 152..=251)))[0]["before_seq"], 152);
    assert_eq!(frames(&scene.receive(page("reading", 52..=151)))[0]["before_seq"], 52);
    let lines = shown(&scene.receive(page("reading", 1..=51)));
    let expected: Vec<_> = (2..=252).map(|seq| format!("bob: line {seq}")).collect();
    assert_eq!(lines, expected);
}

#[test]
fn it_continues_at_the_head_of_a_log_that_was_set_back() {
    let mut scene = Scene::joined(true, 40);
    let effects = scene.receive(json!({"type": "resync", "conversation_id": "lobby", "first_seq": 1, "head": 30}));
    assert!(matches!(&effects[..], [Note(why)] if why.contains("set back")));
    assert_eq!(scene.bob(31), ["bob: line 31"]);
}

#[test]
fn it_joins_at_the_head_in_another_epoch() {
    let mut scene = Scene::joined(true, 40);
    let authenticated =
        |epoch: i64| json!({"type": "authenticated", "user_id": "alice", "name": "Alice", "epoch": epoch});
    for (epoch, since, noted) in [(1, Value::Null, true), (1, json!(41), false), (2, Value::Null, true)] {
        scene.room.connection_lost();
        let effects = scene.receive(authenticated(epoch));
        assert_eq!(frames(&effects)[0]["since_seq"], since);
        assert_eq!(matches!(&effects[0], Note(why) if why.contains("set back")), noted);
        scene.receive(json!({"type": "joined", "ref": "join", "conversation_id": "lobby", "head": 40}));
        scene.bob(41);
    }
}

#[test]
fn who_shows_the_presence_of_members() {
    let mut scene = Scene::joined(true, 0);
    assert_eq!(frames(&[scene.room.request_members()])[0]["type"], "conversations");
    assert!(!scene.room.is_settled(), "the response is to come");
    let members = json!([{"user_id": "alice", "name": "Alice"}, {"user_id": "bob"}]);
    let list = json!({"type": "conversations", "ref": "who", "conversations": [
        {"conversation_id": "other"}, {"conversation_id": "lobby", "members": members}]});
    assert_eq!(frames(&scene.receive(list))[0]["user_ids"], json!(["alice", "bob"]));
    let presence = json!({"type": "presence_list", "ref": "who", "users": [
        {"user_id": "alice", "online": true, "status": "online"}, {"user_id": "bob", "online": false, "status": "online"}]});
    assert_eq!(shown(&scene.receive(presence)), ["* online: Alice (you)\n* offline: bob"]);
    let joined = json!({"type": "user_joined", "conversation_id": "lobby", "user_id": "bob", "name": "Bob"});
    assert_eq!(shown(&scene.receive(joined)), ["* Bob joined"]);
    let myself = json!({"type": "user_joined", "conversation_id": "lobby", "user_id": "alice", "name": "Alice"});
    assert!(scene.receive(myself).is_empty());
}
