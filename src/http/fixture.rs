//! Fixtures for the tests of this module: a node whose store is down. Requests that need no store work on it.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use hyper::HeaderMap;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::Kind;
use crate::{
    admission::ConnectionAdmission,
    advice::Advice,
    auth::{Auth, Grant},
    backplane::{Backplane, Settings},
    broker::{Broker, Drain},
    chat::{Chat, Parts},
    config::{Config, Sources},
    degrade::{Degrade, LinkState},
    listener::Listener,
    metrics::Metrics,
    model::{Clock, UserId},
    outbox::OutboxBudget,
    restrictions::Restrictions,
    store::Sqlite,
    supervise::Supervisor,
};

/// Maximum time that a test waits for an event.
pub(super) const SOON: Duration = Duration::from_secs(30);

fn config(folder: &TempDir, settings: &[(&str, &str)]) -> Config {
    let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let mut flags: BTreeMap<String, String> = settings.iter().map(pair).collect();
    flags.insert("DATA_DIR".into(), folder.path().to_str().unwrap().to_owned());
    flags.insert("LISTEN".into(), "127.0.0.1:0".into());
    let sources = Sources { flags, environment: Box::new(|_| None), dotenv: BTreeMap::new(), open_files: None };
    Config::load(true, &sources).unwrap()
}

/// A node with both listeners.
pub(super) struct Node {
    pub(super) broker: Arc<Broker>,
    pub(super) clients: SocketAddr,
    pub(super) admin: SocketAddr,
    stop: CancellationToken,
    _folder: TempDir,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.broker.stop_accepting.cancel();
        self.stop.cancel();
    }
}

impl Node {
    pub(super) async fn start(settings: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = Arc::new(config(&folder, settings));
        let clock = Clock::system();
        let (metrics, degrade) = (Arc::new(Metrics::new().unwrap()), Arc::new(Degrade::new(LinkState::Off)));
        let supervisor = Supervisor::new(metrics.clone());
        let stop = supervisor.stop().clone();
        let (d, m, c) = (degrade.clone(), metrics.clone(), clock.clone());
        let backplane = Backplane::start(Settings::from(&*config), d, m, c, &supervisor).await;
        let (backplane, events) = backplane.map_err(|error| error.to_string()).unwrap();
        let chat = Chat::start(Parts {
            config: config.clone(),
            store: Arc::new(Sqlite::unreachable(&config.store, metrics.clone())),
            backplane: (backplane.clone(), events),
            webhooks: crate::webhook::Webhooks::default(),
            degrade: degrade.clone(),
            metrics: metrics.clone(),
            restrictions: (Restrictions::none(), tokio::sync::watch::channel(None).1),
            clock: clock.clone(),
            supervisor: supervisor.clone(),
        });
        let tail = crate::tail::Tail::new(config.console.as_ref(), metrics.clone());
        let deliveries = crate::webhook::Deliveries::new(5, metrics.clone());
        let outboxes = OutboxBudget::new(config.limits.outbox_total_bytes, metrics.clone());
        let broker = Arc::new(Broker {
            metrics,
            degrade,
            auth: Arc::new(Auth::new(&config.auth, clock.clone(), Restrictions::none()).unwrap()),
            chat,
            backplane,
            started_at: clock.now(),
            clock,
            admission: Arc::new(ConnectionAdmission::new(&config.limits)),
            advice: Arc::new(Advice::new(config.dev, config.open_conversations)),
            config,
            outboxes,
            drain: Arc::new(Drain::default()),
            tail,
            webhooks: crate::webhook::Webhooks::default(),
            deliveries,
            supervisor,
            tasks: TaskTracker::new(),
            stop_accepting: CancellationToken::new(),
        });
        let listen = |kind, until: &CancellationToken| {
            let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), &[]).unwrap();
            let address = listener.local_addr().unwrap();
            let (broker, until) = (broker.clone(), until.clone());
            tokio::spawn(async move { listener.serve(broker, kind, until).await });
            address
        };
        let clients = listen(Kind::Clients, &broker.stop_accepting);
        let admin = listen(Kind::Admin, &stop);
        Self { broker, clients, admin, stop, _folder: folder }
    }

    /// Mints a token for a user.
    pub(super) fn token(&self, user: &str, ttl: Duration) -> String {
        let user = UserId::parse(user).unwrap();
        let grant = Grant { user: &user, name: None, role: None, tier: None };
        self.broker.auth.mint(grant, ttl, None).unwrap().token
    }

    /// Sends a raw request to the clients' listener and reads the response.
    pub(super) async fn request(&self, request: &str) -> TestResponse {
        let mut socket = Raw::connect(self.clients).await;
        socket.send(request).await;
        socket.answer().await
    }

    /// A handshake with these additional headers; each must end with CRLF.
    pub(super) fn handshake(path: &str, headers: &str) -> String {
        format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
        )
    }
}

/// A parsed HTTP response.
#[derive(Debug)]
pub(super) struct TestResponse {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: String,
}

impl TestResponse {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }
}

/// A TCP socket for raw HTTP.
pub(super) struct Raw {
    socket: TcpStream,
    pub(super) read: Vec<u8>,
}

impl Raw {
    pub(super) async fn connect(address: SocketAddr) -> Self {
        Self { socket: TcpStream::connect(address).await.unwrap(), read: Vec::new() }
    }

    pub(super) async fn send(&mut self, text: impl AsRef<[u8]>) {
        self.socket.write_all(text.as_ref()).await.unwrap();
    }

    /// Reads more bytes; false if the other end has closed.
    pub(super) async fn read_more(&mut self) -> bool {
        let mut buffer = [0; 4_096];
        let count = timeout(SOON, self.socket.read(&mut buffer)).await.expect("bytes or the end within SOON");
        let count = count.unwrap_or(0);
        self.read.extend_from_slice(&buffer[..count]);
        count > 0
    }

    /// Reads one whole response. Bytes after it stay in `read`.
    pub(super) async fn answer(&mut self) -> TestResponse {
        let end = loop {
            if let Some(at) = self.read.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            assert!(self.read_more().await, "closed before an answer");
        };
        let head: Vec<u8> = self.read.drain(..end).collect();
        let head = String::from_utf8(head).unwrap();
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let mut headers = HeaderMap::new();
        for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
            headers.append(hyper::header::HeaderName::try_from(name).unwrap(), value.parse().unwrap());
        }
        let length = headers.get("content-length").map_or(0, |length| length.to_str().unwrap().parse().unwrap());
        while self.read.len() < length && self.read_more().await {}
        let length = length.min(self.read.len());
        let body = String::from_utf8(self.read.drain(..length).collect()).unwrap();
        TestResponse { status, headers, body }
    }
}
