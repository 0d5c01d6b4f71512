//! A proxy that can block the answers on some connections: those whose client has sent a given word. Requests still
//! reach the server, and other connections are not affected.

use std::io;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tokio_util::task::AbortOnDropHandle;

/// A proxy in front of one server; dropping it closes the port.
pub(crate) struct AnswerBlocker {
    port: u16,
    blocked: watch::Sender<bool>,
    _accepting: AbortOnDropHandle<()>,
}

impl AnswerBlocker {
    /// Listens on a free port and blocks nothing yet.
    pub(crate) async fn before(server: u16, word: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (blocked, state) = watch::channel(false);
        let accepting = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                // Ends when either side closes.
                tokio::spawn(serve(client, server, word, state.clone()));
            }
        });
        Self { port, blocked, _accepting: AbortOnDropHandle::new(accepting) }
    }

    /// Port of the proxy.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Discards answers on connections whose client has sent the word, or sends it from now on.
    pub(crate) fn block(&self) {
        self.blocked.send_replace(true);
    }

    /// Passes all answers again.
    pub(crate) fn unblock(&self) {
        self.blocked.send_replace(false);
    }
}

async fn serve(mut client: TcpStream, server: u16, word: &str, blocked: watch::Receiver<bool>) -> io::Result<()> {
    let mut server = TcpStream::connect(("127.0.0.1", server)).await?;
    let (mut asked, mut answered) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    let mut said = false;
    loop {
        tokio::select! {
            read = client.read(&mut asked) => match read? {
                0 => return Ok(()),
                count => {
                    said |= asked[..count].windows(word.len()).any(|some| some == word.as_bytes());
                    server.write_all(&asked[..count]).await?;
                }
            },
            read = server.read(&mut answered) => match read? {
                0 => return Ok(()),
                _ if said && *blocked.borrow() => {}
                count => client.write_all(&answered[..count]).await?,
            },
        }
    }
}
