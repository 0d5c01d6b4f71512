//! Repeats of stored commands, and other commands with their ids.

use super::*;

fn edit(content: &str) -> Body {
    Body::edited(1, content)
}

fn like(emoji: &str, active: bool) -> Body {
    Body::Reacted { target: 1, emoji: emoji.into(), active }
}

pub(super) async fn an_id_of_another_command_is_refused(store: Arc<dyn Store>) {
    let (room, _) = group(&store, "room", "alice", &["bob"]).await;
    let by_alice = |id: &str, body: Body| new(&room, "alice", id, body);
    let reply = |to| {
        let mut body = text("one");
        if let Body::Message { reply_to, .. } = &mut body {
            *reply_to = Some(to);
        }
        body
    };
    let commands = [("m", text("one")), ("e", edit("two")), ("r", like("x", true)), ("q", reply(1))];
    let mut stored = Vec::new();
    for (id, body) in &commands {
        stored.push(append(&store, by_alice(id, body.clone())).await.unwrap().seq);
    }
    let same_ids = [
        ("m", vec![text("two"), text("one "), reply(1), edit("one"), like("x", true), Body::Deleted { target: 1 }]),
        ("e", vec![edit("one"), text("two"), Body::edited(4, "two")]),
        ("r", vec![like("y", true), like("x", false), text("x")]),
        ("q", vec![text("one"), reply(2)]),
    ];
    for ((id, body), seq) in commands.iter().zip(&stored) {
        for _ in 0..2 {
            let again = append(&store, by_alice(id, body.clone())).await.unwrap();
            assert_eq!((again.seq, again.duplicate), (*seq, true), "{id}: edited since or not");
        }
    }
    for (id, bodies) in same_ids {
        for body in bodies {
            for retried in [false, true] {
                let outcome = store.append(&[by_alice(id, body.clone())], retried).await.unwrap().remove(0);
                assert_eq!(outcome, Err(AppendRefused::IdReused), "{id}: {body:?}");
            }
            let known = store.stored(&LogId::from(&room), &user("alice"), &ClientId::parse(id).unwrap()).await.unwrap();
            assert!(!known.unwrap().is_repeated_by(&body), "{id}: {body:?}");
        }
    }
    append(&store, new(&room, "bob", "m", text("bob's own"))).await.unwrap();
    // A mixed batch: the others are stored.
    let batch = [by_alice("m", text("no")), by_alice("n", text("new")), by_alice("q", reply(1))];
    let outcomes = store.append(&batch, false).await.unwrap();
    assert_eq!(outcomes[0], Err(AppendRefused::IdReused));
    assert_eq!(outcomes[1..].iter().map(|one| one.as_ref().unwrap().duplicate).collect::<Vec<_>>(), [false, true]);

    // Nothing of a deleted text is kept, so only the kind of command is compared.
    append(&store, by_alice("d", Body::Deleted { target: 1 })).await.unwrap();
    for (id, body) in [("m", text("one")), ("m", text("other")), ("e", edit("two")), ("e", edit("other"))] {
        assert!(append(&store, by_alice(id, body)).await.unwrap().duplicate, "{id}");
    }
    for (id, body) in
        [("m", edit("one")), ("e", text("two")), ("d", Body::Deleted { target: 2 }), ("r", like("y", true))]
    {
        assert_eq!(append(&store, by_alice(id, body)).await, Err(AppendRefused::IdReused), "{id}");
    }
    let entries = store.entries(&LogId::from(&room), 0, 100).await.unwrap();
    assert_eq!(entries.len(), 7, "nothing was stored under a reused id");
}
