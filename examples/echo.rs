//! Echoes every WebSocket message: what `make conformance` tests. `echo ADDRESS` says where it listens.

use std::error::Error;

use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpListener;

#[tokio::main]
#[expect(clippy::print_stdout, reason = "whoever started it waits for this line")]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:0".into());
    let listener = TcpListener::bind(address).await?;
    println!("listening on {}", listener.local_addr()?);
    loop {
        let (socket, _) = listener.accept().await?;
        tokio::spawn(async move {
            let Ok(mut socket) = tokio_tungstenite::accept_async(socket).await else { return };
            while let Some(Ok(message)) = socket.next().await {
                if (message.is_text() || message.is_binary()) && socket.send(message).await.is_err() {
                    return;
                }
            }
        });
    }
}
