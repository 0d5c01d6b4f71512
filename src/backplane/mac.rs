//! Message authentication codes (MACs) of what nodes write into Redis and read back: publications and cached messages.
//! Another program with access to Redis can't forge them, and can't move them to another channel or key, because the
//! MAC covers its name.
//!
//! The code is HMAC-SHA256, cut to 128 bits, with a key that only the store holds. Until the keys are known, nothing can
//! be signed, and nothing is accepted.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use arc_swap::ArcSwapOption;
use aws_lc_rs::{constant_time::verify_slices_are_equal, hmac};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use tokio::sync::Notify;

use crate::model::{NodeKey, NodeKeys};

/// Bytes of a code. 128 bits can't be guessed (RFC 2104, section 5).
const CODE_BYTES: usize = 16;
/// The longest tag: a number, a point, and the code in base64.
pub(super) const TAG_MAX: usize = 48;

/// The kind of signed data. Data of one kind never passes for the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A payload on a channel.
    Publication,
    /// An element of a list of recent messages.
    Cached,
    /// A display name in a registry entry.
    Name,
}

/// What a tag says about its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// A node of this deployment made it with a key that counts.
    Genuine,
    /// It names a key that is older than all that count. Data that lasts may have been signed with a key that was removed
    /// since; anybody may write such a number, so it proves nothing.
    Retired,
    /// No node of this deployment made it.
    Forged,
}

impl Kind {
    fn label(self) -> &'static str {
        match self {
            Self::Publication => "publication",
            Self::Cached => "cached",
            Self::Name => "name",
        }
    }
}

/// A key in the form that the library computes with.
struct Prepared {
    id: i64,
    key: hmac::Key,
}

/// Signs and verifies with the keys of the deployment. The benchmark uses it too.
#[derive(Default)]
pub struct Macs {
    /// The signing key comes first.
    keys: ArcSwapOption<Vec<Prepared>>,
    /// Asks for the keys to be read again, because a tag names an unknown one.
    wanted: Notify,
    /// The epoch of the store. Entries of another one may be lost: a new one begins when the store was set back to an earlier
    /// state.
    epoch: AtomicI64,
}

impl Macs {
    /// Replaces the keys.
    pub fn set_keys(&self, keys: &NodeKeys) {
        let prepare = |key: &NodeKey| Prepared { id: key.id(), key: hmac::Key::new(hmac::HMAC_SHA256, key.reveal()) };
        self.keys.store(Some(Arc::new(keys.accepted().map(prepare).collect())));
    }

    /// Sets the epoch of the store.
    pub(super) fn set_epoch(&self, epoch: i64) {
        self.epoch.store(epoch, Ordering::Release);
    }

    /// The epoch of the store, as this node knows it. What is published and cached names the epoch in which it was stored.
    pub(super) fn epoch(&self) -> i64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// True once the keys are known.
    pub fn has_keys(&self) -> bool {
        self.keys.load().is_some()
    }

    /// Returns when a tag named an unknown key.
    pub(super) async fn wants_keys(&self) {
        self.wanted.notified().await;
    }

    /// Signs data under the name of its channel or key: `number-of-the-key.code`. `None` until the keys are known.
    pub fn tag(&self, kind: Kind, name: &str, data: &[&[u8]]) -> Option<String> {
        let keys = self.keys.load();
        let Prepared { id, key } = keys.as_ref()?.first()?;
        let code = BASE64_URL_SAFE_NO_PAD.encode(code(key, kind, name.as_bytes(), data));
        Some(format!("{id}.{code}"))
    }

    /// True if a node of this deployment made the tag for this data under this name.
    pub fn verify(&self, kind: Kind, name: &[u8], data: &[&[u8]], tag: &[u8]) -> bool {
        let keys = self.keys.load();
        let Some((keys, (id, given))) = keys.as_ref().zip(parse(tag)) else { return false };
        let Some(Prepared { key, .. }) = keys.iter().find(|known| known.id == id) else {
            self.wanted.notify_one();
            return false;
        };
        verify_slices_are_equal(&code(key, kind, name, data), &given).is_ok()
    }
}

impl Macs {
    /// What the tag says about this data under this name.
    pub(super) fn standing(&self, kind: Kind, name: &[u8], data: &[&[u8]], tag: &[u8]) -> Standing {
        if self.verify(kind, name, data, tag) {
            return Standing::Genuine;
        }
        let keys = self.keys.load();
        let oldest = keys.as_ref().and_then(|keys| keys.iter().map(|key| key.id).min());
        let retired = oldest.zip(parse(tag)).is_some_and(|(oldest, (id, _))| (0..oldest).contains(&id));
        if retired { Standing::Retired } else { Standing::Forged }
    }
}

impl fmt::Debug for Macs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Macs").field("has_keys", &self.has_keys()).finish_non_exhaustive()
    }
}

/// The number of the key and the code of a tag.
fn parse(tag: &[u8]) -> Option<(i64, [u8; CODE_BYTES])> {
    let (id, text) = std::str::from_utf8(tag).ok()?.split_once('.')?;
    let mut code = [0; CODE_BYTES];
    let length = BASE64_URL_SAFE_NO_PAD.decode_slice(text, &mut code).ok()?;
    (length == CODE_BYTES).then_some((id.parse().ok()?, code))
}

/// The parts are separated by zero bytes, which neither names nor JSON contain, so no two inputs look the same.
fn code(key: &hmac::Key, kind: Kind, name: &[u8], data: &[&[u8]]) -> [u8; CODE_BYTES] {
    let mut context = hmac::Context::with_key(key);
    for part in [kind.label().as_bytes(), name].iter().chain(data) {
        context.update(part);
        context.update(&[0]);
    }
    let (mut code, whole) = ([0; CODE_BYTES], context.sign());
    code.copy_from_slice(&whole.as_ref()[..CODE_BYTES]);
    code
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Codes with one key of this number.
    pub(in crate::backplane) fn macs(id: u8) -> Arc<Macs> {
        let macs = Macs::default();
        macs.set_keys(&keys(&[id]));
        Arc::new(macs)
    }

    fn keys(ids: &[u8]) -> NodeKeys {
        let key = |id: &u8| (NodeKey::new((*id).into(), &[*id; 32]).unwrap(), true);
        NodeKeys::new(ids.iter().map(key)).unwrap()
    }

    #[test]
    fn a_tag_holds_for_its_kind_name_and_data_only() {
        let macs = macs(1);
        let tag = macs.tag(Kind::Cached, "room", &[b"a", b"bc"]).unwrap();
        let verify = |kind, name: &[u8], data: &[&[u8]], tag: &str| macs.verify(kind, name, data, tag.as_bytes());
        assert!(verify(Kind::Cached, b"room", &[b"a", b"bc"], &tag));
        assert!(tag.len() <= TAG_MAX);
        assert!(!verify(Kind::Publication, b"room", &[b"a", b"bc"], &tag));
        assert!(!verify(Kind::Cached, b"roo", &[b"ma", b"bc"], &tag));
        assert!(!verify(Kind::Cached, b"room", &[b"ab", b"c"], &tag));
        assert!(!verify(Kind::Cached, b"room", &[b"abc"], &tag));
        for wrong in ["", "1.", "1", ".", "1.AAAA", "2.", "x.AAAAAAAAAAAAAAAAAAAAAA", &tag[..tag.len() - 1]] {
            assert!(!verify(Kind::Cached, b"room", &[b"a", b"bc"], wrong), "{wrong}");
        }
        assert!(!verify(Kind::Cached, b"room", &[b"a", b"bc"], &tag.replacen('1', "3", 1)));
    }

    #[tokio::test]
    async fn an_unknown_key_is_asked_for_and_an_old_one_is_accepted_as_long_as_it_is_there() {
        let (old, node) = (macs(1), macs(2));
        let tag = old.tag(Kind::Cached, "room", &[b"data"]).unwrap();
        let verify = || node.verify(Kind::Cached, b"room", &[b"data"], tag.as_bytes());
        assert!(!verify());
        node.wants_keys().await;
        node.set_keys(&keys(&[2, 1]));
        assert!(verify());
        assert!(node.tag(Kind::Cached, "room", &[]).unwrap().starts_with("2."));
        assert_eq!(node.standing(Kind::Cached, b"room", &[b"data"], tag.as_bytes()), Standing::Genuine);
        node.set_keys(&keys(&[2]));
        assert!(!verify());
        let standing = |tag: &str| node.standing(Kind::Cached, b"room", &[b"data"], tag.as_bytes());
        assert_eq!(standing(&tag), Standing::Retired);
        assert_eq!(
            [standing(&tag.replacen('1', "2", 1)), standing(&tag.replacen('1', "3", 1)), standing("")],
            [Standing::Forged; 3]
        );
    }

    #[test]
    fn without_keys_nothing_is_signed_or_accepted() {
        let tag = macs(1).tag(Kind::Cached, "room", &[]).unwrap();
        let none = Macs::default();
        assert_eq!(none.tag(Kind::Cached, "room", &[]), None);
        assert!(!none.verify(Kind::Cached, b"room", &[], tag.as_bytes()));
        assert!(!none.has_keys());
    }
}
