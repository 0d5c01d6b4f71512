//! Lists the caller's notifications and marks them read.

use serde::{Deserialize, Serialize};

use super::{Call, call::read_json, done, ok, unexpected};
use crate::{
    http::{HttpResult, body::RequestBody, problem::Problem},
    model::{self, Command, ConversationId, GivenNumber, Listed, Offset, PageLimit, Reply, Seq, Timestamp},
};

#[derive(Serialize)]
struct Notifications<'a> {
    notifications: Vec<Notification<'a>>,
    limit: PageLimit,
    offset: Offset,
}

#[derive(Serialize)]
struct Notification<'a> {
    id: i64,
    conversation_id: &'a ConversationId,
    from_seq: Seq,
    count: i64,
    created_at: Timestamp,
    read_at: Option<Timestamp>,
}

impl<'a> Notification<'a> {
    fn of(notification: &'a model::Notification) -> Self {
        Self {
            id: notification.id,
            conversation_id: &notification.conversation,
            from_seq: notification.from_seq,
            count: notification.count,
            created_at: notification.created_at,
            read_at: notification.read_at,
        }
    }
}

/// Body of a request that marks notifications read; without ids it marks all.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Read {
    ids: Option<Vec<GivenNumber>>,
}

impl Read {
    fn checked(self) -> Result<Option<Listed<i64>>, Problem> {
        let Some(ids) = self.ids else { return Ok(None) };
        let ids = ids.into_iter().map(|id| id.whole("ids")).collect::<Result<_, _>>()?;
        Ok(Some(Listed::given("ids", ids)?))
    }
}

impl Call<'_> {
    pub(super) async fn notifications(&self) -> HttpResult {
        let page = self.page()?;
        match self.execute(Command::Notifications { page }).await? {
            Reply::Notifications(list) => {
                let notifications = list.iter().map(Notification::of).collect();
                ok(&Notifications { notifications, limit: page.limit, offset: page.offset })
            }
            other => Err(unexpected(&other)),
        }
    }

    pub(super) async fn read_notifications(&self, body: RequestBody) -> HttpResult {
        let ids = read_json::<Read>(body).await?.checked()?;
        done(&self.execute(Command::ReadNotifications { ids }).await?)
    }
}
