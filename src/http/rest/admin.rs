//! Restrictions of users, for admins: disconnect, revoke, block, unblock.

use serde::{Deserialize, Serialize};

use super::{Call, call::read_optional_json, no_content, ok, unexpected};
use crate::{
    http::{HttpResult, body::RequestBody, problem::Problem},
    model::{Command, Page, Reply, Restriction, RestrictionChange, RestrictionRequest, Timestamp, TokenId, UserId},
};

/// The body of a revocation.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Revocation {
    #[serde(default)]
    issued_until: Option<Timestamp>,
    #[serde(default)]
    jti: Option<String>,
}

impl Revocation {
    fn into_request(self) -> Result<RestrictionRequest, Problem> {
        match (self.issued_until, self.jti) {
            (Some(_), Some(_)) => Err(Problem::invalid("Give issued_until or jti, not both")),
            (issued_until, None) => Ok(RestrictionRequest::RevokeIssued(issued_until)),
            (None, Some(jti)) => match TokenId::parse(&jti) {
                Ok(token) => Ok(RestrictionRequest::RevokeToken(token)),
                Err(error) => Err(Problem::invalid(error.to_string())),
            },
        }
    }
}

/// A change as its admin sees it.
#[derive(Serialize)]
struct Change<'a> {
    user_id: &'a UserId,
    #[serde(skip_serializing_if = "Option::is_none")]
    issued_until: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    jti: Option<&'a TokenId>,
    at: Timestamp,
    by: &'a str,
}

impl<'a> From<&'a RestrictionChange> for Change<'a> {
    fn from(change: &'a RestrictionChange) -> Self {
        let (issued_until, jti) = match &change.restriction {
            Restriction::Revoked { issued_until } => (Some(*issued_until), None),
            Restriction::TokenRevoked(token) => (None, Some(token)),
            Restriction::Disconnected | Restriction::Blocked | Restriction::Unblocked => (None, None),
        };
        Self { user_id: &change.user, issued_until, jti, at: change.at, by: &change.by }
    }
}

/// The answer about a block of a user.
#[derive(Serialize)]
struct Block<'a> {
    user_id: &'a UserId,
    blocked: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<&'a str>,
}

#[derive(Serialize)]
struct Blocks<'a> {
    blocks: Vec<Change<'a>>,
    total: i64,
    limit: u32,
    offset: u32,
}

impl Call<'_> {
    pub(in crate::http) async fn disconnect(&self) -> HttpResult {
        self.restrict(RestrictionRequest::Disconnect).await
    }

    pub(in crate::http) async fn revoke(&self, body: RequestBody) -> HttpResult {
        let revocation = read_optional_json::<Revocation>(body).await?;
        let request = revocation.map_or(Ok(RestrictionRequest::RevokeIssued(None)), Revocation::into_request)?;
        self.restrict(request).await
    }

    pub(in crate::http) async fn block_access(&self) -> HttpResult {
        self.restrict(RestrictionRequest::Block).await
    }

    pub(in crate::http) async fn unblock_access(&self) -> HttpResult {
        let user = self.user_of_path("User")?;
        match self.execute(Command::Restrict { user, request: RestrictionRequest::Unblock }).await? {
            Reply::Restricted(_) | Reply::Done => no_content(),
            other => Err(unexpected(&other)),
        }
    }

    pub(in crate::http) async fn block_state(&self) -> HttpResult {
        let user = self.user_of_path("User")?;
        match self.execute(Command::ShowBlock { user: user.clone() }).await? {
            Reply::BlockOf(block) => {
                let (at, by) = block.as_ref().map(|block| (block.at, &*block.by)).unzip();
                ok(&Block { user_id: &user, blocked: block.is_some(), at, by })
            }
            other => Err(unexpected(&other)),
        }
    }

    pub(in crate::http) async fn blocked_users(&self) -> HttpResult {
        let page: Page = self.page()?;
        match self.execute(Command::BlockedUsers { page }).await? {
            Reply::BlockedUsers(blocks, total) => {
                let blocks = blocks.iter().map(Change::from).collect();
                ok(&Blocks { blocks, total, limit: page.limit.get(), offset: page.offset.get() })
            }
            other => Err(unexpected(&other)),
        }
    }

    async fn restrict(&self, request: RestrictionRequest) -> HttpResult {
        let user = self.user_of_path("User")?;
        match self.execute(Command::Restrict { user, request }).await? {
            Reply::Restricted(change) => ok(&Change::from(&change)),
            other => Err(unexpected(&other)),
        }
    }
}
