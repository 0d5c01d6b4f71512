//! The byte stream under HTTP/1.1: answers clients that speak HTTP/2, and closes so that the last response arrives.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Sleep, sleep},
};

/// The beginning of a connection of HTTP/2 with prior knowledge (RFC 9113, 3.4).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\n";
/// The answer to such a client, which can't read it as HTTP/2, but shows or logs it.
const USE_HTTP1: &[u8] = b"HTTP/1.1 505 HTTP Version Not Supported\r\ncontent-type: text/plain; charset=utf-8\r\n\
    connection: close\r\ncontent-length: 59\r\n\r\nSwitchboard speaks HTTP/1.1 here; HTTP/2 ends at a proxy.\r\n";
/// Maximum time for which input is dropped after the last response.
const LINGER: Duration = Duration::from_secs(1);
/// Bytes per read of input that is dropped.
const DROPPED: usize = 8 * 1_024;

/// A client's socket until it closes or becomes a WebSocket.
#[derive(Debug)]
pub(super) struct Transport {
    stream: TcpStream,
    /// True until the first bytes were read.
    begins: bool,
    /// True if the client may still send what nobody reads. A socket that closes with unread input resets the connection,
    /// and the client may lose the last response.
    unread: Arc<AtomicBool>,
    /// End of the wait for the client's end, once the write half is shut.
    lingers: Option<Pin<Box<Sleep>>>,
    /// Time for which the client may take nothing of a response that waits.
    patience: Duration,
    /// End of that time, while the client takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Transport {
    /// `patience` is the time for which the client may take nothing of a response that waits.
    pub(super) fn new(stream: TcpStream, unread: Arc<AtomicBool>, patience: Duration) -> Self {
        Self { stream, begins: true, unread, lingers: None, patience, stalled: None }
    }

    /// Passes the result of a write on. A client that takes nothing for too long fails it, because its response keeps memory.
    fn watch_write(&mut self, context: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let patience = self.patience;
        ready!(self.stalled.get_or_insert_with(|| Box::pin(sleep(patience))).as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// The socket.
    pub(super) fn into_inner(self) -> TcpStream {
        self.stream
    }

    /// Checks the first bytes. Returns true if they are HTTP/2's, which is answered.
    fn is_http2(&mut self, first: &[u8]) -> bool {
        self.begins = false;
        let preface = first.starts_with(&HTTP2_PREFACE[..HTTP2_PREFACE.len().min(first.len().max(4))]);
        if preface {
            // The send buffer of a new socket has room; a client that is gone needs no answer.
            let _written = self.stream.try_write(USE_HTTP1);
            self.unread.store(true, Ordering::Relaxed);
        }
        preface
    }
}

impl AsyncRead for Transport {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        if self.begins && self.is_http2(&buffer.filled()[before..]) {
            // The end of the input ends the connection without another answer.
            buffer.set_filled(before);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Transport {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch_write(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        self.watch_write(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    /// Shuts the write half. If the client may still be sending, drops its input until it ends, for at most [`LINGER`].
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.lingers.is_none() {
            ready!(Pin::new(&mut self.stream).poll_shutdown(context))?;
            if !self.unread.load(Ordering::Relaxed) {
                return Poll::Ready(Ok(()));
            }
            self.lingers = Some(Box::pin(sleep(LINGER)));
        }
        let Self { stream, lingers, .. } = &mut *self;
        let mut dropped = [0; DROPPED];
        loop {
            let mut buffer = ReadBuf::new(&mut dropped);
            match Pin::new(&mut *stream).poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {}
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => break,
            }
        }
        match lingers {
            Some(end) => end.as_mut().poll(context).map(Ok),
            None => Poll::Ready(Ok(())),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    #[tokio::test]
    async fn a_client_that_takes_nothing_of_a_response_is_given_up_and_a_slow_one_is_not() {
        const BYTES: usize = 16 << 20;
        for reads in [false, true] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (stream, _) = listener.accept().await.unwrap();
            let patience = Duration::from_millis(if reads { 60_000 } else { 100 });
            let mut transport = Transport::new(stream, Arc::default(), patience);
            let reading = tokio::spawn(async move {
                let mut taken = 0;
                let mut piece = vec![0; 1 << 20];
                while reads && taken < BYTES {
                    taken += client.read(&mut piece).await.unwrap();
                }
                client
            });
            let written = transport.write_all(&vec![0; BYTES]).await;
            assert_eq!(
                written.map_err(|error| error.kind()),
                if reads { Ok(()) } else { Err(io::ErrorKind::TimedOut) }
            );
            drop(reading.await.unwrap());
        }
    }
}
