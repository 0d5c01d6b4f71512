//! Output of a run: its figures and, if it failed, its seed, its plan and the history around each violation.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

use crate::{
    checker::longest_wait,
    cluster::Cluster,
    evidence::{Evidence, Violation},
    history::{Kind, What},
    latency,
    run::Run,
};

/// Maximum number of violations shown; the files have all of them.
const SHOWN: usize = 10;
/// Lines of history shown before and after each relevant line.
const AROUND: usize = 12;

/// Returns the figures of a run.
pub fn figures(evidence: &Evidence) -> String {
    let count = |wanted: fn(&What) -> bool| evidence.history.iter().filter(|record| wanted(&record.what)).count();
    let mut sockets = BTreeMap::<_, usize>::new();
    for record in &evidence.history {
        if let What::Open { dialect, .. } = record.what {
            *sockets.entry(dialect).or_default() += 1;
        }
    }
    let rows = |kind: Kind| -> usize {
        let rows = evidence.store.values().map(|log| log.rows.values().filter(|row| row.kind == kind).count());
        rows.sum()
    };
    let mut text = format!(
        "{} faults, {} connections, {} resumes ({} resyncs), {} tries, {} acks ({} duplicates), {} refusals, \
         {} unknown, {} deliveries, {} reads over REST ({} refused), {} entries in {} conversations ({} direct; {} \
         messages, {} edits, {} deletions, {} additions and {} removals of members), {} views; connections by dialect: \
         {sockets:?}; nobody waited longer than {:.1?} ({:.1?} would do); presence was right, and had stayed so, {:.1?} \
         after the last fault",
        count(|what| matches!(what, What::Fault { begins: true, .. })),
        count(|what| matches!(what, What::Open { .. })),
        count(|what| matches!(what, What::Resume { .. })),
        count(|what| matches!(what, What::Resume { resync: true, .. })),
        count(|what| matches!(what, What::Invoke { .. })),
        count(|what| matches!(what, What::Ok { .. })),
        count(|what| matches!(what, What::Ok { duplicate: true, .. })),
        count(|what| matches!(what, What::Fail { .. })),
        count(|what| matches!(what, What::Unknown { .. })),
        count(|what| matches!(what, What::Deliver { .. })),
        count(|what| matches!(what, What::Read { .. })),
        count(|what| matches!(what, What::Read { allowed: false, .. })),
        evidence.store.values().map(|log| log.rows.len()).sum::<usize>(),
        evidence.store.len(),
        evidence.store.values().filter(|log| log.direct).count(),
        rows(Kind::Message),
        rows(Kind::Edited),
        rows(Kind::Deleted),
        rows(Kind::MemberAdded),
        rows(Kind::MemberRemoved),
        evidence.views.len(),
        longest_wait(evidence),
        evidence.delivered_within,
        evidence.right_after,
    );
    for figure in &evidence.figures {
        let _infallible = write!(text, "\n  {}: {} before, {} after", figure.name, figure.before, figure.after);
    }
    text + &latency::by_shard(evidence)
}

/// Returns the violations with seed, plan and the history around them. Writes all of it, and the nodes' logs, into a
/// folder.
pub async fn failure(run: &Run, evidence: &Evidence, violations: &[Violation], cluster: &Cluster) -> String {
    let folder = write_all(run, evidence, violations, cluster).await;
    format!(
        "{}\nwith this plan:\n{}\nENGINE={} TORTURE_SEED={} TORTURE_SECONDS={}; everything is in {}",
        self::violations(evidence, violations),
        run.plan,
        run.engine,
        run.seed,
        run.time.as_secs(),
        folder.display()
    )
}

/// Returns the first violations with the history around them.
pub fn violations(evidence: &Evidence, violations: &[Violation]) -> String {
    let mut text = format!("{} violations\n", violations.len());
    for violation in violations.iter().take(SHOWN) {
        text += &format!("\n{:?}: {}\n", violation.rule, violation.what);
        text += &excerpt(evidence, violation);
    }
    text
}

/// Returns the number of violations, and the first ones by their rules and words, in one line each.
pub fn summary(violations: &[Violation]) -> String {
    let lines = violations.iter().take(SHOWN).map(|violation| format!("\n{:?}: {}", violation.rule, violation.what));
    format!("{} violations{}", violations.len(), lines.collect::<String>())
}

/// Returns the relevant lines and, around each, the faults and what the same client saw.
fn excerpt(evidence: &Evidence, violation: &Violation) -> String {
    let mut shown = BTreeSet::new();
    for &line in &violation.lines {
        let client = evidence.history[line].session.map(|session| session.client);
        let close = |at: &usize| {
            let session = evidence.history[*at].session;
            session.is_none() || session.map(|session| session.client) == client
        };
        shown.extend((0..line).rev().filter(close).take(AROUND));
        shown.extend((line..evidence.history.len()).filter(close).take(AROUND));
    }
    let lines = shown.iter().map(|line| {
        let mark = if violation.lines.contains(line) { '>' } else { ' ' };
        format!("{mark} {}\n", evidence.history[*line])
    });
    lines.collect()
}

async fn write_all(run: &Run, evidence: &Evidence, violations: &[Violation], cluster: &Cluster) -> PathBuf {
    let folder =
        Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("torture").join(format!("{}-{}", run.engine, run.seed));
    fs::create_dir_all(&folder).expect("the target folder is writable");
    let write = |name: &str, text: String| fs::write(folder.join(name), text).expect("the target folder is writable");
    write("plan.txt", run.plan.to_string());
    let lines = violations.iter().map(|violation| format!("{:?}: {}\n", violation.rule, violation.what));
    write("violations.txt", lines.collect());
    write("history.txt", evidence.history.iter().map(|record| format!("{record}\n")).collect());
    for (number, place) in cluster.places.iter().enumerate() {
        let place = place.lock().await;
        let now = place.node.as_ref().map(|node| node.log()).unwrap_or_default();
        write(&format!("node-{number}.log"), [&place.logs[..], &now].concat().join("\n"));
    }
    for (place, lines) in cluster.redis.logs().await.iter().enumerate() {
        write(&format!("redis-{place}.log"), lines.join("\n"));
    }
    folder
}
