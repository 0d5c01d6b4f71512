//! How to connect to servers of one kind: login, TLS and TCP. Where they are, [`super::target`] knows.

use std::{
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use redis::{
    Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion, RedisConnectionInfo, RedisError,
    TlsCertificates,
    io::tcp::{TcpSettings, socket2::TcpKeepalive},
};

use super::types::StartError;
use crate::config::{HostPort, RedisLogin};

/// Maximum wait for a reply.
pub(super) const RESPONSE_TIMEOUT: Duration = Duration::from_millis(500);
/// Maximum wait for a connection.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// The place at which a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// An address.
    Host(HostPort),
    /// A socket on this machine.
    Socket(PathBuf),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(address) => address.fmt(f),
            Self::Socket(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Makes clients with RESP3 (for push messages), TCP_NODELAY, and detection of half-open connections.
#[derive(Clone)]
pub(super) struct Connector {
    /// All but the host and the port.
    template: ConnectionInfo,
}

impl Connector {
    /// A connector for servers with this login and database. With `tls`, only the certificates of `ca_file` are trusted, or
    /// the system's.
    ///
    /// # Errors
    /// The CA file can't be used.
    pub(super) fn new(
        login: &RedisLogin,
        database: u32,
        tls: bool,
        ca_file: Option<&Path>,
    ) -> Result<Self, StartError> {
        let keepalive = TcpKeepalive::new().with_time(Duration::from_secs(10)).with_interval(Duration::from_secs(5));
        let tcp = TcpSettings::default().set_nodelay(true).set_keepalive(keepalive);
        #[cfg(target_os = "linux")]
        let tcp = tcp.set_user_timeout(Duration::from_secs(10));
        let mut settings = RedisConnectionInfo::default().set_protocol(ProtocolVersion::RESP3).set_skip_set_lib_name();
        settings = settings.set_db(database.into());
        if let Some(user) = &login.user {
            settings = settings.set_username(user);
        }
        if let Some(password) = &login.password {
            settings = settings.set_password(password.reveal());
        }
        let host = String::new();
        let address = match tls {
            true => ConnectionAddr::TcpTls { host, port: 0, insecure: false, tls_params: None },
            false => ConnectionAddr::Tcp(host, 0),
        };
        let template = address.into_connection_info().map_err(|_| StartError::BadUrl)?;
        let template = template.set_tcp_settings(tcp).set_redis_settings(settings);
        match ca_file.filter(|_| tls) {
            Some(path) => Ok(Self { template: trusting(template, path)? }),
            None => Ok(Self { template }),
        }
    }

    /// A client of the server at `place`. Makes no connection.
    pub(super) fn client(&self, place: &Place) -> Result<Client, RedisError> {
        let address = match (place, self.template.addr()) {
            (Place::Socket(path), _) => ConnectionAddr::Unix(path.clone()),
            (Place::Host(HostPort { host, port }), ConnectionAddr::TcpTls { insecure, tls_params, .. }) => {
                let (host, tls_params) = (host.clone(), tls_params.clone());
                ConnectionAddr::TcpTls { host, port: *port, insecure: *insecure, tls_params }
            }
            (Place::Host(HostPort { host, port }), _) => ConnectionAddr::Tcp(host.clone(), *port),
        };
        Client::open(self.template.clone().set_addr(address))
    }
}

/// The same, and only the certificates in this file are trusted.
fn trusting(template: ConnectionInfo, path: &Path) -> Result<ConnectionInfo, StartError> {
    let bad = |reason: String| StartError::BadCa { path: path.to_owned(), reason };
    let pem = std::fs::read(path).map_err(|error| bad(error.to_string()))?;
    if !pem.windows(27).any(|part| part == b"-----BEGIN CERTIFICATE-----") {
        return Err(bad("no certificate in it".to_owned()));
    }
    let client = Client::build_with_tls(template, TlsCertificates { client_tls: None, root_cert: Some(pem) })
        .map_err(|error| bad(error.category().to_owned()))?;
    Ok(client.get_connection_info().clone())
}
