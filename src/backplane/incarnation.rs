//! The name under which Redis knows one life of a node.

use std::{fmt, sync::Arc};

use uuid::Uuid;

use crate::model::NodeId;

/// One life of a node, as far as Redis knows: `node#random`. A node that lost touch with Redis begins a new one, so
/// that whatever the old one left behind, even by a command that arrives late, is cleaned up like a dead node's.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Incarnation(Arc<str>);

impl Incarnation {
    /// A new life of `node`.
    pub(super) fn fresh(node: &NodeId) -> Self {
        Self(format!("{node}#{}", &Uuid::new_v4().simple().to_string()[..16]).into())
    }

    /// Reads what Redis holds.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (node, life) = text.split_once('#')?;
        NodeId::parse(node).ok().filter(|_| !life.is_empty()).map(|_| Self(text.into()))
    }

    /// The node whose life it is.
    pub(super) fn node(&self) -> Option<NodeId> {
        NodeId::parse(self.0.split_once('#')?.0).ok()
    }

    /// As Redis holds it.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
