//! A log of millions of entries: appends, resumes, pages, lists and searches, with statistics of the tables and without.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    curve::{Curve, Work},
    deployment::Deployment,
    requests::{Each, Requests},
};
use crate::{BenchResult, args::Args, support::eventually, wire};

/// Entries with the same texts as those before them, so that the search index of the first ones fits all. A segment of
/// the index has as many.
const PERIOD: u64 = 256;
/// Entries that the node itself puts into the search index.
const INDEXED: u64 = 4 * PERIOD;
/// Members of the log; each wrote a part of it.
const MEMBERS: u64 = 10;
/// Further conversations of the user who lists them.
const CONVERSATIONS: u64 = 20;
/// Entries that a resuming client missed: more than the cache in Redis holds.
const MISSED: u64 = 100;
/// Rows that one statement inserts.
const BATCH: u64 = 500_000;

/// The words of the texts, by position in the log. One word stands in one text of each period.
const CONTENT: &str = "'We said w' || (i % 256) || ' and x' || (i * 7 % 251 % 97) || ' about y' || (i % 256 / 4) \
     || ' when it rained on the hill'";
/// A word of all texts, and one that no text has: a search for it looks through the whole index.
const FREQUENT: &str = "rained";
const RARE: &str = "nowhere";

/// A kind of request.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Append,
    Resume,
    History,
    List,
    SearchFrequent,
    SearchRare,
}

impl Kind {
    const ALL: [Self; 6] =
        [Self::Append, Self::Resume, Self::History, Self::List, Self::SearchFrequent, Self::SearchRare];

    fn label(self) -> &'static str {
        match self {
            Self::Append => "append",
            Self::Resume => "resume with 100 missed",
            Self::History => "history page in the middle",
            Self::List => "list of 20 conversations",
            Self::SearchFrequent => "search for a frequent word",
            Self::SearchRare => "search for a word that is nowhere",
        }
    }

    /// Makes a request about a log that had `entries` entries before the requests.
    async fn make(self, requests: &mut Requests, entries: u64) -> BenchResult<()> {
        let number = requests.next();
        match self {
            Self::Append => {
                // Another process numbers its messages from 1 too.
                let unique = rand::random::<u64>();
                let fields = format!(
                    r#""type":"send","conversation_id":"log-0","content":"We said more","client_id":"{unique}-{number}""#
                );
                let ack = requests.ask(&fields, 0).await?;
                requests.head = wire::number(&ack, r#""seq":"#).ok_or("an ack without a seq")?;
            }
            Self::Resume => {
                requests.ask(r#""type":"leave","conversation_id":"log-0""#, 0).await?;
                let since = requests.head - MISSED;
                let fields = format!(r#""type":"join","conversation_id":"log-0","since_seq":{since}"#);
                requests.ask(&fields, MISSED).await?;
            }
            Self::History => {
                let before = entries / 2 + number * 53 % (entries / 4);
                let fields = format!(r#""type":"history","conversation_id":"log-0","before_seq":{before},"limit":50"#);
                requests.ask(&fields, 0).await?;
            }
            Self::List => drop(requests.ask(r#""type":"conversations","limit":20"#, 0).await?),
            Self::SearchFrequent => requests.search(FREQUENT).await?,
            Self::SearchRare => requests.search(RARE).await?,
        }
        Ok(())
    }
}

impl Requests {
    async fn search(&mut self, word: &str) -> BenchResult<()> {
        let fields = format!(r#""type":"search","conversation_id":"log-0","words":"{word}","limit":20"#);
        self.ask(&fields, 0).await.map(drop)
    }
}

/// Measures logs of these numbers of entries, which must increase.
pub async fn run(args: &Args, sizes: &[u64], window: Duration) -> BenchResult<Curve> {
    let mut curve = Curve::new("log", "entries of a log");
    // A search of everything is measured, not refused.
    let settings = [("HEAVY_READ_TIMEOUT", "4s".to_owned())];
    let mut deployment = Deployment::start(args, &settings).await;
    prepare(&mut deployment).await?;
    for &entries in sizes {
        deployment.stop_nodes().await;
        let start = Instant::now();
        fill(&deployment, entries).await?;
        let size = "SELECT (pg_database_size(current_database()) / 1e6)::float8";
        let megabytes: f64 = deployment.connect().await.query_one(size, &[]).await?.get(0);
        let seconds = start.elapsed().as_secs_f64();
        curve.notes.push(format!("{entries} entries: filled in {seconds:.0} s, the database has {megabytes:.0} MB"));
        eprintln!("  measuring: {}", curve.notes[curve.notes.len() - 1]);
        measure(&mut deployment, &mut curve, entries, ", old statistics", window).await?;
        deployment.execute("ANALYZE").await?;
        measure(&mut deployment, &mut curve, entries, "", window).await?;
    }
    Ok(curve)
}

/// Measures all kinds of requests on a new node, which plans its statements anew.
async fn measure(
    deployment: &mut Deployment,
    curve: &mut Curve,
    entries: u64,
    suffix: &str,
    window: Duration,
) -> BenchResult<()> {
    deployment.renew_node().await;
    let idle = deployment.idle(window).await;
    let mut requests = Requests::connect(deployment, "writer-0").await?;
    for kind in Kind::ALL {
        let (what, work) = (format!("{}{suffix}", kind.label()), Work::Constant);
        match Each::measure(deployment, idle, window, async || kind.make(&mut requests, entries).await).await {
            Ok(each) if suffix.is_empty() => {
                curve.add(entries, vec![each.all_parts(&what, work)]);
                curve.add(entries, each.details(&what, work));
            }
            Ok(each) => curve.add(entries, vec![each.all_parts(&what, work).not_drawn()]),
            Err(error) => curve.notes.push(format!("{what}, {entries} entries: {error}")),
        }
    }
    Ok(())
}

/// Stores users and conversations and the begin of the log, and waits until the node has put that into the search index.
async fn prepare(deployment: &mut Deployment) -> BenchResult<()> {
    deployment.add_users("writer-", MEMBERS, 0).await?;
    deployment.add_groups("log-", 1 + CONVERSATIONS).await?;
    deployment.add_members("'log-0'", "'writer-' || i", MEMBERS).await?;
    deployment
        .add_members(
            &format!("'log-' || (1 + i / {MEMBERS})"),
            &format!("'writer-' || (i % {MEMBERS})"),
            MEMBERS * CONVERSATIONS,
        )
        .await?;
    insert(deployment, 1, INDEXED).await?;
    // A node that starts looks for logs that are not in the index.
    deployment.renew_node().await;
    let database = deployment.connect().await;
    eventually("the search index", async || {
        let rows = database.query_one("SELECT count(*) FROM segments WHERE words IS NOT NULL", &[]).await;
        rows.ok().filter(|row| row.get::<_, i64>(0) as u64 == INDEXED / PERIOD)
    })
    .await;
    Ok(())
}

/// Extends the log to `entries`, and the search index with it.
async fn fill(deployment: &Deployment, entries: u64) -> BenchResult<()> {
    let database = deployment.connect().await;
    let head: i64 = database.query_one("SELECT seq FROM heads WHERE log = 'log-0'", &[]).await?.get(0);
    let mut filled = head.unsigned_abs();
    while filled < entries {
        let last = entries.min(filled + BATCH);
        insert(deployment, filled + 1, last).await?;
        filled = last;
    }
    // Every run of so many entries has the same words.
    database
        .batch_execute(&format!(
            "INSERT INTO segments (log, last, newest, first, words) \
             SELECT l.log, l.seq, l.created_at, l.seq - {PERIOD} + 1, s.words \
             FROM (SELECT max(last) AS last FROM segments WHERE log = 'log-0') indexed \
             CROSS JOIN (SELECT words FROM segments WHERE log = 'log-0' AND last = 2 * {PERIOD}) s \
             CROSS JOIN generate_series(indexed.last + {PERIOD}, {entries}, {PERIOD}) i \
             JOIN log l ON l.log = 'log-0' AND l.seq = i"
        ))
        .await?;
    // Else the appends would pay for it.
    Ok(database.batch_execute("CHECKPOINT").await?)
}

/// Inserts entries, and sets the head and the marks of the members behind them.
async fn insert(deployment: &Deployment, first: u64, last: u64) -> BenchResult<()> {
    deployment
        .execute(&format!(
            "INSERT INTO log (log, seq, message_no, kind, sender, sender_name, dedupe, client_gave_id, content, created_at) \
             SELECT 'log-0', i, i, 0, 'writer-' || (i % {MEMBERS}), 'Writer', 'c-' || i, true, {CONTENT}, \
                 now() - interval '1 day' + i * interval '1 ms' FROM generate_series({first}, {last}) i; \
             UPDATE heads SET seq = {last}, message_no = {last}, updated_at = now() WHERE log = 'log-0'; \
             UPDATE members SET delivered_seq = {last}, read_seq = {last}, read_no = {last} WHERE conversation = 'log-0'"
        ))
        .await
}
