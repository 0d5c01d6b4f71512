//! The commands that several files send to the registry's keys.

use std::time::Duration;

use redis::Pipeline;

use super::{
    incarnation::Incarnation,
    keys::{Keys, departure},
    local::{Held, Share},
    scripts::SYNC,
    types::Scope,
};
use crate::model::{ConnectionId, ConversationId, UserId};

/// Lifetime of a user's registry entry after its last renewal, in seconds.
pub(super) const ENTRY_TTL: u64 = 3_600;

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
    for Held { id, since, scope: of, .. } in connections {
        call.arg(id.to_string()).arg(since.micros()).arg(scope(of));
    }
    for (room, listeners) in share.map_or(&[][..], |share| &share.rooms) {
        call.arg(room.as_str()).arg(join_ids(listeners));
    }
}

/// Schedules a check of a user's departures at `due`, in microseconds of Redis' clock. Any node may run it.
pub(super) fn schedule_check(pipeline: &mut Pipeline, keys: &Keys, user: &UserId, due: i64) {
    pipeline.cmd("ZADD").arg(keys.leaving()).arg(due).arg(departure(user, due));
}

/// Adds a user to the view of a conversation's listeners.
pub(super) fn add_listener(pipeline: &mut Pipeline, keys: &Keys, conversation: &ConversationId, user: &UserId) {
    let key = keys.audience(conversation);
    pipeline.cmd("SADD").arg(&key).arg(user.as_str()).cmd("EXPIRE").arg(&key).arg(2 * ENTRY_TTL);
}

/// Ids in one argument of a script.
pub(super) fn join_ids(ids: &[ConnectionId]) -> String {
    ids.iter().map(ConnectionId::to_string).collect::<Vec<_>>().join(" ")
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
