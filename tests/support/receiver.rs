//! The receiver of a webhook: records requests and answers as the test decides.

use std::{
    convert::Infallible,
    fmt::Write,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use http_body_util::{BodyExt, Full};
use hyper::{HeaderMap, Response, StatusCode, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{net::TcpListener, sync::watch};
use tokio_util::task::AbortOnDropHandle;

use super::within;

/// A received request.
#[derive(Debug)]
pub struct ReceivedRequest {
    /// Time at which the whole request had arrived.
    pub at: Instant,
    /// Method and path, for example `POST /hook`.
    pub line: String,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub body: Bytes,
    /// Body as JSON; null if it isn't JSON.
    pub json: Value,
}

impl ReceivedRequest {
    /// Value of a header; empty if it is missing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Checks the signature as a receiver does: the HMAC-SHA256 over time and body, and that the time is close to now.
    pub fn assert_signed_with(&self, secret: &str) {
        let signature = self.header("x-switchboard-signature");
        let parts = signature.strip_prefix("t=").and_then(|rest| rest.split_once(",v1="));
        let (time, _) = parts.unwrap_or_else(|| panic!("no signature: {signature:?}"));
        assert_eq!(signature, sign(secret, time, &self.body));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        assert!(now.abs_diff(time.parse().unwrap()) < 60, "signed at {time}, and it is {now}");
    }
}

/// Computes the signature for this time and body.
pub fn sign(secret: &str, time: &str, body: &[u8]) -> String {
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(time.as_bytes());
    mac.update(b".");
    mac.update(body);
    let mut signature = format!("t={time},v1=");
    for byte in mac.finalize().into_bytes() {
        write!(signature, "{byte:02x}").unwrap();
    }
    signature
}

/// Response to a request.
#[derive(Debug)]
pub struct HookResponse(Response<Full<Bytes>>);

impl HookResponse {
    /// A status without a body.
    pub fn status(status: u16) -> Self {
        let mut response = Response::new(Full::default());
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        Self(response)
    }

    /// 200 with this body.
    pub fn body(body: impl Into<Bytes>) -> Self {
        Self(Response::new(Full::new(body.into())))
    }

    /// 200 with `{"content": …}`, the answer of a persona.
    pub fn content(content: &str) -> Self {
        Self::body(serde_json::json!({ "content": content }).to_string())
    }

    /// Adds a header.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        self.0.headers_mut().insert(name, value.parse().unwrap());
        self
    }
}

/// A server for webhooks; dropping it closes the port.
#[derive(Debug)]
pub struct Receiver {
    address: SocketAddr,
    posted: Arc<Mutex<Vec<Arc<ReceivedRequest>>>>,
    count: watch::Receiver<usize>,
    _accepting: AbortOnDropHandle<()>,
}

impl Receiver {
    /// Listens on a free port. `react` gets each request and the number of requests before it.
    pub async fn start<F, Fut>(react: F) -> Self
    where
        F: Fn(usize, Arc<ReceivedRequest>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = HookResponse> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it listens");
        let posted = Arc::<Mutex<Vec<_>>>::default();
        let (told, count) = watch::channel(0);
        let (kept, told, react) = (posted.clone(), Arc::new(told), Arc::new(react));
        let accepting = tokio::spawn(async move {
            loop {
                let Ok((socket, _)) = listener.accept().await else { continue };
                let (kept, told, react) = (kept.clone(), told.clone(), react.clone());
                let service = service_fn(move |request: hyper::Request<Incoming>| {
                    let (kept, told, react) = (kept.clone(), told.clone(), react.clone());
                    async move {
                        let posted = Arc::new(read(request).await);
                        let before = {
                            let mut kept = kept.lock().unwrap();
                            kept.push(posted.clone());
                            kept.len() - 1
                        };
                        told.send_modify(|count| *count = before + 1);
                        Ok::<_, Infallible>(react(before, posted).await.0)
                    }
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(socket), service));
            }
        });
        Self { address, posted, count, _accepting: AbortOnDropHandle::new(accepting) }
    }

    /// URL of the webhook.
    pub fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// Returns the request that has `before` requests before it; waits for it.
    pub async fn request(&self, before: usize) -> Arc<ReceivedRequest> {
        let mut count = self.count.clone();
        let waiting = count.wait_for(|count| *count > before);
        within(&format!("request {before}"), waiting).await.expect("the server lives");
        self.posted.lock().unwrap()[before].clone()
    }

    /// Number of requests so far.
    pub fn count(&self) -> usize {
        *self.count.borrow()
    }
}

async fn read(request: hyper::Request<Incoming>) -> ReceivedRequest {
    let line = format!("{} {}", request.method(), request.uri());
    let (head, body) = request.into_parts();
    let body = body.collect().await.expect("the request comes whole").to_bytes();
    let json = serde_json::from_slice(&body).unwrap_or(Value::Null);
    ReceivedRequest { at: Instant::now(), line, headers: head.headers, body, json }
}
