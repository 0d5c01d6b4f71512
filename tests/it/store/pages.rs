//! Listings and search: threads, reactions, archives, direct conversations, runs of notifications.

use std::{collections::HashSet, sync::Arc};

use proptest::prelude::*;
use switchboard::{
    model::{Body, ConversationId, Entry, EntrySeq, HistoryRange, Pair, SearchTerms, Seq, SinceSeq},
    store::{AppendRefused, MessagesPage, ReadMessages, SearchScope, Store},
};

use super::{append, group, new, part, room, terms, text, user, with_postgres, with_sqlite};

fn page(thread: Option<Seq>) -> MessagesPage {
    MessagesPage { range: HistoryRange::Newest, thread, page: part(10, 0) }
}

fn reply(content: &str, to: Seq) -> Body {
    Body::Message {
        content: content.into(),
        data: None,
        reply_to: Some(to),
        is_ai: false,
        persona: None,
        edited_at: None,
        deleted: false,
    }
}

fn reaction(target: Seq, emoji: &str) -> Body {
    Body::Reacted { target, emoji: emoji.into(), active: true }
}

async fn append_seq(store: &Arc<dyn Store>, room: &ConversationId, sender: &str, id: &str, body: Body) -> Seq {
    append(store, new(room, sender, id, body)).await.unwrap().seq
}

pub(super) async fn messages_show_their_reactions_and_threads(store: Arc<dyn Store>) {
    let (room, _) = group(&store, "room", "alice", &["bob"]).await;
    let root = append_seq(&store, &room, "alice", "1", text("root")).await;
    let first = append_seq(&store, &room, "bob", "2", reply("one", root)).await;
    let second = append_seq(&store, &room, "alice", "3", reply("two", root)).await;
    for (at, (sender, emoji)) in [("alice", "🎉"), ("bob", "🎉"), ("bob", "👍")].into_iter().enumerate() {
        append_seq(&store, &room, sender, &format!("r{at}"), reaction(root, emoji)).await;
    }
    let alice = user("alice");
    let shown = store.message(&room, root, &alice).await.unwrap().unwrap();
    let reactions: Vec<_> = shown.reactions.iter().map(|one| (&*one.emoji, one.count, one.own)).collect();
    assert_eq!((reactions, shown.replies), (vec![("🎉", 2, true), ("👍", 1, false)], 2));
    let ReadMessages { messages: listed, total, head, .. } = store.messages(&room, &alice, page(None)).await.unwrap();
    assert_eq!(head, second + 3);
    assert_eq!((listed.len(), total), (3, 3));
    assert_eq!(listed[2], shown);
    let ReadMessages { messages: thread, total, .. } = store.messages(&room, &alice, page(Some(root))).await.unwrap();
    let seqs: Vec<_> = thread.iter().map(|one| one.entry.seq).collect();
    assert_eq!((seqs, total), (vec![second, first], 2));
    let older = MessagesPage { range: HistoryRange::before(second), ..page(Some(root)) };
    assert_eq!(store.messages(&room, &alice, older).await.unwrap().messages.len(), 1);
    append_seq(&store, &room, "bob", "d", Body::Deleted { target: first }).await;
    assert_eq!(
        store.message(&room, root, &alice).await.unwrap().unwrap().replies,
        2,
        "a deleted reply keeps its place"
    );
    let ReadMessages { messages: thread, total, .. } = store.messages(&room, &alice, page(Some(root))).await.unwrap();
    assert_eq!((thread.len(), total), (2, 2), "the count too");
    assert_eq!(store.message(&room, second + 1, &alice).await.unwrap(), None, "a reaction is no message");
    append_seq(&store, &room, "alice", "e", Body::Deleted { target: root }).await;
    assert_eq!(store.message(&room, root, &alice).await.unwrap().unwrap().reactions, []);
}

pub(super) async fn reactions_to_one_message_are_bounded(store: Arc<dyn Store>) {
    let (room, _) = group(&store, "room", "alice", &["bob", "carol", "dave"]).await;
    let target = append_seq(&store, &room, "alice", "1", text("popular")).await;
    let other = append_seq(&store, &room, "alice", "2", text("another")).await;
    let mut ids = 0;
    let mut react = async |sender: &str, seq, emoji: String| {
        ids += 1;
        append(&store, new(&room, sender, &format!("r{ids}"), reaction(seq, &emoji))).await.map(drop)
    };
    let full = Err(AppendRefused::TooManyReactions);
    // 20 of one user.
    for at in 0..20 {
        react("alice", target, format!("a{at}")).await.unwrap();
    }
    assert_eq!(react("alice", target, "a20".into()).await, full);
    assert_eq!(react("alice", target, "a3".into()).await, Err(AppendRefused::Unchanged));
    react("alice", other, "a20".into()).await.unwrap();
    // 50 different ones.
    for at in 20..50 {
        react(if at < 40 { "bob" } else { "carol" }, target, format!("a{at}")).await.unwrap();
    }
    assert_eq!(react("dave", target, "new".into()).await, full);
    react("dave", target, "a49".into()).await.unwrap();
    // A removed one makes room.
    let removed = Body::Reacted { target, emoji: "a45".into(), active: false };
    append_seq(&store, &room, "carol", "gone", removed).await;
    react("dave", target, "new".into()).await.unwrap();
    assert_eq!(store.message(&room, target, &user("dave")).await.unwrap().unwrap().reactions.len(), 50);
}

fn seqs(read: &ReadMessages) -> Vec<Seq> {
    read.messages.iter().map(|message| message.entry.seq).collect()
}

/// Pages in both directions and around each message, in a log that has other entries between the messages.
pub(super) async fn pages_in_both_directions_have_each_message_once(store: Arc<dyn Store>) {
    let (room, _) = group(&store, "room", "alice", &["bob"]).await;
    let root = append_seq(&store, &room, "alice", "root", text("root")).await;
    let (mut all, mut thread) = (vec![root], Vec::new());
    for at in 0..23 {
        let in_thread = at % 3 == 0;
        let body = if in_thread { reply("in the thread", root) } else { text("beside it") };
        let seq = append_seq(&store, &room, "alice", &format!("m{at}"), body).await;
        all.push(seq);
        thread.extend(in_thread.then_some(seq));
        append_seq(&store, &room, "bob", &format!("r{at}"), reaction(seq, "👍")).await;
    }
    let head = *all.last().unwrap() + 1;
    let alice = user("alice");
    for (of, expected) in [(None, &all), (Some(root), &thread)] {
        for limit in [1, 2, 5, 100] {
            let read = async |range| {
                let page = MessagesPage { range, thread: of, page: part(limit, 0) };
                let read = store.messages(&room, &alice, page).await.unwrap();
                assert_eq!((read.head, read.total), (head, expected.len() as i64));
                assert!(seqs(&read).windows(2).all(|two| two[0] > two[1]), "newest first");
                read
            };
            let (mut back, mut range) = (Vec::new(), HistoryRange::Newest);
            loop {
                let page = read(range).await;
                back.extend(seqs(&page));
                assert!(!page.more_newer && page.newer == 0);
                if !page.more_older {
                    break;
                }
                range = HistoryRange::before(*back.last().unwrap());
            }
            back.reverse();
            assert_eq!(&back, expected, "back, {limit} at a time");
            let (mut forth, mut since) = (Vec::new(), SinceSeq::START);
            loop {
                let page = read(HistoryRange::After(since)).await;
                forth.extend(seqs(&page).into_iter().rev());
                assert!(!page.more_older && page.newer == page.messages.len());
                if !page.more_newer {
                    break;
                }
                since = SinceSeq::known(*forth.last().unwrap());
            }
            assert_eq!(&forth, expected, "forth, {limit} at a time");
            for (at, seq) in expected.iter().enumerate() {
                let page = read(HistoryRange::Around(EntrySeq::new(*seq).unwrap())).await;
                let (newer, older) = (limit as usize / 2, limit as usize - limit as usize / 2);
                let (first, end) = ((at + 1).saturating_sub(older), (at + 1 + newer).min(expected.len()));
                let nearest: Vec<Seq> = expected[first..end].iter().rev().copied().collect();
                assert_eq!(seqs(&page), nearest, "around {seq}, {limit} at a time");
                assert_eq!((page.more_older, page.more_newer), (first > 0, end < expected.len()));
                assert_eq!(page.newer, end - at - 1);
            }
        }
    }
    let none = store.messages(&self::room("nowhere"), &alice, page(None)).await.unwrap();
    assert_eq!(none, ReadMessages::default());
}

fn contents(found: &[Entry]) -> Vec<&str> {
    fn content(entry: &Entry) -> &str {
        match &entry.body {
            Body::Message { content, .. } => content,
            other => panic!("found {other:?}"),
        }
    }
    found.iter().map(content).collect()
}

pub(super) async fn search_finds_words_only_in_the_users_own_conversations(store: Arc<dyn Store>) {
    let (ours, _) = group(&store, "ours", "alice", &["bob"]).await;
    let (theirs, _) = group(&store, "theirs", "carol", &[]).await;
    let (mine, _) = group(&store, "mine", "alice", &[]).await;
    append_seq(&store, &ours, "bob", "1", text("The Quick brown fox")).await;
    append_seq(&store, &theirs, "carol", "1", text("a quick secret")).await;
    append_seq(&store, &mine, "alice", "1", text("Grüße an quickfox.example.com")).await;
    let edited = append_seq(&store, &ours, "bob", "2", text("lazy dog")).await;
    let deleted = append_seq(&store, &ours, "bob", "3", text("quick, delete this")).await;
    let alice = user("alice");
    let find = async |words: &str, of: Option<&ConversationId>| {
        let scope = of.map_or_else(|| SearchScope::Own(alice.clone()), |one| SearchScope::One(one.clone()));
        store.search(&scope, &terms(words), part(10, 0)).await.unwrap()
    };
    assert_eq!(
        contents(&find("quick", None).await),
        ["quick, delete this", "Grüße an quickfox.example.com", "The Quick brown fox"]
    );
    assert_eq!(
        contents(&find("BROWN qui", Some(&ours)).await),
        ["The Quick brown fox"],
        "the last word may be a prefix"
    );
    assert_eq!(find("brow quick", None).await, [], "the other words may not");
    assert_eq!(contents(&find("grüße example", None).await), ["Grüße an quickfox.example.com"]);
    assert_eq!(find("secret", None).await, [], "not one's own");
    assert_eq!(
        contents(&find("quick", Some(&theirs)).await),
        ["a quick secret"],
        "an admin may search any conversation"
    );
    assert_eq!(find("quick", Some(&self::room("nowhere"))).await, []);
    assert_eq!(find(" \"* ", None).await, [], "no words");
    append_seq(&store, &ours, "bob", "4", Body::edited(edited, "sleepy cat")).await;
    append_seq(&store, &ours, "bob", "5", Body::Deleted { target: deleted }).await;
    assert_eq!(find("lazy", None).await, []);
    assert_eq!(contents(&find("sleepy", None).await), ["sleepy cat"]);
    assert_eq!(find("delete", None).await, []);
    assert_eq!(
        store.search(&SearchScope::Own(alice.clone()), &terms("quick"), part(1, 1)).await.unwrap().len(),
        1,
        "pages"
    );
    append_seq(&store, &ours, "alice", "6", Body::MemberRemoved { user: user("alice") }).await;
    assert_eq!(find("brown", None).await, [], "no longer a member");
}

pub(super) async fn archived_conversations_are_listed_separately(store: Arc<dyn Store>) {
    let (one, _) = group(&store, "one", "alice", &["bob", "carol"]).await;
    let (two, _) = group(&store, "two", "alice", &[]).await;
    let alice = user("alice");
    assert!(store.archive(&one, &alice, true).await.unwrap());
    assert!(!store.archive(&one, &user("mallory"), true).await.unwrap());
    let ids = async |archived| {
        let (listed, total) = store.conversations(&alice, archived, part(10, 0)).await.unwrap();
        assert_eq!(usize::try_from(total).unwrap(), listed.len());
        assert!(listed.iter().all(|one| one.archived == archived));
        listed
    };
    let (archived, others) = (ids(true).await, ids(false).await);
    assert_eq!((&archived[0].id, &others[0].id, others.len()), (&one, &two, 1));
    let members: Vec<_> = archived[0].members.iter().map(|member| member.user.as_str()).collect();
    assert_eq!(members, ["alice", "bob", "carol"], "listings show members");
    assert!(store.conversation(&one, &alice).await.unwrap().unwrap().archived);
    assert!(!store.conversation(&one, &user("bob")).await.unwrap().unwrap().archived, "for bob it is not archived");
    store.archive(&one, &alice, false).await.unwrap();
    assert_eq!(ids(false).await.len(), 2);
}

pub(super) async fn direct_conversations_and_contacts_are_listed(store: Arc<dyn Store>) {
    let (alice, bob, carol) = (user("alice"), user("bob"), user("carol"));
    let with_bob = store.direct(&bob, &alice).await.unwrap().conversation;
    let with_carol = store.direct(&alice, &carol).await.unwrap().conversation;
    let (group, _) = group(&store, "group", "alice", &["dave"]).await;
    let head = append_seq(&store, &with_bob, "bob", "1", text("hi")).await;
    store.mark(&with_bob, &bob, head, 0).await.unwrap();
    let directs = store.directs(&bob, 10).await.unwrap();
    assert_eq!(directs.len(), 1);
    assert_eq!((&directs[0].pair, directs[0].delivered, directs[0].head), (&Pair::of(&alice, &bob), head, head));
    let directs = store.directs(&alice, 1).await.unwrap();
    assert_eq!((&directs[0].conversation, directs[0].delivered), (&with_bob, 0), "the last active first");
    assert_eq!(store.pair(&with_carol).await.unwrap(), Some(Pair::of(&carol, &alice)));
    assert_eq!(store.pair(&group).await.unwrap(), None);
    assert_eq!(store.pair(&room("nowhere")).await.unwrap(), None);
    let own = store.direct(&alice, &alice).await.unwrap().conversation;
    assert_eq!(store.pair(&own).await.unwrap().unwrap().other(&alice), &alice);
    let known: HashSet<_> = store.acquaintances(&alice, 10).await.unwrap().into_iter().collect();
    assert_eq!(known, [bob, carol, user("dave")].into());
    assert_eq!(store.acquaintances(&alice, 2).await.unwrap().len(), 2);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4, max_shrink_iters: 20, ..ProptestConfig::default() })]

    /// No search fails, and none finds a message outside the user's own conversations.
    #[test]
    fn no_search_fails_or_finds_foreign_messages(searches in prop::collection::vec(
        prop_oneof![
            "\\PC{0,40}",
            "[\"'*:()!&|<>\\\\ ^-]{0,12}(secret|OR|AND|NEAR|NOT|content)?[\"'*:()!&|<>\\\\ ^-]{0,12}(secret)?",
        ],
        1..40,
    )) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let check = async |store: Arc<dyn Store>| {
            let (theirs, _) = group(&store, "theirs", "carol", &[]).await;
            let (ours, _) = group(&store, "ours", "alice", &[]).await;
            append_seq(&store, &theirs, "carol", "1", text("the secret content")).await;
            append_seq(&store, &ours, "alice", "1", text("another secret")).await;
            for words in &searches {
                let Ok(terms) = SearchTerms::given("words", words) else { continue };
                let found = store.search(&SearchScope::Own(user("alice")), &terms, part(10, 0)).await.unwrap();
                assert!(found.iter().all(|entry| entry.log.as_str() == "ours"), "{words:?}");
            }
        };
        runtime.block_on(crate::support::within("the searches", async {
            with_postgres(check).await;
            with_sqlite(check).await;
        }));
    }
}
