//! Proof of the checker: it must catch nodes and stores that are broken on purpose.
//!
//! One defect can be made from outside: an append that doesn't look for stored duplicates. The others need a node built with the
//! feature `faults`. Those that a random run seldom meets are caught in a scenario of `directed`.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    checker::check,
    cluster::Defects,
    directed::Scenario,
    engine::Engine,
    evidence::{Evidence, Rule},
    nemesis::{Fault, Plan, Step},
    report,
    run::{Run, run},
    stage::Stage,
};

/// Runs a cluster with this defect through the faults, one after the other. Returns the number of violations of each
/// rule.
async fn broken_rules(seed: u64, defects: Defects, faults: &[Fault], quiet: Duration) -> BTreeMap<Rule, usize> {
    const APART: Duration = Duration::from_millis(1_500);
    let step =
        |(at, fault): (u32, &Fault)| Step { at: APART * (at + 1), lasts: Duration::from_millis(300), fault: *fault };
    let plan = Plan((0..).zip(faults).map(step).collect());
    let time = APART * (faults.len() as u32 + 2);
    let (evidence, _cluster) = run(&Run { engine: Engine::Single, seed, plan, time, defects, quiet }).await;
    let broken = counts(&evidence);
    eprintln!("{defects:?}: {broken:?}\n{}", report::figures(&evidence));
    broken
}

fn counts(evidence: &Evidence) -> BTreeMap<Rule, usize> {
    let mut broken = BTreeMap::new();
    for violation in check(evidence) {
        *broken.entry(violation.rule).or_default() += 1;
    }
    broken
}

/// Seeds of the runs that must catch a defect; one of them must. A random run meets the moment that shows the defect
/// with high probability, not with certainty.
const SEEDS: [u64; 3] = [7, 8, 9];

async fn assert_caught(defects: Defects, rule: Rule, faults: &[Fault]) {
    for seed in SEEDS {
        // A broken cluster may never be quiet.
        let broken = broken_rules(seed, defects, faults, Duration::from_secs(6)).await;
        if broken.contains_key(&rule) {
            return;
        }
    }
    panic!("{defects:?} did not break {rule:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: make torture"]
async fn a_store_that_does_not_dedupe_is_caught() {
    let faults: Vec<_> = (0..6).map(|turn| Fault::StoreAnswersLost(turn % 3)).collect();
    let defects = Defects { no_dedupe: true, ..Defects::default() };
    assert_caught(defects, Rule::StoredOnce, &faults).await;
}

/// Without this test, the violations above might come from the faults alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: make torture"]
async fn nothing_is_caught_on_a_sound_cluster() {
    let kinds = [Fault::StoreKilled, Fault::StoreAnswersLost(1), Fault::RedisSubscribersKilled, Fault::ClientsMoved];
    let broken = broken_rules(SEEDS[0], Defects::default(), &[kinds, kinds].concat(), Duration::from_secs(30)).await;
    assert_eq!(broken, BTreeMap::new());
}

/// Without this test, the violations that the scenarios show might come from the scenarios alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: make torture"]
async fn nothing_is_caught_in_the_scenarios_on_sound_nodes() {
    let stage = Stage::set(Defects::default()).await;
    for scenario in Scenario::ALL {
        scenario.play(&stage).await;
        let evidence = stage.evidence().await;
        let violations = check(&evidence);
        assert!(violations.is_empty(), "{scenario:?}: {}", report::violations(&evidence, &violations));
    }
}

#[cfg(feature = "faults")]
mod faulty {
    use switchboard::faults::Fault as Broken;

    use super::*;

    fn broken(fault: Broken) -> Defects {
        Defects { broken: Some(format!("{fault:?}").leak()), ..Defects::default() }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "takes minutes: make torture"]
    async fn an_ack_before_the_commit_is_caught() {
        let store = &[("synchronous_commit", "off"), ("wal_writer_delay", "1000")];
        let defects = Defects { store, ..broken(Broken::AckBeforeCommit) };
        assert_caught(defects, Rule::AckedIsStored, &[Fault::StoreKilled; 7]).await;
    }

    /// Times that a scenario is played at most until its fault is caught. In some of them the order of two events is left to
    /// chance.
    const PLAYS: usize = 5;

    async fn assert_caught_in(scenario: Scenario, fault: Broken, rule: Rule) {
        for _ in 0..PLAYS {
            let stage = Stage::set(broken(fault)).await;
            scenario.play(&stage).await;
            let found = counts(&stage.evidence().await);
            eprintln!("{fault:?} in {scenario:?}: {found:?}");
            if found.contains_key(&rule) {
                return;
            }
        }
        panic!("{fault:?} did not break {rule:?}");
    }

    macro_rules! caught {
        ($($name:ident: $fault:ident breaks $rule:ident $where:ident $what:expr;)*) => {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                #[ignore = "takes minutes: make torture"]
                async fn $name() {
                    caught!(@ $where $what, $fault, $rule);
                }
            )*
        };
        (@ during $faults:expr, $fault:ident, $rule:ident) => {
            assert_caught(broken(Broken::$fault), Rule::$rule, &$faults).await
        };
        (@ in_scenario $scenario:expr, $fault:ident, $rule:ident) => {
            assert_caught_in($scenario, Broken::$fault, Rule::$rule).await
        };
    }

    caught! {
        a_hub_that_does_not_backfill_is_caught:
            NoBackfill breaks DeliveredByOne in_scenario Scenario::MessagesWithoutRedis;
        an_unregister_that_does_not_compare_the_connection_is_caught:
            NoCompareOnUnregister breaks PresenceIsTrue during [Fault::ClientsMoved; 4];
        a_batch_after_a_removal_is_caught:
            BatchAfterRemoval breaks RemovedIsOut in_scenario Scenario::RemovalInABatch;
        a_join_that_misses_a_removal_is_caught:
            UncheckedJoin breaks RemovedIsOut in_scenario Scenario::RemovalDuringAJoin;
        a_cached_membership_is_caught:
            CachedMembership breaks RemovedIsOut in_scenario Scenario::RemovalOnAnotherNode;
        an_automatic_join_that_is_not_repeated_is_caught:
            JoinNotRepeated breaks MembersListen in_scenario Scenario::AutomaticJoinWithoutStore;
        a_first_contact_that_begins_at_the_head_is_caught:
            DirectFromHead breaks DeliveredByOne in_scenario Scenario::FirstContactFromBothSides;
        a_lease_that_ends_without_a_comparison_is_caught:
            NoCompareAfterLease breaks DeliveredByOne in_scenario Scenario::DeathBeforePublication;
        a_cache_that_is_trusted_too_much_is_caught:
            StaleCache breaks DeletedIsGone in_scenario Scenario::DeletionWithoutRedis;
        a_head_below_the_clients_own_seq_is_caught:
            LowHead breaks HeadIsNotBehind in_scenario Scenario::JoinOnANodeBehind;
        a_stored_change_that_is_not_told_again_is_caught:
            NotRetold breaks MembersListen in_scenario Scenario::AdditionWithoutAnswer;
        a_presence_that_is_not_compared_is_caught:
            PresenceNotCompared breaks ShownIsTrue in_scenario Scenario::PresenceWithoutRedis;
        a_roster_from_an_incomplete_registry_is_caught:
            RosterFromRegistry breaks ShownIsTrue in_scenario Scenario::ArrivalBeforeRegistration;
        a_removal_that_was_undone_and_still_ends_a_listening_is_caught:
            UndoneRemovalEnds breaks MembersListen in_scenario Scenario::ResumeAcrossARemoval;
        an_addition_that_overtakes_a_removal_is_caught:
            OvertakenAddition breaks MembersListen in_scenario Scenario::AdditionBeforeRemoval;
        an_ack_that_overtakes_an_entry_is_caught:
            AcksAtOnce breaks DeliveredByOne in_scenario Scenario::AckOnANodeBehind;
        frames_before_the_greeting_are_caught:
            FramesBeforeGreeting breaks GreetedFirst in_scenario Scenario::TypingDuringAnOpening;
    }
}
