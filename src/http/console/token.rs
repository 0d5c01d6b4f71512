//! Why a token is refused. The answer has neither the token, nor its signature, nor a key.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    auth::{SHOWN_CLAIMS, SignatureCheck, inspect, remedy},
    http::{
        HttpResult,
        body::RequestBody,
        rest::{Call, ok, read_json},
    },
};

/// The fields of the header that are shown.
const SHOWN_FIELDS: [&str; 4] = ["alg", "kid", "typ", "crit"];
/// Maximum length of a value that is shown, in characters.
const VALUE_CHARS: usize = 200;
/// Maximum number of other claims that are named.
const NAMES_MAX: usize = 50;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Given {
    token: String,
}

#[derive(Serialize)]
struct Explained {
    accepted: bool,
    signature: &'static str,
    /// Why the signature was not checked.
    signature_detail: Option<String>,
    /// The code of the refusal, if an admin keeps the token out.
    kept_out: Option<&'static str>,
    flaws: Vec<Flaw>,
    header: Vec<Field>,
    claims: Vec<Field>,
    other_claims: Vec<String>,
}

#[derive(Serialize)]
struct Flaw {
    place: &'static str,
    flaw: String,
    remedy: &'static str,
}

#[derive(Serialize)]
struct Field {
    name: &'static str,
    /// JSON, shortened.
    value: String,
}

pub(super) async fn explain(call: &Call<'_>, body: RequestBody) -> HttpResult {
    let Given { token } = read_json(body).await?;
    let token = token.trim();
    let token = token.strip_prefix("Bearer ").unwrap_or(token).trim();
    let broker = call.service.broker();
    let found = inspect(token, Ok(&broker.auth), &broker.clock);
    let (signature, signature_detail) = match found.signature {
        SignatureCheck::Matches => ("matches", None),
        SignatureCheck::Wrong => ("wrong", None),
        SignatureCheck::NotChecked(why) => ("not_checked", Some(why)),
    };
    let others = found.claims.keys().filter(|name| !SHOWN_CLAIMS.contains(&name.as_str()));
    let flaw =
        |flaw| Flaw { place: crate::model::TokenFlaw::place(flaw), flaw: flaw.to_string(), remedy: remedy(flaw) };
    ok(&Explained {
        accepted: signature == "matches" && found.flaws.is_empty() && found.kept_out.is_none(),
        signature,
        signature_detail,
        kept_out: found.kept_out.as_ref().map(crate::model::Reject::code),
        flaws: found.flaws.iter().copied().map(flaw).collect(),
        header: fields(&SHOWN_FIELDS, &found.header),
        claims: fields(&SHOWN_CLAIMS, &found.claims),
        other_claims: others.take(NAMES_MAX).map(|name| shortened(name)).collect(),
    })
}

fn fields(names: &[&'static str], of: &serde_json::Map<String, Value>) -> Vec<Field> {
    let field = |name: &&'static str| Some(Field { name, value: shortened(&of.get(*name)?.to_string()) });
    names.iter().filter_map(field).collect()
}

fn shortened(text: &str) -> String {
    let mut short: String = text.chars().take(VALUE_CHARS).collect();
    if text.chars().nth(VALUE_CHARS).is_some() {
        short.push('…');
    }
    short
}
