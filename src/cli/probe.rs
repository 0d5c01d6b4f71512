//! `switchboard healthcheck`: requests `/livez` of the node on this machine, for containers without curl.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use clap::{Arg, ArgAction, Command};

use super::outcome::{Failure, Outcome, block_on};
use crate::config::{self, Sources};

/// Maximum time to wait for the response.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Defines the command's own flags; `with_settings` adds those of settings.
pub(super) fn command() -> Command {
    Command::new("healthcheck")
        .about("Check that the node on this machine is alive: exit code 0 if it is, else 1")
        .arg(Arg::new("dev").long("dev").action(ArgAction::SetTrue).help("Check the node of switchboard dev"))
}

/// Requests `/livez` at the address that these settings give the node.
pub(super) fn run(dev: bool, sources: &Sources) -> Result<Outcome, Failure> {
    let address = loopback_if_unspecified(config::health_address(dev, sources)?);
    let no_answer = |_| {
        Failure::Runtime(format!(
            "no healthy node answers at http://{address}/livez: check that it runs and uses the same LISTEN and ADMIN_LISTEN"
        ))
    };
    block_on(request_livez(address))?.map(|()| Outcome::Done).map_err(no_answer)
}

async fn request_livez(address: SocketAddr) -> reqwest::Result<()> {
    let client = reqwest::Client::builder().no_proxy().timeout(TIMEOUT).build()?;
    client.get(format!("http://{address}/livez")).send().await?.error_for_status().map(drop)
}

/// Replaces an unspecified address by loopback: a node that listens on all interfaces answers there.
fn loopback_if_unspecified(mut address: SocketAddr) -> SocketAddr {
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
    fn unspecified_addresses_become_loopback() {
        assert_eq!(loopback_if_unspecified("0.0.0.0:80".parse().unwrap()).to_string(), "127.0.0.1:80");
        assert_eq!(loopback_if_unspecified("[::]:80".parse().unwrap()).to_string(), "[::1]:80");
        assert_eq!(loopback_if_unspecified("10.0.0.1:80".parse().unwrap()).to_string(), "10.0.0.1:80");
    }
}
