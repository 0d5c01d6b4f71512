//! Proof of the checker: it must catch nodes and stores that are broken on purpose.
//!
//! Some defects can be made from outside: a PostgreSQL that acks before it writes, an append that doesn't look for
//! stored duplicates. The others need a node built with the feature `faults`.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    checker::check,
    cluster::Defects,
    evidence::Rule,
    nemesis::{Fault, Plan, Step},
    report,
    run::{Run, run},
};

/// Runs a cluster with this defect through the faults, one after the other. Returns the number of violations of each
/// rule.
async fn broken_rules(defects: Defects, faults: &[Fault]) -> BTreeMap<Rule, usize> {
    const APART: Duration = Duration::from_millis(1_500);
    let step =
        |(at, fault): (u32, &Fault)| Step { at: APART * (at + 1), lasts: Duration::from_millis(300), fault: *fault };
    let plan = Plan((0..).zip(faults).map(step).collect());
    let time = APART * (faults.len() as u32 + 2);
    let (evidence, _cluster) = run(&Run { seed: 7, plan, time, defects, quiet: Duration::from_secs(15) }).await;
    let mut broken = BTreeMap::new();
    for violation in check(&evidence) {
        *broken.entry(violation.rule).or_default() += 1;
    }
    eprintln!("{defects:?}: {broken:?}\n{}", report::figures(&evidence));
    broken
}

async fn assert_caught(defects: Defects, rule: Rule, faults: &[Fault]) {
    let broken = broken_rules(defects, faults).await;
    assert!(broken.contains_key(&rule), "{defects:?} did not break {rule:?}, but {broken:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: make torture"]
async fn an_ack_before_the_commit_is_caught() {
    let store = &[("synchronous_commit", "off"), ("wal_writer_delay", "1000")];
    let defects = Defects { store, ..Defects::default() };
    assert_caught(defects, Rule::AckedIsStored, &[Fault::StoreKilled; 10]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: make torture"]
async fn a_store_that_does_not_dedupe_is_caught() {
    let faults: Vec<_> = (0..9).map(|turn| Fault::StoreAnswersLost(turn % 3)).collect();
    let defects = Defects { no_dedupe: true, ..Defects::default() };
    assert_caught(defects, Rule::StoredOnce, &faults).await;
}

#[cfg(feature = "faults")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: make torture"]
async fn a_hub_that_does_not_backfill_is_caught() {
    let defects = Defects { broken: Some("no_heal"), ..Defects::default() };
    assert_caught(defects, Rule::DeliveredByOne, &[Fault::RedisSubscribersKilled; 6]).await;
}

#[cfg(feature = "faults")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: make torture"]
async fn an_unregister_that_does_not_compare_the_connection_is_caught() {
    let defects = Defects { broken: Some("no_compare_on_unregister"), ..Defects::default() };
    assert_caught(defects, Rule::PresenceIsTrue, &[Fault::ClientsMoved; 4]).await;
}

/// Without this test, the violations above might come from the faults alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: make torture"]
async fn nothing_is_caught_on_a_sound_cluster() {
    let kinds = [Fault::StoreKilled, Fault::StoreAnswersLost(1), Fault::RedisSubscribersKilled, Fault::ClientsMoved];
    assert_eq!(broken_rules(Defects::default(), &[kinds, kinds].concat()).await, BTreeMap::new());
}
