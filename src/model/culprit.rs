//! Finds the field to which an error of a JSON parser belongs, and says the error in the words of JSON. The parser names
//! only the kind of the fault, in words of its own.

use serde_json::{Map, Value};

/// Maximum number of fields of an object among which the field is searched; each costs one parse.
const MAX_FIELDS: usize = 32;
/// Maximum depth of the search. Fields of frames and bodies are at most in one object within the outer one.
const MAX_DEPTH: usize = 2;
/// Maximum length of a field's name that is reported, in characters.
const MAX_NAME_CHARS: usize = 64;

/// The beginning of the parser's error for a field that the type does not have.
const UNKNOWN_FIELD: &str = "unknown field";

/// The text of the error for which `fails` refuses `text`, without its position, preceded by the field's name if one
/// field alone is the cause. `fails` returns the error of a text that can't be parsed. The text is a JSON object.
pub fn explain_json(text: &str, fails: impl Fn(&str) -> Option<serde_json::Error>) -> Option<String> {
    let fault = |text: &str| fails(text).map(|error| without_position(&error.to_string()));
    let error = fails(text)?;
    let Ok(Value::Object(fields)) = serde_json::from_str(text) else { return Some(error.to_string()) };
    let original = without_position(&error.to_string());
    // Written anew, the fields have another order, so another fault may be the first.
    let Some(first) = fault(&Value::Object(fields.clone()).to_string()) else { return Some(original) };
    // The parser names the field itself, or there is none to name.
    if first.starts_with("missing field") || first.starts_with("unknown variant") {
        return Some(original);
    }
    let changes =
        |fields: &Map<String, Value>| fault(&Value::Object(fields.clone()).to_string()).as_ref() != Some(&first);
    let path = search(&fields, &changes, MAX_DEPTH);
    // The parser lists the known fields after the unknown one; the path names it already.
    let first = if first.starts_with(UNKNOWN_FIELD) { UNKNOWN_FIELD } else { &first };
    Some(if path.is_empty() { original } else { in_plain_words(first, &path.join(".")) })
}

/// An error of the parser about the value of a field, in the words of JSON.
pub fn in_plain_words(error: &str, field: &str) -> String {
    let error = without_position(error);
    let parts = error.strip_prefix("invalid type: ").or_else(|| error.strip_prefix("invalid value: "));
    match parts.and_then(|parts| parts.rsplit_once(", expected ")) {
        Some((found, expected)) => format!("{field}: expected {}, found {}", wanted(expected), given(found)),
        None if error.starts_with("missing field") => error,
        None => format!("{field}: {error}"),
    }
}

/// What the parser wants, in the words of JSON.
fn wanted(expected: &str) -> &str {
    match expected {
        "a string" | "a borrowed string" | "str" => "a text",
        "a sequence" => "an array",
        "a boolean" => "true or false",
        "a map" => "an object",
        "i8" | "i16" | "i32" | "i64" => "a whole number",
        "u8" | "u16" | "u32" | "u64" => "a whole number from 0",
        struct_name if struct_name.starts_with("struct ") => "an object",
        own => own,
    }
}

/// What the parser found, in the words of JSON. Texts of clients are not repeated.
fn given(found: &str) -> String {
    let value = found.split('`').nth(1);
    match (found.split(' ').next().unwrap_or_default(), value) {
        ("map", _) => "an object".to_owned(),
        ("sequence", _) => "an array".to_owned(),
        ("string" | "character", _) => "a text".to_owned(),
        ("null" | "unit" | "Option", _) => "null".to_owned(),
        ("boolean" | "integer" | "floating", Some(value)) => value.to_owned(),
        _ => "another value".to_owned(),
    }
}

/// The path of the field without which the error changes.
fn search(fields: &Map<String, Value>, changes: &dyn Fn(&Map<String, Value>) -> bool, depth: usize) -> Vec<String> {
    if fields.len() > MAX_FIELDS || depth == 0 {
        return Vec::new();
    }
    let without = |name: &str| {
        let mut rest = fields.clone();
        rest.remove(name);
        rest
    };
    // Frames are recognised by their type: without it, every error changes.
    let Some(name) = fields.keys().filter(|name| *name != "type").find(|name| changes(&without(name))) else {
        return Vec::new();
    };
    let mut path = vec![printable_name(name)];
    if let Some(Value::Object(inner)) = fields.get(name) {
        let within = |inner: &Map<String, Value>| {
            let mut whole = fields.clone();
            whole.insert(name.clone(), Value::Object(inner.clone()));
            changes(&whole)
        };
        path.extend(search(inner, &within, depth - 1));
    }
    path
}

/// A name that a client chose, without characters that could disturb a reader.
pub fn printable_name(name: &str) -> String {
    let allowed = |c: &char| c.is_alphanumeric() || "_-.".contains(*c);
    name.chars().filter(allowed).take(MAX_NAME_CHARS).collect()
}

fn without_position(text: &str) -> String {
    match text.split(" at line ").next().unwrap_or_default() {
        // The parser's words for a value of another kind where one of several texts must stand.
        "expected value" => "a text is expected".to_owned(),
        text => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::model::{ClientId, ConversationId};

    #[derive(Deserialize)]
    #[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
    #[expect(dead_code, reason = "only the parse counts")]
    enum Frame {
        Send { conversation_id: ConversationId, client_id: Option<ClientId>, data: Option<Data> },
    }

    #[derive(Deserialize)]
    #[expect(dead_code, reason = "only the parse counts")]
    struct Data {
        content: String,
        user_ids: Vec<ConversationId>,
    }

    fn explained(text: &str) -> Option<String> {
        explain_json(text, |text| serde_json::from_str::<Frame>(text).err())
    }

    #[test]
    fn the_field_of_a_fault_is_named() {
        for (text, expected) in [
            (r#"{"type":"send","conversation_id":456.0}"#, "conversation_id: an id is text or a whole number"),
            (r#"{"type":"send","conversation_id":"a","client_id":"a b"}"#, "client_id: an id has 1 to 128"),
            (
                r#"{"type":"send","conversation_id":null}"#,
                "conversation_id: expected an id: text or a whole number, found null",
            ),
            (
                r#"{"type":"send","conversation_id":"a","data":{"content":5,"user_ids":[]}}"#,
                "data.content: expected a text, found 5",
            ),
            (r#"{"type":"send","conversation_id":"a","data":{"content":"","user_ids":["a",true]}}"#, "data.user_ids: "),
            (r#"{"type":"send","conversation_id":"a","colour":1,"Größe":2}"#, "Größe: unknown field"),
            (r#"{"type":"send"}"#, "missing field `conversation_id`"),
            (r#"{"type":"dance"}"#, "unknown variant"),
        ] {
            let found = explained(text).unwrap_or_default();
            assert!(found.starts_with(expected), "{text}: {found}");
            assert!(!found.contains("untagged") && !found.contains(" at line "), "{found}");
        }
        assert_eq!(explained(r#"{"type":"send","conversation_id":"a"}"#), None);
    }

    #[test]
    fn many_fields_are_not_searched() {
        let many: Vec<String> = (0..100).map(|number| format!(r#""f{number}":0"#)).collect();
        let found =
            explained(&format!(r#"{{"type":"send","conversation_id":1.5,{}}}"#, many.join(","))).unwrap_or_default();
        assert!(found.starts_with("an id is text"), "{found}");
    }
}
