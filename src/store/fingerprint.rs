//! Tells a repeated command from another command that reuses its `client_id`.

use aws_lc_rs::digest::{Context, SHA256};

use super::{NewEntry, row::Columns};
use crate::model::{Body, ClientId, Entry, LogId, UserId};

/// The hash of a command with a `client_id`, as it was first sent: a later edit does not change it. The deletion of a
/// message removes the hashes of its texts, because short texts could be guessed from them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fingerprint(i64);

impl Fingerprint {
    /// The fingerprint of an entry to append; `None` if the broker made its id, which is then used for this entry only.
    pub(super) fn of(new: &NewEntry) -> Option<Self> {
        new.client_gave_id.then(|| Self::of_command(&new.log, &new.sender, &new.dedupe, &new.body))
    }

    /// Hashes the command's ids and its body. Each field has a name of its own, and one that is absent adds nothing: a new
    /// field does not change the fingerprints of commands without it.
    fn of_command(log: &LogId, sender: &UserId, client_id: &ClientId, body: &Body) -> Self {
        let Columns { kind, content, data, target, subject, flag } = Columns::from(body);
        let mut hash = Context::new(&SHA256);
        let mut add = |name: u8, value: &[u8]| {
            hash.update(&[name]);
            hash.update(&(value.len() as u64).to_be_bytes());
            hash.update(value);
        };
        add(b'l', log.as_str().as_bytes());
        add(b's', sender.as_str().as_bytes());
        add(b'i', client_id.as_str().as_bytes());
        add(b'k', &i16::from(kind).to_be_bytes());
        add(b'f', &[u8::from(flag)]);
        content.into_iter().for_each(|content| add(b'c', content.as_bytes()));
        data.into_iter().for_each(|data| add(b'd', data.as_bytes()));
        target.into_iter().for_each(|target| add(b't', &target.to_be_bytes()));
        subject.into_iter().for_each(|subject| add(b'o', subject.as_bytes()));
        let mut first = [0; 8];
        first.copy_from_slice(&hash.finish().as_ref()[..8]);
        Self(i64::from_be_bytes(first))
    }

    /// The value of the column.
    pub(super) fn number(self) -> i64 {
        self.0
    }
}

/// The entry that a command with a `client_id` stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredCommand {
    /// The entry in its current state.
    pub entry: Entry,
    /// `None` if an earlier version stored the entry, or if its text was deleted.
    fingerprint: Option<Fingerprint>,
}

impl StoredCommand {
    pub(super) fn new(entry: Entry, fingerprint: Option<i64>) -> Self {
        Self { entry, fingerprint: fingerprint.map(Fingerprint) }
    }

    /// True if a command with the same ids and this body is the same command. Without a fingerprint, only the kind counts.
    pub fn is_repeated_by(&self, body: &Body) -> bool {
        let Entry { log, sender, client_id, body: stored, .. } = &self.entry;
        let same_kind = std::mem::discriminant(stored) == std::mem::discriminant(body);
        same_kind
            && match (self.fingerprint, client_id) {
                (Some(known), Some(id)) => known == Fingerprint::of_command(log, sender, id, body),
                _ => true,
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Data, DataEdit, Timestamp};

    fn message(content: &str, reply_to: Option<i64>, persona: Option<&str>) -> Body {
        Body::Message {
            content: content.into(),
            data: None,
            reply_to,
            is_ai: false,
            persona: persona.map(|id| UserId::parse(id).unwrap()),
            edited_at: None,
            deleted: false,
        }
    }

    fn with_data(body: Body, json: &str) -> Body {
        let Body::Message { content, reply_to, is_ai, persona, edited_at, deleted, .. } = body else { panic!() };
        let data = Data::stored(json.to_owned()).ok();
        Body::Message { content, data, reply_to, is_ai, persona, edited_at, deleted }
    }

    fn of(log: &str, sender: &str, id: &str, body: &Body) -> i64 {
        let (log, sender) = (LogId::parse(log).unwrap(), UserId::parse(sender).unwrap());
        Fingerprint::of_command(&log, &sender, &ClientId::parse(id).unwrap(), body).number()
    }

    #[test]
    fn every_field_of_a_command_counts() {
        let hi = message("hi", None, None);
        let mut all = vec![
            of("team", "alice", "1", &hi),
            of("lunch", "alice", "1", &hi),
            of("team", "bob", "1", &hi),
            of("team", "alice", "2", &hi),
        ];
        let like = |active| Body::Reacted { target: 1, emoji: "hi".into(), active };
        for body in [
            message("ho", None, None),
            message("hi", Some(1), None),
            message("hi", Some(2), None),
            message("hi", None, Some("ada")),
            with_data(message("hi", None, None), "{}"),
            with_data(message("hi", None, None), "[]"),
            Body::edited(1, "hi"),
            Body::Edited { target: 1, content: "hi".into(), data: DataEdit::Remove },
            Body::Deleted { target: 1 },
            like(true),
            like(false),
        ] {
            all.push(of("team", "alice", "1", &body));
        }
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }

    /// Fingerprints are stored, so a new version must find the same ones.
    #[test]
    fn fingerprints_never_change() {
        assert_eq!(of("team", "alice", "c-1", &message("hi", Some(7), Some("ada"))), 7_420_779_789_551_405_752);
    }

    #[test]
    fn without_a_fingerprint_only_the_kind_counts() {
        let (log, sender) = (LogId::parse("team").unwrap(), UserId::parse("alice").unwrap());
        let entry = Entry {
            log,
            seq: 1,
            message_no: 1,
            sender,
            sender_name: "Alice".into(),
            client_id: Some(ClientId::parse("1").unwrap()),
            at: Timestamp::from_micros(0),
            body: message("", None, None),
        };
        let known = of("team", "alice", "1", &message("hi", None, None));
        let stored = |fingerprint| StoredCommand::new(entry.clone(), fingerprint);
        assert!(stored(Some(known)).is_repeated_by(&message("hi", None, None)), "whatever the text is now");
        assert!(!stored(Some(known)).is_repeated_by(&message("ho", None, None)));
        assert!(stored(None).is_repeated_by(&message("ho", None, None)));
        assert!(!stored(None).is_repeated_by(&Body::Deleted { target: 1 }));
    }
}
