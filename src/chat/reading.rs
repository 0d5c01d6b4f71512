//! Commands for read marks and for notifications.

use std::{collections::HashMap, sync::Arc};

use super::{
    Chat,
    command::{Caller, CommandReply, unavailable, unwritten},
};
use crate::{
    degrade::Feature,
    model::{ConversationId, Ephemeral, Listed, LogId, Page, Reject, Reply, Seq},
};

impl Chat {
    pub(super) async fn read(
        &self,
        caller: &Caller,
        conversation: &ConversationId,
        delivered: Option<Seq>,
        read: Option<Seq>,
    ) -> Result<CommandReply, Reject> {
        self.mark(caller, conversation, delivered.unwrap_or(0), read.unwrap_or(0)).await?;
        Ok(Reply::Done.into())
    }

    async fn mark(
        &self,
        caller: &Caller,
        conversation: &ConversationId,
        delivered: Seq,
        read: Seq,
    ) -> Result<(), Reject> {
        let user = &caller.identity.user;
        let marked = self.store.mark(conversation, user, delivered.max(read), read).await;
        if let Some((delivered_seq, read_seq)) = marked.map_err(|error| unwritten(&error))? {
            let origin = caller.connection.as_ref().map(|connection| connection.id());
            let what = Ephemeral::Receipt { user: user.clone(), delivered_seq, read_seq };
            self.router.send_ephemeral(&LogId::from(conversation), origin, [what]);
        }
        Ok(())
    }

    /// Moves the delivered marks for a client that can't do so itself. If the store fails, the client receives the
    /// entries again when it reconnects: a duplicate is better than a loss.
    pub async fn record_delivered(self: Arc<Self>, caller: Caller, arrived: HashMap<ConversationId, Seq>) {
        for (conversation, seq) in arrived {
            if self.mark(&caller, &conversation, seq, 0).await.is_err() {
                return;
            }
        }
    }

    pub(super) async fn notifications(&self, caller: &Caller, page: Page) -> Result<CommandReply, Reject> {
        self.require_feature(Feature::History)?;
        let read = self.store.notifications(&caller.identity.user, page).await;
        Ok(Reply::Notifications(read.map_err(|error| unavailable(&error))?).into())
    }

    pub(super) async fn read_notifications(
        &self,
        caller: &Caller,
        ids: Option<Listed<i64>>,
    ) -> Result<CommandReply, Reject> {
        self.require_feature(Feature::Append)?;
        let read = self.store.read_notifications(&caller.identity.user, ids.as_deref()).await;
        read.map_err(|error| unwritten(&error))?;
        Ok(Reply::Done.into())
    }
}
