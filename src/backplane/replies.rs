//! The replies to a pipeline.

use redis::{FromRedisValue, Pipeline, ServerError, Value};

use super::{
    foreign,
    keys::Keys,
    link_error::{LinkError, Refusal},
};

/// The replies to a pipeline; each can be taken once.
#[derive(Debug, Default)]
pub(super) struct Replies {
    values: Vec<Value>,
    overtaken: bool,
}

impl Replies {
    /// Replies. `overtaken`: a later call may have reached Redis before a command of this one.
    pub(super) fn new(values: Vec<Value>, overtaken: bool) -> Self {
        Self { values, overtaken }
    }

    /// True if a later call may have reached Redis before a command of this one, because a slot of a cluster moved.
    pub(super) fn may_be_overtaken(&self) -> bool {
        self.overtaken
    }

    /// Adds the replies to the next commands.
    pub(super) fn append(&mut self, next: Self) {
        self.values.extend(next.values);
        self.overtaken |= next.overtaken;
    }

    /// Takes the reply to command `index`.
    pub(super) fn take<T: FromRedisValue>(&mut self, index: usize) -> Result<T, LinkError> {
        match self.values.get_mut(index).map(std::mem::take) {
            Some(Value::ServerError(error)) => Err(LinkError::Refused(Refusal::from(&error))),
            Some(value) => redis::from_redis_value(value).map_err(|_| LinkError::Unexpected),
            None => Err(LinkError::Unexpected),
        }
    }

    /// The keys of the commands that found a value of another type.
    pub(super) fn keys_of_another_type(&self, keys: &Keys, pipeline: &Pipeline) -> Vec<String> {
        foreign::keys_of_another_type(keys, pipeline, &self.values)
    }

    /// The first command that Redis refused, if there is one.
    pub(super) fn refusal(&self) -> Option<LinkError> {
        self.errors().next().map(|error| LinkError::Refused(Refusal::from(error)))
    }

    /// The error replies.
    pub(super) fn errors(&self) -> impl Iterator<Item = &ServerError> {
        self.values.iter().filter_map(|value| match value {
            Value::ServerError(error) => Some(error),
            _ => None,
        })
    }
}
