//! Search, and the search index: segments with the words of runs of entries, which are built after the commit.

use std::{collections::HashSet, time::SystemTime};

use tokio_postgres::{Row, types::ToSql};

use super::{
    super::{Operation, SearchScope, StoreError, row::entry_columns},
    Postgres,
    rows::{entry, limit_and_offset, log},
};
use crate::model::{Entry, LogId, Page, SearchTerms, Seq};

const SEARCH: &str = concat!("SELECT ", entry_columns!(), " FROM search_messages($1, $2, $3, $4, $5, $6, $7, $8, $9)");
/// The entries after the last segment of a log.
const NEXT: &str = "SELECT seq, created_at, CASE kind WHEN 0 THEN content END, CASE kind WHEN 0 THEN hashtext(content) END \
     FROM log WHERE log = $1 AND seq > (SELECT coalesce(max(last), 0) FROM segments WHERE log = $1) ORDER BY seq LIMIT $2";
/// The entries of a segment whose words were removed because a message changed.
const OUTDATED: &str = "SELECT l.seq, l.created_at, CASE l.kind WHEN 0 THEN l.content END, \
         CASE l.kind WHEN 0 THEN hashtext(l.content) END \
     FROM (SELECT first, last FROM segments WHERE log = $1 AND words IS NULL ORDER BY last DESC LIMIT 1) s \
     JOIN log l ON l.log = $1 AND l.seq BETWEEN s.first AND s.last ORDER BY l.seq";
const ADD: &str = "SELECT add_segment($1, $2, $3, $4, $5, $6)";
const UNINDEXED: &str = "SELECT h.log, \
         h.seq - (SELECT coalesce(max(s.last), 0) FROM segments s WHERE s.log = h.log) >= $3 \
             OR EXISTS (SELECT FROM segments s WHERE s.log = h.log AND s.words IS NULL) \
     FROM (SELECT log, seq FROM heads WHERE log > $1 AND log < '~' ORDER BY log LIMIT $2) h ORDER BY h.log";

/// Number of newest entries of a conversation that a search reads if they are not in the index yet; more if the scope
/// names the conversation.
const UNINDEXED_DEPTH: i64 = 10_000;
const UNINDEXED_DEPTH_OF_NAMED: i64 = 100_000;
/// Number of most recently active conversations that a search reads.
const SEARCH_CONVERSATIONS: i64 = 1_000;

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
/// Words are cut to this many characters, in the index and in its queries.
const WORD_CHARS: usize = 64;

impl Postgres {
    pub(super) async fn search_messages(
        &self,
        scope: &SearchScope,
        terms: &SearchTerms,
        page: Page,
    ) -> Result<Vec<Entry>, StoreError> {
        let words = terms.words();
        if words.is_empty() {
            return Ok(Vec::new());
        }
        let query = format!("'{}':*", words.join("' & '"));
        let filter = filter(words);
        // Only ASCII words become patterns: for other characters, Rust's lower case may differ from the database's.
        let ascii = words.iter().filter(|word| word.is_ascii());
        let patterns: Vec<String> = ascii.map(|word| format!("%{}%", word.to_ascii_lowercase())).collect();
        let (user, of) = scope.parts();
        let depth = if of.is_some() { UNINDEXED_DEPTH_OF_NAMED } else { UNINDEXED_DEPTH };
        let (limit, offset) = limit_and_offset(page);
        let parameters: [&(dyn ToSql + Sync); 9] =
            [&user, &of, &query, &filter, &patterns, &limit, &offset, &depth, &SEARCH_CONVERSATIONS];
        self.query(Operation::Search, SEARCH, &parameters).await?.iter().map(entry).collect()
    }

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
        let words: HashSet<String> = entries.iter().flat_map(|row| index_words(text(row))).collect();
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

/// The words of a text for the index: runs of letters and digits; and the letters and the digits of a mixed run, because
/// PostgreSQL may split there. The index must hold every word by which PostgreSQL finds the text; it may hold more.
fn index_words(text: &str) -> impl Iterator<Item = String> {
    let runs = text.split(|c: char| !c.is_alphanumeric()).filter(|run| !run.is_empty());
    runs.flat_map(|run| {
        let digit = |c: char| c.is_numeric();
        let mixed = run.contains(digit) && !run.chars().all(digit);
        let parts = run.split(digit).chain(run.split(move |c: char| !digit(c)));
        let parts = parts.filter(move |part| mixed && !part.is_empty());
        std::iter::once(run).chain(parts).map(index_word)
    })
}

/// A word as the index holds it: in lower case, character by character, and cut.
fn index_word(word: &str) -> String {
    word.chars().flat_map(char::to_lowercase).take(WORD_CHARS).collect()
}

/// The query of the index for the words of a search. Words consist of letters and digits, so they need no escapes.
fn filter(words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|word| index_word(word)).collect();
    format!("'{}':*", words.join("' & '"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_holds_runs_and_their_parts() {
        let words = |text| index_words(text).collect::<HashSet<_>>();
        let set = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<HashSet<_>>();
        assert_eq!(words("Die Grüße, \u{201c}NEU\u{201d}!"), set(&["die", "grüße", "neu"]));
        assert_eq!(words("a1b22 7"), set(&["a1b22", "a", "1", "b", "22", "7"]));
        assert_eq!(words("我家在上海东边"), set(&["我家在上海东边"]));
        assert_eq!(words(&"x".repeat(100)), set(&["x".repeat(64).as_str()]));
        assert_eq!(filter(&["Two".into(), "Wor".into()]), "'two' & 'wor':*");
    }

    #[test]
    fn a_segment_is_full_by_entries_or_by_bytes() {
        assert_eq!(full_segment(std::iter::repeat_n(2, SEGMENT_ENTRIES - 1)), None);
        assert_eq!(full_segment(std::iter::repeat_n(0, SEGMENT_ENTRIES + 1)), Some(SEGMENT_ENTRIES));
        assert_eq!(full_segment(std::iter::repeat_n(SEGMENT_BYTES / 4, 100)), Some(4));
    }
}
