//! A node's identity in Redis during one era.

use std::{fmt, sync::Arc};

use uuid::Uuid;

use crate::model::{DeploymentTag, NodeId};

/// Maximum number of hexadecimal digits at the end of an incarnation.
const RANDOM_DIGITS: usize = 16;

/// A node's identity during one era: `node#deployment.random`, or `node#random` of an earlier version. After an era ends the node takes a new one. Everything that the
/// old incarnation left in Redis, including commands that arrive late, is then cleaned up like that of a dead node.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Incarnation(Arc<str>);

impl Incarnation {
    /// A new incarnation of `node`. Before its deployment is known, it has none, and is never used in Redis.
    pub(super) fn fresh(node: &NodeId, deployment: Option<DeploymentTag>) -> Self {
        let random = &Uuid::new_v4().simple().to_string()[..RANDOM_DIGITS];
        let deployment = deployment.map(|tag| format!("{tag}.")).unwrap_or_default();
        Self(format!("{node}#{deployment}{random}").into())
    }

    /// Parses the form that Redis holds. `None` for anything else, which no node wrote.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (node, suffix) = text.split_once('#')?;
        let (deployment, random) =
            suffix.split_once('.').map_or((None, suffix), |(deployment, random)| (Some(deployment), random));
        let is_random =
            (1..=RANDOM_DIGITS).contains(&random.len()) && random.bytes().all(|digit| digit.is_ascii_hexdigit());
        let is_whole = is_random && deployment.is_none_or(|tag| DeploymentTag::parse(tag).is_ok());
        NodeId::parse(node).ok().filter(|_| is_whole).map(|_| Self(text.into()))
    }

    /// The node's id.
    pub(super) fn node(&self) -> Option<NodeId> {
        NodeId::parse(self.0.split_once('#')?.0).ok()
    }

    /// The deployment; `None` for a node of an earlier version.
    pub(super) fn deployment(&self) -> Option<DeploymentTag> {
        DeploymentTag::parse(self.0.split_once('#')?.1.split_once('.')?.0).ok()
    }

    /// The form that Redis holds.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_node_wrote_is_no_incarnation() {
        for text in [
            "node",
            "node#",
            "#00",
            "node#zz",
            "no node#00",
            "node#0123456789ab.",
            "node#0123.00",
            "node#00112233445566778",
        ] {
            assert_eq!(Incarnation::parse(text), None, "{text}");
        }
        let node = NodeId::parse("node").unwrap();
        let tag = DeploymentTag::parse("0123456789ab").unwrap();
        for own in [Incarnation::fresh(&node, Some(tag)), Incarnation::fresh(&node, None)] {
            assert_eq!(Incarnation::parse(own.as_str()), Some(own));
        }
    }
}
