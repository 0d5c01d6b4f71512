//! A place in the keys of all servers.

use redis::Pipeline;

/// A place in the keys of all servers: one server after the other. If servers come or go meanwhile, keys may be read twice, or not
/// in this round.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct ScanCursor {
    server: usize,
    /// The cursor of that server; 0 at its beginning.
    cursor: u64,
}

impl ScanCursor {
    /// True at the beginning of a round.
    pub(super) fn is_at_start(self) -> bool {
        self == Self::default()
    }

    /// The place of the server among the others.
    pub(super) fn server(self) -> usize {
        self.server
    }

    /// Reads some of the next keys of the server.
    pub(super) fn command(self, pattern: &str, count: usize) -> Pipeline {
        let mut pipeline = Pipeline::with_capacity(1);
        pipeline.cmd("SCAN").arg(self.cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(count);
        pipeline
    }

    /// Goes on with the cursor that the server returned. After the `last` server the round is over.
    pub(super) fn advance(&mut self, next: u64, last: bool) {
        *self = match next {
            0 if last => Self::default(),
            0 => Self { server: self.server + 1, cursor: 0 },
            cursor => Self { cursor, ..*self },
        };
    }

    /// Ends the round, because there is no further server.
    pub(super) fn end<T>(&mut self) -> Vec<T> {
        *self = Self::default();
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_reads_one_server_after_the_other() {
        let mut cursor = ScanCursor::default();
        cursor.advance(7, false);
        assert_eq!((cursor.server(), cursor.is_at_start()), (0, false));
        cursor.advance(0, false);
        assert_eq!((cursor.server(), cursor.is_at_start()), (1, false));
        assert!(cursor.end::<()>().is_empty() && cursor.is_at_start());
        cursor.advance(0, true);
        assert!(cursor.is_at_start());
    }
}
