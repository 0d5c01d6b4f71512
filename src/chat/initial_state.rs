//! The initial state of a socket: the joins that its route and its dialect require, and the users who are present.

use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};

use super::{
    automatic::Undelivered,
    command::{require_feature, unavailable},
    connection::{Connection, Joining},
    replay::Replay,
    subscriptions::Subscriptions,
};
use crate::{
    degrade::Feature,
    dialect::{AutoJoin, RosterPolicy},
    model::{Identity, Joined, LogId, Reject, Resumed, Seq, UserId, ids_within},
};

/// Direct conversations that are joined concurrently.
const JOINS_AT_ONCE: usize = 16;
/// Maximum number of users with a shared conversation whose presence is read.
const ACQUAINTANCES_MAX: u32 = 5_000;
/// Maximum number of present users that the greeting names.
const PRESENT_MAX: usize = 1_000;

/// The state with which a socket begins.
#[derive(Debug)]
pub struct InitialState {
    /// The head of the conversation in the route, at the time of the join.
    pub head: Option<Seq>,
    /// Logs of which the client missed too much, each with its first and its newest seq. The client must read them
    /// again.
    pub resyncs: Vec<(LogId, Seq, Seq)>,
    /// The present users, if the dialect names them.
    pub present: Vec<UserId>,
    /// The replays to send after the greeting.
    pub replays: Vec<Replay>,
}

impl Subscriptions {
    /// Starts the joins that route and dialect require. `since` is the last seq that the client has of the conversation
    /// in its route.
    pub(super) async fn begin_listening(
        &self,
        identity: &Identity,
        connection: &Arc<Connection>,
        since: Option<Seq>,
    ) -> Result<InitialState, Reject> {
        let entered = match &connection.bound {
            Some(conversation) => {
                let joining = Joining::asked_for(false);
                // Boxed here and below, because sockets of most dialects need none of it, and each opening has room for it.
                vec![Box::pin(self.listen(identity, connection, conversation, since, joining)).await?]
            }
            None if connection.dialect.joins() == AutoJoin::Directs => {
                Box::pin(self.listen_to_directs(identity, connection)).await?
            }
            None => Vec::new(),
        };
        let head = connection.bound.as_ref().and(entered.first()).map(|(joined, _)| joined.head);
        let too_much = |(joined, replay): &(Joined, Replay)| match joined.resumed {
            Resumed::Resync { first } => Some((replay.log.clone(), first, joined.head)),
            Resumed::From(_) => None,
        };
        let resyncs = entered.iter().filter_map(too_much).collect();
        let replays = entered.into_iter().map(|(_, replay)| replay).collect();
        let present = match (connection.dialect.greets_with(), &connection.bound) {
            (RosterPolicy::Listeners, Some(conversation)) => Box::pin(self.follows.present.of(conversation)).await,
            (RosterPolicy::Acquaintances, _) => Box::pin(self.acquaintances_online(&identity.user)).await?,
            (RosterPolicy::Listeners, None) | (RosterPolicy::Nobody, _) => Vec::new(),
        };
        let present = ids_within(present, self.limits.roster_bytes());
        Ok(InitialState { head, resyncs, present, replays })
    }

    /// Joins the user's direct conversations, each from its last delivered entry. If there are more than the limit of a
    /// socket, it joins the most recently active ones, and gets hints of the others.
    async fn listen_to_directs(
        &self,
        identity: &Identity,
        connection: &Arc<Connection>,
    ) -> Result<Vec<(Joined, Replay)>, Reject> {
        require_feature(&self.degrade, Feature::History)?;
        let limit = u32::try_from(self.limits.conversations_per_connection).unwrap_or(u32::MAX);
        let read = async |limit| self.store.directs(&identity.user, limit).await.map_err(|error| unavailable(&error));
        let mut directs = read(limit.saturating_add(1)).await?;
        if directs.len() > limit as usize {
            // Read again after that: what was stored before it is then among the most recently active.
            self.hints.add(connection);
            directs = read(limit).await?;
        }
        let newest = self.hub.activity();
        let enter = |(at, direct): (usize, crate::store::Direct)| async move {
            let Undelivered { after, first, head, cut } =
                Undelivered::of(direct.delivered, direct.removed, direct.head);
            let joining = Joining::by_itself(Some(Arc::new(direct.pair)), newest.saturating_sub(at as u64));
            let joining = joining.knowing_head(head);
            let listening = self.listen(identity, connection, &direct.conversation, Some(after), joining).await;
            listening.map(|(joined, replay)| match joined.resumed {
                // The entries that the socket gets begin after this head.
                Resumed::From(after) if cut => (Joined { head: after, resumed: Resumed::Resync { first } }, replay),
                _ => (joined, replay),
            })
        };
        stream::iter(directs.into_iter().enumerate().map(enter)).buffered(JOINS_AT_ONCE).try_collect().await
    }

    /// The user, if online, and the online users who share a conversation with the user.
    pub(super) async fn acquaintances_online(&self, user: &UserId) -> Result<Vec<UserId>, Reject> {
        require_feature(&self.degrade, Feature::History)?;
        let mut known = self.store.acquaintances(user, ACQUAINTANCES_MAX).await.map_err(|error| unavailable(&error))?;
        known.insert(0, user.clone());
        let online = self.follows.present.online(&known).await;
        let present = known.into_iter().zip(online).filter_map(|(user, online)| online.then_some(user));
        let mut present = self.statuses.visible(present.collect()).await;
        present.truncate(PRESENT_MAX);
        Ok(present)
    }
}
