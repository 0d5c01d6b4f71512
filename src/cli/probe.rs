//! `switchboard healthcheck`: asks the node on this machine whether it lives, for containers without curl.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use clap::{Arg, ArgAction, Command};

use super::{Failure, Outcome, block_on};
use crate::config::{self, Sources};

/// How long the answer may take.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Its flags, beside those of settings.
pub(super) fn command() -> Command {
    Command::new("healthcheck")
        .about("Ask the node on this machine whether it lives: exit code 0 or 1")
        .arg(Arg::new("dev").long("dev").action(ArgAction::SetTrue).help("Ask switchboard dev"))
}

/// Asks `/livez` where the node with these settings listens.
pub(super) fn run(dev: bool, sources: &Sources) -> Result<Outcome, Failure> {
    let address = reachable(config::health_address(dev, sources)?);
    let silent = |_| Failure::Runtime(format!("no node answers well at http://{address}/livez"));
    block_on(ask(address))?.map(|()| Outcome::Done).map_err(silent)
}

async fn ask(address: SocketAddr) -> reqwest::Result<()> {
    let client = reqwest::Client::builder().no_proxy().timeout(TIMEOUT).build()?;
    client.get(format!("http://{address}/livez")).send().await?.error_for_status().map(drop)
}

/// What listens everywhere is asked on loopback.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        });
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everywhere_is_asked_on_loopback() {
        assert_eq!(reachable("0.0.0.0:80".parse().unwrap()).to_string(), "127.0.0.1:80");
        assert_eq!(reachable("[::]:80".parse().unwrap()).to_string(), "[::1]:80");
        assert_eq!(reachable("10.0.0.1:80".parse().unwrap()).to_string(), "10.0.0.1:80");
    }
}
