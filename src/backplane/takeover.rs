//! The removal of what another deployment left under the keys of this one, so that a deployment gets its keys empty.

use std::time::Instant;

use redis::Pipeline;

use super::{connection::Connection, lease::Lease, link::Link, link_error::LinkError, ops::Op};

/// Keys per step.
const KEYS: usize = 500;

/// Removes every key that has a name of ours, except the leases, while no node uses them. Returns the number of keys.
///
/// # Errors
/// Redis failed, or another deployment took the keys meanwhile.
pub(super) async fn remove_leftovers(lease: &Lease, link: &Link, on: &mut Connection) -> Result<u64, LinkError> {
    let (mut removed, mut kept_at) = (0, Instant::now());
    for mut server in on.servers() {
        for pattern in link.keys().patterns() {
            let mut cursor = 0_u64;
            loop {
                let mut pipeline = Pipeline::new();
                pipeline.cmd("SCAN").arg(cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(KEYS);
                let scanned = link.run_on(Op::Sweep, &mut server, &pipeline).await?.take(0)?;
                let (next, found): (u64, Vec<Vec<u8>>) = scanned;
                let is_lease =
                    |key: &[u8]| link.keys().shards().any(|shard| link.keys().nodes(shard).as_bytes() == key);
                let mut pipeline = Pipeline::new();
                for key in found.into_iter().filter(|key| !is_lease(key)) {
                    pipeline.cmd("DEL").arg(key);
                }
                if !pipeline.is_empty() {
                    let mut replies = link.run_on(Op::Sweep, &mut server, &pipeline).await?;
                    for index in 0..pipeline.len() {
                        removed += replies.take::<u64>(index)?;
                    }
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
    }
    Ok(removed)
}
