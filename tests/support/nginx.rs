//! A real nginx with the repository's own configuration, and proxies into it with a chosen source address.
//!
//! The files of `nginx/` are copied. The tests change only what they have to: ports, the nodes' addresses, the
//! certificate, the paths of logs and of the process id. A change whose text isn't in the file fails.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use tempfile::TempDir;
use tokio::{
    io::{AsyncWriteExt, copy, copy_bidirectional},
    net::{TcpListener, TcpSocket, TcpStream},
};
use tokio_util::task::AbortOnDropHandle;

use super::{Node, Process, Signal, free_port, guard, within};

/// Server name in the configuration.
pub const NAME: &str = "chat.example.com";

/// Settings of an nginx that isn't started yet.
#[derive(Debug)]
pub struct NginxBuilder {
    tls: bool,
    nodes: Vec<SocketAddr>,
    changes: Vec<(&'static str, String, String)>,
}

impl NginxBuilder {
    /// Replaces text in a configuration file; panics at the start if the file lacks `from`.
    #[must_use]
    pub fn change(mut self, file: &'static str, from: &str, to: &str) -> Self {
        self.changes.push((file, from.into(), to.into()));
        self
    }

    /// Starts nginx and returns once it listens.
    pub async fn start(self) -> Nginx {
        let mut failure = String::new();
        // Another process may take the port between its choice and the start.
        for _ in 0..3 {
            match self.launch(free_port()).await {
                Ok(nginx) => return nginx,
                Err(why) => failure = why,
            }
        }
        panic!("{failure}");
    }

    async fn launch(&self, port: u16) -> Result<Nginx, String> {
        let folder = guard::folder("switchboard-nginx-");
        let at = folder.path();
        // The workers run as another user and read this folder.
        std::fs::set_permissions(at, std::fs::Permissions::from_mode(0o755)).expect("the folder is ours");
        self.configure(at, port);
        let mut command = Command::new(program());
        command.arg("-p").arg(at).arg("-c").arg(at.join("nginx.conf")).args(["-g", "daemon off;"]);
        let process = Process::spawn(format!("nginx :{port}"), &mut command, Signal::Terminate);
        process.line("its ready line", workers_started(1)).await?;
        Ok(Nginx { process, tls: self.tls, address: (Ipv4Addr::LOCALHOST, port).into(), folder })
    }

    fn configure(&self, at: &Path, port: u16) {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("nginx");
        for file in std::fs::read_dir(repository).expect("nginx/ is there") {
            let file = file.expect("nginx/ can be read");
            std::fs::copy(file.path(), at.join(file.file_name())).expect("it can be copied");
        }
        let here = at.display();
        let (old, new) = if self.tls { ("443", "server.conf") } else { ("80", "server-plain.conf") };
        let nodes: String =
            self.nodes.iter().map(|node| format!("server {node} max_fails=2 fail_timeout=10s;")).collect();
        change(at, "nodes.conf", "server 10.0.0.11:8000 max_fails=2 fail_timeout=10s;", &nodes);
        change(at, "nodes.conf", "server 10.0.0.12:8000 max_fails=2 fail_timeout=10s;", "");
        change(at, "nginx.conf", "include server.conf;", &format!("include {new};"));
        change(at, "nginx.conf", "/run/nginx.pid", &format!("{here}/nginx.pid"));
        // Both logs, of the process and of connections, go to stderr, which the test reads.
        change(at, "nginx.conf", "/var/log/nginx/error.log", "stderr");
        change(at, "nginx.conf", "/var/log/nginx/access.log", &format!("{here}/access.log"));
        change(
            at,
            "nginx.conf",
            "http {",
            &format!(
                "http {{ client_body_temp_path {here}/body; proxy_temp_path {here}/proxy; fastcgi_temp_path {here}/f; uwsgi_temp_path {here}/u; scgi_temp_path {here}/s;"
            ),
        );
        // The machine may lack IPv6.
        change(at, new, &format!("listen [::]:{old}"), "# ");
        change(at, new, &format!("listen {old} "), &format!("listen 127.0.0.1:{port} "));
        if self.tls {
            certificate(at);
            change(at, new, "/etc/nginx/tls/fullchain.pem", &format!("{here}/cert.pem"));
            change(at, new, "/etc/nginx/tls/privkey.pem", &format!("{here}/key.pem"));
        } else {
            change(at, new, "set_real_ip_from 10.0.0.0/8;", "set_real_ip_from 127.0.0.1;");
            change(at, new, "10.0.0.0/8     1;", "127.0.0.1 1;");
        }
        for (file, from, to) in &self.changes {
            change(at, file, from, to);
        }
    }
}

fn change(folder: &Path, file: &str, from: &str, to: &str) {
    let path = folder.join(file);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{file}: {error}"));
    assert!(text.contains(from), "{file} has no {from:?} to change");
    std::fs::write(&path, text.replace(from, to)).expect("the copy can be written");
}

/// Debian installs nginx outside the `PATH` of ordinary users.
fn program() -> PathBuf {
    let debian = Path::new("/usr/sbin/nginx");
    if debian.exists() { debian.into() } else { "nginx".into() }
}

/// Matches the log line at which the workers of the `times`-th configuration start.
fn workers_started(times: usize) -> impl FnMut(&str) -> Option<()> {
    let mut seen = 0;
    move |line| {
        seen += usize::from(line.ends_with("start worker processes"));
        (seen >= times).then_some(())
    }
}

/// Writes a certificate for [`NAME`] and the test authority that signed it.
fn certificate(folder: &Path) {
    let openssl = |words: &str| {
        let made = Command::new("openssl").args(words.split(' ')).current_dir(folder).output().expect("openssl runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    };
    openssl("req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=ca -keyout ca.key -out ca.pem");
    openssl(&format!(
        "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN={NAME} -addext subjectAltName=DNS:{NAME} \
         -addext basicConstraints=critical,CA:FALSE -CA ca.pem -CAkey ca.key -keyout key.pem -out cert.pem"
    ));
}

/// A running nginx; dropping it ends the process.
#[derive(Debug)]
pub struct Nginx {
    // Declared before the folder: the process must end before its folder is removed.
    process: Process,
    tls: bool,
    address: SocketAddr,
    folder: TempDir,
}

impl Nginx {
    /// Builds an nginx with TLS (`server.conf`) in front of these nodes.
    pub fn tls(nodes: &[&Node]) -> NginxBuilder {
        NginxBuilder { tls: true, nodes: nodes.iter().map(|node| node.address()).collect(), changes: Vec::new() }
    }

    /// Builds an nginx behind a load balancer (`server-plain.conf`) in front of these nodes; 127.0.0.1 acts as the
    /// balancer.
    pub fn plain(nodes: &[&Node]) -> NginxBuilder {
        NginxBuilder { tls: false, ..Self::tls(nodes) }
    }

    /// Address on which nginx listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://host:port`.
    pub fn http(&self) -> String {
        format!("http://{}", self.address)
    }

    /// WebSocket URL of nginx with a token of `user`.
    pub fn url(&self, path: &str, user: &str) -> String {
        format!("ws://{}{path}?token={}", self.address, super::token(user))
    }

    /// The test authority's certificate, PEM.
    pub fn authority(&self) -> Vec<u8> {
        std::fs::read(self.folder.path().join("ca.pem")).expect("it was made")
    }

    /// Opens a proxy that connects to nginx from an address of this machine (127.0.0.0/8), with TLS if nginx uses TLS.
    pub async fn from(&self, address: &str) -> SourceProxy {
        let (to, from) = (self.address, address.parse().expect("an address"));
        let ca = self.tls.then(|| self.folder.path().join("ca.pem"));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it listens");
        let accepting = tokio::spawn(async move {
            loop {
                let Ok((client, _)) = listener.accept().await else { continue };
                let ca = ca.clone();
                tokio::spawn(async move {
                    match ca {
                        Some(ca) => forward_tls(client, to, &ca).await,
                        None => forward_tcp(client, from, to).await,
                    }
                });
            }
        });
        SourceProxy { address, _accepting: AbortOnDropHandle::new(accepting) }
    }

    /// Reloads the configuration with a signal, as operators do, and returns once new workers serve.
    pub async fn reload(&self) {
        let at = self.folder.path();
        let words = ["-s", "reload"];
        let done = Command::new(program()).arg("-p").arg(at).arg("-c").arg(at.join("nginx.conf")).args(words).output();
        let done = done.expect("nginx runs");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        self.process.line("the start of new workers", workers_started(2)).await.unwrap_or_else(|why| panic!("{why}"));
    }

    /// Ends nginx and returns its logs: first process and connections, then requests.
    pub async fn end(self) -> (Vec<String>, Vec<String>) {
        self.process.signal(Signal::Terminate);
        within("the end of nginx", self.process.ended()).await;
        let access = std::fs::read_to_string(self.folder.path().join("access.log")).expect("it logs requests");
        (self.process.log(), access.lines().map(str::to_owned).collect())
    }
}

/// A local port that forwards to nginx from a chosen source address; dropping it closes the port.
#[derive(Debug)]
pub struct SourceProxy {
    address: SocketAddr,
    _accepting: AbortOnDropHandle<()>,
}

impl SourceProxy {
    /// Address on which the proxy listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// WebSocket URL of the proxy with a token of `user`.
    pub fn url(&self, path: &str, user: &str) -> String {
        format!("ws://{}{path}?token={}", self.address, super::token(user))
    }
}

async fn forward_tcp(mut client: TcpStream, from: IpAddr, to: SocketAddr) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind((from, 0).into()).expect("an address of this machine");
    let Ok(mut nginx) = socket.connect(to).await else { return };
    let _ = copy_bidirectional(&mut client, &mut nginx).await;
}

/// `openssl s_client` does the TLS; its standard input and output carry the plain text.
async fn forward_tls(mut client: TcpStream, to: SocketAddr, ca: &Path) {
    let mut openssl = tokio::process::Command::new("openssl");
    openssl.args(["s_client", "-quiet", "-connect", &to.to_string(), "-servername", NAME, "-alpn", "http/1.1"]);
    openssl.args(["-verify_return_error", "-verify_hostname", NAME, "-CAfile"]).arg(ca);
    openssl.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let mut openssl = openssl.spawn().expect("openssl starts");
    let mut inwards = openssl.stdin.take().expect("it is piped");
    let mut outwards = openssl.stdout.take().expect("it is piped");
    let (mut read, mut write) = client.split();
    tokio::select! {
        _ = copy(&mut read, &mut inwards) => {}
        _ = copy(&mut outwards, &mut write) => {}
    }
    let _ = client.shutdown().await;
}
