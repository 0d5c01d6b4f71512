//! `docs/protocol/openapi.yaml` as the tests read it.

use jsonschema::Validator;
use serde_json::{Map, Value, json};

const YAML: &str = include_str!("../../../docs/protocol/openapi.yaml");
/// The API of the admin console.
const ADMIN_YAML: &str = include_str!("../../../docs/protocol/admin-openapi.yaml");
const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

/// Extension of a string's schema: bounds of the integers that the server takes there as well. Generators for many
/// languages make nothing usable of a schema that is a string or an integer, so the document has it beside the schema.
const TAKES_INTEGERS: &str = "x-takes-integers";
/// Extension of a list of values: other names that the server takes for them. Go's constants of two lists must not meet.
const TAKES_VALUES: &str = "x-takes-values";

/// Adds to the schemas what the document says beside them, for the sake of generators.
fn complete(part: &mut Value) {
    match part {
        Value::Object(fields) => {
            fields.values_mut().for_each(complete);
            if fields.get("format") == Some(&json!("date-time")) {
                // Generated Python clients match a pattern against the parsed time.
                fields.insert("pattern".into(), json!("Z$"));
            }
            if let Some(mut integers) = fields.remove(TAKES_INTEGERS) {
                integers["type"] = json!("integer");
                let text = Value::Object(std::mem::take(fields));
                fields.insert("oneOf".into(), json!([text, integers]));
            }
            if let Some(values) = fields.remove(TAKES_VALUES) {
                let listed = Value::Object(std::mem::take(fields));
                fields.insert("oneOf".into(), json!([listed, {"enum": values}]));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(complete),
        _ => {}
    }
}

/// The document.
pub struct Document(Value);

/// An operation of the document.
#[derive(Clone)]
pub struct Operation {
    /// Method in capitals.
    pub method: String,
    /// Path with placeholders in braces.
    pub path: String,
    /// The document's description of it, including the parameters of its path.
    pub body: Value,
}

impl Operation {
    /// Name in messages of the tests.
    pub fn name(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    fn matches(&self, method: &str, path: &str) -> bool {
        let (mine, theirs): (Vec<_>, Vec<_>) = (self.path.split('/').collect(), path.split('/').collect());
        let fits = |(mine, theirs): (&&str, &&str)| mine.starts_with('{') || mine == theirs;
        self.method == method && mine.len() == theirs.len() && mine.iter().zip(&theirs).all(fits)
    }
}

impl Document {
    /// Reads the document, with schemas that say all that it says.
    pub fn read() -> Self {
        let mut document = Self::published();
        complete(&mut document);
        Self(document)
    }

    /// Reads the document of the admin console likewise.
    pub fn admin() -> Self {
        let mut document = serde_saphyr::from_str(ADMIN_YAML).expect("docs/protocol/admin-openapi.yaml is YAML");
        complete(&mut document);
        Self(document)
    }

    /// Returns the document as generators of clients read it.
    pub fn published() -> Value {
        serde_saphyr::from_str(YAML).expect("docs/protocol/openapi.yaml is YAML")
    }

    /// Returns every operation.
    pub fn operations(&self) -> Vec<Operation> {
        let paths = self.0["paths"].as_object().unwrap();
        let operations = paths.iter().flat_map(|(path, item)| {
            METHODS.iter().filter_map(move |method| {
                let mut body = item.get(method)?.clone();
                let shared = item["parameters"].as_array().into_iter().flatten();
                let own = body["parameters"].as_array().into_iter().flatten();
                body["parameters"] = shared.chain(own).map(|parameter| self.resolve(parameter).clone()).collect();
                Some(Operation { method: method.to_uppercase(), path: path.clone(), body })
            })
        });
        operations.collect()
    }

    /// Returns the operation that serves a request.
    pub fn operation(&self, method: &str, path: &str) -> Option<Operation> {
        self.operations().into_iter().find(|operation| operation.matches(method, path))
    }

    /// Follows a `$ref`.
    pub fn resolve<'a>(&'a self, value: &'a Value) -> &'a Value {
        match value["$ref"].as_str() {
            Some(name) => {
                let found = self.0.pointer(name.trim_start_matches('#'));
                self.resolve(found.unwrap_or_else(|| panic!("{name} leads nowhere")))
            }
            None => value,
        }
    }

    /// Returns the reasons why a value does not match a schema.
    pub fn faults(&self, schema: &Value, value: &Value) -> Vec<String> {
        let fault = |error: jsonschema::ValidationError<'_>| format!("{error} at {:?}", error.instance_path().as_str());
        self.validator(schema).iter_errors(value).map(fault).collect()
    }

    fn validator(&self, schema: &Value) -> Validator {
        let mut root = schema.as_object().cloned().unwrap_or_default();
        root.insert("components".into(), self.0["components"].clone());
        let options = jsonschema::draft202012::options().should_validate_formats(true);
        options.build(&Value::Object(root)).unwrap_or_else(|error| panic!("{schema}: {error}"))
    }

    /// Returns the objects in a schema that would allow unlisted fields.
    pub fn open_objects(&self, schema: &Value, place: &str) -> Vec<String> {
        let target = self.resolve(schema);
        let closed = |schema: &Value| {
            ["additionalProperties", "unevaluatedProperties"].iter().any(|key| schema.get(key) == Some(&json!(false)))
        };
        let mut found = Vec::new();
        if target.get("properties").is_some() && !closed(target) && !closed(schema) {
            found.push(place.to_owned());
        }
        for (name, property) in target["properties"].as_object().unwrap_or(&Map::new()) {
            found.extend(self.open_objects(property, &format!("{place}.{name}")));
        }
        if let Some(items) = target.get("items") {
            found.extend(self.open_objects(items, &format!("{place}[]")));
        }
        found
    }

    /// Returns every example of a request or response body: its place, its schema, the example.
    pub fn examples(&self) -> Vec<(String, Value, Value)> {
        let mut found = Vec::new();
        for operation in self.operations() {
            let answers = operation.body["responses"].as_object().cloned().unwrap_or_default();
            let bodies = answers.iter().map(|(status, answer)| (status.clone(), self.resolve(answer).clone()));
            let request = ("request".to_owned(), operation.body["requestBody"].clone());
            for (what, body) in bodies.chain([request]) {
                for (_, media) in body["content"].as_object().into_iter().flatten() {
                    if let Some(example) = media.get("example") {
                        let place = format!("{} {what}", operation.name());
                        found.push((place, media["schema"].clone(), example.clone()));
                    }
                }
            }
        }
        found
    }
}
