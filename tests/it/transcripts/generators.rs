//! `docs/protocol/asyncapi.yaml` as generators of clients need it: every type has a name, and every operation says which
//! messages answer it. The transcripts show that they do.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{
    NAMES,
    document::{Channel, Document},
    read,
    script::Act,
};

/// Last part of a reference.
fn name_of(reference: &Value) -> &str {
    let reference = reference["$ref"].as_str().unwrap_or_else(|| panic!("not a reference: {reference}"));
    reference.rsplit('/').next().unwrap()
}

/// Adds the places of types that a generator would have to invent a name for, or whose values have no type.
fn find_nameless(schema: &Value, place: &str, is_named: bool, found: &mut Vec<String>) {
    let is_object = schema.get("properties").is_some();
    let is_choice = schema.get("anyOf").is_some() || schema.get("oneOf").is_some() || schema.get("enum").is_some();
    if (is_object || is_choice) && !is_named && !schema["title"].is_string() {
        found.push(format!("{place} has no title"));
    }
    if (schema.get("enum").is_some() || schema.get("const").is_some()) && !schema["type"].is_string() {
        found.push(format!("{place} has no type"));
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        find_nameless(property, &format!("{place}.{name}"), false, found);
    }
    if let Some(items) = schema.get("items") {
        find_nameless(items, &format!("{place}[]"), false, found);
    }
}

#[test]
fn every_generated_type_has_a_name() {
    let components = &Document::get().text["components"];
    let mut faults = Vec::new();
    let mut titles = BTreeSet::new();
    for (name, message) in components["messages"].as_object().unwrap() {
        let title = name[..1].to_uppercase() + &name[1..];
        if message["payload"]["title"] != title.as_str() {
            faults.push(format!("the payload's title is not {title}"));
        }
        find_nameless(&message["payload"], name, false, &mut faults);
        titles.insert(title);
    }
    for (name, schema) in components["schemas"].as_object().unwrap() {
        find_nameless(schema, name, true, &mut faults);
        if !titles.insert(name.clone()) {
            faults.push(format!("{name} is a message and a schema"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_operation_has_its_replies() {
    let document = Document::get();
    let mut received = BTreeSet::new();
    for (name, operation) in document.text["operations"].as_object().unwrap() {
        let channel = name_of(&operation["channel"]);
        let Some(reply) = operation.get("reply") else {
            assert!(operation["x-no-reply"].is_string(), "{name} has neither a reply nor a reason");
            assert_eq!(operation["action"], "send", "{name}");
            continue;
        };
        let [message] = operation["messages"].as_array().unwrap().as_slice() else {
            panic!("{name} has one message, so that its replies are clear");
        };
        assert_eq!(operation["action"], "receive", "{name}");
        assert!(received.insert((channel, name_of(message))), "{name} is an operation twice");
        assert_eq!(reply["channel"], operation["channel"], "{name}");
        for message in reply["messages"].as_array().unwrap() {
            let here = &document.text["channels"][channel]["messages"][name_of(message)];
            assert!(here.is_object() && !name_of(message).ends_with("FromClient"), "{name}: {message}");
        }
    }
}

/// Types of the messages that answer each type of a native client.
fn native_replies() -> BTreeMap<String, BTreeSet<String>> {
    let document = Document::get();
    let kind = |message: &Value| document.resolve(document.resolve(message))["name"].as_str().unwrap().to_owned();
    let operations = document.text["operations"].as_object().unwrap().values();
    let native = operations.filter(|operation| name_of(&operation["channel"]) == Channel::Native.name());
    let replies = native.filter_map(|operation| {
        let replies = operation.get("reply")?["messages"].as_array().unwrap().iter().map(kind).collect();
        Some((kind(&operation["messages"][0]), replies))
    });
    replies.collect()
}

/// Native replies carry the `ref` of their frame, so the transcripts show which frames answer which.
#[test]
fn native_replies_are_those_of_the_transcripts() {
    let replies = native_replies();
    let mut shown: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for name in NAMES {
        let mut asked: BTreeMap<(String, String), String> = BTreeMap::new();
        for step in read(name).steps {
            match step.act {
                Act::Open { client, .. } => asked.retain(|(one, _), _| *one != client),
                Act::Send { client, frame } if frame["ref"].is_number() && frame["type"].is_string() => {
                    let kind = frame["type"].as_str().unwrap().to_owned();
                    asked.insert((client, frame["ref"].to_string()), kind);
                }
                Act::Receive { client, frame, .. } if frame["ref"].is_number() => {
                    let kind = frame["type"].as_str().unwrap().to_owned();
                    let Some(request) = asked.get(&(client, frame["ref"].to_string())) else { continue };
                    shown.entry(request.clone()).or_default().insert(kind);
                }
                _ => {}
            }
        }
    }
    for (request, kinds) in &replies {
        // `authenticated` carries no `ref`.
        let seen = shown.get(request).cloned().unwrap_or_default();
        let beyond: Vec<_> = seen.difference(kinds).collect();
        assert!(beyond.is_empty(), "{request} is also answered with {beyond:?}");
        let unseen: Vec<_> = kinds.difference(&seen).filter(|kind| *kind != "error").collect();
        assert!(unseen.is_empty() || request == "authenticate", "no transcript answers {request} with {unseen:?}");
    }
}
