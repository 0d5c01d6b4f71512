//! The common envelope of all dialects' frames: a JSON object with a `type` and an optional `ref`.

use std::borrow::Cow;

use serde_json::{error::Category, value::RawValue};

use super::codec::{BadFrame, Intent, Reference, Request};
use crate::model::{Content, Reject};

/// Parses a frame of a known type.
pub(super) fn read<'a, T: serde::Deserialize<'a>>(text: &'a str) -> Result<T, Reject> {
    serde_json::from_str(text).map_err(|error| explain(&error))
}

/// Checks the content of a message.
pub(super) fn content(text: &str) -> Result<Content, Reject> {
    Content::parse(text).map_err(|error| Reject::Invalid(error.to_string()))
}

/// The refusal for a type that the dialect doesn't have.
pub(super) fn unknown_type(kind: &str) -> Reject {
    Reject::UnknownType(kind.chars().take(64).collect())
}

/// Decodes a text frame by its `type`. `example` is a valid frame, shown to a client that sent an unreadable one.
pub(super) fn request(
    text: &str,
    example: &str,
    read_intent: impl FnOnce(&str) -> Result<Intent, Reject>,
) -> Result<Request, BadFrame> {
    let (kind, reference) = open_envelope(text, example)?;
    match read_intent(&kind) {
        Ok(intent) => Ok(Request { reference, intent }),
        Err(reject) => Err(BadFrame { reference, reject }),
    }
}

/// Maximum nesting depth of JSON. Deeper frames are refused before they are parsed.
const MAX_JSON_DEPTH: usize = 32;

/// Refuses JSON that is nested too deeply.
fn check_json_depth(text: &str) -> Result<(), Reject> {
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'{' | b'[' if !quoted => {
                depth += 1;
                if depth > MAX_JSON_DEPTH {
                    return Err(Reject::Invalid("JSON is nested too deeply: at most 32 levels".into()));
                }
            }
            b'}' | b']' if !quoted => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}

/// The refusal for a text that is not a frame: names the flaw and shows an example frame.
fn not_a_frame(flaw: &str, example: &str) -> Reject {
    Reject::Invalid(format!("Invalid message format: {flaw}. A frame looks like this: {example}"))
}

/// Converts a parse error to a text for the client, which never repeats parts of the frame.
fn explain(error: &serde_json::Error) -> Reject {
    match error.classify() {
        Category::Data => Reject::Invalid(format!("Invalid message format: {}", shorten(&error.to_string()))),
        _ => Reject::Invalid("Invalid message format: not JSON".into()),
    }
}

/// The beginning of an error text, without the position in the input.
fn shorten(text: &str) -> String {
    let text = text.split(" at line ").next().unwrap_or_default();
    text.chars().take(120).collect()
}

/// The fields that every frame may have.
#[derive(serde::Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow, default, rename = "ref")]
    reference: Option<&'a RawValue>,
}

/// Maximum length of a `ref`, in bytes.
const MAX_REFERENCE_BYTES: usize = 256;

/// Checks a frame's nesting depth, then reads its `type` and `ref`.
fn open_envelope<'a>(text: &'a str, example: &str) -> Result<(Cow<'a, str>, Option<Reference>), BadFrame> {
    let bad = |reject| BadFrame { reference: None, reject };
    check_json_depth(text).map_err(bad)?;
    if !text.trim_start().starts_with('{') {
        return Err(bad(not_a_frame("not a JSON object", example)));
    }
    let envelope: Envelope<'_> = serde_json::from_str(text).map_err(|error| {
        bad(match error.classify() {
            Category::Data => not_a_frame(&shorten(&error.to_string()), example),
            _ => not_a_frame("not JSON", example),
        })
    })?;
    match envelope.reference {
        Some(reference) if reference.get().len() > MAX_REFERENCE_BYTES => {
            Err(bad(Reject::Invalid("ref is too long: at most 256 bytes".into())))
        }
        reference => Ok((envelope.kind, reference.map(ToOwned::to_owned))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_is_counted_outside_strings() {
        assert!(check_json_depth(&format!("{}{}", "[".repeat(32), "]".repeat(32))).is_ok());
        assert!(check_json_depth(&"[".repeat(33)).is_err());
        assert!(check_json_depth(&format!("[\"\\\"{}\"]", "[".repeat(99))).is_ok());
    }
}
