//! A TCP proxy between a node and a server that can break the link.
//!
//! Proxies have a thread of their own: a test whose thread is busy must not slow the link down.

use std::{
    io,
    net::SocketAddr,
    pin::pin,
    sync::{Arc, LazyLock, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    runtime::{Builder, Runtime},
    sync::watch,
};
use tokio_util::task::AbortOnDropHandle;

/// The thread of all proxies.
static PROXIES: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a thread"));

/// State of a link. Held bytes are passed on in order once the state allows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// Passes everything.
    Open,
    /// Passes requests and holds answers: the server acts, and the client gets no answer.
    Mute,
    /// Holds everything, like a network that drops packets.
    Frozen,
    /// Passes everything, each piece later by this time.
    Slow(Duration),
    /// Passes requests, and this many bytes of answers a second. Connections that are made in this state also keep the
    /// kernel from taking many more bytes from the server.
    Throttled(u32),
    /// Closes every connection and discards held bytes; closes new connections at once.
    Cut,
}

/// The kernel's buffer for answers of a throttled connection, in bytes.
const THROTTLED_BUFFER: u32 = 32 * 1_024;

impl Link {
    fn passes_requests(self) -> bool {
        self == Self::Mute || self.passes_answers()
    }

    fn passes_answers(self) -> bool {
        matches!(self, Self::Open | Self::Slow(_) | Self::Throttled(_))
    }
}

/// A request that breaks the link.
#[derive(Debug)]
struct Trap {
    /// The bytes that the request contains.
    pattern: Vec<u8>,
    /// Number of requests with these bytes until the one that breaks the link, including it.
    left: usize,
    /// The state of the link from that request on.
    then: Link,
}

/// The stall of one connection.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Stall {
    /// None is.
    No,
    /// The next one will be that sends a request with these bytes.
    At(Vec<u8>),
    /// One is.
    Stalled,
}

/// A proxy in front of one server; dropping it closes the port.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    link: watch::Sender<Link>,
    server: Arc<Mutex<String>>,
    trap: Arc<Mutex<Option<Trap>>>,
    stall: watch::Sender<Stall>,
    /// Each change closes the connections that exist.
    dropped: watch::Sender<()>,
    /// Each change strands the connections that exist.
    stranded: watch::Sender<()>,
    _accepting: AbortOnDropHandle<()>,
}

impl Proxy {
    /// Listens on a free port and forwards to `server` (`127.0.0.1:5432`).
    pub async fn to(server: impl Into<String>) -> Self {
        let server = Arc::new(Mutex::new(server.into()));
        let listener = PROXIES.spawn(TcpListener::bind("127.0.0.1:0")).await.expect("it ends").expect("a free port");
        let address = listener.local_addr().expect("it listens");
        let (link, trap) = (watch::Sender::new(Link::Open), Arc::new(Mutex::new(None)));
        let (dropped, stranded) = (watch::Sender::new(()), watch::Sender::new(()));
        let stall = watch::Sender::new(Stall::No);
        let accepting = PROXIES.spawn({
            let (link, trap, server) = (link.clone(), trap.clone(), server.clone());
            let (dropped, stranded, stall) = (dropped.clone(), stranded.clone(), stall.clone());
            async move {
                loop {
                    let Ok((client, _)) = listener.accept().await else { continue };
                    let (mut dropped, mut stranded) = (dropped.subscribe(), stranded.subscribe());
                    let server = server.lock().unwrap().clone();
                    let serving = serve(client, server, link.clone(), trap.clone(), stall.clone());
                    tokio::spawn(async move {
                        let mut serving = pin!(serving);
                        tokio::select! {
                            // A connection that is dropped passes nothing more, whatever the link's next state is.
                            biased;
                            _ = dropped.changed() => {}
                            // Both sockets stay open and pass nothing.
                            _ = stranded.changed() => drop(dropped.changed().await),
                            _ = &mut serving => {}
                        }
                    });
                }
            }
        });
        Self { address, link, server, trap, stall, dropped, stranded, _accepting: AbortOnDropHandle::new(accepting) }
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

    /// New connections lead to another server; those that are open stay as they are.
    pub fn lead_to(&self, server: impl Into<String>) {
        *self.server.lock().unwrap() = server.into();
    }

    /// Makes the open connections pass nothing any more, like a firewall that forgot them. New connections are not affected.
    pub fn strand(&self) {
        self.stranded.send_replace(());
    }

    /// Sets the state of the link, for current and future connections.
    pub fn set(&self, link: Link) {
        self.link.send_replace(link);
    }

    /// Sets the link to `then` when the `nth` request that contains `pattern` passes. That request is still passed on if
    /// `then` allows it: with [`Link::Mute`] the server acts on it, and its answer is held.
    pub fn set_at(&self, pattern: &str, nth: usize, then: Link) {
        *self.trap.lock().unwrap() = Some(Trap { pattern: pattern.into(), left: nth, then });
    }

    /// Stalls the next connection that sends a request with these bytes: it passes no request, and the others go on. Returns
    /// once one is stalled.
    pub async fn stall_at(&self, pattern: &str) {
        self.stall.send_replace(Stall::At(pattern.into()));
        let _ = self.stall.subscribe().wait_for(|stall| *stall == Stall::Stalled).await;
    }

    /// Lets the stalled connection go on.
    pub fn unstall(&self) {
        self.stall.send_replace(Stall::No);
    }

    /// Closes every connection and discards held bytes. New connections get the current state of the link.
    pub fn drop_connections(&self) {
        self.dropped.send_replace(());
    }

    /// Waits until the link is in this state.
    pub async fn reached(&self, state: Link) {
        let _ = self.link.subscribe().wait_for(|link| *link == state).await;
    }
}

async fn serve(
    client: TcpStream,
    server: String,
    link: watch::Sender<Link>,
    trap: Arc<Mutex<Option<Trap>>>,
    stall: watch::Sender<Stall>,
) -> io::Result<()> {
    let state = link.subscribe();
    if *state.borrow() == Link::Cut {
        return Ok(());
    }
    let throttled = matches!(*state.borrow(), Link::Throttled(_));
    let server = if throttled {
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(THROTTLED_BUFFER)?;
        socket.connect(server.parse().expect("the address of a node")).await?
    } else {
        TcpStream::connect(server).await?
    };
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (client, server) = (client.into_split(), server.into_split());
    let contains = |bytes: &[u8], pattern: &[u8]| bytes.windows(pattern.len()).any(|window| window == pattern);
    let stalls = |bytes: &[u8]| {
        stall.send_if_modified(|stall| {
            let hit = matches!(stall, Stall::At(pattern) if contains(bytes, pattern));
            if hit {
                *stall = Stall::Stalled;
            }
            hit
        })
    };
    let spring = |bytes: &[u8]| {
        let mut set = trap.lock().unwrap();
        let Some(trap) = &mut *set else { return };
        let hits = bytes.windows(trap.pattern.len()).filter(|window| *window == trap.pattern).count();
        trap.left = trap.left.saturating_sub(hits);
        if trap.left == 0 {
            link.send_replace(trap.then);
            *set = None;
        }
    };
    let see = |bytes: &[u8]| {
        spring(bytes);
        stalls(bytes)
    };
    let requests = pass(client.0, server.1, (state.clone(), stall.subscribe()), see, Link::passes_requests, false);
    let answers = pass(server.0, client.1, (state, stall.subscribe()), |_| false, Link::passes_answers, true);
    // The end of either direction ends both; no client of the tests half-closes.
    tokio::select! { ended = requests => ended, ended = answers => ended }
}

/// Shows bytes to `see`, which says whether this connection is stalled, and passes them on while `may` allows it, until the stream ends or the link is cut. `throttled`: at
/// the speed of [`Link::Throttled`].
async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    (mut state, mut stall): (watch::Receiver<Link>, watch::Receiver<Stall>),
    see: impl Fn(&[u8]) -> bool,
    may: impl Fn(Link) -> bool,
    throttled: bool,
) -> io::Result<()> {
    let mut cut = state.clone();
    let passing = async {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let read = from.read(&mut buffer).await?;
            if see(&buffer[..read]) {
                let _ = stall.wait_for(|stall| *stall != Stall::Stalled).await;
            }
            if read == 0 {
                return Ok(());
            }
            let Ok(link) = state.wait_for(|&link| may(link)).await.map(|link| *link) else { return Ok(()) };
            if let Link::Slow(by) = link {
                tokio::time::sleep(by).await;
            }
            to.write_all(&buffer[..read]).await?;
            if let (Link::Throttled(bytes), true) = (link, throttled) {
                tokio::time::sleep(Duration::from_secs_f64(read as f64 / f64::from(bytes))).await;
            }
        }
    };
    tokio::select! {
        ended = passing => ended,
        _ = cut.wait_for(|&link| link == Link::Cut) => Ok(()),
    }
}
