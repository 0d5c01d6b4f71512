//! `switchboard token --inspect`: explains a token. It prints neither the signature nor a key.

use std::{fmt::Write, io::Read, time::Duration};

use clap::ArgMatches;
use serde_json::{Map, Value};
use tokio::time::timeout;

use super::outcome::{Failure, Outcome, block_on, print};
use crate::{
    auth::{Auth, Inspection, SHOWN_CLAIMS, SignatureCheck, inspect, remedy},
    config::{AuthConfig, Sources},
    model::{Clock, Timestamp},
    restrictions::Restrictions,
};

/// Maximum time to fetch published keys.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum length of a value that is shown, in characters.
const MAX_SHOWN_CHARS: usize = 200;
/// Maximum length of a token that is read from standard input, in bytes.
const MAX_INPUT_BYTES: u64 = 64 * 1_024;
/// The result for a token without a flaw. This program does not ask the store for revocations.
const ACCEPTED: &str =
    "ok    a node with this configuration accepts the token, unless an admin revoked it or blocked its user\n";

/// Explains the token `text`, or the one on standard input if it is `-`. Fails if a node would refuse the token.
pub(super) fn run(text: &str, matches: &ArgMatches, sources: &Sources) -> Result<Outcome, Failure> {
    let mut input = String::new();
    let token = if text == "-" {
        std::io::stdin().lock().take(MAX_INPUT_BYTES).read_to_string(&mut input).map_err(Failure::runtime)?;
        input.trim()
    } else {
        text.trim()
    };
    let token = token.strip_prefix("Bearer ").unwrap_or(token);
    let auth = match AuthConfig::load(matches.get_flag("dev"), sources) {
        Ok(config) => fetched(Auth::new(&config, Clock::system(), Restrictions::none()).map_err(Failure::runtime)?)?,
        Err(_) => Err("no key is configured here (JWT_SECRET, JWT_PUBLIC_KEY, JWT_JWKS_URL, or --dev)".to_owned()),
    };
    let clock = Clock::system();
    let found = inspect(token, auth.as_ref().map_err(Clone::clone), &clock);
    print(&text_of(&found, &clock))?;
    Ok(if found.flaws.is_empty() { Outcome::Done } else { Outcome::Failed })
}

/// Fetches published keys, if the configuration names some.
fn fetched(auth: Auth) -> Result<Result<Auth, String>, Failure> {
    let fetched = block_on(async { timeout(TIMEOUT, auth.fetch_keys()).await })?;
    Ok(match fetched {
        Ok(None | Some(Ok(_))) => Ok(auth),
        Ok(Some(Err(error))) => Err(format!("the published keys could not be fetched: {error}")),
        Err(_) => Err(format!("the published keys did not arrive within {} s", TIMEOUT.as_secs())),
    })
}

fn text_of(found: &Inspection, clock: &Clock) -> String {
    let mut text = String::new();
    // Writing to a String can't fail.
    for name in ["alg", "kid", "typ", "crit"] {
        if let Some(value) = found.header.get(name) {
            let _ = writeln!(text, "header {name:<9} {}", shown(value));
        }
    }
    for name in SHOWN_CLAIMS {
        if let Some(value) = found.claims.get(name) {
            let _ = writeln!(text, "claim  {name:<9} {}{}", shown(value), time(name, value, clock));
        }
    }
    if let Some(others) = others(&found.claims) {
        let _ = writeln!(text, "other claims: {others}");
    }
    let signature = match &found.signature {
        SignatureCheck::Matches => "it matches a key of this configuration".to_owned(),
        SignatureCheck::Wrong => "it does not match".to_owned(),
        SignatureCheck::NotChecked(why) => format!("not checked: {why}"),
    };
    let _ = writeln!(text, "signature: {signature}\n");
    for flaw in &found.flaws {
        let _ = writeln!(text, "FAIL  {}: {flaw}. {}", flaw.place(), remedy(*flaw));
    }
    match (&found.signature, found.flaws.is_empty()) {
        (_, false) => {}
        (SignatureCheck::Matches, true) => text.push_str(ACCEPTED),
        _ => text.push_str("ok    the claims are sound; whether a node accepts the token depends on its signature\n"),
    }
    text
}

/// A value on one line, without control characters.
fn shown(value: &Value) -> String {
    let text = value.to_string();
    let clean = |c: char| if c.is_control() { '?' } else { c };
    let mut short: String = text.chars().take(MAX_SHOWN_CHARS).map(clean).collect();
    if text.chars().nth(MAX_SHOWN_CHARS).is_some() {
        short.push('…');
    }
    short
}

/// The time that a claim in seconds stands for.
fn time(name: &str, value: &Value, clock: &Clock) -> String {
    let seconds = match (name, value.as_f64()) {
        ("iat" | "nbf" | "exp", Some(seconds)) if (0.0..253_402_300_800.0).contains(&seconds) => seconds,
        _ => return String::new(),
    };
    #[expect(clippy::cast_possible_truncation, reason = "the range check above keeps it within i64")]
    let seconds = seconds as i64;
    let distance = seconds.saturating_sub(clock.now().seconds());
    let when = if distance >= 0 { "from now" } else { "ago" };
    format!(" ({}, {} s {when})", Timestamp::from_seconds(seconds), distance.unsigned_abs())
}

/// The names of the claims whose values are not shown.
fn others(claims: &Map<String, Value>) -> Option<String> {
    let names: Vec<String> = claims
        .keys()
        .filter(|name| !SHOWN_CLAIMS.contains(&name.as_str()))
        .map(|name| name.escape_default().to_string())
        .collect();
    let text = names.join(", ");
    (!text.is_empty()).then(|| text.chars().take(MAX_SHOWN_CHARS).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::TokenFlaw;

    #[test]
    fn values_are_shown_on_one_line() {
        assert_eq!(shown(&json!("a\nb\u{1b}[31m")), "\"a\\nb\\u001b[31m\"");
        assert_eq!(shown(&json!(["chat", "b"])), "[\"chat\",\"b\"]");
        assert!(shown(&json!("x".repeat(500))).ends_with('…'));
        let clock = Clock::from_fn(|| Timestamp::from_seconds(100));
        assert_eq!(time("exp", &json!(160), &clock), " (1970-01-01T00:02:40.000000Z, 60 s from now)");
        assert_eq!(time("exp", &json!(1.8e12), &clock), "");
        assert_eq!(time("sub", &json!(160), &clock), "");
    }

    #[test]
    fn only_the_names_of_other_claims_are_shown() {
        let claims = json!({"sub": "alice", "email": "alice@example.com", "exp": 1});
        let found = Inspection {
            header: Map::new(),
            claims: claims.as_object().cloned().unwrap_or_default(),
            signature: SignatureCheck::NotChecked("no key".into()),
            flaws: vec![TokenFlaw::Expired],
            kept_out: None,
        };
        let text = text_of(&found, &Clock::system());
        assert!(text.contains("other claims: email") && !text.contains("alice@example.com"), "{text}");
        assert!(text.contains("FAIL  exp:"), "{text}");
    }
}
