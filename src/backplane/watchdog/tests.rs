//! The order in which an era begins.

use std::{thread, time::Duration};

use super::*;
use crate::{
    backplane::{local::Caps, ops::Ops, shards::Layout},
    config::RedisPrefix,
    model::NodeId,
};

fn watchdog() -> Watchdog {
    let (metrics, degrade, clock) = (Arc::new(Metrics::new().unwrap()), Degrade::unwatched(), Clock::system());
    let link = Link::new(None, &RedisPrefix::default(), Ops::new(&metrics), degrade.clone());
    Watchdog {
        link: Arc::new(link),
        lease: Arc::new(Lease::new(NodeId::parse("one").unwrap(), Duration::from_secs(15), clock.clone())),
        local: Arc::new(Local::new(Caps { connections: 1, sockets: 1 }, Duration::ZERO)),
        degrade,
        refusals: Arc::new(Refusals::new(metrics.clone())),
        metrics,
        clock,
        eras: watch::Sender::new(Eras::new(Layout::Single)),
    }
}

/// Whoever writes everything anew because an era began must not write to the former primary.
#[test]
fn an_era_begins_on_its_own_connections() {
    const ERAS: u64 = 20_000;
    let watchdog = watchdog();
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut seen = 0;
            while seen < ERAS {
                let now = watchdog.eras.borrow().version();
                let opened = watchdog.link.times_opened();
                assert!(opened >= now, "era {now} was seen while the link was opened {opened} times");
                seen = now;
                thread::yield_now();
            }
        });
        for _ in 0..ERAS {
            watchdog.enter(Vec::new(), &[(Shard::HOME, Beginning { data_age: Duration::MAX, reaped: false })]);
        }
    });
}
