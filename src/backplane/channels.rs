//! Every channel, named in one place. A channel names its deployment, because channels have no database number: nodes of other
//! deployments on the same server would hear them. On a cluster they are sharded channels, which stay on one master.

use redis::{Cmd, Pipeline};

use super::shards::{Layout, SHARDS, Shard};
use crate::model::{DeploymentTag, LogId, NodeId};

/// Pattern of the channels of canaries, those of all deployments and of earlier versions.
pub(super) const CANARIES: &str = "{s*:n:*";

/// The deployment and the process of a canary's channel; no deployment for a process of an earlier version.
pub(super) fn process_of_canary(channel: &str) -> Option<(Option<DeploymentTag>, &str)> {
    let (_, rest) = channel.strip_prefix("{s")?.split_once("}:")?;
    if let Some(process) = rest.strip_prefix("n:") {
        return Some((None, process));
    }
    let (deployment, rest) = rest.split_once(':')?;
    Some((Some(DeploymentTag::parse(deployment).ok()?), rest.strip_prefix("n:")?))
}

/// The channels of a deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Channels {
    pub(super) deployment: DeploymentTag,
    pub(super) layout: Layout,
}

impl Channels {
    /// The channel of a log.
    pub(super) fn log(self, log: &LogId) -> String {
        self.name('c', log.as_str())
    }

    /// The shard of the channel of a log; of a single Redis, its only one.
    pub(super) fn shard_of(self, log: &LogId) -> Shard {
        match self.layout {
            Layout::Single => Shard::HOME,
            Layout::Cluster => Shard::of(log.as_str()),
        }
    }

    /// The shard of the channel of a node's hints, likewise.
    pub(super) fn shard_of_hints(self, node: &NodeId) -> Shard {
        match self.layout {
            Layout::Single => Shard::HOME,
            Layout::Cluster => Shard::of(node.as_str()),
        }
    }

    /// One channel of each kind, to try whether a Redis user may use it: of a canary, of hints and of a log. On a cluster they
    /// are in this shard.
    pub(super) fn checks(self, shard: Shard, id: &str) -> [String; 3] {
        let id = format!("check/{id}");
        ['n', 'h', 'c'].map(|kind| match self.layout {
            Layout::Single => self.name(kind, &id),
            Layout::Cluster => self.name_in(shard, kind, &id),
        })
    }

    /// The log of a channel of [`log`](Self::log).
    pub(super) fn log_of(self, channel: &str) -> Option<LogId> {
        let rest = channel.split_once("}:")?.1.strip_prefix(&format!("{}:c:", self.deployment))?;
        LogId::parse(rest).ok()
    }

    /// The channel on which a process receives its own canary messages. On a cluster there is one in each shard.
    pub(super) fn canary(self, shard: Shard, process: &str) -> String {
        match self.layout {
            Layout::Single => self.name('n', process),
            Layout::Cluster => self.name_in(shard, 'n', process),
        }
    }

    /// The channel on which a node receives hints.
    pub(super) fn hints(self, node: &NodeId) -> String {
        self.name('h', node.as_str())
    }

    /// Adds the publication of a payload on a channel.
    pub(super) fn publish<'a>(self, pipeline: &'a mut Pipeline, channel: &str) -> &'a mut Pipeline {
        let command = match self.layout {
            Layout::Single => "PUBLISH",
            Layout::Cluster => "SPUBLISH",
        };
        pipeline.cmd(command).arg(channel)
    }

    fn name(self, kind: char, of: &str) -> String {
        self.name_in(Shard::of(of), kind, of)
    }

    fn name_in(self, shard: Shard, kind: char, of: &str) -> String {
        match self.layout {
            Layout::Single => format!("{{s{:02}}}:{}:{kind}:{of}", shard.index(), self.deployment),
            Layout::Cluster => format!("{{{}}}:{}:{kind}:{of}", shard.tag(), self.deployment),
        }
    }
}

/// Asks a server for the channels of canaries on which somebody listens.
pub(super) fn list_canaries(layout: Layout) -> Cmd {
    let which = match layout {
        Layout::Single => "CHANNELS",
        Layout::Cluster => "SHARDCHANNELS",
    };
    redis::cmd("PUBSUB").arg(which).arg(CANARIES).take()
}

// A single Redis numbers the shards of channels with two digits.
const _: () = assert!(SHARDS <= 100);

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const TAG: &str = "0123456789ab";

    #[test]
    fn channels_spread_over_the_shards() {
        let own = |layout| Channels { deployment: DeploymentTag::parse(TAG).unwrap(), layout };
        let room = LogId::parse("room").unwrap();
        for (layout, name) in [(Layout::Single, "{s26}"), (Layout::Cluster, "{sdc}")] {
            let own = own(layout);
            assert_eq!(own.log(&room), format!("{name}:{TAG}:c:room"));
            let shards: HashSet<_> = (0..2_000)
                .map(|n| own.log(&LogId::parse(&format!("room-{n}")).unwrap()).split_once('}').unwrap().0.to_owned())
                .collect();
            assert_eq!(shards.len(), SHARDS);
            let others = Channels { deployment: DeploymentTag::parse("ffffffffffff").unwrap(), layout };
            for log in ["room", "~alice", "a:c:b"] {
                let log = LogId::parse(log).unwrap();
                assert_eq!(own.log_of(&own.log(&log)).as_ref(), Some(&log));
                assert_eq!(others.log_of(&own.log(&log)), None);
            }
            let canary = own.canary(Shard::HOME, "n#00");
            assert_eq!(process_of_canary(&canary), Some((Some(own.deployment), "n#00")));
        }
        assert!(own(Layout::Cluster).canary(Shard::HOME, "n#00").starts_with("{sd3}:"));
    }
}
