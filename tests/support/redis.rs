//! A real `redis-server` without persistence.

use std::process::Command;

use redis::aio::MultiplexedConnection;
use tempfile::TempDir;

use super::{Process, Signal, free_port, guard, within};

/// A Redis of the test's own; ended when dropped.
#[derive(Debug)]
pub struct RedisServer {
    port: u16,
    args: Vec<String>,
    // Before the folder: it must have ended when that is removed.
    process: Option<Process>,
    folder: TempDir,
}

impl RedisServer {
    /// Starts one.
    pub async fn start() -> Self {
        Self::with(&[]).await
    }

    /// Starts one with more arguments, like `["--maxmemory", "2mb"]`.
    pub async fn with(args: &[&str]) -> Self {
        let args = args.iter().map(|&arg| arg.to_owned()).collect();
        let mut server = Self { port: 0, args, folder: guard::folder("switchboard-redis-"), process: None };
        let mut failure = String::new();
        // Another process may take the port between the choice and the start.
        for _ in 0..3 {
            server.port = free_port();
            match server.launch().await {
                Ok(()) => return server,
                Err(why) => failure = why,
            }
        }
        panic!("{failure}");
    }

    async fn launch(&mut self) -> Result<(), String> {
        let mut command = Command::new("redis-server");
        command.args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
        command.args(["--loglevel", "notice", "--dir"]).arg(self.folder.path()).args(&self.args);
        let process = Process::spawn(format!("redis-server :{}", self.port), &mut command, Signal::Kill);
        process.line("that it is ready", |line| line.contains("Ready to accept connections").then_some(())).await?;
        self.process = Some(process);
        Ok(())
    }

    fn process(&self) -> &Process {
        self.process.as_ref().expect("Redis was killed and not started again")
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process().pid()
    }

    /// Ends it without a word; what it held is lost.
    pub async fn kill(&mut self) {
        let process = self.process.take().expect("Redis runs");
        process.signal(Signal::Kill);
        process.ended().await;
    }

    /// Starts it again on the same port, empty. Kills it first if it runs.
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

    /// Lets it go on.
    pub fn resume(&self) {
        self.process().signal(Signal::Continue);
    }

    /// A connection to it, for looking at keys.
    pub async fn connection(&self) -> MultiplexedConnection {
        let client = redis::Client::open(self.url()).expect("the URL is well formed");
        within("a connection to Redis", client.get_multiplexed_async_connection()).await.expect("Redis accepts")
    }

    /// Runs one command over a connection of its own, like `["CLIENT", "KILL", "TYPE", "pubsub"]`.
    pub async fn command<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let mut command = redis::Cmd::new();
        for word in words {
            command.arg(word);
        }
        let mut connection = self.connection().await;
        within("an answer from Redis", command.query_async(&mut connection)).await.expect("the command succeeds")
    }
}
