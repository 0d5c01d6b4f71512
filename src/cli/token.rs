//! `switchboard token`: makes a token. It alone goes to standard output.

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::{Failure, Outcome, print};
use crate::{
    auth::{Auth, Grant},
    config::{self, AuthConfig, Sources},
    model::{Clock, UserId},
};

/// Its flags, beside those of settings.
pub(super) fn command() -> Command {
    let text = |name: &'static str, help: &'static str| Arg::new(name).long(name).value_name("TEXT").help(help);
    Command::new("token").about("Make a token").args([
        text("user", "Whom it is for: the token's sub")
            .required(true)
            .value_parser(|text: &str| UserId::parse(text).map_err(|error| error.to_string())),
        text("name", "Their display name"),
        text("role", "Their role, as admin"),
        text("tier", "Their class for limits"),
        text("ttl", "How long it lives: 30m, 1h, 7d; default TOKEN_TTL").value_parser(config::duration),
        Arg::new("dev").long("dev").action(ArgAction::SetTrue).help("Sign with the secret of switchboard dev"),
    ])
}

/// Makes a token with JWT_SECRET, or with dev's secret.
pub(super) fn run(matches: &ArgMatches, sources: &Sources) -> Result<Outcome, Failure> {
    let auth = AuthConfig::load(matches.get_flag("dev"), sources)?;
    let text = |name| matches.get_one::<String>(name).map(String::as_str);
    let Some(user) = matches.get_one::<UserId>("user") else { return Ok(Outcome::Failed) };
    let grant = Grant { user, name: text("name"), role: text("role"), tier: text("tier") };
    let ttl = matches.get_one("ttl").copied().unwrap_or(auth.token_ttl);
    let minted = Auth::new(&auth, Clock::system()).map_err(Failure::runtime)?.mint(grant, ttl, None);
    print(&format!("{}\n", minted.map_err(Failure::runtime)?.token));
    Ok(Outcome::Done)
}
