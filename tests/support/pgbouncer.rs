//! A real PgBouncer.

use std::{fmt::Write as _, fs, os::unix::process::CommandExt, path::Path, process::Command};

use tempfile::TempDir;

use super::{
    Process, Signal, free_port,
    postgres::{other_user, private_folder},
};

/// Debian installs it outside the usual PATH.
const DEBIAN: &str = "/usr/sbin/pgbouncer";

/// A running PgBouncer; dropping it ends the process.
#[derive(Debug)]
pub struct PgBouncer {
    port: u16,
    /// `host:port` of the server.
    server: String,
    /// More lines of its configuration.
    more: String,
    process: Option<Process>,
    folder: TempDir,
}

impl PgBouncer {
    /// Starts one before the server of `database`, a URL.
    pub async fn before(database: &str, pool_mode: &str) -> Self {
        Self::with(database, pool_mode, "").await
    }

    /// The same with more lines of its configuration.
    pub async fn with(database: &str, pool_mode: &str, more: &str) -> Self {
        let folder = private_folder();
        let port = free_port();
        let server = database.split('@').nth(1).unwrap().split('/').next().unwrap().to_owned();
        let mut pooler = Self { port, server, more: more.to_owned(), process: None, folder };
        pooler.restart_as(pool_mode).await;
        pooler
    }

    /// Ends it, and starts it again on the same port in another mode.
    pub async fn restart_as(&mut self, pool_mode: &str) {
        if let Some(running) = self.process.take() {
            running.signal(Signal::Kill);
            running.ended().await;
        }
        let (host, server_port) = self.server.split_once(':').unwrap();
        let port = self.port;
        let mut settings = String::from("[databases]\n");
        writeln!(settings, "* = host={host} port={server_port} user=postgres").unwrap();
        writeln!(
            settings,
            "[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n\
             pool_mode = {pool_mode}\nmax_client_conn = 200\ndefault_pool_size = 50\nignore_startup_parameters = extra_float_digits\n{}",
            self.more
        )
        .unwrap();
        let path = self.folder.path().join("pgbouncer.ini");
        fs::write(&path, settings).unwrap();
        // It refuses to run as root, like PostgreSQL.
        let mut command = Command::new(if Path::new(DEBIAN).exists() { DEBIAN } else { "pgbouncer" });
        if let Some((user, group)) = other_user() {
            command.uid(user).gid(group);
        }
        let process = Process::spawn(format!("pgbouncer :{port}"), command.arg(&path), Signal::Kill);
        process.line("its ready line", |line| line.contains("process up").then_some(())).await.unwrap();
        self.process = Some(process);
    }

    /// `host:port` of its own.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// URL of a database through it.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{}", self.port, database.rsplit('/').next().unwrap())
    }
}
