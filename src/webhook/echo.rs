//! The persona of `switchboard dev`: it answers with what it was told, so that `persona_id` works before there is a webhook.

use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use tokio::time::sleep;

/// Time that the persona types, so that people see it do so.
const THINKS_FOR: Duration = Duration::from_millis(600);

/// The answer to a request for the persona's answer.
pub(super) async fn answer(request: &[u8]) -> Bytes {
    #[derive(Deserialize, Default)]
    struct Request {
        message: String,
        sender_name: String,
    }
    sleep(THINKS_FOR).await;
    // `chat` wrote the request, which has both.
    let Request { message, sender_name } = serde_json::from_slice(request).unwrap_or_default();
    serde_json::json!({"content": content(&sender_name, &message)}).to_string().into()
}

/// The text of the answer: what was said, and by whom, unless it would be too long with that.
fn content(name: &str, message: &str) -> String {
    let said = format!("{name} said: {message}");
    if crate::model::Content::parse(&said).is_ok() { said } else { message.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_says_what_it_was_told() {
        let answer = answer(br#"{"message": "hello", "sender_name": "Alice", "seq": 1}"#).await;
        assert_eq!(&answer[..], br#"{"content":"Alice said: hello"}"#);
        let longest = "x".repeat(5_000);
        assert_eq!(content("Alice", &longest), longest);
    }
}
