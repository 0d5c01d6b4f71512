//! The parts of `make bench` (`benches/load`) that need no servers: its arguments, the file of a run, and the comparison of
//! two runs.

#![allow(clippy::unwrap_used, reason = "a test that can't go on must panic")]
#![allow(dead_code, unreachable_pub, missing_docs, reason = "modules of the benchmark")]

#[path = "../benches/load/args.rs"]
mod args;
#[path = "../benches/load/compare.rs"]
mod compare;
#[path = "../benches/load/growth/curve.rs"]
mod curve;
#[path = "../benches/load/soak/ledger.rs"]
mod ledger;
#[path = "../benches/load/record.rs"]
mod record;
#[path = "../benches/load/run_file.rs"]
mod run_file;
#[path = "../benches/load/soak/trend.rs"]
mod trend;

use std::path::Path;

use serde_json::{Map, Value, json};

use self::{
    args::{Args, Choice},
    compare::{Change, pairs, table},
    curve::{Cost, Curve, Work},
    ledger::{Audience, Ledger, RECIPIENTS},
    record::Record,
    run_file::Run,
    trend::{Trend, averaged, sparkline},
};

fn parse(words: &[&str]) -> Result<Args, String> {
    let choice = |name, usual| Choice { name, about: "a part", usual };
    let parts = [choice("macs", true), choice("requests", true), choice("soak", false)];
    let words = ["load"].iter().chain(words).chain(&["--bench"]).map(|&word| word.to_owned());
    Args::parse(&parts, words).map_err(|error| error.to_string())
}

#[test]
fn parts_are_named_with_and_without_a_flag() {
    let parts = |words: &[&str]| parse(words).unwrap().only;
    assert_eq!(parts(&[]), ["macs", "requests"], "those that run by default");
    assert_eq!(parts(&["requests"]), ["requests"]);
    assert_eq!(parts(&["requests", "soak", "--seconds", "3"]), ["requests", "soak"]);
    assert_eq!(parts(&["requests,soak"]), ["requests", "soak"]);
    assert_eq!(parts(&["--only", "soak,macs"]), ["soak", "macs"]);
    assert_eq!(parts(&["--only", "soak", "--compare", "old.json"]), ["soak"]);
}

#[test]
fn a_wrong_part_is_refused_with_a_list_of_all() {
    for words in [&["request"][..], &["--only", "request"]] {
        let why = parse(words).unwrap_err();
        assert!(why.contains("'request'") && why.contains("macs, requests, soak"), "{why}");
    }
}

fn run(figures: impl IntoIterator<Item = Record>) -> Run {
    let arguments = Map::from_iter([("seconds".to_owned(), json!(10)), ("only".to_owned(), json!(["sends"]))]);
    let mut run = Run::begin("2026-11-30T08:15:00Z".into(), "0.1.0", "0123456789ab", 2, arguments);
    run.figures = figures.into_iter().flat_map(|record| record.figures).collect();
    run
}

fn sends(p50: f64, acked: f64, errors: u64) -> Record {
    let mut record = Record::of("sends");
    record.latency("ack", p50, 10.0);
    record.rate("acked", acked);
    record.faults("errors", errors);
    record
}

#[test]
fn the_file_of_a_run_has_the_documented_shape_and_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let run = run([sends(2.0, 900.0, 0)]);
    let path = run.path(&folder.path().join("bench"));
    assert!(path.ends_with("bench/2026-11-30T08-15-00Z.json"), "{}", path.display());
    run.write(&path).unwrap();
    run.write(&path).unwrap();
    assert_eq!(Run::read(&path).unwrap(), run);
    let json: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    let documented = json!({
        "format": 1, "started_at": "2026-11-30T08:15:00Z", "version": "0.1.0", "commit": "0123456789ab", "cores": 2,
        "arguments": {"seconds": 10, "only": ["sends"]},
        "figures": [
            {"part": "sends", "name": "ack p50", "value": 2.0, "unit": "ms", "lower_is_better": true, "noise": 0.8},
            {"part": "sends", "name": "ack p99", "value": 10.0, "unit": "ms", "lower_is_better": true, "noise": 6.0},
            {"part": "sends", "name": "acked", "value": 900.0, "unit": "per second", "lower_is_better": false, "noise": 135.0},
            {"part": "sends", "name": "errors", "value": 0.0, "unit": "count", "lower_is_better": true, "noise": 0.0},
        ],
    });
    assert_eq!(json, documented);
    assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing is left beside it");
}

#[test]
fn a_file_that_is_none_of_a_run_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("old.json");
    let refused = |path: &Path| Run::read(path).unwrap_err();
    assert!(refused(&path).contains("old.json can't be read"));
    std::fs::write(&path, r#"{"figures": 5}"#).unwrap();
    assert!(refused(&path).contains("old.json is no file of `make bench`"));
    Run { format: 99, ..run([]) }.write(&path).unwrap();
    assert!(refused(&path).contains("has format 99"));
}

#[test]
fn only_figures_of_both_runs_are_compared() {
    let mut other = Record::of("idle");
    other.bytes("memory", 100.0);
    let old = run([sends(2.0, 900.0, 0), other]);
    let mut shorter = sends(2.0, 900.0, 0);
    let acked = shorter.figures.remove(2);
    let new = run([shorter]);
    let (old, new) = (old, new);
    assert_eq!(pairs(&old, &new).len(), 3);
    let told = table(&old, &new);
    assert!(told.contains(&format!("only the old run has sends: {} (per second)", acked.name)), "{told}");
    assert!(!told.contains("memory"), "a part of one run alone is no difference:\n{told}");
}

#[test]
fn a_change_beyond_the_noise_of_either_run_is_marked() {
    let changes = |old: Record, new: Record| {
        let (old, new) = (run([old]), run([new]));
        pairs(&old, &new).iter().map(compare::Pair::change).collect::<Vec<_>>()
    };
    use Change::{Better, Noise, Worse};
    assert_eq!(changes(sends(2.0, 900.0, 0), sends(2.5, 1_000.0, 0)), [Noise; 4]);
    assert_eq!(changes(sends(2.0, 900.0, 0), sends(5.0, 500.0, 1)), [Worse, Noise, Worse, Worse]);
    assert_eq!(changes(sends(5.0, 500.0, 1), sends(2.0, 900.0, 0)), [Better, Noise, Better, Better]);
}

#[test]
fn the_table_shows_old_new_and_ratio() {
    let (old, mut new) = (run([sends(2.0, 900.0, 0)]), run([sends(5.0, 909.0, 3)]));
    new.cores = 4;
    new.arguments.insert("seconds".into(), json!(20));
    new.arguments.insert("only".into(), json!(["sends", "macs"]));
    let told = table(&old, &new);
    let row =
        |name: &str| told.lines().find(|line| line.contains(name)).unwrap().split_whitespace().collect::<Vec<_>>();
    assert_eq!(row("ack p50"), ["ack", "p50", "(ms)", "2.00", "5.00", "2.50", "±2.00", "WORSE"]);
    assert_eq!(row("acked"), ["acked", "(per", "second)", "900", "909", "1.01", "±136"]);
    assert_eq!(row("errors"), ["errors", "(count)", "0", "3.00", "–", "±0", "WORSE"]);
    assert!(
        told.contains("2 cores, and 4 now") && told.contains("the argument seconds differs: 10, and 20 now"),
        "{told}"
    );
    assert!(!told.contains("argument only"), "{told}");
    assert!(told.contains("4 figures: 0 better, 2 worse"), "{told}");
}

#[test]
fn a_value_of_nothing_has_no_ratio() {
    let ratio = |old: f64, new: f64| {
        let cost = |micros: f64| {
            let mut record = Record::of("requests");
            record.cpu("edit: Redis", micros / 1e6, 1);
            run([record])
        };
        pairs(&cost(old), &cost(new))[0].ratio()
    };
    assert_eq!(ratio(20.0, 10.0), Some(0.5));
    assert_eq!(ratio(20.0, 0.0), Some(0.0));
    // Of both runs more was subtracted for the idle deployment than was measured.
    assert_eq!((ratio(-20.0, -10.0), ratio(20.0, -10.0), ratio(0.0, 10.0)), (None, None, None));
}

#[test]
fn the_noise_of_cpu_covers_the_ticks_in_which_it_is_counted() {
    let noise = |seconds, units| {
        let mut record = Record::of("requests");
        record.cpu("send: node", seconds, units);
        (record.figures[0].value, record.figures[0].noise)
    };
    assert_eq!(noise(10.0, 1_000_000), (10.0, 2.0), "20 %");
    let (value, noise) = noise(0.02, 200);
    assert!((value - 100.0).abs() < 1e-6 && (noise - 250.0).abs() < 1e-6, "five ticks: {value} ± {noise}");
}

#[test]
fn a_figure_that_could_not_be_measured_is_left_out() {
    let mut record = Record::of("connects");
    record.cpu_ratio("node / floor", 1.0, 0.0);
    record.rate("connects", f64::NAN);
    assert!(record.figures.is_empty());
}

#[test]
fn the_soak_has_a_length_of_its_own() {
    let seconds = |words: &[&str]| parse(words).map(|args| (args.seconds, args.soak_seconds)).unwrap();
    assert_eq!(seconds(&["soak"]), (10, 180));
    assert_eq!(seconds(&["soak", "--seconds", "1800"]), (1_800, 1_800));
}

/// Samples each 3 s over two minutes.
fn samples(value: impl Fn(f64) -> f64) -> Vec<(f64, f64)> {
    (0..40).map(|at| f64::from(at) * 3.0).map(|at| (at, value(at))).collect()
}

#[test]
fn a_series_that_grows_is_told_from_one_that_scatters() {
    let growing = Trend::of(&samples(|at| 100.0 + at / 10.0)).unwrap();
    assert!((growing.per_hour - 360.0).abs() < 1e-6 && growing.error < 1e-6, "{growing:?}");
    assert!((growing.part_per_hour().unwrap() - 360.0 / growing.mean).abs() < 1e-9);
    assert!(growing.grows(120.0));
    let scattered = Trend::of(&samples(|at| 100.0 + (at * 7.0) % 11.0)).unwrap();
    assert!(!scattered.grows(120.0), "{scattered:?}");
    let shrinking = Trend::of(&samples(|at| 100.0 - at / 10.0)).unwrap();
    assert!(!shrinking.grows(120.0) && shrinking.per_hour < 0.0);
    let steady = Trend::of(&samples(|_| 0.0)).unwrap();
    assert!(!steady.grows(120.0) && steady.part_per_hour().is_none());
    // A growth of 1 % is certain here, and too small to matter.
    assert!(!Trend::of(&samples(|at| 100.0 + at / 120.0)).unwrap().grows(120.0));
    assert_eq!(Trend::of(&[(0.0, 1.0), (3.0, 2.0)]), None, "two points are always a line");
}

#[test]
fn what_comes_and_goes_within_a_span_is_no_trend() {
    let saw = |at: f64| 20.0 + at % 30.0;
    let means = averaged(&samples(saw), 30.0, 30.0);
    assert_eq!(means, [(45.0, 33.5), (75.0, 33.5), (105.0, 33.5)]);
    assert!(!Trend::of(&means).unwrap().grows(90.0));
    let means = averaged(&samples(|at| saw(at) + at / 10.0), 30.0, 30.0);
    assert!(Trend::of(&means).unwrap().grows(90.0), "{means:?}");
    assert!(averaged(&[], 30.0, 30.0).is_empty());
}

#[test]
fn a_series_is_drawn_from_its_least_to_its_greatest_value() {
    assert_eq!(sparkline(&[0.0, 4.0, 8.0], 30), "▁▅█");
    assert_eq!(sparkline(&[5.0, 5.0], 30), "▁▁");
    assert_eq!(sparkline(&[0.0, 0.0, 8.0, 8.0], 2), "▁█");
    assert_eq!(sparkline(&[], 30), "");
}

#[test]
fn an_acked_message_must_reach_all_of_its_witnesses() {
    let mut ledger = Ledger::new(2);
    ledger.ack(1, Audience::Room);
    ledger.ack(2, Audience::User);
    // One without an ack may be lost.
    ledger.receive(1, 3);
    assert_eq!(Vec::from_iter(ledger.lost()), [1, 2]);
    ledger.receive(0, 1);
    ledger.receive(RECIPIENTS, 2);
    assert_eq!(Vec::from_iter(ledger.lost()), [1], "the other witness lacks it");
    ledger.receive(1, 1);
    assert!(ledger.lost().is_empty());
    ledger.receive(0, 1);
    ledger.receive(RECIPIENTS, 2);
    assert_eq!((ledger.repeated(), ledger.repeated_direct()), (1, 1));
}

#[test]
fn a_curve_states_by_which_exponents_costs_grow() {
    let mut curve = Curve::new("members", "members of a room");
    for size in [10, 100, 1_000] {
        let (constant, linear) = (Work::Constant, Work::Linear);
        curve.add(
            size,
            vec![
                Cost::cpu("deliveries", linear, 7.0 * size as f64),
                Cost::cpu("squares", linear, (size * size) as f64),
                Cost::latency("ack", constant, 3.0),
                Cost::bytes("too small", constant, 0.0),
            ],
        );
    }
    let exponents = curve.lines.iter().map(|line| line.exponent.map(|at| (at * 100.0).round() / 100.0));
    assert_eq!(exponents.collect::<Vec<_>>(), [Some(1.0), Some(2.0), Some(0.0), None]);
    let shown = curve.table();
    let fast: Vec<&str> = shown.lines().filter(|line| line.ends_with("faster than its work")).collect();
    assert!(matches!(fast[..], [line] if line.contains("squares")), "{shown}");
}
