//! Calls that fail although their part answers its checks, as [`Degrade`] knows them.

use std::{
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Duration,
};

use super::{
    Degrade,
    fault::Finding,
    part::{LinkState, Part},
    work::{Ends, RefusedCalls, Work},
};

/// Minimum time between two tries whether a part lets a connection in.
const TRY_EVERY: Duration = Duration::from_secs(1);

/// The turn of a try. Others may try once it is dropped, also by a panic.
struct Turn {
    degrade: Arc<Degrade>,
    part: Part,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.degrade.tries[self.part as usize].store(false, Ordering::Release);
    }
}

/// The kinds of work that a part does.
fn works_of(part: Part) -> impl Iterator<Item = Work> {
    Work::ALL.into_iter().filter(move |work| work.part() == part)
}

impl Degrade {
    /// Records that a call of this kind of work was refused for a reason that lasts until an operator acts. `call` is a
    /// constant that tells what was called.
    pub fn call_refused(&self, work: Work, call: &'static str, fault: Finding) {
        self.add_refusal(work, call, fault, Ends::ByOperator);
    }

    /// Records that a call failed because its part let no new connection in, for a reason that lasts until an operator acts: a
    /// login, a certificate. It stands as after [`Degrade::call_refused`], or until [`Degrade::note_let_in`].
    pub fn call_kept_out(&self, work: Work, call: &'static str, fault: Finding) {
        self.add_refusal(work, call, fault, Ends::OnceLetIn);
    }

    /// True if a call failed because its part let no new connection in, and nothing shows yet that it would let one in now.
    pub fn is_kept_out(&self, part: Part) -> bool {
        self.refused_count.load(Ordering::Acquire) > 0
            && self.change_refused_calls(|all| works_of(part).any(|work| all[work as usize].keeps_out()))
    }

    /// Tries whether a part lets a connection in, if it let in none for a call: open ones prove nothing of that, and perhaps nobody
    /// repeats that call for long. At most one try of a part runs at a time, and no two begin within a second. `connect` has a
    /// timeout of its own, and is true if a connection was let in.
    pub fn try_entry<F>(self: &Arc<Self>, part: Part, connect: impl FnOnce() -> F)
    where
        F: Future<Output = bool> + Send + 'static,
    {
        if !self.is_kept_out(part) || self.tries[part as usize].swap(true, Ordering::AcqRel) {
            return;
        }
        let (turn, let_in) = (Turn { degrade: self.clone(), part }, connect());
        tokio::spawn(async move {
            if let_in.await {
                turn.degrade.note_let_in(part);
            }
            tokio::time::sleep(TRY_EVERY).await;
        });
    }

    /// Records that a part let a new connection in: what kept calls out before is over.
    pub fn note_let_in(&self, part: Part) {
        if self.is_kept_out(part) {
            self.change_refused_calls(|all| works_of(part).for_each(|work| all[work as usize].forget_kept_out()));
            self.notify_if_changed(true);
        }
    }

    /// Records that a call failed for a reason that may pass by itself: a lock, no free connection. It counts as a fault if
    /// the same call fails for some seconds.
    pub fn call_failed(&self, work: Work, call: &'static str, fault: Finding) {
        // Else the whole part is away, which says more.
        if self.state(work.part()).link == LinkState::Up {
            self.add_refusal(work, call, fault, Ends::ByItself);
        }
    }

    fn add_refusal(&self, work: Work, call: &'static str, fault: Finding, ends: Ends) {
        let name = |refused: &RefusedCalls| refused.fault().map(|finding| finding.fault);
        let changed = self.change_refused_calls(|all| {
            let refused = &mut all[work as usize];
            let before = name(refused);
            refused.add(call, fault, ends);
            before != name(refused)
        });
        self.notify_if_changed(changed);
    }

    /// Records that a call succeeded. The work works again once no call of it is known to be refused. It is cheap enough for
    /// every call.
    pub fn call_succeeded(&self, work: Work, call: &'static str) {
        if self.refused_count.load(Ordering::Acquire) == 0 {
            return;
        }
        let changed = self.change_refused_calls(|all| {
            let refused = &mut all[work as usize];
            let before = refused.fault().is_some();
            refused.succeeded(call);
            before != refused.fault().is_some()
        });
        self.notify_if_changed(changed);
    }

    pub(super) fn change_refused_calls<T>(&self, change: impl FnOnce(&mut [RefusedCalls; Work::ALL.len()]) -> T) -> T {
        let refused = &mut *self.refused_calls.lock().unwrap_or_else(PoisonError::into_inner);
        let result = change(refused);
        self.refused_count.store(refused.iter().map(RefusedCalls::len).sum(), Ordering::Release);
        result
    }
}
