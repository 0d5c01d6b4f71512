//! How to connect to servers of one kind: login, TLS and TCP. Where they are, [`super::target`] knows.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo, IntoConnectionInfo,
    ProtocolVersion, RedisConnectionInfo, RedisError, TlsCertificates,
    aio::MultiplexedConnection,
    io::tcp::{TcpSettings, socket2::TcpKeepalive},
};
use tokio::time::timeout;

use super::{
    fault,
    link_error::{LinkError, Refusal},
    plain_text,
    types::StartError,
};
use crate::{
    config::{HostPort, RedisConfig, RedisForm, RedisLogin, RedisServers, TlsMaterial},
    credentials::{self, Logins, WatchedTls},
    degrade::Fault,
};

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

/// Connects with RESP3 (for push messages), TCP_NODELAY, and detection of half-open connections.
#[derive(Clone)]
pub(super) struct Connector(Arc<Parts>);

struct Parts {
    /// Everything except the host, the port and the login.
    template: Template,
    database: u32,
    logins: Logins<RedisLogin>,
}

enum Template {
    Plain(Box<ConnectionInfo>),
    Tls(Box<WatchedTls<ConnectionInfo>>),
}

impl Connector {
    /// A connector for the servers of `config`, or for their sentinels. With TLS, only the certificates of its CA file are
    /// trusted, or the system's.
    ///
    /// # Errors
    /// A file of TLS can't be used.
    pub(super) fn new(config: &RedisConfig, of_sentinels: bool) -> Result<Self, StartError> {
        let servers = &config.servers;
        let login = login_of(servers, of_sentinels).ok_or(StartError::BadUrl)?;
        let (tls, files, name) = match (&servers.form, of_sentinels) {
            (RedisForm::Sentinel(sentinels), true) => (sentinels.tls, &config.sentinel_tls, "the sentinels of Redis"),
            _ => (servers.tls, &config.tls, "Redis"),
        };
        let template = match tls {
            true => {
                let files = files.clone();
                Template::Tls(Box::new(WatchedTls::new(files, tls_template).map_err(StartError::BadTls)?))
            }
            false => {
                let plain = template(ConnectionAddr::Tcp(String::new(), 0)).map_err(|_| StartError::BadUrl)?;
                Template::Plain(Box::new(plain))
            }
        };
        let source = config.source.clone();
        let read = move || {
            let servers = source.read_again()?;
            login_of(&servers, of_sentinels).ok_or_else(|| "REDIS_URL names no sentinels any more".to_owned())
        };
        let logins = Logins::new(name, login, &config.source.files(of_sentinels), Box::new(read));
        let database = if of_sentinels { 0 } else { servers.database };
        Ok(Self(Arc::new(Parts { template, database, logins })))
    }

    /// A client of the server at `place`, with the current login. Makes no connection.
    pub(super) fn client(&self, place: &Place) -> Result<Client, RedisError> {
        self.client_with(place, &self.0.logins.current())
    }

    /// Connects to the server at `place`. If it refuses the login, the login's files are read again.
    pub(super) async fn connect(
        &self,
        place: &Place,
        config: &AsyncConnectionConfig,
    ) -> Result<MultiplexedConnection, LinkError> {
        let logins = &self.0.logins;
        let login = logins.current();
        match self.connect_with(place, &login, config).await {
            Err(error) if is_refused_login(&error) => match logins.after_refusal(&login) {
                Some(other) => self.connect_with(place, &other, config).await.map_err(|error| self.explain(error)),
                None => Err(self.explain(error)),
            },
            tried => tried,
        }
    }

    async fn connect_with(
        &self,
        place: &Place,
        login: &RedisLogin,
        config: &AsyncConnectionConfig,
    ) -> Result<MultiplexedConnection, LinkError> {
        let client = self.client_with(place, login)?;
        let connect = client.get_multiplexed_async_connection_with_config(config);
        // The library bounds the connection attempt, but not the name resolution before it.
        let error = match timeout(CONNECT_TIMEOUT + RESPONSE_TIMEOUT, connect).await {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(error)) => self.refused_certificate(&error).unwrap_or_else(|| error.into()),
            Err(_) => LinkError::Timeout,
        };
        Err(plain_text::explain(&client, error).await)
    }

    /// The error for a server that refuses the certificate of this node, or the lack of one; `None` if `error` is another one.
    fn refused_certificate(&self, error: &RedisError) -> Option<LinkError> {
        match &self.0.template {
            Template::Plain(_) => None,
            Template::Tls(tls) => {
                credentials::refused_certificate(error).map(|why| LinkError::CertificateRefused(tls.refused(&why)))
            }
        }
    }

    /// Adds what the files of the login held to a refusal of the login.
    fn explain(&self, error: LinkError) -> LinkError {
        match error {
            LinkError::Refused(Refusal { code, words }) if is_refusal_of_login(&code, &words) => {
                LinkError::Refused(Refusal { code, words: words + &self.0.logins.remark() })
            }
            error => error,
        }
    }

    fn client_with(&self, place: &Place, login: &RedisLogin) -> Result<Client, RedisError> {
        let template = match &self.0.template {
            Template::Plain(template) => ConnectionInfo::clone(template),
            Template::Tls(tls) => tls.current(),
        };
        let address = match (place, template.addr()) {
            (Place::Socket(path), _) => ConnectionAddr::Unix(path.clone()),
            (Place::Host(HostPort { host, port }), ConnectionAddr::TcpTls { insecure, tls_params, .. }) => {
                let (host, tls_params) = (host.clone(), tls_params.clone());
                ConnectionAddr::TcpTls { host, port: *port, insecure: *insecure, tls_params }
            }
            (Place::Host(HostPort { host, port }), _) => ConnectionAddr::Tcp(host.clone(), *port),
        };
        let mut settings = RedisConnectionInfo::default().set_protocol(ProtocolVersion::RESP3).set_skip_set_lib_name();
        settings = settings.set_db(self.0.database.into());
        if let Some(user) = &login.user {
            settings = settings.set_username(user);
        }
        if let Some(password) = &login.password {
            settings = settings.set_password(password.reveal());
        }
        Client::open(template.set_addr(address).set_redis_settings(settings))
    }
}

/// The login at the servers, or at their sentinels; `None` without sentinels.
fn login_of(servers: &RedisServers, of_sentinels: bool) -> Option<RedisLogin> {
    match (&servers.form, of_sentinels) {
        (_, false) => Some(servers.login.clone()),
        (RedisForm::Sentinel(sentinels), true) => Some(sentinels.login.clone()),
        (_, true) => None,
    }
}

/// True if the server refused the password or the user. A lack of rights is another refusal.
fn is_refused_login(error: &LinkError) -> bool {
    matches!(error, LinkError::Refused(Refusal { code, words }) if is_refusal_of_login(code, words))
}

fn is_refusal_of_login(code: &str, words: &str) -> bool {
    let refusal = Refusal { code: code.to_owned(), words: words.to_owned() };
    code != "NOPERM" && fault::refused(&refusal).fault == Fault::RedisDeniesAccess
}

fn template(address: ConnectionAddr) -> Result<ConnectionInfo, RedisError> {
    let keepalive = TcpKeepalive::new().with_time(Duration::from_secs(10)).with_interval(Duration::from_secs(5));
    let tcp = TcpSettings::default().set_nodelay(true).set_keepalive(keepalive);
    #[cfg(target_os = "linux")]
    let tcp = tcp.set_user_timeout(Duration::from_secs(10));
    Ok(address.into_connection_info()?.set_tcp_settings(tcp))
}

/// The template for TLS with these certificates.
fn tls_template(material: &TlsMaterial) -> Result<ConnectionInfo, String> {
    if material.ca.as_ref().is_some_and(|pem| !pem.windows(27).any(|part| part == b"-----BEGIN CERTIFICATE-----")) {
        return Err("no certificate in the CA file".to_owned());
    }
    let address = ConnectionAddr::TcpTls { host: String::new(), port: 0, insecure: false, tls_params: None };
    let template = template(address).map_err(|error| error.category().to_owned())?;
    if *material == TlsMaterial::default() {
        return Ok(template);
    }
    let client_tls =
        material.client.clone().map(|(client_cert, client_key)| ClientTlsConfig { client_cert, client_key });
    let client = Client::build_with_tls(template, TlsCertificates { client_tls, root_cert: material.ca.clone() })
        .map_err(|error| error.category().to_owned())?;
    Ok(client.get_connection_info().clone())
}
