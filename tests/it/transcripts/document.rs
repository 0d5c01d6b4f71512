//! `docs/protocol/asyncapi.yaml` as the tests read it: the messages of each dialect in both directions, with their schemas.

use std::{collections::BTreeMap, sync::LazyLock};

use jsonschema::Validator;
use serde_json::{Value, json};

/// Text of the document.
const YAML: &str = include_str!("../../../docs/protocol/asyncapi.yaml");

/// A dialect, named as its channel in the document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Channel {
    Native,
    Direct,
    Rooms,
    Conversation,
    Personas,
}

impl Channel {
    /// Every dialect.
    pub(crate) const ALL: [Self; 5] = [Self::Native, Self::Direct, Self::Rooms, Self::Conversation, Self::Personas];

    /// Name in the document.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Direct => "direct",
            Self::Rooms => "rooms",
            Self::Conversation => "conversation",
            Self::Personas => "personas",
        }
    }

    /// Dialect of a path for a user. `/ws/{id}` is a room, except if the id is the user's own, which under `dev` needs
    /// no token.
    pub(crate) fn of(path: &str, user: &str) -> Self {
        let path = path.split_once('?').map_or(path, |(path, _)| path);
        match path {
            "/v1/ws" => Self::Native,
            "/ws" => Self::Direct,
            "/ws/auth" => Self::Personas,
            path if path.starts_with("/api/chat/ws/") => Self::Conversation,
            path if path == format!("/ws/{user}") => Self::Personas,
            _ => Self::Rooms,
        }
    }
}

/// Direction of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Direction {
    /// From a client.
    FromClient,
    /// To a client.
    ToClient,
}

impl Direction {
    /// Action in the document, which describes the server.
    fn action(self) -> &'static str {
        match self {
            Self::FromClient => "receive",
            Self::ToClient => "send",
        }
    }
}

/// A message of the document.
pub(crate) struct Described {
    /// Its part of the document.
    pub(crate) text: Value,
    schema: Validator,
}

/// The document.
pub(crate) struct Document {
    /// All of its text.
    pub(crate) text: Value,
    messages: BTreeMap<(Channel, Direction), BTreeMap<String, Described>>,
}

impl Document {
    /// Reads the document once.
    pub(crate) fn get() -> &'static Self {
        static DOCUMENT: LazyLock<Document> = LazyLock::new(Document::read);
        &DOCUMENT
    }

    fn read() -> Self {
        let text: Value = serde_saphyr::from_str(YAML).expect("docs/protocol/asyncapi.yaml is YAML");
        let mut messages = BTreeMap::new();
        for channel in Channel::ALL {
            for direction in [Direction::FromClient, Direction::ToClient] {
                messages.insert((channel, direction), messages_of(&text, channel.name(), direction));
            }
        }
        Self { text, messages }
    }

    /// Messages of a dialect in one direction, by `type`.
    pub(crate) fn messages(&self, channel: Channel, direction: Direction) -> &BTreeMap<String, Described> {
        &self.messages[&(channel, direction)]
    }

    /// Checks that a frame matches the document exactly.
    pub(crate) fn check(&self, channel: Channel, direction: Direction, frame: &Value) -> Result<(), String> {
        let faults = self.faults(channel, direction, frame)?;
        if faults.is_empty() {
            return Ok(());
        }
        let faults: Vec<String> = faults.into_iter().map(|(at, why)| format!("{at}: {why}")).collect();
        Err(format!("it differs from docs/protocol/asyncapi.yaml: {}\n  {frame}", faults.join("; ")))
    }

    /// Returns the faults of a frame, each with its place. `Err` if its `type` is unknown to the document.
    pub(crate) fn faults(
        &self,
        channel: Channel,
        direction: Direction,
        frame: &Value,
    ) -> Result<Vec<(String, String)>, String> {
        let kind = frame["type"].as_str().unwrap_or_default();
        let Some(described) = self.messages(channel, direction).get(kind) else {
            return Err(format!("docs/protocol/asyncapi.yaml has no such type in {channel:?}, {direction:?}: {frame}"));
        };
        let faults = described.schema.iter_errors(frame);
        Ok(faults.map(|fault| (fault.instance_path().to_string(), fault.to_string())).collect())
    }

    /// Resolves a `$ref`.
    pub(crate) fn resolve<'a>(&'a self, part: &'a Value) -> &'a Value {
        resolve(&self.text, part)
    }
}

/// Follows `$ref`s.
fn resolve<'a>(text: &'a Value, part: &'a Value) -> &'a Value {
    match part["$ref"].as_str() {
        Some(reference) => {
            let target = reference.strip_prefix('#').and_then(|pointer| text.pointer(pointer));
            resolve(text, target.unwrap_or_else(|| panic!("{reference} leads nowhere")))
        }
        None => part,
    }
}

/// Messages of a channel that its operations list for one direction.
fn messages_of(text: &Value, channel: &str, direction: Direction) -> BTreeMap<String, Described> {
    let here = format!("#/channels/{channel}");
    let operations = text["operations"].as_object().expect("there are operations").values();
    let operations = operations
        .filter(|operation| operation["action"] == direction.action() && operation["channel"]["$ref"] == here.as_str());
    let mut messages = BTreeMap::new();
    for reference in operations.flat_map(|operation| operation["messages"].as_array().expect("it lists messages")) {
        let message = resolve(text, reference);
        let payload = resolve(text, &message["payload"]);
        let kind = payload["properties"]["type"]["const"].as_str();
        let kind = kind.unwrap_or_else(|| panic!("a message without a type: {message}")).to_owned();
        // References in the payload point into the document.
        let schema = json!({ "allOf": [payload], "components": text["components"] });
        let schema = jsonschema::draft7::new(&schema).unwrap_or_else(|error| panic!("{channel} {kind}: {error}"));
        let before = messages.insert(kind.clone(), Described { text: message.clone(), schema });
        assert!(before.is_none(), "{channel} describes {kind} twice");
    }
    messages
}
