//! `switchboard healthcheck`: requests `/livez` of the node on this machine or at a URL, for containers without curl.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use clap::{Arg, ArgAction, ArgMatches, Command};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, StatusCode, body::Bytes, client::conn::http1, header::HOST};
use hyper_util::rt::TokioIo;
use reqwest::Url;
use tokio::{io::AsyncWriteExt, net::TcpStream, time::timeout};

use super::outcome::{Failure, Outcome, block_on};
use crate::config::{self, Sources};

/// Maximum time to wait for the response.
const TIMEOUT: Duration = Duration::from_secs(3);
/// A PROXY header of version 1 that names no client, as the checks of load balancers send it.
const PROXY_HEADER: &[u8] = b"PROXY UNKNOWN\r\n";
/// Maximum length of an answer that is searched for its reason.
const REASON_MAX: usize = 4_096;

/// Reason why there is no healthy node.
enum NotHealthy {
    /// The URL can't be used for this request.
    BadUrl(&'static str),
    /// Nothing answers, or something that is no healthy node.
    NoAnswer,
    /// The node takes this machine for a proxy, and expects a PROXY header.
    WantsProxyHeader,
}

/// Defines the command's own flags; `with_settings` adds those of settings.
pub(super) fn command() -> Command {
    Command::new("healthcheck")
        .about("Check that the node on this machine is alive: exit code 0 if it is, else 1")
        .arg(Arg::new("dev").long("dev").action(ArgAction::SetTrue).help("Check the node of switchboard dev"))
        .arg(Arg::new("url").long("url").value_name("URL").conflicts_with("dev").help(
            "Check the node or the service at this URL instead, http://chat.example.com:8000; LISTEN and ADMIN_LISTEN are not used",
        ))
        .arg(Arg::new("proxy-protocol").long("proxy-protocol").requires("url").action(ArgAction::SetTrue).help(
            "The nodes at --url have PROXY_PROTOCOL: begin with a PROXY header that names no client, and without one if \
             that is refused, because this machine is not in TRUSTED_PROXIES",
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
    let failure = |reason: NotHealthy| {
        let cause = match reason {
            NotHealthy::BadUrl(why) => why,
            NotHealthy::NoAnswer => remedy,
            NotHealthy::WantsProxyHeader => {
                "it has PROXY_PROTOCOL, and this machine is in its TRUSTED_PROXIES: add --proxy-protocol"
            }
        };
        Failure::Runtime(format!("no healthy node answers at {base}/livez: {cause}"))
    };
    let proxied = matches.get_flag("proxy-protocol");
    block_on(async {
        if proxied {
            match request_as_proxy(&base).await {
                Err(NotHealthy::NoAnswer) => {}
                done => return done,
            }
        }
        request_livez(&base).await
    })?
    .map(|()| Outcome::Done)
    .map_err(failure)
}

async fn request_livez(base: &str) -> Result<(), NotHealthy> {
    let no_answer = |error: reqwest::Error| match error.is_builder() {
        true => NotHealthy::BadUrl("not a URL of the form http://host:port"),
        false => NotHealthy::NoAnswer,
    };
    let client = reqwest::Client::builder().no_proxy().timeout(TIMEOUT).build().map_err(no_answer)?;
    let answer = client.get(format!("{base}/livez")).send().await.map_err(no_answer)?;
    match answer.status() {
        status if status.is_success() => Ok(()),
        StatusCode::BAD_REQUEST => {
            let body = Limited::new(reqwest::Body::from(answer), REASON_MAX).collect().await;
            let text = body.map(|body| String::from_utf8_lossy(&body.to_bytes()).into_owned()).unwrap_or_default();
            Err(if text.contains("PROXY_PROTOCOL") { NotHealthy::WantsProxyHeader } else { NotHealthy::NoAnswer })
        }
        _ => Err(NotHealthy::NoAnswer),
    }
}

/// Requests `/livez` behind a PROXY header. Nodes speak plain HTTP, and whoever ends TLS before them sends the header itself.
async fn request_as_proxy(base: &str) -> Result<(), NotHealthy> {
    const FORM: &str = "not a URL of the form http://host:port, which --proxy-protocol needs";
    let url = Url::parse(&format!("{base}/livez")).map_err(|_| NotHealthy::BadUrl(FORM))?;
    let (Some(host), Some(port), "http") = (url.host_str(), url.port_or_known_default(), url.scheme()) else {
        return Err(NotHealthy::BadUrl(FORM));
    };
    let request = Request::get(url.path()).header(HOST, host).body(Empty::<Bytes>::new());
    let request = request.map_err(|_| NotHealthy::BadUrl(FORM))?;
    let address = (host.trim_start_matches('[').trim_end_matches(']'), port);
    let status = timeout(TIMEOUT, async {
        let mut stream = TcpStream::connect(address).await.ok()?;
        stream.write_all(PROXY_HEADER).await.ok()?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
        // Ends with the socket, at the latest with this process.
        tokio::spawn(connection);
        sender.send_request(request).await.ok().map(|answer| answer.status())
    });
    match status.await {
        Ok(Some(status)) if status.is_success() => Ok(()),
        _ => Err(NotHealthy::NoAnswer),
    }
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
