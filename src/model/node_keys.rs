//! The keys with which the nodes of one deployment recognise what they wrote into Redis.

use std::{fmt, sync::Arc};

/// A key. Its `Debug` output hides the secret.
#[derive(Clone, PartialEq, Eq)]
pub struct NodeKey {
    id: i64,
    secret: Arc<[u8]>,
}

impl NodeKey {
    /// The shortest secret, in bytes. The tables of both stores check it too.
    pub const MIN_BYTES: usize = 32;

    /// A key; `None` if the secret is too short.
    pub fn new(id: i64, secret: &[u8]) -> Option<Self> {
        (secret.len() >= Self::MIN_BYTES).then(|| Self { id, secret: secret.into() })
    }

    /// The number of the key, which stands beside everything that it signs.
    pub fn id(&self) -> i64 {
        self.id
    }

    /// The secret itself.
    pub fn reveal(&self) -> &[u8] {
        &self.secret
    }
}

impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The keys that nodes accept, and the one that they sign with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeKeys {
    signing: NodeKey,
    others: Vec<NodeKey>,
}

impl NodeKeys {
    /// Of keys in the order of their age, newest first, the first settled one signs: every node has had the time to read
    /// it. If none is settled, the oldest one signs. `None` without keys.
    pub fn new(newest_first: impl IntoIterator<Item = (NodeKey, bool)>) -> Option<Self> {
        let (mut others, settled): (Vec<_>, Vec<_>) = newest_first.into_iter().unzip();
        let signing = settled.iter().position(|settled| *settled).or(others.len().checked_sub(1))?;
        Some(Self { signing: others.remove(signing), others })
    }

    /// The key to sign with.
    pub fn signing(&self) -> &NodeKey {
        &self.signing
    }

    /// All keys; what any of them signed is accepted.
    pub fn accepted(&self) -> impl Iterator<Item = &NodeKey> {
        std::iter::once(&self.signing).chain(&self.others)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signing(settled: &[(i64, bool)]) -> Option<i64> {
        let key = |id| NodeKey::new(id, &[7; 32]).unwrap();
        let keys = NodeKeys::new(settled.iter().map(|(id, settled)| (key(*id), *settled)))?;
        assert_eq!(keys.accepted().count(), settled.len());
        Some(keys.signing().id())
    }

    #[test]
    fn the_newest_key_that_every_node_knows_signs() {
        assert_eq!(signing(&[]), None);
        assert_eq!(signing(&[(1, false)]), Some(1), "the first one");
        assert_eq!(signing(&[(2, false), (1, true)]), Some(1), "a new one must spread first");
        assert_eq!(signing(&[(3, true), (2, true), (1, true)]), Some(3));
        assert_eq!(signing(&[(3, false), (2, false)]), Some(2));
    }

    #[test]
    fn a_secret_has_a_least_length_and_is_not_shown() {
        assert_eq!(NodeKey::new(1, &[7; 31]), None);
        assert_eq!(format!("{:?}", NodeKey::new(1, &[7; 32]).unwrap()), "NodeKey { id: 1, .. }");
    }
}
