//! Display names in registry entries, each with a tag that signs the entry's key and the name. A departure is announced
//! with that name by whichever node claims it, so another program must not be able to choose it.

use std::sync::Arc;

use super::{
    keys::Keys,
    mac::{Kind, Macs, Standing, TAG_MAX},
    refusals::{Refusals, RefusedPlace},
};
use crate::model::UserId;

/// Longest signed name that is read, in bytes. A name has at most 128 characters of up to 4 bytes.
const SIGNED_MAX: usize = 4 * 128 + 1 + TAG_MAX;

/// Signs and verifies display names.
pub(super) struct Names {
    pub(super) keys: Arc<Keys>,
    pub(super) macs: Arc<Macs>,
    pub(super) refusals: Arc<Refusals>,
}

impl Names {
    /// The name as an entry holds it: the name, a line end, and the tag. Empty until the keys are known.
    pub(super) fn signed(&self, user: &UserId, name: &str) -> String {
        let tag = self.macs.tag(Kind::Name, &self.keys.entry(user), &[name.as_bytes()]);
        tag.map_or_else(String::new, |tag| format!("{name}\n{tag}"))
    }

    /// The name in an entry. A user whose name nobody signed is shown by the id, as without a name.
    pub(super) fn verified(&self, user: &UserId, held: &[u8]) -> Arc<str> {
        let key = self.keys.entry(user);
        let parts =
            std::str::from_utf8(&held[..held.len().min(SIGNED_MAX)]).ok().and_then(|held| held.rsplit_once('\n'));
        let standing = match parts {
            _ if held.is_empty() => return user.as_str().into(),
            Some((name, tag)) => self.macs.standing(Kind::Name, key.as_bytes(), &[name.as_bytes()], tag.as_bytes()),
            None => Standing::Forged,
        };
        match (standing, parts) {
            (Standing::Genuine, Some((name, _))) => return name.into(),
            (Standing::Retired, _) => self.refusals.note(RefusedPlace::Retired, &key, 1),
            _ => self.refusals.note(RefusedPlace::Name, &key, 1),
        }
        user.as_str().into()
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{mac::tests::macs, shards::Layout},
        *,
    };
    use crate::{config::RedisPrefix, metrics::Metrics};

    #[test]
    fn a_name_that_no_node_signed_for_this_user_is_not_shown() {
        let refusals = Arc::new(Refusals::new(Arc::new(Metrics::new().unwrap())));
        let names =
            Names { keys: Arc::new(Keys::new(&RedisPrefix::default(), Layout::Single)), macs: macs(1), refusals };
        let user = |id: &str| UserId::parse(id).unwrap();
        let longest = "\u{1f600}".repeat(128);
        for name in ["Bob", "Bob Ä", &longest] {
            let held = names.signed(&user("bob"), name);
            assert_eq!(&*names.verified(&user("bob"), held.as_bytes()), name);
            assert_eq!(&*names.verified(&user("eve"), held.as_bytes()), "eve");
            let forged = held.replacen('B', "R", 1).replacen('\u{1f600}', "x", 1);
            assert_eq!(&*names.verified(&user("bob"), forged.as_bytes()), "bob");
        }
        for forged in [&b"Support"[..], b"", b"\n", b"Support\n1.AAAAAAAAAAAAAAAAAAAAAA", b"\xff\n1.", &[b'x'; 5_000]] {
            assert_eq!(&*names.verified(&user("bob"), forged), "bob");
        }
    }
}
