//! The accept loop: accepts sockets, counts them, and passes them to HTTP.

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::{
    admission::{Admission, Refusal},
    broker::Broker,
    http::Server,
    supervise::TaskName,
};

pub use crate::http::Kind;

/// Maximum number of connections that the kernel queues before they are accepted.
const BACKLOG: i32 = 4_096;
/// Kernel send buffer per client, in bytes. Fixed, so that further data waits in the outbox, which can drop and resume.
const SEND_BUFFER_BYTES: usize = 64 * 1_024;
/// Bytes that the kernel holds unsent for one socket. A larger buffer delays pings on a slow link, and hides for how long
/// its client has taken nothing.
const UNSENT_MAX: u32 = 128 * 1_024;
/// Idle time before the first TCP keepalive probe.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
/// Interval between further keepalive probes.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// Pause of the accept loop after an error such as "no files left".
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// Minimum time between two log lines about such errors.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// A listening socket.
#[derive(Debug)]
pub struct Listener {
    inner: TcpListener,
}

impl Listener {
    /// Binds an address and listens. `beside` holds the other addresses that this program listens on: an IPv6 one takes no
    /// IPv4 connections if one of them is an IPv4 address with the same port. Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// The address can't be bound: it is in use, not of this machine, or not allowed.
    pub fn bind(address: SocketAddr, beside: &[SocketAddr]) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        // Accepted sockets inherit these options, which saves system calls for each.
        socket.set_tcp_nodelay(true)?;
        socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
        // Without it, a slow client is noticed later.
        let _unsupported = socket.set_tcp_notsent_lowat(UNSENT_MAX);
        let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL);
        socket.set_tcp_keepalive(&keepalive)?;
        socket.set_nonblocking(true)?;
        let shares_port = |other: &SocketAddr| other.is_ipv4() && other.port() == address.port();
        if address.is_ipv6() && address.port() != 0 && beside.iter().any(shares_port) {
            socket.set_only_v6(true)?;
        }
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(Self { inner: TcpListener::from_std(socket.into())? })
    }

    /// The bound address; it holds the actual port if port 0 was asked for.
    ///
    /// # Errors
    /// The system does not report the address.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    /// Accepts until `stop` is cancelled. After that, pending requests are answered and WebSockets go on.
    pub async fn serve(&self, broker: Arc<Broker>, kind: Kind, stop: CancellationToken) {
        let server = Arc::new(Server::new(broker, kind, stop.clone()));
        let mut logged = None;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                accepted = self.inner.accept() => match accepted {
                    Ok((stream, peer)) => {
                        let admit = || admit(&server, stream, peer);
                        let _panicked = server.broker().supervisor.catch(TaskName::Listener, admit);
                    }
                    Err(error) => pause_after_error(&error, &mut logged).await,
                },
            }
        }
    }
}

/// Serves a socket if there is room. Otherwise it sends a refusal, or drops the socket if there is no room even for
/// that.
fn admit(server: &Arc<Server>, stream: TcpStream, peer: SocketAddr) {
    let admission = server.admit(peer.ip());
    if matches!(admission, Admission::Dropped) {
        server.refused(Refusal::Dropped);
        // Without a linger time of 0 the kernel keeps each dropped socket for a minute.
        let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
        return;
    }
    let served = Arc::clone(server).serve(stream, peer.ip(), admission);
    let served = server.broker().supervisor.guard(TaskName::Request, served);
    match server.kind() {
        Kind::Clients => drop(server.broker().tasks.spawn(served)),
        // The drain does not wait for admin connections, so that operators can observe it to its end.
        Kind::Admin => drop(tokio::spawn(served)),
    }
}

/// Pauses after an error such as "no files" or "no memory", so that the loop does not spin. A client that went away
/// needs no pause. `logged` is the time of the last log line.
async fn pause_after_error(error: &io::Error, logged: &mut Option<Instant>) {
    if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
        return;
    }
    if logged.is_none_or(|at| at.elapsed() >= LOG_EVERY) {
        *logged = Some(Instant::now());
        let open_files = rlimit::Resource::NOFILE.get_soft().ok();
        tracing::warn!(%error, open_files, "could not accept a connection; pausing (check the limits of open files and memory)");
    }
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn accepted_sockets_inherit_the_options() {
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), &[]).unwrap();
        let (client, accepted) =
            tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.inner.accept());
        let (_client, (stream, _)) = (client.unwrap(), accepted.unwrap());
        let socket = SockRef::from(&stream);
        assert!(socket.tcp_nodelay().unwrap());
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_notsent_lowat().unwrap(), UNSENT_MAX);
        // Linux doubles the requested size, and does not change a size that was set.
        assert_eq!(socket.send_buffer_size().unwrap(), 2 * SEND_BUFFER_BYTES);
    }

    #[tokio::test]
    async fn an_address_can_be_bound_only_once() {
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), &[]).unwrap();
        assert!(Listener::bind(listener.local_addr().unwrap(), &[]).is_err());
    }
}
