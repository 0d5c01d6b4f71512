//! Encoding of an event for a listener, and its hand-over to the listener's outbox. Live delivery ([`super::shard`])
//! and replay ([`hand_over_missed`]) share this path.

use std::sync::{Arc, OnceLock};

use crate::{
    dialect::{AutoJoin, Dialect, RequestMeta, RosterPolicy},
    model::{
        Body, ConnectionId, ConversationId, Entry, Ephemeral, Event, LogId, Pair, PendingAck, Reply, Sent, Seq,
        TakenAck, UserId,
    },
    outbox::{Frame, Outbox, Signal},
    supervise::{Supervisor, TaskName, checkpoint},
};

/// An event for listeners, with its frame for each dialect, encoded on first use.
#[derive(Debug)]
pub(super) struct Delivery {
    pub(super) event: Event,
    /// The members of a direct conversation, if a dialect needs them.
    pair: Option<Arc<Pair>>,
    /// The content of the entry's ack, if that waited for the delivery; else it is that of a new entry.
    waited: Option<Box<Sent>>,
    frames: [OnceLock<Option<Frame>>; Dialect::COUNT],
    supervisor: Supervisor,
}

impl Delivery {
    pub(super) fn new(event: Event, pair: Option<Arc<Pair>>, supervisor: Supervisor) -> Self {
        Self { event, pair, waited: None, frames: std::array::from_fn(|_| OnceLock::new()), supervisor }
    }

    /// The same delivery; its entry has the given ack with this content, unless there is none.
    pub(super) fn with_ack(&self, waiting: Option<(Arc<PendingAck>, Sent)>) -> Self {
        let (event, waited) = match (&self.event, waiting) {
            (Event::Entry { entry, .. }, Some((ack, sent))) => {
                (Event::Entry { entry: entry.clone(), origin: Some(ack) }, Some(Box::new(sent)))
            }
            (event, _) => (event.clone(), self.waited.clone()),
        };
        Self { waited, ..Self::new(event, self.pair.clone(), self.supervisor.clone()) }
    }

    /// The frame in this dialect, if it has one. An event that can't be encoded because that panics has none: it would
    /// panic at every try, and no later event of the log would be delivered.
    fn frame(&self, dialect: Dialect) -> Option<&Frame> {
        let encode = || {
            checkpoint(TaskName::Encoder, || format!("{:?}", self.event));
            dialect.event(&self.event, self.pair.as_deref())
        };
        self.frames[dialect.index()].get_or_init(|| self.supervisor.catch(TaskName::Encoder, encode).flatten()).as_ref()
    }

    /// The frame of the event for one socket, and the ack for the socket that sent the entry. A dialect without echoes has
    /// the ack in the place of the socket's own copy; in others the ack follows the echo.
    fn frames(&self, dialect: Dialect, connection: ConnectionId) -> [Option<Frame>; 2] {
        let copy = || self.frame(dialect).cloned();
        let Some(ack) = self.own_ack(connection) else { return [copy(), None] };
        let taken = if dialect.acks() { ack.take() } else { TakenAck::Before };
        let shown = dialect.echoes() || taken == TakenAck::Never;
        let frame = || {
            let sent = match self.waited.as_deref() {
                Some(sent) => sent.clone(),
                None => sent_of(self.entry()?, ack),
            };
            ack_frame(dialect, ack, sent)
        };
        [shown.then(copy).flatten(), (taken == TakenAck::Now).then(frame).flatten()]
    }

    /// The ack of the entry, if this socket sent it.
    fn own_ack(&self, connection: ConnectionId) -> Option<&PendingAck> {
        match &self.event {
            Event::Entry { origin: Some(ack), .. } if ack.connection() == connection => Some(ack),
            Event::Entry { .. } | Event::Ephemeral { .. } => None,
        }
    }

    /// True if the event has a frame in this dialect.
    pub(super) fn is_shown_in(&self, dialect: Dialect) -> bool {
        self.frame(dialect).is_some()
    }

    /// True if the event tells of a user's presence.
    pub(super) fn tells_presence(&self) -> bool {
        let Event::Ephemeral { ephemeral, .. } = &self.event else { return false };
        matches!(&ephemeral.what, Ephemeral::Presence { .. } | Ephemeral::Listening { active: false, .. })
    }

    fn entry(&self) -> Option<&Entry> {
        self.event.entry()
    }

    /// The seq of the entry; none for an ephemeral event.
    pub(super) fn seq(&self) -> Option<Seq> {
        self.entry().map(|entry| entry.seq)
    }

    /// The user whose membership this entry ends.
    pub(super) fn removed_user(&self) -> Option<&UserId> {
        match &self.entry()?.body {
            Body::MemberRemoved { user } => Some(user),
            _ => None,
        }
    }

    /// True if this entry ends the membership of a listener whose access was read when the log's head was `admitted_at`.
    /// The user was added again after a removal up to there.
    pub(super) fn removes(&self, outbox: &Outbox, admitted_at: Seq) -> bool {
        #[cfg(feature = "faults")]
        let admitted_at = if crate::faults::has(crate::faults::Fault::UndoneRemovalEnds) { 0 } else { admitted_at };
        self.removed_user().is_some_and(|user| outbox.user() == Some(user))
            && self.seq().is_some_and(|seq| seq > admitted_at)
    }

    /// The conversation of which this entry of an inbox says that its user is no member any more.
    fn left(&self) -> Option<&ConversationId> {
        match &self.entry()?.body {
            Body::ConversationRemoved { conversation } => Some(conversation),
            _ => None,
        }
    }

    /// The signal to the session of a listener: of an inbox, or of a user who needs room.
    fn signal_to(&self, outbox: &Outbox) -> Option<Signal> {
        match &self.event {
            Event::Entry { entry, .. } => match &entry.body {
                Body::ConversationAdded { conversation, since } => {
                    Some(Signal::Added { conversation: conversation.clone(), since: *since })
                }
                _ => None,
            },
            Event::Ephemeral { ephemeral, .. } => match &ephemeral.what {
                Ephemeral::Probe { user } => (outbox.user() == Some(user)).then_some(Signal::Probe),
                _ => None,
            },
        }
    }

    /// The conversation and the seq of an entry that another socket sent; none for another event.
    fn place(&self, connection: ConnectionId) -> Option<(ConversationId, Seq)> {
        let entry = self.entry().filter(|_| self.own_ack(connection).is_none())?;
        Some((entry.log.conversation()?, entry.seq))
    }

    /// The change of a user's presence, for a client that is shown a list of online users.
    fn presence(&self) -> Option<(UserId, bool)> {
        match &self.event {
            Event::Ephemeral { ephemeral, .. } => match &ephemeral.what {
                Ephemeral::Presence { user, online, .. } => Some((user.clone(), *online)),
                _ => None,
            },
            Event::Entry { .. } => None,
        }
    }
}

/// The content of the ack of an entry.
pub(super) fn sent_of(Entry { log, seq, client_id, at, .. }: &Entry, ack: &PendingAck) -> Sent {
    let (log, recipient, client_id) = (log.clone(), ack.recipient().cloned(), client_id.clone());
    Sent { log, recipient, seq: *seq, at: *at, client_id, duplicate: false }
}

/// The frame of an ack.
pub(super) fn ack_frame(dialect: Dialect, ack: &PendingAck, sent: Sent) -> Option<Frame> {
    let reference = ack.reference().map(ToOwned::to_owned);
    dialect.reply(RequestMeta { reference, client_id: sent.client_id.clone(), at: sent.at }, &Reply::Sent(sent))
}

/// The result of a hand-over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct HandOver {
    /// Number of frames, acks not counted, that the outbox accepted.
    pub(super) frames: u64,
    /// True if the caller must call [`Outbox::flush`].
    pub(super) unwritten: bool,
}

/// Hands one listener its deliveries: all frames in one push, then the signals to its session.
pub(super) fn hand_over<'a>(
    outbox: &Outbox,
    dialect: Dialect,
    deliveries: impl Iterator<Item = &'a Delivery> + Clone,
) -> HandOver {
    let (mut frames, connection) = (0, outbox.connection());
    let encoded = deliveries.clone().flat_map(|delivery| {
        let [copy, ack] = delivery.frames(dialect, connection);
        frames += u64::from(copy.is_some());
        copy.into_iter().chain(ack)
    });
    let unwritten = outbox.push(encoded);
    let signals = deliveries.clone().filter_map(|delivery| delivery.signal_to(outbox));
    signals.for_each(|signal| outbox.signal(signal));
    deliveries.clone().filter_map(Delivery::left).for_each(|conversation| outbox.drop_hint(conversation));
    if dialect.greets_with() == RosterPolicy::Acquaintances {
        let changes: Vec<_> = deliveries.clone().filter_map(Delivery::presence).collect();
        if !changes.is_empty() {
            outbox.signal(Signal::Presence(changes));
        }
    }
    if dialect.joins() == AutoJoin::Directs {
        // The client can't acknowledge entries.
        if let Some((conversation, seq)) = deliveries.filter_map(|delivery| delivery.place(connection)).last() {
            outbox.signal_delivered(conversation, seq);
        }
    }
    HandOver { frames, unwritten }
}

/// Signals to the session of a listener that an entry ended its membership.
pub(super) fn signal_removed(outbox: &Outbox, delivery: &Delivery) {
    if let (Some(conversation), Some(seq)) = (delivery.event.log().conversation(), delivery.seq()) {
        outbox.signal(Signal::Removed { conversation, seq });
    }
}

/// The frame that tells a listener to resync, for each dialect. Clients don't read inboxes as logs, so there is none for them.
pub(super) fn resync_notes(log: &LogId, first: Seq, head: Seq) -> Arc<[Option<Frame>; Dialect::COUNT]> {
    let is_conversation = log.conversation().is_some();
    Arc::new(Dialect::ALL.map(|dialect| dialect.resync(log, first, head).filter(|_| is_conversation)))
}

/// Signals to the session of a listener that can't acknowledge entries that its log was restarted.
pub(super) fn signal_resync(outbox: &Outbox, dialect: Dialect, log: &LogId) {
    if let (AutoJoin::Directs, Some(conversation)) = (dialect.joins(), log.conversation()) {
        outbox.signal(Signal::Restarted(conversation));
    }
}

/// Hands a listener the entries that it missed before it goes live, with the frames and signals of live delivery.
/// Returns the seq of the last one. Returns none if an entry ends the membership of a user whose access was read when the
/// log's head was `admitted_at`; later entries are not handed over.
pub(super) fn hand_over_missed(
    supervisor: &Supervisor,
    outbox: &Outbox,
    dialect: Dialect,
    pair: Option<&Arc<Pair>>,
    admitted_at: Seq,
    entries: impl IntoIterator<Item = Entry>,
) -> Option<Seq> {
    let mut deliveries = Vec::new();
    let mut removed = false;
    for entry in entries {
        let delivery =
            Delivery::new(Event::Entry { entry: Arc::new(entry), origin: None }, pair.cloned(), supervisor.clone());
        removed = delivery.removes(outbox, admitted_at);
        deliveries.push(delivery);
        if removed {
            break;
        }
    }
    if hand_over(outbox, dialect, deliveries.iter()).unwritten {
        outbox.flush();
    }
    let last = deliveries.last()?;
    if removed {
        signal_removed(outbox, last);
        return None;
    }
    last.seq()
}
