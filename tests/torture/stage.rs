//! A small cluster with sockets that do what a scenario tells them, recorded like all others.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::{sync::mpsc, time::sleep};

use crate::{
    cluster::{Cluster, Defects},
    ear::Ear,
    evidence::{Evidence, Shown},
    history::{About, Dialect, Kind, Name, Recorder, Session, What},
    operations::{Operation, Operations, To},
    rest::{Outcome, Rest},
    run::until,
    socket::{Opened, Socket},
    wire::{self, Heard},
};

/// Maximum time for a step; a broken node may never come to it.
pub const STEP: Duration = Duration::from_secs(8);

/// The cluster of a scenario.
pub struct Stage {
    pub cluster: Cluster,
    pub recorder: Recorder,
    pub rest: Rest,
    users: Mutex<Vec<Name>>,
    kept: Mutex<Vec<Puppet>>,
    shown: Mutex<Vec<Shown>>,
}

/// A socket that does what it is told.
pub struct Puppet {
    ear: Arc<Mutex<Ear>>,
    frames: mpsc::Sender<Value>,
    operations: Operations,
    rng: rand::rngs::StdRng,
}

impl Stage {
    /// Starts two nodes.
    pub async fn set(defects: Defects) -> Self {
        let cluster = Cluster::small(defects).await;
        let rest = Rest::new(cluster.addresses.clone());
        Self {
            cluster,
            recorder: Recorder::new(),
            rest,
            users: Mutex::default(),
            kept: Mutex::default(),
            shown: Mutex::default(),
        }
    }

    /// Keeps sockets open until the end: the evidence counts what an open socket lacks.
    pub fn keep(&self, puppets: impl IntoIterator<Item = Puppet>) {
        self.kept.lock().unwrap().extend(puppets);
    }

    /// Number of a new client of this user.
    fn client(&self, user: &str) -> usize {
        let mut users = self.users.lock().unwrap();
        users.push(user.into());
        users.len() - 1
    }

    /// Opens a socket; `Err` if the node refuses it.
    pub async fn open(
        &self,
        user: &str,
        dialect: Dialect,
        node: usize,
        bound: Option<&Name>,
    ) -> Result<Puppet, String> {
        let number = self.client(user);
        let mut ear = Ear::new(self.recorder.clone(), number, dialect);
        ear.bound = bound.cloned();
        let address = self.cluster.addresses[node];
        let url = wire::url(dialect, address, user, bound.map(|bound| (bound.clone(), None)).as_ref());
        let asked = self.recorder.now();
        let opened = Socket::open(address, &url, |frame| wire::is_greeting(dialect, frame)).await;
        let (socket, greeting, early) = match opened {
            Opened::Greeted { socket, greeting, early } => (socket, greeting, early),
            Opened::Refused(why) => return Err(why),
            Opened::Down => return Err("the node is down".into()),
        };
        ear.open(node, asked, None, &early);
        ear.hear(&greeting);
        let (ear, (frames, orders)) = (Arc::new(Mutex::new(ear)), mpsc::channel(16));
        tokio::spawn(act(*socket, ear.clone(), orders));
        let rng = rand::SeedableRng::seed_from_u64(number as u64);
        Ok(Puppet { ear, frames, operations: Operations::new(user.into(), number), rng })
    }

    /// Opens a native socket.
    pub async fn native(&self, user: &str, node: usize) -> Puppet {
        self.open(user, Dialect::Native, node, None).await.expect("the node greets")
    }

    /// Makes a group over REST, as its first member.
    pub async fn group(&self, members: &[&str]) -> Name {
        let members: Vec<Name> = members.iter().map(|member| (*member).into()).collect();
        let body = json!({ "name": "scene", "is_group": true, "participant_ids": members[1..] });
        let made = self.rest.call(0, &members[0], Method::POST, "/api/chat/conversations", Some(body)).await;
        let Outcome::Done { body, .. } = made else { panic!("no group: {made:?}") };
        body["id"].as_str().expect("it has an id").into()
    }

    /// Does a change over REST until it is acked.
    pub async fn change(&self, node: usize, user: &str, conversation: &Name, kind: Kind, about: About) {
        let number = self.client(user);
        let session = Some(Session { client: number, number: 1 });
        let change =
            Operations::new(user.into(), number).change(To::Conversation(conversation.clone()), kind, about, "");
        loop {
            self.recorder.record(session, invoked(&change));
            let id = change.id.clone();
            match self.rest.operation(node, user, &change).await {
                Outcome::Done { .. } => return self.recorder.record(session, What::Done { id }),
                Outcome::Unknown => self.recorder.record(session, What::Unknown { id }),
                Outcome::Refused { code, retryable } => {
                    assert!(retryable, "{kind:?} was refused: {code}");
                    self.recorder.record(session, What::Fail { id, code, last: false });
                }
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Reads a conversation over REST, and records what a user sees.
    pub async fn read(&self, node: usize, user: &str, conversation: &Name) {
        let session = Session { client: self.client(user), number: 1 };
        self.rest.read(&self.recorder, session, node, &user.into(), conversation).await;
    }

    /// Polls until a condition holds, up to [`STEP`].
    pub async fn until(&self, holds: impl Fn() -> bool) -> bool {
        until(STEP, async || holds()).await
    }

    /// Compares what a socket was shown of users who are in a conversation and of some who are not.
    pub fn shown(&self, puppet: &Puppet, conversation: &Name, here: &[&str], gone: &[&str]) {
        let ear = puppet.ear.lock().unwrap();
        let shown = |user: &&&str| ear.shown.get(&(conversation.to_string(), Name::from(**user))).copied();
        let all = || here.iter().chain(gone);
        let names = |users: Vec<&&str>| users.into_iter().map(|user| Name::from(*user)).collect();
        // Users who came while the socket listened and were never shown are missing.
        let never = here.iter().filter(|user| shown(user).is_none() && **user != here[0]);
        let absent = all().filter(|user| shown(user) == Some(false)).chain(never);
        self.shown.lock().unwrap().push(Shown {
            session: ear.session,
            place: conversation.to_string(),
            present: names(all().filter(|user| shown(user) == Some(true)).collect()),
            absent: names(absent.collect()),
            complete: false,
            truth: names(here.iter().collect()),
        });
    }

    /// The evidence so far.
    pub async fn evidence(&self) -> Evidence {
        let store = self.cluster.logs().await;
        Evidence {
            users: self.users.lock().unwrap().clone(),
            history: self.recorder.history(),
            store,
            shown: std::mem::take(&mut self.shown.lock().unwrap()),
            delivered_within: Duration::from_secs(30),
            ..Evidence::default()
        }
    }
}

impl Puppet {
    /// Asks to join a conversation.
    pub async fn join(&self, conversation: &Name, since: Option<i64>) {
        let dialect = {
            let mut ear = self.ear.lock().unwrap();
            ear.asked_to_join(conversation, since);
            ear.dialect
        };
        self.tell(wire::join(dialect, conversation, since)).await;
    }

    /// Sends a frame.
    pub async fn tell(&self, frame: Value) {
        self.frames.send(frame).await.expect("the socket is open");
    }

    /// Begins a message.
    pub async fn begin(&mut self, to: To) {
        let message = self.operations.message(&mut self.rng, to);
        let frame = {
            let ear = self.ear.lock().unwrap();
            ear.record(invoked(&message));
            wire::operation(ear.dialect, &message).expect("the dialect has messages")
        };
        self.tell(frame).await;
    }

    /// True if it listens to a conversation.
    pub fn listens(&self, conversation: &Name) -> bool {
        self.ear.lock().unwrap().listening.contains(conversation)
    }

    /// Notes that the socket must get every entry of a new direct conversation, because it writes there first.
    pub fn awaits_new_direct(&self, conversation: &Name) {
        self.ear.lock().unwrap().awaits_new_direct(conversation);
    }

    /// The conversations to which it listens.
    pub fn listening(&self) -> Vec<Name> {
        self.ear.lock().unwrap().listening.iter().cloned().collect()
    }

    /// True if it was told of a conversation to which its user was added.
    pub fn was_added(&self) -> bool {
        self.ear.lock().unwrap().was_added()
    }

    /// True if a user was last shown as present in a conversation, false if as absent.
    pub fn is_shown(&self, conversation: &Name, user: &str) -> Option<bool> {
        self.ear.lock().unwrap().shown.get(&(conversation.to_string(), user.into())).copied()
    }

    /// The seq up to which it has a conversation.
    pub fn has(&self, conversation: &Name) -> i64 {
        self.ear.lock().unwrap().has(conversation).unwrap_or(0)
    }
}

/// Reads and writes a socket until it ends or its puppet is dropped.
async fn act(mut socket: Socket, ear: Arc<Mutex<Ear>>, mut orders: mpsc::Receiver<Value>) {
    let why = loop {
        tokio::select! {
            frame = socket.next() => match frame {
                Ok(Some(frame)) => hear(&mut ear.lock().unwrap(), &frame),
                Ok(None) => {}
                Err(why) => break why,
            },
            order = orders.recv() => {
                let Some(frame) = order else { break "the scene ends".into() };
                if let Err(why) = socket.send(&frame).await {
                    break why;
                }
            }
        }
    };
    ear.lock().unwrap().record(What::Close { why });
}

fn hear(ear: &mut Ear, frame: &Value) {
    for heard in ear.hear(frame) {
        match heard {
            Heard::Acked { id, conversation, seq, duplicate } => {
                ear.record(What::Ok { conversation, id, seq, duplicate });
            }
            Heard::Unchanged { id } => ear.record(What::Done { id }),
            Heard::Refused { id, code } => ear.record(What::Fail { id, code, last: true }),
            _ => {}
        }
    }
}

fn invoked(operation: &Operation) -> What {
    let (conversation, id, about) = (operation.to.label(), operation.id.clone(), operation.about.clone());
    What::Invoke { conversation, id, kind: operation.kind, about }
}
