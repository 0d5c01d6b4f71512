//! The removal of what another deployment left under the keys of this one, so that a deployment gets its keys empty.

use std::time::Instant;

use redis::{Pipeline, aio::MultiplexedConnection};

use super::{lease::Lease, link::Link, link_error::LinkError, ops::Op};

/// Keys per step.
const KEYS: usize = 500;

/// Removes every key that has a name of ours, except the leases, while no node uses them. Returns the number of keys.
///
/// # Errors
/// Redis failed, or another deployment took the keys meanwhile.
pub(super) async fn remove_leftovers(
    lease: &Lease,
    link: &Link,
    on: &mut MultiplexedConnection,
) -> Result<u64, LinkError> {
    let (mut removed, mut kept_at) = (0, Instant::now());
    for pattern in link.keys().patterns() {
        let mut cursor = 0_u64;
        loop {
            let mut pipeline = Pipeline::new();
            pipeline.cmd("SCAN").arg(cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(KEYS);
            let (next, mut found): (u64, Vec<Vec<u8>>) = link.run_on(Op::Sweep, on, &pipeline).await?.take(0)?;
            found.retain(|key| key != link.keys().nodes().as_bytes());
            if !found.is_empty() {
                let mut pipeline = Pipeline::new();
                pipeline.cmd("DEL").arg(found);
                removed += link.run_on(Op::Sweep, on, &pipeline).await?.take::<u64>(0)?;
            }
            if kept_at.elapsed() > lease.interval() {
                lease.keep_removing(link, on).await?;
                kept_at = Instant::now();
            }
            cursor = next;
            if cursor == 0 {
                break;
            }
        }
    }
    Ok(removed)
}
