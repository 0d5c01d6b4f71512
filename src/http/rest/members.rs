//! Lists, adds and removes the members of a conversation.

use serde::{Deserialize, Serialize};

use super::{
    Call,
    call::read_json,
    conversations::{Conversation, username},
    done, ok, unexpected,
};
use crate::{
    http::{HttpResult, body::RequestBody, problem::Problem},
    model::{self, Command, Listed, Reply, Seq, UserId},
};

/// Body of a request that adds members.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewMembers {
    user_ids: Vec<UserId>,
}

impl NewMembers {
    fn checked(self) -> Result<Listed<UserId>, Problem> {
        let users = Listed::given("user_ids", self.user_ids)?;
        if users.is_empty() { Err(Problem::invalid("user_ids is empty")) } else { Ok(users) }
    }
}

#[derive(Serialize)]
struct Members<'a> {
    members: Vec<Member<'a>>,
}

#[derive(Serialize)]
struct Member<'a> {
    user_id: &'a UserId,
    username: &'a str,
    delivered_seq: Seq,
    read_seq: Seq,
}

impl<'a> Member<'a> {
    fn of(member: &'a model::Member) -> Self {
        Self {
            user_id: &member.user,
            username: username(member),
            delivered_seq: member.delivered_seq,
            read_seq: member.read_seq,
        }
    }
}

impl Call<'_> {
    pub(super) async fn members(&self) -> HttpResult {
        let conversation = self.describe(self.conversation_of_path()?).await?;
        ok(&Members { members: conversation.members.iter().map(Member::of).collect() })
    }

    pub(super) async fn add_members(&self, body: RequestBody) -> HttpResult {
        let conversation = self.conversation_of_path()?;
        let users = read_json::<NewMembers>(body).await?.checked()?;
        match self.execute(Command::AddMembers { conversation, users }).await? {
            Reply::Conversation(grown) => ok(&Conversation::of(&grown)),
            other => Err(unexpected(&other)),
        }
    }

    pub(super) async fn remove_member(&self) -> HttpResult {
        let conversation = self.conversation_of_path()?;
        let user = self.user_of_path("Member")?;
        done(&self.execute(Command::RemoveMember { conversation, user }).await?)
    }
}
