//! A way to a server that can make some connections deaf: those that have said a word get no more answers, all others
//! do. What was asked happens all the same.

use std::io;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tokio_util::task::AbortOnDropHandle;

/// A proxy in front of one server; gone when dropped.
pub(crate) struct Ear {
    port: u16,
    deaf: watch::Sender<bool>,
    _accepting: AbortOnDropHandle<()>,
}

impl Ear {
    /// Listens on a port of its own, and hears well.
    pub(crate) async fn before(server: u16, word: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (deaf, state) = watch::channel(false);
        let accepting = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                // Ends with either side.
                tokio::spawn(serve(client, server, word, state.clone()));
            }
        });
        Self { port, deaf, _accepting: AbortOnDropHandle::new(accepting) }
    }

    /// Where it listens.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Answers to those who have said the word, or say it from now on, are lost.
    pub(crate) fn deafen(&self) {
        self.deaf.send_replace(true);
    }

    /// From now on everything is heard again.
    pub(crate) fn heal(&self) {
        self.deaf.send_replace(false);
    }
}

async fn serve(mut client: TcpStream, server: u16, word: &str, deaf: watch::Receiver<bool>) -> io::Result<()> {
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
                _ if said && *deaf.borrow() => {}
                count => client.write_all(&answered[..count]).await?,
            },
        }
    }
}
