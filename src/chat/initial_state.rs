//! What a socket begins with: what its route names, what its dialect listens to by itself, and who is there.

use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};

use super::{
    command::{needs, unavailable},
    connection::Connection,
    replay::Replay,
    subscriptions::Subscriptions,
};
use crate::{
    degrade::Feature,
    dialect::{AutoJoin, RosterPolicy},
    model::{Identity, Joined, LogId, Reject, Resumed, Seq, UserId},
};

/// Entries of a direct conversation that a client which can't say what it has is given at most.
const MISSED_MAX: Seq = 100;
/// Direct conversations that are joined side by side.
const JOINS_AT_ONCE: usize = 16;
/// Users who share a conversation with one who comes, and are looked at.
const ACQUAINTANCES_MAX: u32 = 5_000;
/// Those of them who are named, at most.
const PRESENT_MAX: usize = 1_000;

/// What a socket begins with.
#[derive(Debug)]
pub struct InitialState {
    /// Where it begins to listen to the conversation its route names.
    pub head: Option<Seq>,
    /// Logs of which it missed too much: their first and their newest seq. It reads them anew.
    pub anew: Vec<(LogId, Seq, Seq)>,
    /// Who is there, where its dialect names them.
    pub present: Vec<UserId>,
    /// What is to be replayed once it was greeted.
    pub replays: Vec<Replay>,
}

impl Subscriptions {
    /// Lets a connection that was let in listen to what route and dialect say; `since` is the last seq the client has
    /// of the conversation its route names.
    pub(super) async fn begin_listening(
        &self,
        identity: &Identity,
        connection: &Arc<Connection>,
        since: Option<Seq>,
    ) -> Result<InitialState, Reject> {
        let entered = match &connection.bound {
            Some(conversation) => vec![self.enter(identity, connection, conversation, since, None).await?],
            None if connection.dialect.joins() == AutoJoin::Directs => self.enter_directs(identity, connection).await?,
            None => Vec::new(),
        };
        let head = connection.bound.as_ref().and(entered.first()).map(|(joined, _)| joined.head);
        let too_much = |(joined, replay): &(Joined, Replay)| match joined.resumed {
            Resumed::Resync { first } => Some((replay.log.clone(), first, joined.head)),
            Resumed::From(_) => None,
        };
        let anew = entered.iter().filter_map(too_much).collect();
        let replays = entered.into_iter().map(|(_, replay)| replay).collect();
        let present = match (connection.dialect.greets_with(), &connection.bound) {
            (RosterPolicy::Listeners, Some(conversation)) => {
                self.statuses.visible(self.backplane.audience(conversation).await).await
            }
            (RosterPolicy::Acquaintances, _) => self.acquaintances_online(&identity.user).await?,
            (RosterPolicy::Listeners, None) | (RosterPolicy::Nobody, _) => Vec::new(),
        };
        Ok(InitialState { head, anew, present, replays })
    }

    /// Listens to a user's direct conversations, the last active ones where there are more than a socket may listen to,
    /// each from what was delivered last.
    async fn enter_directs(
        &self,
        identity: &Identity,
        connection: &Arc<Connection>,
    ) -> Result<Vec<(Joined, Replay)>, Reject> {
        needs(&self.degrade, Feature::History)?;
        let limit = u32::try_from(self.limits.conversations_per_connection).unwrap_or(u32::MAX);
        let directs = self.store.directs(&identity.user, limit).await.map_err(|error| unavailable(&error))?;
        let enter = |direct: crate::store::Direct| async move {
            let since = direct.delivered.max(direct.head - MISSED_MAX);
            let pair = Some(Arc::new(direct.pair));
            self.enter(identity, connection, &direct.conversation, Some(since), pair).await
        };
        stream::iter(directs.into_iter().map(enter)).buffered(JOINS_AT_ONCE).try_collect().await
    }

    /// Who shares a conversation with a user and is online.
    async fn acquaintances_online(&self, user: &UserId) -> Result<Vec<UserId>, Reject> {
        needs(&self.degrade, Feature::History)?;
        let known = self.store.acquaintances(user, ACQUAINTANCES_MAX).await.map_err(|error| unavailable(&error))?;
        let online = self.backplane.online(&known).await;
        let present = known.into_iter().zip(online).filter_map(|(user, online)| online.then_some(user));
        let mut present = self.statuses.visible(present.collect()).await;
        present.truncate(PRESENT_MAX);
        Ok(present)
    }
}
