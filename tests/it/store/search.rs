//! Search through the index of PostgreSQL: it finds what a search without an index finds. SQLite has another index and
//! the same answers.

use std::sync::Arc;

use proptest::prelude::*;
use switchboard::{
    model::{Body, ConversationId, LogId, SearchTerms, Seq},
    store::{SearchScope, Store},
};

use super::{append, group, new, part, postgres, terms, text, user, with_postgres};
use crate::support::Postgres as Server;

/// Appends messages with these texts, in batches.
async fn append_texts(store: &Arc<dyn Store>, room: &ConversationId, texts: &[String]) {
    let entries: Vec<_> =
        texts.iter().enumerate().map(|(at, content)| new(room, "alice", &format!("m{at}"), text(content))).collect();
    for batch in entries.chunks(400) {
        assert!(store.append(batch, false).await.unwrap().iter().all(Result::is_ok));
    }
}

/// Adds all full segments of a log to the index; returns their number.
async fn index(store: &Arc<dyn Store>, room: &ConversationId) -> u32 {
    let mut added = 0;
    loop {
        match store.index(&LogId::from(room)).await.unwrap() {
            0 => return added,
            more => added += more,
        }
    }
}

async fn seqs(store: &Arc<dyn Store>, terms: &SearchTerms, limit: u32, offset: u32) -> Vec<(LogId, Seq)> {
    let found = store.search(&SearchScope::Own(user("alice")), terms, part(limit, offset)).await.unwrap();
    found.into_iter().map(|entry| (entry.log, entry.seq)).collect()
}

pub(super) async fn indexed_messages_are_found_like_others(store: Arc<dyn Store>) {
    let (room, _) = group(&store, "room", "alice", &["bob"]).await;
    let (other, _) = group(&store, "other", "alice", &[]).await;
    let texts = |name: &str, count: usize| -> Vec<String> {
        (1..=count).map(|number| format!("Message no{number} of {name}, color{}", number % 7)).collect()
    };
    append_texts(&store, &room, &texts("room", 1_300)).await;
    append_texts(&store, &other, &texts("other", 600)).await;
    let edit = async |target: Seq, content: &str| {
        let body = Body::edited(target, content);
        append(&store, new(&room, "alice", &format!("e{target}"), body)).await.unwrap();
    };
    edit(5, "a fresh pineapple").await;
    append(&store, new(&room, "alice", "d6", Body::Deleted { target: 6 })).await.unwrap();
    let searches =
        ["message", "no1299", "no7", "no5 room", "no6 room", "pineapple", "color3 other", "room no", "absent"];
    let all = async || {
        let mut found = Vec::new();
        for search in searches {
            found.push((search, seqs(&store, &terms(search), 100, 0).await));
            found.push((search, seqs(&store, &terms(search), 7, 20).await));
        }
        found
    };
    let before = all().await;
    let added = index(&store, &room).await + index(&store, &other).await;
    assert!([0, 7].contains(&added), "SQLite has no segments, and PostgreSQL five and two: {added}");
    assert_eq!(all().await, before);
    let (log, find) = (LogId::from(&room), async |words: &str| seqs(&store, &terms(words), 100, 0).await);
    assert_eq!(find("pineapple").await, [(log.clone(), 5)]);
    assert!(!find("no5 of room").await.contains(&(log.clone(), 5)), "the old text");
    assert!(!find("no6 of room").await.contains(&(log.clone(), 6)), "deleted");
    edit(10, "a late mango").await;
    append(&store, new(&room, "alice", "d5", Body::Deleted { target: 5 })).await.unwrap();
    assert_eq!(find("mango").await, [(log.clone(), 10)]);
    assert_eq!(find("pineapple").await, []);
    let added = index(&store, &room).await;
    assert!([0, 1].contains(&added), "one segment was emptied by the changes: {added}");
    assert_eq!(find("mango").await, [(log, 10)]);
    assert_eq!(find("pineapple").await, []);
    append(&store, new(&room, "alice", "out", Body::MemberRemoved { user: user("alice") })).await.unwrap();
    assert_eq!(find("mango").await, [], "no longer a member");
}

/// Texts, in the order in which they are sent.
const TEXTS: [&str; 31] = [
    "我家在上海东边",
    "大海，上山",
    "Un café noir",
    "un cafe\u{301} au lait",
    "un cafe sans accent",
    "c",
    "Ich mag C++ und C#",
    "wir nehmen ASP.NET, nicht .NET Core",
    "set a_b to 1",
    "a b",
    "#tag und @name",
    "tag und name",
    "Feier 🎉!",
    "gut 👍🏽",
    "gut 👍",
    "die Straße",
    "DIE STRASSE",
    "İSTANBUL'da",
    "istanbul",
    "ฉันรักประเทศไทยมาก",
    "ພາສາລາວ",
    "ខ្ញុំស្រឡាញ់ភាសាខ្មែរ",
    "ကျွန်တော်မြန်မာစာ",
    "우리학교에서 만나요",
    "東京タワーとﾀﾜｰ",
    "\u{200F}שלום עולם\u{200F}",
    "مرحبا بالعالم",
    "हिन्दी में",
    "familie 👨\u{200D}👩\u{200D}👧 hier",
    "ＦＵＬＬ wide ❤\u{FE0F}",
    "x\u{303}y und don\u{2019}t",
];

/// Searches, and the positions of the texts that each finds, the newest first.
const SEARCHES: &[(&str, &[usize])] = &[
    ("上海", &[0]),
    ("海", &[1, 0]),
    ("上海 东边", &[0]),
    ("海上", &[]),
    ("café", &[3, 2]),
    ("cafe\u{301}", &[3, 2]),
    ("CAFÉ noir", &[2]),
    ("cafe sans", &[4]),
    ("cafe", &[4]),
    ("C++", &[6]),
    ("c#", &[6]),
    ("c++ und", &[6]),
    (".NET", &[7]),
    ("a_b", &[8]),
    ("a b", &[9, 8]),
    ("#tag", &[10]),
    ("@name", &[10]),
    ("tag und", &[11, 10]),
    ("🎉", &[12]),
    ("👍", &[14, 13]),
    ("👍🏽", &[13]),
    ("Straße", &[16, 15]),
    ("strasse die", &[16, 15]),
    ("İstanbul", &[18, 17]),
    ("ISTANBUL", &[18, 17]),
    ("ประเทศ", &[19]),
    ("ລາວ", &[20]),
    ("ភាសា", &[21]),
    ("မြန်မာ", &[22]),
    ("학교", &[23]),
    ("タワー", &[24]),
    ("東京", &[24]),
    ("שלום", &[25]),
    ("עול", &[25]),
    ("بالعالم", &[26]),
    ("हिन्दी में", &[27]),
    ("👩", &[28]),
    ("👨\u{200D}👩\u{200D}👧", &[28]),
    ("full", &[29]),
    ("❤", &[29]),
    ("don't", &[30]),
    ("x\u{303}y", &[30]),
    ("\"don't\",", &[30]),
    ("+++", &[]),
    ("?! …", &[]),
    ("' OR 1=1 --", &[]),
];

pub(super) async fn texts_of_all_scripts_are_found(store: Arc<dyn Store>) {
    let (room, _) = group(&store, "room", "alice", &["bob"]).await;
    append_texts(&store, &room, &TEXTS.map(ToOwned::to_owned)).await;
    let check = async |state: &str| {
        for (words, expected) in SEARCHES {
            let found = seqs(&store, &terms(words), 100, 0).await;
            let found: Vec<_> = found.into_iter().filter(|(_, seq)| *seq <= TEXTS.len() as Seq).collect();
            let expected: Vec<_> = expected.iter().map(|at| (LogId::from(&room), *at as Seq + 1)).collect();
            assert_eq!(found, expected, "{words}, {state}");
        }
    };
    check("not indexed").await;
    let fill: Vec<String> = (0..300).map(|number| format!("{number}")).collect();
    let entries: Vec<_> =
        fill.iter().map(|content| new(&room, "alice", &format!("f{content}"), text(content))).collect();
    assert!(store.append(&entries, false).await.unwrap().iter().all(Result::is_ok));
    check("before the index").await;
    assert!([0, 1].contains(&index(&store, &room).await));
    check("indexed").await;
}

#[tokio::test]
async fn no_word_of_a_deleted_message_stays_in_the_index() {
    let url = Server::shared().await.database().await;
    let store: Arc<dyn Store> = Arc::new(postgres(&url).await);
    let client = crate::support::connect_to_postgres(&url).await;
    let held = async || -> bool {
        let sql = "SELECT EXISTS (SELECT FROM segments WHERE words @@ 'secret'::tsquery)";
        client.query_one(sql, &[]).await.unwrap().get(0)
    };
    let (room, _) = group(&store, "room", "alice", &[]).await;
    let mut texts = vec!["hello".to_owned(); 520];
    texts[2] = "a secret".to_owned();
    append_texts(&store, &room, &texts).await;
    assert_eq!(index(&store, &room).await, 2);
    assert!(held().await);
    append(&store, new(&room, "alice", "gone", Body::Deleted { target: 3 })).await.unwrap();
    assert!(!held().await, "at once");
    assert_eq!(index(&store, &room).await, 1);
    assert!(!held().await, "and when the segment was built again");
    assert_eq!(seqs(&store, &terms("hello"), 1, 518).await, [(LogId::from(&room), 1)]);
}

#[tokio::test]
async fn logs_that_lack_segments_are_listed() {
    with_postgres(async |store| {
        let (large, _) = group(&store, "large", "alice", &[]).await;
        group(&store, "small", "alice", &[]).await;
        append_texts(&store, &large, &vec!["hello".to_owned(); 700]).await;
        let (logs, last) = store.unindexed(None).await.unwrap();
        assert_eq!((logs, &last), (vec![LogId::from(&large)], &Some(LogId::parse("small").unwrap())));
        assert_eq!(store.unindexed(last.as_ref()).await.unwrap(), (Vec::new(), None));
        assert_eq!(index(&store, &large).await, 2);
        assert_eq!(index(&store, &large).await, 0);
    })
    .await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, ..ProptestConfig::default() })]
    /// Whatever the texts, the index changes no answer.
    #[test]
    fn the_index_changes_no_answer(
        texts in prop::collection::vec("[aAbB12 éÉß上海.,'“”_\\-+#ΣσςİıN🎉ท\u{301}]{0,14}", 20..60),
        searches in prop::collection::vec("[aAbB12 éÉß上海.+#'ΣσςİıN🎉ท\u{301}]{1,4}", 1..40),
    ) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(with_postgres(async |store: Arc<dyn Store>| {
            let (room, _) = group(&store, "room", "alice", &[]).await;
            let many: Vec<String> = texts.iter().cycle().take(520).cloned().map(|text| text + " end").collect();
            append_texts(&store, &room, &many).await;
            let searches: Vec<_> = searches.iter().filter_map(|words| SearchTerms::given("q", words).ok()).collect();
            let mut before = Vec::new();
            for words in &searches {
                before.push(seqs(&store, words, 100, 0).await);
            }
            assert_eq!(index(&store, &room).await, 2);
            for (words, before) in searches.iter().zip(before) {
                assert_eq!(seqs(&store, words, 100, 0).await, before, "{words:?}");
            }
        }));
    }
}
