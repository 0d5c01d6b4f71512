//! The way to a server, as those who look for it tell those who use it.

use std::time::Instant;

use super::connector::Place;

/// The way to a server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Route {
    /// The place of the server; `None` while none is known.
    pub(super) place: Option<Place>,
    /// Number of the route: 1 for the first place, and one more with each change.
    pub(super) number: u64,
    /// Time at which it was found.
    pub(super) since: Option<Instant>,
}

impl Route {
    /// The route to a first place.
    pub(super) fn to(place: Place) -> Self {
        Self { place: Some(place), number: 1, since: Some(Instant::now()) }
    }

    /// Leads to another place.
    pub(super) fn change(&mut self, place: Place) {
        *self = Self { number: self.number + 1, ..Self::to(place) };
    }
}
