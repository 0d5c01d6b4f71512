//! Search: the store lists candidates, the newest first, and this node compares their texts, so that every store finds
//! the same messages.

use std::{
    cmp::Reverse,
    time::{Instant, SystemTime},
};

use tokio_postgres::{Row, types::ToSql};

use super::{
    super::{Operation, SearchScope, StoreError, row::entry_columns},
    Postgres,
    rows::entry,
};
use crate::model::{Entry, Page, SearchTerms, Seq};

const HEADS: &str = "SELECT o_log, o_head, o_updated_at, o_indexed FROM search_heads($1, $2, $3, $4)";
const CANDIDATES: &str = "SELECT o_log, o_seq, o_at, o_content FROM search_candidates($1, $2, $3, $4, $5, $6)";
const FOUND: &str = concat!(
    "SELECT ",
    entry_columns!("l."),
    " FROM unnest($1::text[], $2::bigint[]) WITH ORDINALITY AS f (log, seq, place) \
     JOIN log l ON l.log = f.log AND l.seq = f.seq WHERE NOT l.deleted ORDER BY f.place"
);

/// Number of newest entries of a conversation that a search reads if they are not in the index yet; more if the scope
/// names the conversation.
const UNINDEXED_DEPTH: i64 = 10_000;
const UNINDEXED_DEPTH_OF_NAMED: i64 = 100_000;
/// Number of most recently active conversations that a search reads.
const SEARCH_CONVERSATIONS: i64 = 1_000;
/// Number of candidates in the first call, and the maximum in later ones, which double it.
const FIRST_CANDIDATES: i64 = 128;
const MAX_CANDIDATES: i64 = 512;
/// Number of candidates that are compared before other tasks of the thread get their turn.
const COMPARED_AT_ONCE: usize = 32;

impl Postgres {
    pub(super) async fn search_messages(
        &self,
        scope: &SearchScope,
        terms: &SearchTerms,
        page: Page,
    ) -> Result<Vec<Entry>, StoreError> {
        if terms.is_empty() {
            return Ok(Vec::new());
        }
        // The pool's limit holds for each call; together they may take as long.
        let deadline = Instant::now() + self.config.heavy_read_timeout;
        let (user, of) = scope.parts();
        let depth = if of.is_some() { UNINDEXED_DEPTH_OF_NAMED } else { UNINDEXED_DEPTH };
        let heads = self.query(Operation::Search, HEADS, &[&user, &of, &depth, &SEARCH_CONVERSATIONS]).await?;
        let mut run = SearchRun::new(&heads, page);
        let (filter, mut limit) = (filter(terms), FIRST_CANDIDATES);
        while !run.logs.is_empty() {
            if Instant::now() >= deadline {
                return Err(StoreError::TooSlow);
            }
            let (logs, indexed, upto) = run.position();
            let parameters: [&(dyn ToSql + Sync); 6] = [&logs, &indexed, &upto, &filter, &run.cutoff, &limit];
            let candidates = self.query(Operation::Search, CANDIDATES, &parameters).await?;
            let complete = i64::try_from(candidates.len()).unwrap_or(i64::MAX) < limit;
            for some in candidates.chunks(COMPARED_AT_ONCE) {
                run.take(some, terms);
                tokio::task::yield_now().await;
            }
            if complete {
                break;
            }
            limit = (limit * 2).min(MAX_CANDIDATES);
        }
        let (logs, seqs) = run.page(page);
        let found = self.query(Operation::Search, FOUND, &[&logs, &seqs]).await?;
        found.iter().map(entry).collect()
    }
}

/// A log that is searched.
struct Searched {
    log: String,
    updated_at: SystemTime,
    /// The newest entry in a segment, and the newest one that was not read yet.
    indexed: Seq,
    upto: Seq,
    /// Number of messages found.
    found: usize,
}

/// A search under way.
struct SearchRun {
    /// The logs that are not done, the most recently active one first.
    logs: Vec<Searched>,
    found: Vec<(Reverse<SystemTime>, String, Reverse<Seq>)>,
    /// Number of messages to be found.
    wanted: usize,
    /// Older messages are not among the wanted ones.
    cutoff: SystemTime,
}

impl SearchRun {
    fn new(heads: &[Row], page: Page) -> Self {
        let head = |row: &Row| Searched {
            log: row.get(0),
            upto: row.get(1),
            updated_at: row.get(2),
            indexed: row.get(3),
            found: 0,
        };
        let wanted = number(page.limit.get()).saturating_add(number(page.offset.get()));
        let logs = heads.iter().map(head).collect();
        Self { logs, found: Vec::new(), wanted, cutoff: SystemTime::UNIX_EPOCH }
    }

    /// Where the next call begins: the logs, and for each its newest indexed entry and its newest unread one.
    fn position(&self) -> (Vec<&str>, Vec<Seq>, Vec<Seq>) {
        let logs = self.logs.iter();
        (
            logs.clone().map(|one| one.log.as_str()).collect(),
            logs.clone().map(|one| one.indexed).collect(),
            logs.map(|one| one.upto).collect(),
        )
    }

    /// Compares candidates, and goes on behind the last one.
    fn take(&mut self, candidates: &[Row], terms: &SearchTerms) {
        let mut at = 0;
        for row in candidates {
            let (log, seq): (&str, Seq) = (row.get(0), row.get(1));
            // A log that is done is gone from the list, but there may be further candidates of it.
            let Some(skipped) = self.logs[at..].iter().position(|one| one.log == log) else { continue };
            at += skipped;
            let searched = &mut self.logs[at];
            searched.upto = seq - 1;
            if searched.found < self.wanted && terms.find(row.get(3)) {
                searched.found += 1;
                self.found.push((Reverse(row.get(2)), log.to_owned(), Reverse(seq)));
            }
        }
        self.logs.drain(..at);
        if self.found.len() >= self.wanted {
            self.found.sort_unstable();
            self.found.truncate(self.wanted);
            self.cutoff = self.found.last().map_or(self.cutoff, |(Reverse(at), ..)| *at);
        }
        let (cutoff, wanted) = (self.cutoff, self.wanted);
        self.logs.retain(|one| one.updated_at >= cutoff && one.found < wanted && one.upto > 0);
    }

    /// The found messages of a page.
    fn page(mut self, page: Page) -> (Vec<String>, Vec<Seq>) {
        self.found.sort_unstable();
        let (skipped, wanted) = (number(page.offset.get()), number(page.limit.get()));
        self.found.into_iter().skip(skipped).take(wanted).map(|(_, log, Reverse(seq))| (log, seq)).unzip()
    }
}

fn number(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// The query of the index. Tokens have no quotes and no backslashes, so they need no escapes.
fn filter(terms: &SearchTerms) -> String {
    let token = |prefix: bool| if prefix { "':*" } else { "'" };
    let tokens = terms.tokens().into_iter().map(|one| format!("'{}{}", one.text, token(one.prefix)));
    tokens.collect::<Vec<_>>().join(" & ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_may_go_on_in_the_filter() {
        let filter = |text| filter(&SearchTerms::given("q", text).unwrap());
        assert_eq!(filter("Two Wor"), "'two' & 'wor':*");
        assert_eq!(filter("C++ 上海 海"), "'c' & '上海' & '海':*");
    }
}
