//! The payload that nodes publish: `{"node":"<process>","events":[…]}`. The sender comes first, so that a node skips
//! its own payloads without parsing them.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::model::{Entry, EphemeralEvent, Event, NodeId};

/// Maximum number of events in one payload.
pub(super) const EVENTS_PER_PAYLOAD: usize = 64;

#[derive(Serialize)]
struct Out<'a> {
    node: &'a str,
    events: Vec<OutEvent<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum OutEvent<'a> {
    Entry(&'a Entry),
    #[serde(rename = "occurrence")]
    Ephemeral(&'a EphemeralEvent),
}

#[derive(Deserialize)]
struct In {
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
    name: Arc<str>,
    prefix: Arc<[u8]>,
}

impl Process {
    pub(super) fn new(node: &NodeId) -> Self {
        let name = format!("{node}#{}", &Uuid::new_v4().simple().to_string()[..16]);
        // Ids need no escaping in JSON.
        let prefix = format!("{{\"node\":\"{name}\",");
        Self { name: name.into(), prefix: prefix.into_bytes().into() }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// True if this process published the payload.
    pub(super) fn is_own(&self, payload: &[u8]) -> bool {
        payload.starts_with(&self.prefix)
    }

    /// Encodes events of one log as a payload.
    pub(super) fn encode(&self, events: &[&Event]) -> String {
        let events = events.iter().map(|event| match event {
            Event::Entry { entry, .. } => OutEvent::Entry(entry),
            Event::Ephemeral { ephemeral, .. } => OutEvent::Ephemeral(ephemeral),
        });
        let out = Out { node: &self.name, events: events.collect() };
        // Ids, texts and numbers always have a JSON form, so this can't fail.
        serde_json::to_string(&out).unwrap_or_default()
    }
}

/// Decodes a payload of another node.
pub(super) fn decode(payload: &[u8]) -> Result<Vec<Event>, serde_json::Error> {
    let events = serde_json::from_slice::<In>(payload)?.events.into_iter().map(|event| match event {
        InEvent::Entry(entry) => Event::Entry { entry, origin: None },
        InEvent::Ephemeral(ephemeral) => Event::Ephemeral { ephemeral, origin: None },
    });
    Ok(events.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Body, ConnectionId, Ephemeral, LogId, Timestamp, UserId};

    fn events() -> Vec<Event> {
        let (log, user) = (LogId::parse("room").unwrap(), UserId::parse("alice").unwrap());
        let at = Timestamp::from_seconds(1);
        let body = Body::Message {
            content: "\"hi\"\n".into(),
            reply_to: None,
            is_ai: false,
            persona: None,
            edited_at: None,
            deleted: false,
        };
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
        let process = Process::new(&NodeId::parse("node-1").unwrap());
        let events = events();
        let payload = process.encode(&events.iter().collect::<Vec<_>>());
        assert_eq!(decode(payload.as_bytes()).unwrap(), events);
        assert!(process.is_own(payload.as_bytes()));
        assert!(!Process::new(&NodeId::parse("node-1").unwrap()).is_own(payload.as_bytes()));
    }

    #[test]
    fn the_origin_is_not_published() {
        let Some(Event::Entry { entry, .. }) = events().into_iter().next() else { unreachable!() };
        let event = Event::Entry { entry, origin: Some(ConnectionId::fresh()) };
        let payload = Process::new(&NodeId::parse("n").unwrap()).encode(&[&event]);
        assert_eq!(decode(payload.as_bytes()).unwrap()[0].origin(), None);
    }

    #[test]
    fn malformed_payloads_are_errors() {
        for payload in ["", "{}", "[1]", "{\"node\":\"x\",\"events\":[{\"entry\":{}}]}", "\u{0}"] {
            assert!(decode(payload.as_bytes()).is_err(), "{payload}");
        }
    }
}
