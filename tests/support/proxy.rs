//! A TCP proxy between a node and a server that can break the link.

use std::{io, net::SocketAddr};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tokio_util::task::AbortOnDropHandle;

/// State of a link. Held bytes are passed on in order once the state allows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// Passes everything.
    Open,
    /// Passes requests and holds answers: the server acts, and the client gets no answer.
    Mute,
    /// Holds everything, like a network that drops packets.
    Frozen,
    /// Closes every connection and discards held bytes; closes new connections at once.
    Cut,
}

/// A proxy in front of one server; dropping it closes the port.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    link: watch::Sender<Link>,
    _accepting: AbortOnDropHandle<()>,
}

impl Proxy {
    /// Listens on a free port and forwards to `server` (`127.0.0.1:5432`).
    pub async fn to(server: impl Into<String>) -> Self {
        let server = server.into();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it listens");
        let (link, state) = watch::channel(Link::Open);
        let accepting = tokio::spawn(async move {
            loop {
                let Ok((client, _)) = listener.accept().await else { continue };
                tokio::spawn(serve(client, server.clone(), state.clone()));
            }
        });
        Self { address, link, _accepting: AbortOnDropHandle::new(accepting) }
    }

    /// Address on which it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns `url` with the proxy's address in place of the server's.
    pub fn url(&self, url: &str) -> String {
        let (scheme, rest) = url.split_once("://").expect("a URL has a scheme");
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let user = authority.rsplit_once('@').map(|(user, _)| format!("{user}@")).unwrap_or_default();
        format!("{scheme}://{user}{}/{path}", self.address)
    }

    /// Sets the state of the link, for current and future connections.
    pub fn set(&self, link: Link) {
        self.link.send_replace(link);
    }
}

async fn serve(client: TcpStream, server: String, state: watch::Receiver<Link>) -> io::Result<()> {
    if *state.borrow() == Link::Cut {
        return Ok(());
    }
    let server = TcpStream::connect(server).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (client, server) = (client.into_split(), server.into_split());
    let requests = pass(client.0, server.1, state.clone(), |link| matches!(link, Link::Open | Link::Mute));
    let answers = pass(server.0, client.1, state, |link| link == Link::Open);
    // The end of either direction ends both; no client of the tests half-closes.
    tokio::select! { ended = requests => ended, ended = answers => ended }
}

/// Passes bytes on while `may` allows it, until the stream ends or the link is cut.
async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut state: watch::Receiver<Link>,
    may: impl Fn(Link) -> bool,
) -> io::Result<()> {
    let mut cut = state.clone();
    let passing = async {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let read = from.read(&mut buffer).await?;
            if read == 0 || state.wait_for(|&link| may(link)).await.is_err() {
                return Ok(());
            }
            to.write_all(&buffer[..read]).await?;
        }
    };
    tokio::select! {
        ended = passing => ended,
        _ = cut.wait_for(|&link| link == Link::Cut) => Ok(()),
    }
}
