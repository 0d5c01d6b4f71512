//! The accept loop: sockets in, each one counted, and handed to HTTP.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::{
    admission::{Admission, Refusal},
    broker::Broker,
    http::Server,
};

pub use crate::http::Kind;

/// Handshakes that the kernel may hold for us.
const BACKLOG: i32 = 4_096;
/// What the kernel may hold for one client, in bytes. Fixed: past it our own outbox counts, which can drop and resume.
const SEND_BUFFER_BYTES: usize = 64 * 1_024;
/// A silent peer is asked for a sign of life after this long.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
/// And then again after each of these.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// How long accepting rests when it can't go on, as when there are no files left.
const ACCEPT_REST: Duration = Duration::from_millis(200);

/// A bound address.
#[derive(Debug)]
pub struct Listener {
    inner: TcpListener,
}

impl Listener {
    /// Binds an address and listens. Must be called within a runtime.
    ///
    /// # Errors
    /// The address can't be bound: in use, not ours, or not allowed.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        // Accepted sockets inherit these from the listening one: two or three system calls less for each.
        socket.set_tcp_nodelay(true)?;
        socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
        let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL);
        socket.set_tcp_keepalive(&keepalive)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(Self { inner: TcpListener::from_std(socket.into())? })
    }

    /// The address that was bound; tells the port where 0 was asked for.
    ///
    /// # Errors
    /// The system doesn't say.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    /// Accepts until `stop`. Then those who asked already get their answers, and WebSockets go on.
    pub async fn serve(self, broker: Arc<Broker>, kind: Kind, stop: CancellationToken) {
        let server = Arc::new(Server::new(broker, kind, stop.clone()));
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                accepted = self.inner.accept() => match accepted {
                    Ok((stream, peer)) => admit(&server, stream, peer),
                    Err(error) => after_error(&error).await,
                },
            }
        }
    }
}

/// Serves a socket, if there is room for it. One too many is told so, as long as there is room for that.
fn admit(server: &Arc<Server>, stream: TcpStream, peer: SocketAddr) {
    let admission = server.admit(peer.ip());
    if matches!(admission, Admission::Dropped) {
        server.refused(Refusal::Dropped);
        // Without this the kernel would keep each of them for a minute.
        let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
        return;
    }
    let served = Arc::clone(server).serve(stream, peer.ip(), admission);
    match server.kind() {
        Kind::Clients => drop(server.broker().tasks.spawn(served)),
        // Operators may look on until the very end: nobody waits for them.
        Kind::Admin => drop(tokio::spawn(served)),
    }
}

/// A client that gave up is nothing; anything else (no files, no memory) needs a rest, or the loop would spin.
async fn after_error(error: &io::Error) {
    if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
        return;
    }
    tracing::warn!(%error, "accepting connections rests: the system can't give any more");
    tokio::time::sleep(ACCEPT_REST).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn accepted_sockets_inherit_the_options() {
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let (client, accepted) =
            tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.inner.accept());
        let (_client, (stream, _)) = (client.unwrap(), accepted.unwrap());
        let socket = SockRef::from(&stream);
        assert!(socket.tcp_nodelay().unwrap());
        assert!(socket.keepalive().unwrap());
        // Linux doubles what was asked for, and adds nothing of its own once it is fixed.
        assert_eq!(socket.send_buffer_size().unwrap(), 2 * SEND_BUFFER_BYTES);
    }

    #[tokio::test]
    async fn an_address_is_bound_once() {
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        assert!(Listener::bind(listener.local_addr().unwrap()).is_err());
    }
}
