//! [`Access`]: the server's URL and the token for it.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use super::super::{
    Failure,
    running::Running,
    server_url::{NATIVE_PATH, ServerUrl},
};
use crate::{
    auth::{Auth, Grant},
    config::{self, AuthConfig, Sources},
    model::{Clock, UserId},
    restrictions::Restrictions,
};

/// Environment variable that holds a token if `--token` is not given.
pub(super) const TOKEN_VARIABLE: &str = "SWITCHBOARD_TOKEN";
/// Lifetime of a token minted here. Each connection gets a new one.
const TOKEN_TTL: Duration = Duration::from_secs(24 * 3_600);

/// Location of the server.
enum Server {
    /// A URL given by the user.
    Url(ServerUrl),
    /// The dev with this data folder. Its address is read before each connection, because a restart may change it.
    Dev(PathBuf),
}

/// Source of the token.
enum Credentials {
    /// A token given by the user.
    Given(String),
    /// Tokens minted here.
    Minted { auth: Box<Auth>, user: UserId, name: String },
}

/// A server, and credentials for it.
pub(super) struct Access {
    server: Server,
    credentials: Credentials,
}

/// The user's options for server and token.
pub(super) struct AccessOptions<'a> {
    pub(super) url: Option<&'a str>,
    pub(super) token: Option<&'a str>,
    pub(super) user: Option<&'a UserId>,
    pub(super) name: Option<&'a str>,
}

impl Access {
    /// Determines server and credentials from the options and the sources.
    pub(super) fn resolve(options: &AccessOptions<'_>, sources: &Sources) -> Result<Self, Failure> {
        let url = options.url.map(ServerUrl::parse).transpose().map_err(Failure::Runtime)?;
        let variable = || (sources.environment)(TOKEN_VARIABLE).and_then(|value| value.into_string().ok());
        let token = options.token.map(str::to_owned).or_else(variable).filter(|token| !token.trim().is_empty());
        let folder = config::data_folder(sources)?;
        let credentials = match token {
            Some(token) => Credentials::Given(token.trim().to_owned()),
            None => minting_credentials(options, sources, url.as_ref(), &folder)?,
        };
        let server = match url {
            Some(url) => Server::Url(url),
            None => {
                Running::find(&folder).map_err(|why| {
                    Failure::Runtime(format!("{why}. For another server, give its URL: --url ws://HOST:PORT"))
                })?;
                Server::Dev(folder)
            }
        };
        Ok(Self { server, credentials })
    }

    /// The URL for the next connection.
    pub(super) fn url(&self) -> Result<String, String> {
        match &self.server {
            Server::Url(url) => Ok(url.socket(NATIVE_PATH)),
            Server::Dev(folder) => {
                Running::find(folder).map(|running| format!("ws://{}{NATIVE_PATH}", running.clients))
            }
        }
    }

    /// A token for the next connection.
    pub(super) fn token(&self) -> Result<String, String> {
        match &self.credentials {
            Credentials::Given(token) => Ok(token.clone()),
            Credentials::Minted { auth, user, name } => {
                let grant = Grant { user, name: Some(name), role: None, tier: None };
                auth.mint(grant, TOKEN_TTL, None).map(|minted| minted.token).map_err(|error| error.to_string())
            }
        }
    }

    /// True if each connection gets a new token, so that another try may succeed after a refused token.
    pub(super) fn mints_tokens(&self) -> bool {
        matches!(self.credentials, Credentials::Minted { .. })
    }

    /// Remedy for the user if the server refuses the token.
    pub(super) fn token_remedy(&self) -> String {
        match (&self.server, &self.credentials) {
            (_, Credentials::Given(_)) => {
                format!("get a new one from your application, and give it as --token or {TOKEN_VARIABLE}")
            }
            (Server::Dev(folder), _) => format!(
                "it was signed with the secret of {}, or with JWT_SECRET where that is set: dev must use the same",
                folder.display()
            ),
            (Server::Url(_), _) => "it was signed with JWT_SECRET: the server must use the same".to_owned(),
        }
    }

    /// Remedy for the user if the server can't be reached.
    pub(super) fn reach_remedy(&self) -> &'static str {
        match self.server {
            Server::Dev(_) => "start it: switchboard dev",
            Server::Url(_) => "check that the server runs and that --url is right",
        }
    }
}

/// Prepares minting: with JWT_SECRET, or with dev's own secret for a server on this machine.
fn minting_credentials(
    options: &AccessOptions<'_>,
    sources: &Sources,
    url: Option<&ServerUrl>,
    folder: &Path,
) -> Result<Credentials, Failure> {
    let Some(user) = options.user else {
        return Err(Failure::Runtime(format!(
            "the user is unknown: give --user NAME, or a token (--token or {TOKEN_VARIABLE})"
        )));
    };
    let local = url.is_none_or(ServerUrl::is_on_this_machine);
    let config = match AuthConfig::load(false, sources) {
        Ok(config) => config,
        // Use dev's secret for this machine only: another server refuses its tokens and must not receive them.
        Err(_) if local => match (url, Running::find(folder)) {
            (None, Err(why)) => return Err(Failure::Runtime(why)),
            _ => AuthConfig::load(true, sources)?,
        },
        Err(faults) if faults.0.iter().all(|fault| fault.message.starts_with("is required")) => {
            return Err(Failure::Runtime(format!(
                "a token is needed for {}: give one (--token or {TOKEN_VARIABLE}), or set JWT_SECRET to make one",
                url.map(|url| url.socket(NATIVE_PATH)).unwrap_or_default()
            )));
        }
        Err(faults) => return Err(faults.into()),
    };
    let auth = Box::new(Auth::new(&config, Clock::system(), Restrictions::none()).map_err(Failure::runtime)?);
    let name = options.name.map_or_else(|| user.as_str().to_owned(), str::to_owned);
    Ok(Credentials::Minted { auth, user: user.clone(), name })
}
