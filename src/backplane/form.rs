//! Refuses, at the start of a node, a form of REDIS_URL that does not fit what answers there. A server that is away, or does
//! not tell what it is, is no reason: the node starts without Redis then.

use std::time::Duration;

use redis::AsyncConnectionConfig;
use tokio::time::timeout;

use super::{server_mode::ServerMode, target::Target, types::StartError};
use crate::config::RedisConfig;

/// Maximum time for the look at the servers.
const LOOK: Duration = Duration::from_millis(1_500);

/// Looks at the servers.
///
/// # Errors
/// The form does not fit; the message names the one that would. Or a file of TLS is bad.
pub async fn check_form(config: &RedisConfig) -> Result<(), StartError> {
    let target = Target::new(config)?;
    let look = async {
        target.look_once(true).await;
        if let Some(misfit) = target.misfit() {
            return Some(misfit);
        }
        if target.cluster().is_some() {
            return None;
        }
        let (mut connection, _) = target.connect(&AsyncConnectionConfig::new()).await.ok()?;
        ServerMode::unfit(&mut connection).await.map(ServerMode::finding)
    };
    match timeout(LOOK, look).await {
        Ok(Some(finding)) => Err(StartError::WrongForm(finding.detail)),
        // Some of the sentinels may be frozen; the others have said enough.
        Err(_) => target.misfit().map_or(Ok(()), |finding| Err(StartError::WrongForm(finding.detail))),
        Ok(None) => Ok(()),
    }
}
