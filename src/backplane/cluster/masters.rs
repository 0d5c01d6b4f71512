//! Which masters answer. Nobody waits for one that does not: calls to it fail at once, until it has answered again, or another
//! node is master of its slots.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::{config::HostPort, degrade::Finding};

/// The state of a master that does not answer as it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Trouble {
    /// A check of it is late.
    Late,
    /// A call to it had no reply in time. Others fail at once, until a check has succeeded.
    Silent,
    /// It is down, or is not registered with since it was, or since it became a master.
    Down,
}

/// The masters that don't answer as they should.
#[derive(Debug, Default)]
pub(super) struct Masters {
    troubled: Mutex<BTreeMap<HostPort, Trouble>>,
    /// Why those that are down are.
    reasons: Mutex<BTreeMap<HostPort, Finding>>,
    /// True while there is one: most calls are made while there is none.
    any: AtomicBool,
}

impl Masters {
    /// True if calls may be made.
    pub(super) fn may_call(&self, master: &HostPort) -> bool {
        self.trouble(master).is_none_or(|trouble| trouble < Trouble::Silent)
    }

    /// True if it answers as it should.
    pub(super) fn is_prompt(&self, master: &HostPort) -> bool {
        self.trouble(master).is_none()
    }

    /// True if it is down.
    pub(super) fn is_down(&self, master: &HostPort) -> bool {
        self.trouble(master) == Some(Trouble::Down)
    }

    /// True if any master does not answer as it should.
    pub(super) fn any(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    /// Records that a check is late.
    pub(super) fn note_late(&self, master: &HostPort) {
        self.raise(master, Trouble::Late);
    }

    /// Records that a call had no reply in time.
    pub(super) fn note_silent(&self, master: &HostPort) {
        self.raise(master, Trouble::Silent);
    }

    /// Records that a master is down, and why. True if it was not.
    pub(super) fn note_down(&self, master: &HostPort, why: Option<Finding>) -> bool {
        let mut reasons = self.lock_reasons();
        reasons.extend(why.map(|why| (master.clone(), why)));
        self.raise(master, Trouble::Down)
    }

    /// Records why a master that is down can't be used now. True if that is another fault than before.
    pub(super) fn note_reason(&self, master: &HostPort, why: Finding) -> bool {
        let fault = why.fault;
        self.is_down(master)
            && self.lock_reasons().insert(master.clone(), why).is_none_or(|before| before.fault != fault)
    }

    /// Why a master is down.
    pub(super) fn reason(&self, master: &HostPort) -> Option<Finding> {
        self.lock_reasons().get(master).cloned()
    }

    /// Records that a check succeeded.
    pub(super) fn note_answer(&self, master: &HostPort) {
        if self.any() {
            self.change(|troubled| troubled.retain(|one, trouble| one != master || *trouble == Trouble::Down));
        }
    }

    /// Records that a master is up.
    pub(super) fn note_up(&self, master: &HostPort) {
        self.lock_reasons().remove(master);
        self.change(|troubled| troubled.retain(|one, _| one != master));
    }

    /// Forgets nodes that are no masters any more.
    pub(super) fn retain(&self, masters: &[HostPort]) {
        self.lock_reasons().retain(|one, _| masters.contains(one));
        self.change(|troubled| troubled.retain(|one, _| masters.contains(one)));
    }

    fn raise(&self, master: &HostPort, to: Trouble) -> bool {
        self.change(|troubled| {
            let known = troubled.entry(master.clone()).or_insert(Trouble::Late);
            let before = std::mem::replace(known, to.max(*known));
            before < to
        })
    }

    fn trouble(&self, master: &HostPort) -> Option<Trouble> {
        if !self.any() {
            return None;
        }
        self.lock().get(master).copied()
    }

    fn change<T>(&self, change: impl FnOnce(&mut BTreeMap<HostPort, Trouble>) -> T) -> T {
        let mut troubled = self.lock();
        let result = change(&mut troubled);
        self.any.store(!troubled.is_empty(), Ordering::Release);
        result
    }

    fn lock_reasons(&self) -> MutexGuard<'_, BTreeMap<HostPort, Finding>> {
        self.reasons.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<HostPort, Trouble>> {
        self.troubled.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_master_that_is_down_stays_so_until_it_is_up_or_no_master() {
        let (masters, a, b) = (Masters::default(), at(1), at(2));
        assert!(masters.may_call(&a) && !masters.any());
        masters.note_late(&a);
        assert!(masters.may_call(&a) && !masters.is_prompt(&a));
        masters.note_silent(&a);
        assert!(!masters.may_call(&a) && masters.may_call(&b) && !masters.is_down(&a));
        masters.note_answer(&a);
        assert!(masters.is_prompt(&a) && !masters.any());
        assert!(masters.note_down(&a, None) && !masters.note_down(&a, None));
        masters.note_late(&a);
        masters.note_answer(&a);
        assert!(masters.is_down(&a), "an answer is no proof of what it has");
        masters.note_up(&a);
        assert!(masters.may_call(&a) && masters.note_down(&b, None));
        masters.retain(&[a]);
        assert!(!masters.any());
    }

    fn at(port: u16) -> HostPort {
        HostPort { host: "h".into(), port }
    }
}
