//! Frames of which every field is known. A dialect that refuses unknown fields reads its frames as [`WithoutRef`].

use std::{borrow::Cow, fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{
        DeserializeSeed, IgnoredAny, IntoDeserializer, MapAccess, Visitor,
        value::{BorrowedStrDeserializer, MapAccessDeserializer},
    },
};

/// The client's mark, which any frame may have; the envelope reads it.
const REF: &str = "ref";

/// A frame without its `ref`, so that `T` can deny unknown fields.
pub(super) struct WithoutRef<T>(pub(super) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for WithoutRef<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(Object(PhantomData)).map(Self)
    }
}

struct Object<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Object<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(Fields(fields)))
    }
}

/// The fields of an object without `ref`.
struct Fields<A>(A);

/// The name of a field; borrowed unless it has escapes.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Fields<A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        while let Some(Name(name)) = self.0.next_key()? {
            if name == REF {
                let _mark: IgnoredAny = self.0.next_value()?;
                continue;
            }
            return match name {
                Cow::Borrowed(name) => seed.deserialize(BorrowedStrDeserializer::new(name)),
                Cow::Owned(name) => seed.deserialize(name.into_deserializer()),
            }
            .map(Some);
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.0.next_value_seed(seed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
    enum Frame<'a> {
        Say {
            #[serde(borrow)]
            content: Cow<'a, str>,
        },
        Ping {},
    }

    fn read(text: &str) -> Result<Frame<'_>, String> {
        serde_json::from_str::<WithoutRef<Frame<'_>>>(text).map(|frame| frame.0).map_err(|error| error.to_string())
    }

    #[test]
    fn only_the_mark_is_skipped() {
        let said = read(r#"{"type":"say","ref":{"a":[1]},"content":"hi"}"#).unwrap();
        assert!(matches!(said, Frame::Say { content: Cow::Borrowed("hi") }));
        assert_eq!(read(r#"{"ref":1,"type":"ping"}"#), Ok(Frame::Ping {}));
        assert_eq!(read(r#"{"type":"say","c\u006fntent":"hi"}"#), Ok(Frame::Say { content: "hi".into() }));
        for (unknown, field) in [
            (r#"{"type":"say","content":"hi","colour":1}"#, "colour"),
            (r#"{"type":"ping","refs":1}"#, "refs"),
            (r#"{"type":"ping","ping":{"ref":1}}"#, "ping"),
        ] {
            let error = read(unknown).unwrap_err();
            assert!(error.starts_with(&format!("unknown field `{field}`")), "{unknown}: {error}");
        }
    }
}
