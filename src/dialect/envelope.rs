//! The common envelope of all dialects' frames: a JSON object with a `type` and an optional `ref`.

use std::borrow::Cow;

use serde_json::{error::Category, value::RawValue};

use super::codec::{BadFrame, Intent, Request};
use crate::model::{
    Content, Data, HALF_A_CHARACTER, MAX_JSON_DEPTH, Reject, explain_json, given_or_null, in_plain_words,
    without_lone_surrogates,
};

/// Parses a frame of a known type as `$kind`; `$data` is its data, if it may have some.
macro_rules! read {
    ($kind:ty, $text:expr, $data:expr) => {
        $crate::dialect::envelope::parse::<$kind>($text, $data, |text| serde_json::from_str::<$kind>(text).err())
    };
}
pub(super) use read;

/// Parses a frame. `fails` does the same for any other text and returns its error; it serves to find the field at
/// fault. Call it through [`read!`].
pub(super) fn parse<'a, T: serde::Deserialize<'a>>(
    text: &'a str,
    data: Option<&RawValue>,
    fails: impl Fn(&str) -> Option<serde_json::Error>,
) -> Result<T, Reject> {
    // The envelope was read, so the text is JSON.
    serde_json::from_str(text).map_err(|_| {
        // The parser stumbles over such data too, but names no reason that a client could act on.
        if let Err(invalid) = Data::given(data) {
            return invalid.into();
        }
        let fault = explain_json(text, fails).unwrap_or_default();
        Reject::Invalid(format!("Invalid message format: {}", shorten(&fault)))
    })
}

/// Checks the content of a message, which may be empty beside data.
pub(super) fn content(text: &str, data: Option<&Data>) -> Result<Content, Reject> {
    Content::beside(data, text).map_err(|error| Reject::Invalid(error.to_string()))
}

/// The refusal for a type that the dialect doesn't have.
pub(super) fn unknown_type(kind: &str) -> Reject {
    Reject::UnknownType(kind.chars().take(64).collect())
}

/// Decodes a text frame by its `type`. `read_intent` also gets the frame's `data` as it stands, since an internally tagged
/// type can't hold raw JSON. `example` is a valid frame, shown to a client that sent an unreadable one.
pub(super) fn request(
    text: &str,
    example: &str,
    read_intent: impl FnOnce(&str, Option<&RawValue>) -> Result<Intent, Reject>,
) -> Result<Request, BadFrame> {
    let decoded = open_envelope(text, example).and_then(|Envelope { kind, reference, data }| {
        let intent = read_intent(&kind, data)?;
        Ok(Request { reference: reference.map(ToOwned::to_owned), intent })
    });
    decoded.map_err(|reject| match without_lone_surrogates(text) {
        Some(mended) => bad_frame(&mended, half_a_character()),
        None => bad_frame(text, reject),
    })
}

/// The refusal of a frame, with as much of its marks as can be read.
fn bad_frame(text: &str, reject: Reject) -> BadFrame {
    let Marks { reference, client_id, data } = serde_json::from_str(text).unwrap_or_default();
    let data: DataMarks<'_> = data.and_then(|data| serde_json::from_str(data.get()).ok()).unwrap_or_default();
    let client_id = client_id.or(data.client_id).and_then(|id| serde_json::from_str(id.get()).ok());
    let reference = reference.filter(|reference| reference.get().len() <= MAX_REFERENCE_BYTES);
    BadFrame { reference: reference.map(ToOwned::to_owned), client_id, reject }
}

/// The marks by which a client recognises the answer to a frame.
#[derive(serde::Deserialize, Default)]
struct Marks<'a> {
    #[serde(borrow, default, rename = "ref")]
    reference: Option<&'a RawValue>,
    #[serde(borrow, default)]
    client_id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
}

/// The mark within the `data` of a frame of the rooms dialect.
#[derive(serde::Deserialize, Default)]
struct DataMarks<'a> {
    #[serde(borrow, default)]
    client_id: Option<&'a RawValue>,
}

/// Refuses JSON that is nested too deeply, before it is parsed.
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
    #[serde(borrow, default, deserialize_with = "given_or_null")]
    data: Option<&'a RawValue>,
}

/// Maximum length of a `ref`, in bytes.
const MAX_REFERENCE_BYTES: usize = 256;

/// Checks a frame's nesting depth, then reads the fields that every frame may have.
fn open_envelope<'a>(text: &'a str, example: &str) -> Result<Envelope<'a>, Reject> {
    check_json_depth(text)?;
    if !text.trim_start().starts_with('{') {
        return Err(not_a_frame("not a JSON object", example));
    }
    let envelope: Envelope<'_> = serde_json::from_str(text).map_err(|error| match error.classify() {
        // Of the envelope's fields, only the type has one kind of value.
        Category::Data => not_a_frame(&shorten(&in_plain_words(&error.to_string(), "type")), example),
        _ if names_no_number(text, &error) => not_a_frame("not JSON, which has no NaN and no Infinity", example),
        _ => not_a_frame("not JSON", example),
    })?;
    match envelope.reference {
        Some(reference) if reference.get().len() > MAX_REFERENCE_BYTES => {
            Err(Reject::Invalid("ref is too long: at most 256 bytes".into()))
        }
        _ => Ok(envelope),
    }
}

/// True if the parser stopped at a name that many libraries write for a number that JSON doesn't have.
fn names_no_number(text: &str, error: &serde_json::Error) -> bool {
    let line = text.lines().nth(error.line().saturating_sub(1)).unwrap_or_default();
    // The parser may have read a sign, or a first letter.
    let at = error.column().saturating_sub(2);
    let rest = line.get(at..).unwrap_or_default().trim_start_matches([' ', ':', ',', '[', '-']);
    ["NaN", "Infinity"].iter().any(|name| rest.starts_with(name))
}

/// The refusal of a frame with half of a character, such as a client sends that cuts a text within an emoji.
fn half_a_character() -> Reject {
    Reject::Invalid(format!("Invalid message format: {HALF_A_CHARACTER}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ClientId;

    #[test]
    fn refused_frames_keep_their_marks() {
        let refuse = |text: &str| request(text, "{}", |_, _| Err(Reject::Invalid("no".into()))).unwrap_err();
        let deep = format!(r#"{{"type":"x","ref":7,"client_id":"c-1","deep":{}{}}}"#, "[".repeat(500), "]".repeat(500));
        for text in [
            r#"{"type":"x","ref":7,"client_id":"c-1"}"#,
            r#"{"type":"x","ref":7,"data":{"client_id":"c-1"}}"#,
            r#"{"type":"x","ref":7,"client_id":"c-1","content":"\ud83d"}"#,
            r#"{"type":"x","ref":7,"client_id":"c-1","\ud83d":1}"#,
            r#"{"type":"\ud83d","ref":7,"client_id":"c-1"}"#,
            r#"{"ref":7,"client_id":"c-1"}"#,
            r#"{"type":["x"],"ref":7,"client_id":"c-1"}"#,
            &deep,
        ] {
            let bad = refuse(text);
            assert_eq!(bad.client_id, Some(ClientId::parse("c-1").unwrap()), "{text}");
            assert_eq!(bad.reference.unwrap().get(), "7", "{text}");
        }
        assert_eq!(refuse(r#"{"type":"x","client_id":{}}"#).client_id, None);
        let long = refuse(&format!(r#"{{"type":"x","ref":"{}","client_id":"c-1"}}"#, "x".repeat(300)));
        assert!(long.reference.is_none() && long.client_id.is_some());
    }

    #[test]
    fn depth_is_counted_outside_strings() {
        assert!(check_json_depth(&format!("{}{}", "[".repeat(32), "]".repeat(32))).is_ok());
        assert!(check_json_depth(&"[".repeat(33)).is_err());
        assert!(check_json_depth(&format!("[\"\\\"{}\"]", "[".repeat(99))).is_ok());
    }
}
