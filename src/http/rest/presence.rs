//! Presence, the caller's status, and typing.

use serde::{Deserialize, Serialize};

use super::{
    Call,
    call::{read_json, read_optional_json},
    ok, unexpected,
};
use crate::{
    http::{HttpResult, body::RequestBody, problem::Problem},
    model::{Command, ConversationId, Listed, PageLimit, Reply, Status, Timestamp, UserId},
};

#[derive(Serialize)]
struct Online<'a> {
    users: &'a [UserId],
    count: u64,
    next: Option<u64>,
}

#[derive(Serialize)]
struct UserOnline<'a> {
    user_id: &'a UserId,
    online: bool,
    status: Status,
    last_seen: Option<Timestamp>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewStatus {
    status: Status,
}

#[derive(Serialize)]
struct OwnStatus<'a> {
    user_id: &'a UserId,
    status: Status,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Typing {
    is_typing: Option<bool>,
}

/// The typing state that the listeners were told.
#[derive(Serialize)]
struct TypingState {
    conversation_id: ConversationId,
    is_typing: bool,
}

impl Call<'_> {
    pub(super) async fn online(&self) -> HttpResult {
        let (users, count, next) = self.online_users().await?;
        ok(&Online { users: &users, count, next })
    }

    /// The page of online users that the request asks for: the users, the number of all, and the next position.
    pub(in crate::http) async fn online_users(&self) -> Result<(Vec<UserId>, u64, Option<u64>), Problem> {
        let cursor = self.parameter("cursor").map(|text| text.parse()).transpose();
        let cursor =
            cursor.map_err(|_| Problem::invalid(format!("cursor must be a whole number from 0 to {}", u64::MAX)))?;
        let limit = PageLimit::given(self.number("limit"))?;
        match self.execute(Command::Online { cursor: cursor.unwrap_or(0), limit }).await? {
            Reply::Online { users, count, next } => Ok((users, count, next)),
            other => Err(unexpected(&other)),
        }
    }

    pub(super) async fn user_online(&self) -> HttpResult {
        let users = Listed::given("user", vec![self.user_of_path("User")?])?;
        match self.execute(Command::Presence { users }).await? {
            Reply::Presence { users, .. } => {
                let seen = users.first().ok_or_else(Problem::internal)?;
                let (online, status, last_seen) = (seen.online, seen.status, seen.last_seen);
                ok(&UserOnline { user_id: &seen.user, online, status, last_seen })
            }
            other => Err(unexpected(&other)),
        }
    }

    pub(super) async fn set_status(&self, body: RequestBody) -> HttpResult {
        let NewStatus { status } = read_json(body).await?;
        match self.execute(Command::SetStatus { status }).await? {
            Reply::Done => ok(&OwnStatus { user_id: &self.identity.user, status }),
            other => Err(unexpected(&other)),
        }
    }

    pub(super) async fn typing(&self, body: RequestBody) -> HttpResult {
        let conversation = self.conversation_of_path()?;
        // Without is_typing, the request starts typing.
        let active = read_optional_json::<Typing>(body).await?.and_then(|body| body.is_typing).unwrap_or(true);
        let state = TypingState { conversation_id: conversation.clone(), is_typing: active };
        match self.execute(Command::Typing { conversation, active }).await? {
            Reply::Done => ok(&state),
            other => Err(unexpected(&other)),
        }
    }
}
