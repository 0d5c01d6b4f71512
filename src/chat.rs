//! What commands do: the one place that combines store, backplane and hub.
//!
//! A command takes the same way whether it came over a socket or over REST. Reading order: `execute` here, then
//! `messages` (sending), `listening` (joins and resume), `conversations`, `presence`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::future::BoxFuture;
use tokio::sync::{Notify, mpsc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    backplane::{Backplane, Notice},
    config::Config,
    degrade::{Degrade, Feature, Mode},
    hub::Hub,
    metrics::Metrics,
    model::{
        Clock, Command, ConnectionId, ConversationId, Entry, EntrySeq, Ephemeral, Event, Identity, LogId, Occurrence,
        Pair, Reject, Reply, SinceSeq, Status, UserId,
    },
    store::{Committed, MessagesPage, Store, StoreError, Writer, WriterSettings},
    webhook::{Queue, Queued, Webhook, Webhooks},
};

mod audience;
mod away;
mod beginning;
mod connection;
mod conversations;
mod fanout;
mod healing;
mod known;
mod listening;
mod messages;
mod newcomers;
mod overview;
mod personas;
mod presence;
mod questions;
mod rights;
mod source;
mod typing;

pub use beginning::Beginning;
pub use connection::Connection;
pub use listening::Replay;

use away::{Notified, Untold};
use fanout::Fanout;
use known::Known;
use newcomers::Newcomer;
use source::Entries;
use typing::Typists;

/// How long a membership that was read may be trusted.
const MEMBERSHIP_TTL: Duration = Duration::from_secs(5);
/// How long a status that was read may be trusted.
const STATUS_TTL: Duration = Duration::from_secs(5);
/// How long a user that was made known is not made known again.
const USER_TTL: Duration = Duration::from_secs(3_600);
/// Memberships, users and pairs remembered, each.
const KNOWN_MAX: usize = 50_000;

/// Who is a member where, as it was read a moment ago.
type Memberships = Known<(ConversationId, UserId), ()>;

/// Who asks.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Who they are.
    pub identity: Arc<Identity>,
    /// The socket they ask over; none over REST.
    pub connection: Option<Arc<Connection>>,
}

/// What a command came to: the reply, and what is to be replayed after it.
#[derive(Debug)]
pub struct Answer {
    /// What to say.
    pub reply: Reply,
    /// What to replay to the connection once that was said.
    pub replays: Vec<Replay>,
}

impl From<Reply> for Answer {
    fn from(reply: Reply) -> Self {
        Self { reply, replays: Vec::new() }
    }
}

/// A command that was begun: its place in the order of its sender's commands is taken.
pub enum Begun {
    /// It is done.
    Done(Result<Answer, Reject>),
    /// It waits for the store; the sender's next command may begin.
    Pending(BoxFuture<'static, Result<Answer, Reject>>),
}

/// The chat: carries out commands.
pub struct Chat {
    config: Arc<Config>,
    store: Arc<dyn Store>,
    writer: Writer,
    /// What the nodes share.
    pub backplane: Arc<Backplane>,
    hub: Arc<Hub>,
    fanout: Arc<Fanout>,
    degrade: Arc<Degrade>,
    metrics: Arc<Metrics>,
    clock: Clock,
    tasks: TaskTracker,
    stop: CancellationToken,
    memberships: Arc<Memberships>,
    users: Known<UserId, Arc<str>>,
    pairs: Known<Pair, ConversationId>,
    statuses: Known<UserId, Status>,
    audiences: mpsc::Sender<audience::News>,
    typists: Typists,
    newcomers: mpsc::Sender<Newcomer>,
    questions: mpsc::Sender<questions::Question>,
    personas: Option<Queue<personas::Question>>,
    untold: Arc<Untold>,
    notified: Option<Queue<Notified>>,
    connections: AtomicU64,
    catching_up: Notify,
}

/// What a chat is built from.
pub struct Parts {
    /// The node's settings.
    pub config: Arc<Config>,
    /// What lasts.
    pub store: Arc<dyn Store>,
    /// What the nodes share, and what it tells.
    pub backplane: (Arc<Backplane>, mpsc::Receiver<Notice>),
    /// Where personas answer, and where notifications go.
    pub webhooks: Webhooks,
    /// The node's state.
    pub degrade: Arc<Degrade>,
    /// The node's metrics.
    pub metrics: Arc<Metrics>,
    /// The time.
    pub clock: Clock,
    /// Where its tasks run.
    pub tasks: TaskTracker,
    /// Ends them.
    pub stop: CancellationToken,
}

impl Chat {
    /// Builds hub and writer over the given parts, and starts what runs beside commands.
    pub fn start(parts: Parts) -> Arc<Self> {
        let Parts { config, store, backplane: (backplane, notices), webhooks, degrade, metrics, clock, tasks, stop } =
            parts;
        let source = Arc::new(Entries { store: store.clone(), backplane: backplane.clone() });
        let shards = std::thread::available_parallelism().map_or(1, usize::from);
        let hub = Hub::start(shards, source, metrics.clone(), clock.clone(), tasks.clone(), stop.clone());
        let memberships = Arc::new(Known::new(MEMBERSHIP_TTL, KNOWN_MAX));
        let fanout = Arc::new(Fanout::new(hub.clone(), backplane.clone(), degrade.clone()));
        let untold = Arc::new(Untold::new(config.notifications.queue, metrics.clone()));
        let committed = {
            let (fanout, memberships, untold) = (fanout.clone(), memberships.clone(), untold.clone());
            move |entries: Vec<Committed>| {
                untold.note(&entries);
                let event = |Committed { entry, origin }| Event::Entry { entry, origin };
                let events: Vec<_> = entries.into_iter().map(event).collect();
                conversations::forget_removed_members(&memberships, &events);
                fanout.spread(events);
            }
        };
        let settings = WriterSettings { lanes: config.store.lanes, ..WriterSettings::default() };
        let (m, d) = (metrics.clone(), degrade.clone());
        let writer = Writer::start(store.clone(), settings, m, d, committed, &tasks, stop.clone());
        let (newcomers, questions) = (mpsc::channel(newcomers::QUEUE), mpsc::channel(questions::QUEUE));
        let audiences = mpsc::channel(audience::QUEUE);
        let (personas, to_personas) = webhooks.persona.map(with_queue).unzip();
        let (notified, to_notify) = webhooks.notification.map(with_queue).unzip();
        let chat = Arc::new(Self {
            memberships,
            users: Known::new(USER_TTL, KNOWN_MAX),
            pairs: Known::new(USER_TTL, KNOWN_MAX),
            typists: Typists::new(config.timing.typing_timeout),
            newcomers: newcomers.0,
            questions: questions.0,
            statuses: Known::new(STATUS_TTL, KNOWN_MAX),
            audiences: audiences.0,
            personas,
            untold,
            notified,
            connections: AtomicU64::new(0),
            catching_up: Notify::new(),
            config,
            store,
            writer,
            backplane,
            hub,
            fanout,
            degrade,
            metrics,
            clock,
            tasks,
            stop,
        });
        chat.spawn(chat.clone().listen_to_backplane(notices));
        chat.spawn(chat.clone().keep_catching_up());
        chat.spawn(chat.clone().catch_up_after_outages());
        chat.spawn(chat.clone().give_notices());
        chat.spawn(chat.clone().read_notices());
        chat.spawn(chat.clone().expire_typing());
        chat.spawn(chat.clone().note_newcomers(newcomers.1));
        chat.spawn(chat.clone().answer_questions(questions.1));
        chat.spawn(chat.clone().tell_audiences(audiences.1));
        chat.spawn(chat.clone().tell_those_away());
        if let Some((webhook, questions)) = to_personas {
            chat.spawn(chat.clone().ask_personas(webhook, questions));
        }
        if let Some((webhook, notified)) = to_notify {
            chat.spawn(chat.clone().post_notifications(webhook, notified));
        }
        chat
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move { stop.run_until_cancelled(task).await });
    }

    /// Carries out a command to its end.
    ///
    /// # Errors
    /// Why it was refused.
    pub async fn execute(self: &Arc<Self>, caller: Caller, command: Command) -> Result<Reply, Reject> {
        let answer = match self.clone().begin(caller, command).await {
            Begun::Done(answer) => answer,
            Begun::Pending(answer) => answer.await,
        };
        answer.map(|answer| answer.reply)
    }

    /// How many connections this node holds.
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// How many operations wait to be delivered to this node's sockets.
    pub fn undelivered(&self) -> usize {
        self.hub.queued()
    }

    /// Begins a command. A sender's next command may begin once this returned.
    pub async fn begin(self: Arc<Self>, caller: Caller, command: Command) -> Begun {
        let (label, started) = (command.label(), Instant::now());
        let begun = self.dispatch(caller, command).await;
        match begun {
            Begun::Done(answer) => {
                self.count(label, &answer);
                Begun::Done(answer)
            }
            Begun::Pending(answer) => Begun::Pending(Box::pin(async move {
                let answer = answer.await;
                self.count(label, &answer);
                if answer.is_ok() {
                    self.metrics.send_seconds.observe(started.elapsed().as_secs_f64());
                }
                answer
            })),
        }
    }

    fn count(&self, label: &str, answer: &Result<Answer, Reject>) {
        let result = answer.as_ref().map_or_else(Reject::code, |_| "ok");
        self.metrics.commands.with_label_values(&[label, result]).inc();
    }

    async fn dispatch(self: &Arc<Self>, caller: Caller, command: Command) -> Begun {
        if let Err(reject) = self.must_have(&caller, command.right()).await {
            return Begun::Done(Err(reject));
        }
        let done = match command {
            Command::Send(message) => return self.send(caller, message).await,
            Command::Edit { conversation, target, content, client_id } => {
                return self.edit(&caller, &conversation, target.get(), content, client_id);
            }
            Command::Delete { conversation, target, client_id } => {
                return self.delete(&caller, &conversation, target.get(), client_id);
            }
            Command::React { conversation, target, emoji, active, client_id } => {
                return self.react(&caller, &conversation, target.get(), emoji, active, client_id);
            }
            Command::Join { conversation, since } => self.join(&caller, &conversation, since.map(SinceSeq::get)).await,
            Command::Leave { conversation } => self.leave(&caller, &conversation).await.map(Answer::from),
            Command::Sync { cursors } => {
                self.sync(&caller, cursors.into_iter().map(|(id, since)| (id, since.get())).collect()).await
            }
            Command::Typing { conversation, active } => Ok(self.typing(&caller, &conversation, active)),
            Command::Read { conversation, delivered, read } => {
                let (delivered, read) = (delivered.map(EntrySeq::get), read.map(EntrySeq::get));
                self.read(&caller, &conversation, delivered, read).await
            }
            Command::Presence { users } => self.presence(users.into()).await,
            Command::SetStatus { status } => self.set_status(&caller, status).await,
            Command::History { conversation, before, thread, page } => {
                let (before, thread) = (before.map(EntrySeq::get), thread.map(EntrySeq::get));
                self.history(&caller, conversation, MessagesPage { before, thread, page }).await
            }
            Command::Show { conversation, target } => self.show(&caller, &conversation, target.get()).await,
            Command::Search { terms, conversation, page } => self.search(&caller, &terms, conversation, page).await,
            Command::Ping => Ok(Reply::Pong.into()),
            Command::Create(new) => self.create(&caller, new).await,
            Command::Conversations { archived, page } => self.conversations(&caller, archived, page).await,
            Command::Archive { conversation, archived } => self.archive(&caller, &conversation, archived).await,
            Command::Describe { conversation } => self.describe(&caller, &conversation).await,
            Command::AddMembers { conversation, users } => self.add_members(&caller, &conversation, users).await,
            Command::RemoveMember { conversation, user } => self.remove_member(&caller, &conversation, user).await,
            Command::Notifications { page } => self.notifications(&caller, page).await,
            Command::ReadNotifications { ids } => self.read_notifications(&caller, ids).await,
            Command::Online { cursor, limit } => Ok(self.online(cursor, limit).await),
            Command::Connections => Ok(self.connections_of(&caller).await),
            Command::Stats => Ok(self.stats().await),
        };
        Begun::Done(done)
    }

    /// Delivers here and publishes to other nodes.
    fn spread(&self, events: Vec<Event>) {
        self.note_audiences(&events);
        self.fanout.spread(events);
    }

    /// Tells a log's audience, on all nodes, what just happened.
    fn tell(&self, log: &LogId, origin: Option<ConnectionId>, what: impl IntoIterator<Item = Ephemeral>) {
        let at = self.clock.now();
        let event =
            |what| Event::Occurrence { occurrence: Arc::new(Occurrence { log: log.clone(), at, what }), origin };
        self.spread(what.into_iter().map(event).collect());
    }

    /// Spreads entries that came into being outside the writer's lanes.
    fn spread_entries(&self, entries: Vec<Entry>) {
        let event = |entry| Event::Entry { entry: Arc::new(entry), origin: None };
        self.spread(entries.into_iter().map(event).collect());
    }

    /// Refuses what needs the store while it is down.
    fn needs(&self, feature: Feature) -> Result<(), Reject> {
        match self.degrade.mode(feature) {
            Mode::Refused => Err(Reject::Unavailable),
            Mode::Shared | Mode::Relayed | Mode::Local => Ok(()),
        }
    }

    /// Takes what the backplane tells.
    async fn listen_to_backplane(self: Arc<Self>, mut notices: mpsc::Receiver<Notice>) {
        while let Some(notice) = notices.recv().await {
            match notice {
                Notice::Events(events) => {
                    conversations::forget_removed_members(&self.memberships, &events);
                    self.note_audiences(&events);
                    self.hub.apply(events);
                }
                Notice::Missed => self.catch_up(),
                Notice::Departed(departure) => self.departed(departure).await,
                Notice::Returned(returned) => self.returned(returned).await,
            }
        }
    }
}

/// A webhook's queue, and what works it off.
fn with_queue<J>(webhook: Webhook) -> (Queue<J>, (Webhook, Queued<J>)) {
    let (queue, queued) = webhook.queue();
    (queue, (webhook, queued))
}

/// What a client hears when the store could not be asked.
fn unavailable(error: &StoreError) -> Reject {
    tracing::warn!(%error, "the store did not answer");
    Reject::Unavailable
}
