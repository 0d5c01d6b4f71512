//! Blocks users for the caller, and lists them.

use serde::Serialize;

use super::{Call, done, ok, unexpected};
use crate::{
    http::HttpResult,
    model::{Command, Reply, UserId},
};

#[derive(Serialize)]
struct Blocks<'a> {
    user_ids: &'a [UserId],
}

impl Call<'_> {
    pub(super) async fn blocks(&self) -> HttpResult {
        match self.execute(Command::Blocks).await? {
            Reply::Blocks(users) => ok(&Blocks { user_ids: &users }),
            other => Err(unexpected(&other)),
        }
    }

    pub(super) async fn block(&self, blocked: bool) -> HttpResult {
        let user = self.user_of_path("User")?;
        done(&self.execute(Command::Block { user, blocked }).await?)
    }
}
