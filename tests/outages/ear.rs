//! A way to Redis that can make a node deaf: what goes to its subscribers is held, commands are answered as ever.

use std::io;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tokio_util::task::AbortOnDropHandle;

use crate::support::RedisServer;

/// A proxy in front of one Redis; gone when dropped.
pub(crate) struct Ear {
    url: String,
    deaf: watch::Sender<bool>,
    _accepting: AbortOnDropHandle<()>,
}

impl Ear {
    /// Listens on a port of its own.
    pub(crate) async fn before(redis: &RedisServer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("redis://{}/", listener.local_addr().unwrap());
        let (deaf, state) = watch::channel(false);
        let port = redis.port();
        let accepting = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                // Ends with either side.
                tokio::spawn(serve(client, port, state.clone()));
            }
        });
        Self { url, deaf, _accepting: AbortOnDropHandle::new(accepting) }
    }

    /// Where the node finds Redis.
    pub(crate) fn url(&self) -> String {
        self.url.clone()
    }

    /// From now on nothing reaches those who have subscribed to something; who connects anew hears.
    pub(crate) fn deafen(&self) {
        self.deaf.send_replace(true);
    }
}

async fn serve(mut client: TcpStream, port: u16, deaf: watch::Receiver<bool>) -> io::Result<()> {
    let mut server = TcpStream::connect(("127.0.0.1", port)).await?;
    let hears_from_now = *deaf.borrow();
    let (mut asked, mut answered) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    let mut subscribed = false;
    loop {
        let held = subscribed && *deaf.borrow() && !hears_from_now;
        tokio::select! {
            read = client.read(&mut asked) => match read? {
                0 => return Ok(()),
                count => {
                    subscribed |= asked[..count].windows(9).any(|word| word == b"SUBSCRIBE");
                    server.write_all(&asked[..count]).await?;
                }
            },
            read = server.read(&mut answered) => match read? {
                0 => return Ok(()),
                _ if held => {}
                count => client.write_all(&answered[..count]).await?,
            },
        }
    }
}
