//! JSON that a message carries beside its text. The broker stores and delivers it without reading
//! it: as it was sent, without the blanks between its tokens.

use std::{
    borrow::{Borrow, Cow},
    collections::HashSet,
    sync::Arc,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::value::RawValue;

use super::Reject;

/// Maximum nesting depth of a frame from a client.
pub const MAX_JSON_DEPTH: usize = 32;
/// Maximum nesting depth of data, which stands within at most two objects of a frame.
const MAX_DATA_DEPTH: usize = MAX_JSON_DEPTH - 2;
/// Maximum length of a key in the refusal that names it, in characters.
const MAX_KEY_CHARS: usize = 64;

/// The reason for which JSON is not valid as data. Every one of these would stop some reader of the frame that holds it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidData {
    /// Arrays and objects are nested too deeply.
    #[error("data is nested too deeply: at most 30 levels")]
    TooDeep,
    /// An object has a key twice, of which readers would keep one or the other.
    #[error("data has the key {0:?} twice in one object")]
    DuplicateKey(String),
    /// A number is outside the range of a double.
    #[error("data has a number beyond the range of a double; write it as text")]
    Number,
    /// A text has the character U+0000.
    #[error("data has the character U+0000 in a text")]
    Nul,
    /// A text has half of a UTF-16 surrogate pair.
    #[error("data has half of a character (a lone surrogate) in a text")]
    LoneSurrogate,
}

impl From<InvalidData> for Reject {
    fn from(error: InvalidData) -> Self {
        Self::Invalid(error.to_string())
    }
}

/// JSON beside the text of a message. Numbers, escapes and the order of keys are those of the sender. Its
/// serde form is the JSON itself; a field of an internally tagged type needs `write_as_text`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Data(Arc<RawValue>);

impl Data {
    /// Checks a client's JSON and removes the blanks between its tokens. The length is checked by the command. `null` is
    /// no data.
    ///
    /// # Errors
    /// The JSON has something that not all readers can read.
    pub fn given(json: Option<&RawValue>) -> Result<Option<Self>, InvalidData> {
        match json {
            None => Ok(None),
            Some(json) if json.get() == "null" => Ok(None),
            Some(json) => Scanner::new(json.get()).compact().map(|json| Self::stored(json).ok()),
        }
    }

    /// Reads data that was checked before.
    ///
    /// # Errors
    /// The text is not JSON.
    pub fn stored(json: String) -> Result<Self, serde_json::Error> {
        Ok(Self(RawValue::from_string(json)?.into()))
    }

    /// The JSON.
    pub fn as_str(&self) -> &str {
        self.0.get()
    }

    /// Length of the JSON, in bytes.
    pub fn bytes(&self) -> usize {
        self.0.get().len()
    }
}

impl PartialEq for Data {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Data {}

/// The effect of an edit on a message's data.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum DataEdit {
    /// The message keeps its data.
    #[default]
    Keep,
    /// The message has no data from now on.
    Remove,
    /// The message has this data from now on.
    Replace(Data),
}

impl DataEdit {
    /// Checks the field of a client's edit: if it is missing, the data stays, and `null` removes it.
    ///
    /// # Errors
    /// The JSON has something that not all readers can read.
    pub fn given(json: Option<&RawValue>) -> Result<Self, InvalidData> {
        Ok(match (json, Data::given(json)?) {
            (None, _) => Self::Keep,
            (Some(_), None) => Self::Remove,
            (Some(_), Some(data)) => Self::Replace(data),
        })
    }

    /// True if the message keeps its data.
    pub fn is_kept(&self) -> bool {
        *self == Self::Keep
    }

    /// The data from now on; the outer `None` means that it stays.
    pub fn change(&self) -> Option<Option<&Data>> {
        (!self.is_kept()).then(|| self.data())
    }

    /// The new data.
    pub fn data(&self) -> Option<&Data> {
        match self {
            Self::Replace(data) => Some(data),
            Self::Keep | Self::Remove => None,
        }
    }
}

/// The form between nodes, of a field that is left out if the data is kept.
impl Serialize for DataEdit {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        write_as_text(&self.data(), to)
    }
}

impl<'de> Deserialize<'de> for DataEdit {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Ok(read_from_text(from)?.map_or(Self::Remove, Self::Replace))
    }
}

/// Writes optional data as a text with JSON in it. An internally tagged type can't read raw JSON, because serde parses its
/// fields before it knows their types.
pub(super) fn write_as_text<S: Serializer>(data: &Option<impl Borrow<Data>>, to: S) -> Result<S::Ok, S::Error> {
    data.as_ref().map(|data| data.borrow().as_str()).serialize(to)
}

/// Reads what `write_as_text` wrote.
pub(super) fn read_from_text<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Data>, D::Error> {
    let text = Option::<Cow<'_, str>>::deserialize(from)?;
    text.map(|text| Data::stored(text.into_owned()).map_err(de::Error::custom)).transpose()
}

/// Reads a field that keeps `null` apart from a missing one.
pub fn given_or_null<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

/// An array or an object that the scanner is in.
enum Level<'a> {
    Array,
    /// The keys so far, and whether a key comes next.
    Object(HashSet<Cow<'a, str>>, bool),
}

/// Walks over JSON whose syntax is known to be right.
struct Scanner<'a> {
    rest: &'a str,
    compact: String,
    levels: Vec<Level<'a>>,
}

impl<'a> Scanner<'a> {
    fn new(json: &'a str) -> Self {
        Self { rest: json, compact: String::with_capacity(json.len()), levels: Vec::new() }
    }

    /// The JSON without blanks between its tokens.
    fn compact(mut self) -> Result<String, InvalidData> {
        loop {
            self.rest = self.rest.trim_start();
            let Some(first) = self.rest.bytes().next() else { return Ok(self.compact) };
            match first {
                b'{' | b'[' => self.open(first)?,
                b'}' | b']' => {
                    self.levels.pop();
                    self.copy(1);
                }
                b',' | b':' => {
                    if let Some(Level::Object(_, key_next)) = self.levels.last_mut() {
                        *key_next = first == b',';
                    }
                    self.copy(1);
                }
                b'"' => self.text()?,
                _ => self.literal()?,
            }
        }
    }

    /// Takes the next token and copies it.
    fn copy(&mut self, length: usize) -> &'a str {
        let (token, rest) = self.rest.split_at(length.min(self.rest.len()));
        self.compact.push_str(token);
        self.rest = rest;
        token
    }

    fn open(&mut self, bracket: u8) -> Result<(), InvalidData> {
        if self.levels.len() == MAX_DATA_DEPTH {
            return Err(InvalidData::TooDeep);
        }
        self.levels.push(if bracket == b'{' { Level::Object(HashSet::new(), true) } else { Level::Array });
        self.copy(1);
        Ok(())
    }

    fn text(&mut self) -> Result<(), InvalidData> {
        let mut escaped = false;
        let ends = |byte: u8| {
            let end = byte == b'"' && !escaped;
            escaped = byte == b'\\' && !escaped;
            end
        };
        let inner = self.rest.bytes().skip(1).position(ends).unwrap_or(self.rest.len());
        let token = self.copy(inner + 2);
        let text: Cow<'a, str> = match token.contains('\\') {
            // The syntax is right, so only half of a surrogate pair can be wrong.
            true => serde_json::from_str::<String>(token).map_err(|_| InvalidData::LoneSurrogate)?.into(),
            false => token.trim_matches('"').into(),
        };
        if text.contains('\0') {
            return Err(InvalidData::Nul);
        }
        if let Some(Level::Object(keys, true)) = self.levels.last_mut()
            && let Some(twice) = keys.replace(text)
        {
            return Err(InvalidData::DuplicateKey(twice.chars().take(MAX_KEY_CHARS).collect()));
        }
        Ok(())
    }

    /// A number, `true`, `false` or `null`.
    fn literal(&mut self) -> Result<(), InvalidData> {
        let ends = |c: char| matches!(c, ',' | ']' | '}' | ' ' | '\t' | '\n' | '\r');
        let token = self.copy(self.rest.find(ends).unwrap_or(self.rest.len()));
        let is_number = token.starts_with(|c: char| c == '-' || c.is_ascii_digit());
        let fits = || token.parse::<f64>().is_ok_and(f64::is_finite);
        if is_number && !fits() { Err(InvalidData::Number) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn given(json: &str) -> Result<Option<String>, InvalidData> {
        let raw: Box<RawValue> = serde_json::from_str(json).unwrap();
        Ok(Data::given(Some(&raw))?.map(|data| data.as_str().to_owned()))
    }

    #[test]
    fn data_is_kept_as_sent_without_blanks() {
        for (json, kept) in [
            (r#" { "b" : [ 1.0 , 10e2 ,-0 ] , "a" : "x \" y" } "#, r#"{"b":[1.0,10e2,-0],"a":"x \" y"}"#),
            (r#""\u00e9 \\" "#, r#""\u00e9 \\""#),
            ("123456789012345678901234567890", "123456789012345678901234567890"),
            ("[[],{}, true,\n\tfalse,null ]", "[[],{},true,false,null]"),
            (r#"{"a":{"a":1},"b":{"a":1},"":""}"#, r#"{"a":{"a":1},"b":{"a":1},"":""}"#),
            (r#"{"k":["k","k"]}"#, r#"{"k":["k","k"]}"#),
            (r#""😀""#, r#""😀""#),
        ] {
            assert_eq!(given(json).unwrap().as_deref(), Some(kept), "{json}");
        }
        assert_eq!((given("null"), Data::given(None)), (Ok(None), Ok(None)));
    }

    #[test]
    fn what_a_reader_could_not_read_is_refused() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        for (json, error) in [
            (nested(31), InvalidData::TooDeep),
            (r#"{"a":1,"b":2,"a":3}"#.into(), InvalidData::DuplicateKey("a".into())),
            (r#"[{"x":{"\u0061":1,"a":3}}]"#.into(), InvalidData::DuplicateKey("a".into())),
            ("[1e400]".into(), InvalidData::Number),
            (format!("-{}", "9".repeat(400)), InvalidData::Number),
            (r#"{"a":"\u0000"}"#.into(), InvalidData::Nul),
            (r#"{"a\u0000":1}"#.into(), InvalidData::Nul),
            (r#""\ud83d""#.into(), InvalidData::LoneSurrogate),
            (r#"{"\ude00":1}"#.into(), InvalidData::LoneSurrogate),
        ] {
            assert_eq!(given(&json), Err(error), "{json}");
        }
        assert!(given(&nested(30)).is_ok());
    }

    #[test]
    fn an_edit_keeps_removes_or_replaces() {
        #[derive(Deserialize)]
        struct Edit<'a> {
            #[serde(borrow, default, deserialize_with = "given_or_null")]
            data: Option<&'a RawValue>,
        }
        let edit = |json: &str| DataEdit::given(serde_json::from_str::<Edit<'_>>(json).unwrap().data).unwrap();
        assert_eq!((edit("{}"), edit(r#"{"data": null}"#)), (DataEdit::Keep, DataEdit::Remove));
        assert_eq!(edit(r#"{"data":[1]}"#).data().map(Data::as_str), Some("[1]"));
        for edit in [DataEdit::Remove, edit(r#"{"data":{"a":"\""}}"#)] {
            let wire = serde_json::to_string(&edit).unwrap();
            assert_eq!(serde_json::from_str::<DataEdit>(&wire).unwrap(), edit, "{wire}");
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_filter("finite", |number| number.is_finite()).prop_map(Value::from),
            "[^\0]{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[^\0]{0,4}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn the_blanks_make_no_difference(value in any_json()) {
            let compact = serde_json::to_string(&value).unwrap();
            let spread = serde_json::to_string_pretty(&value).unwrap();
            let expected = (compact != "null").then_some(compact.clone());
            prop_assert_eq!(given(&compact).unwrap(), expected.clone());
            prop_assert_eq!(given(&spread).unwrap(), expected);
        }
    }
}
