//! The checker proves itself: nodes and stores that are broken on purpose, each of which it must catch.
//!
//! What can be broken from outside is: a PostgreSQL that acks before it has written, an append that doesn't look for what
//! is there. For the rest a node has to be built with the feature `faults`.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    checker::check,
    cluster::Make,
    evidence::Rule,
    nemesis::{Fault, Plan, Step},
    report,
    run::{Run, run},
};

/// Runs a cluster of this make through one fault after the other. How often each rule was broken.
async fn broken_rules(make: Make, faults: &[Fault]) -> BTreeMap<Rule, usize> {
    const APART: Duration = Duration::from_millis(1_500);
    let step =
        |(at, fault): (u32, &Fault)| Step { at: APART * (at + 1), lasts: Duration::from_millis(300), fault: *fault };
    let plan = Plan((0..).zip(faults).map(step).collect());
    let time = APART * (faults.len() as u32 + 2);
    let (evidence, _cluster) = run(&Run { seed: 7, plan, time, make, quiet: Duration::from_secs(15) }).await;
    let mut broken = BTreeMap::new();
    for violation in check(&evidence) {
        *broken.entry(violation.rule).or_default() += 1;
    }
    eprintln!("{make:?}: {broken:?}\n{}", report::figures(&evidence));
    broken
}

async fn must_be_caught(make: Make, rule: Rule, faults: &[Fault]) {
    let broken = broken_rules(make, faults).await;
    assert!(broken.contains_key(&rule), "{make:?} did not break {rule:?}, but {broken:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: make torture"]
async fn an_ack_before_the_commit_is_caught() {
    let store = &[("synchronous_commit", "off"), ("wal_writer_delay", "1000")];
    let make = Make { store, ..Make::default() };
    must_be_caught(make, Rule::AckedIsStored, &[Fault::StoreKilled; 10]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: make torture"]
async fn a_store_that_does_not_dedupe_is_caught() {
    let faults: Vec<_> = (0..9).map(|turn| Fault::StoreAnswersLost(turn % 3)).collect();
    let make = Make { no_dedupe: true, ..Make::default() };
    must_be_caught(make, Rule::StoredOnce, &faults).await;
}

#[cfg(feature = "faults")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: make torture"]
async fn a_hub_that_does_not_heal_is_caught() {
    let make = Make { broken: Some("no_heal"), ..Make::default() };
    must_be_caught(make, Rule::DeliveredByOne, &[Fault::RedisSubscribersKilled; 6]).await;
}

#[cfg(feature = "faults")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: make torture"]
async fn a_goodbye_that_is_not_compared_is_caught() {
    let make = Make { broken: Some("no_compare_on_unregister"), ..Make::default() };
    must_be_caught(make, Rule::PresenceIsTrue, &[Fault::ClientsMoved; 4]).await;
}

/// Else what is caught might be the faults.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: make torture"]
async fn nothing_is_caught_where_nothing_is_broken() {
    let kinds = [Fault::StoreKilled, Fault::StoreAnswersLost(1), Fault::RedisSubscribersKilled, Fault::ClientsMoved];
    assert_eq!(broken_rules(Make::default(), &[kinds, kinds].concat()).await, BTreeMap::new());
}
