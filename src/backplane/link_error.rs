//! Why a call to Redis failed.

use std::{fmt, sync::Arc};

use redis::ErrorKind;

use super::{server_mode::ServerMode, sharing::Sharing};
use crate::{config::HostPort, degrade::Finding};

/// Why a call to Redis failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum LinkError {
    /// The link is closed: Redis is not configured, down, or a call has just timed out.
    #[error("the link to Redis is closed")]
    Down,
    /// No reply in time; Redis may still execute the command.
    #[error("no reply in time")]
    Timeout,
    /// The connection broke; Redis may have executed the command.
    #[error("connection broken: {0}")]
    Broken(String),
    /// The server refuses the certificate of this node, or demands one.
    #[error("{0}")]
    CertificateRefused(String),
    /// Redis replied with an error.
    #[error("Redis refused the command: {0}")]
    Refused(Refusal),
    /// The reply has an unexpected type or form.
    #[error("unexpected reply")]
    Unexpected,
    /// The server is not of a kind that a node can use.
    #[error("the server runs in an unfit mode: {0:?}")]
    Unfit(ServerMode),
    /// No primary is known, or what is named as one is none.
    #[error("{}", .0.detail)]
    NoPrimary(Arc<Finding>),
    /// Another deployment uses the keys of this node.
    #[error("{0}")]
    Shared(Arc<Sharing>),
}

/// An error reply of Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    /// Its first word, such as `READONLY`.
    pub(super) code: String,
    /// The whole reply, as an operator reads it.
    pub(super) words: String,
}

impl Refusal {
    /// Redis repeats the arguments of an unknown command, and those of HELLO hold the password.
    fn new(code: &str, words: &str) -> Self {
        let words = words.split(", with args").next().unwrap_or_default();
        Self { code: code.to_owned(), words: words.to_owned() }
    }
}

impl Refusal {
    /// The same, with the address of the master that refused.
    pub(super) fn by(self, master: &HostPort) -> Self {
        Self { words: format!("{} ({master})", self.words), ..self }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

impl From<&redis::ServerError> for Refusal {
    fn from(error: &redis::ServerError) -> Self {
        let code = error.code();
        let words = error.details().map_or_else(|| code.to_owned(), |details| format!("{code} {details}"));
        Self::new(code, &words)
    }
}

impl From<&redis::RedisError> for LinkError {
    fn from(error: &redis::RedisError) -> Self {
        match error.kind() {
            _ if error.is_timeout() => Self::Timeout,
            ErrorKind::Io => Self::Broken(error.to_string()),
            ErrorKind::Parse | ErrorKind::UnexpectedReturnType => Self::Unexpected,
            _ => {
                let words = match (error.code(), error.detail()) {
                    (Some(code), Some(detail)) => format!("{code} {detail}"),
                    _ => error.to_string(),
                };
                Self::Refused(Refusal::new(error.code().unwrap_or(error.category()), &words))
            }
        }
    }
}

impl From<redis::RedisError> for LinkError {
    fn from(error: redis::RedisError) -> Self {
        Self::from(&error)
    }
}

/// True if a key had a value of another type. The call that met it has deleted it then.
pub(super) fn is_wrong_type<T>(reply: &Result<T, LinkError>) -> bool {
    // Before version 7 the error of a script has another code.
    matches!(reply, Err(LinkError::Refused(refusal)) if refusal.words.contains("WRONGTYPE"))
}
