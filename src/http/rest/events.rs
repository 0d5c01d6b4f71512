//! Passes events on to a conversation's listeners or to a user's sockets.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Call, call::read_json, done};
use crate::{
    http::{HttpResult, body::RequestBody},
    model::{self, Command, Data, EventName, Reject, Target},
};

/// Body of a request that passes an event on.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewEvent {
    name: String,
    data: Option<Box<RawValue>>,
}

impl Call<'_> {
    pub(super) async fn conversation_event(&self, body: RequestBody) -> HttpResult {
        let to = Target::Conversation(self.conversation_of_path()?);
        self.pass_on(to, body).await
    }

    pub(super) async fn user_event(&self, body: RequestBody) -> HttpResult {
        let to = Target::User(self.user_of_path("User")?);
        self.pass_on(to, body).await
    }

    async fn pass_on(&self, to: Target, body: RequestBody) -> HttpResult {
        let new: NewEvent = read_json(body).await?;
        let name = EventName::parse(&new.name).map_err(Reject::from)?;
        let data = Data::given(new.data.as_deref()).map_err(Reject::from)?;
        done(&self.execute(Command::Event(model::NewEvent { to, name, data })).await?)
    }
}
