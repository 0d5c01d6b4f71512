//! The users' tokens: minted here, or read from a file.

use std::{fs, path::Path, time::Duration};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;

use super::super::Failure;
use crate::{
    auth::{Auth, Grant},
    config::{AuthConfig, Sources},
    model::{Clock, UserId},
    restrictions::Restrictions,
};

/// The source of the tokens.
pub(super) enum Tokens {
    /// Minted here, each with this lifetime.
    Minted(Box<Auth>, Duration),
    /// Given by the user.
    Given(Vec<UserToken>),
}

/// A user, and the token with which the user connects.
#[derive(Debug, Clone)]
pub(super) struct UserToken {
    pub(super) user: UserId,
    pub(super) token: String,
}

/// The part of a token that names its user. Only the server verifies it.
#[derive(Deserialize)]
struct Subject {
    sub: UserId,
}

impl Tokens {
    /// Tokens that are minted with JWT_SECRET, or with dev's secret.
    pub(super) fn minted(dev: bool, sources: &Sources, lifetime: Duration) -> Result<Self, Failure> {
        let config = AuthConfig::load(dev, sources)?;
        let auth = Auth::new(&config, Clock::system(), Restrictions::none()).map_err(Failure::runtime)?;
        Ok(Self::Minted(Box::new(auth), lifetime))
    }

    /// The tokens in a file, one per line.
    ///
    /// # Errors
    /// The message for the user.
    pub(super) fn read(file: &Path) -> Result<Self, String> {
        let text = fs::read_to_string(file).map_err(|error| format!("{} can't be read: {error}", file.display()))?;
        let lines = text.lines().map(str::trim).enumerate().filter(|(_, line)| !line.is_empty());
        let tokens = lines.map(|(at, token)| {
            let user = subject(token).ok_or_else(|| {
                format!("line {} of {} is no token with a user (sub): write one token per line", at + 1, file.display())
            })?;
            Ok(UserToken { user, token: token.to_owned() })
        });
        let tokens = tokens.collect::<Result<Vec<_>, String>>()?;
        if tokens.is_empty() {
            return Err(format!("{} has no token: write one per line", file.display()));
        }
        Ok(Self::Given(tokens))
    }

    /// Number of tokens; none if there is no limit.
    pub(super) fn limit(&self) -> Option<usize> {
        match self {
            Self::Minted(..) => None,
            Self::Given(tokens) => Some(tokens.len()),
        }
    }

    /// The users of a run with their tokens; `name` is the id of a user whose token is minted.
    ///
    /// # Errors
    /// The message for the user.
    pub(super) fn of(self, users: u32, name: impl Fn(u32) -> String) -> Result<Vec<UserToken>, String> {
        match self {
            Self::Given(mut tokens) => {
                tokens.truncate(users as usize);
                Ok(tokens)
            }
            Self::Minted(auth, lifetime) => {
                let mint = |at| {
                    let user = UserId::parse(&name(at)).map_err(|error| error.to_string())?;
                    let grant = Grant { user: &user, name: None, role: None, tier: None };
                    let minted = auth
                        .mint(grant, lifetime, None)
                        .map_err(|error| format!("{error}. For tokens of your application, use --tokens FILE"))?;
                    Ok(UserToken { user, token: minted.token })
                };
                (0..users).map(mint).collect()
            }
        }
    }
}

/// The user of a token.
fn subject(token: &str) -> Option<UserId> {
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    serde_json::from_slice::<Subject>(&payload).ok().map(|subject| subject.sub)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_file_has_one_token_per_line() {
        let token = |claims: &str| format!("eyJhbGciOiJIUzI1NiJ9.{}.c2ln", URL_SAFE_NO_PAD.encode(claims));
        let read = |lines: &[String]| {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            file.write_all(lines.join("\n").as_bytes()).unwrap();
            Tokens::read(file.path()).and_then(|tokens| tokens.of(2, |_| unreachable!()))
        };
        let users = [token(r#"{"sub":"alice"}"#), String::new(), token(r#"{"sub":"bob"}"#), token(r#"{"sub":"eve"}"#)];
        let found = read(&users).unwrap();
        assert_eq!(found.iter().map(|one| one.user.as_str()).collect::<Vec<_>>(), ["alice", "bob"]);
        assert!(read(&[]).unwrap_err().contains("has no token"));
        for bad in ["secret".to_owned(), token(r#"{"name":"alice"}"#)] {
            let why = read(&[users[0].clone(), bad]).unwrap_err();
            assert!(why.contains("line 2") && !why.contains("secret"), "{why}");
        }
    }
}
