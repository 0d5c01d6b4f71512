//! A redis-server for one test: it starts empty, keeps nothing on disk, and ends with the test.

use std::{
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// A running redis-server.
pub(crate) struct Server {
    port: u16,
    child: Child,
    folder: tempfile::TempDir,
}

impl Server {
    /// Starts a server on a free port.
    pub(crate) fn start() -> Self {
        loop {
            let port = free_port();
            let folder = tempfile::tempdir().unwrap();
            let mut server = Self { port, child: spawn(port, &folder), folder };
            if server.answers() {
                return server;
            }
        }
    }

    /// Starts a server whose clock [`Server::shift_clock`] sets.
    pub(crate) fn with_own_clock() -> Self {
        let mut server = Self::start();
        server.kill();
        let library = server.folder.path().join("clock.so");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/backplane/shifted_clock.c");
        let built = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(source).status().unwrap();
        assert!(built.success());
        server.shift_clock(0);
        server.restart();
        server
    }

    /// Sets the clock of [`Server::with_own_clock`] forward by these seconds, or back.
    pub(crate) fn shift_clock(&self, seconds: i64) {
        let (new, file) = (self.folder.path().join("shift.new"), self.folder.path().join("shift"));
        std::fs::write(&new, seconds.to_string()).unwrap();
        std::fs::rename(new, file).unwrap();
    }

    /// Starts a server that also speaks TLS, with a certificate for `localhost`. Returns the TLS port and the file of
    /// the CA.
    pub(crate) fn with_tls() -> (Self, u16, std::path::PathBuf) {
        let server = Self::start();
        let (folder, port) = (server.folder.path(), free_port());
        make_certificate(folder);
        let client = redis::Client::open(server.url()).unwrap();
        let mut connection = client.get_connection().unwrap();
        let mut set = redis::cmd("CONFIG");
        set.arg("SET").arg("tls-auth-clients").arg("no");
        for (name, file) in [("cert", "cert.pem"), ("key", "key.pem"), ("ca-cert", "ca.pem")] {
            set.arg(format!("tls-{name}-file")).arg(folder.join(file).to_str().unwrap());
        }
        set.arg("tls-port").arg(port).exec(&mut connection).unwrap();
        let ca = folder.join("ca.pem");
        (server, port, ca)
    }

    /// Reserves a port without a server; [`Server::restart`] starts it.
    pub(crate) fn later() -> Self {
        let mut server = Self::start();
        server.kill();
        server
    }

    /// Kills the server; its data is lost.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again, empty, on the same port.
    pub(crate) fn restart(&mut self) {
        self.child = spawn(self.port, &self.folder);
        assert!(self.answers(), "redis-server did not come back");
    }

    /// Freezes it: connections stay open, nothing answers.
    pub(crate) fn freeze(&self) {
        self.signal("-STOP");
    }

    /// Ends the freeze.
    pub(crate) fn thaw(&self) {
        self.signal("-CONT");
    }

    /// URL.
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Runs a command over its own connection.
    pub(crate) async fn query<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let client = redis::Client::open(self.url()).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        command.query_async(&mut connection).await.unwrap()
    }

    /// Calls of each command so far, including those by scripts.
    pub(crate) async fn calls(&self) -> std::collections::BTreeMap<String, u64> {
        let stats: String = self.query(&["INFO", "commandstats"]).await;
        let parse = |line: &str| {
            let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
            Some((name.to_owned(), rest.split_once(',')?.0.parse().ok()?))
        };
        stats.lines().filter_map(parse).collect()
    }

    fn answers(&mut self) -> bool {
        let deadline = Instant::now() + Duration::from_secs(10);
        while Instant::now() < deadline && self.child.try_wait().unwrap().is_none() {
            let client = redis::Client::open(self.url()).unwrap();
            let connection = client.get_connection_with_timeout(Duration::from_millis(200));
            if connection.is_ok_and(|mut one| redis::cmd("PING").query::<String>(&mut one).is_ok()) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        false
    }

    fn signal(&self, signal: &str) {
        assert!(Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap().success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The process may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Makes `ca.pem`, and `cert.pem` with `key.pem` for `localhost`.
pub(crate) fn make_certificate(folder: &Path) {
    let openssl = |words: &str| {
        let run = Command::new("openssl").args(words.split_whitespace()).current_dir(folder).output().unwrap();
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    };
    openssl("req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=ca -keyout ca.key -out ca.pem");
    openssl(
        "req -newkey rsa:2048 -nodes -subj /CN=localhost -addext subjectAltName=DNS:localhost -keyout key.pem -out csr.pem",
    );
    openssl("x509 -req -in csr.pem -CA ca.pem -CAkey ca.key -days 2 -copy_extensions copy -out cert.pem");
}

fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

fn spawn(port: u16, folder: &tempfile::TempDir) -> Child {
    let mut command = Command::new("redis-server");
    let clock = folder.path().join("clock.so");
    if clock.exists() {
        command.env("LD_PRELOAD", clock).env("SHIFT_FILE", folder.path().join("shift"));
    }
    command
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
        .arg("--dir")
        .arg(folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}
