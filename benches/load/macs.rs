//! The codes that sign publications and cached messages: nanoseconds of one core, without a node.

use std::{hint::black_box, time::Instant};

use switchboard::{
    backplane::{Macs, SignedKind},
    model::{NodeKey, NodeKeys},
};

use crate::record::Record;

/// Size of a short message in a payload, and in the cache.
const PUBLISHED_BYTES: usize = 240;
const CACHED_BYTES: usize = 330;
/// Bytes that each measurement signs.
const BYTES: usize = 50_000_000;
/// Part of a value by which two runs differ.
const NOISE: f64 = 0.1;

/// Figures of one size.
pub struct Figures {
    /// Description.
    pub what: &'static str,
    /// Bytes of the data.
    pub bytes: usize,
    /// Nanoseconds to sign.
    pub sign: f64,
    /// Nanoseconds to verify.
    pub verify: f64,
}

/// Measures all sizes.
pub fn measure() -> Vec<Figures> {
    let macs = Macs::default();
    let key = NodeKey::new(1, &[7; 32]).expect("it is long enough");
    macs.set_keys(&NodeKeys::new([(key, true)]).expect("there is a key"));
    let sizes = [
        ("a payload with one message", PUBLISHED_BYTES, SignedKind::Publication),
        ("a payload with 64 messages", 64 * PUBLISHED_BYTES, SignedKind::Publication),
        ("a cached message", CACHED_BYTES, SignedKind::Cached),
    ];
    sizes.into_iter().map(|(what, bytes, kind)| measure_size(&macs, what, bytes, kind)).collect()
}

/// The figures for the run's file.
pub fn record(figures: &[Figures]) -> Record {
    let mut record = Record::of("macs");
    for Figures { what, sign, verify, .. } in figures {
        record.add(format!("{what}: sign"), *sign, "ns", sign * NOISE);
        record.add(format!("{what}: verify"), *verify, "ns", verify * NOISE);
    }
    record
}

fn measure_size(macs: &Macs, what: &'static str, bytes: usize, kind: SignedKind) -> Figures {
    let (name, data, turns) = ("{s26}:c:conversation", vec![b'x'; bytes], BYTES / bytes);
    let tag = macs.tag(kind, name, &[&data]).expect("the key is known");
    let sign = nanos(turns, || drop(black_box(macs.tag(kind, name, &[black_box(&data)]))));
    let verify = nanos(turns, || assert!(macs.verify(kind, name.as_bytes(), &[black_box(&data)], tag.as_bytes())));
    Figures { what, bytes, sign, verify }
}

fn nanos(turns: usize, mut work: impl FnMut()) -> f64 {
    let begin = Instant::now();
    (0..turns).for_each(|_| work());
    begin.elapsed().as_nanos() as f64 / turns as f64
}
