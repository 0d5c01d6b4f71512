//! The PROXY protocol, versions 1 and 2: the header with which a TCP load balancer names the client of a connection
//! (<https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>). It comes before anything of the client.

use std::{io, net::IpAddr, time::Duration};

use proxy_header::{ParseConfig, ProxyHeader};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// The beginning of a header of version 2. No header of either version is shorter.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The length of the signature, the kind of the header, and the length of the rest.
const PREFIX: usize = SIGNATURE.len() + 4;
/// The beginning of a header of version 1.
const WORD: &[u8] = b"PROXY ";
/// Maximum length of a header of version 1 (section 2.1).
const LINE_MAX: usize = 107;
/// Maximum length of the addresses and extensions of version 2. A certificate of a client, the longest extension, fits.
const REST_MAX: usize = 4_096;
/// The answer to a client whose connection has no header: most likely one that speaks HTTP.
const NO_HEADER: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\nconnection: close\r\n\
    content-length: 82\r\n\r\nThis address of a proxy must send a PROXY header first (PROXY_PROTOCOL is true).\r\n";
/// Maximum time for that answer.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(250);

/// Why no header could be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum HeaderFault {
    /// The connection ended or broke before the end of the header. Checks of balancers connect and close.
    #[error("the connection ended: {0}")]
    Ended(#[from] io::Error),
    /// The first bytes of the connection are no PROXY header.
    #[error("{0}")]
    Invalid(String),
}

/// Reads the header, and nothing of what follows. Returns the client's address; none if the balancer names no client: it
/// connected by itself, or does not know.
///
/// # Errors
/// The connection ended, or its first bytes are no PROXY header.
pub(super) async fn read(stream: &mut TcpStream) -> Result<Option<IpAddr>, HeaderFault> {
    let mut header = vec![0; SIGNATURE.len()];
    stream.read_exact(&mut header).await?;
    if header == SIGNATURE {
        read_binary(stream, &mut header).await?;
    } else if header.starts_with(WORD) {
        read_line(stream, &mut header).await?;
    } else {
        return Err(HeaderFault::Invalid("the connection does not begin with a PROXY header".to_owned()));
    }
    let only_addresses = ParseConfig { include_tlvs: false, ..ParseConfig::default() };
    match ProxyHeader::parse(&header, only_addresses) {
        Ok((parsed, _)) => Ok(parsed.proxied_address().map(|address| address.source.ip())),
        Err(error) => Err(HeaderFault::Invalid(error.to_string())),
    }
}

/// Answers a client without a header.
pub(super) async fn refuse(stream: &mut TcpStream) {
    // A client that is gone, or does not read, needs no answer.
    let _sent = tokio::time::timeout(ANSWER_TIMEOUT, async {
        stream.write_all(NO_HEADER).await?;
        stream.shutdown().await
    })
    .await;
}

/// Reads the rest of a header of version 2.
async fn read_binary(stream: &mut TcpStream, header: &mut Vec<u8>) -> Result<(), HeaderFault> {
    header.resize(PREFIX, 0);
    stream.read_exact(&mut header[SIGNATURE.len()..]).await?;
    let rest = usize::from(u16::from_be_bytes([header[PREFIX - 2], header[PREFIX - 1]]));
    if rest > REST_MAX {
        return Err(HeaderFault::Invalid(format!("a header with {rest} bytes of addresses is too long")));
    }
    header.resize(PREFIX + rest, 0);
    stream.read_exact(&mut header[PREFIX..]).await?;
    Ok(())
}

/// Reads the rest of a header of version 1, which is one line.
async fn read_line(stream: &mut TcpStream, header: &mut Vec<u8>) -> Result<(), HeaderFault> {
    while header.last() != Some(&b'\n') {
        let begin = header.len();
        if begin >= LINE_MAX {
            return Err(HeaderFault::Invalid("the line of the PROXY header is too long".to_owned()));
        }
        header.resize(LINE_MAX, 0);
        let there = stream.peek(&mut header[begin..]).await?;
        if there == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        let line = header[begin..begin + there].iter().position(|byte| *byte == b'\n').map_or(there, |end| end + 1);
        header.truncate(begin + line);
        stream.read_exact(&mut header[begin..]).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    const LOCAL: &[u8] = b"\x20\x00\0\0";
    const OF_IPV4: &[u8] = b"\x21\x11\0\x0c\xcb\0\x71\x01\x7f\0\0\x01\x04\0\x1f\x40";

    fn binary(rest: &[u8]) -> Vec<u8> {
        [SIGNATURE, rest].concat()
    }

    /// Sends bytes in pieces of `size`, then a request, and ends. Returns the result, and what is left to read.
    async fn receive(sent: &[u8], size: usize) -> (Result<Option<IpAddr>, HeaderFault>, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (client, accepted) =
            tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), async { listener.accept().await });
        let (mut client, (mut server, _)) = (client.unwrap(), accepted.unwrap());
        client.set_nodelay(true).unwrap();
        let sent = [sent, b"GET /"].concat();
        let sender = tokio::spawn(async move {
            for piece in sent.chunks(size) {
                client.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            client.shutdown().await.unwrap();
            client
        });
        let read = read(&mut server).await;
        let _client = sender.await.unwrap();
        let mut rest = Vec::new();
        server.read_to_end(&mut rest).await.unwrap();
        (read, rest)
    }

    #[tokio::test]
    async fn both_versions_name_the_client_and_leave_what_follows() {
        let of_ipv6 = [&b"\x21\x21\0\x24"[..], &[0x20, 1, 0xd, 0xb8], &[0; 12], &[0; 16], &[4, 0, 0x1f, 0x40]].concat();
        // An extension that says nothing, as of the balancers of clouds.
        let extended = [&b"\x21\x11\0\x10"[..], &OF_IPV4[4..], b"\x04\0\x01\0"].concat();
        let cases: [(Vec<u8>, Option<&str>); 9] = [
            (b"PROXY TCP4 203.0.113.1 127.0.0.1 1024 8000\r\n".into(), Some("203.0.113.1")),
            (b"PROXY TCP6 2001:db8::1 ::1 1024 8000\r\n".into(), Some("2001:db8::1")),
            (b"PROXY UNKNOWN\r\n".into(), None),
            (b"PROXY UNKNOWN ffff::1 ffff::1 65535 65535\r\n".into(), None),
            (binary(OF_IPV4), Some("203.0.113.1")),
            (binary(&of_ipv6), Some("2001:db8::")),
            (binary(&extended), Some("203.0.113.1")),
            (binary(LOCAL), None),
            (binary(b"\x21\0\0\0"), None),
        ];
        for (header, address) in cases {
            for size in [1, 7, 1_000] {
                let (read, rest) = receive(&header, size).await;
                let expected = address.map(|text| text.parse::<IpAddr>().unwrap());
                assert_eq!((read.unwrap(), &rest[..]), (expected, &b"GET /"[..]), "{header:?} in pieces of {size}");
            }
        }
    }

    #[tokio::test]
    async fn what_is_no_header_is_told() {
        let long = binary(&[&b"\x21\x11\xff\xff"[..], &[0; 5_000]].concat());
        let endless = [b"PROXY TCP4 ".to_vec(), vec![b'1'; 200]].concat();
        for sent in [
            &b"GET / HTTP/1.1\r\n\r\n"[..],
            b"PROXY TCP4 203.0.113.1 127.0.0.1 1024\r\n",
            b"PROXY TCP4 nobody 127.0.0.1 1024 8000\r\n",
            &binary(b"\x31\x11\0\x0c\xcb\0\x71\x01\x7f\0\0\x01\x04\0\x1f\x40"),
            &binary(b"\x21\x11\0\x04\xcb\0\x71\x01"),
            &long,
            &endless,
        ] {
            let (read, _) = receive(sent, 1_000).await;
            assert!(matches!(read, Err(HeaderFault::Invalid(_))), "{sent:?}: {read:?}");
        }
        for cut in [&b""[..], b"PRO", b"PROXY TCP4 203.0", &binary(&OF_IPV4[..9])[..]] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let (client, accepted) =
                tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), async { listener.accept().await });
            let (mut client, (mut server, _)) = (client.unwrap(), accepted.unwrap());
            client.write_all(cut).await.unwrap();
            client.shutdown().await.unwrap();
            assert!(matches!(read(&mut server).await, Err(HeaderFault::Ended(_))), "{cut:?}");
        }
    }

    #[test]
    fn the_answer_has_its_length() {
        let text = std::str::from_utf8(NO_HEADER).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}", body.len())), "{}", body.len());
    }
}
