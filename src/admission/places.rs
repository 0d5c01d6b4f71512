//! Places for sockets. A socket that has not sent a request yet is silent; when all places are taken, the longest silent
//! socket loses its place to a new one.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// Time that a new socket has for its request before it can lose its place. Clients send the request with the connect, so
/// this is long for them.
const SILENCE_ALLOWED: Duration = Duration::from_millis(250);

/// A bounded number of places.
#[derive(Debug)]
pub(super) struct Places {
    free: Arc<Semaphore>,
    silent: Mutex<Silent>,
}

/// The sockets without a request, oldest first.
#[derive(Debug, Default)]
struct Silent {
    next: u64,
    sockets: BTreeMap<u64, (Instant, Arc<Seat>)>,
}

/// The claim of a socket to a place.
#[derive(Debug)]
struct Seat {
    place: Mutex<Option<OwnedSemaphorePermit>>,
    lost: Notify,
}

/// A socket's place. Dropping it frees the place.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    number: u64,
    seat: Arc<Seat>,
}

impl Places {
    pub(super) fn new(count: usize) -> Arc<Self> {
        Arc::new(Self { free: Arc::new(Semaphore::new(count)), silent: Mutex::default() })
    }

    /// Number of free places.
    pub(super) fn free(&self) -> usize {
        self.free.available_permits()
    }

    /// Takes a free place, or that of the longest silent socket, which must then close.
    pub(super) fn take(self: &Arc<Self>) -> Option<Place> {
        let place = Arc::clone(&self.free).try_acquire_owned().ok().or_else(|| self.take_from_silent())?;
        let seat = Arc::new(Seat { place: Mutex::new(Some(place)), lost: Notify::new() });
        let mut silent = self.silent();
        let number = silent.next;
        silent.next += 1;
        silent.sockets.insert(number, (Instant::now(), seat.clone()));
        Some(Place { places: self.clone(), number, seat })
    }

    fn take_from_silent(&self) -> Option<OwnedSemaphorePermit> {
        let mut silent = self.silent();
        let oldest = silent.sockets.first_entry().filter(|oldest| oldest.get().0.elapsed() >= SILENCE_ALLOWED)?;
        let (_, seat) = oldest.remove();
        seat.lost.notify_one();
        lock(&seat.place).take()
    }

    fn silent(&self) -> MutexGuard<'_, Silent> {
        lock(&self.silent)
    }
}

impl Place {
    /// Records that the socket has sent a request: it keeps its place.
    pub(super) fn keep(&self) {
        self.places.silent().sockets.remove(&self.number);
    }

    /// Waits until the socket loses its place because it was silent.
    pub(super) async fn lost(&self) {
        self.seat.lost.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.keep();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_a_socket_that_stays_silent_loses_its_place() {
        let places = Places::new(2);
        let (heard, silent) = (places.take().unwrap(), places.take().unwrap());
        heard.keep();
        assert!(places.take().is_none(), "the silent socket is new");
        tokio::time::sleep(SILENCE_ALLOWED).await;
        let late = places.take().unwrap();
        silent.lost().await;
        drop(silent);
        assert_eq!(places.free(), 0, "its place went to the new socket");
        assert!(places.take().is_none(), "the new socket is not silent for long yet");
        drop((heard, late));
        assert_eq!(places.free(), 2);
        assert!(places.silent().sockets.is_empty());
    }
}
