//! Joins: the check of access, the catch-up of a listener, and the end of its listening.

use std::{sync::Arc, time::Duration};

use super::{
    budgets::Budgets,
    command::{BARRED, Caller, CommandReply, require_feature, unavailable},
    connection::{Connection, JoinProgress, JoinedBy, Joining},
    follows::{Following, Follows},
    hints::Hints,
    journal::Journal,
    members::Members,
    presence::arrival_events,
    reconciler::Reconciler,
    replay::{Replay, Replayer},
    retell::Retell,
    router::Router,
    shown::Arriving,
    statuses::Statuses,
    typing::Typing,
};
use crate::{
    backplane::Backplane,
    config::Limits,
    degrade::{Degrade, Feature},
    dialect::RosterPolicy,
    hub::{Attached, Hub, Terms},
    metrics::Metrics,
    model::{
        Body, Clock, ConversationId, Identity, Joined, LogId, NewConversation, Pair, Reject, Reply, Resumed, Seq,
        Status,
    },
    store::{Access, Authority, Ends, Store},
};

/// Maximum time that a command waits until the entries before its own are handed over. It is as long as a call of the
/// store may take.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(5);

/// Starts and ends the listening of connections.
pub(super) struct Subscriptions {
    pub(super) store: Arc<dyn Store>,
    pub(super) backplane: Arc<Backplane>,
    pub(super) hub: Arc<Hub>,
    pub(super) router: Arc<Router>,
    pub(super) retell: Arc<Retell>,
    pub(super) degrade: Arc<Degrade>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) follows: Arc<Follows>,
    pub(super) replayer: Arc<Replayer>,
    pub(super) budgets: Arc<Budgets>,
    pub(super) journal: Arc<Journal>,
    pub(super) statuses: Arc<Statuses>,
    pub(super) typing: Arc<Typing>,
    pub(super) hints: Arc<Hints>,
    pub(super) reconciler: Arc<Reconciler>,
    pub(super) members: Arc<Members>,
    pub(super) clock: Clock,
    pub(super) limits: Limits,
    /// If true, a join creates a missing conversation, open to all users.
    pub(super) open_conversations: bool,
}

impl Subscriptions {
    pub(super) async fn join(
        &self,
        caller: &Caller,
        conversation: &ConversationId,
        since: Option<Seq>,
        roster: bool,
    ) -> Result<CommandReply, Reject> {
        let connection = caller.connection.as_ref().ok_or(Reject::Unsupported("Joining needs a WebSocket"))?;
        let joining = Joining::asked_for(roster);
        let (joined, replay) = self.listen(&caller.identity, connection, conversation, since, joining).await?;
        let reply = Reply::Joined(conversation.clone(), joined);
        Ok(CommandReply { replays: vec![replay], ..CommandReply::from(reply) })
    }

    /// Starts listening to a new conversation from its first entry, and tells the client so. Returns once the entries
    /// that others sent meanwhile are handed over: the connection's own message comes after them. If the store does not
    /// provide them in time, the connection gets them later, and the caller's command is refused as unavailable.
    pub(super) async fn listen_from_start(
        &self,
        identity: &Identity,
        connection: &Arc<Connection>,
        conversation: &ConversationId,
        pair: Option<Arc<Pair>>,
    ) -> Result<(), Reject> {
        let since = Some(0);
        #[cfg(feature = "faults")]
        let since = since.filter(|_| !crate::faults::has(crate::faults::Fault::DirectFromHead));
        let joining = Joining::by_itself(pair, self.hub.activity());
        let (mut joined, replay) = self.listen(identity, connection, conversation, since, joining).await?;
        if let Resumed::From(after) = joined.resumed {
            // The client named no seq, so the head tells what follows.
            joined.head = after;
        }
        // Before the entries, and also if the command is refused after all: the connection listens.
        connection.outbox.send(connection.dialect.joined(conversation, joined, self.clock.now()));
        let replayed = self.replayer.replay_within(connection, replay, HAND_OVER_TIMEOUT).await;
        if replayed { Ok(()) } else { Err(Reject::Unavailable) }
    }

    /// Starts listening to a conversation. A repeated join replaces the earlier one: with `since` it starts there;
    /// without, it continues after the last entry that the connection received, so that no entry is skipped. An automatic
    /// join that was given up counts as an earlier join.
    pub(super) async fn listen(
        &self,
        identity: &Identity,
        connection: &Arc<Connection>,
        conversation: &ConversationId,
        since: Option<Seq>,
        Joining { pair, by, roster, known_head }: Joining,
    ) -> Result<(Joined, Replay), Reject> {
        let (log, limit) = (LogId::from(conversation), self.limits.conversations_per_connection);
        match by {
            JoinedBy::Client => connection.check_join_limit(conversation, limit)?,
            JoinedBy::Itself { .. } => self.make_room(identity, connection, conversation).await,
        }
        let may_be_lost = connection.may_name_lost(conversation, since, self.hub.past());
        let since = since.or_else(|| connection.dropped_at(conversation, self.hub.past()));
        // A refusal changes nothing: a connection that already listens keeps its join.
        let following = self.follows.follow(&log);
        let given = self.hub.given(&log);
        let ends = match pair {
            Some(_) => {
                let opened = self.follows.open_unchecked(&following).await;
                opened.map(|head| Ends { head: head.max(known_head), ..Ends::default() })
            }
            None => self.admit_listener(identity, conversation, &following, by).await,
        }?;
        if pair.is_none() && given.is_some_and(|given| given.is_contradicted_by(ends.head, ends.newest())) {
            // The store was set back, and a comparison has not found it yet.
            self.reconciler.compare_now(&log).await?;
        }
        let past = self.hub.past();
        // The store may have entries that no node published; the hub backfills them.
        let stored = ends.head;
        #[cfg(feature = "faults")]
        let stored = if crate::faults::has(crate::faults::Fault::LowHead) { 0 } else { stored };
        self.hub.record_head(&log, stored);
        let _arriving = self.expect_in_rosters(identity, connection, conversation).await;
        let (join, before) = connection.record_join(conversation, pair.clone(), by);
        let reached = match before {
            Some(before) => Some(self.end_earlier_join(connection, &log, before).await),
            None => None,
        };
        // Clients of a dialect with one conversation per socket always get the roster.
        let (admitted_at, roster) = (ends.head, roster || connection.bound.is_some());
        let terms = Terms { pair: pair.as_ref(), admitted_at, roster };
        let attached = self.hub.attach(&log, connection.dialect, &connection.outbox, terms);
        let Some(Attached { last: head, restarts }) = attached else {
            connection.remove_join(conversation);
            if before.is_some() {
                self.follows.release(&log);
            }
            return Err(Reject::Unavailable);
        };
        let (joined, has) = match (since, reached) {
            // `reached` may exceed the hub's head: a replay reads entries of other nodes as soon as they are stored.
            (None, Some(Some(reached))) if self.hub.past() == past => {
                (Joined { head: reached, resumed: Resumed::From(reached) }, reached)
            }
            // What the connection has may be lost: the store was set back since the earlier join, or in this moment.
            (None, Some(_)) => self.resync(ends, head),
            (Some(_), _) if may_be_lost || self.hub.past() != past => self.resync(ends, head),
            (since, _) => {
                let (resumed, has) = self.resume_point(since, ends, head);
                // The response never contradicts the client: the store may be ahead of the hub, and `since` with it.
                let newest = if since.is_some_and(|since| since == has) { head.max(ends.head) } else { head };
                #[cfg(feature = "faults")]
                let newest = if crate::faults::has(crate::faults::Fault::LowHead) { head } else { newest };
                (Joined { head: newest, resumed }, has)
            }
        };
        connection.record_attached(conversation, has, past);
        // A connection counts as one follower of a log, however often it joins.
        if before.is_none() {
            following.keep();
        }
        // The replay delivers a removal after `has`, and `ends` was read with the membership. A removal between the two
        // shows only in a new read.
        let must_check = pair.is_none() && has > ends.head;
        #[cfg(feature = "faults")]
        let must_check = must_check && !crate::faults::has(crate::faults::Fault::UncheckedJoin);
        if must_check {
            self.check_still_member(identity, connection, conversation).await?;
        }
        if self.backplane.listen(connection.id(), conversation).await.first {
            let status = self.statuses.of(&identity.user).await;
            self.router.send_ephemeral(
                &log,
                Some(connection.id()),
                arrival_events(identity.user.clone(), identity.name.clone(), status),
            );
        }
        Ok((joined, Replay { log, has, restarts, admitted_at, join: Some((conversation.clone(), join)) }))
    }

    /// Lets rosters name the user of a socket that gets rosters, from before it is attached until its arrival is told.
    async fn expect_in_rosters(
        &self,
        identity: &Identity,
        connection: &Connection,
        conversation: &ConversationId,
    ) -> Option<Arriving> {
        let gets_rosters = connection.dialect.greets_with() == RosterPolicy::Listeners;
        let is_visible = gets_rosters && self.statuses.of(&identity.user).await != Status::Invisible;
        is_visible.then(|| self.follows.present.shown.expect(conversation, &identity.user))
    }

    /// Reads the membership again for a connection that is attached, and detaches it if the membership ended.
    async fn check_still_member(
        &self,
        identity: &Identity,
        connection: &Connection,
        conversation: &ConversationId,
    ) -> Result<(), Reject> {
        let refusal = match self.store.access(conversation, &identity.user).await {
            Ok(Some(access)) if access.member || identity.admin => return Ok(()),
            Ok(_) => Reject::NotMember,
            Err(error) => unavailable(&error),
        };
        self.stop_listening(identity, connection, conversation).await;
        Err(refusal)
    }

    /// Detaches the listener of an earlier join of the same connection. Returns the seq of the last entry that it
    /// received; none if it was not live, and the store was set back since it was attached.
    pub(super) async fn end_earlier_join(
        &self,
        connection: &Connection,
        log: &LogId,
        before: JoinProgress,
    ) -> Option<Seq> {
        let live = match before.attached {
            true => self.hub.detach(log, connection.dialect, connection.id()).await,
            false => None,
        };
        match before.past == self.hub.past() || !before.attached {
            true => Some(before.has.max(live.unwrap_or(0))),
            false => live,
        }
    }

    /// Decides where a client that has every entry up to `since` continues: there, or at the head after a resync.
    fn resume_point(&self, since: Option<Seq>, ends: Ends, head: Seq) -> (Resumed, Seq) {
        let newest = head.max(ends.head);
        match since {
            None => (Resumed::From(head), head),
            Some(since) if since > newest || since < ends.first - 1 || newest - since > self.limits.resume_max => {
                let (joined, has) = self.resync(ends, head);
                (joined.resumed, has)
            }
            Some(since) => (Resumed::From(since), since),
        }
    }

    /// A join whose client must read the conversation anew, and gets the entries after `head`.
    fn resync(&self, ends: Ends, head: Seq) -> (Joined, Seq) {
        self.metrics.resyncs.inc();
        (Joined { head, resumed: Resumed::Resync { first: ends.first } }, head)
    }

    /// Opens a followed log for a user who may listen to it. Only a join by the client creates a missing conversation or
    /// makes the user a member: one by the connection itself follows a membership, which may have ended meanwhile.
    async fn admit_listener(
        &self,
        identity: &Identity,
        conversation: &ConversationId,
        following: &Following,
        by: JoinedBy,
    ) -> Result<Ends, Reject> {
        require_feature(&self.degrade, Feature::History)?;
        let mut access = None;
        // The read of the head also reads the user's access.
        let ends = async {
            access = self.access_for(identity, conversation, by).await?;
            Ok(access.as_ref().map(|access| access.ends).unwrap_or_default())
        };
        self.follows.open(following, ends).await?;
        self.admit_member(identity, conversation, access, by).await
    }

    async fn admit_member(
        &self,
        identity: &Identity,
        conversation: &ConversationId,
        access: Option<Access>,
        by: JoinedBy,
    ) -> Result<Ends, Reject> {
        let access = match access {
            Some(access) => Some(access),
            None => self.access_for(identity, conversation, by).await?,
        };
        // A missing conversation is rejected like one that the user is no member of; otherwise clients could probe for
        // ids.
        let access = access.ok_or(Reject::NotMember)?;
        if !access.member && !identity.admin {
            if !access.open || by != JoinedBy::Client {
                return Err(Reject::NotMember);
            }
            self.budgets.charge_change(identity).await?;
            let body = Body::MemberAdded { user: identity.user.clone() };
            let joined = self.journal.append_change(identity, conversation, body, Authority::System).await;
            // A removed user gets the refusal of a closed conversation.
            joined.map_err(|reject| if reject == BARRED { Reject::NotMember } else { reject })?;
        }
        Ok(access.ends)
    }

    /// The user's access to a conversation. Creates a missing one for a join by the client if open conversations are
    /// configured.
    async fn access_for(
        &self,
        identity: &Identity,
        conversation: &ConversationId,
        by: JoinedBy,
    ) -> Result<Option<Access>, Reject> {
        let user = &identity.user;
        let access = self.store.access(conversation, user).await.map_err(|error| unavailable(&error))?;
        if access.is_some() || !self.open_conversations || by != JoinedBy::Client {
            return Ok(access);
        }
        self.budgets.charge_change(identity).await?;
        let new = NewConversation { is_group: true, open: true, ..NewConversation::default() };
        let made = self.store.create(&new, conversation, user).await.map_err(|error| {
            self.retell.doubt_inboxes(&error, [user]);
            unavailable(&error)
        })?;
        if let Some((_, inbox_entries)) = made {
            self.router.send_entries(inbox_entries);
        }
        self.store.access(conversation, user).await.map_err(|error| unavailable(&error))
    }

    /// Attaches a connection to its user's inbox, from the head.
    pub(super) async fn follow_inbox(&self, connection: &Arc<Connection>) -> Result<(), Reject> {
        let log = LogId::inbox(&connection.user);
        let following = self.follows.follow(&log);
        self.follows.open_unchecked(&following).await?;
        let attached = self.hub.attach(&log, connection.dialect, &connection.outbox, Terms::default());
        let Attached { last: head, restarts } = attached.ok_or(Reject::Unavailable)?;
        following.keep();
        // Usually no entry went out since the head was read, and the connection is live at once.
        if self.hub.splice(&log, connection.id(), head, restarts).is_err() {
            self.replayer.begin(connection, vec![Replay { log, has: head, restarts, admitted_at: 0, join: None }]);
        }
        Ok(())
    }

    /// Detaches a connection from its user's inbox.
    pub(super) fn leave_inbox(&self, connection: &Connection) {
        let log = LogId::inbox(&connection.user);
        drop(self.hub.detach(&log, connection.dialect, connection.id()));
        self.follows.release(&log);
    }

    pub(super) async fn leave(&self, caller: &Caller, conversation: &ConversationId) -> Result<Reply, Reject> {
        let connection = caller.connection.as_ref().ok_or(Reject::Unsupported("Leaving needs a WebSocket"))?;
        connection.record_left(conversation, self.limits.conversations_per_connection);
        self.stop_listening(&caller.identity, connection, conversation).await;
        Ok(Reply::Left { conversation: conversation.clone() })
    }

    /// Ends a connection's listening to one conversation, if it listens.
    pub(super) async fn stop_listening(
        &self,
        identity: &Identity,
        connection: &Connection,
        conversation: &ConversationId,
    ) {
        connection.forget_dropped(conversation);
        if let Some(attached) = connection.remove_join(conversation) {
            self.detach(connection, conversation, attached).await;
            self.backplane.unlisten(connection.id(), conversation).await;
            self.typing.stop(identity, conversation, Some(connection.id()));
        }
    }

    /// Detaches a connection from a log of this node; the caller updates the registry. A join that is not `attached`
    /// yet has no listener in the hub, only its follow.
    pub(super) fn detach(
        &self,
        connection: &Connection,
        conversation: &ConversationId,
        attached: bool,
    ) -> impl Future<Output = ()> + Send + use<> {
        let log = LogId::from(conversation);
        let gone = attached.then(|| self.hub.detach(&log, connection.dialect, connection.id()));
        self.follows.release(&log);
        async move {
            if let Some(gone) = gone {
                gone.await;
            }
        }
    }

    /// Sends a connection the entries that it missed of each log. After that it is live.
    pub(super) async fn replay(&self, connection: &Connection, replays: Vec<Replay>) {
        self.replayer.replay(connection, replays).await;
    }
}
