//! The registry: every connection of every node, kept per user in one hash, so that one script on one key decides who
//! is first, last, or one too many. This node's own share is kept in [`Local`] first; what Redis could not be told then
//! is told later.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use redis::Pipeline;
use serde::Serialize;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, interval, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    era::Era,
    incarnation::Incarnation,
    keys,
    lease::Lease,
    line::{Line, parse_lines},
    link::{Link, LinkError, Replies},
    local::{Caps, Held, Local, Share},
    ops::Op,
    scripts::{CLAIM, LISTEN, PART, REGISTER, SYNC},
    types::{Listening, Notice, Registration, Return, Scope, TooMany},
};
use crate::model::{Clock, ConnectionId, ConversationId, NodeId, Timestamp, UserId};

/// How long what Redis holds of a user outlives its last renewal, in seconds.
pub(super) const ENTRY_TTL: u64 = 3_600;
/// Between two renewals of what is held.
const RENEW_EVERY: Duration = Duration::from_secs(1_800);
/// Between two looks at what has to be repaired.
const REPAIR_EVERY: Duration = Duration::from_secs(1);
/// Users per pipeline when many are told, and the pause between two.
const BATCH: usize = 100;
const PACE: Duration = Duration::from_millis(5);
/// Users whose repair is remembered; beyond that the lease of this node's former life cleans up.
const SOILED_MAX: usize = 100_000;
/// When somebody looks after a due time: later than the script's own, whatever the clocks' small differences.
const LOOK_LATER: i64 = 200_000;

/// What `ws:user:{id}` says.
#[derive(Serialize)]
struct Summary<'a> {
    connected_at: Timestamp,
    last_seen: Timestamp,
    server_id: &'a NodeId,
}

/// What `sync.lua` says of a user.
#[derive(Debug)]
pub(super) struct Synced {
    pub(super) was_online: bool,
    pub(super) removed: u64,
    lines: Vec<Line>,
    begun: Vec<ConversationId>,
}

/// The registry.
pub(super) struct Registry {
    link: Arc<Link>,
    lease: Arc<Lease>,
    local: Arc<Local>,
    caps: Caps,
    grace: Duration,
    clock: Clock,
    /// Users of whom Redis may hold something else than this node; true where a departure was told meanwhile.
    soiled: Mutex<HashMap<UserId, bool>>,
}

impl Registry {
    /// An empty one.
    pub(super) fn new(
        link: Arc<Link>,
        lease: Arc<Lease>,
        local: Arc<Local>,
        caps: Caps,
        grace: Duration,
        clock: Clock,
    ) -> Self {
        Self { link, lease, local, caps, grace, clock, soiled: Mutex::default() }
    }

    /// Adds a connection; true where its user thereby came online.
    pub(super) async fn register(&self, new: &Registration) -> Result<bool, TooMany> {
        let first_here = self.local.register(new)?;
        let (user, me) = (&new.user, self.lease.me());
        let mut pipeline = Pipeline::new();
        pipeline.cmd("SADD").arg(keys::node_users(&me)).arg(user.as_str());
        let id = new.connection.to_string();
        let call = REGISTER.call(&mut pipeline, &keys::entry(user));
        call.arg(id).arg(me.as_str()).arg(new.connected_at.micros()).arg(scope(&new.scope)).arg(&*new.name);
        call.arg(self.caps.connections).arg(self.caps.sockets).arg(ENTRY_TTL);
        for (node, doubt) in self.lease.doubtful() {
            call.arg(node.as_str()).arg(doubt.as_str());
        }
        let newest = Line { id: new.connection, holder: me.clone(), since: new.connected_at };
        self.summarize(&mut pipeline, user, &[newest]);
        pipeline.cmd("SADD").arg(keys::ONLINE).arg(user.as_str());

        let asked = self.link.run(Op::Register, user.as_str(), &pipeline).await;
        match asked.and_then(|mut replies| replies.take(1)) {
            Ok((true, first)) => {
                self.soil_if(user, me != self.lease.me());
                Ok(first)
            }
            Ok((false, perhaps)) => {
                self.local.unregister(new.connection);
                self.soil(user, false);
                Err(TooMany { perhaps })
            }
            Err(_) => {
                self.soil(user, false);
                Ok(first_here)
            }
        }
    }

    /// Removes a connection with all its listening.
    pub(super) async fn unregister(&self, connection: ConnectionId) {
        let Some(gone) = self.local.unregister(connection) else { return };
        let (user, me) = (&gone.user, self.lease.me());
        let mut pipeline = Pipeline::new();
        self.look_later(&mut pipeline, user);
        let call = PART.call(&mut pipeline, &keys::entry(user)).arg(connection.to_string()).arg(1);
        call.arg(micros(self.grace));
        for room in &gone.rooms {
            call.arg(room.as_str());
        }
        if gone.last {
            pipeline.cmd("SREM").arg(keys::node_users(&me)).arg(user.as_str());
        }
        let asked = self.link.run(Op::Unregister, user.as_str(), &pipeline).await;
        match asked.and_then(|mut replies| replies.take::<String>(1)) {
            Ok(lines) => {
                // Had the user come back meanwhile, the SREM may have overtaken the new SADD.
                let back = gone.last && self.local.version(user).is_some();
                self.soil_if(user, back || me != self.lease.me());
                let lines = parse_lines(&lines);
                if !lines.is_empty() {
                    let mut pipeline = Pipeline::new();
                    self.summarize(&mut pipeline, user, &lines);
                    // A view for operators; the half-hourly renewal writes it again.
                    let _ = self.link.run(Op::Unregister, user.as_str(), &pipeline).await;
                }
            }
            Err(_) => self.soil(user, false),
        }
    }

    /// Notes that a connection listens.
    pub(super) async fn listen(&self, connection: ConnectionId, conversation: &ConversationId) -> Listening {
        let Some((user, first_here)) = self.local.listen(connection, conversation) else {
            return Listening { first: false };
        };
        let mut pipeline = Pipeline::new();
        LISTEN.call(&mut pipeline, &keys::entry(&user)).arg(connection.to_string()).arg(conversation.as_str());
        add_listener(&mut pipeline, conversation, &user);
        let asked = self.link.run(Op::Listen, user.as_str(), &pipeline).await;
        let first = match asked.and_then(|mut replies| replies.take::<i64>(0)) {
            Ok(answer @ (0 | 1)) => answer == 1,
            Ok(_) | Err(_) => {
                self.soil(&user, false);
                first_here
            }
        };
        Listening { first }
    }

    /// Notes that a connection no longer listens.
    pub(super) async fn unlisten(&self, connection: ConnectionId, conversation: &ConversationId) {
        let Some(user) = self.local.unlisten(connection, conversation) else { return };
        let mut pipeline = Pipeline::new();
        self.look_later(&mut pipeline, &user);
        let call = PART.call(&mut pipeline, &keys::entry(&user)).arg(connection.to_string()).arg(0);
        call.arg(micros(self.grace)).arg(conversation.as_str());
        let asked = self.link.run(Op::Unlisten, user.as_str(), &pipeline).await;
        self.soil_if(&user, asked.and_then(|mut replies| replies.take::<String>(1)).is_err());
    }

    /// Somebody's departure was told from what this node knows: Redis is not to have it told again.
    pub(super) fn told(&self, user: &UserId) {
        self.soil(user, true);
    }

    fn soil_if(&self, user: &UserId, yes: bool) {
        if yes {
            self.soil(user, false);
        }
    }

    fn soil(&self, user: &UserId, told: bool) {
        let mut soiled = self.soiled.lock().unwrap_or_else(PoisonError::into_inner);
        if self.link.client().is_some() && soiled.len() < SOILED_MAX {
            *soiled.entry(user.clone()).or_default() |= told;
        }
    }

    /// Keeps Redis in line with what this node holds, until stopped.
    pub(super) async fn run(
        &self,
        mut eras: watch::Receiver<Era>,
        notices: mpsc::Sender<Notice>,
        stop: CancellationToken,
    ) {
        let mut ticks = interval(REPAIR_EVERY);
        let (mut told, mut renew_at) = (0, Instant::now() + RENEW_EVERY);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = eras.changed() => {}
                _ = ticks.tick() => {}
            }
            let era = *eras.borrow_and_update();
            if !era.up {
                continue;
            }
            let anew = era.number != told;
            let done = if anew || Instant::now() >= renew_at {
                self.tell_all(anew.then_some(era), &notices).await
            } else {
                self.repair().await
            };
            if done.is_ok() && (anew || Instant::now() >= renew_at) {
                (told, renew_at) = (era.number, Instant::now() + RENEW_EVERY);
            }
        }
    }

    /// Tells Redis all that this node holds. In a new era, says who came back in the eyes of others.
    async fn tell_all(&self, era: Option<Era>, notices: &mpsc::Sender<Notice>) -> Result<(), LinkError> {
        let mut last: Option<UserId> = None;
        loop {
            let users = self.local.users_after(last.as_ref(), BATCH);
            let Some(end) = users.last().cloned() else { return self.repair().await };
            let batch: Vec<_> = users.into_iter().map(|user| (user, false)).collect();
            for (share, synced) in self.sync(&batch).await? {
                if let Some(back) = era.and_then(|era| returned(&era, share, synced)) {
                    // Nobody listens any more where the node has ended.
                    let _ = notices.send(Notice::Returned(back)).await;
                }
            }
            last = Some(end);
            sleep(PACE).await;
        }
    }

    async fn repair(&self) -> Result<(), LinkError> {
        loop {
            let batch: Vec<(UserId, bool)> = {
                let mut soiled = self.soiled.lock().unwrap_or_else(PoisonError::into_inner);
                let some: Vec<_> = soiled.keys().take(BATCH).cloned().collect();
                some.into_iter().filter_map(|user| soiled.remove_entry(&user)).collect()
            };
            if batch.is_empty() {
                return Ok(());
            }
            if let Err(error) = self.sync(&batch).await {
                batch.iter().for_each(|(user, told)| self.soil(user, *told));
                return Err(error);
            }
            sleep(PACE).await;
        }
    }

    /// Makes Redis hold of these users what this node holds. Returns those who have connections here.
    async fn sync(&self, users: &[(UserId, bool)]) -> Result<Vec<(Share, Synced)>, LinkError> {
        let (me, former) = self.lease.lives();
        let (mut pipeline, mut shares) = (Pipeline::new(), Vec::with_capacity(users.len()));
        for (user, told) in users {
            let share = self.local.share(user);
            let change = if share.is_some() { "SADD" } else { "SREM" };
            pipeline.cmd(change).arg(keys::node_users(&me)).arg(user.as_str());
            let grace = if *told { Duration::ZERO } else { self.grace };
            if share.is_none() && !told {
                self.look_later(&mut pipeline, user);
            }
            let index = pipeline.len();
            sync_call(&mut pipeline, user, (&me, former.as_ref()), share.as_ref(), grace);
            if *told {
                CLAIM.call(&mut pipeline, &keys::entry(user));
            }
            if let Some(share) = &share {
                pipeline.cmd("SADD").arg(keys::ONLINE).arg(user.as_str());
                for (room, _) in &share.rooms {
                    add_listener(&mut pipeline, room, user);
                }
            }
            shares.push((user, share, index));
        }
        pipeline.cmd("EXPIRE").arg(keys::node_users(&me)).arg(2 * ENTRY_TTL);
        let mut replies = self.link.run(Op::Sync, me.as_str(), &pipeline).await?;

        let (mut here, mut summaries) = (Vec::new(), Pipeline::new());
        for (user, share, index) in shares {
            let synced = Synced::take(&mut replies, index)?;
            self.summarize(&mut summaries, user, &synced.lines);
            // What changed meanwhile may have reached Redis before this did.
            self.soil_if(user, self.local.version(user) != share.as_ref().map(|share| share.version));
            here.extend(share.map(|share| (share, synced)));
        }
        if !summaries.is_empty() {
            self.link.run(Op::Sync, me.as_str(), &summaries).await?;
        }
        Ok(here)
    }

    /// Has somebody look at a user when the grace that begins now is over.
    fn look_later(&self, pipeline: &mut Pipeline, user: &UserId) {
        let due = self.lease.redis_micros().saturating_add(micros(self.grace)).saturating_add(LOOK_LATER);
        look_at(pipeline, user, due);
    }

    fn summarize(&self, pipeline: &mut Pipeline, user: &UserId, lines: &[Line]) {
        let Some(newest) = lines.iter().max_by_key(|line| line.since) else { return };
        let Some(server_id) = newest.holder.node() else { return };
        let summary = Summary { connected_at: newest.since, last_seen: self.clock.now(), server_id: &server_id };
        let json = serde_json::to_string(&summary).unwrap_or_default();
        pipeline.cmd("SET").arg(keys::summary(user)).arg(json).arg("EX").arg(ENTRY_TTL);
    }
}

impl Synced {
    /// Reads an answer of `sync.lua`.
    pub(super) fn take(replies: &mut Replies, index: usize) -> Result<Self, LinkError> {
        let (was_online, removed, lines, begun): (bool, u64, String, Vec<String>) = replies.take(index)?;
        let begun = begun.iter().filter_map(|id| ConversationId::parse(id).ok()).collect();
        Ok(Self { was_online, removed, lines: parse_lines(&lines), begun })
    }
}

/// Adds a call of `sync.lua`; without a share, what the incarnations hold of the user is taken out.
pub(super) fn sync_call(
    pipeline: &mut Pipeline,
    user: &UserId,
    (me, former): (&Incarnation, Option<&Incarnation>),
    share: Option<&Share>,
    grace: Duration,
) {
    let connections = share.map_or(&[][..], |share| &share.connections);
    let call = SYNC.call(pipeline, &keys::entry(user)).arg(me.as_str()).arg(former.map_or("", Incarnation::as_str));
    call.arg(share.map_or("", |share| &*share.name)).arg(micros(grace)).arg(ENTRY_TTL).arg(connections.len());
    for Held { id, since, scope: of } in connections {
        call.arg(id.to_string()).arg(since.micros()).arg(scope(of));
    }
    for (room, listeners) in share.map_or(&[][..], |share| &share.rooms) {
        let listeners: Vec<_> = listeners.iter().map(ConnectionId::to_string).collect();
        call.arg(room.as_str()).arg(listeners.join(" "));
    }
}

/// Has somebody look at a user's departures at `due`, in Redis' microseconds.
pub(super) fn look_at(pipeline: &mut Pipeline, user: &UserId, due: i64) {
    pipeline.cmd("ZADD").arg(keys::LEAVING).arg(due).arg(keys::leaving(user, due));
}

/// Adds a user to the view of who listens to a conversation.
pub(super) fn add_listener(pipeline: &mut Pipeline, conversation: &ConversationId, user: &UserId) {
    let key = keys::audience(conversation);
    pipeline.cmd("SADD").arg(&key).arg(user.as_str()).cmd("EXPIRE").arg(&key).arg(2 * ENTRY_TTL);
}

/// Who is back, as others see it: they were told that the user had gone, or never that they had come.
fn returned(era: &Era, share: Share, synced: Synced) -> Option<Return> {
    let unseen = era.lost_at.is_some_and(|lost| share.connections.iter().all(|held| held.since >= lost));
    // Where Redis forgot everything nobody was told anything.
    if era.wiped && !unseen {
        return None;
    }
    let online = !synced.was_online;
    let joined = synced.begun;
    (online || !joined.is_empty()).then_some(Return { user: share.user, name: share.name, joined, online })
}

fn scope(scope: &Scope) -> &str {
    match scope {
        Scope::User => "",
        Scope::Conversation(id) => id.as_str(),
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}
