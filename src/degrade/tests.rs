//! Tests of the state machine.

use super::*;

fn fault() -> Finding {
    Finding::new(Fault::RedisSilent, "no reply")
}

#[test]
fn one_failed_check_does_not_change_the_state() {
    let degrade = Degrade::new(LinkState::Up);
    assert!(!degrade.report(Part::Redis, Err(fault())));
    assert!(!degrade.report(Part::Redis, Ok(Duration::ZERO)));
    assert!(!degrade.report(Part::Redis, Err(fault())));
    assert_eq!(degrade.verdict(), Verdict::Healthy);
    assert!(degrade.report(Part::Redis, Err(fault())));
    assert_eq!(degrade.verdict(), Verdict::Degraded);
    assert_eq!(degrade.mode(Feature::Limits), Mode::Local);
    assert!(!degrade.report(Part::Redis, Ok(Duration::ZERO)));
    assert!(degrade.report(Part::Redis, Ok(Duration::ZERO)));
    assert_eq!(degrade.verdict(), Verdict::Healthy);
}

#[test]
fn nodes_reach_each_other_through_the_store() {
    let degrade = Degrade::new(LinkState::Up);
    assert!(!degrade.relays());
    degrade.set_down(Part::Redis, fault());
    assert_eq!(degrade.mode(Feature::Fanout), Mode::Relayed);
    assert!(degrade.relays());
    degrade.set_down(Part::Store, fault());
    assert_eq!(degrade.mode(Feature::Fanout), Mode::Local);
    assert!(!degrade.relays());
    degrade.set_up(Part::Redis);
    degrade.set_up(Part::Store);
    degrade.note_relay(true);
    assert!(degrade.relays(), "another node's Redis is away");
    assert_eq!(degrade.mode(Feature::Fanout), Mode::Shared);
    degrade.set_down(Part::Store, fault());
    assert!(!degrade.relays(), "there is no way through it now");
    degrade.set_up(Part::Store);
    degrade.note_relay(false);
    assert!(!degrade.relays());
    degrade.note_late_redis(true);
    assert!(degrade.relays() && degrade.may_be_alone(), "a check of Redis is late");
    assert_eq!(degrade.verdict(), Verdict::Healthy);
    degrade.note_late_redis(false);
    assert!(!degrade.relays());
}

#[test]
fn a_part_that_is_off_never_goes_down() {
    let degrade = Degrade::new(LinkState::Off);
    degrade.set_down(Part::Redis, fault());
    assert_eq!(degrade.state(Part::Redis).link, LinkState::Off);
    assert_eq!(degrade.verdict(), Verdict::Healthy);
    assert_eq!(degrade.mode(Feature::Fanout), Mode::Local);
}

#[test]
fn slow_reads_are_another_reason_than_a_store_that_is_down() {
    let degrade = Degrade::new(LinkState::Up);
    assert_eq!(degrade.reasons().next(), None);
    degrade.note_slow_reads(true);
    assert_eq!(degrade.reasons().collect::<Vec<_>>(), [Reason::SlowReads]);
    assert_eq!(degrade.verdict(), Verdict::Degraded);
    assert_eq!(degrade.mode(Feature::History), Mode::Limited);
    assert_eq!(degrade.mode(Feature::Append), Mode::Shared);
    degrade.set_down(Part::Store, fault());
    assert_eq!(degrade.reasons().collect::<Vec<_>>(), [Reason::StoreDown]);
    assert_eq!(degrade.mode(Feature::History), Mode::Refused);
    degrade.set_up(Part::Store);
    degrade.note_slow_reads(false);
    assert_eq!(degrade.verdict(), Verdict::Healthy);
}

#[test]
fn unhealthy_means_draining_or_both_parts_down() {
    let degrade = Degrade::new(LinkState::Up);
    degrade.set_down(Part::Store, fault());
    assert_eq!(degrade.verdict(), Verdict::Degraded);
    assert_eq!(degrade.mode(Feature::Append), Mode::Refused);
    assert_eq!(degrade.mode(Feature::Fanout), Mode::Shared);
    degrade.set_down(Part::Redis, fault());
    assert_eq!(degrade.verdict(), Verdict::Unhealthy);
    degrade.set_up(Part::Redis);
    degrade.set_up(Part::Store);
    assert_eq!(degrade.verdict(), Verdict::Healthy);
    degrade.drain();
    assert_eq!(degrade.verdict(), Verdict::Unhealthy);
}

#[test]
fn a_store_that_was_never_reached_is_down_and_the_node_unhealthy() {
    let degrade = Degrade::new(LinkState::Up);
    degrade.await_store(Some(Finding::new(Fault::StoreUnreachable, "connection refused")));
    assert_eq!(degrade.awaited_store().as_deref(), Some("connection refused"));
    assert_eq!((degrade.verdict(), degrade.mode(Feature::Append)), (Verdict::Unhealthy, Mode::Refused));
    degrade.store_started();
    assert_eq!((degrade.verdict(), degrade.awaited_store()), (Verdict::Healthy, None));
}

#[test]
fn a_part_names_the_newest_fault_that_keeps_it_down() {
    let degrade = Degrade::new(LinkState::Up);
    assert_eq!(degrade.faults(), []);
    assert!(degrade.set_down(Part::Redis, fault()));
    assert!(!degrade.set_down(Part::Redis, Finding::new(Fault::RedisSilent, "no reply again")), "the same fault");
    assert!(degrade.set_down(Part::Redis, Finding::new(Fault::RedisUnreachable, "refused")));
    let (part, finding) = degrade.faults().remove(0);
    assert_eq!((part, finding.fault), (Part::Redis, Fault::RedisUnreachable));
    assert!(degrade.set_up(Part::Redis));
    assert_eq!(degrade.faults(), []);
}

#[test]
fn a_node_that_hears_nothing_of_the_others_relays_through_the_store() {
    let degrade = Degrade::new(LinkState::Up);
    degrade.note_work(Work::Subscribe, Some(Finding::new(Fault::RedisDeaf, "no canary")));
    assert_eq!(degrade.mode(Feature::Fanout), Mode::Relayed);
    assert_eq!(degrade.mode(Feature::Presence), Mode::Shared);
    assert_eq!(degrade.verdict(), Verdict::Degraded);
    assert!(degrade.may_be_alone() && degrade.reasons().eq([Reason::RedisDeaf]));
    degrade.note_work(Work::Subscribe, None);
    assert_eq!((degrade.mode(Feature::Fanout), degrade.verdict()), (Mode::Shared, Verdict::Healthy));
    degrade.note_work(Work::Append, Some(Finding::new(Fault::StoreDeniesAccess, "permission denied")));
    assert_eq!(degrade.mode(Feature::Append), Mode::Shared, "appends are tried");
    assert!(degrade.reasons().eq([Reason::AppendsFail]));
    assert_eq!(degrade.faults()[0].0, Part::Store);
}

#[test]
fn a_node_whose_others_use_another_redis_relays_and_goes_on_with_its_own() {
    let degrade = Degrade::new(LinkState::Up);
    degrade.note_work(Work::Meet, Some(Finding::new(Fault::RedisSplit, "node c")));
    assert!(degrade.is_apart() && degrade.is_heard() && degrade.may_be_alone() && degrade.relays());
    assert!(degrade.reasons().eq([Reason::RedisSplit]) && degrade.verdict() == Verdict::Degraded);
    for feature in [Feature::Fanout, Feature::Limits, Feature::Presence] {
        assert_eq!((degrade.mode(feature), degrade.shown_mode(feature)), (Mode::Shared, Mode::Partial));
    }
    degrade.note_late_redis(true);
    assert!(!degrade.is_heard(), "its sign is that of a node without Redis");
    degrade.note_late_redis(false);
    degrade.set_down(Part::Store, Finding::new(Fault::StoreSilent, "no answer"));
    assert!(!degrade.may_be_alone(), "there is no way through the store");
    degrade.set_up(Part::Store);
    degrade.note_work(Work::Meet, None);
    assert!(degrade.verdict() == Verdict::Healthy && !degrade.relays());
}

#[test]
fn after_a_move_of_redis_nodes_also_reach_each_other_through_the_store() {
    let degrade = Degrade::new(LinkState::Down);
    degrade.set_up(Part::Redis);
    assert!(!degrade.may_be_alone() && !degrade.relays());
    let changes = degrade.changes();
    degrade.note_moved_redis(Duration::from_secs(3_600));
    assert!(changes.has_changed().unwrap() && degrade.may_be_alone() && degrade.relays());
    assert_eq!((degrade.mode(Feature::Fanout), degrade.verdict()), (Mode::Shared, Verdict::Healthy));
    degrade.note_moved_redis(Duration::ZERO);
    assert!(!degrade.may_be_alone() && !degrade.relays());
}

#[test]
fn some_shards_of_a_cluster_may_be_down_alone() {
    let degrade = Degrade::new(LinkState::Down);
    degrade.note_down_shards(0b110, Some(Finding::new(Fault::RedisClusterDown, "2 of 64 shards are down")));
    assert!(!degrade.lacks_shards(), "the whole of Redis is down");
    degrade.set_up(Part::Redis);
    assert!(degrade.lacks_shards() && degrade.has_first_shard() && degrade.may_be_alone());
    assert_eq!(degrade.verdict(), Verdict::Degraded);
    assert!(degrade.reasons().eq([Reason::RedisShardsDown]));
    for feature in [Feature::Fanout, Feature::Limits, Feature::Presence] {
        assert_eq!((degrade.mode(feature), degrade.shown_mode(feature)), (Mode::Shared, Mode::Partial));
    }
    assert_eq!(degrade.shown_mode(Feature::Append), Mode::Shared);
    assert_eq!(degrade.faults()[0].1.fault, Fault::RedisClusterDown);
    degrade.set_down(Part::Store, Finding::new(Fault::StoreSilent, "no answer"));
    assert_eq!(degrade.verdict(), Verdict::Degraded, "what is left of Redis works");
    degrade.set_up(Part::Store);
    degrade.note_down_shards(1, None);
    assert!(!degrade.has_first_shard());
    degrade.note_down_shards(0, None);
    assert!(degrade.verdict() == Verdict::Healthy && degrade.faults().is_empty());
}
