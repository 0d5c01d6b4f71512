//! What tells a store that was set back to an earlier state from the one before.

use super::*;
use switchboard::model::EntryStamp;

/// An entry's time is that of its log's head, and that of what the append returned, whatever kind it is of.
pub(super) async fn the_newest_entries_are_identified_by_seq_and_time(store: Arc<dyn Store>) {
    let (room, told) = group(&store, "room", "alice", &["bob"]).await;
    let check = async |log: &LogId, seq: Seq, at: Timestamp| {
        let stamp = EntryStamp { seq, at };
        let ends = store.ends(std::slice::from_ref(log)).await.unwrap();
        assert_eq!(ends[0].1.newest(), Some(stamp), "{log}");
        let entry = store.entries(log, seq - 1, 1).await.unwrap().remove(0);
        assert_eq!(entry.stamp(), stamp);
        assert_eq!(store.stamps(&[(log.clone(), seq), (log.clone(), seq + 1)]).await.unwrap(), [(log.clone(), stamp)]);
        if let Some(conversation) = log.conversation() {
            let access = store.access(&conversation, &user("alice")).await.unwrap().unwrap();
            assert_eq!(access.ends.newest(), Some(stamp));
        }
    };
    for entry in told {
        check(&entry.log, entry.seq, entry.at).await;
    }
    let log = LogId::from(&room);
    let empty = store.ends(std::slice::from_ref(&log)).await.unwrap();
    assert_eq!((empty[0].1.head, empty[0].1.newest()), (0, None));
    for (number, body) in [
        text("a"),
        Body::edited(1, "b"),
        Body::Reacted { target: 1, emoji: "+1".into(), active: true },
        Body::Deleted { target: 1 },
        Body::MemberAdded { user: user("carol") },
        Body::MemberRemoved { user: user("carol") },
    ]
    .into_iter()
    .enumerate()
    {
        let appended = append(&store, new(&room, "alice", &format!("c-{number}"), body)).await.unwrap();
        check(&log, appended.seq, appended.at).await;
        for entry in appended.also {
            check(&entry.log, entry.seq, entry.at).await;
        }
    }
    let batch: Vec<_> = (0..3).map(|number| new(&room, "bob", &format!("b-{number}"), text("c"))).collect();
    let last = store.append(&batch, false).await.unwrap().pop().unwrap().unwrap();
    check(&log, last.seq, last.at).await;
    let direct = store.direct(&user("alice"), &user("bob")).await.unwrap();
    for entry in direct.inbox_entries {
        check(&entry.log, entry.seq, entry.at).await;
    }
}

pub(super) async fn the_newest_entry_before_a_time_is_found(store: Arc<dyn Store>) {
    let (room, _) = group(&store, "room", "alice", &["bob"]).await;
    let log = LogId::from(&room);
    let mut times = Vec::new();
    for number in 0..4 {
        times.push(append(&store, new(&room, "alice", &number.to_string(), text("a"))).await.unwrap().at);
    }
    let at = async |time: Timestamp| {
        let logs = [(log.clone(), time), (LogId::parse("nowhere").unwrap(), time)];
        let found = store.ends_at(&logs).await.unwrap();
        assert_eq!(found.len(), 1);
        found[0].1
    };
    let before = Timestamp::from_micros(times[0].micros() - 1);
    assert_eq!((at(before).await, at(times[1]).await, at(times[3]).await), (0, 2, 4));
    let batch: Vec<_> = (0..500).map(|number| new(&room, "bob", &number.to_string(), text("b"))).collect();
    for part in [&batch[..250], &batch[250..]] {
        store.append(part, false).await.unwrap();
    }
    assert_eq!(at(times[2]).await, 3);
    let batch: Vec<_> = (500..1_100).map(|number| new(&room, "bob", &number.to_string(), text("b"))).collect();
    store.append(&batch, false).await.unwrap();
    assert_eq!(at(times[2]).await, 1_104, "it is not among the newest 1,000");
}

pub(super) async fn an_epoch_ends_once(store: Arc<dyn Store>) {
    let deployment = store.deployment().await.unwrap();
    let first = store.next_epoch(deployment.epoch).await.unwrap();
    assert!(first > deployment.epoch + 1_000_000, "the time of the store: {first}");
    assert_eq!(store.next_epoch(deployment.epoch).await.unwrap(), first, "another node ended it before");
    let second = store.next_epoch(first).await.unwrap();
    assert!(second > first);
    assert!(store.next_epoch(second + 1_000_000_000).await.unwrap() > second + 1_000_000_000, "it was set back");
    let now = store.deployment().await.unwrap();
    assert_eq!((now.id, store.ping().await.unwrap().epoch), (deployment.id, now.epoch));
}

pub(super) async fn members_are_told_from_others(store: Arc<dyn Store>) {
    let (team, _) = group(&store, "team", "alice", &["bob"]).await;
    let (other, _) = group(&store, "other", "carol", &["bob"]).await;
    let of = [(&team, "alice"), (&team, "carol"), (&other, "bob"), (&other, "alice"), (&room("nowhere"), "bob")];
    let of: Vec<_> = of.into_iter().map(|(room, id)| (room.clone(), user(id))).collect();
    let mut members = store.members_among(&of).await.unwrap();
    members.sort();
    assert_eq!(members, [(other, user("bob")), (team, user("alice"))]);
}
