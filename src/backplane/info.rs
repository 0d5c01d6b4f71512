//! What Redis tells of itself.

use std::time::Duration;

use tokio::time::timeout;

use super::{connection::Connection, link_error::LinkError};
use crate::degrade::{Fault, Finding};

/// The output of INFO.
pub(super) struct Info(String);

impl Info {
    /// Asks the server.
    ///
    /// # Errors
    /// It did not answer within `limit`, or the connection broke, or its ACL forbids the command: no node depends on it.
    pub(super) async fn fetch(connection: &mut Connection, limit: Duration) -> Result<Self, LinkError> {
        let reply = timeout(limit, connection.ask(redis::cmd("INFO"))).await;
        Ok(Self(reply.map_err(|_| LinkError::Timeout)??))
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.lines().find_map(|line| line.trim_end().strip_prefix(name)?.strip_prefix(':'))
    }

    /// The version, in a sentence about the server.
    pub(super) fn version(&self) -> String {
        self.get("redis_version").map_or_else(|| "answers".to_owned(), |version| format!("answers, {version}"))
    }

    /// The finding if the server evicts keys once its memory is full.
    pub(super) fn eviction(&self) -> Option<Finding> {
        let limited = self.get("maxmemory").is_some_and(|bytes| bytes != "0");
        let policy = self.get("maxmemory_policy").filter(|policy| limited && *policy != "noeviction")?;
        Some(Finding::new(Fault::RedisEvicts, format!("maxmemory-policy is {policy}; it should be noeviction")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_redis_with_a_limit_evicts() {
        let info = |text: &str| Info(text.to_owned());
        assert_eq!(info("maxmemory:0\r\nmaxmemory_policy:allkeys-lru\r\n").eviction(), None);
        assert_eq!(info("maxmemory:9\r\nmaxmemory_policy:noeviction\r\n").eviction(), None);
        let evicts = info("redis_version:7.2\r\nmaxmemory:9\r\nmaxmemory_policy:allkeys-lru\r\n");
        assert_eq!(evicts.eviction().unwrap().fault, Fault::RedisEvicts);
        assert_eq!((evicts.version(), info("").version()), ("answers, 7.2".to_owned(), "answers".to_owned()));
    }
}
