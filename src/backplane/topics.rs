//! The logs that a node hears, and over which connection it hears each.

use std::collections::HashMap;

use tokio::sync::oneshot;

use crate::{config::HostPort, model::LogId};

/// A connection: to the only server (`None`), or to a master of a cluster.
pub(super) type Place = Option<HostPort>;

#[derive(Debug, Default)]
struct Topic {
    wanted: bool,
    /// The connection over which it is heard.
    on: Option<Place>,
    waiting: Vec<oneshot::Sender<()>>,
}

/// The logs.
#[derive(Debug, Default)]
pub(super) struct Topics {
    topics: HashMap<LogId, Topic>,
    /// Of each connection that exists and applies changes, the logs that may be wanted and not heard, or heard and not wanted.
    changed: HashMap<Place, Vec<LogId>>,
}

impl Topics {
    /// Records that a log is wanted, whose connection is `place`. Returns a receiver of the confirmation, unless it is heard, or the
    /// caller can't wait.
    pub(super) fn want(&mut self, log: &LogId, place: &Place, waits: bool) -> Option<oneshot::Receiver<()>> {
        let topic = self.topics.entry(log.clone()).or_default();
        let new = !std::mem::replace(&mut topic.wanted, true);
        if let Some(changed) = self.changed.get_mut(place).filter(|_| new) {
            changed.push(log.clone());
        }
        if topic.on.is_some() || !waits {
            return None;
        }
        let (sender, confirmed) = oneshot::channel();
        topic.waiting.push(sender);
        Some(confirmed)
    }

    /// Records that a log is not wanted any more, whose connection would be `place`. True if a connection must apply it.
    pub(super) fn unwant(&mut self, log: &LogId, place: &Place) -> bool {
        let Some(topic) = self.topics.get_mut(log).filter(|topic| topic.wanted) else { return false };
        topic.wanted = false;
        match self.changed.get_mut(topic.on.as_ref().unwrap_or(place)) {
            Some(changed) => {
                changed.push(log.clone());
                true
            }
            None => {
                self.topics.remove(log);
                false
            }
        }
    }

    /// Records that a connection exists, which applies changes. Returns the logs to subscribe to first.
    pub(super) fn connect(&mut self, place: &Place, is_there: impl Fn(&LogId) -> bool) -> Vec<LogId> {
        self.changed.insert(place.clone(), Vec::new());
        self.topics.keys().filter(|log| is_there(log)).cloned().collect()
    }

    /// Records that there is no such connection, and releases all callers that wait for a confirmation over it.
    pub(super) fn disconnect(&mut self, place: &Place, is_there: impl Fn(&LogId) -> bool) {
        self.changed.remove(place);
        for (log, topic) in &mut self.topics {
            topic.on.take_if(|on| on == place);
            if topic.on.is_none() && is_there(log) {
                topic.waiting = Vec::new();
            }
        }
        self.topics.retain(|_, topic| topic.wanted || topic.on.is_some());
    }

    /// Takes some of the changes for a connection.
    pub(super) fn take_changed(&mut self, place: &Place, limit: usize) -> Vec<LogId> {
        let Some(changed) = self.changed.get_mut(place) else { return Vec::new() };
        let count = changed.len().min(limit);
        changed.drain(..count).collect()
    }

    /// Those of these logs to which a connection must subscribe, and those whose subscription it must end.
    pub(super) fn split<'a>(&mut self, place: &Place, logs: &'a [LogId]) -> (Vec<&'a LogId>, Vec<&'a LogId>) {
        let (mut to_subscribe, mut to_unsubscribe) = (Vec::new(), Vec::new());
        for log in logs {
            let Some(topic) = self.topics.get_mut(log) else { continue };
            let here = topic.on.as_ref() == Some(place);
            if topic.wanted && !here {
                to_subscribe.push(log);
            } else if !topic.wanted && here {
                // Clear it before the UNSUBSCRIBE, so that a new subscriber waits for a new confirmation.
                topic.on = None;
                to_unsubscribe.push(log);
            }
        }
        (to_subscribe, to_unsubscribe)
    }

    /// Records the end of a change of `logs`: those in `subscribed` are heard over the connection.
    pub(super) fn note_changed(&mut self, place: &Place, subscribed: Vec<&LogId>, logs: &[LogId]) {
        for log in subscribed {
            if let Some(topic) = self.topics.get_mut(log) {
                topic.on = Some(place.clone());
                for waiting in std::mem::take(&mut topic.waiting) {
                    // A send fails only when the caller no longer waits.
                    let _ = waiting.send(());
                }
            }
        }
        for log in logs {
            if self.topics.get(log).is_some_and(|topic| !topic.wanted && topic.on.is_none()) {
                self.topics.remove(log);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(port: u16) -> Place {
        Some(HostPort { host: "h".into(), port })
    }

    #[test]
    fn a_log_moves_from_one_connection_to_another() {
        let (mut topics, log, a, b) = (Topics::default(), LogId::parse("room").unwrap(), place(1), place(2));
        let logs = [log.clone()];
        let mut confirmed = topics.want(&log, &a, true).unwrap();
        assert!(topics.want(&log, &a, false).is_none());
        assert_eq!(topics.connect(&b, |_| false), []);
        assert_eq!(topics.connect(&a, |_| true), logs);
        assert_eq!(topics.split(&a, &logs), (vec![&log], vec![]));
        topics.note_changed(&a, vec![&log], &logs);
        assert!(confirmed.try_recv().is_ok() && topics.want(&log, &a, true).is_none());
        // Its slot has moved.
        assert_eq!(topics.split(&b, &logs), (vec![&log], vec![]));
        topics.note_changed(&b, vec![&log], &logs);
        topics.disconnect(&a, |_| false);
        assert!(topics.want(&log, &b, true).is_none(), "it is heard over the other one");
        assert!(topics.unwant(&log, &b) && !topics.unwant(&log, &b));
        assert_eq!(topics.take_changed(&b, 9), logs);
        assert_eq!(topics.split(&b, &logs), (vec![], vec![&log]));
        topics.note_changed(&b, vec![], &logs);
        assert!(topics.topics.is_empty());
    }

    #[test]
    fn whoever_waits_is_released_when_the_connection_ends() {
        let (mut topics, log, a) = (Topics::default(), LogId::parse("room").unwrap(), place(1));
        topics.connect(&a, |_| true);
        let mut confirmed = topics.want(&log, &a, true).unwrap();
        topics.disconnect(&place(2), |_| false);
        assert_eq!(confirmed.try_recv(), Err(oneshot::error::TryRecvError::Empty));
        topics.disconnect(&a, |_| true);
        assert_eq!(confirmed.try_recv(), Err(oneshot::error::TryRecvError::Closed));
        assert!(!topics.unwant(&log, &a) && topics.topics.is_empty());
    }
}
