//! Notices that this node reaches no other node through Redis although Redis answers commands: an ACL without the
//! channels, a proxy that passes no subscriptions, no connection left for the subscription.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use super::{fault, link_error::LinkError};
use crate::degrade::{Degrade, Fault, Finding, Work};

/// Time without a success after which one direction of the fan-out counts as dead; nodes then reach each other through the
/// store. With the canary of the subscription, that is within 2 s. A subscription that merely broke is made again sooner.
const DEAD_AFTER: Duration = Duration::from_millis(1_500);

/// The results of one direction of the fan-out: receiving, or publishing.
pub(super) struct Hearing {
    degrade: Arc<Degrade>,
    work: Work,
    last_success: Mutex<Instant>,
    dead: AtomicBool,
}

impl Hearing {
    /// Without results yet.
    pub(super) fn new(degrade: Arc<Degrade>, work: Work) -> Self {
        Self { degrade, work, last_success: Mutex::new(Instant::now()), dead: AtomicBool::new(false) }
    }

    /// Records a success, or that Redis as a whole is down, so that only what follows counts.
    pub(super) fn succeeded(&self) {
        *self.lock_last() = Instant::now();
        if self.dead.swap(false, Ordering::AcqRel) {
            self.degrade.note_work(self.work, None);
        }
    }

    /// Time of the last success.
    pub(super) fn last_success(&self) -> Instant {
        *self.lock_last()
    }

    /// Records a failure while Redis answers commands; the first one in a row was at `since`.
    pub(super) fn failed(&self, error: &LinkError, since: Instant) {
        if since.elapsed() < DEAD_AFTER {
            return;
        }
        self.dead.store(true, Ordering::Release);
        let finding = fault::link_finding(error);
        // An error reply names the fault; a canary that does not arrive, or a connection that ends, does not.
        let refused = matches!(error, LinkError::Refused(_) | LinkError::CertificateRefused(_));
        let named = refused && finding.fault != Fault::RedisRefusesWrites;
        let what = match self.work {
            Work::Publish => "publications fail",
            _ => "the subscription fails",
        };
        let deaf = Finding::new(Fault::RedisDeaf, format!("{what} while commands work: {}", finding.detail));
        self.degrade.note_work(self.work, Some(if named { finding } else { deaf }));
    }

    fn lock_last(&self) -> MutexGuard<'_, Instant> {
        self.last_success.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
