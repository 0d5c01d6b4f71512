//! The erasure of a user's data, which the law may ask for.
//!
//! A row of the store says who is to be erased and how far it is. One node does the work in small steps that have the same outcome
//! if they are done twice, so another one goes on if it dies. Other members see what happens as entries of the log, as ever: their
//! logs keep every seq, and a client that was away learns of the deletions by its resume.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout},
};

use super::{
    Chat,
    command::{Caller, CommandReply, require_feature, unavailable, unwritten},
};
use crate::{
    degrade::{Degrade, Feature, LinkState, Part},
    metrics::Metrics,
    model::{Body, ClientId, Entry, Erasure, LogId, Reject, Reply, RestrictionRequest, Seq, Timestamp, UserId},
    store::{AgedLog, AppendError, AppendRefused, Appended, Authority, Job, NewEntry, Store, StoreError, Writer},
    supervise::{TaskName, checkpoint},
};

/// Time for which a node has the job without renewing it. A step takes a few seconds at most.
const HOLD: Duration = Duration::from_secs(60);
/// The row is renewed before a step, or an append, if it is older than this.
const RENEW_AFTER: Duration = Duration::from_secs(10);
/// Time between two looks for requests. A request at this node is noticed at once.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// Logs that one read looks at.
const LOGS: u32 = 1_000;
/// Entries, memberships or notifications of one step.
const ROWS: u32 = 200;
/// Minimum pause between two steps. It is at least as long as the step took.
const PAUSE: Duration = Duration::from_millis(25);
/// Time from a request until every node has ended the user's sockets and what they had begun: a node learns of the revocation with
/// its check of the store, and an append whose answer was lost is tried again for 10 s, with 5 s for the last answer. An erasure ends
/// with a look at all logs that begins later.
const SETTLED_AFTER: Duration = Duration::from_secs(20);
/// Pause after a failure, while the store is down, and while another node does the work.
const RETRY: Duration = Duration::from_secs(5);

/// The reason for which an erasure stops for now. It goes on later.
enum Stopped {
    /// Another process has the job.
    Taken,
    /// The store can't be used.
    Failed(StoreError),
}

impl From<StoreError> for Stopped {
    fn from(error: StoreError) -> Self {
        Self::Failed(error)
    }
}

/// Erases what was requested.
pub(super) struct Eraser {
    pub(super) store: Arc<dyn Store>,
    pub(super) writer: Arc<Writer>,
    pub(super) degrade: Arc<Degrade>,
    pub(super) metrics: Arc<Metrics>,
    /// The name of this process in the row of the job.
    pub(super) process: String,
    /// A request was stored at this node.
    pub(super) requested: Arc<Notify>,
}

/// The work of this process on one erasure.
struct Work<'a> {
    eraser: &'a Eraser,
    erasure: Erasure,
    /// Time at which everything that was begun before the request has ended.
    settled: Instant,
    renewed: Instant,
    stepped: Instant,
}

impl Eraser {
    /// Erases until its task is stopped.
    pub(super) async fn run(&self) {
        loop {
            checkpoint(TaskName::Erasures, || "");
            let pause = match self.turn().await {
                Ok(pause) => pause,
                Err(Stopped::Taken) => RETRY,
                Err(Stopped::Failed(error)) => {
                    tracing::warn!(%error, "data can't be erased now; retrying");
                    RETRY
                }
            };
            let _in_time = timeout(pause, self.requested.notified()).await;
        }
    }

    /// Works on the oldest request. Returns the time until the next look.
    async fn turn(&self) -> Result<Duration, Stopped> {
        if self.degrade.state(Part::Store).link != LinkState::Up {
            return Ok(RETRY);
        }
        let Some(erasure) = self.store.pending_erasure().await? else {
            self.metrics.erasures_pending.set(0);
            return Ok(LOOK_EVERY);
        };
        self.metrics.erasures_pending.set(1);
        let now = Instant::now();
        let turn = self.store.take_job(Job::Erasures, &self.process, HOLD, Duration::ZERO).await?;
        if !turn.held {
            return Ok(RETRY);
        }
        let settled = now + SETTLED_AFTER.saturating_sub(turn.at.since(erasure.requested_at));
        let mut work = Work { eraser: self, erasure, settled, renewed: now, stepped: now };
        work.erase().await?;
        self.store.finish_job(Job::Erasures, &self.process).await?;
        Ok(Duration::ZERO)
    }
}

impl Work<'_> {
    async fn erase(&mut self) -> Result<(), Stopped> {
        let user = self.erasure.user.clone();
        loop {
            // A look that another process began may have begun too early.
            let is_last = self.erasure.position.is_none() && self.settled <= Instant::now();
            if self.erasure.position.is_none() {
                self.end_memberships(&user).await?;
            }
            self.erase_entries(&user).await?;
            if is_last {
                break;
            }
            self.settle().await?;
            self.erasure.position = None;
        }
        let inbox = LogId::inbox(&user);
        let until = Timestamp::from_micros(i64::MAX / 2);
        let all = [AgedLog { log: inbox, before: until, oldest: until }];
        while !self.eraser.store.remove_aged(&all, ROWS).await?.is_empty() {
            self.pause().await?;
        }
        // A step passes over notifications that another transaction has locked, so it may erase none while there are some.
        while self.eraser.store.erase_notifications(&user, ROWS).await? > 0
            || !self.eraser.store.notifications_after(&user, 0, 1).await?.is_empty()
        {
            self.pause().await?;
        }
        if self.eraser.store.finish_erasure(&self.erasure).await? {
            self.eraser.metrics.erasures.inc();
            tracing::info!(target: "audit", requested_at = %self.erasure.requested_at, by = self.erasure.by.as_str(), "an erasure is done");
        }
        Ok(())
    }

    /// Ends the memberships of groups, which other members see. A direct conversation keeps its two members: its marks go.
    async fn end_memberships(&mut self, user: &UserId) -> Result<(), Stopped> {
        let mut after = None;
        loop {
            let page = self.eraser.store.memberships(user, after.as_ref(), ROWS).await?;
            for membership in &page {
                let id = &membership.conversation;
                match membership.direct {
                    true => self.eraser.store.forget_marks(id, user).await?,
                    false => {
                        let body = Body::MemberRemoved { user: user.clone() };
                        self.append(&LogId::from(id), body, None).await?;
                    }
                }
            }
            let Some(last) = page.last().filter(|_| page.len() >= ROWS as usize) else { return Ok(()) };
            after = Some(last.conversation.clone());
            self.pause().await?;
        }
    }

    /// Goes through all logs, and erases the user's entries in each.
    async fn erase_entries(&mut self, user: &UserId) -> Result<(), Stopped> {
        let mut after = self.erasure.position.clone();
        loop {
            let (logs, last) = self.eraser.store.authored_logs(user, after.as_ref(), LOGS).await?;
            for log in logs {
                self.erase_in(&log, user).await?;
            }
            self.eraser.store.forget_former_member(user, after.as_ref(), last.as_ref()).await?;
            let Some(last) = last else { return Ok(()) };
            self.eraser.store.advance_erasure(&self.erasure, &last).await?;
            after = Some(last);
            self.pause().await?;
        }
    }

    /// Deletes the user's messages in a log, takes the user's reactions back, and hides the user's name.
    async fn erase_in(&mut self, log: &LogId, user: &UserId) -> Result<(), Stopped> {
        let mut after: Option<ClientId> = None;
        loop {
            let page = self.eraser.store.authored(log, user, after.as_ref(), ROWS).await?;
            let mut seqs: Vec<Seq> = Vec::with_capacity(page.len());
            for (_, Entry { seq, body, .. }) in &page {
                seqs.push(*seq);
                self.renew().await?;
                let appended = match body {
                    Body::Message { deleted: false, .. } if log.conversation().is_some() => {
                        self.append(log, Body::Deleted { target: *seq }, None).await?
                    }
                    Body::Reacted { target, emoji, active: true } => {
                        let body = Body::Reacted { target: *target, emoji: emoji.clone(), active: false };
                        self.append(log, body, Some(user)).await?
                    }
                    _ => None,
                };
                seqs.extend(appended.filter(|_| matches!(body, Body::Reacted { .. })).map(|appended| appended.seq));
            }
            if !seqs.is_empty() {
                self.eraser.store.hide_author(log, user, &seqs).await?;
            }
            self.pause().await?;
            let Some((key, _)) = page.last().filter(|_| page.len() >= ROWS as usize) else { return Ok(()) };
            after = Some(key.clone());
        }
    }

    /// Appends an entry of the operator who requested this, or of the user. Returns `None` if there is nothing to change.
    async fn append(&mut self, log: &LogId, body: Body, of_user: Option<&UserId>) -> Result<Option<Appended>, Stopped> {
        let sender = of_user.unwrap_or(&self.erasure.by).clone();
        let authority = if of_user.is_some() { Authority::System } else { Authority::Admin };
        let entry = NewEntry {
            log: log.clone(),
            sender_name: sender.as_str().into(),
            sender,
            dedupe: ClientId::fresh(),
            client_gave_id: false,
            authority,
            body,
        };
        match self.eraser.writer.append(entry, None).await {
            Ok(appended) => Ok(Some(appended)),
            Err(AppendError::Refused(
                AppendRefused::Unchanged | AppendRefused::NoSuchTarget | AppendRefused::NoSuchLog,
            )) => Ok(None),
            Err(error) => {
                Err(StoreError::Unavailable(format!("an entry of an erasure was not stored: {error}").into()).into())
            }
        }
    }

    /// Waits until everything has ended that was begun before the request.
    async fn settle(&mut self) -> Result<(), Stopped> {
        loop {
            let left = self.settled.saturating_duration_since(Instant::now());
            sleep(left.min(RENEW_AFTER)).await;
            // The pause is as long as the step took, and this wait was none.
            self.stepped = Instant::now();
            self.pause().await?;
            if self.settled <= Instant::now() {
                return Ok(());
            }
        }
    }

    /// Pauses after a step, and renews the row of the job if it is time to.
    async fn pause(&mut self) -> Result<(), Stopped> {
        checkpoint(TaskName::Erasures, || "");
        sleep(PAUSE.max(self.stepped.elapsed())).await;
        if self.eraser.degrade.state(Part::Store).link != LinkState::Up {
            return Err(StoreError::Unavailable("the store is down".into()).into());
        }
        self.renew().await?;
        self.stepped = Instant::now();
        Ok(())
    }

    /// Renews the row of the job if it is time to.
    async fn renew(&mut self) -> Result<(), Stopped> {
        if self.renewed.elapsed() > RENEW_AFTER {
            self.renewed = Instant::now();
            let turn = self.eraser.store.take_job(Job::Erasures, &self.eraser.process, HOLD, Duration::ZERO).await?;
            if !turn.held {
                return Err(Stopped::Taken);
            }
        }
        Ok(())
    }
}

impl Chat {
    /// Ends the user's sockets and tokens, and requests the erasure. What the user does later, with a new token, is new.
    pub(super) async fn erase_user(&self, caller: &Caller, user: &UserId) -> Result<CommandReply, Reject> {
        require_feature(&self.degrade, Feature::Append)?;
        self.restrict(caller, user, RestrictionRequest::RevokeIssued(None)).await?;
        let requested = self.store.request_erasure(user, &caller.identity.user).await;
        let erasure = requested.map_err(|error| unwritten(&error))?;
        self.kept.erasure_requested.notify_one();
        Ok(Reply::Erasure(erasure).into())
    }

    /// Shows how far an erasure is.
    pub(super) async fn erasure(&self, user: &UserId) -> Result<CommandReply, Reject> {
        require_feature(&self.degrade, Feature::History)?;
        let erasure = self.store.erasure(user).await.map_err(|error| unavailable(&error))?;
        erasure.map(|erasure| Reply::Erasure(erasure).into()).ok_or(Reject::NotFound("Erasure"))
    }
}
