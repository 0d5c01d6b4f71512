//! Connections in a registry entry, one per line.

use super::incarnation::Incarnation;
use crate::model::{ConnectionId, Timestamp};

/// A connection in a registry entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) id: ConnectionId,
    pub(super) holder: Incarnation,
    pub(super) since: Timestamp,
}

/// Parses the connections in a registry entry.
pub(super) fn parse_lines(lines: &str) -> Vec<Line> {
    let parse = |line: &str| {
        let mut words = line.split(' ');
        let id = ConnectionId::parse(words.next()?).ok()?;
        let holder = Incarnation::parse(words.next()?)?;
        let since = Timestamp::from_micros(words.next()?.parse().ok()?);
        Some(Line { id, holder, since })
    };
    lines.lines().filter_map(parse).collect()
}
