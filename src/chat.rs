//! Execution of commands. Only this module combines store, backplane and hub.
//!
//! Commands over sockets and over REST take the same path: [`Chat::begin`] starts a command and passes it to the part
//! that handles it. Reading order: `Chat::begin` here; `start` (the parts and their dependencies); `router` (the path
//! of an event); `budgets` and `repeats` (rate limits); `messages`, `journal` and `acks` (sends); `subscriptions`, `follows` and
//! `replay` (joins and resumes); `connections` and `presence`; `typing` and `events`. Tasks that run beside commands: `backplane_events`,
//! `notifications`, `rosters`, `relay`, `reconciler`, `retell`, `batch_loader`, `user_upserts`, `search_index`.

use std::{sync::Arc, time::Instant};

use futures_util::future::BoxFuture;

use crate::{
    degrade::{Degrade, Feature},
    metrics::Metrics,
    model::{Budget, Command, ConversationId, EntrySeq, Identity, PendingAck, Reject, Reply, Seq, SinceSeq, UserId},
    outbox::Frame,
    store::{MessagesPage, Store, StoreError},
};

mod acks;
mod answer_limits;
mod automatic;
mod backplane_events;
mod batch_loader;
mod blocks;
mod budgets;
mod command;
mod comparison;
mod connection;
mod connections;
mod conversations;
mod data_limits;
mod derived;
mod erasure;
mod events;
mod export;
mod follows;
mod heavy_reads;
mod hints;
mod initial_state;
mod journal;
mod kept;
mod members;
mod messages;
mod notifications;
mod parts;
mod personas;
mod places;
mod presence;
mod presence_check;
mod present;
mod reading;
mod reconciler;
mod relay;
mod repeats;
mod replay;
mod restriction_reader;
mod restrictions;
mod retell;
mod retention;
mod rights;
mod rosters;
mod router;
mod search_index;
mod shown;
mod source;
mod speakers;
mod split;
mod start;
mod statuses;
mod subscriptions;
mod sync;
mod ttl_cache;
mod typing;
mod typists;
mod user_upserts;

pub use command::{AckPlace, Begun, Caller, CommandReply};
pub use connection::Connection;
pub use initial_state::InitialState;
pub use parts::Parts;
pub use replay::Replay;

use acks::Acks;
use answer_limits::AnswerLimits;
use budgets::Budgets;
use connections::Connections;
use data_limits::DataLimits;
use events::Events;
use heavy_reads::HeavyReads;
use journal::Journal;
use kept::Kept;
use members::Members;
use notifications::{unconfirmed::Unconfirmed, watch::Watch};
use personas::Personas;
use presence::Presence;
use reconciler::Reconciler;
use restriction_reader::RestrictionReader;
use retell::Retell;
use router::Router;
use subscriptions::Subscriptions;
use typing::Typing;
use user_upserts::UserUpserts;

/// Executes commands.
pub struct Chat {
    store: Arc<dyn Store>,
    degrade: Arc<Degrade>,
    metrics: Arc<Metrics>,
    router: Arc<Router>,
    retell: Arc<Retell>,
    budgets: Arc<Budgets>,
    journal: Arc<Journal>,
    acks: Arc<Acks>,
    members: Arc<Members>,
    heavy_reads: HeavyReads,
    users: Arc<UserUpserts>,
    connections: Connections,
    subscriptions: Arc<Subscriptions>,
    presence: Arc<Presence>,
    typing: Arc<Typing>,
    events: Events,
    /// None if no persona is configured.
    personas: Option<Arc<Personas>>,
    unconfirmed: Arc<Unconfirmed>,
    watch: Arc<Watch>,
    /// Maximum number of users that a user may block.
    blocks_per_user: u32,
    data_limits: DataLimits,
    answer_limits: AnswerLimits,
    restriction_reader: RestrictionReader,
    reconciler: Arc<Reconciler>,
    kept: Kept,
}

impl Chat {
    /// Sets the epoch with which the store has started.
    pub fn begin_epoch(&self, epoch: i64) {
        self.reconciler.begin(epoch);
    }

    /// The epoch of the store: seqs of another one may have been assigned again.
    pub fn epoch(&self) -> i64 {
        self.reconciler.epoch()
    }

    /// Gives this node's first sign of life: what it acks from then on is notified also if it dies at once.
    ///
    /// # Errors
    /// The store did not take it.
    pub async fn begin_watch(&self) -> Result<(), StoreError> {
        self.watch.sign().await
    }

    /// Executes a command to its end.
    ///
    /// # Errors
    /// The command is refused, or a part that it needs is unavailable.
    pub async fn execute(self: &Arc<Self>, caller: Caller, command: Command) -> Result<Reply, Reject> {
        let answer = match self.clone().begin(caller, command).await {
            Begun::Done(answer) => answer,
            Begun::Pending(answer) => answer.await,
            Begun::Dropped(reject) => Err(reject),
        };
        answer.map(|answer| answer.reply)
    }

    /// The number of connections on this node.
    pub fn connections(&self) -> u64 {
        self.connections.count()
    }

    /// The number of operations that wait for delivery to this node's sockets.
    pub fn undelivered(&self) -> usize {
        self.router.undelivered()
    }

    /// Registers a connection: counts it against its user's caps on all nodes, and attaches it to the user's inbox.
    ///
    /// # Errors
    /// The user is at a cap, or the store is unavailable.
    pub async fn connect(&self, identity: &Identity, connection: &Arc<Connection>) -> Result<(), Reject> {
        self.connections.connect(identity, connection).await
    }

    /// Unregisters a connection: ends all its joins, and removes it from the counts.
    pub async fn disconnect(&self, identity: &Identity, connection: &Connection) {
        self.connections.disconnect(identity, connection).await;
    }

    /// Records that a connection's client is silent, or no longer; false if the connection gave way to another one of its
    /// user.
    pub async fn set_silent(&self, connection: &Connection, silent: bool) -> bool {
        self.connections.set_silent(connection, silent).await
    }

    /// Records a connection that ended without confirming what it was given since `confirmed_at`. If its user does not come
    /// back soon, the messages since then are notified.
    pub fn record_unconfirmed(&self, user: UserId, confirmed_at: tokio::time::Instant) {
        self.unconfirmed.add(user, confirmed_at);
    }

    /// Removes a connection from the registry of all nodes. For a connection whose registration or end panicked.
    pub async fn forget(&self, connection: &Connection) {
        self.connections.forget(connection).await;
    }

    /// Starts the joins of a registered connection that its route and its dialect require. `since` is the last seq that
    /// the client has of the conversation in its route.
    ///
    /// # Errors
    /// The user may not listen there, or the store is unavailable.
    pub async fn begin_listening(
        &self,
        identity: &Identity,
        connection: &Arc<Connection>,
        since: Option<Seq>,
    ) -> Result<InitialState, Reject> {
        self.subscriptions.begin_listening(identity, connection, since).await
    }

    /// The user, and the online users who share a conversation with the user.
    ///
    /// # Errors
    /// The store is unavailable.
    pub async fn acquaintances_online(&self, user: &UserId) -> Result<Vec<UserId>, Reject> {
        self.subscriptions.acquaintances_online(user).await
    }

    /// A number that changes whenever Redis may have lost users; `None` while the registry may lack some.
    pub fn registry_version(&self) -> Option<u64> {
        self.subscriptions.backplane.registry_version()
    }

    /// Sends a connection the entries that it missed of each log, one log after the other, at the speed at which the
    /// client reads. After that the connection is live.
    pub async fn replay(self: Arc<Self>, connection: Arc<Connection>, replays: Vec<Replay>) {
        self.subscriptions.replay(&connection, replays).await;
    }

    /// Leaves the automatic join of a conversation to a later hint. The client has every entry up to `since`.
    pub fn defer_join(&self, connection: &Arc<Connection>, conversation: &ConversationId, since: Seq) {
        self.subscriptions.defer_join(connection, conversation, since);
    }

    /// Begins a command, and charges it to the caller's budget. The sender's next command may begin once this returns.
    pub async fn begin(self: Arc<Self>, caller: Caller, command: Command) -> Begun {
        let (label, started) = (command.label(), Instant::now());
        let begun = match self.charge(&caller, &command).await {
            Ok(()) => self.dispatch(caller.clone(), command).await,
            Err(reject) => self.refuse(&caller, &command, reject).await,
        };
        let begun = self.acks.order(&caller, begun);
        self.count(label, started, begun)
    }

    /// Sends an [ack whose socket did not listen](AckPlace::Alone), whose `frame` the caller makes, unless the socket has joined
    /// the conversation since: then the returned answer has it once it has its place.
    pub fn send_alone(
        &self,
        connection: &Arc<Connection>,
        ack: Arc<PendingAck>,
        answer: CommandReply,
        frame: impl FnOnce(&Reply) -> Option<Frame>,
    ) -> Option<BoxFuture<'static, Result<CommandReply, Reject>>> {
        self.acks.send_alone(connection, ack, answer, frame)
    }

    /// Begins a command that a connection needs and its client did not ask for. It is not charged: what others do must
    /// not use up a user's budget.
    pub async fn begin_unasked(self: Arc<Self>, caller: Caller, command: Command) -> Begun {
        let (label, started) = (command.label(), Instant::now());
        let begun = self.dispatch(caller, command).await;
        self.count(label, started, begun)
    }

    async fn charge(&self, caller: &Caller, command: &Command) -> Result<(), Reject> {
        self.data_limits.check(command)?;
        let Some(cost) = command.cost() else { return Ok(()) };
        if cost.budget == Budget::Send {
            // A message that can't be stored now doesn't count.
            self.require_feature(Feature::Append)?;
        }
        self.budgets.charge(&caller.identity, cost).await
    }

    /// Handles a command that was not admitted. A repeat gets its stored answer. A typing indicator is dropped, because
    /// its sender need not know.
    async fn refuse(&self, caller: &Caller, command: &Command, reject: Reject) -> Begun {
        let (Some(cost), Reject::RateLimited { .. }) = (command.cost(), &reject) else {
            return Begun::Done(Err(reject));
        };
        if let Some(answer) = self.recall(caller, command).await {
            return answer;
        }
        self.budgets.count_refusal(cost.budget);
        if matches!(command, Command::Typing { .. }) { Begun::Dropped(reject) } else { Begun::Done(Err(reject)) }
    }

    /// Counts the result of a command.
    fn count(self: Arc<Self>, label: &'static str, started: Instant, begun: Begun) -> Begun {
        match begun {
            Begun::Dropped(reject) => {
                self.metrics.commands.with_label_values(&[label, reject.code()]).inc();
                Begun::Dropped(reject)
            }
            Begun::Done(answer) => {
                self.count_result(label, &answer);
                Begun::Done(answer)
            }
            Begun::Pending(answer) => Begun::Pending(Box::pin(async move {
                let answer = answer.await;
                self.count_result(label, &answer);
                if answer.is_ok() {
                    self.metrics.send_seconds.observe(started.elapsed().as_secs_f64());
                }
                answer
            })),
        }
    }

    fn count_result(&self, label: &str, answer: &Result<CommandReply, Reject>) {
        let result = answer.as_ref().map_or_else(Reject::code, |_| "ok");
        self.metrics.commands.with_label_values(&[label, result]).inc();
    }

    async fn dispatch(&self, caller: Caller, command: Command) -> Begun {
        let identity = caller.identity.clone();
        let _heavy_read = match command.is_heavy_read() {
            true => match self.heavy_reads.begin(&identity.user).await {
                Ok(heavy_read) => Some(heavy_read),
                Err(reject) => return Begun::Done(Err(reject)),
            },
            false => None,
        };
        if let Err(reject) = self.require_right(&caller, &command).await {
            return Begun::Done(Err(reject));
        }
        let done = match command {
            Command::Send(message) => return self.send(caller, message).await,
            Command::Edit { conversation, target, content, data, client_id } => {
                return self.edit(&caller, &conversation, target.get(), (content, data), client_id);
            }
            Command::Delete { conversation, target, client_id } => {
                return self.delete(&caller, &conversation, target.get(), client_id);
            }
            Command::React { conversation, target, emoji, active, client_id } => {
                return self.react(&caller, &conversation, target.get(), emoji, active, client_id);
            }
            Command::Join { conversation, since, roster, automatic: false } => {
                self.subscriptions.join(&caller, &conversation, since.map(SinceSeq::get), roster).await
            }
            Command::Join { conversation, since, automatic: true, .. } => {
                self.subscriptions.join_automatically(&caller, &conversation, since.map(SinceSeq::get)).await
            }
            Command::Leave { conversation } => {
                self.subscriptions.leave(&caller, &conversation).await.map(CommandReply::from)
            }
            Command::Sync { cursors, roster } => self.subscriptions.sync(&caller, cursors, roster).await,
            Command::Event(event) => self.events.send(&caller, event).await,
            Command::Typing { conversation, active } => {
                Ok(self.typing.set_typing(&caller, &conversation, active).await)
            }
            Command::Read { conversation, delivered, read } => {
                let (delivered, read) = (delivered.map(EntrySeq::get), read.map(EntrySeq::get));
                self.read(&caller, &conversation, delivered, read).await
            }
            Command::Presence { users } => self.presence.query(users.into()).await,
            Command::SetStatus { status } => self.presence.set_status(&caller, status).await,
            Command::History { conversation, range, thread, page } => {
                let thread = thread.map(EntrySeq::get);
                self.history(&caller, conversation, MessagesPage { range, thread, page }).await
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
            Command::Block { user, blocked } => self.block(&caller, &user, blocked).await,
            Command::Blocks => self.blocks(&caller).await,
            Command::Notifications { page } => self.notifications(&caller, page).await,
            Command::ReadNotifications { ids } => self.read_notifications(&caller, ids).await,
            Command::Online { cursor, limit } => Ok(self.presence.online(cursor, limit).await),
            Command::Connections => Ok(self.connections.connections_of(&caller.identity.user).await),
            of_admins => self.administer(&caller, of_admins).await,
        };
        Begun::Done(done)
    }

    /// Executes a command that only admins may send.
    async fn administer(&self, caller: &Caller, command: Command) -> Result<CommandReply, Reject> {
        match command {
            Command::ConnectionsOf { user } => Ok(self.connections.connections_of(&user).await),
            Command::ConversationsOf { user, archived, page } => {
                self.conversations_of(caller, &user, archived, page).await
            }
            Command::Entries { conversation, range, limit } => self.entries(&conversation, range, limit).await,
            Command::Retention { conversation } => self.retention(&conversation).await,
            Command::SetRetention { conversation, days } => self.set_retention(&conversation, days).await,
            Command::Export { user, cursor } => self.export(&user, cursor).await,
            Command::Erase { user } => self.erase_user(caller, &user).await,
            Command::ShowErasure { user } => self.erasure(&user).await,
            Command::Stats => Ok(self.connections.stats().await),
            Command::Restrict { user, request } => self.restrict(caller, &user, request).await,
            Command::ShowBlock { user } => self.show_block(&user).await,
            Command::BlockedUsers { page } => self.blocked_users(page).await,
            _ => Err(Reject::Unsupported("This is no command of admins")),
        }
    }

    /// Rejects the command if `feature` is unavailable in the current degraded mode.
    fn require_feature(&self, feature: Feature) -> Result<(), Reject> {
        command::require_feature(&self.degrade, feature)
    }
}
