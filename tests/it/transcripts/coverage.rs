//! `docs/protocol/asyncapi.yaml` against itself, against the transcripts, and against the documentation for client authors.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use serde_json::Value;

use super::{
    NAMES,
    document::{Channel, Direction, Document},
    read,
    script::{Act, Script},
    stage::user_of,
};

/// Messages that were shown, by dialect and direction.
type Shown = BTreeSet<(Channel, Direction, String)>;

/// Adds the messages of a transcript; the transcript's own test proves that they are right.
fn shown(script: &Script, document: &Document, shown: &mut Shown) {
    let mut channels: BTreeMap<&str, Channel> = BTreeMap::new();
    for step in &script.steps {
        match &step.act {
            Act::Open { client, path, .. } => {
                channels.insert(client, Channel::of(path, user_of(client)));
            }
            Act::Send { client, frame } => {
                let channel = channels[&**client];
                // A frame that the node refuses for its form shows no message.
                if is_documented(document, channel, frame) {
                    shown.insert((channel, Direction::FromClient, kind(frame)));
                }
            }
            Act::Receive { client, frame, .. } => {
                shown.insert((channels[&**client], Direction::ToClient, kind(frame)));
            }
            _ => {}
        }
    }
}

/// True if a frame to be sent matches the document; a placeholder matches any value.
fn is_documented(document: &Document, channel: Channel, frame: &Value) -> bool {
    let faults = document.faults(channel, Direction::FromClient, frame);
    faults.is_ok_and(|faults| {
        let stands_in = |at: &str| frame.pointer(at).and_then(Value::as_str).is_some_and(|text| text.starts_with('$'));
        faults.iter().all(|(at, _)| stands_in(at))
    })
}

fn kind(frame: &Value) -> String {
    frame["type"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn every_message_of_the_document_is_in_a_transcript() {
    let document = Document::get();
    let mut seen = Shown::new();
    for name in NAMES {
        shown(&read(name), document, &mut seen);
    }
    let mut lacking = Vec::new();
    for channel in Channel::ALL {
        for direction in [Direction::FromClient, Direction::ToClient] {
            for kind in document.messages(channel, direction).keys() {
                if !seen.contains(&(channel, direction, kind.clone())) {
                    lacking.push(format!("{channel:?} {direction:?} {kind}"));
                }
            }
        }
    }
    assert!(lacking.is_empty(), "no transcript shows:\n  {}", lacking.join("\n  "));
}

#[test]
fn every_close_of_a_transcript_is_in_the_document() {
    let document = Document::get();
    for name in NAMES {
        let script = read(name);
        let mut channels: BTreeMap<&str, Channel> = BTreeMap::new();
        for step in &script.steps {
            match &step.act {
                Act::Open { client, path, .. } => drop(channels.insert(client, Channel::of(path, user_of(client)))),
                Act::Closed { client, code, .. } => {
                    let codes = &document.text["channels"][channels[&**client].name()]["x-close-codes"];
                    let codes = document.resolve(codes);
                    assert!(codes[code.to_string()].is_string(), "{name}: {}: {codes}", step.text);
                }
                _ => {}
            }
        }
    }
}

#[test]
fn every_example_of_the_document_matches_its_schema() {
    let document = Document::get();
    for channel in Channel::ALL {
        for direction in [Direction::FromClient, Direction::ToClient] {
            for (kind, described) in document.messages(channel, direction) {
                let examples = described.text["examples"].as_array();
                let examples = examples.unwrap_or_else(|| panic!("{channel:?} {kind} has no example"));
                for example in examples {
                    document.check(channel, direction, &example["payload"]).unwrap();
                }
            }
        }
    }
}

#[test]
fn both_routes_of_the_personas_dialect_are_described_alike() {
    let text = &Document::get().text["channels"];
    assert_eq!(text["personas"]["messages"], text["personasOfUser"]["messages"]);
    let operations = Document::get().text["operations"].as_object().unwrap();
    let of_user: BTreeMap<_, _> = operations.iter().filter(|(name, _)| name.contains("PersonasOfUser")).collect();
    assert!(!of_user.is_empty());
    for (name, operation) in of_user {
        let other = &operations[&name.replace("PersonasOfUser", "Personas")];
        assert_eq!(operation.to_string().replace("/personasOfUser", "/personas"), other.to_string(), "{name}");
    }
}

/// Reads the types from the codecs' sources: a type that the document lacks would stay unknown to client authors.
#[test]
fn every_type_that_a_codec_reads_is_in_the_document() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/dialect");
    for (channel, file) in [
        (Channel::Native, "native/inbound.rs"),
        (Channel::Direct, "direct.rs"),
        (Channel::Conversation, "conversation.rs"),
        (Channel::Personas, "personas.rs"),
    ] {
        let source = fs::read_to_string(root.join(file)).unwrap();
        let list = source
            .split_once("KINDS: ")
            .and_then(|(_, rest)| rest.split_once("= "))
            .and_then(|(_, list)| list.split_once("];"))
            .unwrap()
            .0;
        let kinds: BTreeSet<&str> = list.split('"').skip(1).step_by(2).collect();
        let described = document_kinds(channel);
        assert_eq!(kinds, described.iter().map(String::as_str).collect(), "{channel:?}");
    }
}

fn document_kinds(channel: Channel) -> BTreeSet<String> {
    Document::get().messages(channel, Direction::FromClient).keys().cloned().collect()
}

/// Returns the frames in a page's `json` blocks, each with the line of its block.
fn frames_of(page: &str) -> Vec<(usize, Value)> {
    let mut frames = Vec::new();
    let mut block: Option<(usize, String)> = None;
    for (at, line) in page.lines().enumerate() {
        match (&mut block, line) {
            (None, "```json") => block = Some((at + 1, String::new())),
            (Some((start, text)), "```") => {
                for frame in serde_json::Deserializer::from_str(text).into_iter::<Value>() {
                    let frame = frame.unwrap_or_else(|error| panic!("the block in line {start} is not JSON: {error}"));
                    frames.push((*start, frame));
                }
                block = None;
            }
            (Some((_, text)), line) => *text += &format!("{line}\n"),
            (None, _) => {}
        }
    }
    frames
}

/// Checks a frame of a page against the document; `…` stands for omitted parts.
fn check_page_frame(document: &Document, channel: Channel, direction: Direction, frame: &Value) -> Result<(), String> {
    let faults: Vec<String> = document
        .faults(channel, direction, frame)?
        .into_iter()
        .filter(|(at, _)| {
            let value = frame.pointer(at).unwrap_or(&Value::Null);
            let left_out = value.as_str().is_some_and(|text| text.contains('…')) || value.get("…").is_some();
            !left_out
        })
        .map(|(at, why)| format!("{at}: {why}"))
        .collect();
    if faults.is_empty() { Ok(()) } else { Err(faults.join("; ")) }
}

#[test]
fn every_frame_in_the_pages_matches_the_document() {
    let document = Document::get();
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/protocol");
    let shown_elsewhere = docs.join("building.md");
    for (line, frame) in frames_of(&fs::read_to_string(&shown_elsewhere).unwrap()) {
        let ways = [Direction::FromClient, Direction::ToClient]
            .map(|direction| check_page_frame(document, Channel::Native, direction, &frame));
        assert!(ways.iter().any(Result::is_ok), "building.md, line {line}: {frame}\n{ways:?}");
    }
    for channel in Channel::ALL {
        let page = docs.join(format!("{}.md", channel.name()));
        let page = fs::read_to_string(&page).unwrap_or_else(|error| panic!("{}: {error}", page.display()));
        for (line, frame) in frames_of(&page) {
            let ways = [Direction::FromClient, Direction::ToClient]
                .map(|direction| check_page_frame(document, channel, direction, &frame));
            assert!(ways.iter().any(Result::is_ok), "{}.md, line {line}: {frame}\n{ways:?}", channel.name());
        }
        for direction in [Direction::FromClient, Direction::ToClient] {
            for kind in document.messages(channel, direction).keys() {
                let shown = page.contains(&format!(r#""type": "{kind}""#));
                assert!(shown, "{}.md shows no {kind}", channel.name());
            }
        }
    }
}
