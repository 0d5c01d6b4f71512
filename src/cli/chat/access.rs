//! [`Access`]: the server's URL and the token for it.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use super::super::{Failure, running::Running};
use crate::{
    auth::{Auth, Grant},
    config::{self, AuthConfig, Sources},
    model::{Clock, UserId},
    restrictions::Restrictions,
};

/// Environment variable that holds a token if `--token` is not given.
pub(super) const TOKEN_VARIABLE: &str = "SWITCHBOARD_TOKEN";
/// Path of the native dialect.
const PATH: &str = "/v1/ws";
/// Lifetime of a token minted here. Each connection gets a new one.
const TOKEN_TTL: Duration = Duration::from_secs(24 * 3_600);

/// Location of the server.
enum Server {
    /// A URL given by the user.
    Url(String),
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
        let url = options.url.map(socket_url).transpose().map_err(Failure::Runtime)?;
        let variable = || (sources.environment)(TOKEN_VARIABLE).and_then(|value| value.into_string().ok());
        let token = options.token.map(str::to_owned).or_else(variable).filter(|token| !token.trim().is_empty());
        let folder = config::data_folder(sources)?;
        let credentials = match token {
            Some(token) => Credentials::Given(token.trim().to_owned()),
            None => minting_credentials(options, sources, url.as_deref(), &folder)?,
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
            Server::Url(url) => Ok(url.clone()),
            Server::Dev(folder) => Running::find(folder).map(|running| format!("ws://{}{PATH}", running.clients)),
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
    url: Option<&str>,
    folder: &Path,
) -> Result<Credentials, Failure> {
    let Some(user) = options.user else {
        return Err(Failure::Runtime(format!(
            "the user is unknown: give --user NAME, or a token (--token or {TOKEN_VARIABLE})"
        )));
    };
    let local = url.is_none_or(is_on_this_machine);
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
                url.unwrap_or_default()
            )));
        }
        Err(faults) => return Err(faults.into()),
    };
    let auth = Box::new(Auth::new(&config, Clock::system(), Restrictions::none()).map_err(Failure::runtime)?);
    let name = options.name.map_or_else(|| user.as_str().to_owned(), str::to_owned);
    Ok(Credentials::Minted { auth, user: user.clone(), name })
}

/// Normalizes `--url`: replaces `http` by `ws`, and appends the native path if it is missing.
fn socket_url(text: &str) -> Result<String, String> {
    let bad = || format!("--url must be ws://HOST:PORT or wss://HOST, not {text:?}");
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) => (Some(scheme.to_ascii_lowercase()), rest),
        None => (None, text.trim_start_matches('/')),
    };
    let rest = rest.trim_end_matches('/');
    if rest.is_empty() || rest.starts_with('/') || rest.contains(['?', '#', ' ']) {
        return Err(bad());
    }
    let scheme = match scheme.as_deref() {
        Some("ws" | "http") => "ws",
        Some("wss" | "https") => "wss",
        Some(other) => {
            return Err(format!("--url has the scheme {other}://: use --url ws://{rest}, or wss://{rest} with TLS"));
        }
        None => {
            return Err(format!(
                "--url {text} lacks the scheme ws:// (or wss:// if the server speaks TLS): --url ws://{rest}"
            ));
        }
    };
    Ok(format!("{scheme}://{}{PATH}", rest.strip_suffix(PATH).unwrap_or(rest)))
}

fn is_on_this_machine(url: &str) -> bool {
    let Some((_, rest)) = url.split_once("://") else { return false };
    let authority = rest.split('/').next().unwrap_or_default();
    let host = authority.strip_prefix('[').and_then(|rest| rest.split(']').next());
    let host = host.or_else(|| authority.split(':').next()).unwrap_or_default();
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_normalized() {
        for (given, used) in [
            ("ws://localhost:8000", "ws://localhost:8000/v1/ws"),
            ("https://chat.example.com/", "wss://chat.example.com/v1/ws"),
            ("wss://example.com/chat", "wss://example.com/chat/v1/ws"),
            ("ws://[::1]:8000/v1/ws", "ws://[::1]:8000/v1/ws"),
        ] {
            assert_eq!(socket_url(given).as_deref(), Ok(used));
        }
        for (bad, remedy) in [
            (
                "localhost:8000",
                "lacks the scheme ws:// (or wss:// if the server speaks TLS): --url ws://localhost:8000",
            ),
            ("//chat.example.com/", "--url ws://chat.example.com"),
            ("ftp://x", "--url has the scheme ftp://: use --url ws://x, or wss://x with TLS"),
            ("ws://", "must be ws://HOST:PORT"),
            ("ws:///v1/ws", "must be ws://HOST:PORT"),
            ("ws://x?token=y", "must be ws://HOST:PORT"),
        ] {
            assert!(socket_url(bad).is_err_and(|why| why.contains(remedy)), "{bad}");
        }
    }

    #[test]
    fn only_loopback_urls_are_on_this_machine() {
        for here in ["ws://localhost:1/v1/ws", "ws://127.0.0.1:8000/v1/ws", "ws://[::1]:8000/v1/ws"] {
            assert!(is_on_this_machine(here), "{here}");
        }
        for there in ["ws://10.0.0.1:1/v1/ws", "wss://localhost.example.com/v1/ws", "ws://127.0.0.1.nip.io/v1/ws"] {
            assert!(!is_on_this_machine(there), "{there}");
        }
    }
}
