//! A real PostgreSQL. It refuses to run as root; if the tests run as root, it runs as the user `postgres`.

use std::{
    os::unix::{fs::chown, process::CommandExt},
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use tempfile::TempDir;
use tokio::sync::OnceCell;

use super::{Process, Signal, free_port, guard, process::children, within};

/// Settings that make PostgreSQL fast and fit only for tests: a crash of the machine may lose everything.
const NOT_DURABLE: &[(&str, &str)] = &[("fsync", "off"), ("full_page_writes", "off"), ("synchronous_commit", "off")];

/// Settings of every instance.
const SETTINGS: &[(&str, &str)] = &[
    ("listen_addresses", "127.0.0.1"),
    ("unix_socket_directories", ""),
    ("max_connections", "300"),
    ("dynamic_shared_memory_type", "mmap"),
];

/// A running PostgreSQL; dropping it ends the process.
#[derive(Debug)]
pub struct Postgres {
    port: u16,
    settings: Vec<(String, String)>,
    // Declared before the folder: the process must end before its folder is removed.
    process: Option<Process>,
    folder: TempDir,
    databases: AtomicU32,
}

impl Postgres {
    /// The instance shared by the tests of one process, without fsync. Each test makes its own database in it.
    pub async fn shared() -> &'static Self {
        static SHARED: OnceCell<Postgres> = OnceCell::const_new();
        SHARED.get_or_init(|| Self::start(NOT_DURABLE)).await
    }

    /// Starts an instance for one test, to kill, freeze or measure. Without settings it has PostgreSQL's default
    /// durability; `&[("fsync", "off")]` makes it faster.
    pub async fn start(settings: &[(&str, &str)]) -> Self {
        let settings = SETTINGS.iter().chain(settings).map(|&(name, value)| (name.into(), value.into())).collect();
        let folder = private_folder();
        let template = template().await.join("data");
        let copied = Command::new("cp").arg("-a").args([&template, &folder.path().join("data")]).status();
        assert!(copied.expect("cp runs").success(), "the data folder can't be copied");
        Self::start_in(folder, settings).await
    }

    /// Starts a server with a copy of this one's data as it is now, like one that was restored from a snapshot of the disk.
    pub async fn snapshot(&self) -> Self {
        self.base_backup(&format!("127.0.0.1:{}", self.port), &[]).await
    }

    /// Starts a standby that follows this server through `link`, the address of a proxy.
    pub async fn standby(&self, link: &str) -> Self {
        self.base_backup(link, &["--write-recovery-conf"]).await
    }

    async fn base_backup(&self, address: &str, options: &[&str]) -> Self {
        let folder = private_folder();
        let (host, port) = address.rsplit_once(':').expect("an address with a port");
        let mut command = server_program("pg_basebackup", folder.path());
        command.args(["--host", host, "--port", port, "--username", "postgres", "--checkpoint", "fast", "--no-sync"]);
        command.args(options).arg("--pgdata").arg(folder.path().join("data"));
        let copied = tokio::task::spawn_blocking(move || command.output()).await.expect("it does not panic");
        let copied = copied.expect("pg_basebackup runs");
        assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
        Self::start_in(folder, self.settings.clone()).await
    }

    /// Makes a standby a primary.
    pub async fn promote(&self) {
        let client = self.connect("postgres").await;
        let promoted = within("a promotion", client.query_one("SELECT pg_promote()", &[])).await;
        assert!(promoted.expect("the standby answers").get::<_, bool>(0), "the standby was not promoted");
    }

    /// Its address: `host:port`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Starts an instance on the data in a folder.
    async fn start_in(folder: TempDir, settings: Vec<(String, String)>) -> Self {
        let mut server = Self { port: 0, settings, folder, databases: AtomicU32::new(0), process: None };
        let mut failure = String::new();
        // Another process may take the port between its choice and the start.
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
        let mut command = server_program("postgres", self.folder.path());
        command.arg("-D").arg(self.folder.path().join("data")).args(["-p", &self.port.to_string()]);
        for (name, value) in &self.settings {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        let process = Process::spawn(format!("postgres :{}", self.port), &mut command, Signal::Quit);
        // A standby is ready to accept read-only connections.
        let ready = |line: &str| line.contains("database system is ready to accept").then_some(());
        process.line("its ready line", ready).await?;
        self.process = Some(process);
        Ok(())
    }

    fn process(&self) -> &Process {
        self.process.as_ref().expect("PostgreSQL was killed and not started again")
    }

    /// Process id of the postmaster; its backends are its children.
    pub fn pid(&self) -> u32 {
        self.process().pid()
    }

    /// URL of a database.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// Makes an empty database and returns its URL.
    pub async fn database(&self) -> String {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let client = self.connect("postgres").await;
        let statement = format!("CREATE DATABASE {name}");
        within("a new database", client.batch_execute(&statement)).await.expect("the database can be made");
        self.url(&name)
    }

    /// Connects to a database by name, to look at rows.
    pub async fn connect(&self, database: &str) -> tokio_postgres::Client {
        connect(&self.url(database)).await
    }

    /// Kills all of its processes at once, as a power cut would.
    pub async fn kill(&mut self) {
        let process = self.process.take().expect("PostgreSQL runs");
        // Freeze the postmaster first, so that it starts and cleans up no backend meanwhile.
        process.signal(Signal::Stop);
        let mut all = children(process.pid());
        all.push(process.pid());
        Signal::Kill.send(&all);
        process.ended().await;
    }

    /// Starts it again on the same port, with the committed data. Kills it first if it runs.
    pub async fn restart(&mut self) {
        if self.process.is_some() {
            self.kill().await;
        }
        self.launch().await.unwrap_or_else(|why| panic!("{why}"));
    }

    /// Command for one of the clients that come with the server, which works in a folder that it may write to.
    pub fn client_program(&self, name: &str) -> Command {
        server_program(name, self.folder.path())
    }

    /// The folder in which [`Self::client_program`] works.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Freezes all of its processes: connections stay open, nothing answers.
    pub fn pause(&self) {
        self.process().signal(Signal::Stop);
        Signal::Stop.send(&children(self.pid()));
    }

    /// Continues all frozen processes.
    pub fn resume(&self) {
        Signal::Continue.send(&children(self.pid()));
        self.process().signal(Signal::Continue);
    }
}

/// Connects to the database of `url`; the connection's task ends with the client.
pub async fn connect(url: &str) -> tokio_postgres::Client {
    let connecting = tokio_postgres::connect(url, tokio_postgres::NoTls);
    let (client, connection) = within("a connection to PostgreSQL", connecting).await.expect("PostgreSQL accepts");
    tokio::spawn(connection);
    client
}

/// Folder with a fresh data folder, made once per process; each instance gets a copy.
async fn template() -> &'static Path {
    static TEMPLATE: OnceCell<TempDir> = OnceCell::const_new();
    let folder = TEMPLATE.get_or_init(|| async {
        let folder = private_folder();
        // Most installations use a collation that differs from byte order. Use one here too, so that a query that needs
        // byte order and doesn't say so fails.
        let icu = ["--locale-provider=icu", "--icu-locale=en-US"];
        let plain = ["--no-locale"];
        let made = initdb(folder.path(), &icu).or_else(|_| initdb(folder.path(), &plain));
        made.unwrap_or_else(|why| panic!("initdb failed:\n{why}"));
        folder
    });
    folder.await.path()
}

fn initdb(folder: &Path, locale: &[&str]) -> Result<(), String> {
    let mut command = server_program("initdb", folder);
    command.args(["--auth=trust", "--username=postgres", "--encoding=UTF8", "--no-sync"]).args(locale);
    command.arg("-D").arg(folder.join("data"));
    let output = command.output().map_err(|error| error.to_string())?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

/// Makes a folder that only the server's user may read.
pub(super) fn private_folder() -> TempDir {
    let folder = guard::folder("switchboard-postgres-");
    if let Some((user, group)) = other_user() {
        chown(folder.path(), Some(user), Some(group)).expect("root may give folders away");
    }
    folder
}

/// Command for one of PostgreSQL's programs, from `PATH` or from Debian's folder for them.
fn server_program(name: &str, folder: &Path) -> Command {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let newest = versions
        .filter_map(|entry| Some((entry.as_ref().ok()?.file_name().to_str()?.parse::<u32>().ok()?, entry.ok()?.path())))
        .max();
    let program = newest.map_or_else(|| PathBuf::from(name), |(_, path)| path.join("bin").join(name));
    let mut command = Command::new(program);
    command.current_dir(folder).env("LC_ALL", "C.UTF-8");
    if let Some((user, group)) = other_user() {
        command.uid(user).gid(group);
    }
    command
}

/// User and group id of `postgres` if this process runs as root.
pub(super) fn other_user() -> Option<(u32, u32)> {
    use std::os::unix::fs::MetadataExt;
    let root = std::fs::metadata("/proc/self").expect("/proc is mounted").uid() == 0;
    root.then(|| {
        let users = std::fs::read_to_string("/etc/passwd").expect("/etc/passwd is readable");
        let fields = users.lines().find_map(|line| line.strip_prefix("postgres:x:")).expect("a user postgres exists");
        let mut ids = fields.split(':').map_while(|field| field.parse().ok());
        (ids.next().expect("a user id"), ids.next().expect("a group id"))
    })
}
