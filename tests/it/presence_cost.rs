//! What coming and going costs in Redis commands and events, and that it costs the same however many are online.

use std::{collections::BTreeMap, sync::Mutex, time::Duration};

use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::support::{Client, Node, Postgres, RedisServer, eventually, token};

/// How many come and go for each figure.
const COMING: usize = 20;

/// What a node asks by itself each second, whoever comes or goes, and what the test asks; what several who go may share.
/// Publications are counted one by one, as a subscriber sees them.
const NOT_COUNTED: &[&str] = &["zscore", "zrangebyscore", "publish", "info", "client|setinfo", "hello", "unsubscribe"];

/// A node, its Redis, and everything that is told in conversations.
struct Stage {
    redis: RedisServer,
    node: Node,
    told: mpsc::UnboundedReceiver<(String, Value)>,
    /// Those who are here all the time.
    crowd: Vec<Client>,
    online: usize,
}

/// How one comes.
#[derive(Debug, Clone, Copy)]
enum Way {
    /// Native, which joins a conversation.
    Native,
    /// Rooms, whose route names the conversation.
    Rooms,
    /// Personas, which is told who of its acquaintances is online.
    Personas,
}

impl Way {
    async fn come(self, node: &Node, user: &str) -> Client {
        match self {
            Self::Native => {
                let mut client = Client::native(node, user).await;
                client.join("lobby").await;
                client
            }
            Self::Rooms => Client::rooms(node, "lobby", user).await,
            Self::Personas => {
                let mut client = Client::connect(&format!("{}/ws/auth?token={}", node.ws(), token(user))).await;
                client.recv().await;
                client
            }
        }
    }
}

impl Stage {
    async fn set() -> Self {
        let redis = RedisServer::start().await;
        let database = Postgres::shared().await.database().await;
        let node = Node::serve(&redis.url(), &database)
            .set("NODE_LEASE", "600s")
            .set("PRESENCE_GRACE", "600s")
            .set("PING_INTERVAL", "600s")
            .start()
            .await;
        let client = redis::Client::open(redis.url()).unwrap();
        let mut listening = client.get_async_pubsub().await.unwrap();
        listening.psubscribe("*:c:*").await.unwrap();
        let (tell, told) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let mut messages = listening.into_on_message();
            while let Some(message) = messages.next().await {
                let events: Value = serde_json::from_slice(message.get_payload_bytes()).unwrap();
                if tell.send((message.get_channel_name().to_owned(), events)).is_err() {
                    return;
                }
            }
        });
        Self { redis, node, told, crowd: Vec::new(), online: 0 }
    }

    /// Calls of each command so far, those inside scripts included.
    async fn calls(&self) -> Calls {
        let stats: String = self.redis.command(&["INFO", "commandstats"]).await;
        let lines = stats.lines().filter_map(|line| line.strip_prefix("cmdstat_")?.split_once(":calls="));
        let calls = lines.map(|(name, rest)| (name.to_owned(), rest.split(',').next().unwrap().parse().unwrap()));
        calls.filter(|(name, _)| !NOT_COUNTED.contains(&name.as_str())).collect()
    }

    /// How many times it was told in conversations, since this was last asked, that somebody came.
    async fn told(&mut self) -> usize {
        // What was published before this is through comes before it.
        let mark = "{s00}:c:the-end-of-what-was-told";
        self.redis.command::<i64>(&["PUBLISH", mark, "{}"]).await;
        let mut told = 0;
        while let Some((channel, news)) = self.told.recv().await {
            if channel == mark {
                break;
            }
            told += news["events"].as_array().unwrap().iter().filter(|event| event["occurrence"].is_object()).count();
        }
        told
    }

    /// The same, once nothing more is asked on account of who came or went.
    async fn settled(&self) -> Calls {
        let before = Mutex::new(Calls::new());
        eventually("Redis to be left alone", || async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let now = self.calls().await;
            let still = std::mem::replace(&mut *before.lock().unwrap(), now.clone()) == now;
            still.then_some(now)
        })
        .await
    }

    /// What it costs that `COMING` users come, one after the other, and go again.
    async fn cost(&mut self, way: Way, name: &str) -> Cost {
        let (start, _) = (self.settled().await, self.told().await);
        let mut here = Vec::new();
        for at in 0..COMING {
            here.push(way.come(&self.node, &format!("{name}-{at}")).await);
        }
        let (came, told) = (self.settled().await, self.told().await);
        for client in here {
            client.close().await;
        }
        let open = || async {
            (self.node.metrics().await.sum("switchboard_connections") as usize == self.online).then_some(())
        };
        eventually("all of them to be gone", open).await;
        let gone = self.settled().await;
        Cost { coming: difference(&start, &came), going: difference(&came, &gone), told }
    }

    /// More come and stay, ten to a room; the first is the lobby.
    async fn fill(&mut self, online: usize) {
        while self.online < online {
            let mut client = Client::native(&self.node, &format!("crowd-{}", self.online)).await;
            let room = self.online / 10;
            client.join(&if room == 0 { "lobby".to_owned() } else { format!("room-{room}") }).await;
            self.crowd.push(client);
            self.online += 1;
        }
    }
}

/// Calls by command.
type Calls = BTreeMap<String, i64>;

#[derive(Debug, PartialEq, Eq)]
struct Cost {
    coming: Calls,
    going: Calls,
    told: usize,
}

impl Cost {
    /// Commands for each who comes, for each who goes, and what is told of each who comes.
    fn each(&self) -> (i64, i64, usize) {
        let each = |calls: &Calls| calls.values().sum::<i64>() / COMING as i64;
        (each(&self.coming), each(&self.going), self.told / COMING)
    }
}

fn difference(before: &Calls, after: &Calls) -> Calls {
    let calls = after.iter().map(|(name, calls)| (name.clone(), calls - before.get(name).unwrap_or(&0)));
    calls.filter(|(_, calls)| *calls > 0).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn coming_and_going_cost_the_same_however_many_are_online() {
    let mut stage = Stage::set().await;
    stage.fill(10).await;
    let mut few = Vec::new();
    // Commands inside scripts included. Two things are told where one listens: that they do, and
    // that they are online.
    for (way, each) in [(Way::Native, (15, 9, 2)), (Way::Rooms, (14, 9, 2)), (Way::Personas, (9, 7, 0))] {
        let cost = stage.cost(way, &format!("few-{way:?}")).await;
        println!("{way:?}, {COMING} of them, with 10 online: {cost:?}");
        assert_eq!(cost.each(), each, "{way:?}: {cost:?}");
        few.push((way, cost));
    }
    stage.fill(500).await;
    for (way, few) in few {
        let many = stage.cost(way, &format!("many-{way:?}")).await;
        assert_eq!(many, few, "{way:?} with 500 online, and with 10");
    }
}

#[tokio::test]
async fn presence_is_told_to_those_who_listen_along_and_to_nobody_else() {
    let stage = Stage::set().await;
    let mut along = Client::native(&stage.node, "along").await;
    along.join("lobby").await;
    let mut elsewhere = Client::native(&stage.node, "elsewhere").await;
    elsewhere.join("attic").await;
    let mut absent = Client::native(&stage.node, "absent").await;
    absent.join("lobby").await;
    along.until("presence").await;
    absent.send(&json!({"type": "leave", "conversation_id": "lobby", "ref": 1})).await;
    absent.until("left").await;
    let mut alice = Client::native(&stage.node, "alice").await;
    alice.join("lobby").await;
    let seen = along.until("presence").await;
    assert_eq!((&seen["user_id"], &seen["online"]), (&json!("alice"), &json!(true)));
    alice.send(&json!({"type": "status", "status": "away", "ref": 2})).await;
    alice.until("ok").await;
    assert_eq!(along.until("presence").await["status"], "away");
    for client in [&mut elsewhere, &mut absent] {
        let about_alice = client.drain().await.into_iter().find(|frame| frame["user_id"] == "alice");
        assert_eq!(about_alice, None);
    }
}
