//! The payload that nodes publish: `{"node":"<process>","mac":"<tag>","epoch":<epoch>,"events":[…]}` on the channel of a log,
//! and with `hints` instead of `epoch` and `events` on that of a node. The sender comes first, so that a node skips its own
//! payloads without parsing them. The tag signs the channel's name, the sender and all that follows the tag, byte by byte; so
//! a payload is verified once, before it is parsed.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    mac::{Kind, Macs},
    types::Hint,
};
use crate::model::{Entry, EphemeralEvent, Event, NodeId};

/// Maximum number of events in one payload.
pub(super) const EVENTS_PER_PAYLOAD: usize = 64;

/// The JSON between the parts of a payload.
const BEFORE_NODE: &str = "{\"node\":\"";
const BEFORE_TAG: &str = "\",\"mac\":\"";
const AFTER_TAG: &str = "\",";

#[derive(Serialize)]
struct Out<'a> {
    epoch: i64,
    events: Vec<OutEvent<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum OutEvent<'a> {
    Entry(&'a Entry),
    #[serde(rename = "occurrence")]
    Ephemeral(&'a EphemeralEvent),
}

#[derive(Serialize)]
struct OutHints<'a> {
    hints: &'a [Hint],
}

#[derive(Deserialize)]
struct InHints {
    hints: Vec<Hint>,
}

#[derive(Deserialize)]
struct In {
    #[serde(default)]
    epoch: Option<i64>,
    events: Vec<InEvent>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum InEvent {
    Entry(Arc<Entry>),
    #[serde(rename = "occurrence")]
    Ephemeral(Arc<EphemeralEvent>),
}

/// The identity of one process. Two processes with the same NODE_ID have different ones.
#[derive(Debug, Clone)]
pub(super) struct Process {
    node: NodeId,
    name: Arc<str>,
    prefix: Arc<[u8]>,
}

impl Process {
    pub(super) fn new(node: &NodeId) -> Self {
        let name = format!("{node}#{}", &Uuid::new_v4().simple().to_string()[..16]);
        // Ids need no escaping in JSON.
        let prefix = format!("{BEFORE_NODE}{name}\"");
        Self { node: node.clone(), name: name.into(), prefix: prefix.into_bytes().into() }
    }

    /// The node of this process.
    pub(super) fn node(&self) -> &NodeId {
        &self.node
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// True if this process published the payload.
    pub(super) fn is_own(&self, payload: &[u8]) -> bool {
        payload.starts_with(&self.prefix)
    }

    /// Encodes and signs events of one log, which happened in this epoch of the store, as a payload for its channel. `None`
    /// until the keys are known.
    pub(super) fn encode(&self, epoch: i64, events: &[&Event], channel: &str, macs: &Macs) -> Option<String> {
        let events = events.iter().map(|event| match event {
            Event::Entry { entry, .. } => OutEvent::Entry(entry),
            Event::Ephemeral { ephemeral, .. } => OutEvent::Ephemeral(ephemeral),
        });
        // Ids, texts and numbers always have a JSON form, so this can't fail.
        let out = serde_json::to_string(&Out { epoch, events: events.collect() }).unwrap_or_default();
        self.sign(&out, channel, macs)
    }

    /// Puts the sender and its tag in front of a JSON object.
    fn sign(&self, out: &str, channel: &str, macs: &Macs) -> Option<String> {
        let signed = out.get(1..).unwrap_or_default();
        let tag = macs.tag(Kind::Publication, channel, &[self.name.as_bytes(), signed.as_bytes()])?;
        Some([BEFORE_NODE, &self.name, BEFORE_TAG, &tag, AFTER_TAG, signed].concat())
    }

    /// Encodes hints as a payload for a channel. `None` until the keys are known.
    pub(super) fn encode_hints(&self, hints: &[Hint], channel: &str, macs: &Macs) -> Option<String> {
        // Ids always have a JSON form, so this can't fail.
        let out = serde_json::to_string(&OutHints { hints }).unwrap_or_default();
        self.sign(&out, channel, macs)
    }
}

/// Decodes the hints of another node.
pub(super) fn decode_hints(payload: &[u8]) -> Result<Vec<Hint>, serde_json::Error> {
    Ok(serde_json::from_slice::<InHints>(payload)?.hints)
}

/// True if a node of this deployment made the payload for this channel.
pub(super) fn is_genuine(payload: &[u8], channel: &[u8], macs: &Macs) -> bool {
    let parts = || {
        let (node, rest) = split(payload.strip_prefix(BEFORE_NODE.as_bytes())?, BEFORE_TAG)?;
        let (tag, signed) = split(rest, AFTER_TAG)?;
        Some((node, tag, signed))
    };
    parts().is_some_and(|(node, tag, signed)| macs.verify(Kind::Publication, channel, &[node, signed], tag))
}

/// Splits at the first quotation mark, if `between` begins there.
fn split<'a>(bytes: &'a [u8], between: &str) -> Option<(&'a [u8], &'a [u8])> {
    let end = bytes.iter().position(|byte| *byte == b'"')?;
    Some((&bytes[..end], bytes[end..].strip_prefix(between.as_bytes())?))
}

/// Decodes a payload of another node. Returns the epoch of the store, which an earlier version did not name, and the events.
pub(super) fn decode(payload: &[u8]) -> Result<(Option<i64>, Vec<Event>), serde_json::Error> {
    let In { epoch, events } = serde_json::from_slice(payload)?;
    let events = events.into_iter().map(|event| match event {
        InEvent::Entry(entry) => Event::Entry { entry, origin: None },
        InEvent::Ephemeral(ephemeral) => Event::Ephemeral { ephemeral, origin: None },
    });
    Ok((epoch, events.collect()))
}

#[cfg(test)]
mod tests {
    use super::{super::mac::tests::macs, *};
    use crate::model::{Body, ConnectionId, ConversationId, Ephemeral, LogId, PendingAck, Timestamp, UserId};

    fn events() -> Vec<Event> {
        let (log, user) = (LogId::parse("room").unwrap(), UserId::parse("alice").unwrap());
        let at = Timestamp::from_seconds(1);
        let body = Body::message("\"hi\"\n");
        let entry = Entry {
            log: log.clone(),
            seq: 1,
            message_no: 1,
            sender: user.clone(),
            sender_name: "Alice \u{1f600}".into(),
            client_id: None,
            at,
            body,
        };
        let what = Ephemeral::Typing { user, name: "Alice".into(), active: true };
        vec![
            Event::Entry { entry: Arc::new(entry), origin: None },
            Event::Ephemeral { ephemeral: Arc::new(EphemeralEvent { log, at, what }), origin: None },
        ]
    }

    #[test]
    fn encoded_events_decode_unchanged() {
        let (process, macs) = (Process::new(&NodeId::parse("node-1").unwrap()), macs(1));
        let events = events();
        let payload = process.encode(3, &events.iter().collect::<Vec<_>>(), "channel", &macs).unwrap();
        assert!(is_genuine(payload.as_bytes(), b"channel", &macs));
        assert_eq!(decode(payload.as_bytes()).unwrap(), (Some(3), events));
        assert!(process.is_own(payload.as_bytes()));
        assert!(!Process::new(&NodeId::parse("node-1").unwrap()).is_own(payload.as_bytes()));
    }

    #[test]
    fn encoded_hints_decode_unchanged() {
        let process = Process::new(&NodeId::parse("node-1").unwrap());
        let users = ["alice", "bob"].map(|user| UserId::parse(user).unwrap()).into();
        let hints = vec![Hint { conversation: ConversationId::parse("room").unwrap(), users }];
        let payload = process.encode_hints(&hints, "h", &macs(1)).unwrap();
        assert_eq!(decode_hints(payload.as_bytes()).unwrap(), hints);
        assert!(process.is_own(payload.as_bytes()) && is_genuine(payload.as_bytes(), b"h", &macs(1)));
        assert!(decode_hints(b"{}").is_err() && decode(payload.as_bytes()).is_err());
    }

    #[test]
    fn the_origin_is_not_published() {
        let Some(Event::Entry { entry, .. }) = events().into_iter().next() else { unreachable!() };
        let origin = Some(Arc::new(PendingAck::new(ConnectionId::fresh(), None, None)));
        let event = Event::Entry { entry, origin };
        let payload = Process::new(&NodeId::parse("n").unwrap()).encode(3, &[&event], "channel", &macs(1)).unwrap();
        assert_eq!(decode(payload.as_bytes()).unwrap().1[0].origin(), None);
    }

    #[test]
    fn a_payload_that_was_changed_or_moved_is_not_genuine() {
        let (process, macs) = (Process::new(&NodeId::parse("node-1").unwrap()), macs(1));
        let events = events();
        let payload = process.encode(3, &events.iter().collect::<Vec<_>>(), "channel", &macs).unwrap();
        assert!(!is_genuine(payload.as_bytes(), b"other", &macs));
        for (from, to) in [("hi", "ho"), ("node-1", "node-2"), ("\"seq\":1", "\"seq\":2"), ("]}", "] }")] {
            let changed = payload.replacen(from, to, 1);
            assert!(changed != payload && !is_genuine(changed.as_bytes(), b"channel", &macs), "{changed}");
        }
        let unsigned = "{\"node\":\"node-1#0\",\"events\":[]}";
        for payload in ["", "{", unsigned, "{\"node\":\"", "{\"node\":\"n\",\"mac\":\"", &payload[..payload.len() - 1]]
        {
            assert!(!is_genuine(payload.as_bytes(), b"channel", &macs), "{payload}");
        }
    }

    #[test]
    fn malformed_payloads_are_errors() {
        for payload in ["", "{}", "[1]", "{\"node\":\"x\",\"events\":[{\"entry\":{}}]}", "\u{0}"] {
            assert!(decode(payload.as_bytes()).is_err(), "{payload}");
        }
    }
}
