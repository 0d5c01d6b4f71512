//! The commands that a node sends for its lease, in every shard, and their replies.

use std::time::Duration;

use redis::Pipeline;
use uuid::Uuid;

use super::{
    incarnation::Incarnation, keys::Keys, link_error::LinkError, lossy::Lossy, replies::Replies, scripts::RENEW,
    shards::Shard,
};

/// The reply of `renew.lua`: its state, Redis' time in microseconds, the epoch, and leases with the milliseconds left.
pub(super) type Reply = (u8, i64, Lossy, Vec<(Lossy, i64)>);

/// The begin of an era in a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Beginning {
    /// Time since Redis was wiped, long if no node of today's version noticed a wipe.
    pub(super) data_age: Duration,
    /// Other nodes counted the former incarnation as dead, and announced the departure of its users.
    pub(super) reaped: bool,
}

/// A mode of `renew.lua`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Renew,
    /// Renew, and read only the leases that may end soon.
    RenewDue,
    Acquire,
    /// Acquire, if the keys are this deployment's: another one was there a moment ago, and its restart, or a Redis that was
    /// emptied, must not give them away.
    Follow,
    /// Acquire, after what another deployment left was removed.
    Replace,
}

impl Mode {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Renew => "renew",
            Self::RenewDue => "renew due",
            Self::Acquire => "acquire",
            Self::Follow => "follow",
            Self::Replace => "replace",
        }
    }
}

/// Why a node's entries in the registry may be out of date.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doubt {
    /// The node missed a renewal.
    Stale,
    /// The node's lease has expired.
    Dead,
}

impl Doubt {
    /// The form that `register.lua` takes.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Stale => "stale",
            Self::Dead => "dead",
        }
    }
}

/// Adds a call of `renew.lua` for a shard.
pub(super) fn renew(
    pipeline: &mut Pipeline,
    keys: &Keys,
    shard: Shard,
    (incarnation, length): (&Incarnation, Duration),
    mode: Mode,
) -> Result<(), LinkError> {
    let deployment = keys.deployment().borrow().ok_or(LinkError::Down)?;
    let epoch = format!("/{deployment}.{}", Uuid::new_v4().simple());
    let length = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
    let call = RENEW.call(pipeline, keys.nodes(shard)).arg(incarnation.as_str()).arg(length);
    call.arg(mode.as_str()).arg(epoch).arg(deployment.to_string());
    Ok(())
}

/// Takes the replies of `renew.lua` for these shards, which are the first ones of the pipeline. If another program stored something
/// else in the place of leases, the reply is an error.
pub(super) fn take(replies: &mut Replies, shards: &[Shard]) -> Vec<(Shard, Result<Reply, LinkError>)> {
    shards.iter().enumerate().map(|(index, shard)| (*shard, replies.take::<Reply>(index))).collect()
}

/// Adds commands that store the node's number of connections and read that of all nodes.
pub(super) fn store_connections(pipeline: &mut Pipeline, keys: &Keys, me: &Incarnation, connections: usize) {
    let key = keys.connections();
    pipeline.cmd("HSET").arg(key).arg(me.as_str()).arg(connections).cmd("HGETALL").arg(key);
}

/// The time at which an epoch began, in milliseconds of Redis' clock; `None` if a node of an earlier version named it.
pub(super) fn epoch_began(epoch: &str) -> Option<i64> {
    epoch.rsplit_once('@')?.1.parse().ok()
}
