//! `docs/protocol/openapi.yaml` as generators of clients need it. `tests/it/generated_clients.rs` runs the clients of two
//! generators; the rules here are what others stumbled over: openapi-generator (Java, Python, Go, Kotlin, C#), oapi-codegen.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::document::Document;

/// A schema of the document.
struct Schema<'a> {
    /// The names on the way to it.
    place: String,
    /// True for a component, which other places name.
    named: bool,
    /// True in a request's or a response's body, false for parameters and headers.
    in_body: bool,
    fields: &'a Map<String, Value>,
}

/// Collects every schema below a part of the document.
fn schemas_below<'a>(part: &'a Value, place: &str, found: &mut Vec<Schema<'a>>) {
    for (name, value) in part.as_object().into_iter().flatten() {
        let place = format!("{place}/{name}");
        match name.as_str() {
            "example" | "examples" => {}
            "schema" => add_schema(value, place, false, false, found),
            "schemas" => {
                for (name, schema) in value.as_object().unwrap() {
                    add_schema(schema, name.clone(), true, true, found);
                }
            }
            _ => schemas_below(value, &place, found),
        }
    }
    for (at, value) in part.as_array().into_iter().flatten().enumerate() {
        schemas_below(value, &format!("{place}/{at}"), found);
    }
}

fn add_schema<'a>(schema: &'a Value, place: String, named: bool, in_body: bool, found: &mut Vec<Schema<'a>>) {
    let Some(fields) = schema.as_object() else { return };
    let properties = fields.get("properties").and_then(Value::as_object).into_iter().flatten();
    let parts = properties.map(|(name, part)| (name.clone(), part));
    let parts = parts.chain(fields.get("items").map(|part| ("[]".to_owned(), part)));
    let choices = ["oneOf", "anyOf", "allOf"].iter().filter_map(|key| fields.get(*key)?.as_array());
    let choices = choices.flatten().enumerate().map(|(at, part)| (format!("choice {at}"), part));
    for (name, part) in parts.chain(choices) {
        add_schema(part, format!("{place}.{name}"), false, in_body, found);
    }
    found.push(Schema { place, named, in_body, fields });
}

impl Schema<'_> {
    /// Types that it names.
    fn types(&self) -> Vec<&str> {
        match self.fields.get("type") {
            Some(Value::String(one)) => vec![one],
            Some(Value::Array(many)) => many.iter().map(|one| one.as_str().unwrap()).collect(),
            _ => Vec::new(),
        }
    }

    fn has(&self, key: &str) -> bool {
        self.fields.contains_key(key)
    }

    /// Types that it chooses from.
    fn choices(&self) -> &[Value] {
        ["oneOf", "anyOf"].iter().find_map(|key| self.fields.get(*key)?.as_array()).map_or(&[], Vec::as_slice)
    }

    fn is_nullable(&self) -> bool {
        self.types().contains(&"null") && self.types().len() > 1
            || self.choices().iter().any(|one| one["type"] == "null")
    }

    /// The rules that it breaks, each with the generator that needs it.
    fn faults(&self) -> Vec<&'static str> {
        let types = self.types();
        let others = types.iter().filter(|one| **one != "null").count();
        let is_list_of_values = self.has("enum");
        let is_object = self.has("properties") || types.contains(&"object");
        let pattern = self.fields.get("pattern").map_or("^", |pattern| pattern.as_str().unwrap());
        let rules = [
            (self.named && self.is_nullable(), "a component is nullable: openapi-generator makes an empty class of it"),
            (
                self.has("allOf"),
                "allOf: openapi-generator loses its nulls, and makes an empty class of one over strings",
            ),
            (
                !self.choices().is_empty() && (self.choices().len() != 2 || !self.is_nullable()),
                "a choice that is not `X or null`: Kotlin and C# get an empty class of it; objects would need a discriminator",
            ),
            (others > 1, "several types: Kotlin and C# get an empty class of it"),
            ((is_list_of_values || self.has("const")) && others == 0, "values without a type"),
            (is_list_of_values && !self.named, "values without a name: their generated type is called by chance"),
            (is_object && !self.named, "an object without a name: its generated type is called by chance"),
            (
                self.has("pattern") && self.has("format"),
                "a pattern and a format: Python matches the pattern with the parsed value",
            ),
            (!pattern.starts_with('^'), "a pattern without ^: openapi-generator's Python matches from the start"),
            (
                !pattern.is_ascii(),
                "a character beyond ASCII in a pattern: it breaks Go's source or a class of JavaScript's",
            ),
            (self.in_body && self.has("default"), "a default in a body: openapi-typescript makes the field mandatory"),
            (
                (types.contains(&"integer") || types.contains(&"number")) && !self.has("format"),
                "a number without a format: Java, Go and others take 32 bits",
            ),
        ];
        rules.into_iter().filter(|(broken, _)| *broken).map(|(_, rule)| rule).collect()
    }
}

#[test]
fn every_schema_can_be_generated() {
    let document = Document::published();
    let mut schemas = Vec::new();
    schemas_below(&document, "", &mut schemas);
    assert!(schemas.len() > 100, "it finds the schemas");
    let faults = |schema: &Schema<'_>| {
        schema.faults().into_iter().map(|fault| format!("{}: {fault}", schema.place)).collect::<Vec<_>>()
    };
    let faults: Vec<_> = schemas.iter().flat_map(faults).collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// A name as the field's languages write a type: without `_`, with a capital.
fn as_type(name: &str) -> String {
    name.split('_').map(|word| word[..1].to_uppercase() + &word[1..]).collect()
}

/// Go puts the components of all kinds, what it makes of operations, and constructors into one namespace.
#[test]
fn every_generated_name_is_unique() {
    let document = Document::published();
    let mut names: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut add = |name: String, of: &str| names.entry(name).or_default().push(of.to_owned());
    for (kind, components) in document["components"].as_object().unwrap() {
        for name in components.as_object().unwrap().keys() {
            add(as_type(name), kind);
            if kind == "schemas" {
                ["New", "Nullable"].into_iter().for_each(|before| add(format!("{before}{}", as_type(name)), name));
            }
        }
    }
    let operations = Document::read().operations();
    for operation in &operations {
        let id = operation.body["operationId"].as_str().unwrap_or_else(|| panic!("{} has no id", operation.name()));
        assert!(!operation.body["tags"].as_array().unwrap().is_empty(), "{} has no tag", operation.name());
        for after in ["Request", "Response", "Params", "200Response", "JSONBody", "JSONRequestBody"] {
            add(format!("{}{after}", as_type(id)), id);
        }
    }
    names.retain(|_, of| of.len() > 1);
    assert!(names.is_empty(), "names that are made twice: {names:?}");
    // Modules of Python's that a generated module of this name would hide.
    let ids: BTreeSet<_> = operations.iter().map(|operation| operation.body["operationId"].as_str().unwrap()).collect();
    assert!(ids.is_disjoint(&BTreeSet::from(["typing", "json", "re", "types", "client", "errors"])), "{ids:?}");
}

/// Go's constants have the names of the values alone.
#[test]
fn no_value_is_in_two_lists() {
    let document = Document::published();
    let mut lists: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        for value in schema["enum"].as_array().into_iter().flatten() {
            lists.entry(value.as_str().unwrap()).or_default().push(name);
        }
    }
    assert!(lists.len() > 30, "{lists:?}");
    lists.retain(|_, names| names.len() > 1);
    assert!(lists.is_empty(), "values that are in two lists: {lists:?}");
}

#[test]
fn every_body_has_a_named_schema() {
    let document = Document::read();
    for operation in document.operations() {
        let answers = operation.body["responses"].as_object().unwrap().values().map(|answer| document.resolve(answer));
        for body in answers.chain([&operation.body["requestBody"]]) {
            for (kind, media) in body["content"].as_object().into_iter().flatten() {
                let named = media["schema"]["$ref"].is_string() || kind == "text/plain";
                assert!(named, "{}: {}", operation.name(), media["schema"]);
            }
        }
    }
}
