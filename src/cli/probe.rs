//! `switchboard healthcheck`: requests `/livez` of the node on this machine or at a URL, for containers without curl.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::outcome::{Failure, Outcome, block_on};
use crate::config::{self, Sources};

/// Maximum time to wait for the response.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Defines the command's own flags; `with_settings` adds those of settings.
pub(super) fn command() -> Command {
    Command::new("healthcheck")
        .about("Check that the node on this machine is alive: exit code 0 if it is, else 1")
        .arg(Arg::new("dev").long("dev").action(ArgAction::SetTrue).help("Check the node of switchboard dev"))
        .arg(Arg::new("url").long("url").value_name("URL").conflicts_with("dev").help(
            "Check the node or the service at this URL instead, http://chat.example.com:8000; LISTEN and ADMIN_LISTEN are not used",
        ))
}

/// Requests `/livez` at `--url`, or at the address that these settings give the node.
pub(super) fn run(matches: &ArgMatches, sources: &Sources) -> Result<Outcome, Failure> {
    let (base, remedy) = match matches.get_one::<String>("url") {
        Some(url) => (url.trim_end_matches('/').to_owned(), "check the name, the port and the network in between"),
        None => {
            let address = loopback_if_unspecified(config::health_address(matches.get_flag("dev"), sources)?);
            (format!("http://{address}"), "check that it runs and uses the same LISTEN and ADMIN_LISTEN")
        }
    };
    let no_answer = |error: reqwest::Error| {
        let cause = if error.is_builder() { "not a URL of the form http://host:port" } else { remedy };
        Failure::Runtime(format!("no healthy node answers at {base}/livez: {cause}"))
    };
    block_on(request_livez(&base))?.map(|()| Outcome::Done).map_err(no_answer)
}

async fn request_livez(base: &str) -> reqwest::Result<()> {
    let client = reqwest::Client::builder().no_proxy().timeout(TIMEOUT).build()?;
    client.get(format!("{base}/livez")).send().await?.error_for_status().map(drop)
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
    use std::{
        collections::BTreeMap,
        io::{Read, Write},
        net::TcpListener,
        thread,
    };

    use super::*;

    #[test]
    fn a_service_is_found_by_its_name() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://localhost:{}/", listener.local_addr().unwrap().port());
        let node = thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let length = socket.read(&mut request).unwrap();
            socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
            String::from_utf8_lossy(&request[..length]).into_owned()
        });
        let matches = command().get_matches_from(["healthcheck", "--url", &url]);
        let sources = Sources {
            flags: BTreeMap::new(),
            environment: Box::new(|_| None),
            dotenv: BTreeMap::new(),
            open_files: None,
        };
        assert!(matches!(run(&matches, &sources), Ok(Outcome::Done)));
        assert!(node.join().unwrap().starts_with("GET /livez "));
    }

    #[test]
    fn unspecified_addresses_become_loopback() {
        assert_eq!(loopback_if_unspecified("0.0.0.0:80".parse().unwrap()).to_string(), "127.0.0.1:80");
        assert_eq!(loopback_if_unspecified("[::]:80".parse().unwrap()).to_string(), "[::1]:80");
        assert_eq!(loopback_if_unspecified("10.0.0.1:80".parse().unwrap()).to_string(), "10.0.0.1:80");
    }
}
