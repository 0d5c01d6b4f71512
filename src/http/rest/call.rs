//! [`Call`]: an authenticated request, and readers for its path, query and body.

use std::{borrow::Cow, fmt, sync::Arc};

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::{HeaderMap, Method, body::Body};
use matchit::Params;
use percent_encoding::percent_decode_str;
use serde::{
    Deserialize, Deserializer,
    de::{self, DeserializeOwned},
};

use crate::{
    chat::Caller,
    http::{
        body::RequestBody,
        client,
        problem::Problem,
        service::{HttpService, Peer},
    },
    model::{
        Command, ConversationId, EntryId, EntrySeq, GivenNumber, HALF_A_CHARACTER, Identity, LogId, Page, Reject,
        Reply, Seq, UserId, explain_json, printable_name, without_lone_surrogates,
    },
};

/// Maximum size of a body, in bytes.
const MAX_BODY: usize = 256 * 1_024;

/// An authenticated request.
pub(in crate::http) struct Call<'a> {
    pub(in crate::http) service: &'a HttpService,
    pub(in crate::http) peer: &'a Peer,
    pub(in crate::http) identity: &'a Arc<Identity>,
    pub(in crate::http) params: &'a Params<'a, 'a>,
    pub(in crate::http) method: &'a Method,
    pub(in crate::http) query: Option<&'a str>,
    pub(in crate::http) headers: &'a HeaderMap,
    /// True if the token of the request may be revoked meanwhile; false for that of the console.
    pub(in crate::http) revocable: bool,
}

impl Call<'_> {
    /// Executes a command. The client chose how long the body took, so the token may have been revoked meanwhile.
    pub(in crate::http) async fn execute(&self, command: Command) -> Result<Reply, Reject> {
        if self.revocable {
            self.service.broker().auth.check_again(self.identity)?;
        }
        let caller = Caller { identity: Arc::clone(self.identity), connection: None, ack: None };
        self.service.broker().chat.execute(caller, command).await
    }

    /// A decoded segment of the path; `None` if it is not UTF-8.
    pub(in crate::http) fn segment(&self, name: &str) -> Option<Cow<'_, str>> {
        percent_decode_str(self.params.get(name).unwrap_or_default()).decode_utf8().ok()
    }

    pub(in crate::http) fn conversation_of_path(&self) -> Result<ConversationId, Problem> {
        conversation_id(self.params.get("conversation").unwrap_or_default())
    }

    /// The user id in the path. An invalid id is reported as `what` not found.
    pub(in crate::http) fn user_of_path(&self, what: &'static str) -> Result<UserId, Reject> {
        self.segment("user").and_then(|text| UserId::parse(&text).ok()).ok_or(Reject::NotFound(what))
    }

    /// The message that the path names by its seq or its id.
    pub(in crate::http) fn message_of_path(&self) -> Result<(ConversationId, EntrySeq), Problem> {
        let conversation = self.conversation_of_path()?;
        let seq = self.segment("message").and_then(|text| seq_of(&text, &conversation));
        Ok((conversation, seq.ok_or(Reject::NotFound("Message"))?))
    }

    /// Refuses a query with a parameter that is not among `known`.
    pub(in crate::http) fn check_parameters(&self, known: &[&str]) -> Result<(), Problem> {
        let unknown = client::parameter_names(self.query).find(|name| !known.contains(&&**name));
        unknown.map_or(Ok(()), |name| Err(Problem::invalid(format!("{}: unknown parameter", printable_name(&name)))))
    }

    pub(in crate::http) fn parameter(&self, name: &str) -> Option<String> {
        client::parameter(self.query, name)
    }

    /// `limit` and `offset` of the query.
    pub(in crate::http) fn page(&self) -> Result<Page, Problem> {
        Ok(Page::given(self.number("limit"), self.number("offset"))?)
    }

    /// A number of the query. The type that is built from it checks its bounds.
    pub(in crate::http) fn number(&self, name: &str) -> Option<GivenNumber> {
        self.parameter(name).map(|text| GivenNumber::parse(&text))
    }

    /// A boolean of the query; false if it is missing.
    pub(in crate::http) fn flag(&self, name: &str) -> Result<bool, Problem> {
        match self.parameter(name).as_deref() {
            Some("true") => Ok(true),
            None | Some("false") => Ok(false),
            Some(_) => Err(Problem::invalid(format!("{name} must be true or false"))),
        }
    }
}

/// Decodes and checks a conversation's id from a path.
pub(in crate::http) fn conversation_id(segment: &str) -> Result<ConversationId, Problem> {
    let text = percent_decode_str(segment).decode_utf8().map_err(|_| Problem::not_found())?;
    ConversationId::parse(&text).map_err(|_| Reject::NotFound("Conversation").into())
}

/// A message reference: its seq or its id.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) enum MessageRef {
    Seq(Seq),
    Text(String),
}

impl<'de> Deserialize<'de> for MessageRef {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct SeqOrId;

        impl de::Visitor<'_> for SeqOrId {
            type Value = MessageRef;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a message: its seq, a whole number, or its id, a text")
            }

            fn visit_i64<E>(self, seq: i64) -> Result<MessageRef, E> {
                Ok(MessageRef::Seq(seq))
            }

            fn visit_u64<E>(self, seq: u64) -> Result<MessageRef, E> {
                // A number beyond every seq names no message.
                Ok(MessageRef::Seq(Seq::try_from(seq).unwrap_or_default()))
            }

            fn visit_str<E>(self, text: &str) -> Result<MessageRef, E> {
                Ok(MessageRef::Text(text.to_owned()))
            }
        }

        from.deserialize_any(SeqOrId)
    }
}

impl MessageRef {
    /// The message's seq; `None` if the reference names no message of this conversation.
    pub(super) fn seq_in(&self, conversation: &ConversationId) -> Option<EntrySeq> {
        match self {
            Self::Seq(seq) => EntrySeq::new(*seq),
            Self::Text(text) => seq_of(text, conversation),
        }
    }
}

/// Parses a seq, or the id of a message of that conversation.
fn seq_of(text: &str, conversation: &ConversationId) -> Option<EntrySeq> {
    let seq = match text.parse() {
        Ok(seq) => seq,
        Err(_) => EntryId::parse(text).ok()?.seq_in(&LogId::from(conversation))?,
    };
    EntrySeq::new(seq)
}

/// Reads a JSON body. The content type is ignored.
pub(in crate::http) async fn read_json<T: DeserializeOwned>(body: RequestBody) -> Result<T, Problem> {
    parse(&read_bytes(&mut { body }).await?)
}

/// Reads the body of an action that takes none. It may be an empty object.
pub(in crate::http) async fn read_nothing(mut body: RequestBody) -> Result<RequestBody, Problem> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Nothing {}
    let bytes = read_bytes(&mut body).await?;
    // Many libraries write `null` where their caller gives no body.
    if !matches!(bytes.trim_ascii(), b"" | b"null") {
        let Nothing {} = parse(&bytes)?;
    }
    Ok(body)
}

/// Reads a JSON body that may be missing.
pub(super) async fn read_optional_json<T: DeserializeOwned>(body: RequestBody) -> Result<Option<T>, Problem> {
    let bytes = read_bytes(&mut { body }).await?;
    if bytes.is_empty() { Ok(None) } else { parse(&bytes).map(Some) }
}

async fn read_bytes(body: &mut RequestBody) -> Result<Bytes, Problem> {
    if body.size_hint().lower() > MAX_BODY as u64 {
        return Err(Problem::too_large(MAX_BODY));
    }
    match Limited::new(body, MAX_BODY).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(Problem::too_large(MAX_BODY)),
        Err(_) => Err(Problem::invalid("The body broke off")),
    }
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    // Bodies are objects with named fields, but serde would accept an array in their order too.
    if body.trim_ascii_start().first().is_some_and(|first| *first != b'{') {
        return Err(Problem::invalid("The body is not a JSON object"));
    }
    serde_json::from_slice(body).map_err(|error| {
        let text = std::str::from_utf8(body).ok();
        if text.is_some_and(|text| without_lone_surrogates(text).is_some()) {
            return Problem::invalid(format!("The body is not what it must be: {HALF_A_CHARACTER}"));
        }
        let named = text.and_then(|text| explain_json(text, |text| serde_json::from_str::<T>(text).err()));
        Problem::invalid(format!("The body is not what it must be: {}", named.unwrap_or_else(|| error.to_string())))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_in_paths_are_decoded_and_checked() {
        assert_eq!(conversation_id("a%3Ab%40c").unwrap().as_str(), "a:b@c");
        for bad in ["", "%00", "a%2Fb", "%7Ealice", "%ff", &"x".repeat(200)] {
            assert!(conversation_id(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn messages_are_referenced_by_seq_or_id() {
        let (room, other) = (ConversationId::parse("room").unwrap(), ConversationId::parse("other").unwrap());
        let id = EntryId::of(&LogId::from(&room), 7).to_string();
        let named = |json: String| serde_json::from_str::<MessageRef>(&json).unwrap();
        for json in ["7".to_owned(), "\"7\"".to_owned(), format!("\"{id}\"")] {
            assert_eq!(named(json.clone()).seq_in(&room), EntrySeq::new(7), "{json}");
        }
        assert_eq!(named(format!("\"{id}\"")).seq_in(&other), None);
        for bad in ["0", "-1", "\"0\"", "\"\"", "\"seven\"", "\"99999999999999999999\""] {
            assert_eq!(named(bad.to_owned()).seq_in(&room), None, "{bad}");
        }
        assert!(serde_json::from_str::<MessageRef>("7.5").is_err());
    }
}
