//! Creates the rooms of a run over REST.

use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use reqwest::{Client, StatusCode};
use serde::Deserialize;
use serde_json::json;
use tokio::time::sleep;

use super::{plan::Plan, tokens::UserToken};
use crate::model::ConversationId;

/// Requests under way at a time.
const AT_ONCE: usize = 8;
/// Maximum time of a request.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Tries of one creation.
const TRIES: u32 = 5;
/// Pause before another try, unless the server names one; the longest that is waited for.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// The part of a refusal (RFC 9457) that matters here.
#[derive(Deserialize)]
struct Problem {
    detail: String,
    retry_after_ms: Option<u64>,
}

/// Creates the rooms; the first user of each creates it, and all its users are members. `name` makes a room's id.
///
/// # Errors
/// The message for the user.
pub(super) async fn create(
    plan: &Plan,
    users: &[UserToken],
    name: impl Fn(u32) -> String,
) -> Result<Vec<ConversationId>, String> {
    let client = Client::builder().timeout(TIMEOUT).build().map_err(|error| format!("no HTTP client: {error}"))?;
    let ids = (0..plan.rooms).map(|room| ConversationId::parse(&name(room)).map_err(|error| error.to_string()));
    let ids = ids.collect::<Result<Vec<_>, _>>()?;
    let created = stream::iter(0..plan.rooms)
        .map(|room| {
            let members: Vec<&UserToken> = plan.users_of(room).filter_map(|user| users.get(user as usize)).collect();
            let (client, id) = (&client, ids.get(room as usize));
            async move {
                let (Some((owner, others)), Some(id)) = (members.split_first(), id) else { return Ok(()) };
                create_one(client, plan, id, owner, others).await
            }
        })
        .buffer_unordered(AT_ONCE);
    created.try_collect::<()>().await?;
    Ok(ids)
}

async fn create_one(
    client: &Client,
    plan: &Plan,
    id: &ConversationId,
    owner: &UserToken,
    others: &[&UserToken],
) -> Result<(), String> {
    let url = plan.target.request("/api/chat/conversations");
    let others: Vec<_> = others.iter().map(|other| &other.user).collect();
    // With an id, a request whose answer was lost can be repeated.
    let body = json!({"id": id, "name": "A room of switchboard load", "is_group": true, "participant_ids": others})
        .to_string();
    let mut why = String::new();
    for _ in 0..TRIES {
        let request = client.post(&url).bearer_auth(&owner.token).body(body.clone());
        let (status, text) = match request.send().await {
            Ok(answer) => (answer.status(), answer.text().await.unwrap_or_default()),
            Err(error) => {
                return Err(format!("{url} can't be reached: {}", super::super::outcome::with_causes(&error)));
            }
        };
        if status.is_success() {
            return Ok(());
        }
        let problem = serde_json::from_str::<Problem>(&text).ok();
        let pause = problem.as_ref().and_then(|problem| problem.retry_after_ms).map_or(PAUSE, Duration::from_millis);
        let detail = problem.map_or_else(|| "no answer of a switchboard".to_owned(), |problem| problem.detail);
        why = format!("{url} refused to create a room: {status} ({detail})");
        if status != StatusCode::TOO_MANY_REQUESTS && !status.is_server_error() {
            break;
        }
        sleep(pause.min(PAUSE_MAX)).await;
    }
    Err(why)
}
