//! A node's identity in Redis during one era.

use std::{fmt, sync::Arc};

use uuid::Uuid;

use crate::model::{DeploymentTag, NodeId};

/// A node's identity during one era: `node#deployment.random`, or `node#random` of an earlier version. After an era ends the node takes a new one. Everything that the
/// old incarnation left in Redis, including commands that arrive late, is then cleaned up like that of a dead node.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Incarnation(Arc<str>);

impl Incarnation {
    /// A new incarnation of `node`. Before its deployment is known, it has none, and is never used in Redis.
    pub(super) fn fresh(node: &NodeId, deployment: Option<DeploymentTag>) -> Self {
        let random = &Uuid::new_v4().simple().to_string()[..16];
        let deployment = deployment.map(|tag| format!("{tag}.")).unwrap_or_default();
        Self(format!("{node}#{deployment}{random}").into())
    }

    /// Parses the form that Redis holds.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (node, suffix) = text.split_once('#')?;
        NodeId::parse(node).ok().filter(|_| !suffix.is_empty()).map(|_| Self(text.into()))
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
