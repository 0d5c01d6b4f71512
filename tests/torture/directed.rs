//! Scenarios that make one race certain which random runs seldom meet. Each breaks, delays or holds a link at the right
//! moment; the checker reads the history as it reads that of a run.

use std::time::Duration;

use serde_json::json;
use tokio::time::sleep;

use crate::{
    history::{About, Dialect, Kind, Name},
    operations::To,
    stage::{STEP, Stage},
    support::Link,
};

/// A scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scenario {
    /// Messages are sent while a node has no Redis.
    MessagesWithoutRedis,
    /// A node that was without Redis backfills a removal and what follows it in one batch.
    RemovalInABatch,
    /// A member is removed between the answer to the join's question and the attachment.
    RemovalDuringAJoin,
    /// A member who reads over REST on one node is removed on another.
    RemovalOnAnotherNode,
    /// A member who was removed and added again resumes from before the removal.
    ResumeAcrossARemoval,
    /// A node that was without Redis hears of additions before the removals that came first.
    AdditionBeforeRemoval,
    /// A node has no store when its socket must join a conversation by itself.
    AutomaticJoinWithoutStore,
    /// The second user writes before the socket that begins a direct conversation listens.
    FirstContactFromBothSides,
    /// A node dies after it stored a message and before it told the others.
    DeathBeforePublication,
    /// A node without Redis deletes a message that the cache has.
    DeletionWithoutRedis,
    /// A client joins on a node that heard less than the client did.
    JoinOnANodeBehind,
    /// A client sends on a node that has not heard of an entry before.
    AckOnANodeBehind,
    /// Others type while a slow Redis delays the greeting.
    TypingDuringAnOpening,
    /// The answer of the statement that adds a member is lost.
    AdditionWithoutAnswer,
    /// Users come and go while a node has no Redis.
    PresenceWithoutRedis,
    /// A user comes after Redis lost everything, and before another node registers its users again.
    ArrivalBeforeRegistration,
}

impl Scenario {
    /// All scenarios; the last one ends a node.
    pub const ALL: [Self; 16] = [
        Self::MessagesWithoutRedis,
        Self::RemovalInABatch,
        Self::RemovalDuringAJoin,
        Self::RemovalOnAnotherNode,
        Self::ResumeAcrossARemoval,
        Self::AdditionBeforeRemoval,
        Self::AutomaticJoinWithoutStore,
        Self::FirstContactFromBothSides,
        Self::DeletionWithoutRedis,
        Self::JoinOnANodeBehind,
        Self::AckOnANodeBehind,
        Self::TypingDuringAnOpening,
        Self::AdditionWithoutAnswer,
        Self::PresenceWithoutRedis,
        Self::ArrivalBeforeRegistration,
        Self::DeathBeforePublication,
    ];

    /// Plays the scenario. Its users have names of their own. Links are open again at its end.
    pub async fn play(self, stage: &Stage) {
        // Nodes may still recover from the scenario before, and refuse sockets.
        crate::run::until(STEP, async || stage.cluster.is_healthy().await).await;
        match self {
            Self::MessagesWithoutRedis => messages_without_redis(stage).await,
            Self::RemovalInABatch => removal_in_a_batch(stage).await,
            Self::RemovalDuringAJoin => removal_during_a_join(stage).await,
            Self::RemovalOnAnotherNode => removal_on_another_node(stage).await,
            Self::ResumeAcrossARemoval => resume_across_a_removal(stage).await,
            Self::AdditionBeforeRemoval => addition_before_removal(stage).await,
            Self::AutomaticJoinWithoutStore => automatic_join_without_store(stage).await,
            Self::FirstContactFromBothSides => first_contact_from_both_sides(stage).await,
            Self::DeathBeforePublication => death_before_publication(stage).await,
            Self::DeletionWithoutRedis => deletion_without_redis(stage).await,
            Self::JoinOnANodeBehind => join_on_a_node_behind(stage).await,
            Self::AckOnANodeBehind => ack_on_a_node_behind(stage).await,
            Self::TypingDuringAnOpening => typing_during_an_opening(stage).await,
            Self::AdditionWithoutAnswer => addition_without_answer(stage).await,
            Self::PresenceWithoutRedis => presence_without_redis(stage).await,
            Self::ArrivalBeforeRegistration => arrival_before_registration(stage).await,
        }
    }
}

fn user(name: &str) -> About {
    About::User(name.into())
}

fn to(conversation: &Name) -> To {
    To::Conversation(conversation.clone())
}

async fn messages_without_redis(stage: &Stage) {
    let room = stage.group(&["ann", "bob"]).await;
    let (mut ann, bob) = (stage.native("ann", 0).await, stage.native("bob", 1).await);
    ann.join(&room, None).await;
    bob.join(&room, None).await;
    assert!(stage.until(|| ann.listens(&room) && bob.listens(&room)).await);
    stage.cluster.redis_links[1].set(Link::Cut);
    for seq in 1..4 {
        ann.begin(to(&room)).await;
        assert!(stage.until(|| ann.has(&room) == seq).await);
    }
    stage.cluster.redis_links[1].set(Link::Open);
    ann.begin(to(&room)).await;
    stage.until(|| ann.has(&room) == 4 && bob.has(&room) == 4).await;
    stage.keep([ann, bob]);
}

async fn removal_in_a_batch(stage: &Stage) {
    let room = stage.group(&["ada", "ben"]).await;
    let (mut ada, ben) = (stage.native("ada", 0).await, stage.native("ben", 1).await);
    ada.join(&room, None).await;
    ben.join(&room, None).await;
    assert!(stage.until(|| ada.listens(&room) && ben.listens(&room)).await);
    stage.cluster.redis_links[1].set(Link::Cut);
    ada.begin(to(&room)).await;
    assert!(stage.until(|| ada.has(&room) == 1).await);
    stage.change(0, "ada", &room, Kind::MemberRemoved, user("ben")).await;
    for seq in 3..6 {
        ada.begin(to(&room)).await;
        assert!(stage.until(|| ada.has(&room) == seq).await);
    }
    stage.cluster.redis_links[1].set(Link::Open);
    stage.until(|| !ben.listens(&room)).await;
    // A broken node may still send more.
    sleep(Duration::from_millis(300)).await;
}

async fn removal_during_a_join(stage: &Stage) {
    let room = stage.group(&["cy", "dan", "eve"]).await;
    let (mut cy, eve) = (stage.native("cy", 0).await, stage.native("eve", 1).await);
    cy.join(&room, None).await;
    eve.join(&room, None).await;
    assert!(stage.until(|| cy.listens(&room) && eve.listens(&room)).await);
    let link = &stage.cluster.store_links[1];
    link.set_at("dan", 1, Link::Mute);
    let held = async {
        link.reached(Link::Mute).await;
        // By then PostgreSQL has read Dan's membership, and its answer is held.
        sleep(Duration::from_millis(200)).await;
        stage.change(0, "cy", &room, Kind::MemberRemoved, user("dan")).await;
        stage.until(|| eve.has(&room) == 1).await;
        link.set(Link::Open);
    };
    let (dan, ()) = tokio::join!(stage.open("dan", Dialect::Rooms, 1, Some(&room)), held);
    cy.begin(to(&room)).await;
    assert!(stage.until(|| cy.has(&room) == 2 && eve.has(&room) == 2).await);
    if let Ok(dan) = dan {
        sleep(Duration::from_millis(300)).await;
        drop(dan);
    }
}

async fn removal_on_another_node(stage: &Stage) {
    let room = stage.group(&["fay", "gus"]).await;
    stage.read(1, "gus", &room).await;
    stage.change(0, "fay", &room, Kind::MemberRemoved, user("gus")).await;
    stage.read(1, "gus", &room).await;
}

async fn resume_across_a_removal(stage: &Stage) {
    let room = stage.group(&["hal", "ida"]).await;
    let mut hal = stage.native("hal", 0).await;
    hal.join(&room, None).await;
    assert!(stage.until(|| hal.listens(&room)).await);
    hal.begin(to(&room)).await;
    assert!(stage.until(|| hal.has(&room) == 1).await);
    stage.change(0, "hal", &room, Kind::MemberRemoved, user("ida")).await;
    stage.change(0, "hal", &room, Kind::MemberAdded, user("ida")).await;
    hal.begin(to(&room)).await;
    assert!(stage.until(|| hal.has(&room) == 4).await);
    for node in 0..2 {
        let ida = stage.native("ida", node).await;
        ida.join(&room, Some(0)).await;
        stage.until(|| ida.has(&room) == 4).await;
        hal.begin(to(&room)).await;
        let head = 5 + node as i64;
        stage.until(|| ida.has(&room) == head).await;
        stage.keep([ida]);
    }
}

async fn addition_before_removal(stage: &Stage) {
    /// More logs than are backfilled at a time: the inbox does not come last.
    const ROOMS: usize = 20;
    let dot = stage.native("dot", 1).await;
    let mut rooms = Vec::new();
    for _ in 0..ROOMS {
        rooms.push(stage.group(&["amy", "dot"]).await);
    }
    assert!(stage.until(|| rooms.iter().all(|room| dot.listens(room))).await);
    stage.cluster.redis_links[1].set(Link::Cut);
    for room in &rooms {
        stage.change(0, "amy", room, Kind::MemberRemoved, user("dot")).await;
        stage.change(0, "amy", room, Kind::MemberAdded, user("dot")).await;
    }
    stage.cluster.redis_links[1].set(Link::Open);
    stage.until(|| rooms.iter().all(|room| dot.listens(room) && dot.has(room) == 2)).await;
    stage.keep([dot]);
}

async fn automatic_join_without_store(stage: &Stage) {
    let (mut jo, kim) = (stage.native("jo", 0).await, stage.native("kim", 1).await);
    stage.cluster.store_links[1].set(Link::Cut);
    jo.begin(To::User("kim".into())).await;
    assert!(stage.until(|| !jo.listening().is_empty() && kim.was_added()).await);
    // The automatic join fails at least once before the store is back.
    sleep(Duration::from_millis(900)).await;
    stage.cluster.store_links[1].set(Link::Open);
    let direct = jo.listening().remove(0);
    stage.until(|| kim.has(&direct) == 1).await;
    stage.keep([jo, kim]);
}

async fn first_contact_from_both_sides(stage: &Stage) {
    let (mut lea, mut max) = (stage.native("lea", 0).await, stage.native("max", 1).await);
    stage.cluster.store_links[0].set(Link::Slow(Duration::from_millis(150)));
    lea.begin(To::User("max".into())).await;
    let database = stage.cluster.database().await.expect("PostgreSQL is up");
    let made = "SELECT conversation FROM members WHERE user_id = 'lea'";
    let direct: Name = loop {
        match database.query(made, &[]).await.expect("members can be read").first() {
            Some(row) => break row.get::<_, String>(0).as_str().into(),
            None => sleep(Duration::from_millis(2)).await,
        }
    };
    // Nobody wrote yet, so the sockets of both listen from the first entry.
    lea.awaits_new_direct(&direct);
    max.awaits_new_direct(&direct);
    // Lea's node reads the head of the new conversation after max's message.
    stage.cluster.store_links[0].set(Link::Frozen);
    max.begin(To::User("lea".into())).await;
    assert!(stage.until(|| max.has(&direct) > 0).await);
    stage.cluster.store_links[0].set(Link::Open);
    stage.until(|| lea.has(&direct) == 2 && max.has(&direct) == 2).await;
    stage.keep([lea, max]);
}

async fn death_before_publication(stage: &Stage) {
    let room = stage.group(&["ned", "oli"]).await;
    let (mut ned, oli) = (stage.native("ned", 0).await, stage.native("oli", 1).await);
    ned.join(&room, None).await;
    oli.join(&room, None).await;
    assert!(stage.until(|| ned.listens(&room) && oli.listens(&room)).await);
    stage.cluster.redis_links[0].set(Link::Frozen);
    ned.begin(to(&room)).await;
    assert!(stage.until(|| ned.has(&room) == 1).await);
    stage.cluster.kill_node(0).await;
    // Commands that the link held must not reach Redis any more.
    stage.cluster.redis_links[0].drop_connections();
    stage.cluster.redis_links[0].set(Link::Open);
    stage.until(|| oli.has(&room) == 1).await;
    stage.keep([oli]);
}

async fn deletion_without_redis(stage: &Stage) {
    let room = stage.group(&["pat", "quo"]).await;
    let mut pat = stage.native("pat", 1).await;
    pat.join(&room, None).await;
    assert!(stage.until(|| pat.listens(&room)).await);
    pat.begin(to(&room)).await;
    let cached = async || {
        let key = format!("room_messages:{room}");
        let entries: Option<Vec<String>> = stage.cluster.redis(&["LRANGE", &key, "0", "-1"]).await;
        entries.is_some_and(|entries| !entries.is_empty())
    };
    assert!(crate::run::until(STEP, cached).await);
    stage.cluster.redis_links[0].set(Link::Cut);
    stage.change(0, "pat", &room, Kind::Deleted, About::Message(1)).await;
    for dialect in [Dialect::Native, Dialect::Personas] {
        let quo = stage.open("quo", dialect, 1, None).await.expect("the node greets");
        quo.join(&room, Some(0)).await;
        stage.until(|| quo.listens(&room) && quo.has(&room) >= i64::from(dialect.shows_changes())).await;
        sleep(Duration::from_millis(200)).await;
    }
    stage.cluster.redis_links[0].set(Link::Open);
    stage.until(|| pat.has(&room) == 2).await;
}

async fn join_on_a_node_behind(stage: &Stage) {
    let room = stage.group(&["ray", "sue", "tom"]).await;
    let (mut ray, sue) = (stage.native("ray", 1).await, stage.native("sue", 0).await);
    ray.join(&room, None).await;
    sue.join(&room, None).await;
    let tom = stage.open("tom", Dialect::Personas, 0, None).await.expect("the node greets");
    assert!(stage.until(|| ray.listens(&room) && sue.listens(&room)).await);
    stage.cluster.redis_links[0].set(Link::Frozen);
    // The join comes before the node can learn of the entries in another way.
    ray.begin(to(&room)).await;
    ray.begin(to(&room)).await;
    assert!(stage.until(|| ray.has(&room) == 2).await);
    tom.join(&room, Some(2)).await;
    stage.until(|| tom.listens(&room)).await;
    stage.cluster.redis_links[0].set(Link::Open);
    stage.until(|| sue.has(&room) == 2).await;
}

async fn ack_on_a_node_behind(stage: &Stage) {
    let room = stage.group(&["kay", "lou"]).await;
    let (mut kay, mut lou) = (stage.native("kay", 0).await, stage.native("lou", 1).await);
    kay.join(&room, None).await;
    lou.join(&room, None).await;
    assert!(stage.until(|| kay.listens(&room) && lou.listens(&room)).await);
    // Lou's node hears neither what Kay says nor that it was said.
    stage.cluster.redis_links[1].set(Link::Frozen);
    kay.begin(to(&room)).await;
    assert!(stage.until(|| kay.has(&room) == 1).await);
    lou.begin(to(&room)).await;
    stage.until(|| lou.has(&room) == 2).await;
    stage.cluster.redis_links[1].set(Link::Open);
    stage.until(|| kay.has(&room) == 2).await;
    stage.keep([kay, lou]);
}

async fn typing_during_an_opening(stage: &Stage) {
    let room = stage.group(&["una", "vic"]).await;
    let una = stage.native("una", 0).await;
    una.join(&room, None).await;
    assert!(stage.until(|| una.listens(&room)).await);
    stage.cluster.redis_links[0].set(Link::Slow(Duration::from_millis(100)));
    for dialect in [Dialect::Conversation, Dialect::Rooms] {
        let typing = async {
            for turn in 0.. {
                let active = turn % 2 == 0;
                una.tell(json!({ "type": "typing", "conversation_id": room, "active": active })).await;
                sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::select! {
            vic = stage.open("vic", dialect, 0, Some(&room)) => drop(vic.expect("the node greets")),
            () = typing => {}
        }
    }
    stage.cluster.redis_links[0].set(Link::Open);
}

async fn addition_without_answer(stage: &Stage) {
    let room = stage.group(&["wes", "xia"]).await;
    let (wes, yul) = (stage.native("wes", 1).await, stage.native("yul", 1).await);
    wes.join(&room, None).await;
    assert!(stage.until(|| wes.listens(&room)).await);
    let link = &stage.cluster.store_links[0];
    link.set_at("yul", 1, Link::Mute);
    let lost = async {
        link.reached(Link::Mute).await;
        let database = stage.cluster.database().await.expect("PostgreSQL is up");
        let added = "SELECT 1 FROM members WHERE user_id = 'yul'";
        while database.query(added, &[]).await.expect("members can be read").is_empty() {
            sleep(Duration::from_millis(5)).await;
        }
        link.drop_connections();
        link.set(Link::Open);
    };
    tokio::join!(stage.change(0, "wes", &room, Kind::MemberAdded, user("yul")), lost);
    stage.until(|| yul.listens(&room) && wes.has(&room) == 1).await;
    stage.keep([wes, yul]);
}

async fn presence_without_redis(stage: &Stage) {
    let room = stage.group(&["zoe", "abe", "bea", "cal"]).await;
    let (zoe, abe) = (stage.native("zoe", 1).await, stage.native("abe", 0).await);
    zoe.join(&room, None).await;
    assert!(stage.until(|| zoe.listens(&room)).await);
    abe.join(&room, None).await;
    assert!(stage.until(|| zoe.is_shown(&room, "abe") == Some(true)).await);
    stage.cluster.redis_links[1].set(Link::Cut);
    // Node 1 notices at once, and hears of nobody who comes or goes elsewhere.
    sleep(Duration::from_millis(500)).await;
    let cal = stage.native("cal", 0).await;
    cal.join(&room, None).await;
    assert!(stage.until(|| cal.listens(&room)).await);
    drop(abe);
    // Node 0 announces the departure after the grace of a second.
    sleep(Duration::from_millis(2_500)).await;
    stage.cluster.redis_links[1].set(Link::Open);
    stage.until(|| zoe.is_shown(&room, "cal") == Some(true) && zoe.is_shown(&room, "abe") == Some(false)).await;
    stage.shown(&zoe, &room, &["zoe", "cal"], &["abe"]);
    stage.keep([zoe, cal]);
}

async fn arrival_before_registration(stage: &Stage) {
    let room = stage.group(&["gia", "hod", "ike"]).await;
    let gia = stage.open("gia", Dialect::Conversation, 0, Some(&room)).await.expect("the node greets");
    let hod = stage.native("hod", 1).await;
    hod.join(&room, None).await;
    assert!(stage.until(|| gia.is_shown(&room, "hod") == Some(true)).await);
    // Node 1 notices nothing until its link is open again, which is soon: it does not count as dead.
    stage.cluster.redis_links[1].set(Link::Frozen);
    let _flushed: Option<String> = stage.cluster.redis(&["FLUSHALL"]).await;
    let is_back = async || {
        let leases: Option<Vec<String>> = stage.cluster.redis(&["ZRANGE", "ws:nodes", "0", "-1"]).await;
        leases.is_some_and(|leases| leases.iter().any(|lease| lease.starts_with("node-0#")))
    };
    assert!(crate::run::until(STEP, is_back).await);
    let ike = stage.native("ike", 0).await;
    ike.join(&room, None).await;
    assert!(stage.until(|| gia.is_shown(&room, "ike") == Some(true)).await);
    stage.cluster.redis_links[1].set(Link::Open);
    stage.until(|| gia.is_shown(&room, "hod") == Some(true)).await;
    stage.shown(&gia, &room, &["gia", "hod", "ike"], &[]);
    stage.keep([gia, hod, ike]);
}
