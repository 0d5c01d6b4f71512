//! Cost of connecting and disconnecting in Redis commands and events; it must not depend on the number of online users.

use std::{collections::BTreeMap, sync::Mutex, time::Duration};

use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::support::{Client, Node, Postgres, RedisServer, eventually, token};

/// Number of users that connect and disconnect for each figure.
const USERS: usize = 20;

/// Commands that don't count: a node's periodic calls, the test's own calls, and those that several disconnects may
/// share. Publications are counted one by one, as a subscriber gets them.
const NOT_COUNTED: &[&str] =
    &["zscore", "time", "zrangebyscore", "publish", "info", "client|setinfo", "hello", "unsubscribe"];

/// A node, its Redis, and all events published to conversations.
struct Stage {
    redis: RedisServer,
    node: Node,
    presence_events: mpsc::UnboundedReceiver<(String, Value)>,
    /// Users that stay connected.
    crowd: Vec<Client>,
    online: usize,
}

/// Dialect over which a user connects.
#[derive(Debug, Clone, Copy)]
enum ClientKind {
    /// Native; joins a conversation.
    Native,
    /// Rooms; the route names the conversation.
    Rooms,
    /// Personas; the greeting lists the online users who share a conversation.
    Personas,
}

impl ClientKind {
    async fn connect(self, node: &Node, user: &str) -> Client {
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
        let (tell, presence_events) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let mut messages = listening.into_on_message();
            while let Some(message) = messages.next().await {
                let events: Value = serde_json::from_slice(message.get_payload_bytes()).unwrap();
                if tell.send((message.get_channel_name().to_owned(), events)).is_err() {
                    return;
                }
            }
        });
        Self { redis, node, presence_events, crowd: Vec::new(), online: 0 }
    }

    /// Calls of each command so far, including those inside scripts.
    async fn calls(&self) -> Calls {
        let stats: String = self.redis.command(&["INFO", "commandstats"]).await;
        let lines = stats.lines().filter_map(|line| line.strip_prefix("cmdstat_")?.split_once(":calls="));
        let calls = lines.map(|(name, rest)| (name.to_owned(), rest.split(',').next().unwrap().parse().unwrap()));
        calls.filter(|(name, _)| !NOT_COUNTED.contains(&name.as_str())).collect()
    }

    /// Number of `online` and `joined` events published to conversations since the last call.
    async fn presence_events(&mut self) -> usize {
        // Everything published before this mark arrives before it.
        let mark = "{s00}:0123456789ab:c:the-end-of-the-events";
        self.redis.command::<i64>(&["PUBLISH", mark, "{}"]).await;
        let mut presence_events = 0;
        while let Some((channel, news)) = self.presence_events.recv().await {
            if channel == mark {
                break;
            }
            presence_events +=
                news["events"].as_array().unwrap().iter().filter(|event| event["occurrence"].is_object()).count();
        }
        presence_events
    }

    /// Calls of each command, once no call on account of a connect or disconnect is outstanding.
    async fn settled(&self) -> Calls {
        let before = Mutex::new(Calls::new());
        eventually("calls to Redis to end", || async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let now = self.calls().await;
            let still = std::mem::replace(&mut *before.lock().unwrap(), now.clone()) == now;
            still.then_some(now)
        })
        .await
    }

    /// Cost of `COMING` users that connect one after the other, and disconnect.
    async fn measure(&mut self, kind: ClientKind, name: &str) -> Cost {
        let (start, _) = (self.settled().await, self.presence_events().await);
        let mut here = Vec::new();
        for at in 0..USERS {
            here.push(kind.connect(&self.node, &format!("{name}-{at}")).await);
        }
        let (came, presence_events) = (self.settled().await, self.presence_events().await);
        for client in here {
            client.close().await;
        }
        let open = || async {
            (self.node.metrics().await.sum("switchboard_connections") as usize == self.online).then_some(())
        };
        eventually("all of them to be disconnected", open).await;
        let gone = self.settled().await;
        Cost { coming: difference(&start, &came), going: difference(&came, &gone), presence_events }
    }

    /// Connects users that stay, ten to a room; the first room is the lobby.
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
    presence_events: usize,
}

impl Cost {
    /// Commands per connect, commands per disconnect, and events per connect.
    fn each(&self) -> (i64, i64, usize) {
        let each = |calls: &Calls| calls.values().sum::<i64>() / USERS as i64;
        (each(&self.coming), each(&self.going), self.presence_events / USERS)
    }
}

/// The calls between two counts, without the few that the node makes by itself now and then.
fn difference(before: &Calls, after: &Calls) -> Calls {
    let calls = after.iter().map(|(name, calls)| (name.clone(), calls - before.get(name).unwrap_or(&0)));
    let of_users = calls.map(|(name, calls)| (name, calls - calls % USERS as i64));
    of_users.filter(|(_, calls)| *calls > 0).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn connects_and_disconnects_cost_the_same_with_any_number_online() {
    let mut stage = Stage::set().await;
    stage.fill(10).await;
    let mut few = Vec::new();
    // Commands inside scripts are included. There are two events where the user joins a conversation: `joined` and
    // `online`.
    for (kind, each) in
        [(ClientKind::Native, (16, 9, 2)), (ClientKind::Rooms, (15, 9, 2)), (ClientKind::Personas, (10, 7, 0))]
    {
        let cost = stage.measure(kind, &format!("few-{kind:?}")).await;
        println!("{kind:?}, {USERS} of them, with 10 online: {cost:?}");
        assert_eq!(cost.each(), each, "{kind:?}: {cost:?}");
        few.push((kind, cost));
    }
    stage.fill(500).await;
    for (kind, few) in few {
        let many = stage.measure(kind, &format!("many-{kind:?}")).await;
        assert_eq!(many, few, "{kind:?} with 500 online, and with 10");
    }
}

#[tokio::test]
async fn presence_goes_only_to_listeners_of_the_same_conversation() {
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
