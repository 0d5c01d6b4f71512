//! Connections in a registry entry, one per line.

use std::sync::Arc;

use super::incarnation::Incarnation;
use crate::model::{ConnectionId, Timestamp};

/// A connection in a registry entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) id: ConnectionId,
    pub(super) holder: Incarnation,
    pub(super) since: Timestamp,
    /// The label of its dialect, if the entry has it.
    pub(super) dialect: Option<Arc<str>>,
}

/// The time at which a connection was opened and its dialect, as one word of a line.
pub(super) fn opened(since: Timestamp, dialect: &str) -> String {
    format!("{}/{dialect}", since.micros())
}

/// Parses the connections in a registry entry.
pub(super) fn parse_lines(lines: &str) -> Vec<Line> {
    let parse = |line: &str| {
        let mut words = line.split(' ');
        let id = ConnectionId::parse(words.next()?).ok()?;
        let holder = Incarnation::parse(words.next()?)?;
        let opened = words.next()?;
        let (since, dialect) = opened.split_once('/').map_or((opened, None), |(since, dialect)| (since, Some(dialect)));
        let since = Timestamp::from_micros(since.parse().ok()?);
        Some(Line { id, holder, since, dialect: dialect.map(Arc::from) })
    };
    lines.lines().filter_map(parse).collect()
}
