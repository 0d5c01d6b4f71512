//! Signs that nodes give in the store: of life, and of being cut off from others in Redis.

use std::{fmt, time::Duration};

use crate::model::NodeId;

/// Maximum number of nodes that are read as living.
pub const LIVING_MAX: usize = 1_000;

/// A node whose process gives signs of life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LivingNode {
    /// The node.
    pub node: NodeId,
    /// Time since its last sign.
    pub signed_ago: Duration,
    /// True if it says that it may not reach others through Redis.
    pub alone: bool,
}

/// The sign of a node that reaches some of the others only through the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelaySign {
    node: NodeId,
    apart: bool,
}

impl RelaySign {
    /// The end of the form of the second kind. Ids of nodes have no such letter.
    pub(super) const APART: &str = "#apart";

    /// The node may not reach others through Redis.
    pub fn alone(node: NodeId) -> Self {
        Self { node, apart: false }
    }

    /// Redis works for this node, and other nodes use another one.
    pub fn apart(node: NodeId) -> Self {
        Self { node, apart: true }
    }
}

/// The form in the store.
impl fmt::Display for RelaySign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.node, if self.apart { Self::APART } else { "" })
    }
}
