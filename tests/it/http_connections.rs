//! HTTP as client libraries speak it: pooled connections, bodies of refused requests, compression, other versions.

use std::io::Read;

use flate2::read::GzDecoder;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{Node, RawClient, token, within};

/// One connection to a node, kept over several requests.
struct Connection(TcpStream);

/// A response: status, head in lower case, body.
#[derive(Debug)]
struct Answer(u16, String, Vec<u8>);

impl Connection {
    async fn to(node: &Node) -> Self {
        Self(TcpStream::connect(node.address()).await.unwrap())
    }

    async fn write(&mut self, head: &str, body: &[u8]) {
        let written = async {
            self.0.write_all(head.as_bytes()).await?;
            self.0.write_all(body).await
        };
        within("room to write", written).await.unwrap();
    }

    async fn answer(&mut self) -> Answer {
        let reading = async {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(self.0.read_u8().await.unwrap());
            }
            let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap_or("0");
            let mut body = vec![0; length.parse().unwrap()];
            self.0.read_exact(&mut body).await.unwrap();
            Answer(head[9..12].parse().unwrap(), head, body)
        };
        within("an answer", reading).await
    }

    async fn ended(&mut self) -> bool {
        let mut rest = Vec::new();
        within("the end", self.0.read_to_end(&mut rest)).await.is_ok() && rest.is_empty()
    }
}

fn request(method: &str, path: &str, token: &str, length: usize, more: &str) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\
         Content-Length: {length}\r\n{more}\r\n"
    )
}

const ROOM: &str = "/api/chat/conversations/lobby/messages";

/// Makes the room.
async fn make_room(node: &Node) {
    let new = serde_json::json!({"id": "lobby", "name": "Lobby"});
    assert!(node.post("/api/chat/conversations", &token("alice"), &new).await.status.is_success());
}

#[tokio::test]
async fn a_refused_request_leaves_its_connection_usable() {
    let node = Node::dev().start().await;
    let (alice, body) = (token("alice"), [b' '; 60_000]);
    let mut connection = Connection::to(&node).await;
    for (method, path, token, status) in [
        ("POST", ROOM, "not-a-token", 401),
        ("POST", "/nowhere", &*alice, 404),
        ("PATCH", "/api/chat/conversations", &*alice, 405),
        ("POST", "/v1/ws", &*alice, 405),
        ("GET", "/v1/ws", &*alice, 426),
    ] {
        connection.write(&request(method, path, token, body.len(), ""), &body).await;
        let Answer(refused, head, _) = connection.answer().await;
        assert_eq!(refused, status, "{method} {path}");
        assert!(!head.contains("connection: close"), "{head}");
        connection.write(&request("GET", "/api/chat/conversations", &alice, 0, ""), b"").await;
        assert_eq!(connection.answer().await.0, 200, "after {method} {path}");
    }
}

#[tokio::test]
async fn a_connection_that_can_not_go_on_says_so_and_the_refusal_arrives() {
    let node = Node::dev().start().await;
    let (alice, large) = (token("alice"), vec![b' '; 4 << 20]);
    for (token, status) in [("not-a-token", 401), (&*alice, 413)] {
        let mut connection = Connection::to(&node).await;
        // The client writes everything before it reads.
        let head = request("POST", ROOM, token, large.len(), "");
        let _broken = connection.0.write_all(head.as_bytes()).await;
        let _broken = connection.0.write_all(&large[..512 * 1_024]).await;
        let Answer(refused, head, _) = connection.answer().await;
        assert_eq!(refused, status);
        assert!(head.contains("connection: close"), "{head}");
        assert!(connection.ended().await, "the connection ends without a reset");
    }
    // A client that asks first never sends the body.
    let mut connection = Connection::to(&node).await;
    connection.write(&request("POST", ROOM, "not-a-token", 60_000, "Expect: 100-continue\r\n"), b"").await;
    let Answer(refused, head, _) = connection.answer().await;
    assert_eq!(refused, 401);
    assert!(head.contains("connection: close"), "{head}");
}

#[tokio::test]
async fn long_answers_are_compressed_on_request() {
    let node = Node::dev().start().await;
    make_room(&node).await;
    let alice = token("alice");
    for turn in 0..20 {
        let said = serde_json::json!({"content": format!("message {turn} {}", "word ".repeat(50))});
        assert!(node.post(ROOM, &alice, &said).await.status.is_success());
    }
    let mut connection = Connection::to(&node).await;
    let path = format!("{ROOM}?limit=100");
    connection.write(&request("GET", &path, &alice, 0, ""), b"").await;
    let Answer(_, plain_head, plain) = connection.answer().await;
    assert!(!plain_head.contains("content-encoding") && plain_head.contains("vary: accept-encoding"), "{plain_head}");
    connection.write(&request("GET", &path, &alice, 0, "Accept-Encoding: gzip, br\r\n"), b"").await;
    let Answer(_, head, compressed) = connection.answer().await;
    assert!(head.contains("content-encoding: gzip") && head.contains("vary: accept-encoding"), "{head}");
    assert!(compressed.len() * 4 < plain.len(), "{} of {} bytes", compressed.len(), plain.len());
    let mut unpacked = Vec::new();
    GzDecoder::new(&compressed[..]).read_to_end(&mut unpacked).unwrap();
    assert_eq!(unpacked, plain);

    connection.write(&request("POST", ROOM, &alice, 2, "Content-Encoding: gzip\r\n"), b"{}").await;
    let Answer(status, head, body) = connection.answer().await;
    assert_eq!((status, head.contains("accept-encoding: identity")), (415, true), "{head}");
    let problem: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(problem["code"], "unsupported_encoding");
}

#[tokio::test]
async fn a_client_that_ends_its_side_after_the_request_is_answered() {
    let node = Node::dev().start().await;
    make_room(&node).await;
    let mut connection = Connection::to(&node).await;
    let body = br#"{"content": "half closed"}"#;
    connection.write(&request("POST", ROOM, &token("alice"), body.len(), ""), body).await;
    connection.0.shutdown().await.unwrap();
    assert_eq!(connection.answer().await.0, 201);
}

#[tokio::test]
async fn a_client_of_http2_is_told_what_to_speak() {
    let node = Node::dev().start().await;
    let mut connection = Connection::to(&node).await;
    connection.write("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &[0, 0, 0, 4, 0, 0, 0, 0, 0]).await;
    let Answer(status, _, body) = connection.answer().await;
    assert_eq!(status, 505);
    assert!(String::from_utf8(body).unwrap().contains("HTTP/1.1"));
    assert!(connection.ended().await);
    // An ordinary method with the same first letter is answered as ever.
    let mut raw = RawClient::tcp(node.address()).await;
    raw.write(b"PROPFIND /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert!(raw.read_head().await.starts_with("HTTP/1.1 404"));
}

#[tokio::test]
async fn the_connection_stays_open_until_the_client_answered_the_close() {
    const CLOSE: u8 = 8;
    let node = Node::dev().start().await;
    for path in ["/v1/ws?token=bad", "/ws?token=bad", "/ws/room?token=bad", "/api/chat/ws/room?token=bad"] {
        let mut client = RawClient::open(node.address(), path).await;
        let closed = client.expect_close().await;
        let mut socket = client.into_inner();
        let early = tokio::time::timeout(std::time::Duration::from_millis(300), socket.read_u8()).await;
        assert!(early.is_err(), "{path}: {closed:?}, and the end of the connection right behind it");
        socket.write_all(&RawClient::encode(true, CLOSE, &closed.0.to_be_bytes())).await.unwrap();
        let end = within("the end of the connection", socket.read(&mut [0; 16])).await;
        assert_eq!(end.unwrap(), 0, "{path}");
    }
    // A client that never answers is left alone after a second.
    let mut client = RawClient::open(node.address(), "/v1/ws?token=bad").await;
    client.expect_close().await;
    assert_eq!(within("the end of the connection", client.into_inner().read(&mut [0; 16])).await.unwrap(), 0);
}
