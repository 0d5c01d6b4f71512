//! The search index: segments with the tokens of runs of entries, which are built after the commit.

use std::{collections::HashSet, time::SystemTime};

use tokio_postgres::{Row, types::ToSql};

use super::{
    super::{Operation, StoreError},
    Postgres,
    rows::log,
};
use crate::model::{LogId, Seq, search_tokens};

/// The entries after the last segment of a log.
const NEXT: &str = "SELECT seq, created_at, CASE kind WHEN 0 THEN content END, CASE kind WHEN 0 THEN hashtext(content) END \
     FROM log WHERE log = $1 AND seq > (SELECT coalesce(max(last), 0) FROM segments WHERE log = $1) ORDER BY seq LIMIT $2";
/// The entries of a segment whose words were removed because a message changed.
const OUTDATED: &str = "SELECT l.seq, l.created_at, CASE l.kind WHEN 0 THEN l.content END, \
         CASE l.kind WHEN 0 THEN hashtext(l.content) END \
     FROM (SELECT first, last FROM segments WHERE log = $1 AND words IS NULL ORDER BY last DESC LIMIT 1) s \
     JOIN log l ON l.log = $1 AND l.seq BETWEEN s.first AND s.last ORDER BY l.seq";
const ADD: &str = "SELECT add_token_segment($1, $2, $3, $4, $5, $6)";
const UNINDEXED: &str = "SELECT h.log, \
         h.seq - greatest((SELECT max(s.last) FROM segments s WHERE s.log = h.log), h.removed_seq) >= $3 \
             OR EXISTS (SELECT FROM segments s WHERE s.log = h.log AND s.words IS NULL) \
     FROM (SELECT log, seq, removed_seq FROM heads WHERE log > $1 AND log < '~' ORDER BY log LIMIT $2) h ORDER BY h.log";

/// A segment is full with this many entries or bytes of text.
const SEGMENT_ENTRIES: usize = 256;
const SEGMENT_BYTES: usize = 128 * 1_024;
/// Number of entries that one call of `index` reads.
const INDEX_ENTRIES: i64 = 512;
/// Conversations that one call of `unindexed` looks at.
const SWEEP_PAGE: i64 = 1_000;
/// Number of unindexed entries from which a log is listed. Fewer, long ones may fill a segment too; they wait until the
/// log grows.
const SWEEP_ENTRIES: i64 = SEGMENT_ENTRIES as i64;
impl Postgres {
    /// Adds the full segments among the next entries of a log, and the words of one segment that has lost them.
    pub(super) async fn add_segments(&self, of: &LogId) -> Result<u32, StoreError> {
        let (limit, mut added) = (INDEX_ENTRIES, 0);
        let next = self.query(Operation::Index, NEXT, &[&of.as_str(), &limit]).await?;
        let mut rest = &next[..];
        while let Some(length) = full_segment(rest.iter().map(|row| text(row).len())) {
            let (segment, after) = rest.split_at(length);
            added += u32::from(self.add_segment(of, segment).await?);
            rest = after;
        }
        let outdated = self.query(Operation::Index, OUTDATED, &[&of.as_str()]).await?;
        Ok(added + u32::from(self.add_segment(of, &outdated).await?))
    }

    /// Adds a segment of these entries. Returns false if there are none, or if one of them has changed meanwhile: the log
    /// is then queued again.
    async fn add_segment(&self, of: &LogId, entries: &[Row]) -> Result<bool, StoreError> {
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else { return Ok(false) };
        let (first, last, newest): (Seq, Seq, SystemTime) = (first.get(0), last.get(0), last.get(1));
        let texts: i64 = entries.iter().filter_map(|row| row.get::<_, Option<i32>>(3)).map(i64::from).sum();
        let words: HashSet<String> = entries.iter().flat_map(|row| search_tokens(text(row))).collect();
        let words: Vec<String> = words.into_iter().collect();
        let parameters: [&(dyn ToSql + Sync); 6] = [&of.as_str(), &first, &last, &newest, &texts, &words];
        let rows = self.query(Operation::Index, ADD, &parameters).await?;
        Ok(rows.first().is_some_and(|row| row.get(0)))
    }

    pub(super) async fn unindexed_logs(
        &self,
        after: Option<&LogId>,
    ) -> Result<(Vec<LogId>, Option<LogId>), StoreError> {
        let after = after.map_or("", LogId::as_str);
        let rows = self.query(Operation::Index, UNINDEXED, &[&after, &SWEEP_PAGE, &SWEEP_ENTRIES]).await?;
        let unindexed = rows.iter().filter(|row| row.get(1)).map(|row| log(row.get(0))).collect::<Result<_, _>>()?;
        let last = rows.last().map(|row| log(row.get(0))).transpose()?;
        Ok((unindexed, last))
    }
}

/// The text of a row of [`NEXT`] or [`OUTDATED`]: that of a message, or none.
fn text(row: &Row) -> &str {
    row.get::<_, Option<&str>>(2).unwrap_or_default()
}

/// The number of entries in the first full segment of entries with these sizes of text; `None` if they don't fill one.
fn full_segment(sizes: impl Iterator<Item = usize>) -> Option<usize> {
    let (mut entries, mut bytes) = (0, 0);
    for size in sizes {
        entries += 1;
        bytes += size;
        if entries >= SEGMENT_ENTRIES || bytes >= SEGMENT_BYTES {
            return Some(entries);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_full_by_entries_or_by_bytes() {
        assert_eq!(full_segment(std::iter::repeat_n(2, SEGMENT_ENTRIES - 1)), None);
        assert_eq!(full_segment(std::iter::repeat_n(0, SEGMENT_ENTRIES + 1)), Some(SEGMENT_ENTRIES));
        assert_eq!(full_segment(std::iter::repeat_n(SEGMENT_BYTES / 4, 100)), Some(4));
    }
}
