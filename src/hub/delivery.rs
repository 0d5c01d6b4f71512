//! What an event becomes for a socket that listens, and the one door through which it reaches that socket's outbox: live
//! delivery ([`super::shard`]) and replay ([`hand_over_missed`]) both use it.

use std::sync::{Arc, OnceLock};

use crate::{
    dialect::{AutoJoin, Dialect},
    model::{Body, Entry, Event, Pair, Seq, UserId},
    outbox::{Frame, Outbox, Signal},
};

/// An event on its way to sockets, with its frame for each dialect, made when first needed.
#[derive(Debug)]
pub(super) struct Delivery {
    pub(super) event: Event,
    /// The two members, where the log is a direct conversation and a dialect asked.
    pair: Option<Arc<Pair>>,
    frames: [OnceLock<Option<Frame>>; Dialect::COUNT],
}

impl Delivery {
    pub(super) fn new(event: Event, pair: Option<Arc<Pair>>) -> Self {
        Self { event, pair, frames: std::array::from_fn(|_| OnceLock::new()) }
    }

    fn frame(&self, dialect: Dialect) -> Option<&Frame> {
        self.frames[dialect.index()].get_or_init(|| dialect.event(&self.event, self.pair.as_deref())).as_ref()
    }

    fn entry(&self) -> Option<&Entry> {
        match &self.event {
            Event::Entry { entry, .. } => Some(entry),
            Event::Ephemeral { .. } => None,
        }
    }

    /// The entry's seq; none of what passes.
    pub(super) fn seq(&self) -> Option<Seq> {
        self.entry().map(|entry| entry.seq)
    }

    /// Whose membership this ends.
    pub(super) fn removes(&self) -> Option<&UserId> {
        match &self.entry()?.body {
            Body::MemberRemoved { user } => Some(user),
            _ => None,
        }
    }

    /// What this tells the sessions that follow an inbox.
    fn added(&self) -> Option<Signal> {
        match &self.entry()?.body {
            Body::ConversationAdded { conversation, since } => {
                Some(Signal::Added { conversation: conversation.clone(), since: *since })
            }
            _ => None,
        }
    }

    /// What this tells the session of a client that can't say what it has.
    fn handed_over(&self) -> Option<Signal> {
        let entry = self.entry()?;
        Some(Signal::Delivered(entry.log.conversation()?, entry.seq))
    }
}

/// What came of a hand-over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Handed {
    /// How many frames the outbox was given.
    pub(super) frames: u64,
    /// Whether [`Outbox::flush`] must follow.
    pub(super) unwritten: bool,
}

/// Hands one listener what is for it: the frames in one push, then what its session is told.
pub(super) fn hand_over<'a>(
    outbox: &Outbox,
    dialect: Dialect,
    deliveries: impl Iterator<Item = &'a Delivery> + Clone,
) -> Handed {
    let mut frames = 0;
    let encoded = deliveries.clone().filter_map(|delivery| delivery.frame(dialect).cloned());
    let unwritten = outbox.push(encoded.inspect(|_| frames += 1));
    deliveries.clone().filter_map(Delivery::added).for_each(|signal| outbox.signal(signal));
    if dialect.joins() == AutoJoin::Directs {
        deliveries.filter_map(Delivery::handed_over).last().into_iter().for_each(|signal| outbox.signal(signal));
    }
    Handed { frames, unwritten }
}

/// Tells the session of a listener whose membership an entry ended.
pub(super) fn tell_removed(outbox: &Outbox, delivery: &Delivery) {
    if let Some(conversation) = delivery.event.log().conversation() {
        outbox.signal(Signal::Removed(conversation));
    }
}

/// Hands a listener entries that it missed, before it is live: the same frames and signals that it would have got live.
/// Returns the seq of the last one; none where an entry ended the user's membership, behind which nothing is handed over.
pub fn hand_over_missed(
    outbox: &Outbox,
    dialect: Dialect,
    pair: Option<&Arc<Pair>>,
    entries: impl IntoIterator<Item = Entry>,
) -> Option<Seq> {
    let mut deliveries = Vec::new();
    let mut removed = false;
    for entry in entries {
        let delivery = Delivery::new(Event::Entry { entry: Arc::new(entry), origin: None }, pair.cloned());
        removed = delivery.removes().is_some_and(|user| outbox.user() == Some(user));
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
        tell_removed(outbox, last);
        return None;
    }
    last.seq()
}
