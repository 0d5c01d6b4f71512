//! A real `redis-server` without persistence.

use std::{process::Command, time::Duration};

use redis::{AsyncConnectionConfig, aio::MultiplexedConnection};
use tempfile::TempDir;

use super::{DEADLINE, Process, Signal, free_port, guard, within};

/// Maximum time that a running Redis takes for an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// A running Redis; dropping it ends the process.
#[derive(Debug)]
pub struct RedisServer {
    port: u16,
    args: Vec<String>,
    /// Lines of its configuration, if it is a sentinel.
    sentinel: Option<Vec<String>>,
    /// The port for the other nodes of its cluster, if it belongs to one.
    bus: Option<u16>,
    // Declared before the folder: the process must end before its folder is removed.
    process: Option<Process>,
    folder: TempDir,
}

impl RedisServer {
    /// Starts a Redis with the default arguments.
    pub async fn start() -> Self {
        Self::with(&[]).await
    }

    /// Starts a Redis with more arguments, for example `["--maxmemory", "2mb"]`.
    pub async fn with(args: &[&str]) -> Self {
        Self::start_as(args, None).await
    }

    /// Starts a Sentinel that watches no primary.
    pub async fn sentinel() -> Self {
        Self::sentinel_with(&[]).await
    }

    /// Starts a Sentinel with more lines of its configuration.
    pub async fn sentinel_with(lines: &[&str]) -> Self {
        Self::start_as(&[], Some(lines.iter().map(|&line| line.to_owned()).collect())).await
    }

    /// Starts a Redis that can become a node of a cluster.
    pub async fn cluster_node(args: &[&str]) -> Self {
        Self::launch_new(Self::new(args, None), true).await
    }

    /// The port for the other nodes of its cluster.
    pub fn bus_port(&self) -> u16 {
        self.bus.expect("the server belongs to a cluster")
    }

    fn new(args: &[&str], sentinel: Option<Vec<String>>) -> Self {
        let args = args.iter().map(|&arg| arg.to_owned()).collect();
        let folder = guard::folder("switchboard-redis-");
        Self { port: 0, args, sentinel, bus: None, folder, process: None }
    }

    async fn start_as(args: &[&str], sentinel: Option<Vec<String>>) -> Self {
        Self::launch_new(Self::new(args, sentinel), false).await
    }

    async fn launch_new(mut server: Self, of_cluster: bool) -> Self {
        let mut failure = String::new();
        // Another process may take the port between its choice and the start.
        for _ in 0..3 {
            server.port = free_port();
            server.bus = of_cluster.then(free_port);
            match server.launch().await {
                Ok(()) => return server,
                Err(why) => failure = why,
            }
        }
        panic!("{failure}");
    }

    async fn launch(&mut self) -> Result<(), String> {
        let mut command = Command::new("redis-server");
        let ready = if let Some(lines) = &self.sentinel {
            let file = self.folder.path().join("sentinel.conf");
            std::fs::write(&file, format!("port {}\nbind 127.0.0.1\n{}\n", self.port, lines.join("\n")))
                .map_err(|error| error.to_string())?;
            command.arg(file).arg("--sentinel");
            "Sentinel ID is"
        } else {
            command.args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
            command.args(["--loglevel", "notice", "--dir"]).arg(self.folder.path()).args(&self.args);
            if let Some(bus) = self.bus {
                command.args(["--cluster-enabled", "yes", "--cluster-port", &bus.to_string()]);
            }
            "Ready to accept connections"
        };
        let process = Process::spawn(format!("redis-server :{}", self.port), &mut command, Signal::Kill);
        process.line("its ready line", |line| line.contains(ready).then_some(())).await?;
        self.process = Some(process);
        Ok(())
    }

    fn process(&self) -> &Process {
        self.process.as_ref().expect("Redis was killed and not started again")
    }

    /// URL.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    /// Its address: `host:port`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// True unless it was killed.
    pub fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.process().pid()
    }

    /// Kills it; its data is lost.
    pub async fn kill(&mut self) {
        let process = self.process.take().expect("Redis runs");
        process.signal(Signal::Kill);
        process.ended().await;
    }

    /// Starts it again, empty, on the same port. Kills it first if it runs.
    pub async fn restart(&mut self) {
        if self.process.is_some() {
            self.kill().await;
        }
        self.launch().await.unwrap_or_else(|why| panic!("{why}"));
    }

    /// Freezes it: connections stay open, nothing answers.
    pub fn pause(&self) {
        self.process().signal(Signal::Stop);
    }

    /// Continues the frozen process.
    pub fn resume(&self) {
        self.process().signal(Signal::Continue);
    }

    /// Connects to it, to look at keys.
    pub async fn connection(&self) -> MultiplexedConnection {
        let client = redis::Client::open(self.url()).expect("the URL is well formed");
        // The timeouts of the library are shorter than a busy machine needs.
        let patient = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(Some(PATIENCE));
        let connecting = client.get_multiplexed_async_connection_with_config(&patient);
        within("a connection to Redis", connecting).await.expect("Redis accepts")
    }

    /// The lines of its log since its last start; none while it is killed.
    pub fn log(&self) -> Vec<String> {
        self.process.as_ref().map(Process::log).unwrap_or_default()
    }

    /// Waits for a line of its log; lines already logged count.
    pub async fn logged(&self, text: &str) {
        let line = self.process().line(text, |line| line.contains(text).then_some(()));
        line.await.unwrap_or_else(|why| panic!("{why}"));
    }

    /// As a replica, gets no more writes of its master until [`Self::catch_up`].
    pub async fn fall_behind(&self, master_url: &str) {
        for (name, value) in [("masteruser", "nobody"), ("masterauth", "wrong")] {
            let _: String = self.command(&["CONFIG", "SET", name, value]).await;
        }
        let ended = ask_redis::<i64>(master_url, &["CLIENT", "KILL", "TYPE", "replica"], DEADLINE).await;
        ended.expect("the master answers");
    }

    /// As a replica, gets writes again.
    pub async fn catch_up(&self) {
        for name in ["masteruser", "masterauth"] {
            let _: String = self.command(&["CONFIG", "SET", name, ""]).await;
        }
    }

    /// Runs one command over its own connection, for example `["CLIENT", "KILL", "TYPE", "pubsub"]`.
    pub async fn command<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let mut command = redis::Cmd::new();
        for word in words {
            command.arg(word);
        }
        let mut connection = self.connection().await;
        within("an answer from Redis", command.query_async(&mut connection)).await.expect("the command succeeds")
    }
}

/// Runs a command on the server of `url`; `None` if it refuses, or does not answer within `limit`.
pub async fn ask_redis<T: redis::FromRedisValue>(url: &str, words: &[&str], limit: Duration) -> Option<T> {
    let client = redis::Client::open(url).expect("the URL is well formed");
    let patient = AsyncConnectionConfig::new().set_response_timeout(Some(limit));
    let asking = async {
        let mut connection = client.get_multiplexed_async_connection_with_config(&patient).await.ok()?;
        redis::cmd(words[0]).arg(&words[1..]).query_async(&mut connection).await.ok()
    };
    tokio::time::timeout(limit, asking).await.ok().flatten()
}
