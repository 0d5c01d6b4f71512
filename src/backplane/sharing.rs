//! Another deployment on the same keys: who it is.
//!
//! The keys of two deployments would mix: users of one would count against the connections and limits of the other, and be
//! shown as online there. Therefore keys belong to one deployment at a time; `scripts/renew.lua` decides.

use std::{collections::BTreeSet, fmt};

use super::incarnation::Incarnation;
use crate::model::{DeploymentTag, NodeId};

/// Maximum number of names in a list.
const NAMED: usize = 5;

/// Why this node can't use its keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Sharing {
    /// Nodes of another deployment use them.
    InUse(Neighbours),
    /// Another node of this deployment removes what another one left.
    Removing,
}

/// Nodes of other deployments.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Neighbours {
    pub(super) deployments: BTreeSet<DeploymentTag>,
    pub(super) nodes: BTreeSet<NodeId>,
}

impl Neighbours {
    /// The holders of leases on keys that belong to this deployment.
    pub(super) fn holding<'a>(owner: Option<DeploymentTag>, leases: impl Iterator<Item = &'a Incarnation>) -> Self {
        let mut found = Self { deployments: owner.into_iter().collect(), nodes: BTreeSet::new() };
        for lease in leases {
            found.deployments.extend(lease.deployment());
            found.nodes.extend(lease.node());
        }
        found
    }
}

/// The deployment in the name of an epoch; `None` for one of an earlier version.
pub(super) fn owner(epoch: &str) -> Option<DeploymentTag> {
    DeploymentTag::parse(epoch.strip_prefix('/')?.split_once('.')?.0).ok()
}

impl fmt::Display for Neighbours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = |count: usize| if count > 1 { "s" } else { "" };
        write!(f, "deployment{} {}", plural(self.deployments.len()), named(&self.deployments))?;
        match self.nodes.len() {
            0 => Ok(()),
            count => write!(f, " (node{} {})", plural(count), named(&self.nodes)),
        }
    }
}

/// The first of these names, and how many there are beyond them.
pub(super) fn named(all: &BTreeSet<impl fmt::Display>) -> String {
    let names = all.iter().take(NAMED).map(ToString::to_string).collect::<Vec<_>>().join(", ");
    match all.len().saturating_sub(NAMED) {
        0 => names,
        more => format!("{names} and {more} more"),
    }
}

impl fmt::Display for Sharing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse(others) => write!(
                f,
                "{others} {} these keys, or did a moment ago. Give this deployment another database number in REDIS_URL, which \
                 a cluster has not, another REDIS_PREFIX, or a Redis of its own",
                if others.deployments.len() > 1 { "use" } else { "uses" }
            ),
            Self::Removing => write!(f, "another node removes what another deployment left under these keys"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_named() {
        let lease = |text: &str| Incarnation::parse(text).unwrap();
        let named = |epoch: &str, leases: &[&str]| {
            let leases: Vec<_> = leases.iter().map(|text| lease(text)).collect();
            Neighbours::holding(owner(epoch), leases.iter()).to_string()
        };
        let epoch = "/0123456789ab.00";
        assert_eq!(named(epoch, &[]), "deployment 0123456789ab");
        assert_eq!(named(epoch, &["b#0123456789ab.7"]), "deployment 0123456789ab (node b)");
        assert_eq!(named(epoch, &["b#7", "a#ba9876543210.1"]), "deployments 0123456789ab, ba9876543210 (nodes a, b)");
        let many: Vec<_> = (0..8).map(|n| format!("n{n}#0123456789ab.7")).collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        assert_eq!(named(epoch, &many), "deployment 0123456789ab (nodes n0, n1, n2, n3, n4 and 3 more)");
        assert_eq!(owner("/0123456789ab0123456789ab01234567"), None, "an earlier version");
    }
}
