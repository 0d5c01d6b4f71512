//! The departures whose change of the views is made again: Redis refused it, or may have lost it.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::types::Departure;
use crate::model::UserId;

/// Maximum number of departures of each kind.
const MAX: usize = 10_000;
/// Time for which a written departure is remembered. A replica that becomes the primary may lack what was written in this time.
const WRITTEN_FOR: Duration = Duration::from_secs(60);

/// These departures. The scrub finds what lacks among them for want of room, but later.
#[derive(Debug, Default)]
pub(super) struct ViewRepeats(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Those whose change Redis refused; at most [`MAX`].
    unwritten: Vec<Departure>,
    /// Those that were written in the last [`WRITTEN_FOR`], in the order of time; at most [`MAX`].
    written: VecDeque<(Instant, Departure)>,
}

impl State {
    /// Forgets what was written too long ago. Returns the present time.
    fn forget_old(&mut self) -> Instant {
        let now = Instant::now();
        let old = self.written.partition_point(|(at, _)| now.saturating_duration_since(*at) > WRITTEN_FOR);
        self.written.drain(..old);
        now
    }
}

impl ViewRepeats {
    /// Takes the departures that must be written.
    pub(super) fn take(&self) -> Vec<Departure> {
        std::mem::take(&mut self.state().unwritten)
    }

    /// Adds departures that could not be written.
    pub(super) fn add(&self, departures: impl IntoIterator<Item = Departure>) {
        let mut state = self.state();
        let room = MAX.saturating_sub(state.unwritten.len());
        state.unwritten.extend(departures.into_iter().take(room));
    }

    /// Remembers departures that were written for the first time.
    pub(super) fn remember(&self, departures: &[Departure]) {
        let mut state = self.state();
        let now = state.forget_old();
        state.written.extend(departures.iter().map(|departure| (now, departure.clone())));
        let surplus = state.written.len().saturating_sub(MAX);
        state.written.drain(..surplus);
    }

    /// Lets the latest departures of these users be written again: a new primary may lack them.
    pub(super) fn repeat(&self, of: impl Fn(&UserId) -> bool) {
        let mut state = self.state();
        state.forget_old();
        let again = state.written.iter().map(|(_, departure)| departure).filter(|departure| of(&departure.user));
        let again: Vec<Departure> = again.cloned().collect();
        drop(state);
        self.add(again);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn departure(user: &str) -> Departure {
        let (user, name) = (UserId::parse(user).unwrap(), user.into());
        Departure { user, name, left: Vec::new(), left_before: Vec::new(), offline: true, announced_here: false }
    }

    fn users(repeats: &ViewRepeats) -> Vec<String> {
        repeats.take().into_iter().map(|one| one.user.as_str().to_owned()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn the_departures_of_a_minute_are_repeated_and_their_number_is_bounded() {
        let repeats = ViewRepeats::default();
        repeats.remember(&[departure("old")]);
        tokio::time::advance(WRITTEN_FOR / 2).await;
        repeats.remember(&[departure("alice"), departure("bob")]);
        repeats.repeat(|user| user.as_str() != "bob");
        assert_eq!(users(&repeats), ["old", "alice"]);
        // However often they are repeated, their time passes.
        tokio::time::advance(WRITTEN_FOR * 2 / 3).await;
        repeats.repeat(|_| true);
        assert_eq!(users(&repeats), ["alice", "bob"]);
        tokio::time::advance(WRITTEN_FOR).await;
        repeats.repeat(|_| true);
        assert_eq!(users(&repeats), Vec::<String>::new());
        assert_eq!(repeats.state().written.len(), 0);
        repeats.remember(&vec![departure("carol"); MAX + 5]);
        repeats.add(vec![departure("dave"); 7]);
        repeats.repeat(|_| true);
        assert_eq!(repeats.take().len(), MAX);
    }
}
