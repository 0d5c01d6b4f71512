//! A node: the real program, started with a test's settings.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    process::{Command, ExitStatus},
};

use reqwest::{Method, StatusCode};
use serde_json::Value;
use tempfile::TempDir;

use super::{ADMIN_TOKEN, Process, SECRET, Signal, eventually, guard, within};

/// The program under test.
const PROGRAM: &str = env!("CARGO_BIN_EXE_switchboard");

/// Builder of a node. Of the tests' environment the node inherits only `PATH`.
#[derive(Debug, Clone)]
pub struct NodeBuilder {
    command: &'static str,
    settings: BTreeMap<String, String>,
    open_files: Option<u32>,
}

impl NodeBuilder {
    fn new(command: &'static str) -> Self {
        let builder = Self { command, settings: BTreeMap::new(), open_files: None };
        builder
            .set("JWT_SECRET", SECRET)
            .set("LISTEN", "127.0.0.1:0")
            .set("ADMIN_LISTEN", "127.0.0.1:0")
            .set("NODE_ID", format!("node-{:08x}", rand::random::<u32>()))
            .set("LOG_FORMAT", "json")
            .set("MESSAGE_RATE_LIMIT", 0)
            .set("WRITE_RATE_LIMIT", 0)
            .set("READ_RATE_LIMIT", 0)
            .set("EVENT_RATE_LIMIT", 0)
            .set("OPEN_CONVERSATIONS", true)
            .set("SHUTDOWN_DELAY", "0s")
            .set("DRAIN_WINDOW", "0s")
    }

    /// Sets one of the program's settings.
    #[must_use]
    pub fn set(mut self, name: &str, value: impl ToString) -> Self {
        self.settings.insert(name.into(), value.to_string());
        self
    }

    /// Switches the admin console on.
    #[must_use]
    pub fn with_console(self) -> Self {
        self.set("ADMIN_TOKEN", ADMIN_TOKEN)
    }

    /// Removes a setting, so that the program's default applies.
    #[must_use]
    pub fn unset(mut self, name: &str) -> Self {
        self.settings.remove(name);
        self
    }

    /// Limits the number of files that the node may open.
    #[must_use]
    pub fn open_files(mut self, limit: u32) -> Self {
        self.open_files = Some(limit);
        self
    }

    /// Starts the node and returns once it listens and its store has started.
    ///
    /// # Panics
    /// If the node ends before it listens.
    pub async fn start(self) -> Node {
        let node = self.start_without_store().await;
        // On a busy machine the migrations take longer than the node waits before it listens.
        node.logged("the store has started").await;
        node
    }

    /// Starts the node and returns once it listens, also if its store is away.
    ///
    /// # Panics
    /// If the node ends before it listens.
    pub async fn start_without_store(self) -> Node {
        self.try_start().await.unwrap_or_else(|(status, log)| panic!("the node ended with {status}:\n{log}"))
    }

    /// Starts the node. `Err` holds the exit status and the log of a node that ended before it listened.
    pub async fn try_start(self) -> Result<Node, (ExitStatus, String)> {
        let folder = guard::folder("switchboard-node-");
        let mut command = match self.open_files {
            None => Command::new(PROGRAM),
            Some(limit) => {
                let mut shell = Command::new("sh");
                shell.args(["-c", &format!(r#"ulimit -n {limit} && exec "$0" "$@""#), PROGRAM]);
                shell
            }
        };
        command.arg(self.command).env_clear().envs(&self.settings).current_dir(folder.path());
        command.env("DATA_DIR", self.settings.get("DATA_DIR").map_or(folder.path(), |set| set.as_ref()));
        command.env("PATH", "/usr/local/bin:/usr/bin:/bin");
        let name = self.settings.get("NODE_ID").cloned().unwrap_or_default();
        let process = Process::spawn(format!("switchboard {} {name}", self.command), &mut command, Signal::Kill);
        let Ok((clients, admin)) = process.line("its addresses", listening).await else {
            return Err((process.ended().await, process.log().join("\n")));
        };
        Ok(Node { process, clients, admin, folder, http: reqwest::Client::new() })
    }
}

/// Reads the addresses from the log line that reports that the node listens.
fn listening(line: &str) -> Option<(Vec<SocketAddr>, Option<SocketAddr>)> {
    let line: Value = serde_json::from_str(line).ok()?;
    let fields = Some(line).filter(|line| line["message"] == "listening")?;
    let clients: Result<_, _> = fields["clients"].as_str()?.split(',').map(|address| address.trim().parse()).collect();
    Some((clients.ok()?, fields["admin"].as_str().and_then(|address| address.parse().ok())))
}

/// A running node; dropping it kills the process.
#[derive(Debug)]
pub struct Node {
    process: Process,
    clients: Vec<SocketAddr>,
    admin: Option<SocketAddr>,
    folder: TempDir,
    http: reqwest::Client,
}

impl Node {
    /// Builds a node on Redis and PostgreSQL, with no rate limit, open conversations and no shutdown delay.
    pub fn serve(redis_url: &str, database_url: &str) -> NodeBuilder {
        NodeBuilder::new("serve").set("REDIS_URL", redis_url).set("DATABASE_URL", database_url)
    }

    /// Builds a `dev` node with SQLite in its own folder.
    pub fn dev() -> NodeBuilder {
        NodeBuilder::new("dev")
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// The clients' address; the first if there are several.
    pub fn address(&self) -> SocketAddr {
        self.clients[0]
    }

    /// All of the clients' addresses.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.clients
    }

    /// `http://host:port` for clients.
    pub fn http(&self) -> String {
        format!("http://{}", self.address())
    }

    /// `ws://host:port` for clients.
    pub fn ws(&self) -> String {
        format!("ws://{}", self.address())
    }

    /// `http://host:port` of the admin listener.
    pub fn admin(&self) -> String {
        format!("http://{}", self.admin.expect("this node has an admin listener"))
    }

    /// Sends a signal to the process.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Sends SIGTERM, waits for the end, and returns the exit code.
    pub async fn terminate(&self) -> i32 {
        self.process.signal(Signal::Terminate);
        self.process.exit_code().await
    }

    /// Sends SIGKILL and waits until the process is gone.
    pub async fn kill(&self) {
        self.process.signal(Signal::Kill);
        self.process.ended().await;
    }

    /// Waits for the end of the process and returns the exit code.
    pub async fn exit_code(&self) -> i32 {
        self.process.exit_code().await
    }

    /// All lines logged so far.
    pub fn log(&self) -> Vec<String> {
        self.process.log()
    }

    /// Waits for a line that contains `text`; lines already logged count.
    pub async fn logged(&self, text: &str) -> String {
        let pick = |line: &str| line.contains(text).then(|| line.to_owned());
        self.process.line(text, pick).await.unwrap_or_else(|why| panic!("{why}"))
    }

    /// Checks that the log holds none of `secrets`. Call it after the node has ended, because only then is the log
    /// complete.
    pub fn assert_never_logged(&self, secrets: &[&str]) {
        for line in self.log() {
            let leak = secrets.iter().any(|secret| line.contains(secret));
            assert!(!leak, "a secret was logged: {line}");
        }
    }

    /// Sends a REST request with a token; `path` begins with a slash.
    pub async fn request(&self, method: Method, path: &str, token: Option<&str>, body: Option<&Value>) -> Answer {
        let mut request = self.http.request(method, format!("{}{path}", self.http()));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        Answer::read(path, request).await
    }

    /// Sends a REST request with a body that may be malformed.
    pub async fn send_raw(&self, method: Method, path: &str, token: &str, body: &str) -> Answer {
        let request = self.http.request(method, format!("{}{path}", self.http()));
        Answer::read(path, request.bearer_auth(token).body(body.to_owned())).await
    }

    /// Sends a `GET` with a token.
    pub async fn get(&self, path: &str, token: &str) -> Answer {
        self.request(Method::GET, path, Some(token), None).await
    }

    /// Sends a `POST` with a token.
    pub async fn post(&self, path: &str, token: &str, body: &Value) -> Answer {
        self.request(Method::POST, path, Some(token), Some(body)).await
    }

    /// Sends a `GET` to the admin listener, for example `/readyz`.
    pub async fn admin_get(&self, path: &str) -> Answer {
        Answer::read(path, self.http.get(format!("{}{path}", self.admin()))).await
    }

    /// Sends a request to the admin console with its token.
    pub async fn console(&self, method: Method, path: &str, body: Option<&Value>) -> Answer {
        let request = self.http.request(method, format!("{}/admin/api{path}", self.admin()));
        let request = request.bearer_auth(ADMIN_TOKEN);
        Answer::read(path, body.iter().fold(request, |request, body| request.json(body))).await
    }

    /// Fetches all metrics.
    pub async fn metrics(&self) -> Metrics {
        let answer = self.admin_get("/metrics").await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
        Metrics(answer.text)
    }

    /// Waits until a series (`switchboard_degraded{part="redis"}`) has a value that `check` accepts.
    pub async fn metric(&self, series: &str, check: impl Fn(f64) -> bool) -> f64 {
        eventually(&format!("the awaited value of {series}"), async || {
            self.metrics().await.get(series).filter(|&v| check(v))
        })
        .await
    }

    /// Makes a closed conversation over REST and returns its id.
    pub async fn conversation(&self, owner_token: &str, members: &[&str]) -> String {
        let body = serde_json::json!({ "name": "test", "is_group": true, "participant_ids": members });
        let answer = self.post("/api/chat/conversations", owner_token, &body).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
        answer.json["id"].as_str().expect("the answer has an id").to_owned()
    }
}

/// An HTTP response.
#[derive(Debug)]
pub struct Answer {
    /// Status.
    pub status: StatusCode,
    /// Headers.
    pub headers: reqwest::header::HeaderMap,
    /// Body.
    pub text: String,
    /// Body as JSON; null if it isn't JSON.
    pub json: Value,
}

impl Answer {
    async fn read(path: &str, request: reqwest::RequestBuilder) -> Self {
        let response = within(&format!("an answer from {path}"), request.send()).await;
        let response = response.unwrap_or_else(|error| panic!("{path}: {error}"));
        let (status, headers) = (response.status(), response.headers().clone());
        let text = within(&format!("the body of {path}"), response.text()).await.expect("the body is text");
        let json = serde_json::from_str(&text).unwrap_or(Value::Null);
        Self { status, headers, text, json }
    }
}

/// Metrics in Prometheus' text format.
#[derive(Debug)]
pub struct Metrics(pub String);

impl Metrics {
    /// Returns the value of a series, named as in the text: `switchboard_opens_total{dialect="native"}`.
    pub fn get(&self, series: &str) -> Option<f64> {
        self.0.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
    }

    /// Returns the sum over all series of a name.
    pub fn sum(&self, name: &str) -> f64 {
        let values = self.0.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            rest.starts_with([' ', '{']).then(|| rest.rsplit(' ').next()?.parse::<f64>().ok())?
        });
        values.sum()
    }
}
