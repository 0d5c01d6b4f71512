//! The commands that several files send to the registry's keys, and the replies.

use std::time::Duration;

use redis::Pipeline;
use serde::Serialize;

use super::{
    era::Era,
    incarnation::Incarnation,
    keys::{Keys, departure},
    line::{Line, opened, parse_lines},
    link_error::LinkError,
    local::{Held, Share},
    lossy::Lossy,
    redis_clock::SetBack,
    replies::Replies,
    scripts::SYNC,
    types::{Return, Scope},
};
use crate::model::{ConnectionId, ConversationId, NodeId, Timestamp, UserId};

/// Lifetime of a user's registry entry after its last renewal, in seconds.
pub(super) const ENTRY_TTL: u64 = 3_600;

/// Part of [`latest_due`].
const CLOCK_MARGIN: Duration = Duration::from_secs(60);
/// The same after Redis' clock was set back: the doubt about that clock.
const CLOCK_DOUBT: Duration = Duration::from_secs(1);

/// Further tasks of the next write of a user's state.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Unwritten {
    /// The user's departure was announced already.
    pub(super) announced: bool,
    /// Redis refused the user in the first write of this era: a return is still to be announced.
    pub(super) era: Option<Era>,
    /// Nodes were told that the user departed, who is connected here: a return is to be announced if the entry lacks the user.
    pub(super) told_gone: bool,
}

/// The JSON value of `ws:user:{id}`.
#[derive(Serialize)]
struct Summary<'a> {
    connected_at: Timestamp,
    last_seen: Timestamp,
    server_id: &'a NodeId,
}

/// The reply of `sync.lua` for one user.
#[derive(Debug)]
pub(super) struct Synced {
    pub(super) was_online: bool,
    pub(super) removed: u64,
    pub(super) lines: Vec<Line>,
    pub(super) begun: Vec<ConversationId>,
    /// Connections of the caller that gave way to others on other nodes; they are not among `lines`.
    pub(super) gave_way: Vec<ConnectionId>,
}

impl Synced {
    /// Reads a reply of `sync.lua`.
    pub(super) fn read(replies: &mut Replies, index: usize) -> Result<Self, LinkError> {
        let (was_online, removed, lines, begun, gave_way): (bool, u64, Lossy, Vec<Lossy>, Lossy) =
            replies.take(index)?;
        let begun = begun.iter().filter_map(|id| ConversationId::parse(&id.0).ok()).collect();
        Ok(Self { was_online, removed, lines: parse_lines(&lines.0), begun, gave_way: parse_ids(&gave_way.0) })
    }
}

/// Adds a call of `sync.lua`; the name is signed. Without a share it removes both incarnations' connections of the user.
pub(super) fn sync_call(
    pipeline: &mut Pipeline,
    keys: &Keys,
    (user, name): (&UserId, &str),
    (me, former): (&Incarnation, Option<&Incarnation>),
    share: Option<&Share>,
    grace: Duration,
) {
    let connections = share.map_or(&[][..], |share| &share.connections);
    let call = SYNC.call(pipeline, &keys.entry(user)).arg(me.as_str()).arg(former.map_or("", Incarnation::as_str));
    call.arg(name).arg(micros(grace)).arg(ENTRY_TTL).arg(connections.len());
    for Held { id, since, dialect, scope: of, .. } in connections {
        call.arg(id.to_string()).arg(opened(*since, dialect)).arg(scope(of));
    }
    for (room, listeners) in share.map_or(&[][..], |share| &share.rooms) {
        call.arg(room.as_str()).arg(join_ids(listeners));
    }
}

/// Schedules a check of a user's departures at `due`, in microseconds of Redis' clock. Any node may run it.
pub(super) fn schedule_check(pipeline: &mut Pipeline, keys: &Keys, user: &UserId, due: i64) {
    pipeline.cmd("ZADD").arg(keys.leaving(keys.shard_of(user))).arg(due).arg(departure(user, due));
}

/// Adds a user to the view of a conversation's listeners.
pub(super) fn add_listener(pipeline: &mut Pipeline, keys: &Keys, conversation: &ConversationId, user: &UserId) {
    let key = keys.audience(conversation);
    pipeline.cmd("SADD").arg(&key).arg(user.as_str()).cmd("EXPIRE").arg(&key).arg(2 * ENTRY_TTL);
}

/// Stores the view of a user's newest connection; nothing if there is none.
pub(super) fn summarize(pipeline: &mut Pipeline, keys: &Keys, user: &UserId, lines: &[Line], now: Timestamp) {
    let Some(newest) = lines.iter().max_by_key(|line| line.since) else { return };
    let Some(server_id) = newest.holder.node() else { return };
    let summary = Summary { connected_at: newest.since, last_seen: now, server_id: &server_id };
    let json = serde_json::to_string(&summary).unwrap_or_default();
    pipeline.cmd("SET").arg(keys.summary(user)).arg(json).arg("EX").arg(ENTRY_TTL);
}

/// Ids in one argument of a script.
pub(super) fn join_ids(ids: &[ConnectionId]) -> String {
    ids.iter().map(ConnectionId::to_string).collect::<Vec<_>>().join(" ")
}

/// The ids of connections in a reply of a script.
pub(super) fn parse_ids(text: &str) -> Vec<ConnectionId> {
    text.split_ascii_whitespace().filter_map(|id| ConnectionId::parse(id).ok()).collect()
}

/// A scope as an argument of a script.
pub(super) fn scope(scope: &Scope) -> &str {
    match scope {
        Scope::User => "",
        Scope::Conversation(id) => id.as_str(),
    }
}

/// A duration as an argument of a script.
pub(super) fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// The [`Return`] to announce after a write of a user's state, if there is one.
pub(super) fn return_after(unwritten: Unwritten, lease: Duration, share: Share, synced: Synced) -> Option<Return> {
    match unwritten.era {
        Some(era) if !unwritten.told_gone => return_to_announce(&era, era.is_fresh(lease), share, synced),
        None if !unwritten.told_gone => None,
        _ => return_of(share, synced),
    }
}

/// The longest time until a departure is due, in microseconds. Usually generous, because another node may have another grace;
/// exact after Redis' clock was set back, because departures from before then seem to be due later.
pub(super) fn latest_due(grace: Duration, set_back: Option<SetBack>) -> i64 {
    let usual = grace * 2 + CLOCK_MARGIN;
    let set_back = set_back.is_some_and(|step| step.age() <= usual);
    micros(if set_back { grace + CLOCK_DOUBT } else { usual })
}

/// The [`Return`] to announce: other nodes were told that the user departed, or never that they came online. `None`
/// if other nodes believe the user to be online.
fn return_to_announce(era: &Era, fresh: bool, share: Share, synced: Synced) -> Option<Return> {
    let unseen = era.lost_at.is_some_and(|lost| share.connections.iter().all(|held| held.since >= lost));
    // After a wipe nobody was told that the user departed, unless this node comes back late.
    if fresh && !unseen {
        return None;
    }
    return_of(share, synced)
}

fn return_of(share: Share, synced: Synced) -> Option<Return> {
    let (online, joined) = (!synced.was_online, synced.begun);
    (online || !joined.is_empty()).then_some(Return { user: share.user, name: share.name, joined, online })
}

/// True if Redis refused a command of a call, so that what the others wrote is not the whole; or if a later call may have reached
/// Redis before a command.
pub(super) fn is_partly_refused(result: &Result<Replies, LinkError>) -> bool {
    result.as_ref().is_ok_and(|replies| replies.refusal().is_some() || replies.may_be_overtaken())
}
