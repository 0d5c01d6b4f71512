//! The registry: every connection of every node, kept per user in one hash, so that one script on one key decides
//! whether a connection is the user's first, last, or one too many. This node's connections are kept in [`Local`]
//! first; a change that could not be written to Redis is written later.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use redis::Pipeline;
use tokio::sync::mpsc;

use super::{
    incarnation::Incarnation,
    lease::Lease,
    line::{Line, opened, parse_lines},
    link::Link,
    link_error::{LinkError, is_wrong_type},
    local::{Caps, Local, Registered, Removed, Share},
    names::Names,
    ops::Op,
    registry_calls::{
        self, ENTRY_TTL, Synced, Unwritten, add_listener, is_partly_refused, join_ids, micros, parse_ids, return_after,
        schedule_check, scope, summarize, sync_call,
    },
    replies::Replies,
    scripts::{CLAIM, DEPART, LISTEN, PART, REGISTER, SILENT},
    shards::Shard,
    types::{BackplaneEvent, Listening, Registration, TooMany},
};
use crate::{
    metrics::Metrics,
    model::{Clock, ConnectionId, ConversationId, UserId},
};

/// Maximum number of dirty users. Beyond it, the wrong entries disappear when this incarnation ends and is reaped.
const DIRTY_MAX: usize = 100_000;
/// Delay of the check of a departure after its due time, in microseconds. It covers the difference between this node's
/// estimate of Redis' clock and the clock that the script reads.
const CHECK_DELAY_MICROS: i64 = 200_000;
/// The reply of `part.lua` if there is no entry.
const MISSING: &str = "?";
/// One route for all writes of many users, so that they reach Redis in the order in which they were made.
const ROUTE: &str = "sync";

/// The registry.
pub(super) struct Registry {
    pub(super) link: Arc<Link>,
    pub(super) lease: Arc<Lease>,
    pub(super) local: Arc<Local>,
    names: Arc<Names>,
    caps: Caps,
    grace: Duration,
    clock: Clock,
    metrics: Arc<Metrics>,
    /// The number of the era of each shard in which all of this node's users there were written last.
    pub(super) written: Mutex<HashMap<Shard, u64>>,
    /// Users whose entry in Redis may differ from this node's state.
    pub(super) dirty: Mutex<HashMap<UserId, Unwritten>>,
}

impl Registry {
    /// An empty registry.
    pub(super) fn new(
        link: Arc<Link>,
        lease: Arc<Lease>,
        local: Arc<Local>,
        names: Arc<Names>,
        (caps, grace): (Caps, Duration),
        (clock, metrics): (Clock, Arc<Metrics>),
    ) -> Self {
        Self {
            link,
            lease,
            local,
            names,
            caps,
            grace,
            clock,
            metrics,
            written: Mutex::default(),
            dirty: Mutex::default(),
        }
    }

    /// Adds a connection; true if its user came online by it. At a cap, silent connections give way to it.
    pub(super) async fn register(&self, new: &Registration) -> Result<bool, TooMany> {
        let Registered { first: first_here, gave_way } = self.local.register(new)?;
        let (user, keys) = (&new.user, self.link.keys());
        let (mut pipeline, shard) = (Pipeline::new(), keys.shard_of(user));
        let me = self.lease.me(shard);
        pipeline.cmd("SADD").arg(keys.node_users(shard, &me)).arg(user.as_str());
        let id = new.connection.to_string();
        let call = REGISTER.call(&mut pipeline, &keys.entry(user));
        call.arg(id).arg(me.as_str()).arg(opened(new.connected_at, new.dialect)).arg(scope(&new.scope));
        call.arg(self.names.signed(user, &new.name));
        call.arg(self.caps.connections).arg(self.caps.sockets).arg(ENTRY_TTL).arg(join_ids(&gave_way));
        for (node, doubt) in self.lease.doubtful(shard) {
            call.arg(node.as_str()).arg(doubt.as_str());
        }
        let (id, since) = (new.connection, new.connected_at);
        let newest = Line { id, holder: me.clone(), since, dialect: None };
        self.summarize(&mut pipeline, user, &[newest]);
        pipeline.cmd("SADD").arg(keys.online(shard)).arg(user.as_str());

        let result = self.link.run(Op::Register, user.as_str(), &pipeline).await;
        self.mark_dirty_if(user, is_partly_refused(&result));
        match result.and_then(|mut replies| replies.take::<(bool, bool, String)>(1)) {
            Ok((true, first, given)) => {
                let given = parse_ids(&given);
                self.local.set_gave_way(user, &given, true);
                self.count_given(gave_way.len() + given.len());
                self.mark_dirty_if(user, me != self.lease.me(shard));
                Ok(first)
            }
            Ok((false, retry_may_succeed, _)) => {
                self.local.set_gave_way(user, &gave_way, false);
                self.local.unregister(new.connection);
                self.mark_dirty(user, false);
                Err(TooMany { retry_may_succeed })
            }
            Err(_) => {
                self.count_given(gave_way.len());
                self.mark_dirty(user, false);
                Ok(first_here)
            }
        }
    }

    fn count_given(&self, connections: usize) {
        self.metrics.gave_way.inc_by(connections as u64);
    }

    /// Records that a connection is silent, or no longer; false if it gave way to another one meanwhile.
    pub(super) async fn set_silent(&self, connection: ConnectionId, silent: bool) -> bool {
        let Some(user) = self.local.set_silent(connection, silent) else { return false };
        let mut pipeline = Pipeline::new();
        SILENT.call(&mut pipeline, &self.link.keys().entry(&user)).arg(connection.to_string()).arg(u8::from(silent));
        let result = self.link.run(Op::Silence, user.as_str(), &pipeline).await;
        // Without an answer the local state counts.
        result.and_then(|mut replies| replies.take(0)).unwrap_or(true)
    }

    /// Removes a connection with all its listening.
    pub(super) async fn unregister(&self, connection: ConnectionId) {
        let Some(gone) = self.local.unregister(connection) else { return };
        let (user, keys) = (&gone.user, self.link.keys());
        let shard = keys.shard_of(user);
        let me = self.lease.me(shard);
        let mut pipeline = Pipeline::new();
        self.schedule_check_after_grace(&mut pipeline, user);
        let call = PART.call(&mut pipeline, &keys.entry(user)).arg(connection.to_string()).arg(1);
        call.arg(micros(self.grace));
        for room in &gone.rooms {
            call.arg(room.as_str());
        }
        if gone.last {
            pipeline.cmd("SREM").arg(keys.node_users(shard, &me)).arg(user.as_str());
        }
        let mut result = self.link.run(Op::Unregister, user.as_str(), &pipeline).await;
        let refusal = result.as_ref().ok().and_then(Replies::refusal);
        if is_wrong_type(&refusal.map_or(Ok(()), Err)) {
            // The link has deleted what another program stored in the place of the entry.
            result = self.link.run(Op::Unregister, user.as_str(), &pipeline).await;
        }
        self.mark_dirty_if(user, is_partly_refused(&result));
        match result.and_then(|mut replies| replies.take::<String>(1)) {
            Ok(lines) if lines == MISSING && gone.last => self.depart_without_entry(&gone, me).await,
            Ok(lines) => {
                self.mark_dirty_if(user, lines == MISSING);
                // If the user came back meanwhile, the SREM may have reached Redis after the new SADD.
                let back = gone.last && self.local.version(user).is_some();
                self.mark_dirty_if(user, back || me != self.lease.me(shard));
                let lines = parse_lines(&lines);
                if !lines.is_empty() {
                    let mut pipeline = Pipeline::new();
                    self.summarize(&mut pipeline, user, &lines);
                    // If this fails, the half-hourly renewal writes the view again.
                    let _ = self.link.run(Op::Unregister, user.as_str(), &pipeline).await;
                }
            }
            Err(_) => self.mark_dirty(user, false),
        }
    }

    /// Writes the departure of a user whose entry somebody deleted, or Redis evicted: the others still show the user. While the
    /// lease is held, no other node has announced the departure.
    async fn depart_without_entry(&self, gone: &Removed, me: Incarnation) {
        let shard = self.link.keys().shard_of(&gone.user);
        if !self.lease.is_held(shard) || me != self.lease.me(shard) {
            return self.mark_dirty(&gone.user, false);
        }
        let mut pipeline = Pipeline::new();
        let call =
            DEPART.call(&mut pipeline, &self.link.keys().entry(&gone.user)).arg(micros(self.grace)).arg(ENTRY_TTL);
        for room in &gone.rooms {
            call.arg(room.as_str());
        }
        let result = self.link.run(Op::Unregister, gone.user.as_str(), &pipeline).await;
        self.mark_dirty_if(&gone.user, result.is_err() || is_partly_refused(&result));
    }

    /// Records that a connection listens to a conversation.
    pub(super) async fn listen(&self, connection: ConnectionId, conversation: &ConversationId) -> Listening {
        let Some((user, first_here)) = self.local.listen(connection, conversation) else {
            return Listening { first: false };
        };
        let mut pipeline = Pipeline::new();
        let keys = self.link.keys();
        LISTEN.call(&mut pipeline, &keys.entry(&user)).arg(connection.to_string()).arg(conversation.as_str());
        add_listener(&mut pipeline, keys, conversation, &user);
        // A node that removes a user from the view reads the entry afterwards.
        let result = self.link.run_in_order(Op::Listen, user.as_str(), &pipeline, 1).await;
        self.mark_dirty_if(&user, is_partly_refused(&result));
        let first = match result.and_then(|mut replies| replies.take::<i64>(0)) {
            Ok(answer @ (0 | 1)) => answer == 1,
            Ok(_) | Err(_) => {
                self.mark_dirty(&user, false);
                first_here
            }
        };
        Listening { first }
    }

    /// Records that a connection no longer listens to a conversation.
    pub(super) async fn unlisten(&self, connection: ConnectionId, conversation: &ConversationId) {
        let Some(user) = self.local.unlisten(connection, conversation) else { return };
        let mut pipeline = Pipeline::new();
        self.schedule_check_after_grace(&mut pipeline, &user);
        let entry = self.link.keys().entry(&user);
        let call = PART.call(&mut pipeline, &entry).arg(connection.to_string()).arg(0);
        call.arg(micros(self.grace)).arg(conversation.as_str());
        let result = self.link.run(Op::Unlisten, user.as_str(), &pipeline).await;
        self.mark_dirty_if(&user, is_partly_refused(&result));
        self.mark_dirty_if(&user, result.and_then(|mut replies| replies.take::<String>(1)).is_err());
    }

    /// Records that a user's departure was announced from the local state, so that no node announces it again.
    pub(super) fn mark_announced(&self, user: &UserId) {
        self.mark_dirty(user, true);
    }

    fn mark_dirty_if(&self, user: &UserId, yes: bool) {
        if yes {
            self.mark_dirty(user, false);
        }
    }

    /// Records that a user's entry in Redis may differ from this node's state.
    pub(super) fn mark_dirty(&self, user: &UserId, announced: bool) {
        self.mark_unwritten(user, Unwritten { announced, ..Unwritten::default() });
    }

    pub(super) fn mark_unwritten(&self, user: &UserId, unwritten: Unwritten) {
        let mut dirty = self.dirty.lock().unwrap_or_else(PoisonError::into_inner);
        if self.link.target().is_some() && dirty.len() < DIRTY_MAX {
            let known = dirty.entry(user.clone()).or_default();
            known.announced |= unwritten.announced;
            known.told_gone |= unwritten.told_gone;
            known.era = unwritten.era.or(known.era);
        }
    }

    /// Writes these users to Redis, and announces who is back. Who was not written is dirty afterwards. Returns the first
    /// refusal of a command.
    pub(super) async fn write(
        &self,
        batch: Vec<(UserId, Unwritten)>,
        events: &mpsc::Sender<BackplaneEvent>,
    ) -> Result<Option<LinkError>, LinkError> {
        let (here, refusal) = match self.sync(&batch).await {
            Ok(synced) => synced,
            Err(error) => {
                // Redis may still execute it, after the end of a user's last connection here.
                batch.iter().for_each(|(user, unwritten)| self.mark_unwritten(user, *unwritten));
                return Err(error);
            }
        };
        if refusal.is_some() {
            batch.iter().for_each(|(user, unwritten)| self.mark_dirty(user, unwritten.announced));
        }
        for (unwritten, share, synced) in here {
            if let Some(back) = return_after(unwritten, self.lease.length(), share, synced) {
                // A send fails only when the node has ended.
                let _ = events.send(BackplaneEvent::Returned(back)).await;
            }
        }
        Ok(refusal)
    }

    /// Writes this node's state of these users to Redis. Returns those who have connections here and were written, and the
    /// first refusal of a command: not all is written then.
    async fn sync(
        &self,
        users: &[(UserId, Unwritten)],
    ) -> Result<(Vec<(Unwritten, Share, Synced)>, Option<LinkError>), LinkError> {
        let (keys, mut shards) = (self.link.keys(), HashMap::new());
        let (mut pipeline, mut shares) = (Pipeline::new(), Vec::with_capacity(users.len()));
        for (user, unwritten) in users {
            let (share, announced, shard) = (self.local.share(user), unwritten.announced, keys.shard_of(user));
            let (me, former) = shards.entry(shard).or_insert_with(|| self.lease.incarnations(shard));
            let change = if share.is_some() { "SADD" } else { "SREM" };
            pipeline.cmd(change).arg(keys.node_users(shard, me)).arg(user.as_str());
            let grace = if announced { Duration::ZERO } else { self.grace };
            if share.is_none() && !announced {
                self.schedule_check_after_grace(&mut pipeline, user);
            }
            let index = pipeline.len();
            let name = share.as_ref().map_or_else(String::new, |share| self.names.signed(user, &share.name));
            sync_call(&mut pipeline, keys, (user, &name), (me, former.as_ref()), share.as_ref(), grace);
            if announced {
                self.claim(&mut pipeline, user);
            }
            if share.is_some() {
                pipeline.cmd("SADD").arg(keys.online(shard)).arg(user.as_str());
            }
            shares.push((user, *unwritten, share, index));
        }
        for (shard, (me, _)) in &shards {
            pipeline.cmd("EXPIRE").arg(keys.node_users(*shard, me)).arg(2 * ENTRY_TTL);
        }
        // A node that removes a user from a view reads the entry afterwards.
        let views = pipeline.len();
        for (user, _, share, _) in &shares {
            for (room, _) in share.iter().flat_map(|share| &share.rooms) {
                add_listener(&mut pipeline, keys, room, user);
            }
        }
        let mut replies = self.link.run_in_order(Op::Sync, ROUTE, &pipeline, views).await?;
        let (mut refusal, overtaken) = (replies.refusal(), replies.may_be_overtaken());
        let (mut here, mut summaries) = (Vec::new(), Pipeline::new());
        for (user, unwritten, share, index) in shares {
            let synced = match Synced::read(&mut replies, index) {
                Ok(synced) => synced,
                Err(error) => {
                    self.mark_unwritten(user, unwritten);
                    // A shard that is down refuses nothing to the others of the batch.
                    if error != LinkError::Down {
                        refusal.get_or_insert(error);
                    }
                    continue;
                }
            };
            self.summarize(&mut summaries, user, &synced.lines);
            self.local.set_gave_way(user, &synced.gave_way, true);
            // A change during the call may have reached Redis before this pipeline, which then overwrote it.
            let changed = self.local.version(user) != share.as_ref().map(|share| share.version);
            self.mark_dirty_if(user, changed || overtaken);
            here.extend(share.map(|share| (unwritten, share, synced)));
        }
        if !summaries.is_empty() {
            match self.link.run(Op::Sync, ROUTE, &summaries).await {
                // They are written again when their masters are back.
                Ok(_) | Err(LinkError::Down) => {}
                Err(error) => return Err(error),
            }
        }
        Ok((here, refusal))
    }

    /// Claims a user's departures that are due.
    pub(super) fn claim(&self, pipeline: &mut Pipeline, user: &UserId) {
        CLAIM.call(pipeline, &self.link.keys().entry(user)).arg(self.latest_due());
    }

    /// The longest time until a departure is due, in microseconds.
    pub(super) fn latest_due(&self) -> i64 {
        registry_calls::latest_due(self.grace, self.lease.set_back())
    }

    /// Schedules a check of a user's departure for the end of the grace that begins now.
    fn schedule_check_after_grace(&self, pipeline: &mut Pipeline, user: &UserId) {
        let now = self.lease.redis_micros(self.link.keys().shard_of(user));
        let due = now.saturating_add(micros(self.grace)).saturating_add(CHECK_DELAY_MICROS);
        schedule_check(pipeline, self.link.keys(), user, due);
    }

    pub(super) fn summarize(&self, pipeline: &mut Pipeline, user: &UserId, lines: &[Line]) {
        summarize(pipeline, self.link.keys(), user, lines, self.clock.now());
    }
}
