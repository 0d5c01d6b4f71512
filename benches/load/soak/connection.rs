//! [`Connection`]: a socket whose frames wait in a queue, so that its client can do something else meanwhile.

use std::{net::SocketAddr, rc::Rc, time::Duration};

use serde_json::Value;
use tokio::{
    sync::mpsc,
    task::{JoinHandle, spawn_local},
    time::timeout,
};

use super::frames::{Client, Dialect};
use crate::wire::{self, Socket};

/// Maximum time until a connection is greeted.
const OPENING: Duration = Duration::from_secs(10);
/// Maximum time until the server ends a connection that its client closes.
const CLOSING: Duration = Duration::from_secs(2);

/// An open connection.
pub struct Connection {
    socket: Rc<Socket>,
    frames: mpsc::UnboundedReceiver<Result<Value, String>>,
    reading: JoinHandle<()>,
}

impl Connection {
    /// Connects and awaits the greeting.
    ///
    /// # Errors
    /// The reason.
    pub async fn open(address: SocketAddr, dialect: Dialect, user: &str, room: &str) -> Result<Self, String> {
        let opening = async {
            let path = dialect.path(user, room);
            let socket = Rc::new(Socket::open(address, &path).await.map_err(|error| first_line(&error.to_string()))?);
            let (queue, frames) = mpsc::unbounded_channel();
            let reading = spawn_local(read(Rc::clone(&socket), queue));
            let mut connection = Self { socket, frames, reading };
            while connection.next().await?["type"] != dialect.greeting() {}
            Ok(connection)
        };
        timeout(OPENING, opening).await.unwrap_or_else(|_| Err("no greeting".to_owned()))
    }

    /// The next frame, or the reason for the end. Dropping the future loses no frame.
    pub async fn next(&mut self) -> Result<Value, String> {
        self.frames.recv().await.unwrap_or_else(|| Err("ended".to_owned()))
    }

    /// Sends a text.
    pub async fn send(&self, text: &str) -> Result<(), String> {
        self.socket.write(&wire::text(text)).await.map_err(|error| error.to_string())
    }

    /// Closes the connection as a browser does.
    pub async fn close(mut self) {
        if self.socket.write(&wire::close()).await.is_ok() {
            let _late = timeout(CLOSING, async { while self.next().await.is_ok() {} }).await;
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

async fn read(socket: Rc<Socket>, queue: mpsc::UnboundedSender<Result<Value, String>>) {
    let each = |payload: &[u8]| {
        // A receiver that is gone needs nothing.
        let _gone = queue.send(serde_json::from_slice(payload).map_err(|error| error.to_string()));
    };
    loop {
        if let Err(error) = socket.read(each).await {
            let _gone = queue.send(Err(error.to_string()));
            return;
        }
    }
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}
