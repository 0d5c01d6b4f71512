//! The replies to a pipeline.

use redis::{FromRedisValue, Pipeline, ServerError, Value};

use super::{
    foreign,
    keys::Keys,
    link_error::{LinkError, Refusal},
};
use crate::config::HostPort;

/// The replies to a pipeline; each can be taken once.
#[derive(Debug, Default)]
pub(super) struct Replies {
    values: Vec<Value>,
    /// The commands that got no reply, in order. Only on a cluster, whose other masters answered.
    failures: Vec<(usize, LinkError)>,
    /// The masters of a cluster that refused commands, in the order of the commands.
    refused_by: Vec<(usize, HostPort)>,
    overtaken: bool,
}

impl Replies {
    /// Replies. `overtaken`: a later call may have reached Redis before a command of this one.
    pub(super) fn new(values: Vec<Value>, overtaken: bool) -> Self {
        Self { values, failures: Vec::new(), refused_by: Vec::new(), overtaken }
    }

    /// The same, where the masters of some commands did not answer: these commands, in order, and why.
    pub(super) fn with_failures(self, failures: Vec<(usize, LinkError)>) -> Self {
        Self { failures, ..self }
    }

    /// The same, with the addresses of the masters that refused commands, in the order of the commands.
    pub(super) fn with_places(self, refused_by: Vec<(usize, HostPort)>) -> Self {
        Self { refused_by, ..self }
    }

    /// For commands that no master answered.
    pub(super) fn unanswered(count: usize, error: &LinkError) -> Self {
        let failures = (0..count).map(|index| (index, error.clone())).collect();
        Self::new(vec![Value::Nil; count], false).with_failures(failures)
    }

    /// True if a later call may have reached Redis before a command of this one, because a slot of a cluster moved.
    pub(super) fn may_be_overtaken(&self) -> bool {
        self.overtaken
    }

    /// Adds the replies to the next commands.
    pub(super) fn append(&mut self, next: Self) {
        let first = self.values.len();
        self.failures.extend(next.failures.into_iter().map(|(index, error)| (first + index, error)));
        self.refused_by.extend(next.refused_by.into_iter().map(|(index, place)| (first + index, place)));
        self.values.extend(next.values);
        self.overtaken |= next.overtaken;
    }

    /// Takes the reply to command `index`.
    pub(super) fn take<T: FromRedisValue>(&mut self, index: usize) -> Result<T, LinkError> {
        if let Ok(at) = self.failures.binary_search_by_key(&index, |(index, _)| *index) {
            return Err(self.failures[at].1.clone());
        }
        match self.values.get_mut(index).map(std::mem::take) {
            Some(Value::ServerError(error)) => Err(LinkError::Refused(self.refusal_of(index, &error))),
            Some(value) => redis::from_redis_value(value).map_err(|_| LinkError::Unexpected),
            None => Err(LinkError::Unexpected),
        }
    }

    /// The keys of the commands that found a value of another type.
    pub(super) fn keys_of_another_type(&self, keys: &Keys, pipeline: &Pipeline) -> Vec<String> {
        foreign::keys_of_another_type(keys, pipeline, &self.values)
    }

    /// The first command that Redis refused, or whose master did not answer, if there is one. Commands for a master that is
    /// known to be down don't count: what it lost is written again when it is back.
    pub(super) fn refusal(&self) -> Option<LinkError> {
        let unanswered = || self.failures().find(|error| **error != LinkError::Down).cloned();
        let error = self.values.iter().enumerate().find_map(|(index, value)| match value {
            Value::ServerError(error) => Some(self.refusal_of(index, error)),
            _ => None,
        });
        error.map(LinkError::Refused).or_else(unanswered)
    }

    /// The refusal of a command, with the address of the master, if there are several.
    fn refusal_of(&self, index: usize, error: &ServerError) -> Refusal {
        let refusal = Refusal::from(error);
        match self.refused_by.binary_search_by_key(&index, |(index, _)| *index) {
            Ok(at) => refusal.by(&self.refused_by[at].1),
            Err(_) => refusal,
        }
    }

    /// Why masters did not answer.
    pub(super) fn failures(&self) -> impl Iterator<Item = &LinkError> {
        self.failures.iter().map(|(_, error)| error)
    }

    /// True if Redis executed every command.
    pub(super) fn are_whole(&self) -> bool {
        self.failures.is_empty() && self.errors().next().is_none()
    }

    /// The error replies.
    pub(super) fn errors(&self) -> impl Iterator<Item = &ServerError> {
        self.values.iter().filter_map(|value| match value {
            Value::ServerError(error) => Some(error),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_master() {
        let refused = || match redis::parse_redis_value(b"-NOPERM no rights for 'get'\r\n") {
            Ok(value) => value,
            Err(error) => panic!("{error}"),
        };
        let master = HostPort { host: "h".into(), port: 7 };
        let mut replies = Replies::new(vec![Value::Nil], false);
        replies.append(Replies::new(vec![Value::Nil, refused()], false).with_places(vec![(1, master)]));
        let expected = "NOPERM no rights for 'get' (h:7)";
        let Some(LinkError::Refused(refusal)) = replies.refusal() else { panic!("a refusal") };
        assert_eq!((&*refusal.code, &*refusal.words), ("NOPERM", expected));
        let Err(LinkError::Refused(taken)) = replies.take::<i64>(2) else { panic!("a refusal") };
        assert_eq!(taken.words, expected);
        let mut of_one = Replies::new(vec![refused()], false);
        let Err(LinkError::Refused(taken)) = of_one.take::<i64>(0) else { panic!("a refusal") };
        assert_eq!(taken.words, "NOPERM no rights for 'get'");
    }

    #[test]
    fn a_command_of_a_master_that_does_not_answer_fails_alone() {
        let of = |value: i64, failures: Vec<(usize, LinkError)>| {
            Replies::new(vec![Value::Int(value), Value::Nil], false).with_failures(failures)
        };
        let mut replies = of(1, vec![(1, LinkError::Down)]);
        assert!(replies.refusal().is_none() && !replies.are_whole());
        replies.append(of(3, vec![(1, LinkError::Timeout)]));
        assert_eq!(replies.refusal(), Some(LinkError::Timeout));
        let taken: Vec<Result<i64, LinkError>> = (0..5).map(|index| replies.take(index)).collect();
        let unexpected = Err(LinkError::Unexpected);
        assert_eq!(taken, [Ok(1), Err(LinkError::Down), Ok(3), Err(LinkError::Timeout), unexpected]);
    }
}
