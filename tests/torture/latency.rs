//! Times of acks on a Redis Cluster while one master is away, apart for the users whose sends ask it and for the others.

use std::{collections::HashMap, fmt::Write, ops::Range, time::Duration};

use crate::{
    evidence::Evidence,
    history::{Session, What},
};

/// Time after a fault in which its effects may last.
const AFTERMATH: Duration = Duration::from_secs(3);

/// A fault with its time.
struct Span {
    /// The shard whose master it takes away, if it does that.
    shard: Option<usize>,
    time: Range<Duration>,
}

/// Returns the times of the acks that nothing but the absence of at most one master can have delayed; nothing for
/// other engines. Nothing is demanded of them.
pub fn by_shard(evidence: &Evidence) -> String {
    if evidence.shards.is_empty() {
        return String::new();
    }
    let spans = spans(evidence);
    let mut times = [Vec::new(), Vec::new(), Vec::new()];
    for (session, time) in acks(evidence) {
        let Some(own) = evidence.shards.get(&evidence.users[session.client]) else { continue };
        let met: Vec<_> = spans.iter().filter(|span| overlaps(&span.time, &time)).collect();
        let place = match met[..] {
            [] => 0,
            [Span { shard: Some(shard), .. }] => 1 + usize::from(shard == own),
            _ => continue,
        };
        times[place].push(time.end - time.start);
    }
    let names = ["nothing is broken", "another master is away", "the user's own master is away"];
    let mut text = String::from("\n  acks, when no other fault delays them:");
    for (name, times) in names.iter().zip(&mut times) {
        times.sort();
        let at = |part: f64| times.get((times.len() as f64 * part) as usize).or(times.last()).copied();
        let (half, most) = (at(0.5).unwrap_or_default(), at(0.99).unwrap_or_default());
        let slowest = times.last().copied().unwrap_or_default();
        let _infallible =
            write!(text, "\n    {name}: {} acks, p50 {half:.1?}, p99 {most:.1?}, slowest {slowest:.1?}", times.len());
    }
    text
}

/// The faults. One that takes no master away counts for a while after its end, too.
fn spans(evidence: &Evidence) -> Vec<Span> {
    let (mut open, mut spans) = (HashMap::<&str, Vec<Duration>>::new(), Vec::new());
    for record in &evidence.history {
        let What::Fault { fault, begins } = &record.what else { continue };
        if *begins {
            open.entry(fault).or_default().push(record.at);
        } else if let Some(from) = open.get_mut(&**fault).and_then(Vec::pop) {
            let away = ["MasterKilled(", "MasterFrozen("].into_iter().find_map(|name| fault.strip_prefix(name));
            let shard = away.and_then(|rest| rest.trim_end_matches(')').parse().ok());
            let until = if shard.is_some() { record.at } else { record.at + AFTERMATH };
            spans.push(Span { shard, time: from..until });
        }
    }
    spans
}

/// The first try of each message that was acked as the first try: from then to the ack.
fn acks(evidence: &Evidence) -> Vec<(Session, Range<Duration>)> {
    let (mut invoked, mut acks) = (HashMap::new(), Vec::new());
    for record in &evidence.history {
        let Some(session) = record.session else { continue };
        match &record.what {
            What::Invoke { id, .. } => drop(invoked.insert((session, id), record.at)),
            What::Ok { id, duplicate: false, .. } => {
                acks.extend(invoked.remove(&(session, id)).map(|from| (session, from..record.at)));
            }
            _ => {}
        }
    }
    acks
}

fn overlaps(one: &Range<Duration>, other: &Range<Duration>) -> bool {
    one.start < other.end && other.start < one.end
}

#[test]
fn acks_are_told_apart_by_the_master_that_is_away() {
    let at = Duration::from_secs;
    let session = |client| Some(Session { client, number: 1 });
    let line = |seconds, session, what| crate::history::Record { at: at(seconds), session, what };
    let fault = |begins| What::Fault { fault: "MasterFrozen(1)".into(), begins };
    let invoke = |id: &str| What::Invoke {
        conversation: "team".into(),
        id: id.into(),
        kind: crate::history::Kind::Message,
        about: crate::history::About::Nothing,
    };
    let ok = |id: &str| What::Ok { conversation: "team".into(), id: id.into(), seq: 1, duplicate: false };
    let history = vec![
        line(0, session(0), invoke("a")),
        line(1, session(0), ok("a")),
        line(2, None, fault(true)),
        line(3, session(0), invoke("b")),
        line(3, session(1), invoke("c")),
        line(5, session(0), ok("b")),
        line(7, session(1), ok("c")),
        line(8, None, fault(false)),
    ];
    let shards = [("u".into(), 1), ("v".into(), 0)].into();
    let text = by_shard(&Evidence { users: vec!["u".into(), "v".into()], shards, history, ..Evidence::default() });
    for expected in
        ["broken: 1 acks, p50 1.0s", "another master is away: 1 acks, p50 4.0s", "own master is away: 1 acks, p50 2.0s"]
    {
        assert!(text.contains(expected), "{text}");
    }
    assert_eq!(by_shard(&Evidence::default()), "");
}
