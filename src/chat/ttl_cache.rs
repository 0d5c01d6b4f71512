//! A small bounded cache whose entries expire: rights, users, statuses, and the conversations of pairs.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// A bounded cache. At its capacity it removes expired entries, or all entries if none has expired.
#[derive(Debug)]
pub(super) struct TtlCache<K, V> {
    ttl: Duration,
    capacity: usize,
    entries: Mutex<HashMap<K, (V, Instant)>>,
}

impl<K: Hash + Eq, V: Clone> TtlCache<K, V> {
    pub(super) fn new(ttl: Duration, capacity: usize) -> Self {
        Self { ttl, capacity, entries: Mutex::default() }
    }

    pub(super) fn get(&self, key: &K) -> Option<V> {
        let entries = self.lock();
        let (value, inserted_at) = entries.get(key)?;
        (inserted_at.elapsed() < self.ttl).then(|| value.clone())
    }

    pub(super) fn insert(&self, key: K, value: V) {
        let mut entries = self.lock();
        if entries.len() >= self.capacity {
            entries.retain(|_, (_, inserted_at)| inserted_at.elapsed() < self.ttl);
        }
        if entries.len() >= self.capacity {
            entries.clear();
        }
        entries.insert(key, (value, Instant::now()));
    }

    pub(super) fn remove(&self, key: &K) {
        self.lock().remove(key);
    }

    pub(super) fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, (V, Instant)>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expired_and_surplus_entries_are_removed() {
        let known = TtlCache::new(Duration::from_secs(60), 2);
        known.insert(1, 'a');
        known.insert(2, 'b');
        assert_eq!(known.get(&1), Some('a'));
        known.insert(3, 'c');
        assert_eq!((known.get(&1), known.get(&3)), (None, Some('c')));
        let brief = TtlCache::new(Duration::ZERO, 2);
        brief.insert(1, 'a');
        assert_eq!(brief.get(&1), None);
    }
}
