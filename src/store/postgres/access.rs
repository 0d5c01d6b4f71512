//! The way to the server: hosts, login and TLS. The login is read again from its file when the server refuses it, the
//! certificates when their files change.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio_postgres::{Client, Config, Connection, Socket, config::TargetSessionAttrs, tls::MakeTlsConnect};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{
    super::{Cause, StoreError},
    errors::{connect_error, is_refused_login},
    settings,
};
use crate::{
    config::PostgresConfig,
    credentials::{Logins, WatchedTls, refused_certificate},
};

/// A client, and what reads and writes for it.
pub(super) type Connected = (Client, Connection<Socket, <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream>);

/// The way to the server.
pub(super) struct Access {
    /// All hosts.
    all: Config,
    /// The settings for each host alone with its name, without a login.
    hosts: Vec<(String, Config)>,
    /// The place of the host that was used last.
    last_used: AtomicUsize,
    logins: Logins<Login>,
    tls: WatchedTls<MakeRustlsConnect>,
}

/// A login at the server. It has no `Debug`, because it holds a password.
#[derive(PartialEq)]
struct Login {
    user: Option<String>,
    password: Option<Vec<u8>>,
}

impl Login {
    fn of(config: &Config) -> Self {
        Self { user: config.get_user().map(str::to_owned), password: config.get_password().map(<[u8]>::to_vec) }
    }

    /// The settings with this login.
    fn in_config(&self, config: &Config) -> Config {
        let mut config = config.clone();
        self.user.as_ref().map(|user| config.user(user));
        self.password.as_ref().map(|password| config.password(password));
        config
    }
}

impl Access {
    /// The way to the server of `config`. Makes no connection.
    ///
    /// # Errors
    /// The URL or the certificates are invalid.
    pub(super) fn of(config: &PostgresConfig) -> Result<Self, StoreError> {
        let invalid = |why: String| StoreError::Failed(why.into());
        let read = config.read_again().map_err(invalid)?;
        let login = Login::of(&read);
        let all = settings::of_connections(read, &config.tls);
        let hosts = settings::each_host(&all);
        let trusts = settings::uses_tls(&all);
        let tls = WatchedTls::new(config.tls.clone(), move |material| settings::tls(material, trusts))
            .map_err(|why| invalid(format!("the certificates for PostgreSQL can't be used: {why}")))?;
        let source = config.clone();
        let read = move || source.read_again().map(|config| Login::of(&config));
        let logins = Logins::new("PostgreSQL", login, &config.files(), Box::new(read));
        Ok(Self { all, hosts, last_used: AtomicUsize::new(0), logins, tls })
    }

    /// Every host with its name for people, and the settings for it alone.
    pub(super) fn hosts(&self) -> Vec<(String, Config)> {
        let login = self.logins.current();
        self.hosts.iter().map(|(name, host)| (name.clone(), login.in_config(host))).collect()
    }

    /// TLS with the current certificates.
    pub(super) fn tls(&self) -> MakeRustlsConnect {
        self.tls.current()
    }

    /// Connects. If the server refuses the login, the login's files are read again.
    pub(super) async fn connect(&self) -> Result<Connected, tokio_postgres::Error> {
        let login = self.logins.current();
        match self.connect_with(&login).await {
            Err(error) if is_refused_login(&error) => match self.logins.after_refusal(&login) {
                Some(other) => match self.connect_with(&other).await {
                    // The refusal of a former login would hide why the present one is refused.
                    Err(_) if !Arc::ptr_eq(&other, &self.logins.current()) => Err(error),
                    tried => tried,
                },
                None => Err(error),
            },
            tried => tried,
        }
    }

    /// The error of a failed connection. If the login was refused, it says what the login's files held; if the certificate of
    /// this node was, it names its file.
    pub(super) fn explain(&self, error: &tokio_postgres::Error) -> StoreError {
        let remark = if is_refused_login(error) { self.logins.remark() } else { String::new() };
        let add = |cause: Cause| match refused_certificate(error) {
            Some(why) => Cause { detail: self.tls.refused(&why), ..cause },
            None => Cause { detail: cause.detail + &remark, ..cause },
        };
        match connect_error(error) {
            StoreError::Failed(cause) => StoreError::Failed(add(cause)),
            StoreError::Unavailable(cause) => StoreError::Unavailable(add(cause)),
            other => other,
        }
    }

    /// Connects to the first of the hosts that lets this user in and is as the URL demands. A host that accepts and then says
    /// nothing, because it is frozen or busy, delays the others by its share of the time and no more, and may still answer.
    async fn connect_with(&self, login: &Arc<Login>) -> Result<Connected, tokio_postgres::Error> {
        let (count, each) = (self.hosts.len(), settings::host_timeout(self.hosts.len()));
        if count < 2 {
            return login.in_config(&self.all).connect(self.tls()).await;
        }
        // Only one host takes writes, so the order is of no importance then.
        let writable = self.all.get_target_session_attrs() == TargetSessionAttrs::ReadWrite;
        let first = if writable { self.last_used.load(Ordering::Acquire) } else { 0 };
        let mut others = (0..count).map(|place| (first + place) % count);
        let (mut asked, mut refused) = (FuturesUnordered::new(), None::<tokio_postgres::Error>);
        loop {
            if let Some(at) = others.next() {
                let (host, tls) = (login.in_config(&self.hosts[at].1), self.tls());
                asked.push(async move { (at, host.connect(tls).await) });
            }
            let is_last = others.len() == 0;
            // A refused login is more telling than a host that is slow or away.
            let is_settled = refused.as_ref().is_some_and(is_refused_login);
            let patience = if is_last && !is_settled { Duration::MAX } else { each };
            match tokio::time::timeout(patience, asked.next()).await {
                Ok(Some((at, Ok(connected)))) => {
                    self.last_used.store(at, Ordering::Release);
                    return Ok(connected);
                }
                Ok(Some((_, Err(error)))) if is_settled && !is_refused_login(&error) => {}
                Ok(Some((_, Err(error)))) => refused = Some(error),
                Ok(None) | Err(_) if is_last => break,
                Ok(None) | Err(_) => {}
            }
        }
        match refused {
            Some(error) => Err(error),
            // Not reached: the loop ends after a refusal.
            None => login.in_config(&self.all).connect(self.tls()).await,
        }
    }
}
