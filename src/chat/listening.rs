//! Listening: who follows what, how a join catches up, and how it ends.

use std::{iter::Peekable, sync::Arc, time::Duration};

use super::{Answer, Caller, Chat, Connection, connection::Reached, presence::came, unavailable};
use crate::{
    degrade::Feature,
    dialect::Joins,
    hub::Gate,
    model::{
        Body, ConversationId, Entry, Event, Identity, Joined, LogId, NewConversation, Pair, Reject, Reply, Resumed, Seq,
    },
    outbox::Signal,
    store::{Access, Authority, Ends},
};

/// Between two tries to read what a client missed.
const RETRY: Duration = Duration::from_millis(200);

/// What an entry's frame has beside its text, in bytes, at most about.
const FRAME_BYTES: usize = 1_024;

/// What a connection that listens still has to get before it is live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replay {
    log: LogId,
    has: Seq,
    /// Which join of which conversation it belongs to; none for an inbox, which is joined once.
    join: Option<(ConversationId, u64)>,
}

impl Replay {
    /// The log it is of.
    pub(super) fn log(&self) -> &LogId {
        &self.log
    }
}

/// A log that is followed. Dropped before it was kept, as when its join is refused or cut short, it is given up again: the
/// count of followers stays right whatever happens on the way.
struct Following {
    log: LogId,
    gate: Gate,
    /// None once it was kept.
    chat: Option<Arc<Chat>>,
}

impl Following {
    /// Goes on until [`Chat::release`].
    fn keep(mut self) {
        self.chat = None;
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        if let Some(chat) = self.chat.take() {
            chat.release(&self.log);
        }
    }
}

impl Chat {
    pub(super) async fn join(
        self: &Arc<Self>,
        caller: &Caller,
        conversation: &ConversationId,
        since: Option<Seq>,
    ) -> Result<Answer, Reject> {
        let connection = caller.connection.as_ref().ok_or(Reject::Unsupported("Joining needs a WebSocket"))?;
        let pair = match connection.dialect.joins() {
            Joins::Directs => match self.pair_of(conversation).await? {
                Some(pair) => Some(pair),
                // Nothing else is listened to.
                None => return Ok(Reply::Done.into()),
            },
            Joins::Nothing | Joins::Added => None,
        };
        let (joined, replay) = self.enter(&caller.identity, connection, conversation, since, pair).await?;
        Ok(Answer { reply: Reply::Joined(conversation.clone(), joined), replays: vec![replay] })
    }

    pub(super) async fn sync(
        self: &Arc<Self>,
        caller: &Caller,
        cursors: Vec<(ConversationId, Seq)>,
    ) -> Result<Answer, Reject> {
        let connection = caller.connection.as_ref().ok_or(Reject::Unsupported("Joining needs a WebSocket"))?;
        if cursors.len() > self.config.limits.conversations_per_connection {
            return Err(Reject::TooManyConversations);
        }
        let (mut each, mut replays) = (Vec::with_capacity(cursors.len()), Vec::with_capacity(cursors.len()));
        for (conversation, since) in cursors {
            let entered = self.enter(&caller.identity, connection, &conversation, Some(since), None).await;
            each.push((
                conversation,
                entered.map(|(joined, replay)| {
                    replays.push(replay);
                    joined
                }),
            ));
        }
        Ok(Answer { reply: Reply::Synced(each), replays })
    }

    /// Makes a connection listen without anything being said of it.
    pub(super) async fn listen_from_now(
        self: &Arc<Self>,
        identity: &Identity,
        connection: &Arc<Connection>,
        conversation: &ConversationId,
        pair: Option<Arc<Pair>>,
    ) -> Result<(), Reject> {
        let (_, replay) = self.enter(identity, connection, conversation, None, pair).await?;
        self.spawn(self.clone().replay(connection.clone(), vec![replay]));
        Ok(())
    }

    /// Makes a connection listen. Joining again is still one join: with `since` it begins anew from there, without it goes
    /// on from the entry that the connection was given last, so that nothing is skipped whoever asked for the first join.
    /// `pair`: the members of a direct conversation, for a dialect that says them; that the user is one of them is known
    /// then.
    pub(super) async fn enter(
        self: &Arc<Self>,
        identity: &Identity,
        connection: &Arc<Connection>,
        conversation: &ConversationId,
        since: Option<Seq>,
        pair: Option<Arc<Pair>>,
    ) -> Result<(Joined, Replay), Reject> {
        let (log, limit) = (LogId::from(conversation), self.config.limits.conversations_per_connection);
        connection.has_place_for(conversation, limit)?;
        // A refusal changes nothing: who listens already listens on.
        let following = self.follow(&log);
        let ends = match pair {
            Some(_) => self.base(&following).await.map(|head| Ends { first: 1, head }),
            None => self.admit_listener(identity, conversation, &following).await,
        }?;
        let (join, before) = connection.enter(conversation, pair.clone());
        let reached = match before {
            Some(before) => Some(self.end_earlier_join(connection, &log, before).await),
            None => None,
        };
        let Some(head) = self.hub.attach(&log, connection.dialect, &connection.outbox, pair.as_ref()) else {
            connection.exit(conversation);
            if before.is_some() {
                self.release(&log);
            }
            return Err(Reject::Unavailable);
        };
        let (joined, has) = match (since, reached) {
            // It may have more than the hub: a replay reads what other nodes stored as soon as the store has it.
            (None, Some(reached)) => (Joined { head: reached, resumed: Resumed::From(reached) }, reached),
            (since, _) => {
                let (resumed, has) = self.resume_point(since, ends, head);
                (Joined { head, resumed }, has)
            }
        };
        connection.attached(conversation, has);
        // A connection follows a log once, however often it joins.
        if before.is_none() {
            following.keep();
        }
        if self.backplane.listen(connection.id(), conversation).await.first {
            let status = self.status_of(&identity.user).await;
            self.tell(&log, Some(connection.id()), came(identity.user.clone(), identity.name.clone(), status));
        }
        Ok((joined, Replay { log, has, join: Some((conversation.clone(), join)) }))
    }

    /// Ends the part that an earlier join of the same connection has in the hub: the seq of the last entry it was given.
    async fn end_earlier_join(&self, connection: &Connection, log: &LogId, before: Reached) -> Seq {
        let live = match before.attached {
            true => self.hub.detach(log, connection.dialect, connection.id()).await,
            false => None,
        };
        before.has.max(live.unwrap_or(0))
    }

    /// Where a client that has all up to `since` goes on: from there, or anew from the head.
    fn resume_point(&self, since: Option<Seq>, ends: Ends, head: Seq) -> (Resumed, Seq) {
        let newest = head.max(ends.head);
        match since {
            None => (Resumed::From(head), head),
            Some(since)
                if since > newest || since < ends.first - 1 || newest - since > self.config.limits.resume_max =>
            {
                self.metrics.resyncs.inc();
                (Resumed::Resync { first: ends.first }, head)
            }
            Some(since) => (Resumed::From(since), since),
        }
    }

    /// Opens a followed log for one who may listen to it.
    async fn admit_listener(
        self: &Arc<Self>,
        identity: &Identity,
        conversation: &ConversationId,
        following: &Following,
    ) -> Result<Ends, Reject> {
        self.needs(Feature::History)?;
        let log = &following.log;
        let mut access = None;
        // The first one subscribes and then reads the head, so that nothing falls between; the answer serves it too.
        let opened = following.gate.get_or_try_init(|| async {
            self.backplane.subscribe(log).await;
            access = self.access_or_open(identity, conversation).await?;
            self.hub.base(log, access.as_ref().map_or(0, |access| access.ends.head));
            Ok::<_, Reject>(())
        });
        opened.await?;
        self.admit_member(identity, conversation, access).await
    }

    async fn admit_member(
        self: &Arc<Self>,
        identity: &Identity,
        conversation: &ConversationId,
        access: Option<Access>,
    ) -> Result<Ends, Reject> {
        let access = match access {
            Some(access) => Some(access),
            None => self.access_or_open(identity, conversation).await?,
        };
        // What doesn't exist is refused like what isn't one's own: ids can't be probed.
        let access = access.ok_or(Reject::NotMember)?;
        if !access.member && !identity.admin {
            if !access.open {
                return Err(Reject::NotMember);
            }
            let body = Body::MemberAdded { user: identity.user.clone() };
            self.append_change(identity, conversation, body, Authority::System).await?;
        }
        Ok(access.ends)
    }

    /// What the user may do there; where open conversations are configured, one that doesn't exist is made.
    async fn access_or_open(
        &self,
        identity: &Identity,
        conversation: &ConversationId,
    ) -> Result<Option<Access>, Reject> {
        let user = &identity.user;
        let access = self.store.access(conversation, user).await.map_err(|error| unavailable(&error))?;
        if access.is_some() || !self.config.open_conversations {
            return Ok(access);
        }
        let new = NewConversation { is_group: true, open: true, ..NewConversation::default() };
        let made = self.store.create(&new, conversation, user).await.map_err(|error| unavailable(&error))?;
        if let Some((_, told)) = made {
            self.spread_entries(told);
        }
        self.store.access(conversation, user).await.map_err(|error| unavailable(&error))
    }

    /// Gives up one following of a log.
    fn release(&self, log: &LogId) {
        self.hub.unfollow(log, || self.backplane.unsubscribe(log));
    }

    /// Begins to follow a log; what is not [kept](Following::keep) ends when it is dropped.
    fn follow(self: &Arc<Self>, log: &LogId) -> Following {
        Following { gate: self.hub.follow(log), log: log.clone(), chat: Some(self.clone()) }
    }

    /// Opens a followed log that the user is known to have a part in. Returns its head.
    async fn base(self: &Arc<Self>, following: &Following) -> Result<Seq, Reject> {
        self.needs(Feature::History)?;
        let log = &following.log;
        let opened = following.gate.get_or_try_init(|| async {
            self.backplane.subscribe(log).await;
            self.hub.base(log, self.head(log).await?);
            Ok::<_, Reject>(())
        });
        opened.await?;
        Ok(self.hub.last(log).unwrap_or(0))
    }

    /// Lets a connection follow its user's inbox, from now on.
    pub(super) async fn follow_inbox(self: &Arc<Self>, connection: &Arc<Connection>) -> Result<(), Reject> {
        let log = LogId::inbox(&connection.user);
        let following = self.follow(&log);
        self.base(&following).await?;
        let attached = self.hub.attach(&log, connection.dialect, &connection.outbox, None);
        let head = attached.ok_or(Reject::Unavailable)?;
        following.keep();
        // Commonly nothing went out since the head was read, and it is live at once.
        if self.hub.splice(&log, connection.id(), head).is_err() {
            self.spawn(self.clone().replay(connection.clone(), vec![Replay { log, has: head, join: None }]));
        }
        Ok(())
    }

    /// Ends a connection's following of its user's inbox.
    pub(super) fn leave_inbox(&self, connection: &Connection) {
        let log = LogId::inbox(&connection.user);
        drop(self.hub.detach(&log, connection.dialect, connection.id()));
        self.release(&log);
    }

    pub(super) async fn leave(&self, caller: &Caller, conversation: &ConversationId) -> Result<Reply, Reject> {
        let connection = caller.connection.as_ref().ok_or(Reject::Unsupported("Leaving needs a WebSocket"))?;
        self.exit(&caller.identity, connection, conversation).await;
        Ok(Reply::Left { conversation: conversation.clone() })
    }

    /// Ends a connection's listening to one conversation, if it does listen.
    pub async fn exit(&self, identity: &Identity, connection: &Connection, conversation: &ConversationId) {
        if let Some(attached) = connection.exit(conversation) {
            self.detach(connection, conversation, attached).await;
            self.backplane.unlisten(connection.id(), conversation).await;
            self.stop_typing(conversation.clone(), identity.user.clone(), identity.name.clone());
        }
    }

    /// Ends a connection's part in a log here; the registry is told by whoever calls. One that left while it was still
    /// waiting to be let in has no part in the hub, only in the following.
    pub(super) fn detach(
        &self,
        connection: &Connection,
        conversation: &ConversationId,
        attached: bool,
    ) -> impl Future<Output = ()> + Send + use<> {
        let log = LogId::from(conversation);
        let gone = attached.then(|| self.hub.detach(&log, connection.dialect, connection.id()));
        self.release(&log);
        async move {
            if let Some(gone) = gone {
                gone.await;
            }
        }
    }

    /// Gives a connection what it missed of each log, one after the other, as fast as it reads; then it is live.
    pub async fn replay(self: Arc<Self>, connection: Arc<Connection>, replays: Vec<Replay>) {
        for replay in replays {
            self.replay_one(&connection, replay).await;
        }
    }

    async fn replay_one(&self, connection: &Connection, Replay { log, mut has, join }: Replay) {
        // What is handed over is noted under the connection's lock, so that a later join knows where this one stood.
        let current = |act: &mut dyn FnMut() -> Option<Seq>| match &join {
            Some((conversation, join)) => connection.during(conversation, *join, act),
            None => act(),
        };
        loop {
            let mut behind = || self.hub.splice(&log, connection.id(), has).err().map(|_| has);
            if current(&mut behind).is_none() || !connection.outbox.has_room().await {
                return;
            }
            match self.hub.fetch(&log, has).await {
                Ok(entries) if !entries.is_empty() => {
                    // Looked up before: `current` holds the connection's lock.
                    let pair = log.conversation().and_then(|conversation| connection.pair(&conversation));
                    let mut entries = entries.into_iter().peekable();
                    while entries.peek().is_some() {
                        let mut slice = Some(self.slice(&mut entries));
                        let mut hand_over =
                            || self.hand_over(connection, pair.as_deref(), slice.take().unwrap_or_default());
                        let Some(last) = current(&mut hand_over) else { return };
                        has = last;
                        if !connection.outbox.has_room().await {
                            return;
                        }
                    }
                }
                // The store is down, or not as far as the hub: both pass.
                Ok(_) | Err(_) => tokio::time::sleep(RETRY).await,
            }
        }
    }

    /// The next entries that an outbox with room surely takes, however their texts grow as JSON: an eighth of it.
    fn slice(&self, entries: &mut Peekable<impl Iterator<Item = Entry>>) -> Vec<Entry> {
        let mut left = self.config.limits.outbox_bytes / 8;
        let mut slice = Vec::from_iter(entries.next());
        while let Some(entry) = entries.next_if(|entry| entry.body.content_bytes() + FRAME_BYTES <= left) {
            left -= entry.body.content_bytes() + FRAME_BYTES;
            slice.push(entry);
        }
        slice
    }

    /// Puts entries into the outbox. The last one's seq; none where they ended the user's membership.
    fn hand_over(&self, connection: &Connection, pair: Option<&Pair>, entries: Vec<Entry>) -> Option<Seq> {
        let (mut last, mut frames, mut removed) = (0, Vec::with_capacity(entries.len()), false);
        let mut arrived = None;
        for entry in entries {
            last = entry.seq;
            removed = matches!(&entry.body, Body::MemberRemoved { user } if *user == connection.user);
            let (signal, conversation) = (Signal::of(&entry), entry.log.conversation());
            arrived = pair.and_then(|_| Signal::handed_over(&entry));
            let event = Event::Entry { entry: Arc::new(entry), origin: None };
            frames.extend(connection.dialect.event(&event, pair));
            signal.into_iter().for_each(|signal| connection.outbox.signal(signal));
            if let (true, Some(conversation)) = (removed, conversation) {
                connection.outbox.signal(Signal::Removed(conversation));
                break;
            }
        }
        connection.outbox.send(frames);
        arrived.into_iter().for_each(|signal| connection.outbox.signal(signal));
        (!removed).then_some(last)
    }
}
