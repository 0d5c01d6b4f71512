//! Compression of responses, for clients that ask for it (RFC 9110, 12.5.3).

use std::io::{self, Write};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http_body_util::BodyExt;
use hyper::{
    HeaderMap, Response,
    header::{self, HeaderValue},
};
use tokio::task::spawn_blocking;

use super::problem::Payload;

/// Smallest body that is compressed, in bytes. A smaller one fits into one packet as it is.
const MIN_BYTES: usize = 1_024;
/// Largest body that is compressed on the thread that serves sockets, in bytes: about a millisecond.
const MAX_BYTES_INLINE: usize = 128 * 1_024;

/// Marks a response that holds a secret: the length of its compressed body would tell about the secret.
#[derive(Debug, Clone, Copy)]
pub(super) struct HoldsSecret;

/// The encoding of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    /// As it is.
    Identity,
    /// gzip (RFC 1952).
    Gzip,
}

impl Encoding {
    /// The encoding that a request asks for.
    pub(super) fn wanted(headers: &HeaderMap) -> Self {
        let values = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
        let mut wanted = Self::Identity;
        for item in values.flat_map(|value| value.split(',')) {
            let mut parts = item.split(';').map(str::trim);
            let coding = parts.next().unwrap_or_default();
            let refused = parts.any(|part| {
                part.strip_prefix("q=").is_some_and(|weight| weight.parse::<f32>().is_ok_and(|weight| weight <= 0.0))
            });
            if coding.eq_ignore_ascii_case("gzip") {
                return if refused { Self::Identity } else { Self::Gzip };
            }
            if coding == "*" && !refused {
                wanted = Self::Gzip;
            }
        }
        wanted
    }

    /// Compresses a response, if it is long enough to gain by it.
    pub(super) async fn apply(self, mut response: Response<Payload>) -> Response<Payload> {
        let holds_secret = response.extensions_mut().remove::<HoldsSecret>().is_some();
        if holds_secret || response.headers().contains_key(header::CONTENT_ENCODING) {
            return response;
        }
        let (mut head, body) = response.into_parts();
        // The body is in memory, so collecting it neither waits nor fails.
        let plain = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        if plain.len() >= MIN_BYTES {
            head.headers.append(header::VARY, HeaderValue::from_static("accept-encoding"));
            if let (Self::Gzip, Some(compressed)) = (self, gzip(plain.clone()).await) {
                head.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
                return Response::from_parts(head, Payload::from(compressed));
            }
        }
        Response::from_parts(head, Payload::from(plain))
    }
}

/// The compressed bytes; `None` if they can't be compressed.
async fn gzip(plain: Bytes) -> Option<Vec<u8>> {
    if plain.len() <= MAX_BYTES_INLINE {
        return compress(&plain).ok();
    }
    spawn_blocking(move || compress(&plain)).await.ok()?.ok()
}

fn compress(plain: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(plain.len() / 4), Compression::fast());
    encoder.write_all(plain)?;
    encoder.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(value: &'static str) -> Encoding {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(value));
        Encoding::wanted(&headers)
    }

    #[test]
    fn clients_choose_the_encoding() {
        assert_eq!(Encoding::wanted(&HeaderMap::new()), Encoding::Identity);
        for gzip in ["gzip", "br, GZIP", "deflate;q=0.5, gzip;q=0.1", "*", "identity;q=0, *;q=0.5"] {
            assert_eq!(wanted(gzip), Encoding::Gzip, "{gzip}");
        }
        for identity in ["", "br", "gzip;q=0", "gzip; q=0.0", "*;q=0", "*, gzip;q=0"] {
            assert_eq!(wanted(identity), Encoding::Identity, "{identity}");
        }
    }

    #[tokio::test]
    async fn short_responses_and_secrets_are_not_compressed() {
        let long = || Response::new(Payload::from(vec![b'x'; MIN_BYTES]));
        let encoded = |response: Response<Payload>| response.headers().contains_key(header::CONTENT_ENCODING);
        assert!(encoded(Encoding::Gzip.apply(long()).await));
        assert!(!encoded(Encoding::Identity.apply(long()).await));
        assert!(!encoded(Encoding::Gzip.apply(Response::new(Payload::from("short"))).await));
        let mut secret = long();
        secret.extensions_mut().insert(HoldsSecret);
        assert!(!encoded(Encoding::Gzip.apply(secret).await));
    }
}
