//! The list of online users in a dialect that shows one: as the greeting told it, and as presence changed since. The client
//! gets it again after changes, the more rarely the longer it is.

use std::{collections::BTreeSet, time::Duration};

use futures_util::future::BoxFuture;
use tokio::time::Instant;

use crate::model::{Reject, UserId};

/// Minimum interval between two lists, and its part for each user: many users in one conversation would otherwise cause
/// lists whose sizes grow with the square of their number.
const PAUSE: Duration = Duration::from_millis(500);
const PAUSE_PER_USER: Duration = Duration::from_millis(10);
/// Further pause after a read that failed.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(5);
/// Maximum number of users that are kept, as in the greeting.
const USERS_MAX: usize = 1_000;
/// Time after a read at which it is confirmed: by then this node knows of a Redis that had lost users before the read.
const CONFIRM_AFTER: Duration = Duration::from_secs(5);

/// The online users whom the client is shown.
pub(super) struct Roster {
    users: BTreeSet<UserId>,
    /// The read of the list that is under way.
    reading: Option<BoxFuture<'static, Result<Vec<UserId>, Reject>>>,
    /// Changes since that read began: what it returns may be older.
    since_read: Vec<(UserId, bool)>,
    /// True if the client has another list.
    changed: bool,
    /// True if the list must be read, because the user shares other conversations now.
    outdated: bool,
    /// Time of the last list or read.
    last: Instant,
    /// The version of the registry at the last read; `None` if it might lack users.
    read_in: Option<u64>,
    /// Time at which the last read is confirmed, or repeated because the registry might lack users.
    confirm_at: Option<Instant>,
}

impl Roster {
    /// Creates the list that the greeting tells. It was read in or after this version of the registry.
    pub(super) fn new(present: Vec<UserId>, registry: Option<u64>) -> Self {
        Self {
            users: present.into_iter().collect(),
            reading: None,
            since_read: Vec::new(),
            changed: false,
            outdated: false,
            last: Instant::now(),
            read_in: registry,
            confirm_at: Some(Instant::now() + CONFIRM_AFTER),
        }
    }

    /// Applies changes of presence.
    pub(super) fn apply(&mut self, changes: &[(UserId, bool)]) {
        if self.reading.is_some() {
            if self.since_read.len() + changes.len() > USERS_MAX {
                self.outdated = true;
            } else {
                self.since_read.extend(changes.iter().cloned());
            }
        }
        for (user, online) in changes {
            self.changed |= change(&mut self.users, user.clone(), *online);
        }
    }

    /// Records that the list must be read.
    pub(super) fn outdate(&mut self) {
        self.outdated = true;
    }

    /// The time at which [`Self::take_due`] must be called.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let confirm_at = self.confirm_at.filter(|_| self.reading.is_none());
        self.list_due().into_iter().chain(confirm_at).min()
    }

    /// The time at which the list must be read or sent.
    fn list_due(&self) -> Option<Instant> {
        let waits = (self.changed || self.outdated) && self.reading.is_none();
        waits.then(|| self.last + PAUSE + PAUSE_PER_USER * u32::try_from(self.users.len()).unwrap_or(u32::MAX))
    }

    /// Begins the read that is due, or returns the list that must be sent now. `registry` is the present version of the
    /// registry.
    pub(super) fn take_due(
        &mut self,
        now: Instant,
        registry: Option<u64>,
        read: impl FnOnce() -> BoxFuture<'static, Result<Vec<UserId>, Reject>>,
    ) -> Option<Vec<UserId>> {
        if self.confirm_at.is_some_and(|at| at <= now) {
            self.confirm(now, registry);
        }
        self.list_due().filter(|due| *due <= now)?;
        if std::mem::take(&mut self.outdated) {
            self.since_read.clear();
            (self.read_in, self.confirm_at) = (registry, Some(now + CONFIRM_AFTER));
            self.reading = Some(read());
            return None;
        }
        (self.changed, self.last) = (false, now);
        Some(self.users.iter().cloned().collect())
    }

    /// Confirms the last read, or lets it be repeated once the registry lacks nobody: of users whom it lacked, no event
    /// tells in conversations that nobody on this node listens to.
    fn confirm(&mut self, now: Instant, registry: Option<u64>) {
        self.confirm_at = registry.is_none().then(|| now + CONFIRM_AFTER);
        self.outdated |= registry.is_some() && registry != self.read_in;
    }

    /// Waits for the read of a list that is under way, and takes its result; without one, never returns. Cancel-safe.
    pub(super) async fn finish_read(roster: &mut Option<Box<Self>>) {
        if let Some(roster) = roster
            && let Some(reading) = &mut roster.reading
        {
            let read = reading.await;
            roster.take_read(read);
        } else {
            std::future::pending().await
        }
    }

    fn take_read(&mut self, read: Result<Vec<UserId>, Reject>) {
        (self.reading, self.last) = (None, Instant::now());
        match read {
            Ok(users) => {
                let mut users: BTreeSet<UserId> = users.into_iter().collect();
                for (user, online) in self.since_read.drain(..) {
                    change(&mut users, user, online);
                }
                self.changed |= users != self.users;
                self.users = users;
            }
            Err(_) => {
                self.outdated = true;
                self.last += PAUSE_AFTER_FAILURE;
            }
        }
    }
}

/// Changes one user's place in a list; false if nothing changes.
fn change(users: &mut BTreeSet<UserId>, user: UserId, online: bool) -> bool {
    match online {
        true => users.len() < USERS_MAX && users.insert(user),
        false => users.remove(&user),
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const WHOLE: Option<u64> = Some(1);

    fn user(id: &str) -> UserId {
        UserId::parse(id).unwrap()
    }

    fn users(ids: &[&str]) -> Vec<UserId> {
        ids.iter().map(|id| user(id)).collect()
    }

    async fn finish(roster: &mut Roster) {
        let read = roster.reading.as_mut().unwrap().await;
        roster.take_read(read);
    }

    fn no_read() -> BoxFuture<'static, Result<Vec<UserId>, Reject>> {
        panic!("nothing must be read")
    }

    #[tokio::test(start_paused = true)]
    async fn changes_are_sent_together_after_a_pause() {
        let mut roster = Roster::new(users(&["alice"]), WHOLE);
        assert_eq!(roster.list_due(), None);
        roster.apply(&[(user("alice"), true)]);
        assert_eq!(roster.list_due(), None, "nothing has changed");
        roster.apply(&[(user("bob"), true), (user("carol"), true)]);
        roster.apply(&[(user("carol"), false)]);
        let due = roster.list_due().unwrap();
        assert!(due > Instant::now() && roster.take_due(Instant::now(), WHOLE, no_read).is_none());
        tokio::time::advance(due - Instant::now()).await;
        assert_eq!(roster.take_due(Instant::now(), WHOLE, no_read), Some(users(&["alice", "bob"])));
        assert_eq!(roster.list_due(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_replaces_the_list_except_for_later_changes() {
        let mut roster = Roster::new(users(&["alice", "gone"]), WHOLE);
        roster.outdate();
        tokio::time::advance(Duration::from_secs(1)).await;
        let read = || async { Ok(users(&["alice", "bob", "carol"])) }.boxed();
        assert_eq!(roster.take_due(Instant::now(), WHOLE, read), None);
        roster.apply(&[(user("carol"), false), (user("dave"), true)]);
        assert_eq!(roster.list_due(), None, "the read comes first");
        finish(&mut roster).await;
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(roster.take_due(Instant::now(), WHOLE, no_read), Some(users(&["alice", "bob", "dave"])));

        roster.outdate();
        tokio::time::advance(Duration::from_secs(1)).await;
        roster.take_due(Instant::now(), WHOLE, || async { Err(Reject::Unavailable) }.boxed());
        finish(&mut roster).await;
        assert!(roster.list_due().unwrap() > Instant::now() + PAUSE_AFTER_FAILURE, "it is read again");
    }

    #[tokio::test(start_paused = true)]
    async fn a_list_that_may_lack_users_is_read_again_once_the_registry_has_all() {
        let read = || async { Ok(users(&["alice", "bob"])) }.boxed();
        // Nodes register their users until version 2; of the last list it is unknown that Redis had lost users already.
        for (greeted, versions, reads) in [
            (None, [None, Some(2), Some(2)], 1),
            (Some(1), [Some(1), Some(1), Some(1)], 0),
            (Some(1), [None, None, Some(2)], 1),
        ] {
            let (mut roster, mut read_again) = (Roster::new(users(&["alice"]), greeted), 0);
            for version in versions {
                tokio::time::advance(CONFIRM_AFTER).await;
                assert_eq!(roster.take_due(Instant::now(), version, read), None);
                if roster.reading.is_some() {
                    assert_eq!(roster.next_due(), None);
                    finish(&mut roster).await;
                    read_again += 1;
                    tokio::time::advance(Duration::from_secs(1)).await;
                    let list = roster.take_due(Instant::now(), version, no_read);
                    assert_eq!(list, Some(users(&["alice", "bob"])));
                }
            }
            assert_eq!(read_again, reads, "{greeted:?} {versions:?}");
            tokio::time::advance(CONFIRM_AFTER).await;
            roster.take_due(Instant::now(), Some(2).filter(|_| reads > 0).or(greeted), no_read);
            assert_eq!(roster.next_due(), None, "it is confirmed");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn long_lists_are_sent_rarely_and_are_bounded() {
        let mut roster = Roster::new(Vec::new(), WHOLE);
        let many: Vec<_> = (0..2_000).map(|at| (user(&format!("u{at}")), true)).collect();
        roster.apply(&many);
        assert_eq!(roster.users.len(), USERS_MAX);
        assert!(roster.list_due().unwrap() - Instant::now() > Duration::from_secs(10));
    }
}
