//! The newest finished webhook requests of this node, in memory, for the admin console: it shows and repeats them.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;

use super::hook::Hook;
use crate::metrics::Metrics;

/// Maximum length of all kept bodies together, in bytes.
const BODIES_MAX: usize = 16 * 1_024 * 1_024;
/// Maximum length of one kept body; a longer one can't be repeated.
const BODY_MAX: usize = 1_024 * 1_024;

/// A finished request.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// Its number on this node.
    pub number: u64,
    /// The webhook.
    pub hook: Hook,
    /// Time of the end, in microseconds since 1970.
    pub at_micros: i64,
    /// "ok", or the kind of the failure: the label in metrics.
    pub result: &'static str,
    /// The failure in words, without the URL.
    pub error: Option<String>,
    /// Number of tries.
    pub tries: u32,
    /// Time from the first try to the end.
    pub took: Duration,
    /// The number of the request that this one repeats.
    pub repeats: Option<u64>,
    /// The body; `None` if it was too long to keep.
    pub body: Option<Bytes>,
    /// Length of the body, in bytes.
    pub bytes: usize,
}

/// The result of a finished request.
pub(super) struct Ended {
    pub(super) hook: Hook,
    /// The label and the text of the failure, if it failed.
    pub(super) failure: Option<(&'static str, String)>,
    pub(super) tries: u32,
    pub(super) took: Duration,
    pub(super) repeats: Option<u64>,
    pub(super) body: Bytes,
}

#[derive(Debug, Default)]
struct Kept {
    deliveries: VecDeque<Delivery>,
    bytes: usize,
    recorded: u64,
}

/// The newest finished requests.
#[derive(Debug)]
pub struct Deliveries {
    /// Number of requests that are kept; 0 if the console is off.
    most: usize,
    kept: Mutex<Kept>,
    metrics: Arc<Metrics>,
}

impl Deliveries {
    /// Keeps up to `most` requests.
    pub fn new(most: usize, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self { most, kept: Mutex::default(), metrics })
    }

    /// Keeps a request that ended. Returns its number.
    pub(super) fn record(&self, ended: Ended) -> u64 {
        if self.most == 0 {
            return 0;
        }
        let Ended { hook, failure, tries, took, repeats, body } = ended;
        let kept = &mut *self.kept();
        kept.recorded += 1;
        let bytes = body.len();
        let (result, error) = failure.map_or(("ok", None), |(label, text)| (label, Some(text)));
        let delivery = Delivery {
            number: kept.recorded,
            hook,
            at_micros: jiff::Timestamp::now().as_microsecond(),
            result,
            error,
            tries,
            took,
            repeats,
            body: (bytes <= BODY_MAX).then_some(body),
            bytes,
        };
        kept.bytes += length(&delivery);
        kept.deliveries.push_back(delivery);
        while kept.deliveries.len() > self.most || kept.bytes > BODIES_MAX {
            let oldest = kept.deliveries.pop_front();
            kept.bytes -= oldest.as_ref().map_or(0, length);
        }
        self.metrics.console_deliveries.set(i64::try_from(kept.deliveries.len()).unwrap_or(i64::MAX));
        kept.recorded
    }

    /// Kept requests before the one with the number `before`, the newest first, at most `limit`; those that failed only, if
    /// `failed`. The second value is true if there are more.
    pub fn page(&self, before: Option<u64>, failed: bool, limit: usize) -> (Vec<Delivery>, bool) {
        let kept = self.kept();
        let fits =
            |one: &&Delivery| before.is_none_or(|before| one.number < before) && !(failed && one.error.is_none());
        let mut found: Vec<Delivery> = kept.deliveries.iter().rev().filter(fits).take(limit + 1).cloned().collect();
        let more = found.len() > limit;
        found.truncate(limit);
        (found, more)
    }

    /// A kept request.
    pub fn get(&self, number: u64) -> Option<Delivery> {
        self.kept().deliveries.iter().find(|one| one.number == number).cloned()
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn length(delivery: &Delivery) -> usize {
    delivery.body.as_ref().map_or(0, Bytes::len)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(deliveries: &Deliveries, failure: Option<&'static str>, length: usize) -> u64 {
        let failure = failure.map(|label| (label, "it failed".to_owned()));
        let (hook, took, body) = (Hook::Persona, Duration::from_millis(5), Bytes::from(vec![b'x'; length]));
        deliveries.record(Ended { hook, failure, tries: 1, took, repeats: None, body })
    }

    #[test]
    fn the_newest_are_kept_in_number_and_in_bytes() {
        let deliveries = Deliveries::new(3, Arc::new(Metrics::new().unwrap()));
        for _ in 0..4 {
            end(&deliveries, None, 10);
        }
        end(&deliveries, Some("timeout"), 10);
        let numbers =
            |(page, more): (Vec<Delivery>, bool)| (page.iter().map(|one| one.number).collect::<Vec<_>>(), more);
        assert_eq!(numbers(deliveries.page(None, false, 2)), (vec![5, 4], true));
        assert_eq!(numbers(deliveries.page(Some(4), false, 2)), (vec![3], false));
        assert_eq!(numbers(deliveries.page(None, true, 2)), (vec![5], false));
        assert!(deliveries.get(2).is_none() && deliveries.get(5).unwrap().result == "timeout");
        assert_eq!(deliveries.metrics.console_deliveries.get(), 3);

        let deliveries = Deliveries::new(1_000, deliveries.metrics.clone());
        for _ in 0..20 {
            end(&deliveries, None, BODY_MAX);
        }
        assert_eq!(deliveries.page(None, false, 100).0.len(), 16);
        let long = end(&deliveries, None, BODY_MAX + 1);
        assert!(deliveries.get(long).unwrap().body.is_none());
        assert_eq!(deliveries.page(None, false, 100).0.len(), 17, "a body that is not kept takes no room");
    }

    #[test]
    fn without_a_console_nothing_is_kept() {
        let deliveries = Deliveries::new(0, Arc::new(Metrics::new().unwrap()));
        assert_eq!((end(&deliveries, None, 10), deliveries.page(None, false, 10).0.len()), (0, 0));
    }
}
